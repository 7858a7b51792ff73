"""A whole fleet on loopback: does lbdns keep long-lived connections even, and what of events?

Eight TCP backends (processes of their own) hold connections. Beside each runs the real agent,
`lbdns.py agent`, which counts them in the kernel and reports their number every second to four
lbdns of two workers. An agent counts by port, so each backend has a port of its own here, which the
clients know. There are no health checks, so that what is measured is agents and nothing else: a
backend is gone when its agent has been silent for `stale` seconds.

Clients come as a Poisson process, ask one of the four at random for a name that no cache knows,
connect to the answer, and stay for an exponential time; a client that is refused or cut off asks
and connects again at once. When all is in equilibrium a host dies: a backend and its agent are
killed (SIGKILL; they stay dead). Later the agent of a ninth backend is started, later one is ended
(SIGTERM), which drains its backend.

All that happens twice at the same time, with the same arrivals: to a pool with the policy
least-connections and to one with random, so that both are measured under the same conditions.

max/mean is of the established connections of the backends that live, have an agent and are not
drained: 1 is perfect, and an empty newcomer makes it 8/7 or more whatever the policy. "Settled" is
what is seen from the end of the warm-up to the end, without the 30 s after each event.

The exit code is 1 when the run shows what it must not: settled max/mean of least-connections above
--most on average, a dead backend named more than `stale` and 2 s after its death, a drained one
more than 1 s after its agent was ended, a query that gets no answer within a second.
"""
import asyncio
import collections
import contextlib
import itertools
import math
import multiprocessing
import os
import pathlib
import random
import resource
import secrets
import signal
import socket
import statistics
import subprocess
import time
from typing import NamedTuple

from chart import draw
from common import asker, fail, parser, receive, start_lbdns, workspace
from server import cpu_of, fill, free_port, packet

POOLS = {"least-connections": "api.example.com", "random": "dice.example.com"}   # policy -> name
BACKENDS = 8
VICTIM, NEWCOMER, DRAINED = 2, BACKENDS, 5   # which of a pool's backends is killed, added, drained
ADDRESSES = {policy: [f"127.{net}.0.{at + 1}" for at in range(BACKENDS + 1)]
             for net, policy in enumerate(POOLS, 1)}
WHO = {socket.inet_aton(address): (policy, at)
       for policy, addresses in ADDRESSES.items() for at, address in enumerate(addresses)}
SERVERS = 4
STALE = 3.0        # seconds of silence after which a backend counts as down
ANSWER = 1.0       # seconds after which a query counts as unanswered
PAUSE = 0.1        # seconds before a client's third try and each later one; the second is at once
WINDOW = 10.0      # seconds over which the newcomer's share is taken
DEAD_LIMIT, DRAIN_LIMIT = STALE + 2.0, 1.0   # seconds to be out of the answers
SPARE = 200        # open files beside the clients' connections

TOP = """
log = "errors"
reports = ["{reports}"]
reports_key = "{key}"
"""
POOL = """
[pools."{name}"]
policy = "{policy}"
stale = {stale}
source = { reports = true }
"""


class Plan(NamedTuple):
    """When things happen, in seconds from the first connection."""
    fill: float = 15       # until then, all connections of the equilibrium are opened
    warm: float = 40       # the end of the warm-up: what comes later counts
    kill: float = 75
    add: float = 115
    drain: float = 195     # by when the newcomer has its share
    end: float = 235
    settle: float = 30     # how long after an event the settled figures leave out
    lifetime: float = 60   # mean of a connection
    sample: float = 0.5    # between two looks at the connections

    def phases(self):
        """The spans of the settled figures: (name, from, to)."""
        return [("before events", self.warm, self.kill),
                ("after the death", self.kill + self.settle, self.add),
                ("after the newcomer", self.add + self.settle, self.drain),
                ("after the drain", self.drain + self.settle, self.end)]

    def serving(self, when):
        """Which backends of a pool new clients should be told then."""
        gone = {VICTIM} if when >= self.kill else set()
        gone |= {DRAINED} if when >= self.drain else set()
        return [at for at in range(BACKENDS + (when >= self.add)) if at not in gone]


