#!/usr/bin/env python3
"""A server in bad company, for as long as asked: what its clients notice of that.

    python3 bench/soak.py --seconds 600

Meanwhile, all at once, by default: a worker is killed every 10 s; the config is reloaded every 7 s,
every other time with one that is wrong; the server is restarted every 60 s, as systemd does it and
by SIGUSR2 in turn; every 5 s the table that it reads is overwritten with garbage, and replaced;
forged reports come, 500 slow TCP clients, and 1,000 malformed datagrams a second. Each is done by a
thread of this program; the queries that count are sent by `load.py`.

It ends with 1 if more than one well-formed query in a million is lost (or more than one, if there
are less), one answer is wrong, or if memory or descriptors grow. --calm leaves all of it out, so
that one sees what the machine itself loses.
"""
import argparse
import contextlib
import os
import pathlib
import random
import select
import signal
import socket
import statistics
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from load import Load  # noqa: E402
from server import memory_of, packet, tree  # noqa: E402
from test_server import (  # noqa: E402
    AS_ROOT, KEYS, ZONE, Database, Keeper, Server, free_port, lbdns, sealed, status_of, until)

BACKENDS = [f"192.0.2.{at}" for at in range(1, 21)]
SLOW, MALFORMED, FORGED = 500, 1000, 100     # clients; datagrams a second
SAMPLE = 5.0        # seconds between two looks at memory and descriptors
QUERY = b"\0\x21" + packet(7, "www.example.com")   # as TCP frames it
GROWTH = 5          # MiB that memory may grow from the second quarter of the samples to the last
POOLS = """
reports = ["127.0.0.1:{reports}"]
reports_key = "reports.key"
status = "127.0.0.1:{status}"
""" + ZONE + """
[pools."api.example.com"]
policy = "least-connections"
source = {{ sqlite = "backends.db", every = 0.5 }}
[pools."told.example.com"]
source = {{ reports = true }}
"""


