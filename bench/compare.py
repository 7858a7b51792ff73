"""lbdns beside other authoritative DNS servers, on the same zone and the same load.

Measures whichever of these are installed (Debian packages): gdnsd, knot, nsd, named (bind9), pdns
(pdns-server and pdns-backend-bind), with dnsperf; and echo, a bare Python loop that only sends
queries back: what no server written in Python can go below without batching.

example.com holds ns1, www and the pool api.example.com of three addresses, of which an answer has
one, also for names that end in it. gdnsd and pdns pick likewise, for a wildcard; the others know
no pools and answer one address for a wildcard, so that their replies are as large.

The loads:
  fixed    api.example.com A, without EDNS
  anti     names that end in it, each another one, in mixed case, with EDNS
  cookie   the same with a client cookie
  mix      70 % as in anti, 15 % AAAA of the pool, 10 % www, 5 % names that do not exist
  nx       names that do not exist
  tcp      anti, over 8 TCP connections
  q1k, q5k, q20k
           anti at 1,000, 5,000 and 20,000 queries/s: what waking up costs; also of lbdns2, which is
           lbdns with two workers on the same cores
  latency  anti at a fixed rate, whatever comes back: p50 and p99

us/query is the CPU time of all processes of a server per query completed. It holds while other
things run, or when dnsperf is the slower side; q/s then does not.
"""
import array
import contextlib
import dataclasses
import functools
import random
import socket
import statistics
import time

from common import (anti_cache, choose, describe_machine, dnsperf, fail, installed, interleave,
                    median, middle, mixed, parser, prepared, ratio, row, start_lbdns)
from peers import PEERS
from server import Server, fill, packet

OURS = {"lbdns": 1, "lbdns2": 2}   # workers
NAMES = 100_000   # in each file of queries, which dnsperf reads again when it has come to its end
POOL = """
[pools."api.example.com"]
policy = "random"
ttl = 60
backends = ["1.2.3.4", "8.8.4.4", "8.8.8.8"]
"""


# ---- 1. The servers ----------------------------------------------------------------------------

def command(name, options):
    """The command line of a peer."""
    return [fill(word, python=options.python) for word in PEERS[name].words]


def start(name, options, folder, cores):
    """One of the servers, ready to answer."""
    if name in OURS:
        return start_lbdns(options, POOL, folder, cores, name, OURS[name])
    return Server(name, command(name, options), PEERS[name].files, folder, cores)


def which_servers(options, cores):
    """Print the machine; the servers to measure: those asked for, or those that are installed."""
    known = [*OURS, *PEERS]
    names = choose("--only", options.only or ",".join(known), known)
    programs = {name: command(name, options)[0] for name in names if name in PEERS}
    missing = {name: program for name, program in programs.items() if not installed(program)}
    if options.only and missing:
        fail(f"not installed: {', '.join(missing.values())}.")
    describe_machine(options, cores, ["dnsperf", *(
        program for name, program in programs.items() if name not in missing and name != "echo")])
    if missing:
        print(f"not installed, so left out: {', '.join(missing)}")
    return [name for name in names if name not in missing]


# ---- 2. The loads ------------------------------------------------------------------------------

@functools.cache   # three loads and a part of "mix" ask the same
def anti():
    """The lines of the loads of names that end with the pool's."""
    return [f"{name} A" for name in anti_cache(NAMES)]


def absent(number):
    """The line for a name that does not exist: no wildcard of the zone reaches below www."""
    return f"x{number}.www.example.com A"


def mix():
    """The lines of the load "mix"."""
    dice = random.Random(NAMES)
    for line in anti():
        chance = dice.random()
        if chance < 0.70:
            yield line
        elif chance < 0.85:
            yield mixed("api.example.com", dice) + " AAAA"
        else:
            yield "www.example.com A" if chance < 0.95 else absent(dice.randrange(NAMES))


LOADS = {   # name -> lines of queries, dnsperf's options
    "fixed": (lambda: ["api.example.com A"], []),
    "anti": (anti, ["-e"]),
    "cookie": (anti, ["-E", "10:0011223344556677"]),
    "mix": (mix, ["-e"]),
    "nx": (lambda: map(absent, range(NAMES)), ["-e"]),
    "tcp": (anti, ["-e", "-m", "tcp"]),
    "q1k": (anti, ["-e", "-Q", "1000"]),
    "q5k": (anti, ["-e", "-Q", "5000"]),
    "q20k": (anti, ["-e", "-Q", "20000"]),
}
LOW = ("q1k", "q5k", "q20k", "latency")   # where two workers could be in each other's way