# ---- 1. A backend: a process that holds connections, and beside it an agent ---------------------

async def hold(listener):
    """Accept all who come, while the process that began this one lives."""
    loop, parent = asyncio.get_running_loop(), os.getppid()
    await loop.create_server(asyncio.Protocol, sock=listener, backlog=1024)
    while os.getppid() == parent:
        await asyncio.sleep(1)


def backend(listeners, own):
    """The process of one backend; the others' listeners are not its own."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)   # Ctrl-C is for the clients, which end this
    for listener in listeners.values():
        if listener is not own:
            listener.close()
    asyncio.run(hold(own))


def listen():
    """{address: listener} of all backends, each at a port that no other has."""
    listeners, ports = {}, set()
    for address in itertools.chain(*ADDRESSES.values()):
        while address not in listeners:
            listener = socket.create_server((address, 0))
            if listener.getsockname()[1] in ports:   # the kernel minds only the pair
                listener.close()
            else:
                listeners[address] = listener
                ports.add(listener.getsockname()[1])
    return listeners


class Fleet:
    """The backends of both pools, each a process, and their agents. Newcomers run from the start,
    but nobody knows of them before they have an agent."""

    def __init__(self, options, folder, reports):
        """None runs yet; `reports` is where the name servers hear agents."""
        self.options, self.folder, self.reports = options, folder, reports
        self.key = folder / "reports.key"
        self.key.touch(0o600)
        self.key.write_text(secrets.token_hex(32))
        self.backends, self.agents, self.ports = {}, {}, {}   # by address

    def __enter__(self):
        """What is started from here on is ended."""
        return self

    def __exit__(self, *exc):
        """End what is left of it."""
        for process in (*self.agents.values(), *self.backends.values()):
            process.kill()
        for agent in self.agents.values():
            agent.wait()
        for process in self.backends.values():
            process.join()

    def start(self):
        """Start all but the newcomers' agents."""
        listeners, fork = listen(), multiprocessing.get_context("fork")
        for address, own in listeners.items():
            self.ports[address] = own.getsockname()[1]
            process = fork.Process(target=backend, args=(listeners, own), daemon=True)
            process.start()
            self.backends[address] = process
        for listener in listeners.values():
            listener.close()
        for at in range(BACKENDS):
            self.start_agents(at)

    def start_agents(self, at):
        """Start the agent of this backend of each pool."""
        for policy, name in POOLS.items():
            address = ADDRESSES[policy][at]
            words = [self.options.python, self.options.lbdns.resolve(), "agent", name,
                     self.ports[address], "--address", address, "--to", ",".join(self.reports),
                     "--key", self.key]
            with open(self.folder / f"agent-{address}", "wb") as log:
                self.agents[address] = subprocess.Popen(
                    [str(word) for word in words], cwd=self.folder, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True)

    def end_agents(self, at):
        """End the agent of this backend of each pool, as systemd does it."""
        for policy in POOLS:
            self.agents[ADDRESSES[policy][at]].terminate()

    def kill(self, at):
        """Let the host of this backend of each pool die."""
        for policy in POOLS:
            self.agents[ADDRESSES[policy][at]].kill()
            self.backends[ADDRESSES[policy][at]].kill()

    def cpu(self):
        """Microseconds of CPU that the agents used so far which run from start to end, each."""
        return statistics.fmean(
            sum(cpu_of([self.agents[ADDRESSES[policy][at]].pid])) for policy in POOLS
            for at in range(BACKENDS) if at not in (VICTIM, DRAINED))

    def notes(self):
        """The end of the log of each agent that ended, and should not have."""
        for address, agent in self.agents.items():
            at = WHO[socket.inet_aton(address)][1]
            if agent.poll() not in {VICTIM: (None, -signal.SIGKILL), DRAINED: (None, 0)}.get(
                    at, (None,)):
                text = (self.folder / f"agent-{address}").read_text().strip()
                yield f"agent of {address}: {text[-200:]}"


