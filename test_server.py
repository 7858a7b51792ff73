"""Tests of lbdns.py: `answer` with literals, and the real server as a subprocess over real sockets.

Everything runs on loopback on ports the kernel picks. Tests that need other programs (dig, unbound,
named, ...) say so and are skipped where these are missing; CI installs them and allows no skip.
LBDNS_DIR names the folder with the lbdns.py to test (default: beside this file), so that the same
tests run against the bundled single file. A test of a row of FEATURES carries its number: test_row_06.
"""
import contextlib
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = pathlib.Path(os.environ.get("LBDNS_DIR", HERE)).resolve()
SCRIPT = FOLDER / "lbdns.py"
PYTHON = [sys.executable, "-E", "-s", "-S"]   # no site-packages: the standard library is enough
PATIENCE = 20.0                               # seconds after which waiting for something has failed


def load_module():
    """lbdns.py of FOLDER as a module (and its wire.py, unless it is the bundle)."""
    if (FOLDER / "wire.py").exists():
        sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("lbdns", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["lbdns"] = module
    spec.loader.exec_module(module)
    return module


lbdns = load_module()
wire = lbdns.wire

ZONE = """
[zones."example.com"]
ns = ["ns1.example.com.", "ns2.example.com."]
records = '''
ns1  300 A     127.0.0.1
ns2  300 A     127.0.0.2
www  300 A     192.0.2.80
'''
"""
POOL = """
[pools."api.example.com"]
backends = ["1.2.3.4", "8.8.4.4", "8.8.8.8"]
"""


def free_port():
    """A port that is free for UDP and TCP on loopback."""
    for _ in range(50):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]
    raise OSError("no port is free for both")


def query(name, rtype="A", ident=4711, flags=0, opt=None, payload=1232, opt_flags=0, options=b"",
          qclass=1):
    """A query's octets. `opt` None: OPT only when `options` or `opt_flags` ask for one."""
    with_opt = bool(options or opt_flags) if opt is None else opt
    body = wire.parse_name(name) + wire.parse_type(rtype).to_bytes(2, "big") + qclass.to_bytes(2, "big")
    header = b"".join(n.to_bytes(2, "big") for n in (ident, flags, 1, 0, 0, int(with_opt)))
    tail = b"\0\0\x29" + payload.to_bytes(2, "big") + opt_flags.to_bytes(4, "big")
    tail += len(options).to_bytes(2, "big") + options
    return header + body + (tail if with_opt else b"")


class Answer:
    """A reply, decoded strictly: rcode, flags as words, and records as text by section."""

    def __init__(self, octets):
        self.octets = octets
        message = wire.decode_message(octets)
        self.id, self.questions = message.id, message.questions
        self.opt = next((r for r in message.sections[2] if r.type == wire.OPT), None)
        self.rcode = message.flags & 15 | (self.opt.ttl >> 24 << 4 if self.opt else 0)
        bits = (("qr", 0x8000), ("aa", 0x400), ("tc", 0x200), ("rd", 0x100), ("ra", 0x80),
                ("z", 0x40), ("ad", 0x20), ("cd", 0x10))
        self.flags = " ".join(word for word, bit in bits if message.flags & bit)
        self.answer, self.authority, self.additional = (
            [self.show(r) for r in section if r.type != wire.OPT] for section in message.sections)
        self.options = {}
        at = 0
        while self.opt and at < len(self.opt.rdata):
            code, size = (int.from_bytes(self.opt.rdata[at + n:at + n + 2], "big") for n in (0, 2))
            self.options[code] = self.opt.rdata[at + 4:at + 4 + size]
            at += 4 + size

    @staticmethod
    def show(record):
        """owner TTL TYPE rdata"""
        return (f"{wire.show_name(record.owner)} {record.ttl} {wire.show_type(record.type)} "
                f"{wire.show_rdata(record.type, record.rdata)}")

    @property
    def rdatas(self):
        """The rdata of the answer section, as text."""
        return [line.split(" ", 3)[3] for line in self.answer]

    @property
    def types(self):
        """The types of the authority section."""
        return [line.split(" ", 3)[2] for line in self.authority]


