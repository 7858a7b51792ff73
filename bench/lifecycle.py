#!/usr/bin/env python3
"""What lbdns and its peers do in the hard moments of their lives: one table of all, in one run.

    python3 bench/lifecycle.py

Reloads, restarts, kills, broken configs, malformed packets, hostile TCP clients, few descriptors:
each server that is installed gets the same of all, on loopback, with two workers or threads. "Lost"
is what load.py says. The last columns are what lbdns has to reach, and whether it does; the exit
code is 1 if it misses one. "Kept": the Keeper of test_server.py keeps descriptors over a restart,
as systemd does for lbdns. Of the rounds of restarts the best one counts, for a busy machine only
makes them worse, and so it is with latency beside idle clients; of those with kept descriptors the
worst one counts. It takes four minutes; what waits for the limits of idle connections runs beside
the rest. lbdns looks after these from time to time, so their bounds have half a second of room.

Where other programs are busy, let it and the servers go first, as root: chrt -r 1 python3 ...
"""
import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from common import (  # noqa: E402
    LBDNS_CONFIG, anti_cache, ask_steadily, choose, describe_machine, fill, installed, parser,
    workspace)
from load import Load  # noqa: E402
from peers import PEERS  # noqa: E402
from server import NoAnswer, Server, packet, tree  # noqa: E402
from test_server import FaultPackets, Keeper, until  # noqa: E402
from test_wire import OddPackets  # noqa: E402

POOL = '[pools."api.example.com"]\nbackends = ["1.2.3.4", "8.8.4.4", "8.8.8.8"]\n'
ADDRESSES = ["1.2.3.4", "8.8.4.4", "8.8.8.8"]
WWW = "192.0.2.80"   # what www.example.com has; a reload gives it another one
QUERY = packet(4711, "api.example.com")
FRAME = len(QUERY).to_bytes(2, "big") + QUERY   # as TCP frames it
GARBAGE = {"length 0": b"\0\0", "garbage": b"\0\5short", "QR=1": FRAME[:4] + b"\x80" + FRAME[5:]}
TOOL_LIMIT = 5.0     # seconds for a command to end, and for what it did to be seen
PIPELINED = 200_000  # queries of a client that never reads

# By row: what lbdns must do. The rows of one group are measured together.
MUST = {
    "malformed": {
        "malformed UDP packets": "same processes, no probe lost",
        "- CPU per packet, us": "<= 50",
        "- worst probe, ms": "<= 30",
        "- memory (PSS), MB": "growth <= 2",
        "- largest reply, octets": "<= 512"},
    "reload": {"4 data reloads: lost": "0"},
    "replace": {"2 reloads of config or binary: lost": "0"},
    "restart": {"stop + start: lost / gap": "<= 110 ms"},
    "kept-restart": {"- descriptors kept": "0 lost"},
    "kill": {"kill -9 of all + start: lost / gap": "<= 550 / 110 ms"},
    "kept-kill": {"- descriptors kept": "0 lost"},
    "worker": {"kill -9 of one worker: lost": "<= 2"},
    "broken": {"broken zone, reload": "keeps old, rc != 0",
               "broken config, reload": "keeps old, rc != 0"},
    "idle": {"1,000 idle TCP: descriptors": "bounded",
             "- UDP p99, ms: before -> with them": "+ <= 1",
             "- a new TCP client": "<= 50 ms"},
    "descriptors": {"64 descriptors, 100 TCP clients: served": ">= 60",
                    "- CPU": "<= 10 %",
                    "- a new TCP client": "ok"},
    "slow": {"1 octet, then silence: closed after": "<= 5 s",
             "1 query, then idle: closed after": "10-30 s",
             "an octet each 0.4 s": "cut <= 5 s"},
    "tcp": {"pipeliner that never reads": "+ <= 2 MB",
            "half-close after a query": "answer + FIN",
            "TCP length 0 / garbage / QR=1": "close"},
    "wildcard": {"query to 127.0.0.2 on 0.0.0.0": "ok"},
    "stderr": {"stderr pipe full, reload: lost": "0"},
    "port": {"port in use": "rc != 0 in 1 s, one line, other unharmed"},
}


# ---- 1. The servers ------------------------------------------------------------------------------