# ---- 2. Clients -------------------------------------------------------------------------------

class Asked:
    """One lbdns as its clients see it: each reply goes to who waits for it."""
    def __init__(self, port):
        self.loop, self.waiting, self.ident = asyncio.get_running_loop(), {}, 0
        self.sock = asker(port)
        self.loop.add_reader(self.sock, self.on_replies)

    def on_replies(self):
        """All that has come (asyncio's own transport takes one at a time, which is slow for the
        hundreds that a dead backend brings); a reply that is late finds nobody."""
        with contextlib.suppress(OSError):
            while True:
                came, reply = receive(self.sock)
                waiter = self.waiting.pop(int.from_bytes(reply[:2], "big"), None)
                if waiter and not waiter.done():
                    waiter.set_result((came, reply))

    async def ask(self, name):
        """When the reply came (unix time), and its octets; raises TimeoutError."""
        self.ident = ident = (self.ident + 1) % 65536
        waiter = self.waiting[ident] = self.loop.create_future()
        with contextlib.suppress(OSError):   # such as ECONNREFUSED of an earlier one
            self.sock.send(packet(ident, name))
        await asyncio.wait([waiter], timeout=ANSWER)
        self.on_replies()   # what is there already came in time: it is the clients who lag behind
        self.waiting.pop(ident, None)
        if not waiter.done():
            raise TimeoutError
        return waiter.result()


class Seen:
    """What the clients saw; times are in seconds from the first connection."""
    def __init__(self):
        self.samples = []    # (time, {policy: connections of each backend})
        self.answers = []    # (time, policy, which backend was named)
        self.opened = []     # (time, policy, which backend took a connection)
        self.waits = []      # seconds from a query to its answer
        self.refused = collections.Counter()   # policy -> connects that failed
        self.unanswered = 0
        self.wrong = []      # answers that name no backend of the pool, as hexadecimal


