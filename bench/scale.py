"""How the cost and memory of lbdns grow with what it has to do. Needs dnsperf.

The series, of which each prints a line per size:
  workers  1 and 2 processes that answer
  pools    1 to 1,000, asked in turn
  names    1 to 1,000,000 different names that end with the pool's; all are asked once before,
           and a measurement begins with the first again and comes as far as its time allows
  zones    1 to 1,000 zones with ten names each, beside the one that is asked
  random, round-robin, least-connections, failover, hash, function
           the policy of a pool of 1 to 10,000 backends; least-connections reads their load from
           a table every second, which is in its cost; function is a file's, random.choice(backends)

The servers of a series run side by side and are measured in turn. us/query is the CPU time of all
processes of a server per query completed, and its ratio, which holds on a busy machine, that to the
first line of the series in the same round. "start" is the ms until the first answer. MiB is the
memory of all processes (PSS: a page that several share counts once), after the start and after the
loads.

Then come the scenarios, asked 1,000 queries/s for --scenario-seconds (0: none of them), a line for
each: what was lost, how many ms half, 99 % and all of the answers took, and what share of a core
the processes used, and the monitor alone.
  limits   3,000 backends, each one below its max_connections
  changes  10,000 rows that all change each second
  table    1,000 pools with 10 rows each in one table, of which each changes once a second
  quiet    the same, of which none changes
  checks   500 addresses that are checked over TCP every 5 s; half of them never answer

The last line says what TCP clients cost that have asked once and stay: KiB of PSS for each.
"""
import contextlib
import dataclasses
import ipaddress
import json
import socket
import sqlite3
import subprocess
import sys
import time

from common import (anti_cache, ask_steadily, choose, describe_machine, dnsperf, interleave, median,
                    middle, parser, prepared, ratio, row, start_lbdns)
from server import packet

WINDOW = 20      # queries on their way: few enough for a reply in time at 30 ms of CPU each
NAMES = 20_000   # in a file of queries, unless their number is what is measured
BACKENDS = (1, 3, 100, 1_000, 10_000)
POLICIES = ("random", "round-robin", "least-connections", "failover", "hash", "function")
SERIES = {"workers": (1, 2), "pools": (1, 10, 100, 1_000), "names": (1, 1_000, 1_000_000),
          "zones": (1, 100, 1_000), **dict.fromkeys(POLICIES, BACKENDS)}
FUNCTION = """import random
def pick(query, backends):
    return random.choice(backends)
"""
CLIENTS = 1_900   # over TCP; a worker serves 2,000, and closes idle ones for more


@dataclasses.dataclass
class Task:
    """What one lbdns of a series has to do."""
    pools: int = 1
    backends: int = 3
    policy: str = "random"
    workers: int = 1
    names: int = NAMES
    zones: int = 0     # beside example.com


def task(series, size):
    """The task of a size in a series."""
    if series in POLICIES:
        return Task(policy=series, backends=size)
    return Task(**{series: size})


def pool_names(count):
    """api.example.com, api1.example.com, ..."""
    return [f"api{number or ''}.example.com" for number in range(count)]


def addresses(count):
    """This many addresses of backends."""
    first = ipaddress.ip_address("10.0.0.1")
    return [str(first + number) for number in range(count)]


def load_table(folder, backends):
    """The path of an SQLite file with backends and their connections."""
    path = folder / f"load{backends}.db"
    rows = [(address, 100 + at % 7) for at, address in enumerate(addresses(backends))]
    with contextlib.closing(sqlite3.connect(path)) as table, table:
        table.execute("CREATE TABLE load (address TEXT, connections INTEGER)")
        table.executemany("INSERT INTO load VALUES (?, ?)", rows)
    return path


def pools_config(job, folder):
    """The pools of a task, and its other zones, as TOML."""
    policy = job.policy
    backends = f"backends = {json.dumps(addresses(job.backends))}"
    if job.policy == "least-connections":
        query = "SELECT address, connections FROM load"
        path = load_table(folder, job.backends)
        backends = f"source = {{ sqlite = {json.dumps(str(path))}, query = '{query}', every = 1 }}"
    if policy == "function":
        policy = f"{folder / 'policy.py'}:pick"
        (folder / "policy.py").write_text(FUNCTION)
    names = "\n".join(f"www{at} A 192.0.2.{at}" for at in range(10))
    zones = [f'[zones."zone{at}.example.net"]\nns = ["ns1.example.com."]\n'
             f'records = """\n{names}"""\n' for at in range(job.zones)]
    pools = [f'[pools."{name}"]\npolicy = {json.dumps(policy)}\n{backends}\n'
             for name in pool_names(job.pools)]
    return "".join(zones + pools)


