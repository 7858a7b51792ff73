"""What the programs here share: options, the machine, lbdns, load by dnsperf, tables.

Servers run on some cores and the load on another one, all on loopback. The figure that holds on a
busy machine is CPU time per query: (user + system time of all processes of a server) / (queries
completed). Rounds alternate between the servers, and ratios are between figures of one round.
"""
import argparse
import collections
import contextlib
import dataclasses
import math
import os
import pathlib
import platform
import random
import re
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from server import NoAnswer, Server, fill, packet

LBDNS = pathlib.Path(__file__).resolve().parent.parent / "lbdns.py"
LBDNS_CONFIG = """\
listen = ["127.0.0.1:{port}"]
workers = {workers}
servers = {servers}
user = "root"
[zones."example.com"]
ns = ["ns1.example.com."]
records = '''
ns1 60 IN A 127.0.0.1
www 300 IN A 192.0.2.80
'''
"""
SO_TIMESTAMPNS = 35           # Linux: the kernel tells when a datagram came, however busy we are,
STAMP = struct.Struct("qq")   # in seconds and nanoseconds
VERSION = {"gdnsd": "-V", "knotd": "-V", "nsd": "-v", "named": "-v", "dnsperf": "-h"}


# ---- 1. The command line and the machine -------------------------------------------------------