class Clients:
    """All clients of a run, each a task; and the hand that kills, adds and drains."""
    def __init__(self, plan, rate, seed):
        self.plan, self.rate, self.seen = plan, rate, Seen()
        self.dice = random.Random(seed)        # arrivals and lifetimes: the same for each pool
        self.choice = random.Random(seed + 1)  # which lbdns is asked
        self.counts = {policy: [0] * (BACKENDS + 1) for policy in POOLS}
        self.servers, self.ports, self.began, self.serial, self.tasks = [], {}, 0.0, 0, set()

    def now(self):
        """Seconds from the first connection."""
        return asyncio.get_running_loop().time() - self.began

    async def until(self, when):
        """Wait until then."""
        await asyncio.sleep(when - self.now())

    async def resolve(self, policy):
        """The backend that a client of this pool is told by one lbdns or, if need be, another."""
        self.serial += 1
        name = f"{1596207957 + self.serial}-{POOLS[policy]}"
        servers = itertools.cycle(self.choice.sample(self.servers, len(self.servers)))
        while True:
            asked = time.time()
            try:
                came, reply = await next(servers).ask(name)
            except TimeoutError:
                self.seen.unanswered += 1
                continue
            self.seen.waits.append(came - asked)
            self.seen.unanswered += came - asked > ANSWER
            whose, at = WHO.get(reply[-4:], ("", 0))   # the address, for the reply has no OPT
            if reply[3] & 15 == 0 and reply[7] and whose == policy:
                self.seen.answers.append((self.now() + came - time.time(), policy, at))
                return at
            self.seen.wrong.append(reply.hex())
            await asyncio.sleep(PAUSE)

    async def visit(self, policy, leaves):
        """A client from its arrival to when it leaves."""
        tries = 0
        while self.now() < leaves:
            at, tries = await self.resolve(policy), tries + 1
            with contextlib.closing(socket.socket()) as sock:
                sock.setblocking(False)
                where = ADDRESSES[policy][at]
                try:
                    await asyncio.get_running_loop().sock_connect(
                        sock, (where, self.ports[where]))
                except OSError:
                    self.seen.refused[policy] += 1
                    await asyncio.sleep(PAUSE * (tries > 1))
                    continue
                self.seen.opened.append((self.now(), policy, at))
                await self.stay(sock, policy, at, leaves)
                tries = 0

    async def stay(self, sock, policy, at, leaves):
        """Hold a connection until the client leaves or the backend is gone."""
        self.counts[policy][at] += 1
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout_at(self.began + leaves):
                await asyncio.get_running_loop().sock_recv(sock, 1)
        self.counts[policy][at] -= 1

    def arrive(self, start):
        """A client for each pool, whose lifetimes begin then."""
        leaves = start + self.dice.expovariate(1 / self.plan.lifetime)
        for policy in POOLS:
            task = asyncio.create_task(self.visit(policy, leaves))
            self.tasks.add(task)   # asyncio itself holds tasks weakly
            task.add_done_callback(self.tasks.discard)

    async def arrivals(self):
        """As many as the equilibrium has, spread over the filling; then a Poisson process."""
        total = round(self.rate * self.plan.lifetime)
        for number in range(total):
            await self.until(self.plan.fill * number / total)
            self.arrive(self.plan.fill)   # what is left of an exponential lifetime is one again
        due = self.plan.fill
        while True:
            due += self.dice.expovariate(self.rate)
            await self.until(due)
            self.arrive(due)

    async def watch(self):
        """Note the connections, again and again."""
        for number in itertools.count():
            await self.until(number * self.plan.sample)
            self.seen.samples.append((self.now(), {policy: [*counts] for policy, counts
                                                   in self.counts.items()}))

    async def events(self, fleet):
        """Do to the fleet what the plan says, and note in the plan when it was done."""
        await self.until(self.plan.kill)
        fleet.kill(VICTIM)
        self.plan = self.plan._replace(kill=self.now())
        await self.until(self.plan.add)
        fleet.start_agents(NEWCOMER)
        self.plan = self.plan._replace(add=self.now())
        await self.until(self.plan.drain)
        fleet.end_agents(DRAINED)
        self.plan = self.plan._replace(drain=self.now())
        await self.until(self.plan.end)

    async def run(self, ports, fleet):
        """All of it, from the first connection to the end of the plan; `ports` are of the lbdns."""
        self.servers = [Asked(each) for each in ports]
        self.ports, self.began = fleet.ports, asyncio.get_running_loop().time()
        others = [asyncio.create_task(each) for each in (self.arrivals(), self.watch())]
        await self.events(fleet)
        for task in others:
            if task.done():
                task.result()   # raises what ended it


# ---- 3. Figures -------------------------------------------------------------------------------

# Those that are judged.
SETTLED = "max/mean of connections, settled: mean"
DEAD = "dead backend: seconds until its last answer"
DRAINING = "drained backend: seconds until its last answer"


def evenness(seen, plan, policy):
    """max/mean of the connections at each look after the warm-up: [(time, max/mean)]."""
    found = []
    for when, counts in seen.samples:
        now = [counts[policy][at] for at in plan.serving(when)]
        if when >= plan.warm and sum(now):
            found.append((when, max(now) / statistics.fmean(now)))
    return found


def within(series, start, end):
    """The values of a series between two times."""
    return [value for when, value in series if start <= when < end]


def mean(values):
    """The mean, of nothing not a number."""
    return statistics.fmean(values) if values else math.nan


def last_named(seen, policy, at, since):
    """Seconds from an event to the last answer that still named a backend; 0 without one."""
    return max((when - since for when, whose, who in seen.answers
                if (whose, who) == (policy, at) and when > since), default=0.0)


def newcomer_share(seen, plan, policy):
    """The highest share of new connections that the newcomer got in any WINDOW, 1 = fair."""
    window, highest, hits = collections.deque(), 0.0, 0
    for when, whose, at in seen.opened:
        if whose != policy or not plan.add <= when < plan.drain:
            continue
        window.append((when, at))
        hits += at == NEWCOMER
        while window[0][0] < when - WINDOW:
            hits -= window.popleft()[1] == NEWCOMER
        if when >= plan.add + min(WINDOW, (plan.drain - plan.add) / 2):   # a few tell nothing yet
            highest = max(highest, hits / len(window))
    return highest * len(plan.serving(plan.add))