@dataclasses.dataclass
class Latency:
    """What was seen of a fixed rate: times in us, queries answered per second, queries lost."""
    p50: float
    p99: float
    rate: float
    lost: int


def offer(server, rate, seconds):
    """Ask at a fixed rate over UDP, and time each answer from when its query was due.

    Not with dnsperf -Q: when a server is slow, or the load's core busy, it sends late and less, and
    times from the late sending, so that the waits which clients would see are left out.
    """
    count = int(rate * seconds)
    names = anti_cache(min(count, 1 << 16))   # the place of a name is the id of its query
    queries = [packet(ident, name, edns=True) for ident, name in enumerate(names)]
    due, waits, sent = array.array("d", bytes(8 * len(names))), array.array("d"), 0
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.connect(("127.0.0.1", server.port))
        sock.setblocking(False)
        began = now = last = time.perf_counter()
        while now < began + seconds + 1 and len(waits) < count:
            if sent < count and began + sent / rate <= now:
                due[sent % len(names)] = began + sent / rate
                sock.send(queries[sent % len(names)])
                sent += 1
            try:
                ident = int.from_bytes(sock.recv(4096)[:2], "big")
                last = time.perf_counter()
                waits.append(last - due[ident])
            except BlockingIOError:   # no sleep: to be woken would count as the server's time
                pass
            now = time.perf_counter()
    cuts = statistics.quantiles(waits, n=100) if len(waits) > 1 else [float("nan")] * 99
    answered = len(waits) / max(seconds, last - began)
    return Latency(1e6 * cuts[49], 1e6 * cuts[98], answered, count - len(waits))


# ---- 3. Tables ---------------------------------------------------------------------------------

def show_costs(options, works, servers, load):
    """Measure and print what each load costs each server."""
    names = [server.name for server in servers]
    base = next(name for name in [*PEERS, *OURS] if name in names)
    results = interleave(options, works, servers, load)
    row("load", "server", "us/query", "user", "system", "q/s", "lost", f"/ {base}")
    for work, name in results:
        got = results[work, name]
        row(work, name, median(cost.total for cost in got), middle(got, "user"),
            middle(got, "system"), middle(got, "rate"), round(middle(got, "lost")),
            ratio(got, results.get((work, base), [])))


def show_latency(options, servers):
    """Measure and print how long answers take at a fixed rate."""
    results = interleave(options, ["latency"], servers,
                         lambda work, server: offer(server, options.rate, options.seconds))
    row(f"at {options.rate:,} q/s", "server", "p50 us", "p99 us", "answered/s", "lost")
    for (work, name), got in results.items():
        row(work, name, middle(got, "p50"), middle(got, "p99"), middle(got, "rate"),
            round(middle(got, "lost")))


def show_size(options, names, servers, folder, cores):
    """Print the servers' memory as it is now, and how long new ones take to start."""
    starts = {name: [] for name in names}
    for _ in range(options.starts):
        for name in names:
            with start(name, options, folder, cores) as server:
                starts[name].append(1000 * server.start_time)
    row("", "server", "RSS MiB", "PSS MiB", "start ms")
    for server in servers:
        row("after the loads", server.name, *server.memory(), median(starts[server.name]))


def main():
    """The command line."""
    args = parser(__doc__)
    args.add_argument("--only", metavar="A,B", help=f"of {', '.join([*OURS, *PEERS])}")
    args.add_argument("--work", metavar="A,B", default=",".join([*LOADS, "latency"]),
                      help="the loads (%(default)s)")
    args.add_argument("--rate", type=int, default=20_000, help="q/s for latency (%(default)s)")
    args.add_argument("--starts", type=int, default=5, help="of each server (%(default)s)")
    options = args.parse_args()
    works = choose("--work", options.work, [*LOADS, "latency"])
    with prepared(options) as (folder, cores), contextlib.ExitStack() as stack:
        names = which_servers(options, cores)
        servers = [stack.enter_context(start(name, options, folder, cores)) for name in names]
        costs = [work for work in works if work != "latency"]
        for work in costs:
            (folder / work).write_text("".join(f"{line}\n" for line in LOADS[work][0]()))

        def load(work, server):
            """One measurement; echo has no TCP, lbdns2 is for low loads."""
            if (server.name == "echo" and work == "tcp"
                    or server.name == "lbdns2" and work not in LOW):
                return None
            return dnsperf(server, folder / work, "-l", options.seconds, *LOADS[work][1])
        if costs:
            show_costs(options, costs, servers, load)
        if "latency" in works:
            show_latency(options, servers)
        show_size(options, names, servers, folder, cores)


if __name__ == "__main__":
    main()
