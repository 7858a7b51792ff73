#!/usr/bin/env python3
"""Queries at a steady rate, whatever comes back: what a restart, a crash or an attack costs them.

    python3 bench/load.py 53 5000 --seconds 10 --expect 192.0.2.1,192.0.2.2

or, from another program, in a process of its own, so that neither is held up by the other:

    with Load(port, 5000, expect=["192.0.2.1"]) as load:
        ...
    load.outcome.lost

32 sockets send anti-cache names in slices of a millisecond, and never wait for replies. A query is
lost that has none 0.8 s after the last one was sent, or when its number comes round again (after
seven minutes at 5,000/s). One that the kernel does not take is not sent. Every reply is compared,
octet by octet, with what it has to be. At 20,000/s this takes a third of a core.
"""
import argparse
import array
import collections
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

from server import packet

SOCKETS = 32
SLICE = 0.001      # seconds: what is due then is sent at once
BEHIND = 0.02      # more than so much is not made up for: it would be a burst that nobody ordered
GRACE = 0.8        # seconds that the last replies may take
BUFFER = 4 << 20   # octets of SO_RCVBUF: replies of a server that was away come all at once
SO_RCVBUFFORCE = 33
NAMES = 1024       # different ones, which come round with the numbers of queries
HEADER = bytes.fromhex("8400 0001 0001 0000 0000")   # after the id: a reply, AA, one record


class Outcome(collections.namedtuple("Outcome", "sent lost wrong worst p99 gap")):
    """What came of the queries. `lost` have no reply; `wrong` are replies that are not what was
    asked for, or came twice; `worst` and `p99` are the milliseconds that answers took, and `gap`
    the longest time without any reply."""


class Load:
    """Queries by a process of its own. `start` returns once the first is sent; `stop` returns the
    Outcome, which is `outcome` from then on."""

    def __init__(self, port, rate, host="127.0.0.1", name="api.example.com", expect=()):
        """`expect` are the IPv4 addresses that an answer may have; none = any."""
        self.words = [sys.executable, __file__, str(port), str(rate), "--host", host, "--name",
                      name, "--expect", ",".join(expect), "--json"]
        self.outcome = None

    def __enter__(self):
        """Begin to send."""
        return self.start()

    def __exit__(self, *exc):
        """End it."""
        self.stop()

    def start(self):
        """Begin to send."""
        self.process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "begun\n":
            raise OSError(f"it does not start: {' '.join(self.words)}")
        return self

    def stop(self):
        """End it, wait for the last replies, and return what came of all."""
        if self.outcome is None:
            self.process.terminate()
            self.outcome = Outcome(**json.loads(self.process.communicate()[0]))
        return self.outcome


