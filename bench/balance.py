"""How evenly lbdns's policies spread long-lived connections: a simulation.

Backends write how many connections they hold, and have ever opened, into a table, each at its own
moment; servers read it, each at its own moment, and answer queries with what they read. So an
answer sees counts that are between 0 and twice `every` seconds old. Each answer brings a connection
at once; or, where a cache is in between, on average 10 within 60 seconds: "geo" geometrically
distributed, "heavy" with a few answers that bring thousands (Pareto 1.2). Queries are a Poisson
process; connections live 600 seconds on average, exponentially distributed or, "Lomax", mostly
short with a few very long ones. A run begins in equilibrium, and counts after 200 s. Unless a line
says otherwise: 10 backends of equal weight, 20 connections/s, 4 servers, `every` = 5 s, no caches.

What counts is max/mean: connections of the fullest backend, by weight, beside the mean. 1 is even.

Beside the policies of lbdns.py, driven as a worker drives them, without the hint of how many
servers there are: "uncounted" is least-connections where nobody counts what was opened; "naive"
answers the fewest connections of the last read; "ideal" the fewest at this moment, which no server
can know (what caches will still bring it does not know either). Left out: `failover`, which means
to be uneven, and `hash`, which at best, with many client networks, is as even as random.

With --trace FILE it replays connections of your own instead, CSV lines of a start (unix seconds or
ISO date-time) and the seconds it lived, and says which policy fits them: bench/README.md, "Try it
before you trust it".

With --check it says whether least-connections meets its targets; the exit code is 1 if not.
"""
import argparse
import array
import collections
import contextlib
import datetime
import ipaddress
import itertools
import math
import multiprocessing
import pathlib
import random
import signal
import statistics
import sys
import time
from typing import NamedTuple

LBDNS = pathlib.Path(__file__).resolve().parent.parent / "lbdns.py"
TICK = 0.1         # seconds; what happens within one, happens in the order it was foreseen
WARM = 200         # seconds before anything counts
SHARED = 10        # clients that an answer in a cache serves on average
SHARED_MOST = 5000   # clients that it serves at most
TTL = 60           # seconds for which it does
NOTICE = 12        # seconds until a health check notices a death
RETURN = 100       # seconds until it says that the dead one is back; it is since 10 s before
QUICK = 400        # seconds of a steady run with --quick


class Setting(NamedTuple):
    """A scenario. `text` and what is not as by default say in the table what it is."""
    text: str = ""                   # what happens
    event: str = "steady"            # the method of World that makes it happen, at WARM
    figures: str = "mean p99"        # keys of FIGURES
    seconds: int = 900
    backends: int = 10
    weights: str = "1"               # in turn
    rate: float = 20                 # connections per second
    servers: int = 4
    skew: int = 1                    # 3: the first of 16 gets 40 % of the queries
    every: int = 5                   # seconds between two reads of the table, by each server
    report: int = 0                  # seconds between two reports of a backend; 0 = `every`
    tau: int = 600                   # seconds a connection lives on average
    lomax: bool = False
    uneven: bool = False             # half of the backends keep connections 3 times as long
    cache: str = ""                  # "", "geo" or "heavy"
    pairs: bool = False              # clients ask for AAAA and A, and use the A
    silent: bool = False             # the first backend does not say what it has opened
    limited: int = 0                 # backends that have limits, if they are crowded
    anew: int = 0                    # seconds after which each counts that from 0 again, ever again


WORDS = {"backends": "{} backends", "weights": "weights {}", "rate": "{}/s",
         "servers": "{} servers", "skew": "one of which gets 40 % of the queries",
         "every": "every {} s", "report": "reports every {} s", "tau": "connections live {}",
         "lomax": "Lomax", "uneven": "half keep connections 3 times as long",
         "cache": "caches: {}", "pairs": "each client asks for AAAA and A",
         "silent": "which does not count",
         "anew": "all counters begin anew every {} s"}


def describe(setting):
    """A scenario in words."""
    tau = setting.tau
    values = setting._asdict() | {"tau": f"{tau} s" if tau < 3600 else f"{tau // 3600} h"}
    found = [words.format(values[field]) for field, words in WORDS.items()
             if getattr(setting, field) != Setting._field_defaults[field]]
    return ", ".join([setting.text] * bool(setting.text) + found) or "as described above"


# ---- 1. Policies -------------------------------------------------------------------------------

class Ours:
    """A policy of lbdns.py as a worker drives it. This is the interface of all policies here:
    made once for each server, `poll` gets what it read from the table, `pick` says who."""
    policy = "random"

    def __init__(self, backends, info):
        import lbdns
        pool = {"policy": self.policy,
                "backends": [{key: value for key, value in each.items() if value is not None}
                             for each in backends],
                "source": {"sqlite": "backends.db", "every": info["every"]}}   # never opened
        [self.config] = lbdns.ConfigReader("bench").config(
            {"zones": {"example.com": {}}, "pools": {"api.example.com": pool}}).pools.values()
        self.types, self.dice = (lbdns.wire.A, lbdns.wire.AAAA), info["random"].random
        shuffle = random.Random(info["random"].random()).random   # of its plans
        self.pool = lbdns.Pool(self.config, 1, lbdns.Log(), shuffle)
        self.index = {row.addresses: at for at, row in enumerate(self.config.backends)}

    def row(self, row, seen):
        """The row as the monitor publishes it; what its check says stands in `up`."""
        return row._replace(connections=seen["connections"], opened=seen.get("opened"),
                            state="up" if seen["up"] else "down")

    def poll(self, now, rows):
        """All rows."""
        import lbdns
        rows = [self.row(row, each) for row, each in zip(self.config.backends, rows, strict=True)]
        lbdns.at_once(self.pool.apply_rows(rows, False, now))

    def pick(self, now, family=0):
        """The place of the backend that a query for A is answered with, or one for AAAA."""
        policy = self.pool.current[self.types[family]]
        chosen = policy.draw(self.dice)
        self.pool.credit([chosen])
        return self.index[chosen.addresses]


class RoundRobin(Ours):
    """round-robin of lbdns.py"""
    policy = "round-robin"


class LeastConnections(Ours):
    """least-connections of lbdns.py"""
    policy = "least-connections"


class Uncounted(LeastConnections):
    """The same where nobody counts what was opened."""
    def row(self, row, seen):
        """The row without."""
        return super().row(row, seen)._replace(opened=None)


