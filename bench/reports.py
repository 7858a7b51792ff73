"""What the reports of agents cost a name server, and whether it hears all of them.

First one lbdns with a worker and a pool of --backends, on all cores. It is asked 1,000 queries/s
from the last core in --rounds rounds, in each of them --seconds for a line:
  quiet    nobody reports
  reports  each backend reports once a second
  forged   and --forged datagrams a second come beside, signed with another key
The columns: queries lost; milliseconds that half, 99 % and all of the answers took; by how much the
99 % are above those of quiet in the same round; datagrams sent a second; the share of a core that
the monitor used; and the datagrams that the kernel dropped, since they were not taken from the
socket in time. All are medians over the rounds, but what is lost and dropped are sums. What is not
dropped was heard or refused, and what was refused other than forged datagrams is printed.

Then four lbdns hear eight agents, real ones, that report every second. The name servers are stopped
(SIGSTOP) by turns, each for a fifth of --stopped seconds and then for as long as makes a quarter of
them it goes on; but the last one is ended (SIGTERM). A line for each turn says how many datagrams
the kernel dropped for the other three, and how often one of them found that an agent was silent:
after 2.2 s, so that one report which is not sent shows at times, and two in a row nearly always. At
last the agents are killed, which shows that silences are seen: eight by each of three.
"""
import contextlib
import multiprocessing
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import time

from common import (anti_cache, ask_steadily, describe_machine, fail, median, parser, row,
                    split_cores, start_lbdns, workspace)
from server import fill, free_port

POOL = """
[pools."api.example.com"]
policy = "least-connections"
stale = {stale}
source = { reports = true }
"""
TOP = """
log = "{log}"
reports = ["{host}:{reports}"]
reports_key = "{key}"
"""
QUERIES = 1_000          # a second
TICK = 0.002             # seconds between two turns of the sender
AGENTS, SERVERS = 8, 4
STALE = 2.2              # seconds: one between two reports, another one until rows are made of them
STOPPED_PART = 0.8       # of a turn


def make_key(folder):
    """The path of a new key."""
    path = folder / "reports.key"
    path.touch(0o600)
    path.write_text(secrets.token_hex(32))
    return path


def dropped(port):
    """How many datagrams the kernel has dropped that came to a port of UDP."""
    lines = pathlib.Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(fields[-1]) for fields in map(str.split, lines)
               if int(fields[1].rpartition(":")[2], 16) == port)


# ---- 1. Many backends, and forgers ---------------------------------------------------------------

def send(port, keys, backends, forged, sent):
    """Report for ever as many backends do, each once a second, beside this many forged datagrams a
    second; how many of both were sent is counted in `sent`."""
    import lbdns
    parent, begun = os.getppid(), time.perf_counter()
    good, bad = keys
    body = {"pool": "api.example.com", "address": "10.0.0.1", "connections": 1}
    forgery = lbdns.seal_report(bad, {**body, "updated_at": time.time()})
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        while os.getppid() == parent:
            seconds = time.perf_counter() - begun
            for number in range(sent[0], int(seconds * backends)):
                which = number % backends
                body = {**body, "address": f"10.0.{which >> 8}.{which & 255}", "state": "up",
                        "connections": 100 + number * 7919 % 50, "agent": f"host{which}",
                        "opened": number, "updated_at": time.time()}
                sock.sendto(lbdns.seal_report(good, body), ("127.0.0.1", port))
                sent[0] += 1
            for _ in range(sent[1], int(seconds * forged)):
                sock.sendto(forgery, ("127.0.0.1", port))
                sent[1] += 1
            time.sleep(TICK)


@contextlib.contextmanager
def sending(port, keys, backends, forged):
    """Yield how many reports and forged datagrams are sent meanwhile."""
    sent = multiprocessing.get_context("fork").Array("q", 2, lock=False)
    process = multiprocessing.get_context("fork").Process(
        target=send, args=(port, keys, backends, forged, sent), daemon=True)
    process.start()
    try:
        yield sent
    finally:
        process.kill()
        process.join()


def measure(server, port, seconds, names, sent):
    """What happens while a server is asked: (lost, ms of 50 %, 99 %, all, datagrams a second, the
    monitor's share of a core in %, datagrams dropped)."""
    before = sum(sent), sum(server.cpu("lbdns-monitor")), dropped(port), time.perf_counter()
    taken, lost = ask_steadily(server.port, names, QUERIES, seconds)
    after = sum(sent), sum(server.cpu("lbdns-monitor")), dropped(port), time.perf_counter()
    datagrams, used, drops, took = (late - early for late, early in zip(after, before, strict=True))
    return (lost, *(taken[round(part * (len(taken) - 1))] for part in (0.5, 0.99, 1)),
            datagrams / took, used / 1e4 / took, drops)