@dataclasses.dataclass
class Kind:
    """A server program: its command line, its files by path, which of them is the zone and which
    the config, how its listen address is written, and the commands that reload data, and config
    or binary. `worker` begins the names of processes that can be killed one by one; `replaces`
    says that the second command reads zones, too, so that one sees when it is done."""
    name: str
    program: str
    words: list[str]
    files: dict[str, str]
    zone: str
    config: str
    listen: str
    data: list[str]
    whole: list[str]
    worker: str = ""
    replaces: bool = True


def kinds(options):
    """All of them, by name: lbdns, and what is in peers.py with two workers and a control
    socket."""
    def peer(name, *changes):
        """A peer's files with changes, all of which apply."""
        files = dict(PEERS[name].files)
        for old, new in changes:
            if old not in files["config"]:
                raise ValueError(f"{old!r} is not in the config of {name}")
            files["config"] = files["config"].replace(old, new)
        return PEERS[name].words, files
    config = 'log = "changes"\n' + fill(LBDNS_CONFIG, workers=2, servers=1) + POOL
    script = options.lbdns.resolve()   # started as the unit does it: compiled code
    lbdns = ["env", "-C", str(script.parent), options.python, "-E", "-s", "-S", "-m", script.stem]
    gdnsdctl, nsd_control, knotc = (["gdnsdctl", "-c", "{folder}"],
                                    ["nsd-control", "-c", "{folder}/config"],
                                    ["knotc", "-b", "-c", "{folder}/config"])
    nsd = peer("nsd", ("server-count: 1", "server-count: 2"),
               ("control-enable: no", 'control-enable: yes\n    control-interface: "{folder}/nsd"'))
    check = [*lbdns, "check", "{folder}/lbdns.toml"]
    return {kind.name: kind for kind in (
        Kind("lbdns", options.python, [*lbdns, "{folder}/lbdns.toml"], {"lbdns.toml": config},
             "lbdns.toml", "lbdns.toml", '"{}:', check, check, "lbdns-worker"),
        Kind("gdnsd", "gdnsd", *peer("gdnsd", ("udp_threads => 1", "udp_threads => 2")),
             "zones/example.com", "config", "[ {} ]", [*gdnsdctl, "reload-zones"],
             [*gdnsdctl, "replace"]),
        Kind("nsd", "nsd", *nsd, "zone", "config", "{}@", [*nsd_control, "reload"],
             [*nsd_control, "reconfig"], "nsd: se", False),
        Kind("knot", "knotd", *peer("knot", ("udp-workers: 1", "udp-workers: 2")), "zone", "config",
             "{}@", [*knotc, "zone-reload"], [*knotc, "reload"]))}