class Naive:
    """One of those with the fewest connections by weight when the table was last read."""
    def __init__(self, backends, info):
        self.weights = [each["weight"] for each in backends]
        self.limits = [each["max_connections"] or math.inf for each in backends]
        self.choice, self.truth = info["random"].choice, info["truth"]

    def fewest(self, counts):
        """Those with the fewest of these by weight that have room; if nobody has, all."""
        loads = [count / weight if count < limit else math.inf for count, weight, limit
                 in zip(counts, self.weights, self.limits, strict=True)]
        least = min(loads)
        return [at for at, load in enumerate(loads) if load == least]

    def poll(self, now, rows):
        """Who is down, passes for full."""
        self.best = self.fewest([row["connections"] if row["up"] else math.inf for row in rows])

    def pick(self, now, family=0):
        """One of them."""
        return self.choice(self.best)


class Ideal(Naive):
    """One of those with the fewest connections by weight now."""
    def pick(self, now, family=0):
        """Look at the truth first."""
        return self.choice(self.fewest([each.count if each.up and each.alive else math.inf
                                        for each in self.truth]))


POLICIES = {"random": Ours, "round-robin": RoundRobin, "naive": Naive,
            "least-connections": LeastConnections, "uncounted": Uncounted, "ideal": Ideal}
CHECKED = "least-connections", "uncounted"


# ---- 2. The world ------------------------------------------------------------------------------

class Backend:
    """The truth about a backend, and its row."""
    def __init__(self, weight, tau):
        self.weight, self.tau, self.limit = weight, tau, None
        self.count, self.row = 0, 0      # connections; the same as last written to the table
        self.opened, self.counter = 0, 0   # those that it ever took; the same as last written
        self.alive, self.up = True, True   # the truth; what its health check says
        self.frozen = False              # its row is not written any more
        self.hole = False                # it accepts connections and closes them
        self.lives = 0                   # times all its connections ended at once
        self.asked = 0                   # connections it was to take in the last second


class Moment(NamedTuple):
    """How things are at some second."""
    now: float
    ratio: float       # max/mean of those whose check says up
    counts: list[int]  # connections of each backend
    asked: list[int]   # connections each was to take in the second before