def fail(sentence):
    """End with one sentence for the user, exit code 2."""
    print(f"{pathlib.Path(sys.argv[0]).name}: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def parser(description, rounds=True):
    """The options that all programs have, and those of programs that measure in rounds."""
    args = argparse.ArgumentParser(description=description,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds:
        args.add_argument("--rounds", type=int, default=3, help="their medians count (%(default)s)")
        args.add_argument("--seconds", type=float, default=3,
                          help="of each measurement (%(default)s)")
    args.add_argument("--lbdns", type=pathlib.Path, default=LBDNS, metavar="FILE",
                      help="the lbdns.py to measure (default: the one of this checkout)")
    args.add_argument("--python", default=sys.executable, metavar="FILE",
                      help="the Python that runs it (default: this one)")
    return args


def choose(option, text, known):
    """The words of a comma-separated option, all of them known."""
    words = [word for word in text.split(",") if word]
    for word in words:
        if word not in known:
            fail(f"{option} knows no {word!r}, only {', '.join(known)}.")
    return words


def split_cores(workers=1):
    """The cores for the servers and, in a list, the last one for the load; the same if only one."""
    *others, last = sorted(os.sched_getaffinity(0))
    return others[:workers] or [last], [last]


def installed(program):
    """Whether a program can be run."""
    return shutil.which(program) is not None


@contextlib.contextmanager
def workspace(options):
    """Check what every run needs: a folder that goes at the end, as what was started should."""
    if not sys.platform.startswith("linux"):
        fail("it reads CPU time from /proc, so it needs Linux.")
    if not installed(options.python):
        fail(f"{options.python} is not installed: --python.")
    options.python = os.path.abspath(shutil.which(options.python))   # servers run elsewhere
    if not options.lbdns.is_file():
        fail(f"there is no {options.lbdns}: --lbdns FILE.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # so that what was started is ended
    with tempfile.TemporaryDirectory(prefix="lbdns-bench-") as folder:
        try:
            yield pathlib.Path(folder)
        except NoAnswer as bad:
            fail(bad)
        except KeyboardInterrupt:
            raise SystemExit(130) from None


@contextlib.contextmanager
def prepared(options, workers=1):
    """A workspace for rounds of dnsperf, on the core of the load: (folder, cores of servers)."""
    if options.rounds < 1 or options.seconds <= 0:
        fail("it takes at least one round, and more than no seconds.")
    os.environ["PATH"] += ":/usr/sbin"   # where Debian has servers, but not in users' PATH
    if not installed("dnsperf"):
        fail("dnsperf is not installed: apt-get install dnsperf.")
    with workspace(options) as folder:
        servers, load = split_cores(workers)
        os.sched_setaffinity(0, load)   # inherited by dnsperf
        yield folder, servers


def version(*command):
    """The first version number that a program prints."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace")
    found = re.search(r"[A-Za-z] (\d+\.\d[\w.~+-]*)", done.stdout)   # Python 3.11.7, version 2.10
    return found[1] if found else "?"


def describe_machine(options, cores, programs=("dnsperf",)):
    """Print what the figures below depend on."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.M)
    print(f"machine: {model[1] if model else platform.machine()}, {os.cpu_count()} cores, "
          f"{platform.system()} {platform.release()}")
    print(f"cores: servers on {', '.join(map(str, cores))}; load on {max(os.sched_getaffinity(0))}")
    versions = [f"Python {version(options.python, '--version')}",
                f"lbdns {version(options.python, options.lbdns, '--version')}"]
    versions += [f"{program} {version(program, VERSION.get(program, '--version'))}"
                 for program in programs]
    print(f"versions: {', '.join(versions)}", flush=True)


# ---- 2. Servers and load -----------------------------------------------------------------------

def start_lbdns(options, pools, folder, cores, name="lbdns", workers=1, servers=1,
                top='log = "errors"\n'):
    """lbdns with these pools (TOML) beside two static names of example.com; `top` are more words
    of the config's top level."""
    config = top + fill(LBDNS_CONFIG, workers=workers, servers=servers) + pools
    return Server(name, [options.python, options.lbdns.resolve(), "{folder}/lbdns.toml"],
                  {"lbdns.toml": config}, folder, cores)


def mixed(name, dice):
    """A name in random case, as resolvers ask that protect themselves so (0x20)."""
    bits = dice.getrandbits(len(name))
    return "".join(c.upper() if bits >> at & 1 else c for at, c in enumerate(name))


def anti_cache(count, pools=("api.example.com",)):
    """This many different names that end with names of pools, in turn."""
    dice = random.Random(count)
    return [mixed(f"{1596207957 + n}-{pools[n % len(pools)]}", dice) for n in range(count)]


@dataclasses.dataclass
class Cost:
    """What some load cost a server: CPU us per query, and what came of the queries."""
    user: float
    system: float
    rate: float   # queries completed per second
    lost: int

    @property
    def total(self):
        """CPU us per query, user and system."""
        return self.user + self.system


def dnsperf(server, queries, *words, window=400):
    """What it costs a server to be asked a file of queries, `window` on their way at a time."""
    before = server.cpu()
    done = subprocess.run(
        ["dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-d", str(queries), "-T", "1",
         "-c", "8", "-q", str(window), "-t", "2", *map(str, words)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    used = [after - early for after, early in zip(server.cpu(), before, strict=True)]
    found = dict(re.findall(r"^ +(Queries [a-z ]+): +([\d.]+)", done.stdout, re.M))
    if "Queries completed" not in found:
        fail(f"dnsperf measured nothing of {server.name}: dnsperf {' '.join(done.args[1:])}.")
    for error in re.findall(r"(?:FORMERR|SERVFAIL|NOTIMP|REFUSED) \d+", done.stdout):
        print(f"note: answered by {server.name}: {error}", file=sys.stderr)
    completed = int(found["Queries completed"])
    user, system = (us / completed if completed else math.nan for us in used)
    return Cost(user, system, float(found["Queries per second"]), int(found["Queries lost"]))


def asker(port):
    """A socket that asks a server here, and never waits; replies are for `receive`."""
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.connect(("127.0.0.1", port))
    return sock


def receive(sock):
    """When a reply came (unix time), and its octets; raises OSError if there is none."""
    reply, control, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(STAMP.size))
    seconds, nanoseconds = STAMP.unpack(control[0][2])
    return seconds + nanoseconds / 1e9, reply


def ask_steadily(port, names, rate, seconds):
    """Ask this many queries a second; returns the milliseconds that each answer took, sorted, and
    how many got none."""
    taken, sent = [], {}
    with asker(port) as client:
        begun, number, total = time.perf_counter(), 0, round(rate * seconds)
        while number < total or (sent and time.perf_counter() < begun + seconds + 2):
            now = time.perf_counter()
            while number < total and begun + number / rate <= now:
                sent[number & 0xFFFF] = time.time()
                client.send(packet(number & 0xFFFF, names[number % len(names)]))
                number += 1
            pause = begun + number / rate - time.perf_counter() if number < total else 0.1
            if select.select([client], [], [], max(0, pause))[0]:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        came, reply = receive(client)
                        taken.append(1000 * (came - sent.pop(int.from_bytes(reply[:2], "big"))))
    return sorted(taken), len(sent)


def interleave(options, works, servers, measure):
    """{(work, server's name): a result of each round}; every other round goes backwards.

    `measure` says None for what does not apply.
    """
    results = collections.defaultdict(list)
    for number in range(options.rounds):
        for work in works:
            print(f"round {number + 1} of {options.rounds}: {work}", file=sys.stderr)
            for server in servers[::-1 if number % 2 else 1]:
                result = measure(work, server)
                if result:
                    results[work, server.name].append(result)
    return dict(results)


# ---- 3. Tables ---------------------------------------------------------------------------------

def median(values):
    """The median of what could be measured."""
    return statistics.median([value for value in values if not math.isnan(value)] or [math.nan])


def ratio(results, base):
    """The median over the rounds of one server's cost as a multiple of another's."""
    return median(ours.total / theirs.total if theirs.total else math.nan
                  for ours, theirs in zip(results, base, strict=False))


def middle(results, field):
    """The median over the rounds of a field of the results."""
    return median(getattr(result, field) for result in results)


def show(cell):
    """A cell of a table as text: numbers with three digits or more, "-" for what is not known."""
    if isinstance(cell, (str, int)):
        return f"{cell:,}" if isinstance(cell, int) else cell
    return "-" if math.isnan(cell) else f"{cell:,.2f}" if cell < 100 else f"{cell:,.0f}"


def row(*cells):
    """Print a line of a table, at once."""
    first, *others = map(show, cells)
    print(f"{first:17}" + "".join(f"{cell:>11}" for cell in others), flush=True)
