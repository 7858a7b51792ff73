#!/usr/bin/env python3
"""What the agent's count costs: CPU time a count, with many connections to a port, on loopback.

Some processes hold the connections, both ends of each, as many as their limit of open files allows.
So there are twice as many sockets in the kernel's table as a backend with these connections has.
"""
import contextlib
import importlib.util
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
import time

from common import fail, median, parser, row, workspace

PROCESSES_MAX = 64        # that hold connections
RESERVE = 100             # files that each of them may have open beside those
PATIENCE = 60             # seconds that opening them may take
LISTERS = {"netlink": "list_by_netlink", "proc": "list_by_proc"}


def load(file):
    """The lbdns.py to measure, as a module."""
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location("lbdns", file)
    module = sys.modules["lbdns"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hold(address, number, ready):
    """Be a process that holds connections to a port until it is ended; an octet says when."""
    held = []
    with socket.create_server(address, backlog=1024) as listener:
        with contextlib.suppress(OSError):   # the rest of them is missing, as the table says
            for _ in range(number):
                pair = socket.create_connection(address), listener.accept()[0]
                for sock in pair:   # closed by a reset, or it stays in the table for a minute
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                held += pair
        os.write(ready, b".")
        signal.pause()


@contextlib.contextmanager
def connections(number):
    """A port with this many connections, or as many as can be had."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):   # only root may
        resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))
        most = 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    each = min((most - RESERVE) // 2, 25_000)   # an address has 28,000 ports for clients
    shares = [min(each, number - at) for at in range(0, number, each)][:PROCESSES_MAX]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ready, said = os.pipe()
    pids = []
    try:
        for at, share in enumerate(shares, 1):
            pid = os.fork()
            if not pid:
                try:
                    hold((f"127.0.{1 + at}.1", port), share, said)
                finally:
                    os._exit(1)
            pids.append(pid)
        os.close(said)
        limit = time.monotonic() + PATIENCE
        for _ in pids:
            if not select.select([ready], [], [], max(0, limit - time.monotonic()))[0] \
                    or not os.read(ready, 1):
                fail(f"{number:,} connections cannot be opened here.")
        yield port
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(ready)


def measure(lbdns, lister, port, rounds):
    """CPU ms of a count, the median of the rounds, the wall time likewise, and what was counted."""
    options = lbdns.agent_words(["bench.example", str(port)])
    agent = lbdns.Agent(options, lbdns.Log())
    agent.list_sockets = getattr(lbdns, lister)
    cpu, wall = [], []
    for _ in range(rounds + 1):   # the first one, which has nothing to compare with, is left out
        used, start = time.process_time(), time.perf_counter()
        agent.count()
        cpu.append((time.process_time() - used) * 1000)
        wall.append((time.perf_counter() - start) * 1000)
    return median(cpu[1:]), median(wall[1:]), agent.loads[port].get("connections", 0)


def main():
    """Measure both ways to count, with all numbers of connections."""
    args = parser(__doc__, rounds=False)
    args.add_argument("--rounds", type=int, default=5, help="their medians count (%(default)s)")
    args.add_argument("--connections", type=int, nargs="+", default=[1000, 20_000, 100_000],
                      metavar="N", help="to the port (1000 20000 100000)")
    options = args.parse_args()
    if options.rounds < 1 or min(options.connections) < 1:
        fail("it takes at least one round, and one connection.")
    with workspace(options):
        lbdns = load(options.lbdns)
        print(f"machine: {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
              f"Python {platform.python_version()}\n")
        row("connections", "by", "counted", "CPU ms", "wall ms")
        for number in options.connections:
            with connections(number) as port:
                for name, lister in LISTERS.items():
                    cpu, wall, counted = measure(lbdns, lister, port, options.rounds)
                    row(f"{number:,}", name, counted, cpu, wall)


if __name__ == "__main__":
    main()