def newcomer_time(seen, plan, policy):
    """Seconds until the newcomer has 90 % of the mean of all; infinite if it never has."""
    for when, counts in seen.samples:
        fair = mean([counts[policy][at] for at in plan.serving(when)])
        if plan.add <= when < plan.drain and counts[policy][NEWCOMER] >= 0.9 * fair:
            return when - plan.add
    return math.inf


def figures(seen, plan, policy):
    """What is told of a policy: {text: number}, in the order of the table."""
    series = evenness(seen, plan, policy)
    after = [value for _, value in series]
    phases = {name: within(series, start, end) for name, start, end in plan.phases()}
    found = {SETTLED: mean([*itertools.chain(*phases.values())])}
    found.update({f"- {name}": mean(values) for name, values in phases.items()})
    found["max/mean over all the time: mean"] = mean(after)
    found["- 99th percentile"] = sorted(after)[int(0.99 * len(after))] if after else math.nan
    found["- worst"] = max(after, default=math.nan)
    found[DEAD] = last_named(seen, policy, VICTIM, plan.kill)
    found["connects that failed"] = seen.refused[policy]
    found["newcomer: highest share of new connections in 10 s, times the fair one"] = (
        newcomer_share(seen, plan, policy))
    found["newcomer: seconds until it has 90 % of its fair share"] = (
        newcomer_time(seen, plan, policy))
    found[DRAINING] = last_named(seen, policy, DRAINED, plan.drain)
    found["- answers that named it more than 1 s after"] = sum(
        (whose, at) == (policy, DRAINED) and when > plan.drain + 1
        for when, whose, at in seen.answers)
    return found


def judge(table, seen, most):
    """What must not be, as sentences; `table` is {policy: figures}."""
    even = table["least-connections"][SETTLED]
    if not even <= most:   # nor what is not a number
        yield f"settled max/mean of least-connections is {even:.3f}, more than {most:g}"
    for policy, found in table.items():
        for text, limit in ((DEAD, DEAD_LIMIT), (DRAINING, DRAIN_LIMIT)):
            if found[text] > limit:
                yield f"{policy}: {text} {found[text]:.2f}, more than {limit:g}"
    if seen.unanswered:
        yield f"{seen.unanswered} queries without an answer within {ANSWER:g} s"
    if seen.wrong:
        yield f"{len(seen.wrong)} answers are wrong, such as {seen.wrong[0]}"


def show(number):
    """A figure as text."""
    if isinstance(number, int):
        return f"{number:,}"
    if not math.isfinite(number):
        return "-" if math.isnan(number) else "never"
    return f"{number:.2f}" if number < 10 else f"{number:.0f}"


def report(table, seen, shares):
    """Print the table, in Markdown, and what concerns both pools."""
    print(f"| | {' | '.join(table)} |\n| --- |{' --- |' * len(table)}")
    for text in table["random"]:
        print(f"| {text} | {' | '.join(show(found[text]) for found in table.values())} |")
    slow = sorted(seen.waits)[int(0.99 * len(seen.waits))] if seen.waits else math.nan
    print(f"\n{len(seen.waits):,} queries answered, {seen.unanswered} not within {ANSWER:g} s; "
          f"99 % within {1000 * slow:.1f} ms, all within {1000 * max(seen.waits, default=0):.0f}.\n"
          "Of a core, each lbdns used {:.1f} %, {:.1f} of them its monitor; each agent {:.2f} %."
          .format(*shares))


# ---- 4. The run -------------------------------------------------------------------------------