def queries(job, folder):
    """The file of queries of a task."""
    path = folder / f"queries-{job.names}-{job.pools}"
    if not path.exists():
        names = anti_cache(job.names, pool_names(job.pools))
        path.write_text("".join(f"{name} A\n" for name in names))
    return path


def show_series(series, sizes, options, folder, cores):
    """Measure a series and print its lines."""
    with contextlib.ExitStack() as stack:
        files, servers = {}, []
        for size in sizes:
            job, name = task(series, size), f"{series}-{size}"
            files[name] = queries(job, folder)
            servers.append(stack.enter_context(start_lbdns(
                options, pools_config(job, folder), folder, cores, name, job.workers)))
        before = [server.memory()[1] for server in servers]
        if series == "names":
            for server in servers:
                dnsperf(server, files[server.name], "-e", "-n", 1, window=WINDOW)
        results = interleave(options, [series], servers, lambda work, server: dnsperf(
            server, files[server.name], "-e", "-l", options.seconds, window=WINDOW))
        base = results[series, servers[0].name]
        for size, server, early in zip(sizes, servers, before, strict=True):
            got = results[series, server.name]
            row(series, size, median(cost.total for cost in got), ratio(got, base),
                middle(got, "rate"), round(middle(got, "lost")), 1000 * server.start_time, early,
                server.memory()[1])


PARTS = "", "lbdns-monitor"   # whose CPU time is told apart: all processes, and one
SCHEMA = """CREATE TABLE backends (pool TEXT NOT NULL, address TEXT NOT NULL, connections INTEGER,
  weight REAL NOT NULL DEFAULT 1, max_connections INTEGER, state TEXT NOT NULL DEFAULT 'up',
  updated_at REAL, PRIMARY KEY (pool, address))"""
WRITER = """
import sqlite3, sys, time
table = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
for number in range(int(sys.argv[2])):
    table.execute("UPDATE backends SET connections = 100 + (rowid * 7919 + ?) % 50", (number,))
    time.sleep(1)
"""


@dataclasses.dataclass
class Scenario:
    """A fleet in a table, and what happens to it while it is asked."""
    pools: int = 1
    backends: int = 3_000
    limit: int | None = None    # max_connections; each backend has one less
    every: float = 1            # seconds between two polls
    changes: bool = False       # whether all rows change each second
    checks: bool = False        # whether they are checked, and half of them silent


SCENARIOS = {"limits": Scenario(limit=100, every=5),
             "changes": Scenario(backends=10_000, changes=True),
             "table": Scenario(pools=1_000, backends=10, changes=True),
             "quiet": Scenario(pools=1_000, backends=10),
             "checks": Scenario(pools=2, backends=250, checks=True)}


def fleet_table(path, scenario):
    """Make the table of a scenario."""
    rows = [(name, address, (scenario.limit or 101) - 1, scenario.limit)
            for name in pool_names(scenario.pools) for address in addresses(scenario.backends)]
    with contextlib.closing(sqlite3.connect(path)) as table, table:
        table.execute("PRAGMA journal_mode = WAL")
        table.execute(SCHEMA)
        table.executemany("INSERT INTO backends (pool, address, connections, max_connections) "
                          "VALUES (?, ?, ?, ?)", rows)