class World:
    """One run. All that is to happen, but for the queries, stands on the agenda of some tick."""
    def __init__(self, setting, policy, seed):
        self.set, self.dice, self.now, self.tick = setting, random.Random(seed), 0.0, 0
        self.agenda = collections.defaultdict(list)   # tick -> what to call
        self.history = []                             # a Moment of each second
        self.refused = self.total = 0                 # connections
        self.rate, self.share = setting.rate, 1 / SHARED if setting.cache else 1   # queries
        self.span = WARM, setting.seconds             # when max/mean counts
        self.begin = WARM                             # when the share of the subject does
        self.fill()
        told = [{"address": [f"192.0.2.{at}", f"2001:db8::{at:x}"][:1 + setting.pairs],
                 "weight": each.weight, "max_connections": each.limit}
                for at, each in enumerate(self.backends)]
        for each in self.backends:
            self.at(self.dice.random() * (setting.report or setting.every), self.report, each)
            if setting.anew:
                self.at(self.dice.random() * setting.anew, self.count_anew, each)
        self.servers = [policy(told, {"every": setting.every, "truth": self.backends,
                                      "random": random.Random(self.dice.random())})
                        for _ in range(setting.servers)]
        for server in self.servers:
            self.poll(server, self.dice.random())
        self.at(WARM, getattr(self, setting.event))
        self.at(1, self.look)

    def fill(self):
        """The backends with the connections of an equilibrium; a newcomer is not there yet."""
        what = self.set
        weights = itertools.cycle(map(int, what.weights.split(":")))
        weights = list(itertools.islice(weights, what.backends))
        fair = what.rate * what.tau / sum(weights[what.event == "newcomer":])
        self.backends = []
        for at, weight in enumerate(weights):
            backend = Backend(weight, what.tau * (0.5, 1.5)[at % 2] if what.uneven else what.tau)
            self.backends.append(backend)
            if what.event in ("newcomer", "burst"):
                backend.limit = int(weight * fair / 0.8)
            elif what.event == "tight" and at < 2:
                backend.limit = int(weight * fair / 2)
            elif what.event == "crowded" and at < what.limited:
                backend.limit = int(weight * fair / 0.95)
            if what.event == "newcomer" and not at:
                backend.up = backend.alive = False
                continue
            came, most = self.dice.expovariate(1), 0.95 * (backend.limit or math.inf)
            while came < weight * fair and backend.count < most:
                self.take(backend, self.life(backend.tau, under_way=True))
                came += self.dice.expovariate(1)
            backend.row = backend.counter = backend.count

    def life(self, tau, under_way=False):
        """Seconds that a connection lives, or has left if it was found under way."""
        if not self.set.lomax:
            return self.dice.expovariate(1 / tau)
        return tau / 2 * ((1 - self.dice.random()) ** (-1 / (0.5 if under_way else 1.5)) - 1)

    def at(self, when, do, *what):
        """Put a call on the agenda."""
        if when < self.set.seconds:
            self.agenda[max(int(when / TICK), self.tick + 1)].append((do, what))

    def run(self):
        """Let it happen; the history tells what did."""
        arrival = 0.0
        for tick in range(1, int(self.set.seconds / TICK) + 1):
            self.tick, self.now = tick, tick * TICK
            for do, what in self.agenda.pop(tick, ()):
                do(*what)
            while arrival < self.now:
                self.query()
                arrival += self.dice.expovariate(self.rate * self.share)
        return self

    # -- the table --

    def report(self, backend):
        """A backend writes its row."""
        if backend.alive and not backend.frozen:
            backend.row, backend.counter = backend.count, backend.opened
        self.at(self.now + (self.set.report or self.set.every), self.report, backend)

    def poll(self, server, part=1.0):
        """A server reads the table, and will again after this part of its interval."""
        server.poll(self.now, [
            {"connections": each.row, "up": each.up,
             "opened": None if self.set.silent and each is self.backends[0] else each.counter}
            for each in self.backends])
        self.at(self.now + self.set.every * part, self.poll, server)

    def count_anew(self, backend):
        """A backend's counter begins at 0 again, and will later."""
        backend.opened = 0
        self.at(self.now + self.set.anew, self.count_anew, backend)

    # -- connections --

    def query(self):
        """A client's resolver asks a server; its clients come now, or as long as it remembers."""
        server = self.servers[int(len(self.servers) * self.dice.random() ** self.set.skew)]
        if self.set.pairs:
            server.pick(self.now, 1)
        chosen = server.pick(self.now)
        self.connect(self.backends[chosen])
        if self.set.cache == "geo":
            more = int(math.log(1 - self.dice.random()) / math.log(1 - self.share))
        elif self.set.cache == "heavy":   # without SHARED_MOST, the mean were SHARED - 1
            more = int(min(SHARED_MOST, (SHARED - 1) / 6 * (1 - self.dice.random()) ** (-1 / 1.2)))
        for _ in range(more if self.set.cache else 0):
            self.at(self.now + self.dice.random() * TTL, self.connect, self.backends[chosen])

    def connect(self, backend):
        """A client goes where it was told to."""
        self.total += 1
        backend.asked += 1
        if not backend.alive:
            self.again(1, 3)
        elif backend.limit and backend.count >= backend.limit:
            self.refused += 1
        elif backend.hole:
            self.take(backend, 0.5)
            self.again(1.5, 5.5)
        else:
            self.take(backend, self.life(backend.tau))

    def take(self, backend, seconds):
        """A backend has one connection more, for a while."""
        backend.count += 1
        backend.opened += 1
        self.at(self.now + seconds, self.leave, backend, backend.lives)

    def leave(self, backend, lives):
        """A connection ends, unless it ended with its backend."""
        backend.count -= lives == backend.lives

    def again(self, soonest, latest):
        """A client asks again; its resolver may still remember."""
        if self.dice.random() < self.share:
            self.at(self.now + self.dice.uniform(soonest, latest), self.query)

    def drop(self, backend):
        """All connections of a backend end; their clients come again within 10 seconds."""
        for _ in range(backend.count):
            self.again(0.2, 10.2)
        backend.count, backend.lives = 0, backend.lives + 1

    # -- what happens at WARM --

    def steady(self):
        """Nothing."""

    def newcomer(self):
        """An empty backend is added, while the others are at 80 % of their limits."""
        self.backends[0].up = self.backends[0].alive = True

    def crash(self):
        """A backend dies; its check needs some time to see that, and that it is back."""
        backend = self.backends[0]
        backend.alive = False
        self.drop(backend)
        self.at(WARM + NOTICE, setattr, backend, "up", False)
        self.at(WARM + RETURN - 10, setattr, backend, "alive", True)
        self.at(WARM + RETURN, setattr, backend, "up", True)
        self.span, self.begin = (WARM, WARM + RETURN), WARM + RETURN

    def burst(self):
        """Ten times as many clients for 10 seconds, while all are at 80 % of their limits."""
        self.rate *= 10
        self.at(WARM + 10, setattr, self, "rate", self.set.rate)

    def restart(self):
        """All connections end, and come again."""
        for backend in self.backends:
            self.drop(backend)
        self.span = WARM + 12, self.set.seconds   # until then there are too few to compare

    def frozen(self):
        """A row is not written any more, while load grows by half in five minutes."""
        self.backends[0].frozen = True
        for step in range(1, 31):
            self.at(WARM + 10 * step, setattr, self, "rate", self.set.rate * (1 + step / 60))
        self.begin = WARM + 200

    def hole(self):
        """A backend accepts connections and closes them, so that it looks idle."""
        self.backends[0].hole = True
        self.drop(self.backends[0])
        self.begin = WARM + 60

    def tight(self):
        """From the start, two have limits of half their share."""

    def crowded(self):
        """From the start, many have limits of which their share is 95 %."""

    # -- what was seen --

    def look(self):
        """Note how things are, each second."""
        up = [each for each in self.backends if each.up]
        mean = sum(each.count for each in up) / sum(each.weight for each in up) or math.inf
        self.history.append(Moment(
            self.now, max(each.count / each.weight for each in up) / mean,
            [each.count for each in self.backends], [each.asked for each in self.backends]))
        for each in self.backends:
            each.asked = 0
        self.at(self.now + 1, self.look)

    def ratios(self):
        """max/mean of each second that counts, the smallest first."""
        return sorted(moment.ratio for moment in self.history
                      if self.span[0] < moment.now < self.span[1])

    def fair(self, counts):
        """What the first backend, the subject of all events, has of these, in fair shares."""
        weights = [each.weight for each in self.backends]
        return counts[0] / sum(counts) * sum(weights) / weights[0]

    def held(self):
        """Its share of all connections, each second from `begin` on."""
        return [self.fair(moment.counts) for moment in self.history if moment.now > self.begin]

    def drawn(self, seconds):
        """Its share of the new connections, in each so many seconds from `begin` on."""
        asked = [moment.asked for moment in self.history if moment.now > self.begin]
        return [self.fair(list(map(sum, zip(*asked[at:at + seconds], strict=True))))
                for at in range(max(1, len(asked) - seconds + 1))]


# ---- 3. Scenarios and figures ------------------------------------------------------------------

FIGURES = {   # name -> what the table says; the figure of a run that is over
    "mean": ("mean", lambda run: statistics.mean(run.ratios())),
    "p99": ("p99", lambda run: run.ratios()[int(0.99 * len(run.ratios()))]),
    "worst": ("worst max/mean", lambda run: run.ratios()[-1]),
    "t90": ("s to 90 % of its share", lambda run: next(
        (at for at, share in enumerate(run.held(), 1) if share >= 0.9), math.inf)),
    "peak": ("most in 10 s", lambda run: max(run.drawn(10))),
    "drawn": ("of all clients", lambda run: run.drawn(run.set.seconds)[0]),
    "most": ("most it holds", lambda run: max(run.held())),
    "refused": ("refused, %", lambda run: 100 * run.refused / run.total)}