class Server:
    """A running lbdns: `with Server(config_text) as server: server.ask("api.example.com")`.

    config None = no config file; `words` are then the command line. The folder of the config is
    `server.folder`, writable by the user that the server becomes when the tests run as root.
    """

    def __init__(self, config=None, words=(), workers=1, script=SCRIPT, env=None, files=(),
                 wait=True, listen=None, log="queries", port=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lbdns-test-"))
        self.folder.chmod(0o777)
        self.port = port or free_port()
        self.config = self.folder / "lbdns.toml"
        self.head = (f"listen = {listen or ['127.0.0.1:%d' % self.port]!r}\nworkers = {workers}\n"
                     f"log = {log!r}\n")
        for name, text in dict(files).items():
            (self.folder / name).write_text(text)
        if config is not None:
            self.write(config)
            words = [str(self.config)]
        self.stderr = open(self.folder / "log", "w+b")
        self.process = subprocess.Popen(
            [*PYTHON, str(script), *words], cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=self.stderr, env={**os.environ, **(env or {})})
        if wait:
            self.wait_for(r" ready$")

    def write(self, config):
        """(Re)write the config file; the listen address and the like stand before the text."""
        self.config.write_text(self.head + config)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.stderr.close()
        text = self.log()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert "internal error" not in text and "Traceback" not in text, text

    def log(self):
        """All it has logged so far."""
        return (self.folder / "log").read_text(errors="replace") if self.folder.exists() else ""

    def wait_for(self, pattern, count=1):
        """Wait until the log matches a pattern (MULTILINE) `count` times; returns the last match."""
        def found():
            matches = re.findall(pattern, self.log(), re.M)
            return matches[count - 1:]
        return until(found, lambda: f"no {pattern!r} in the log:\n{self.log()}")[-1]

    def signal(self, number):
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def reload(self):
        """SIGHUP, and wait until it was taken or refused."""
        done = len(re.findall(r" reloaded:|reload: refused", self.log()))
        self.signal(signal.SIGHUP)
        self.wait_for(r" reloaded:|reload: refused", done + 1)

    def exchange(self, octets, host="127.0.0.1", timeout=5.0, source=None):
        """Send a datagram and return the reply's octets; None when none comes in time."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            if source:
                sock.bind((source, 0))
            sock.settimeout(timeout)
            sock.connect((host, self.port))   # connected: only replies from the asked address count
            sock.send(octets)
            try:
                return sock.recv(65535)
            except TimeoutError:
                return None

    def ask(self, name, rtype="A", host="127.0.0.1", source=None, **options):
        """One query over UDP, decoded."""
        octets = self.exchange(query(name, rtype, **options), host, source=source)
        assert octets is not None, f"no reply to {name} {rtype}\n{self.log()}"
        return Answer(octets)

    def ask_tcp(self, *octets, host="127.0.0.1"):
        """Queries pipelined over one TCP connection; returns the replies' octets."""
        with socket.create_connection((host, self.port), 5) as sock:
            sock.sendall(b"".join(len(each).to_bytes(2, "big") + each for each in octets))
            return [read_frame(sock) for _ in octets]

    def pids(self):
        """Process ids of the children, by their order of start."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in pathlib.Path(path).read_text().split()]


def read_frame(sock):
    """One length-prefixed message from a socket; b"" at its end."""
    def exactly(size):
        octets = b""
        while len(octets) < size:
            piece = sock.recv(size - len(octets))
            if not piece:
                return b""
            octets += piece
        return octets
    size = exactly(2)
    return exactly(int.from_bytes(size, "big")) if size else b""


def until(condition, complaint=lambda: "waited in vain"):
    """Wait for a condition to return something true, and return it."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(complaint())


def needs(*programs):
    """Skip a test where programs are missing; CI has them all and allows no skip."""
    missing = [program for program in programs if not shutil.which(program)]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


class LiveSmoke(unittest.TestCase):
    def test_smoke(self):
        with Server(ZONE + POOL) as server:
            self.assertIn(server.ask("api.example.com").rdatas[0], ("1.2.3.4", "8.8.4.4", "8.8.8.8"))
            server.reload()
            self.assertEqual(server.ask("nope.example.com").rcode, wire.NXDOMAIN)
            print(server.log())


if __name__ == "__main__":
    unittest.main()