def checked_pools(scenario, stack):
    """Pools on loopback, as TOML: the port of every other one is open, of the others silent."""
    pools = []
    for number, name in enumerate(pool_names(scenario.pools)):
        # Nobody accepts: connections wait in the backlog, and one that is full drops what comes.
        listener = stack.enter_context(socket.create_server(
            ("", 0), backlog=0 if number % 2 else 4096))
        for _ in range(number % 2 * 4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", listener.getsockname()[1]))
        hosts = [f"127.{number + 1}.{at >> 8}.{at & 255}" for at in range(1, scenario.backends + 1)]
        pools.append(f'[pools."{name}"]\nbackends = {json.dumps(hosts)}\n'
                     f'check = "tcp://:{listener.getsockname()[1]}"\n')
    return "".join(pools)


def scenario_pools(name, folder, stack):
    """The pools of a scenario, as TOML; what they need is made."""
    scenario, path = SCENARIOS[name], folder / f"{name}.db"
    if scenario.checks:
        return checked_pools(scenario, stack)
    fleet_table(path, scenario)
    source = f"source = {{ sqlite = {json.dumps(str(path))}, every = {scenario.every} }}"
    return "".join(f'[pools."{each}"]\npolicy = "least-connections"\n{source}\n'
                   for each in pool_names(scenario.pools))


def show_scenario(name, options, folder, cores):
    """Run a scenario and print its line."""
    scenario, seconds = SCENARIOS[name], options.scenario_seconds
    with contextlib.ExitStack() as stack:
        pools = scenario_pools(name, folder, stack)
        server = stack.enter_context(start_lbdns(options, pools, folder, cores, name, len(cores)))
        if scenario.changes:
            writer = subprocess.Popen([sys.executable, "-c", WRITER, folder / f"{name}.db",
                                       str(int(seconds + 60))])
            stack.callback(writer.wait)
            stack.callback(writer.kill)
            time.sleep(2)
        before, begun = [sum(server.cpu(part)) for part in PARTS], time.perf_counter()
        taken, lost = ask_steadily(server.port, anti_cache(2_000, pool_names(scenario.pools)),
                                   1_000, seconds)
        took = time.perf_counter() - begun
        shares = [(sum(server.cpu(part)) - early) / 1e4 / took
                  for part, early in zip(PARTS, before, strict=True)]
        row(name, lost, *(taken[round(part * (len(taken) - 1))] for part in (0.5, 0.99, 1)),
            *(f"{share:.1f} %" for share in shares), 1000 * server.start_time)


# ---- TCP clients --------------------------------------------------------------------------------

def show_clients(options, folder, cores):
    """Print what clients of TCP cost that have asked once and stay."""
    octets = packet(1, "api.example.com", edns=True)
    with start_lbdns(options, pools_config(Task(), folder), folder, cores) as server:
        before = server.memory()[1]
        with contextlib.ExitStack() as stack:
            for _ in range(CLIENTS):
                client = stack.enter_context(
                    socket.create_connection(("127.0.0.1", server.port), timeout=5))
                client.sendall(len(octets).to_bytes(2, "big") + octets)
                client.recv(512)
            row("clients", CLIENTS, (server.memory()[1] - before) * 1024 / CLIENTS)


def main():
    """The command line."""
    args = parser(__doc__)
    args.add_argument("--only", metavar="A,B", default=",".join(SERIES),
                      help="the series (all)")
    args.add_argument("--largest", type=int, default=1_000_000, metavar="N",
                      help="leave out larger sizes; asking a million names once takes minutes")
    args.add_argument("--scenarios", metavar="A,B", default=",".join(SCENARIOS),
                      help="the scenarios (all)")
    args.add_argument("--scenario-seconds", type=float, default=8, metavar="N",
                      help="how long each is asked (%(default)s); 0 = leave them out")
    options = args.parse_args()
    chosen = choose("--only", options.only, SERIES)
    scenarios = choose("--scenarios", options.scenarios, SCENARIOS)
    with prepared(options, workers=max(SERIES["workers"])) as (folder, cores):
        describe_machine(options, cores)
        if chosen:
            row("series", "size", "us/query", "ratio", "q/s", "lost", "start, ms", "MiB before",
                "MiB after")
        for series in chosen:
            sizes = [size for size in SERIES[series] if size <= max(1, options.largest)]
            show_series(series, sizes, options, folder, cores)
        if options.scenario_seconds > 0:
            row("scenario", "lost", "ms, 50 %", "99 %", "100 %", "CPU", "monitor", "start, ms")
            for name in scenarios:
                show_scenario(name, options, folder, cores)
            row("series", "size", "KiB each")
            show_clients(options, folder, cores)


if __name__ == "__main__":
    main()