SCENARIOS = {
    "S1": Setting(),
    "S2": Setting(rate=1),
    "S3": Setting(backends=50, rate=100, servers=16, every=30),
    "S4": Setting(weights="1:2:4", rate=100, servers=16, lomax=True),
    "S6": Setting(rate=100, cache="geo"),
    "S7": Setting(rate=100, every=1, cache="geo"),
    "S8": Setting(backends=50, weights="1:2:4", rate=100, cache="geo"),
    "S9": Setting(backends=50, rate=1, servers=16),
    "S10": Setting(uneven=True, seconds=1500),
    "S11": Setting(backends=50, rate=100, servers=16, every=30, tau=60),
    "S12": Setting(report=60),
    "S13": Setting(servers=16, skew=3),
    "S14": Setting(pairs=True),
    "S15": Setting(backends=50, weights="1:2:4", rate=10, servers=16),
    "S16": Setting(backends=50, rate=100, servers=16, every=30, cache="heavy"),
    "S17": Setting(rate=2, every=1, tau=7200)}
NEW = Setting("an empty backend is added", "newcomer", "t90 peak refused", 700)
DIES = Setting("one dies, is noticed after 12 s, is back after 100 s", "crash",
               "worst t90 peak", 800)
BURST = Setting("10 times the clients for 10 s", "burst", "worst refused", 320)
AGAIN = Setting("all connections end, and come again within 10 s", "restart", "worst", 500)
TIGHT = Setting("two have limits of half their share", "tight", "refused", 500)
CROWDED = Setting("8 of 10 have limits of which their share is 95 %", "crowded", "refused", 500,
                  limited=8)
LONG = NEW._replace(rate=0.5, tau=6 * 3600, seconds=8000, figures="t90 most refused")
SCENARIOS |= {
    "E1": NEW,
    "E2": NEW._replace(rate=100, cache="geo", figures="t90 most"),
    "E3": NEW._replace(backends=50, rate=100, servers=16, every=30),
    "E4": DIES,
    "E5": DIES._replace(rate=100, every=30, cache="geo", figures="worst most"),
    "E6": BURST,
    "E7": BURST._replace(every=30),
    "E8": AGAIN,
    "E9": AGAIN._replace(every=30),
    "E10": AGAIN._replace(backends=50, servers=16),
    "E11": AGAIN._replace(rate=100, cache="geo"),
    "E12": AGAIN._replace(pairs=True),
    "E13": Setting("a row stands still, while load grows by half", "frozen", "most", 620),
    "E14": Setting("one closes what it accepts, so it looks idle", "hole", "drawn", 400),
    "E15": TIGHT,
    "E16": TIGHT._replace(rate=100, cache="geo"),
    "E17": CROWDED,
    "E18": CROWDED._replace(text="all have such limits", limited=10),
    "E19": CROWDED._replace(text="all have such limits", limited=10, rate=100, cache="geo"),
    "E20": LONG,
    "E21": LONG._replace(rate=0.125, tau=24 * 3600, seconds=30_000),
    "E22": LONG._replace(silent=True),
    "E23": LONG._replace(anew=600)}

# What --check holds least-connections to: of a scenario some figures, and what each is at most, as
# the mean of the runs. A rule that is worse than this one, or as good by luck, misses some: naive
# misses two of three, and reaches the share of a newcomer in time, with ten times its fair share.
TARGETS = {
    "S1": {"mean": 1.01}, "S2": {"mean": 1.05}, "S3": {"mean": 1.035}, "S4": {"mean": 1.008},
    "S6": {"mean": 1.015}, "S8": {"mean": 1.09}, "S9": {"mean": 1.2}, "S10": {"mean": 1.04},
    "S11": {"mean": 1.25}, "S12": {"mean": 1.06}, "S13": {"mean": 1.012}, "S14": {"mean": 1.015},
    "S15": {"mean": 1.08}, "S17": {"mean": 1.006},
    "E1": {"t90": 240, "peak": 5.5, "most": 1.03, "refused": 0},
    "E2": {"t90": 280, "peak": 5.5, "most": 1.08}, "E3": {"t90": 320, "peak": 5.5, "refused": 0.5},
    "E4": {"worst": 1.15, "t90": 260}, "E6": {"worst": 1.03, "refused": 0},
    "E7": {"worst": 1.055, "refused": 0}, "E8": {"worst": 1.1}, "E9": {"worst": 1.12},
    "E10": {"worst": 1.12}, "E11": {"worst": 1.12}, "E12": {"worst": 1.2}, "E13": {"most": 1.06},
    "E14": {"drawn": 2}, "E15": {"refused": 0.1}, "E16": {"refused": 0.5}, "E17": {"refused": 0.1},
    "E18": {"refused": 0.1}, "E19": {"refused": 0.5}, "E20": {"t90": 2600, "most": 1.03},
    "E22": {"t90": 2600, "most": 1.03}, "E23": {"t90": 2600, "most": 1.03}}


# ---- 4. A trace of one's own --------------------------------------------------------------------

REPLAYED = ("random", "round-robin", "least-connections", "naive", "ideal")
OFFERED = REPLAYED[:3]   # those of lbdns, the one that needs least first
MANY = 20          # connections that a trace has for each backend, at least
LIVES = 5          # lives that a trace spans, at least: one warms up, and one may not have ended
MOMENTS = 10_000   # at which max/mean is looked at
FINE = 100_000     # at which the newcomer is
TICKETS = 8        # of an answer in a cache, on average, when one is drawn for a client
EVEN = 0.03        # of max/mean: what nobody buys a server for
SOON = 300         # seconds for which nobody minds that a newcomer is not full yet
SLOWER = 1.5       # times the best: what is not much later, either
LOST = 0.1         # percentage points of connections refused: what nobody notices
PATIENCE = 5       # seconds between two lines about progress
REMEDIES = {       # what is wrong with a line -> what to do
    "no second column": "write start,life; a connection that is still open has an empty life",
    "no start": "write unix seconds, or a date-time such as 2027-01-31T12:00:00Z",
    "a start in milliseconds": "divide it by 1000",
    "no life": "write the seconds it lived, or nothing if it is still open",
    "a negative life": "write the seconds it lived, or nothing if its end is not known"}


class Unfit(Exception):
    """A trace cannot be judged; the text says why, and what to do."""


class Wrong(Exception):
    """A line is not understood: a key of REMEDIES."""


class Trace(NamedTuple):
    """Connections, sorted by their start. Times are seconds since the first one began; both arrays
    of times end with infinity."""
    starts: array.array   # when each began
    ends: array.array     # when each ended, sorted; infinity = it did not
    order: array.array    # which one of `starts` that is
    span: float           # until when it is replayed
    warm: float           # when counting begins
    about: dict           # what is to be said of it


