"""A fleet of WebSockets on one host, as the README's first example has it, by hand: RFC 6455.

    python3 bench/websockets.py serve PORT          a backend: open what clients ask for, and wait
    python3 bench/websockets.py join PORT NUMBER    as many clients, which stay for a minute
"""
import asyncio
import base64
import hashlib
import http.client
import sys
import time

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
STAY = 60                                       # seconds


async def serve(reader, writer):
    """Open a WebSocket by the headers of its request, and hold it until the client leaves."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = next(line.partition(":")[2].strip() for line in head.split("\r\n")
               if line.lower().startswith("sec-websocket-key:"))
    proof = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    writer.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                 f"Upgrade: websocket\r\nSec-WebSocket-Accept: {proof}\r\n\r\n".encode())
    await reader.read()
    writer.close()


async def listen(port):
    """Serve on a port of loopback until the process ends."""
    await (await asyncio.start_server(serve, "127.0.0.1", port)).serve_forever()


def join(port):
    """Open a WebSocket; returns it with the server's response, which has to be 101."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("GET", "/", headers={
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(b"sixteen octets..").decode()})
    response = client.getresponse()
    if response.status != 101:
        sys.exit(f"port {port}: status {response.status} instead of 101")
    return client, response


def main():
    """Do what the first word of the command line says."""
    if len(sys.argv) == 3 and sys.argv[1] == "serve":
        asyncio.run(listen(int(sys.argv[2])))
    elif len(sys.argv) == 4 and sys.argv[1] == "join":
        held = [join(int(sys.argv[2])) for _ in range(int(sys.argv[3]))]
        time.sleep(STAY)
        del held
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