class Instance(Server):
    """A server of a kind, in a folder of its own."""

    def __init__(self, kind, folder, host="127.0.0.1", before=(), **more):
        """`before` are words before its command line."""
        self.kind, self.number = kind, 0
        self.texts = {path: text.replace(kind.listen.format("127.0.0.1"), kind.listen.format(host))
                      for path, text in kind.files.items()}
        super().__init__(kind.name, [*before, *kind.words], self.texts, folder,
                         os.sched_getaffinity(0), **more)

    def first_answer(self):
        """The time of its first answer over UDP, when there is one over TCP, too: gdnsd is later
        with that."""
        first, limit = super().first_answer(), time.monotonic() + TOOL_LIMIT
        while not self.new_client() and time.monotonic() < limit:
            time.sleep(0.02)
        return first

    def tool(self, words, number=signal.SIGHUP):
        """Run a command of the kind: its exit code, None if it does not end. To lbdns, `number` is
        sent, too, whatever the check says."""
        with tempfile.TemporaryFile() as said:   # what goes on in background has no pipe to hold
            try:
                code = subprocess.run([fill(word, folder=self.folder) for word in words],
                                      stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                      timeout=TOOL_LIMIT).returncode
            except subprocess.TimeoutExpired:
                code = None
        if self.kind.name == "lbdns":
            self.process.send_signal(number)
        return code

    def change(self, words, number=signal.SIGHUP):
        """Give www another address, and reload; returns whether that is answered in time."""
        self.number += 1
        text = self.texts[self.kind.zone].replace(WWW, f"192.0.2.{80 + self.number}")
        self.write(self.kind.zone, text.replace("hostmaster 1 ", f"hostmaster {1 + self.number} "))
        limit = time.monotonic() + TOOL_LIMIT
        self.tool(words, number)
        while self.www() != f"192.0.2.{80 + self.number}":
            if time.monotonic() > limit:
                return False
            time.sleep(0.02)
        return True

    def www(self):
        """The address of www; the response code if it is an error, "silent" without an answer."""
        reply = self.exchange(packet(4711, "www.example.com"))
        if reply and reply[3] & 15:
            return {2: "SERVFAIL", 5: "REFUSED"}.get(reply[3] & 15, f"rcode {reply[3] & 15}")
        return socket.inet_ntoa(reply[-4:]) if reply else "silent"

    def exchange(self, octets, host="127.0.0.1"):
        """The reply to a datagram, if one comes within a second."""
        with socket.socket(type=socket.SOCK_DGRAM) as sock, contextlib.suppress(
                TimeoutError, ConnectionRefusedError):
            sock.settimeout(1)
            sock.connect((host, self.port))
            sock.send(octets)
            return sock.recv(65535)

    def connect(self, octets=b"", timeout=1.0):
        """A TCP connection on which this has been sent."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout)
        sock.sendall(octets)
        return sock

    def new_client(self):
        """The milliseconds that a new TCP client waits for its answer, None after a second."""
        begun = time.perf_counter()
        with contextlib.suppress(OSError), self.connect(FRAME) as sock:
            if len(sock.recv(4096)) > len(FRAME):
                return 1000 * (time.perf_counter() - begun)
        return None

    def again(self, kill):
        """End it, or kill all of its processes at once, and start it anew at once."""
        pids = tree(self.process.pid)
        for pid in pids if kill else pids[:1]:
            os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
        self.process.wait(TOOL_LIMIT)
        while kill and any(runs(pid) for pid in pids):
            time.sleep(0.0005)
        self.launch()
        self.first_answer()

    def settled(self):
        """MiB of memory (PSS), when all of its processes are there, good queries have been
        answered, and nothing changes any more."""
        limit, sizes = time.monotonic() + TOOL_LIMIT, []
        while time.monotonic() < limit and (
                len(sizes) < 5 or max(sizes[-5:]) - min(sizes[-5:]) > 0.1):
            for _ in range(200):
                self.exchange(QUERY)
            time.sleep(0.1)
            sizes.append(self.memory()[1])
        return sizes[-1]

    def descriptors(self):
        """How many descriptors its processes have open."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in tree(self.process.pid))