class Use(NamedTuple):
    """What replays a trace."""
    backends: int
    servers: int
    every: float          # seconds between two reports of a backend, and two polls of a server
    limit: int | None     # connections of a backend
    cached: float         # clients that share an answer on average; up to 1: none do
    ttl: float            # seconds for which they may


class Progress:
    """Lines to stderr, one every PATIENCE seconds, the first after as many."""
    def __init__(self):
        self.begun = self.last = time.monotonic()

    def say(self, text):
        """Print it, unless it is too soon."""
        now = time.monotonic()
        if now - self.last >= PATIENCE:
            self.last = now
            print(f"{now - self.begun:.0f} s: {text}", file=sys.stderr, flush=True)


def parse_start(text):
    """Return unix seconds of a number, or of a date-time, which is UTC unless it says otherwise."""
    try:
        start = float(text)
    except ValueError:
        try:
            date = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise Wrong("no start") from None
        start = (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp()
    if not math.isfinite(start):
        raise Wrong("no start")
    if start >= 1e11:   # seconds of the year 5138
        raise Wrong("a start in milliseconds")
    return start


def parse_life(text):
    """Return seconds, infinity where there is nothing."""
    try:
        life = float(text or "inf")
    except ValueError:
        raise Wrong("no life") from None
    if life < 0:
        raise Wrong("a negative life")
    if math.isnan(life):
        raise Wrong("no life")
    return life


def read_trace(lines, progress):
    """Return starts, lives and {what is wrong: [how many lines, number of the first, its text]} of
    CSV lines; a first line without a number is a header."""
    starts, lives, bad = array.array("d"), array.array("d"), {}
    header = True
    for number, line in enumerate(lines, 1):
        start, *others = [cell.strip(' \t\r\n"') for cell in line.split(",")]
        if start[:1] == "#" or not (start or others):
            continue
        try:
            if not others:
                raise Wrong("no second column")
            seconds = parse_start(start), parse_life(others[0])
            starts.append(seconds[0])
            lives.append(seconds[1])
        except Wrong as wrong:
            if not (header and start[:1].isalpha()):
                bad.setdefault(str(wrong), [0, number, line])[0] += 1
        header = False
        if number % 100_000 == 0:
            progress.say(f"{number:,} lines read")
    return starts, lives, bad


def show_bad(bad):
    """Say once what lines were left out."""
    for wrong, (count, number, line) in bad.items():
        print(f"note: left out for {wrong}: {count:,}, the first is line {number:,}, "
              f"{line.strip()[:60]!r}: {REMEDIES[wrong]}.", file=sys.stderr)


def trace_of(starts, lives):
    """Sort the connections and see what they are like; raises Unfit if there are none."""
    count = len(starts)
    if not count:
        raise Unfit("there is no connection in it: write lines such as 1790000000.25,41.5, of the "
                    "unix time at which one began, and the seconds it lived.")
    order = sorted(range(count), key=starts.__getitem__)
    first, last = starts[order[0]], starts[order[-1]] - starts[order[0]]
    begins = array.array("d", [starts[at] - first for at in order])
    ends = [begins[at] + lives[old] for at, old in enumerate(order)]
    still = [at for at, end in enumerate(ends) if end == math.inf]
    close = max([last, *(end for end in ends if end < math.inf)])
    ages = sorted(min(end, close) - begin for begin, end in zip(begins, ends, strict=True))
    ended = count - len(still)
    mean = sum(ages) / ended if ended else math.inf
    # A log without open connections lacks those that had not ended when it was written.
    span = last if still else max(0.0, last - mean)
    order = sorted(range(count), key=ends.__getitem__)
    leaving = array.array("d", [ends[at] for at in order])
    for times in (begins, leaving):
        times.append(math.inf)
    held = sum(min(end, span) - begin for begin, end in zip(begins, ends, strict=False)
               if begin < span)
    return Trace(begins, leaving, array.array("I", order), span, min(2 * mean, span / 5), {
        "count": count, "last": last, "mean": mean, "median": ages[count // 2],
        "long": ages[int(0.99 * count)], "held": held / span if span else 0.0,
        "peak": most_at_once(begins, leaving)})


def most_at_once(begins, leaving):
    """Return how many connections there are at most, of sorted times that end with infinity."""
    most = gone = 0
    for come, begin in enumerate(begins[:-1], 1):
        while leaving[gone] < begin:
            gone += 1
        most = max(most, come - gone)
    return most


def check_trace(trace, use):
    """Raise Unfit if nobody can judge by it."""
    about = trace.about
    count, last, mean, held = (about[key] for key in ("count", "last", "mean", "held"))
    if count < MANY * use.backends:
        raise Unfit(f"too short to judge: {count:,} connections, and {use.backends} backends take "
                    f"{MANY * use.backends:,}: a longer trace, or fewer --backends.")
    if mean == math.inf:
        raise Unfit("too short to judge: none of its connections has ended.")
    if last < LIVES * mean:
        raise Unfit(f"too short to judge: connections live {show_time(mean)} on average, and it "
                    f"begins them for {show_time(last)}: take one of {LIVES} lives, "
                    f"{show_time(LIVES * mean)}, at least.")
    if held < use.backends:
        raise Unfit(f"nothing to balance: {held:.2g} connections at a time, on average over "
                    f"{show_time(last)}, for {use.backends} backends: take fewer --backends, or "
                    "mend a start that is far from the others.")


class Replay:
    """One run of a trace: when connections begin and end stands in it; where they go, servers say.
    With `joins`, one more backend is added in the middle, and the run ends when that is full.

    Backends write their rows, and servers poll the table, every `every` seconds, each at its own
    moment. Both are done when they matter to anything: a report before the first change after it,
    a poll before the first query after it. What a server would have polled between two queries
    makes next to no difference: what it remembers fades by the clock, and `opened` is a counter.
    """
    def __init__(self, trace, use, policy, seed, joins=False):
        self.trace, self.use, self.dice, self.joins = trace, use, random.Random(seed), joins
        self.backends = [Backend(1, 0) for _ in range(use.backends + joins)]
        for each in self.backends:
            each.limit = use.limit
        self.backends[-1].up = self.backends[-1].alive = not joins
        self.places = array.array("h", [-1]) * len(trace.order)   # of connections; -1 = nowhere
        self.begun = self.ended = self.total = self.refused = 0   # connections
        self.recent = []         # tickets of answers in caches: until when, what place they name
        self.ratios = []         # max/mean of moments
        self.filled = math.inf   # seconds until the newcomer has 90 % of its share
        described = [{"address": [str(ipaddress.ip_address("10.0.0.1") + at)], "weight": 1,
                      "max_connections": use.limit} for at in range(len(self.backends))]
        self.servers = [policy(described, {"every": use.every, "truth": self.backends,
                                           "random": random.Random(self.dice.random())})
                        for _ in range(use.servers)]
        rows = map(self.row, self.backends)
        self.rows = [(row, row) for row in rows]   # the report before the last one, and that
        self.reports = [use.every * self.dice.random() for _ in self.backends]   # the next ones
        self.polls = [use.every * self.dice.random() for _ in self.servers]
        for each in self.servers:
            each.poll(0.0, [row for row, _ in self.rows])

    def run(self):
        """Let it happen."""
        if self.joins:
            self.watch()
        else:
            self.look()
        return self

    def look(self):
        """Note max/mean at many moments, of those with at least a connection for each backend."""
        count, trace = len(self.backends), self.trace
        for moment in range(MOMENTS):
            self.advance(trace.warm + (trace.span - trace.warm) * moment / MOMENTS)
            if self.total >= count:
                most = max([each.count for each in self.backends])
                self.ratios.append(most * count / self.total)

    def watch(self):
        """Add the newcomer, and see when it is full."""
        middle, newcomer = self.trace.span / 2, self.backends[-1]
        self.advance(middle)
        self.report(-1, middle)
        newcomer.up = newcomer.alive = True
        for moment in range(FINE):
            passed = (self.trace.span - middle) * moment / FINE
            self.advance(middle + passed)
            if 0 < 0.9 * self.total <= newcomer.count * len(self.backends):
                self.filled = passed
                break

    def advance(self, until):
        """Let connections begin and end up to a moment."""
        starts, ends, order, places = *self.trace[:3], self.places
        begun, ended = self.begun, self.ended
        while True:
            if starts[begun] <= ends[ended]:
                if starts[begun] > until:
                    break
                places[begun] = self.connect(self.ask(starts[begun]), starts[begun])
                begun += 1
            else:
                if ends[ended] > until:
                    break
                place = places[order[ended]]
                if place >= 0:
                    self.report(place, ends[ended])
                    self.backends[place].count -= 1
                    self.total -= 1
                ended += 1
        self.begun, self.ended = begun, ended

    def ask(self, now):
        """Return the place of the backend in a client's answer. One client in `cached` asks; the
        others get an answer of the last `ttl` seconds. How many get each is geometrically
        distributed, or nearly: Poisson, of means that are exponentially distributed."""
        recent, use, dice = self.recent, self.use, self.dice
        if use.cached <= 1:
            return self.decide(now)
        if dice.random() * use.cached >= 1:
            while recent:
                at = int(dice.random() * len(recent))
                until, place = recent[at]
                if until > now:
                    return place
                recent[at] = recent[-1]
                recent.pop()
        place = self.decide(now)
        recent += [(now + use.ttl, place)] * round(dice.expovariate(1 / TICKETS))
        return place

    def decide(self, now):
        """Return what one of the servers answers."""
        at = int(self.dice.random() * len(self.servers))
        if now >= self.polls[at]:
            self.poll(at, now)
        return self.servers[at].pick(now)

    def connect(self, place, now):
        """Return where a client is that was sent to a place: there, or nowhere."""
        backend = self.backends[place]
        if backend.limit and backend.count >= backend.limit:
            self.refused += 1
            return -1
        self.report(place, now)
        backend.count += 1
        backend.opened += 1
        self.total += 1
        return place

    @staticmethod
    def row(backend):
        """What servers read of a backend."""
        return {"connections": backend.count, "opened": backend.opened, "up": backend.up}

    def report(self, place, now):
        """Write what a backend reported up to now; as it is, it has been since its last change."""
        if now >= self.reports[place]:
            more = (now - self.reports[place]) // self.use.every   # reports after the next one
            row = self.row(self.backends[place])
            self.rows[place] = (row if more else self.rows[place][1], row)
            self.reports[place] += (more + 1) * self.use.every

    def poll(self, at, now):
        """Have a server read the table as it was when it last should have."""
        every = self.use.every
        polled = self.polls[at] + (now - self.polls[at]) // every * every
        self.polls[at] = polled + every
        for place in range(len(self.backends)):
            self.report(place, now)
        self.servers[at].poll(polled, [rows[following - every <= polled] for rows, following
                                       in zip(self.rows, self.reports, strict=True)])


class Measured(NamedTuple):
    """The figures of a policy: of one run, or means of some."""
    mean: float      # max/mean, over time; nan = there is none
    p99: float
    filled: float    # seconds until a newcomer has 90 % of its share; infinity = later
    refused: float   # per cent of the connections


def replay(trace, use, policy, seed):
    """Run a trace twice, as it is and with a newcomer."""
    run = Replay(trace, use, POLICIES[policy], seed).run()
    ratios = sorted(run.ratios) or [math.nan]
    joined = Replay(trace, use, POLICIES[policy], seed, joins=True).run()
    return Measured(statistics.fmean(ratios), ratios[int(0.99 * len(ratios))], joined.filled,
                    100 * run.refused / max(1, run.begun))


WORK = ()   # in a process of the pool: what is replayed


def prepare(*work):
    """In a process of the pool: have what is replayed at hand; Ctrl-C is for the parent."""
    global WORK
    WORK = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def replay_job(job):
    """In a process of the pool: a policy and a seed."""
    return replay(*WORK, *job)


def replay_all(trace, use, seeds, progress):
    """Return {policy: Measured}, with means of a run with each seed."""
    jobs = list(itertools.product(reversed(REPLAYED), seeds))
    found = collections.defaultdict(list)
    with multiprocessing.Pool(initializer=prepare, initargs=(trace, use)) as pool:
        runs = pool.imap(replay_job, jobs)
        while sum(map(len, found.values())) < len(jobs):
            done = sum(map(len, found.values()))
            progress.say(f"{done} of {len(jobs)} runs are done")
            with contextlib.suppress(multiprocessing.TimeoutError):
                found[jobs[done][0]].append(runs.next(timeout=1))
    return {policy: Measured(*map(statistics.fmean, zip(*found[policy], strict=True)))
            for policy in REPLAYED}


def speaks_against(policy, table):
    """What a policy does worse than the best that lbdns offers, by more than anybody minds."""
    own, found = table[policy], []
    best = Measured(*(min(each) for each in zip(*map(table.get, OFFERED), strict=True)))
    if own.mean > best.mean + EVEN:
        found.append(f"its fullest backend holds {show_more(own)} more than the mean, beside "
                     f"{show_more(best)}")
    if own.filled > max(SOON, SLOWER * best.filled):
        found.append(f"a newcomer is {show_filled(own)}, beside {best.filled:,.0f} s")
    if own.refused > best.refused + LOST:
        found.append(f"it has {own.refused:.2g} % of the connections refused, beside "
                     f"{best.refused:.2g} %")
    return found


def advise(table, about, use):
    """Return the sentences that say which policy fits, and why."""
    against = {policy: speaks_against(policy, table) for policy in OFFERED}
    chosen = min(OFFERED, key=lambda each: (len(against[each]), OFFERED.index(each)))
    own = table[chosen]
    best = "its fullest backend holds " + show_more(own) + " more than the mean (ideal: " + (
        show_more(table["ideal"])) + f"), and a newcomer is {show_filled(own)}"
    if chosen in OFFERED[:2]:
        best = "it needs no reports, " + best
    text = [f"Take {chosen}. Connections live {show_time(about['median'])} on median; {best}."]
    text += [f"Not {policy}: {'; '.join(found)}." for policy, found in against.items() if found
             and policy != chosen]
    if own.mean > table["ideal"].mean + EVEN:
        text += why_not_ideal(about, use)
    if use.limit and table["ideal"].refused > LOST:
        text.append(f"At the peak there are {about['peak']:,}, and {use.backends} backends hold "
                    f"{use.backends * use.limit:,}: even ideal refuses "
                    f"{table['ideal'].refused:.2g} %.")
    return text


def why_not_ideal(about, use):
    """The sentence that says what stands between the best policy and ideal, if that is known."""
    each = about["held"] / use.backends
    if use.cached > 1:
        return [f"More is lost to caches, where {use.cached:g} clients share an answer: use "
                "anti-cache names, or a shorter --ttl."]
    if use.every > about["median"] / 5:
        return [f"Reports every {use.every:g} s are old beside such lives: a shorter --every "
                "may do better."]
    if each < 50:
        return [f"{each:.0f} connections on each backend are few, and few are never even."]
    return []


def show_more(figures):
    """What the fullest backend holds above the mean, in per cent."""
    more = 100 * (figures.mean - 1)
    return f"{more:.{1 if more < 10 else 0}f} %"


def show_filled(figures):
    """After how long a newcomer is filled."""
    return "not filled in the trace" if math.isinf(figures.filled) else (
        f"filled after {figures.filled:,.0f} s")


def show_time(seconds):
    """Seconds in the words of people: 41 s, 12 min, 5.5 h, 3 d."""
    for unit, size, least in (("d", 86400, 172800), ("h", 3600, 7200), ("min", 60, 300)):
        if seconds >= least:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s"


def show_trace(trace, use):
    """Say what a trace is like."""
    about = trace.about
    print(f"{about['count']:,} connections in {show_time(about['last'])}, which live "
          f"{show_time(about['median'])} on median, {show_time(about['mean'])} on average, 99 % of "
          f"them up to {show_time(about['long'])}; {about['held']:,.0f} at a time on average, "
          f"{about['peak']:,} at most: {about['held'] / use.backends:,.0f} on each of "
          f"{use.backends} backends. {use.servers} servers, reports every {use.every:g} s"
          + (f", {use.cached:g} clients share an answer within {use.ttl:g} s" if use.cached > 1
             else "") + (f", limit {use.limit:,}" if use.limit else "")
          + f". Counted from {show_time(trace.warm)} to {show_time(trace.span)}.\n")


def show_replayed(table, trace, use):
    """The figures, a policy a line."""
    heads = ["max/mean: mean", "p99", "newcomer: s to 90 % of its share", "refused, %"]
    cells = {policy: [show([each.mean]), show([each.p99]),
                      f"> {trace.span / 2:,.0f}" if math.isinf(each.filled)
                      else f"{each.filled:,.0f}", f"{each.refused:.2f}"]
             for policy, each in table.items()}
    columns = 4 if use.limit else 3
    row("policy", *heads[:columns])
    row(*["---"] * (columns + 1))
    for policy in table:
        row(policy, *cells[policy][:columns])
    print()


def print_example(count, seed):
    """Print a made-up trace: a day in which twice as many come at its middle as at its ends; half
    of the connections live for over 10 minutes, 1 % for over 160."""
    dice, day, begin = random.Random(seed), 86400, 1_789_948_800
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)   # head may have seen enough
    starts = []
    while len(starts) < count:
        start = dice.random() * day
        if dice.random() * 2 < 1 + math.sin(math.pi * start / day):
            starts.append(start)
    print("start,life")
    for start in sorted(starts):
        life = 600 * math.exp(dice.gauss(0, 1.2))
        print(f"{begin + start:.3f},{life:.3f}" if start + life < day else f"{begin + start:.3f},")


def try_trace(file, use, seeds):
    """Replay a file, "-" for standard input, and print what came of it."""
    progress = Progress()
    source = contextlib.nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb")
    with source as octets:
        starts, lives, bad = read_trace(
            (line.decode("utf-8-sig", "replace") for line in octets), progress)
    show_bad(bad)
    trace = trace_of(starts, lives)
    check_trace(trace, use)
    show_trace(trace, use)
    table = replay_all(trace, use, seeds, progress)
    if any(math.isnan(each.mean) for each in table.values()):
        raise Unfit(f"nothing to balance: after {show_time(trace.warm)} there never is a "
                    "connection for each backend: fewer --backends.")
    show_replayed(table, trace, use)
    print("\n".join(advise(table, trace.about, use)))


# ---- 5. Tables and the command line ------------------------------------------------------------

def measure(setting, policy, seed):
    """The figures of one run."""
    run = World(setting, POLICIES[policy], seed).run()
    return [FIGURES[name][1](run) for name in setting.figures.split()]


def job(work):
    """The same for a process of the pool: of what `measure` takes."""
    return measure(*work)


def run_all(settings, policies, seeds):
    """Run each scenario with each policy and seed, as many at a time as there are CPUs. Yields
    (name, policy, a list of figures for each seed)."""
    keys = list(itertools.product(settings, policies))
    with multiprocessing.Pool() as pool:
        runs = pool.imap(job, [(settings[name], policy, seed) for name, policy in keys
                               for seed in seeds])
        for name, policy in keys:
            yield name, policy, list(itertools.islice(runs, len(seeds)))


def check(names, policies, seeds):
    """Print which of TARGETS policies miss, and how many they meet. Returns whether they meet
    all."""
    met, missed = 0, 0
    settings = {name: SCENARIOS[name]._replace(figures=" ".join(TARGETS[name]))
                for name in names if name in TARGETS}
    for name, policy, runs in run_all(settings, policies, seeds):
        if policy == "uncounted" and settings[name].tau > 3600:
            continue   # it takes lives for ten minutes
        for (figure, most), values in zip(TARGETS[name].items(), zip(*runs, strict=True),
                                          strict=True):
            if statistics.mean(values) <= most:
                met += 1
                continue
            missed += 1
            print(f"MISSED: {policy}, {name}: {FIGURES[figure][0]} {show(values)}, at most {most}; "
                  f"{describe(settings[name])}", flush=True)
    print(f"{met} of {met + missed} targets are met")
    return not missed


def show(values):
    """The mean over the seeds."""
    value = statistics.mean(values)
    if math.isinf(value):
        return "never"
    return f"{value:,.{3 if 1 < value < 1.1 else 2 if value < 3 else 1 if value < 20 else 0}f}"


def row(*cells):
    """A line of a table in Markdown."""
    print("| " + " | ".join(cells) + " |", flush=True)


def show_table(names, policies, results):
    """The scenarios that were run, one a line."""
    row("", "max/mean" if names[0][0] == "S" else "what happens", "figures", *policies)
    row(*["---"] * (3 + len(policies)))
    for name in names:
        setting = SCENARIOS[name]
        row(name, describe(setting), " / ".join(FIGURES[each][0] for each in
                                                setting.figures.split()),
            *(" / ".join(map(show, zip(*results[name, policy], strict=True)))
              for policy in policies))
    print()


def numbers(text):
    """Comma-separated whole numbers."""
    return [int(each) for each in text.split(",")]


def number(kind, least, most):
    """A number of the command line, within bounds."""
    def parse(text):
        """The number of a text; raises ValueError."""
        if not least <= kind(text) <= most:   # nan is not, either
            raise argparse.ArgumentTypeError(f"{text} is not from {least:g} to {most:g}")
        return kind(text)
    parse.__name__ = "number"
    return parse


def add_trace_options(args):
    """The words for a trace of one's own."""
    for word, kind, least, most, default, text in (
            ("backends", int, 2, 1000, 10, "how many there are"),
            ("servers", int, 1, 100, 4, "name servers, which do not know of each other"),
            ("every", float, 0.1, 3600, 1.0, "seconds between reports"),
            ("limit", int, 1, 10**9, None, "max_connections of each backend (none)"),
            ("cached", float, 0, 10_000, 0.0, "clients that share an answer from a cache; 0 = "
             "none do, as with anti-cache names"),
            ("ttl", float, 0, 86400, 60.0, "seconds for which they may")):
        if default is not None:
            text += " (%(default)g)"
        args.add_argument(f"--{word}", type=number(kind, least, most), default=default,
                          metavar="N", help=text)
    args.add_argument("--example", type=number(int, 1, 10**7), metavar="N",
                      help="print a made-up trace of so many connections, by the first seed")


def arguments():
    """The command line."""
    args = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--trace", metavar="FILE",
                      help="replay these connections, - = of standard input, not the scenarios")
    add_trace_options(args.add_argument_group("with --trace"))
    args.add_argument("--only", metavar="A,B", default=",".join(SCENARIOS),
                      help="of S1 to E23 (all)")
    args.add_argument("--policies", metavar="A,B",
                      help=f"the columns ({','.join(POLICIES)}; with --check {','.join(CHECKED)})")
    args.add_argument("--seeds", metavar="A,B", type=numbers, default="1,2,3",
                      help="a run each (%(default)s)")
    args.add_argument("--quick", action="store_true", help="one seed, and shorter runs")
    args.add_argument("--check", action="store_true",
                      help="fail if least-connections, or uncounted, misses a target")
    args.add_argument("--lbdns", type=pathlib.Path, default=LBDNS, metavar="FILE",
                      help="the lbdns.py to measure (default: the one of this checkout)")
    return args.parse_args()