def allow_files(wanted):
    """Allow as many open files as the clients need."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < wanted:
        fail(f"it needs {wanted} open files and may have {hard}: raise the hard limit "
             f"(ulimit -Hn {wanted}), or --rate.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def used(servers, fleet):
    """Microseconds of CPU that were used so far, on average: by an lbdns, its monitor, an agent."""
    return [statistics.fmean(sum(server.cpu()) for server in servers),
            statistics.fmean(sum(server.cpu("lbdns-monitor")) for server in servers), fleet.cpu()]


def run(options, plan, folder):
    """The fleet, from its start to its end: (clients, what `used` has, in % of a core)."""
    cores = os.sched_getaffinity(0)
    reports = [f"127.3.0.{number + 1}:{free_port()}" for number in range(SERVERS)]
    pools = "".join(fill(POOL, name=name, policy=policy, stale=STALE)
                    for policy, name in POOLS.items())
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(options, folder, reports))
        fleet.start()   # first, since the first answers of an lbdns wait for reports
        servers = [stack.enter_context(start_lbdns(
            options, pools, folder, cores, f"lbdns-{number}", workers=2, servers=SERVERS,
            top=fill(TOP, reports=hears, key=fleet.key))) for number, hears in enumerate(reports)]
        clients = Clients(plan, options.rate, options.seed)
        print(f"{SERVERS} lbdns and {len(fleet.backends)} backends run; {plan.end:g} s", flush=True)
        before = used(servers, fleet)
        asyncio.run(clients.run([server.port for server in servers], fleet))
        shares = [(after - early) / 1e4 / plan.end
                  for after, early in zip(used(servers, fleet), before, strict=True)]
        for server in servers:   # with log = "errors", silence is well
            for line in (server.folder / "log").read_text().splitlines():
                print(f"note: {server.name}: {line}")
        for each in fleet.notes():
            print(f"note: {each}")
    return clients, shares


def plot(clients, table, options):
    """The picture: connections of each backend from the end of the warm-up on."""
    plan, ends = clients.plan, {VICTIM: "killed", NEWCOMER: "added", DRAINED: "drained"}
    samples = [each for each in clients.seen.samples if each[0] >= plan.warm]
    panels = []
    for policy, found in table.items():
        lines = [(ends.get(at, ""), [(when - plan.warm, counts[policy][at])
                                     for when, counts in samples
                                     if at != NEWCOMER or when >= plan.add])
                 for at in range(BACKENDS + 1)]
        panels.append((f"{policy}: max/mean {found[SETTLED]:.2f}", lines))
    events = [(when - plan.warm, text, plan.settle) for when, text in (
        (plan.kill, "one killed"), (plan.add, "one added"), (plan.drain, "one drained"))]
    return draw("Established connections of each backend",
                f"{BACKENDS} backends, {SERVERS} lbdns, {options.rate:g} new connections a second, "
                f"mean lifetime {plan.lifetime:g} s, an agent on each backend reports every second",
                panels, events, plan.end - plan.warm)


def main():
    """The command line; returns the exit code."""
    args = parser(__doc__, rounds=False)
    args.add_argument("--seconds", type=float, default=Plan().end,
                      help="of the run; lifetimes and phases scale with it (%(default)s)")
    args.add_argument("--rate", type=float, default=50,
                      help="new connections per second and pool (%(default)s)")
    args.add_argument("--most", type=float, default=1.05,
                      help="what settled max/mean of least-connections may be (%(default)s)")
    args.add_argument("--seed", type=int, default=1, help="of the arrivals (%(default)s)")
    args.add_argument("--plot", type=pathlib.Path, metavar="FILE", help="draw an SVG picture")
    options = args.parse_args()
    if options.seconds <= 0 or options.rate <= 0:
        fail("it takes more than no seconds, and a rate above 0.")
    plan = Plan(*(options.seconds / Plan().end * each for each in Plan()))
    with workspace(options) as folder:
        allow_files(int(len(POOLS) * 1.25 * options.rate * plan.lifetime) + SPARE)
        clients, shares = run(options, plan, folder)
    table = {policy: figures(clients.seen, clients.plan, policy) for policy in POOLS}
    report(table, clients.seen, shares)
    if options.plot:
        options.plot.write_text(plot(clients, table, options))
    wrong = [*judge(table, clients.seen, options.most)]
    for each in wrong:
        print(f"FAILED: {each}.")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