def show_load(options, folder, cores):
    """Measure many backends, and forgers beside them, and print their lines. Returns how many
    queries were lost, and datagrams dropped."""
    port, path, names = free_port(), make_key(folder), anti_cache(2_000)
    keys = bytes.fromhex(path.read_text()), secrets.token_bytes(32)
    loads = {"quiet": (0, 0), "reports": (options.backends, 0),
             "forged": (options.backends, options.forged)}
    found = {name: [] for name in loads}
    top = fill(TOP, log="errors", host="127.0.0.1", reports=port, key=path)
    with contextlib.ExitStack() as stack:
        with sending(port, keys, options.backends, 0) as sent:
            server = stack.enter_context(start_lbdns(
                options, fill(POOL, stale=86400), folder, cores, "reports", top=top))
            while sent[0] < 2 * options.backends:
                time.sleep(0.1)
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for name, load in loads.items():
                with sending(port, keys, *load) as sent:
                    time.sleep(min(1, options.seconds))
                    found[name].append(measure(server, port, options.seconds, names, sent))
        row("load", "lost", "ms, 50 %", "99 %", "100 %", "99 %, more", "sent/s", "monitor",
            "dropped")
        missed = 0
        for name, results in found.items():
            lost, half, most, longest, rates, shares, drops = zip(*results, strict=True)
            more = [late - quiet[2] for late, quiet in zip(most, found["quiet"], strict=True)]
            row(name, sum(lost), *map(median, (half, most, longest, more)), round(median(rates)),
                f"{median(shares):.1f} %", sum(drops))
            missed += sum(lost) + sum(drops)
        for line in (server.folder / "log").read_text().splitlines():
            if "signed with none of our keys" not in line:
                print(f"note: {line}")
    return missed


# ---- 2. Name servers that stop ------------------------------------------------------------------

class Log:
    """What a server logs from now on."""
    def __init__(self, server):
        self.path = server.folder / "log"
        self.seen = self.path.stat().st_size

    def silences(self):
        """How many agents it has found silent since this was asked last."""
        with open(self.path, encoding="utf-8") as log:
            log.seek(self.seen)
            text, self.seen = log.read(), self.path.stat().st_size
        return text.count(" up -> down, ")   # the agents' port is open, so nothing else is down


@contextlib.contextmanager
def agents(options, folder, reports, key):
    """Run real agents of a port of ours, at which nobody has a connection; yields them."""
    with contextlib.ExitStack() as stack:
        running = []
        port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        for number in range(AGENTS):
            words = [options.python, options.lbdns.resolve(), "agent", "api.example.com", port,
                     "--address", f"127.1.0.{number + 1}", "--to", ",".join(reports), "--key", key]
            log = stack.enter_context(open(folder / f"agent-{number}", "wb"))
            agent = subprocess.Popen([str(word) for word in words], cwd=folder, stdout=log,
                                     stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
            stack.callback(agent.wait)
            stack.callback(agent.kill)
            running.append(agent)
        yield running


def stop(server, last, seconds):
    """Stop a server for a part of its turn, or end it."""
    if last:
        server.process.terminate()
        time.sleep(seconds)
        return
    os.killpg(server.process.pid, signal.SIGSTOP)
    try:
        time.sleep(STOPPED_PART * seconds)
    finally:
        os.killpg(server.process.pid, signal.SIGCONT)
    time.sleep((1 - STOPPED_PART) * seconds)


def show_stops(options, folder, cores):
    """Stop name servers by turns, and print a line for each. Returns how many datagrams the others
    dropped, and how often they found an agent silent that was not."""
    missed = 0
    key = make_key(folder)
    hosts = [(f"127.3.0.{number + 1}", free_port()) for number in range(SERVERS)]
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(agents(
            options, folder, [f"{host}:{port}" for host, port in hosts], key))
        servers = [stack.enter_context(start_lbdns(
            options, fill(POOL, stale=STALE), folder, cores, f"lbdns-{number}",
            top=fill(TOP, log="changes", host=host, reports=port, key=key)))
            for number, (host, port) in enumerate(hosts)]
        time.sleep(min(3, options.stopped))
        row("stopped", "seconds", "dropped", "silences")
        for number, server in enumerate(servers):
            others = [(Log(each), port) for each, (_, port) in zip(servers, hosts, strict=True)
                      if each is not server]
            before = sum(dropped(port) for _, port in others)
            last = server is servers[-1]
            stop(server, last, options.stopped / SERVERS)
            drops = sum(dropped(port) for _, port in others) - before
            silences = sum(log.silences() for log, _ in others)
            row("ended" if last else f"number {number + 1}",
                options.stopped / SERVERS * (1 if last else STOPPED_PART), drops, silences)
            missed += drops + silences
        for agent in running:
            agent.kill()
        time.sleep(STALE + 2)
        row("agents killed", STALE + 2, sum(dropped(port) for _, port in others) - before,
            sum(log.silences() for log, _ in others))
    return missed


def main():
    """The command line."""
    args = parser(__doc__)
    args.add_argument("--backends", type=int, default=1_000, metavar="N",
                      help="that report each second (%(default)s)")
    args.add_argument("--forged", type=int, default=20_000, metavar="N",
                      help="forged datagrams a second (%(default)s)")
    args.add_argument("--stopped", type=float, default=60, metavar="SECONDS",
                      help="for all turns in which name servers are stopped (%(default)s)")
    options = args.parse_args()
    if options.rounds < 1 or options.seconds <= 0 or options.backends < 1:
        fail("it takes at least one round, more than no seconds, and a backend.")
    with workspace(options) as folder:
        sys.path.insert(0, str(options.lbdns.resolve().parent))   # for `send`
        cores = os.sched_getaffinity(0)   # for lbdns all of them: monitor and worker part
        os.sched_setaffinity(0, split_cores()[1])   # inherited by the sender and the agents
        describe_machine(options, cores, ())
        missed = show_load(options, folder, cores) + show_stops(options, folder, cores)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