def main():
    """Run everything, as many at a time as there are CPUs, and print the tables."""
    from common import choose, fail
    options = arguments()
    if not options.lbdns.is_file():
        fail(f"there is no {options.lbdns}: --lbdns FILE.")
    sys.path.insert(0, str(options.lbdns.resolve().parent))   # for Ours
    if options.example:
        print_example(options.example, options.seeds[0])
        return
    if options.trace:
        if options.quick or options.check or options.policies or (
                options.only != ",".join(SCENARIOS)):
            fail("--only, --policies, --quick and --check are for the scenarios: leave them out of "
                 "--trace.")
        try:
            try_trace(options.trace, Use(*(getattr(options, word) for word in Use._fields)),
                      options.seeds)
        except OSError as bad:
            fail(f"{options.trace} cannot be read: {bad.strerror}: --trace FILE.")
        except Unfit as bad:
            fail(f"{options.trace}: {bad}")
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        return
    names = choose("--only", options.only, SCENARIOS)
    policies = choose("--policies", options.policies or ",".join(
        CHECKED if options.check else POLICIES), POLICIES)
    seeds = options.seeds[:1 if options.quick else None]
    if options.check:
        raise SystemExit(not check(names, policies, seeds))
    settings = {name: SCENARIOS[name]._replace(seconds=QUICK)
                if options.quick and SCENARIOS[name].event == "steady" else SCENARIOS[name]
                for name in names}
    results = {}
    for name, policy, runs in run_all(settings, policies, seeds):
        results[name, policy] = runs
        if policy == policies[-1]:
            print(f"done: {name}", file=sys.stderr)
    for letter in "SE":
        chosen = [name for name in names if name[0] == letter]
        if chosen:
            show_table(chosen, policies, results)


if __name__ == "__main__":
    main()