class Company:
    """All that happens to a server: each a method that runs in a thread of its own until `over`."""

    def __init__(self, server, reports, seed):
        self.server, self.reports, self.dice = server, reports, random.Random(seed)
        self.config = server.config.read_text()
        self.over = threading.Event()
        self.signals = threading.Lock()      # no two signals at the same time
        self.counts = dict.fromkeys(
            ("killed workers", "reloads", "refused reloads", "restarts", "upgrades",
             "broken tables", "forged reports", "slow clients", "malformed datagrams"), 0)
        self.threads, self.failures = [], []

    def start(self, act, *words):
        """Run something in a thread of its own."""
        def run():
            try:
                act(*words)
            except Exception as bad:  # a thread that fails is not to make the rest look well
                self.failures.append(f"{act.__name__}: {bad!r}")
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def end(self):
        """End all of it."""
        self.over.set()
        for thread in self.threads:
            thread.join()

    def every(self, seconds):
        """Yield each time that it is due, until it is over."""
        due = time.monotonic() + seconds
        while not self.over.wait(max(0, due - time.monotonic())):
            yield
            due += seconds

    def children(self, word):
        """The ids of the server's children that are called so."""
        return [pid for pid in self.server.pids() if status_of(pid, "Name").startswith(word)]

    def kill_workers(self, seconds):
        """Kill a worker each time."""
        for _ in self.every(seconds):
            with self.signals:
                workers = self.children("lbdns-worker")
                if workers:
                    os.kill(self.dice.choice(workers), signal.SIGKILL)
                    self.counts["killed workers"] += 1

    def reload(self, seconds):
        """Reload each time: the config with another comment, and one that is wrong, in turn."""
        for number, _ in enumerate(self.every(seconds)):
            with self.signals:
                said = len(self.server.log())
                text = f"{self.config}\n# {number}\n" + ("nonsense = 1\n" if number % 2 else "")
                self.server.config.write_text(text)
                self.server.signal(signal.SIGHUP)
                self.await_line(said, "reload: refused" if number % 2 else "reloaded: ")
                self.server.config.write_text(self.config)
                self.counts["refused reloads" if number % 2 else "reloads"] += 1

    def restart(self, seconds):
        """Restart each time: as systemd does, and by SIGUSR2, in turn."""
        for number, _ in enumerate(self.every(seconds)):
            with self.signals:
                said = len(self.server.log())
                if number % 2:
                    self.server.signal(signal.SIGUSR2)
                    self.await_line(said, "upgraded: ")
                    self.counts["upgrades"] += 1
                    continue
                self.server.signal(signal.SIGTERM)
                self.server.process.wait(30)
                self.server.process = self.server.start()
                self.await_line(said, " ready\n")
                self.counts["restarts"] += 1

    def await_line(self, begun, text):
        """Wait until the log says something after this many characters."""
        until(lambda: text in self.server.log()[begun:],
              lambda: f"no {text!r}: {self.server.log()[begun:]}")

    def break_table(self, seconds):
        """Overwrite the table with garbage, and put a good one in its place half of the time
        later."""
        path = self.server.folder / "backends.db"
        good = path.read_bytes()
        for _ in self.every(seconds):
            Database(path).overwrite(self.dice.randbytes(4096))
            self.counts["broken tables"] += 1
            self.over.wait(seconds / 2)
            fresh = path.with_suffix(".new")
            fresh.write_bytes(good)
            fresh.chmod(0o666)
            fresh.replace(path)

    def forge(self, each_second):
        """Send reports: noise, signed by a stranger, recorded ones again, and true ones."""
        old = sealed("10.0.0.9", pool="told.example.com", late=100)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for at, _ in enumerate(self.every(1 / each_second)):
                datagram = (self.dice.randbytes(self.dice.randrange(1300)), old,
                            sealed("10.0.0.9", key=KEYS[0][::-1], pool="told.example.com"),
                            sealed("10.0.0.1", pool="told.example.com", connections=at))[at % 4]
                sock.sendto(datagram, ("127.0.0.1", self.reports))
                self.counts["forged reports"] += at % 4 != 3

    def be_slow(self, clients):
        """Hold connections; what the server closes is opened anew."""
        slow, poll = {}, select.poll()
        for _ in self.every(0.02):
            for _ in range(min(20, clients - len(slow))):
                client = Slow(self.server.port, self.dice.choice((b"", QUERY[:1], QUERY * 50)))
                slow[client.sock.fileno()] = client
                poll.register(client.sock, select.POLLRDHUP)   # besides POLLHUP and POLLERR
                self.counts["slow clients"] += 1
            gone = {fd for fd, _ in poll.poll(0)}
            for fd in self.dice.sample([*slow], min(len(slow), 20)):
                if not slow[fd].act():
                    gone.add(fd)
            for fd in gone:
                poll.unregister(fd)
                slow.pop(fd).sock.close()
        for client in slow.values():
            client.sock.close()

    def send_malformed(self, each_second):
        """Send datagrams that are no good queries, in slices of 10 ms."""
        good = [packet(at, name) for at, name in enumerate(
            ("api.example.com", "www.example.com", "x.y.example.com", "1-api.example.com"))]
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            for _ in self.every(0.01):
                for _ in range(round(each_second / 100)):
                    octets = bytearray(self.dice.choice(good))
                    for _ in range(self.dice.randrange(1, 6)):
                        octets[self.dice.randrange(2, len(octets))] = self.dice.randrange(256)
                    octets = octets[:self.dice.choice((len(octets), self.dice.randrange(60)))]
                    with contextlib.suppress(OSError):   # nobody reads the replies
                        sock.sendto(octets + self.dice.randbytes(self.dice.choice((0, 0, 9))),
                                    ("127.0.0.1", self.server.port))
                    self.counts["malformed datagrams"] += 1


class Slow:
    """A TCP client that is silent, or sends its query octet by octet, or asks much and reads
    nothing."""

    def __init__(self, port, octets):
        """`octets` are what it sends at a time."""
        self.octets, self.sent = octets, 0
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex(("127.0.0.1", port))

    def act(self):
        """Send a bit; returns whether the connection is still there."""
        try:
            if len(self.octets) == 1:
                self.octets = QUERY[self.sent % len(QUERY):][:1]
            self.sent += self.sock.send(self.octets) if self.octets else 0
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


