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
"""
import argparse
import collections
import itertools
import math
import multiprocessing
import pathlib
import random
import statistics
import sys
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


# ---- 4. Tables ---------------------------------------------------------------------------------

def measure(setting, policy, seed):
    """The figures of one run."""
    run = World(setting, POLICIES[policy], seed).run()
    return [FIGURES[name][1](run) for name in setting.figures.split()]


def job(work):
    """The same for a process of the pool."""
    name, policy, seed, quick = work
    setting = SCENARIOS[name]
    if quick and setting.event == "steady":
        setting = setting._replace(seconds=QUICK)
    return measure(setting, policy, seed)


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


def arguments():
    """The command line."""
    args = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--only", metavar="A,B", default=",".join(SCENARIOS),
                      help="of S1 to E23 (all)")
    args.add_argument("--policies", metavar="A,B", default=",".join(POLICIES),
                      help="the columns (%(default)s)")
    args.add_argument("--seeds", metavar="A,B", type=numbers, default="1,2,3",
                      help="a run each (%(default)s)")
    args.add_argument("--quick", action="store_true", help="one seed, and shorter runs")
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
    names = choose("--only", options.only, SCENARIOS)
    policies = choose("--policies", options.policies, POLICIES)
    seeds = options.seeds[:1 if options.quick else None]
    keys = list(itertools.product(names, policies, seeds))
    results = collections.defaultdict(list)
    with multiprocessing.Pool() as pool:
        runs = pool.imap(job, [(*key, options.quick) for key in keys])
        for (name, policy, _), figures in zip(keys, runs, strict=True):
            results[name, policy].append(figures)
            if policy == policies[-1] and len(results[name, policy]) == len(seeds):
                print(f"done: {name}", file=sys.stderr)
    for letter in "SE":
        chosen = [name for name in names if name[0] == letter]
        if chosen:
            show_table(chosen, policies, results)


if __name__ == "__main__":
    main()