def runs(pid):
    """Whether a process is there, and no zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- 2. What happens to them ---------------------------------------------------------------------
# Each yields (what came of it, whether that is what lbdns must do) for each row of its group; None
# for what a kind cannot.

class Life:
    """What happens to servers of one kind. `start` gives a fresh one."""

    def __init__(self, kind, options, folder):
        self.kind, self.options, self.folder = kind, options, folder

    def start(self, **more):
        """A fresh server."""
        return Instance(self.kind, self.folder, **more)

    def load(self, server):
        """The queries that may be lost."""
        return Load(server.port, self.options.rate, expect=ADDRESSES)

    def malformed(self):
        """Datagrams that are odd or no good queries, and a good one after each hundred."""
        packets = [*FaultPackets.mutated(self.options.packets, 1)]
        packets[::4] = OddPackets(1).make(len(packets[::4]))
        with self.start() as server, socket.socket(type=socket.SOCK_DGRAM) as bad:
            bad.connect(("127.0.0.1", server.port))
            memory = server.settled()
            pids, cpu = tree(server.process.pid), sum(server.cpu())
            largest, waits = 0, []
            for at in range(0, len(packets), 100):
                for each in packets[at:at + 100]:
                    with contextlib.suppress(ConnectionRefusedError):
                        bad.send(each)
                begun = time.perf_counter()
                if server.exchange(QUERY):
                    waits.append(1000 * (time.perf_counter() - begun))
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    while True:
                        largest = max(largest, len(bad.recv(65535, socket.MSG_DONTWAIT)))
            cpu = (sum(server.cpu()) - cpu) / len(packets)
            lost = -(-len(packets) // 100) - len(waits)
            same = tree(server.process.pid) == pids
            grown = server.memory()[1]
            yield f"{'alive' if same else 'others'}, {lost} lost", same and not lost
            yield f"{cpu:.0f}", cpu <= 50
            yield f"{max(waits, default=1000):.0f}", max(waits, default=1000) <= 30
            yield f"{memory:.1f} -> {grown:.1f}", grown - memory <= 2
            yield f"{largest}", largest <= 512

    def reload(self):
        """Other data, four times."""
        yield self.changes(4, self.kind.data, signal.SIGHUP)

    def replace(self):
        """The config or the program read anew, twice."""
        yield self.changes(2, self.kind.whole, signal.SIGUSR2) if self.kind.replaces else None

    def changes(self, times, words, number):
        """What so many changes lose."""
        with self.start() as server, self.load(server) as load:
            done = []
            for _ in range(times):
                time.sleep(0.2)
                done.append(server.change(words, number))
        return verdict(load.outcome, all(done))

    def restart(self):
        """Ended, and started again."""
        yield self.restarts(kill=False)

    def kept_restart(self):
        """The same, while descriptors are kept."""
        yield self.restarts(kill=False, kept=True) if self.kind.name == "lbdns" else None

    def kill(self):
        """Killed, and started again."""
        yield self.restarts(kill=True)

    def kept_kill(self):
        """The same, while descriptors are kept."""
        yield self.restarts(kill=True, kept=True) if self.kind.name == "lbdns" else None

    def restarts(self, kill, kept=False):
        """What the best of some restarts loses; where descriptors are kept, the worst one."""
        outcomes = []
        for _ in range(self.options.rounds):
            with contextlib.ExitStack() as stack:
                keeper = stack.enter_context(Keeper()) if kept else None
                server = stack.enter_context(self.start(
                    popen=keeper.start if keeper else subprocess.Popen))
                if keeper:
                    until(lambda keeper=keeper: keeper.kept)
                load = stack.enter_context(self.load(server))
                time.sleep(0.4)
                server.again(kill)
                time.sleep(0.3)
                outcomes.append(load.stop())
        best = min(outcomes, key=lambda each: (each.lost, each.gap))
        if kept:   # never, not once
            best = max(outcomes, key=lambda each: (each.lost, each.gap))
        good = not best.lost if kept else best.gap <= 110 and (best.lost <= 550 or not kill)
        return (f"{best.lost} / {best.gap} ms",
                good and not sum(each.wrong for each in outcomes))

    def worker(self):
        """One of the processes that answer is killed."""
        if not self.kind.worker:
            yield None
            return
        with self.start() as server, self.load(server) as load:
            time.sleep(0.3)
            names = {pid: pathlib.Path(f"/proc/{pid}/comm").read_text()
                     for pid in tree(server.process.pid)}
            os.kill([pid for pid, name in names.items() if name.startswith(self.kind.worker)][-1],
                    signal.SIGKILL)
            time.sleep(1)
        yield verdict(load.outcome, limit=2)

    def broken(self):
        """A zone with a wrong address, and a config with nonsense."""
        for path, words, old, new in ((self.kind.zone, self.kind.data, WWW, "192.0.2.999"),
                                      (self.kind.config, self.kind.whole, None, "nonsense {{{\n")):
            with self.start() as server:
                text = server.texts[path]
                server.write(path, text.replace(old, new) if old else text + new)
                code = server.tool(words)
                time.sleep(0.5)
                found = server.www()
                found = "keeps old" if found == WWW else found
                yield f"{found}, rc {code}", found == "keeps old" and code != 0

    def idle(self):
        """TCP clients that ask nothing."""
        names = anti_cache(1000)
        def p99(server):
            """Of answers over UDP, the best of the rounds."""
            def one():
                """Of one round."""
                taken, lost = ask_steadily(server.port, names, 1000, 0.8)
                return taken[len(taken) * 99 // 100] if not lost else 1000.0
            return min(one() for _ in range(self.options.rounds))
        with self.start() as server, contextlib.ExitStack() as stack:
            before, open_before = p99(server), server.descriptors()
            for _ in range(1000):
                with contextlib.suppress(OSError):
                    stack.enter_context(server.connect())
            time.sleep(0.2)
            held, after, new = server.descriptors() - open_before, p99(server), server.new_client()
            yield f"{held:,}", held <= 1000
            yield f"{before:.1f} -> {after:.1f}", after - before <= 1
            yield f"{new:.1f} ms" if new else "none", new is not None and new <= 50

    def descriptors(self):
        """More clients than a server has descriptors for."""
        words = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"]
        with self.start(before=words) as server, contextlib.ExitStack() as stack:
            poll, served, clients = select.poll(), set(), {}
            for _ in range(100):
                with contextlib.suppress(OSError):
                    client = stack.enter_context(server.connect(FRAME))
                    clients[client.fileno()] = client
                    poll.register(client, select.POLLIN)
            limit = time.monotonic() + 1
            while time.monotonic() < limit and poll:
                for fd, _ in poll.poll(100):
                    poll.unregister(fd)
                    with contextlib.suppress(OSError):
                        served |= {fd} if clients[fd].recv(4096) else set()
            begun, cpu = time.perf_counter(), sum(server.cpu())
            time.sleep(1)
            cpu = (sum(server.cpu()) - cpu) / (time.perf_counter() - begun) / 1e4
            new = server.new_client()
            yield f"{len(served)}", len(served) >= 60
            yield f"{cpu:.0f} %", cpu <= 10
            yield "ok" if new else "none", new is not None

    def tcp(self):
        """Clients that ask and do not read, that close their half, that send nonsense."""
        with self.start() as server:
            before = server.settled()
            with server.connect() as sock:
                end = flood(sock, FRAME * PIPELINED)
                time.sleep(0.2)
                grown = server.memory()[1] - before
            yield f"{end}, {grown:+.1f} MB", grown <= 2
            with server.connect(FRAME) as sock:
                sock.shutdown(socket.SHUT_WR)
                text = "answer + " if ending(sock, 1)[0] == "data" else "no answer, "
                text += {"EOF": "FIN"}.get(ending(sock, 2)[0], "no FIN")
                yield text, text == "answer + FIN"
            ends = []
            for octets in GARBAGE.values():
                with server.connect(octets) as sock:
                    ends.append(ending(sock, 1)[0])
            yield " / ".join(ends), "silence" not in ends

    def slow(self, server):
        """Clients that are slow, each in a thread. `server` is one of theirs alone."""
        limit = self.options.patience
        def silent():
            """An octet, and no more."""
            with server.connect(FRAME[:1]) as sock:
                return ending(sock, limit)

        def lazy():
            """A query, and no more."""
            with server.connect(FRAME, TOOL_LIMIT) as sock:   # may wait for the other clients
                sock.recv(4096)
                return ending(sock, limit)

        def drip():
            """A query, octet by octet."""
            begun = time.monotonic()
            with server.connect() as sock:
                for at in range(len(FRAME)):
                    with contextlib.suppress(OSError):
                        sock.send(FRAME[at:at + 1])
                    how, _ = ending(sock, 0.4)
                    if how != "silence":
                        break
                return ("answered" if how == "data" else "cut"), time.monotonic() - begun
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            tasks = [pool.submit(act) for act in (silent, lazy, drip)]
        for (how, took), least, most in zip((task.result() for task in tasks), (0, 9.5, 0),
                                            (5.5, 30, 5.5), strict=True):
            text = f"> {limit:.0f} s" if how == "silence" else f"{took:.1f} s"
            word = f"{how} " if how in ("answered", "cut") else ""
            yield word + text, how not in ("silence", "answered") and least <= took <= most

    def wildcard(self):
        """A query to another address of the machine."""
        with self.start(host="0.0.0.0") as server:
            text = "ok" if server.exchange(QUERY, "127.0.0.2") else "lost"
            yield text, text == "ok"

    def stderr(self):
        """A reload, while nobody reads what is logged."""
        reading, writing = os.pipe()
        def popen(words, **more):
            """Start it with the pipe."""
            return subprocess.Popen(words, **{**more, "stderr": writing})
        with self.start(popen=popen) as server, self.load(server) as load:
            full = os.open(f"/proc/self/fd/{writing}", os.O_WRONLY | os.O_NONBLOCK)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(full, b"\n")
            done = server.change(self.kind.data)
            time.sleep(0.3)
            load.stop()
            for fd in (reading, writing, full):   # what waits for a reader ends now
                os.close(fd)
        yield verdict(load.outcome, done)

    def port(self):
        """A second one that is to have the port of the first."""
        with self.start() as server, self.load(server) as load:
            begun = time.monotonic()
            with self.start(port=server.port, wait=False) as second:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    second.process.wait(TOOL_LIMIT)
                took, code = time.monotonic() - begun, second.process.poll()
                lines = (second.folder / "log").read_text(errors="replace").strip().split("\n")
            unharmed = server.process.poll() is None and bool(server.exchange(QUERY))
        unharmed = unharmed and not load.outcome.lost + load.outcome.wrong
        text = (f"rc {code} in {took:.1f} s, lines: {len(lines)}" if code is not None
                else "serves beside it")
        yield (text + ("" if unharmed else ", other harmed"),
               unharmed and bool(code) and took <= 1 and len(lines) == 1)


def verdict(outcome, done=True, limit=0):
    """What a load says, and whether that is good."""
    text = f"{outcome.lost}" + (f", {outcome.wrong} wrong" if outcome.wrong else "")
    return (text + ("" if done else ", not reloaded"),
            done and not outcome.wrong and outcome.lost <= limit)


def flood(sock, octets):
    """Send, until all is sent or nothing goes on for half a second; returns how that ended."""
    sock.setblocking(False)
    rest = memoryview(octets)
    try:
        while rest and select.select([], [sock], [], 0.5)[1]:
            rest = rest[sock.send(rest):]
    except OSError:
        return "reset"
    return "not read" if rest else "all read"


def ending(sock, limit):
    """How the waiting for octets ends: "data", "EOF", "reset" or "silence"; and after how long."""
    begun = time.monotonic()
    sock.settimeout(limit)
    try:
        how = "data" if sock.recv(4096) else "EOF"
    except TimeoutError:
        how = "silence"
    except OSError:
        how = "reset"
    return how, time.monotonic() - begun


# ---- 3. The table --------------------------------------------------------------------------------

def measure(life, group, *words):
    """(text, good) for each row of a group; what cannot be measured is no good."""
    rows = []
    try:
        rows += getattr(life, group.replace("-", "_"))(*words)
    except (AssertionError, NoAnswer, OSError, subprocess.TimeoutExpired) as bad:
        print(f"note: {life.kind.name}, {group}: {bad}", file=sys.stderr)
    return [row or ("-", True) for row in rows] + [("fails", False)] * (len(MUST[group])
                                                                        - len(rows))


def run(lives, groups):
    """{(group, kind's name): rows}; the group `slow` goes on beside the others."""
    results = {}
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(len(lives)))
        slow = {}
        if "slow" in groups:
            slow = {life: pool.submit(measure, life, "slow", stack.enter_context(life.start()))
                    for life in lives}
            # The pool ends before the servers do.
            stack.callback(concurrent.futures.wait, slow.values())
        for group in groups:
            print(f"{group}", file=sys.stderr)
            for life in lives:
                results[group, life.kind.name] = (
                    slow[life].result() if group == "slow" else measure(life, group))
    return results


def report(results, names, groups):
    """Print the table; returns the rows that lbdns misses."""
    table = [["", *names, "lbdns must", ""]]
    missed = []
    for group in groups:
        for at, (title, must) in enumerate(MUST[group].items()):
            cells = [results[group, name][at] for name in names]
            good = cells[names.index("lbdns")][1] if "lbdns" in names else True
            table.append([title, *(text for text, _ in cells), must, "ok" if good else "MISSED"])
            missed += [] if good else [title]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    for line in table:
        print(f"| {' | '.join(map(str.ljust, line, widths))} |")
    return missed


def main():
    """Measure, print, and judge."""
    args = parser(__doc__, rounds=False)
    args.add_argument("--only", default="lbdns,gdnsd,nsd,knot", metavar="SERVER,...",
                      help="(%(default)s); those that are not installed are left out")
    args.add_argument("--rows", default=",".join(MUST), metavar="GROUP,...",
                      help="(%(default)s)")
    args.add_argument("--rate", type=float, default=5000, help="queries/s (%(default)s)")
    args.add_argument("--packets", type=int, default=20_000, help="malformed (%(default)s)")
    args.add_argument("--rounds", type=int, default=4, help="of restarts (%(default)s)")
    args.add_argument("--patience", type=float, default=45, metavar="SECONDS",
                      help="for the limits of idle connections (%(default)s)")
    options = args.parse_args()
    os.environ["PATH"] += ":/usr/sbin"   # where Debian has servers, but not in users' PATH
    with workspace(options) as folder:
        known = kinds(options)
        chosen = [known[name] for name in choose("--only", options.only, [*known])]
        groups = choose("--rows", options.rows, [*MUST])
        if not chosen or not groups or min(options.packets, options.rounds) < 1:
            args.error("there is nothing to measure")
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
        lives = [Life(kind, options, folder) for kind in chosen if installed(kind.program)]
        describe_machine(options, sorted(os.sched_getaffinity(0)), [
            life.kind.program for life in lives if life.kind.name != "lbdns"])
        print(f"load: {' '.join(map('{:.1f}'.format, os.getloadavg()))}", flush=True)
        results = run(lives, groups)
        missed = report(results, [life.kind.name for life in lives], groups)
    for title in missed:
        print(f"lifecycle.py: lbdns misses: {title}")
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