class Look:
    """Memory and descriptors of a server, from time to time."""

    def __init__(self, company):
        self.company, self.looks = company, []

    def run(self):
        """Look again and again. A look while processes come and go says nothing."""
        for _ in self.company.every(SAMPLE):
            with self.company.signals:
                pid = self.company.server.process.pid
                until(lambda pid=pid: len(self.company.children("lbdns-")) >= 3)
                memory = memory_of(tree(pid))[1]
                descriptors = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
                self.looks.append((memory, descriptors))

    def grown(self):
        """How much MiB and how many descriptors of the first process came: the median of the last
        quarter less that of the second."""
        quarter = max(1, len(self.looks) // 4)
        def difference(field):
            """Of one field."""
            early, late = ([look[field] for look in looks] for looks in (
                self.looks[quarter:2 * quarter] or self.looks, self.looks[-quarter:]))
            return statistics.median(late) - statistics.median(early)
        return difference(0), difference(1)


def main():
    """Do it, print what happened, and what it cost."""
    args = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seconds", type=float, default=60, help="(%(default)s)")
    args.add_argument("--rate", type=float, default=5000, help="of good queries (%(default)s)")
    args.add_argument("--workers", type=int, default=2, help="(%(default)s)")
    args.add_argument("--seed", type=int, default=1, help="of the dice (%(default)s)")
    args.add_argument("--calm", action="store_true", help="nothing but the good queries")
    for word, seconds in (("kill", 10), ("reload", 7), ("restart", 60), ("break", 5)):
        args.add_argument(f"--{word}", type=float, default=seconds, metavar="SECONDS",
                          help="how often that happens (%(default)s; 0 = never)")
    options = args.parse_args()
    reports, port = free_port(), free_port()
    config = AS_ROOT + POOLS.format(reports=reports, status=free_port())
    # A generation that serves its last TCP clients holds memory; a short run is to see that end.
    retire = min(lbdns.RETIRE_LIMIT, options.seconds / 6)
    limits = {"RETIRE_LIMIT": retire, "TIME_LEFT": (1e9, retire, *lbdns.TIME_LEFT[2:])}
    with Keeper() as keeper, Server(
            config, workers=options.workers, keeper=keeper, port=port, rate_limit=None,
            constants=limits, files={"reports.key": KEYS[0] + "\n"}) as server:
        Database(server.folder / "backends.db").fill(
            *({"address": each, "connections": at} for at, each in enumerate(BACKENDS)))
        until(lambda: server.ask("api.example.com").rcode == 0)
        company = Company(server, reports, options.seed)
        look = Look(company)
        with Load(port, options.rate, expect=BACKENDS) as load:
            company.start(look.run)
            if not options.calm:
                for act, seconds in ((company.kill_workers, options.kill),
                                     (company.reload, options.reload),
                                     (company.restart, options.restart),
                                     (company.break_table, getattr(options, "break"))):
                    if seconds:
                        company.start(act, seconds)
                company.start(company.forge, FORGED)
                company.start(company.be_slow, SLOW)
                company.start(company.send_malformed, MALFORMED)
            company.over.wait(options.seconds)
            company.end()
        raise SystemExit(report(company, look, load.outcome))


def report(company, look, outcome):
    """Print all of it; returns the exit code."""
    for what, number in company.counts.items():
        print(f"{number:9,} {what}")
    memory, descriptors = look.grown()
    last = look.looks[-1] if look.looks else (0, 0)
    print(f"{outcome.sent:9,} good queries: {outcome.lost} lost, {outcome.wrong} answered wrongly; "
          f"answers took {outcome.worst} ms at most, 99 % under {outcome.p99} ms")
    print(f"memory {last[0]:.0f} MiB, {memory:+.1f} from the second quarter to the last; "
          f"{last[1]} descriptors, {descriptors:+.0f}")
    bad = [*company.failures]
    if outcome.lost > max(1, outcome.sent / 1e6):
        bad.append("queries were lost")
    if outcome.wrong:
        bad.append("answers were wrong")
    if memory > GROWTH or descriptors > 0:
        bad.append("it grows")
    if "Traceback" in company.server.log() or "internal error" in company.server.log():
        bad.append("there is an error in the log")
    for each in bad:
        print(f"soak.py: {each}")
    return 1 if bad else 0


if __name__ == "__main__":
    main()