class Sender:
    """The process that sends. Queries are numbered; a socket and an id belong to each number."""

    def __init__(self, address, rate, name, expect):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.address, self.rate = address, rate
        self.expect = {socket.inet_aton(each) for each in expect}
        # Not connected: where nobody listens, ICMP would have the next query fail, unsent.
        self.socks = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(SOCKETS)]
        self.epoll = select.epoll()
        for sock in self.socks:
            for option in (socket.SO_RCVBUF, SO_RCVBUFFORCE):
                try:
                    sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
                except OSError:
                    pass   # only for root
            sock.bind(("::1" if ":" in address[0] else "127.0.0.1", 0))
            self.epoll.register(sock, select.EPOLLIN)
        self.by_fd = {sock.fileno(): at for at, sock in enumerate(self.socks)}
        self.tails = [packet(0, f"{1596207957 + at}-{name}")[2:] for at in range(NAMES)]
        self.pending = [array.array("d", bytes(8 << 16)) for _ in self.socks]   # by id: when sent
        self.taken = collections.Counter()   # milliseconds, rounded down -> answers
        self.number = self.unsent = self.lost = self.wrong = 0
        self.worst = self.gap = 0.0
        self.over = False

    def run(self, seconds):
        """Send until the time is over, a signal comes, or the parent has gone."""
        parent = os.getppid()
        begun = self.last = time.perf_counter()
        due = 0.0
        then = begun
        while not self.over and then < begun + seconds and os.getppid() == parent:
            due = min(due + (time.perf_counter() - then) * self.rate, BEHIND * self.rate + 1)
            then = time.perf_counter()
            while due >= 1:
                self.send(then)
                due -= 1
            self.receive(SLICE)
        limit = time.perf_counter() + GRACE
        while time.perf_counter() < limit:
            self.receive(SLICE)
        self.gap = max(self.gap, limit - GRACE - self.last)

    def send(self, now):
        """Send the next query."""
        at, ident = self.number % SOCKETS, self.number // SOCKETS & 0xFFFF
        pending = self.pending[at]
        self.lost += pending[ident] > 0
        try:
            self.socks[at].sendto(
                ident.to_bytes(2, "big") + self.tails[self.number % NAMES], self.address)
            pending[ident] = now
        except OSError:
            pending[ident] = 0.0
            self.unsent += 1
        self.number += 1

    def receive(self, seconds):
        """Take what comes within a time, or what is there."""
        ready = self.epoll.poll(seconds)
        if not ready:
            return
        now = time.perf_counter()
        self.gap, self.last = max(self.gap, now - self.last), now
        for fd, _ in ready:
            at = self.by_fd[fd]
            sock = self.socks[at]
            try:
                while True:
                    self.take(at, sock.recv(4096, socket.MSG_DONTWAIT), now)
            except BlockingIOError:
                pass

    def take(self, at, reply, now):
        """Count a reply."""
        ident = int.from_bytes(reply[:2], "big")
        sent, self.pending[at][ident] = self.pending[at][ident], 0.0
        tail = self.tails[(ident * SOCKETS + at) % NAMES]
        end = 2 + len(tail)
        if not sent or reply[2:12] != HEADER or reply[12:end] != tail[10:] \
                or len(reply) != end + 16 or self.expect and reply[-4:] not in self.expect:
            self.wrong += 1
            return
        took = 1000 * (now - sent)
        self.worst = max(self.worst, took)
        self.taken[int(took)] += 1

    def outcome(self):
        """What came of all: see Outcome."""
        lost = self.lost + sum(len(each) - each.count(0.0) for each in self.pending)
        rest = sum(self.taken.values()) / 100
        p99 = 0
        for p99 in sorted(self.taken, reverse=True):
            rest -= self.taken[p99]
            if rest < 0:
                break
        return Outcome(self.number - self.unsent, lost, self.wrong, round(self.worst, 1), p99 + 1,
                       round(1000 * self.gap))

    def end(self, *_):
        """Take note of a signal."""
        self.over = True


def main():
    """Send, and print what came of it."""
    args = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("port", type=int)
    args.add_argument("rate", type=float, help="queries a second")
    args.add_argument("--host", default="127.0.0.1", help="an address (%(default)s)")
    args.add_argument("--name", default="api.example.com", help="of the pool (%(default)s)")
    args.add_argument("--expect", default="", metavar="ADDRESS,...",
                      help="what answers may say (default: anything)")
    args.add_argument("--seconds", type=float, default=float("inf"),
                      help="default: until SIGINT or SIGTERM")
    args.add_argument("--json", action="store_true", help="print one line of JSON")
    options = args.parse_args()
    if options.rate <= 0:
        args.error("the rate must be above 0")
    sender = Sender((options.host, options.port), options.rate, options.name,
                    [each for each in options.expect.split(",") if each])
    signal.signal(signal.SIGTERM, sender.end)
    signal.signal(signal.SIGINT, sender.end)
    if options.json:
        print("begun", flush=True)
    sender.run(options.seconds)
    outcome = sender.outcome()
    if options.json:
        print(json.dumps(outcome._asdict()))
    else:
        print(f"sent {outcome.sent:,}, lost {outcome.lost:,}, wrong {outcome.wrong:,}; answers "
              f"took {outcome.worst} ms at most, 99 % under {outcome.p99} ms; longest time without "
              f"any reply: {outcome.gap} ms")


if __name__ == "__main__":
    main()
