#!/usr/bin/env python3
"""lbdns: an authoritative DNS server that balances load by what it answers.

    python3 lbdns.py                    the demo: api.example.com on port 9000, every query logged
    python3 lbdns.py CONFIG             serve what a TOML file says; `lbdns.py example` prints one

Processes: a supervisor binds the sockets, drops privileges, forks, and then only waits. Workers
answer. A monitor reads the sources, checks the backends' health, and publishes what it learns in
memory that workers read; it hears agents, which are processes on other hosts, and shows operators a
page. All of them count what they do in memory that the monitor reads. A loader, once for each
start, reload and `check`, reads the config, and has each policy file of a user tried in a process
of its own. At SIGUSR2 the supervisor has a child try the program file, and then executes it in its
own process, whose children go on meanwhile. Over a restart systemd keeps the sockets, and the
memory that workers read. As root, if started so, run: the supervisor until it has bound the
sockets (that of `check` to its end); the first loader; and what tries a policy file, until just
before it loads that. (With user = "root", all of them.)

Contents: five parts, each of which says what it may touch.

    I    What is decided     nothing: packet, state, clock and dice come as arguments
           1 nouns, 2 a query's way, 3 pools, 4 policies, 5 load, 6 the fast path
    II   The worker          its sockets; no files, no threads, nothing that waits
           7 UDP, 8 TCP, 9 the loop
    III  The monitor         files, other programs, the network; never a query
           10 sources, 11 other people's commands, 12 health checks, 13 reports of agents,
           14 what changed, 15 HTTP: page, metrics, status
    IV   The supervisor      root, fork, signals; parses nothing of others, serves nobody
           16 children, 17 sockets and privileges, policies of users, 18 the supervisor
    V    The operator        terminal and config files; the agent: sockets' numbers, its own socket
           19 the log, 20 config, 21 commands, 22 the agent

(The log of part V, and counters of part IV, are handed to all parts as arguments.)

How to read it in an hour. What a stranger's packet can reach is wire.py, parts I and II, the log,
and class Counters; where a pool has a policy of a user, also class Custom and what stands around
it. So:
    1. The limits below, and those at the head of wire.py.
    2. A query's way, octets to octets: Batch.turn, Datagrams.serve_one (for one alone) or
       Worker.on_client -> Cache.replies, and what that does not know -> Cache.ask -> Worker.ask ->
       decide -> wire.decode_query -> respond -> look_up -> find_records -> Pool.pick -> Policy.pick
       -> wire.Writer.finish. Leave the sections 5 and 6 for the end.
    3. The loop that all of this runs in: Worker.run.
    4. How news reaches a worker: Poll.poll_once -> Feed.apply; Monitor.publish -> Watch.refresh ->
       Watch.log_changes; Worker.apply_snapshots -> State.apply_snapshot -> Pool.apply_rows.
    5. Who starts and ends processes: Supervisor.run, `reload`, `upgrade`, and class Store.
A new policy goes into section 4, where class Policy says what it has to provide; a new word of the
config into the tables of section 20, the class of section 1 that holds it, EXAMPLE and the README.

Glossary:
    pool        a name whose A and AAAA records are chosen anew for each query; or its CNAME, where
                its backends have host names
    anti-cache  a name that ends with a pool's, such as 42api.example.com, which no resolver has yet
    backend     one server of a pool: one address, or one of each family, or a host name
    row         what config or source say of a backend: addresses, weight, limit, state, report
    report      the part of a row that changes all the time: its connections, established now and
                opened ever; also the datagram in which an agent sends it
    agent       a process on a backend (`lbdns.py agent`) that counts its connections, and reports
    state       of a row: up, drain (no new clients, but asked rather than none), or down
    limit       max_connections of a row; a backend at its limit is full
    source      where rows come from: a table of SQLite, what a command prints, or agents
    poll        one reading of a source, for all pools that have it
    entry       what a source says about one backend, before rules have made a row of it
    feed        the last good rows of a pool
    check       what a config says of how a backend's health is found out
    probe       one such attempt, at one address
    target      an address and how it is probed; pools that want the same share it
    healthy     not failing its check, whatever the state of its row
    snapshot    all rows with health, as the monitor publishes them, and what the next monitor needs
    policy      how a pool picks a backend
    plan        by which policy, from which backends, for each record type; made anew when a
                snapshot changes that, or backends are full
    last resort what a pool answers when no backend is up or draining: `all_down`
    brings      connections to expect, through all name servers, for one answer of this worker
    generation  the processes of one config; a reload starts another
    order       how a generation is to end: RETIRE, STOP, ORPHANED
    slot        a child's place in the memory that it shares with the supervisor
    heartbeat   the time that a child writes there, again and again
    way         by which a query came: UDP or TCP, with IPv4 or IPv6
    view        all that operators see, as one dict: page, metrics and status print it
    trial       of a policy file, in a process of its own
    network     of a client: the first 24 bits of an address of IPv4, 56 of IPv6
    large       a reply over UDP that `rate_limit` counts
    store       what systemd, or a program that is executed anew, hands over: class Store
"""
import sys

# Said before anything that an older one cannot import.
if sys.version_info < (3, 11):  # noqa: UP036
    print(f"lbdns needs Python 3.11 or newer, and this one is {sys.version.split()[0]}: install "
          f"one, such as python3.11, and run: python3.11 {sys.argv[0]}", file=sys.stderr)
    sys.exit(2)

try:
    import signal
    SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    if __name__ == "__main__":  # they wait until `main` knows what they mean
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    import argparse
    import array
    import base64
    import bisect
    import collections
    import contextlib
    import difflib
    import errno
    import fcntl
    import functools
    import gc
    import glob
    import hashlib
    import heapq
    import hmac
    import html
    import io
    import ipaddress
    import itertools
    import json
    import math
    import mmap
    import os
    import pathlib
    import pickle
    import pwd
    import random
    import re
    import resource
    import select
    import selectors
    import shutil
    import socket
    import sqlite3
    import stat
    import struct
    import subprocess
    import tempfile
    import textwrap
    import threading
    import time
    import tomllib
    import traceback
    import types
    import urllib.parse
    from collections.abc import (
        AsyncIterator, Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence)
    from contextlib import suppress
    from http import HTTPStatus
    from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeVar, cast
except ImportError as missing:
    print(f"lbdns needs Python's whole standard library, and here is {missing}: "
          "apt install python3, or the package of your system that has it", file=sys.stderr)
    sys.exit(2)

try:
    import ctypes
except ImportError:  # some systems leave it out; UDP then goes one datagram at a time
    ctypes = cast(Any, None)

if TYPE_CHECKING:  # else see `import_for_monitor`
    import asyncio
    import concurrent.futures
    import ssl

try:
    import wire
except ImportError:
    print("lbdns.py needs wire.py beside it, where -P and -I keep Python from looking; 'python3 "
          "lbdns.py bundle > DIR/lbdns.py' writes the one file to copy", file=sys.stderr)
    sys.exit(2)

VERSION = "0.9.0"

# ---- What strangers can cost (limits on one message are in wire.py) ------------------------------
BATCH = 32                # datagrams a system call takes; more would not stay in the cache
UDP_BATCH = 4 * BATCH     # datagrams answered per wake-up, so that TCP and timers get their turn
UDP_QUERY_MAX = 4096      # octets of a query over UDP; what is longer is dropped undecoded
LARGE_FACTOR = 3          # a reply over UDP is large that is longer than so many times its query,
LARGE_SIZE = 512          # or has more octets than that; see class RateLimit
LIMIT_CELLS = 1 << 16     # numbers in which large replies are counted
COOKIE_LIFE = 3600        # seconds for which a server cookie proves where a query comes from
TCP_CONNECTIONS = 2000    # open connections a worker holds; beyond, one makes room: class Networks
TCP_IDLE = 10.0           # seconds without a query before a connection is closed: RFC 7766 6.2.3
TCP_MESSAGE = 5.0         # seconds from a query's first octet to its last
TCP_LIFE = 300.0          # seconds a connection may live, also one that reads a bit now and then
TCP_READ = 16384          # octets taken from a connection per wake-up
TCP_QUEUE = 65536         # octets of unread replies after which a client's queries must wait
TCP_GROUP = 8             # queries answered before a look at how much is unread; fewer where the
                          # fast path does not know one, whose reply may be long
TCP_MEMORY = 1 << 26      # octets that all workers hold of TCP clients, unanswered and unread ones;
                          # beyond, who holds most is closed. lbdns.service has room for 512 MiB
TCP_KERNEL = 16384        # octets that the system may keep of a connection, sent and received each
                          # (Linux doubles it); by itself it grows to several MiB
TCP_TURNS = 8             # such groups answered per connection and wake-up
TCP_TIME = 0.005          # seconds of that, of all connections, until UDP has its turn
ACCEPT_TURN = 32          # connections accepted per wake-up
FAILURES_MAX = 8          # errors of a UDP socket or a listener in about WAKE, then it rests
FAILURES_REST = 0.25      # seconds of such a rest, after which one more error is enough
CHAIN_MAX = 8             # CNAMEs followed in one answer; a ninth is shown and not followed
LEARNED_MAX = 10_000      # replies the fast path remembers, of 900 to 1,800 octets each
LEARNED_SIZE = 512        # octets of the longest query and of the longest reply that it remembers
COUNTERS_MAX = 1 << 17    # records of counts of a process, of 48 octets; beyond, some share one
COUNTERS_OWN = 64         # the same where nobody else reads them

# ---- How long processes wait for each other ------------------------------------------------------
WAKE = 0.1                # seconds in which an idle worker learns that it is to end
START_LIMIT = 10.0        # seconds a child may take to get ready
FIRST_LIMIT = START_LIMIT - 2  # seconds that the first polls and checks may take, all in all
WAIT_LIMIT = FIRST_LIMIT + 1   # seconds that the first answer waits for them


# ==== I  What is decided: touches nothing =========================================================


# ---- 1. Nouns ------------------------------------------------------------------------------------
Problem = wire.BadText  # a value breaks a rule, or a source cannot be read; the text says why
STATES = ("up", "drain", "down")  # of a backend, from best to worst


class Row(NamedTuple):
    """A backend as config or a source describes it."""
    addresses: tuple[str, ...]         # IPv4 and/or IPv6, canonical; or one host name
    weight: float = 1.0                # relative capacity; 0 = picked after all that have one
    max_connections: int | None = None  # None = no limit
    state: str = "up"                  # up | drain | down
    connections: int | None = None     # established now; None = unknown, which is not 0
    down: Sequence[str] = ()           # addresses that fail their check, or were not probed yet
    opened: int | None = None          # accepted ever, which only grows; None = not counted


class PoolConfig(NamedTuple):
    """A pool as the config has it."""
    name: str                   # lower case, without the final dot; the table's column `pool`
    policy: str
    ttl: int                    # seconds
    answers: int                # addresses per answer
    anticache: bool
    backends: tuple[Row, ...]   # inline; () = the source's rows are the backends
    source: "Source | None"
    stale: float                # seconds
    lifetime: float             # seconds that a connection is taken to live
    all_down: str               # all | servfail | empty | an address
    check: "Probe | None"
    min_up: int                 # with fewer up and healthy, health is ignored
    code: str                   # of "file.py:function", as it was when it was checked


class Source(NamedTuple):
    """Where a pool's rows come from: an SQLite file, what a command prints, or agents."""
    name: str                   # path of the file, or the command as people are shown it
    query: str | None           # of SQL; None = the table of SCHEMA
    command: tuple[str, ...]    # program and its arguments; () = there is none
    reports: bool               # whether agents on the backends report
    every: float                # seconds from one poll's start to the next one's
    timeout: float              # seconds a poll may take


class Probe(NamedTuple):
    """How a pool's backends are checked."""
    kind: str                   # tcp | http | https | command
    host: str                   # for Host and SNI
    port: int
    path: str                   # with the query; "" = no HTTP
    command: tuple[str, ...]    # words, with {address} in some of them
    interval: float             # seconds from start to start
    timeout: float              # seconds from start to verdict
    rise: int                   # good probes in a row that make a backend up
    fall: int                   # bad probes in a row that make it down
    status: tuple[int, ...]     # good ones; () = 200 to 399
    body: str                   # text that the body has to hold
    verify: bool                # the certificate


class ServedZone(wire.Zone):
    """A zone in which pools are answered, too, and names that end with theirs."""
    def __init__(self, apex: bytes) -> None:
        super().__init__(apex)
        self.endings: dict[bytes, dict[bytes, bytes]] = {}  # parent -> pool's first label -> pool
        self.lengths: dict[bytes, list[int]] = {}           # parent -> lengths of those, falling

    def find_anticache(self, names: Sequence[bytes]) -> bytes | None:
        """Return the longest owner of a pool that a name's text ends with, if there is one; `names`
        are the name in lower case and its ancestors.

        Deeper parents come first, so the first hit is the longest. Labels are compared as labels:
        a label that holds the octets of a dot or a length byte cannot pass for two.
        """
        for name, parent in itertools.pairwise(names):
            label = name[1:1 + name[0]]
            for length in self.lengths.get(parent, ()):
                owner = self.endings[parent].get(label[-length:])
                if owner is not None:
                    return owner
            if name == self.apex:
                break
        return None


class Config(NamedTuple):
    """A checked config: everything a generation of processes needs, and nothing it must check."""
    listen: tuple[tuple[str, int], ...]
    reports: tuple[tuple[str, int], ...]
    reports_key: tuple[bytes, ...]  # of which the agents' reports have one; () = there are none
    status: tuple[tuple[str, int], ...]  # where HTTP is served; () = nowhere
    workers: int
    user: str
    log: str
    log_format: str
    nsid: str
    rate_limit: int             # large replies a second to a client network; 0 = no limit
    servers: int
    zones: dict[bytes, ServedZone]
    pools: dict[bytes, PoolConfig]
    warnings: tuple[str, ...]
    file: str
    hash: str                   # of zones and pools, to tell servers apart that differ in these
    loaded: float               # Unix seconds: when it was read


class State:
    """All that `decide` may look at. A worker has one, and applies each new snapshot to it.

    `secret` keys the server cookies: made at start, kept over reloads. `policies` are those of
    users, by the owner of the pool. `limits` is the memory of RateLimit.
    """
    def __init__(self, config: Config, secret: bytes, log: "Log", dice: "Dice",
                 policies: "Mapping[bytes, type[Policy]]",
                 counters: "Counters | None" = None, limits: Any = None) -> None:
        self.zones = config.zones
        self.limit = RateLimit(config.rate_limit, secret, limits)
        self.nsid = config.nsid.encode()
        self.secret = secret
        self.counters = counters or Counters()
        self.workers = config.workers   # those that share TCP_MEMORY
        scale = config.workers * config.servers  # how many decide on the same reports
        self.pools = {owner: Pool(pool, scale, log, dice, policies.get(owner), self.counters,
                                  name_zone(wire.find_zone(wire.suffixes(owner), 0, self.zones)))
                      for owner, pool in config.pools.items()}
        self.names = {pool.config.name: pool for pool in self.pools.values()}
        self.lines: set[str] = set()    # of the snapshot last read

    def apply_snapshot(self, snapshot: "Snapshot", now: float) -> Iterator[None]:
        """Take over the pools that changed in a snapshot, in slices of a millisecond or so, or less
        where pools are small, between which queries can be answered: a pool's new plan holds as a
        whole when its last slice is done."""
        lines = set(snapshot.pools)
        for line in lines - self.lines:
            yield
            name, stale, _, rows = unpack_pool(line)
            yield from self.names[name].apply_rows(rows, stale, now)
        self.lines = lines


# ---- 2. A query's way: decide, look up -----------------------------------------------------------
COOKIE_STEP = 60.0        # seconds for which a client's server cookie stays the same
NETWORK_BITS = {1: 24, 2: 56}  # family -> bits of a client's network, as in RFC 7871 11.1
MAPPED = bytes(10) + b"\xff\xff"  # before an address of IPv4: RFC 4291 2.5.5.2
Peer = str | bytes        # a client's address: text, or the octets it has in a sockaddr
AnyPool = TypeVar("AnyPool")
Dice = Callable[[], float]    # gives floats in [0, 1)
Dealer = Callable[[int], bytes]  # counts and gives the records of a pool's next answer, by way
NO_POOL = types.SimpleNamespace(current={})  # stands where no pool had a say; its plan is for ever


class Reply:
    """What is to be said to a request, before it becomes octets."""
    def __init__(self, request: "Request") -> None:
        self.request = request
        self.rcode = request.query.rcode
        self.authoritative = False
        self.records: list[tuple[int, bytes, wire.RRset]] = []  # section, owner, RRset
        self.options: list[tuple[int, bytes]] = []  # of OPT: code, data
        self.chosen: list[str] = []         # addresses of the backends answered, for the log
        self.scoped = False                 # whether the client subnet had a say in the choice
        self.ttl_max = wire.TTL_MAX         # seconds for which an answer "no records" may be kept
        self.pool: Pool | None = None       # the pool that had a say
        self.plan: Plan = NO_POOL.current   # its plan at that moment
        self.policy: Policy | None = None   # the policy that chose; None = nothing was chosen
        self.zone: ServedZone | None = None  # that of the name asked for; None = none of ours
        self.owners: list[bytes] = []       # whose data answers each name of a chain of CNAMEs
        self.short = b""                    # the reply over the limit; b"" = none holds for it

    def explain(self, code: int, text: str) -> None:
        """Say why this answer is unusual: an Extended DNS Error (RFC 8914)."""
        self.options.append((wire.EDE, code.to_bytes(2) + text.encode()))


class Request(NamedTuple):
    """What a policy may know of a query."""
    query: wire.Query
    sender: str                  # the peer's address as text
    dice: Dice

    def network(self) -> bytes:
        """Return what `hash` hashes: family and prefix of the client subnet, else of the peer."""
        if self.query.subnet is None:
            octets = network_of(self.sender)
            return bytes([1 if len(octets) == 3 else 2]) + octets
        family, _, octets = self.query.subnet
        size = NETWORK_BITS[family] // 8
        return bytes([family]) + octets[:size].ljust(size, b"\0")


def plain_address(host: str) -> str:
    """Return a socket's peer as people write it: IPv4 as IPv4, no interface."""
    host = host.partition("%")[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def network_of(peer: Peer) -> bytes:
    """Return the octets that clients of one network have in common: 3 of IPv4, 7 of IPv6."""
    octets = peer if isinstance(peer, bytes) else ipaddress.ip_address(plain_address(peer)).packed
    octets = octets.removeprefix(MAPPED)
    return octets[:NETWORK_BITS[1 if len(octets) == 4 else 2] // 8]


def way_of(host: str, tcp: bool) -> int:
    """Return which of WAYS the queries of a socket's peer come."""
    return 2 * tcp + (":" in plain_address(host))


class Answered(NamedTuple):
    """A reply as octets, and what it was made from."""
    octets: bytes               # b"" = it is dropped, being over the limit
    query: wire.Query
    reply: Reply


def decide(packet: bytes, client: str, tcp: bool, state: State, now: float,
           dice: Dice) -> Answered | str:
    """Return the reply to one query; or which of DROPS it is, only for what is not a query.

    `client` is the peer's address as text, `now` the time in Unix seconds.
    """
    try:
        query = wire.decode_query(packet)
    except wire.Malformed:
        return "short" if len(packet) < wire.HEADER else "response"
    reply = Reply(Request(query, client, dice))
    if query.rcode == wire.NOERROR:
        respond(state, reply)
        if reply.rcode == wire.SERVFAIL:  # nothing found on the way there is worth caching
            reply.authoritative = False
            reply.records.clear()
    if query.options and reply.rcode != wire.FORMERR:  # that is never longer than its query
        add_options(query, client, tcp, state, reply, now)
    writer = wire.Writer(query, query.limit(tcp), reply.options)
    for section, owner, rrset in reply.records:
        writer.add(section, owner, rrset)
    answered = Answered(writer.finish(reply.rcode, reply.authoritative), query, reply)
    return answered if tcp else state.limit.apply(answered, len(packet), now)


def servfail(packet: bytes, client: str) -> Answered:
    """Return the reply to a query that could not be answered for a mistake of ours."""
    query = wire.Query(int.from_bytes(packet[:2]), 0)
    query.rcode = wire.SERVFAIL
    octets = packet[:2] + bytes([0x80 | packet[2] & 0x79, wire.SERVFAIL]) + bytes(8)
    return Answered(octets, query, Reply(Request(query, client, float)))


def add_options(query: wire.Query, client: str, tcp: bool, state: State, reply: Reply,
                now: float) -> None:
    """Answer the options of the query's OPT that deserve an answer; ignore the rest."""
    options = query.options
    add = reply.options.append
    if wire.NSID in options and state.nsid:  # RFC 5001
        add((wire.NSID, state.nsid))
    if wire.ECS in options:  # RFC 7871 7.2.1: as sent, our scope
        echo = options[wire.ECS]
        scope = NETWORK_BITS[query.subnet.family] if query.subnet and reply.scoped else 0
        add((wire.ECS, echo[:3] + bytes([scope]) + echo[4:]))
    if wire.KEEPALIVE in options and tcp:  # RFC 7828 3.2.2: in units of 100 ms; see `expired`
        idle = round((TCP_IDLE - 3 * WAKE) * 10)
        add((wire.KEEPALIVE, idle.to_bytes(2)))
    if wire.COOKIE in options:
        add((wire.COOKIE, server_cookie(options[wire.COOKIE], client, state.secret, now)))


def server_cookie(cookie: bytes, client: str, secret: bytes, now: float) -> bytes:
    """Return client and server cookie for a query's cookie: RFC 7873 5.2 in the layout of RFC 9018
    4. No cookie is ever demanded: what this gives a client is proof that the reply comes from the
    server that it asked, and replies without a limit (`proves_address`)."""
    step = int(now // COOKIE_STEP * COOKIE_STEP) % 2**32
    cookie = cookie[:8] + struct.pack("!II", 1 << 24, step)
    text = cookie + plain_address(client).encode()
    return cookie + hashlib.blake2s(text, key=secret, digest_size=8).digest()


def proves_address(request: Request, secret: bytes, now: float) -> bool:
    """Say whether a query has a server cookie that its sender was given here: then that address is
    not forged. It may be an hour old, and five minutes ahead: RFC 9018 4.3."""
    cookie = request.query.options.get(wire.COOKIE, b"")
    made = int.from_bytes(cookie[12:16])
    # "==" may take longer the more is right. Only a client that sees replies could measure that,
    # and that one has a cookie anyway.
    return ((int(now) - made + 300) % 2**32 <= COOKIE_LIFE + 300
            and cookie == server_cookie(cookie, request.sender, secret, made))


class RateLimit:
    """How many large replies each client network gets in a second over UDP: who forges the sender
    of queries wants these, and a network that asks so much can ask over TCP.

    Each network has a number in a table, by a hash of its octets that nobody else can compute. So
    the table has always the same size, and nothing in it is ever looked for; networks that have the
    same number share what one of them may get. The number is the second (Unix time) in its upper
    half, and the replies of that second in its lower one. All workers count in the same table and
    do not wait for each other: one that is interrupted while it counts takes back what others have
    counted meanwhile.
    """
    def __init__(self, rate: int, secret: bytes, memory: Any = None) -> None:
        self.rate = rate                 # replies a second; 0 = no limit
        self.secret = secret
        self.cells = memoryview(memory or bytearray(8 * LIMIT_CELLS)).cast("Q")

    def count(self, peer: Peer, now: float) -> int:
        """Count a reply; returns by how many its network is over the limit, 0 = it is not."""
        at, second = hash(self.secret + network_of(peer)) % LIMIT_CELLS, int(now)
        number = self.cells[at]
        # Another worker's clock may have been read in the next second. A larger difference is that
        # of a second that is over, or of a clock that was put back.
        if not 0 <= (number >> 32) - second <= 1:
            number = second << 32
        self.cells[at] = number + 1
        return max(0, (number & 0xFFFFFFFF) + 1 - self.rate)

    def apply(self, answered: Answered, asked: int, now: float) -> Answered:
        """Return a reply, to a query of so many octets, as it may be sent: a large one that is over
        the limit is truncated or dropped, as `is_dropped` says."""
        octets, query, reply = answered
        is_large = len(octets) > min(LARGE_SIZE, LARGE_FACTOR * asked)
        if not (self.rate and is_large) or proves_address(reply.request, self.secret, now):
            return answered
        over = self.count(reply.request.sender, now)
        if is_dropped(over):
            query.why = "over rate_limit, dropped"
            return answered._replace(octets=b"")
        # Of the options only a cookie is left, so that this is no larger than a query with one.
        options = [each for each in reply.options if each[0] == wire.COOKIE]
        writer = wire.Writer(query, LARGE_SIZE, options)
        writer.truncated = True
        reply.short = writer.finish(reply.rcode, reply.authoritative)
        if not over:
            return answered
        query.why = "over rate_limit, truncated"
        return answered._replace(octets=reply.short)


def is_dropped(over: int) -> bool:
    """Return whether a large reply, of those over the limit that of this number, is dropped: every
    other one is. The rest is truncated, so that a client asks again over TCP."""
    return over > 0 and over % 2 == 0


# Types that ask for no records: no transfers, and none of two of mail (RFC 1035 3.2.3).
NO_DATA_TYPES = {wire.IXFR: wire.REFUSED, wire.AXFR: wire.REFUSED,
                 wire.MAILA: wire.NOTIMP, wire.MAILB: wire.NOTIMP}


def respond(state: State, reply: Reply) -> None:
    """Fill the reply: look the name up, and follow CNAMEs while they stay in our zones."""
    query = reply.request.query
    if query.qtype in NO_DATA_TYPES:
        reply.rcode = NO_DATA_TYPES[query.qtype]
        return
    chain: set[bytes] = set()  # names that were looked up
    name: bytes | None = query.qname
    while name is not None and name.lower() not in chain and len(chain) <= CHAIN_MAX:
        chain.add(name.lower())
        name = look_up(name, state, reply)


def look_up(name: bytes, state: State, reply: Reply) -> bytes | None:
    """Add what one name has to the reply. Return the name that a CNAME leads to, else None."""
    names = wire.suffixes(name.lower())
    qtype = reply.request.query.qtype
    zone = wire.find_zone(names, qtype, state.zones)
    if not reply.records:  # the first name
        reply.zone = zone
    if zone is None:  # the first name: not ours to answer; a CNAME's target: the asker goes on
        reply.rcode = wire.NOERROR if reply.records else wire.REFUSED
        return None
    cut = zone.find_cut(names, qtype)
    if cut is not None:
        refer(zone, cut, state, reply)
        return None
    reply.authoritative = True
    rrset = find_records(zone, names, state, reply)
    if rrset is None:
        return None
    reply.records.append((wire.ANSWER, name, rrset))
    if rrset.type == wire.CNAME and qtype not in (wire.CNAME, wire.ANY):
        return rrset.rdatas[0]
    return None


def refer(zone: ServedZone, cut: bytes, state: State, reply: Reply) -> None:
    """Add a referral to the servers of a delegation, whose addresses a pool may choose.

    The fast path must not keep such a reply, since several pools may have a say in it; so its plan
    is one that no pool ever has. What one of them lacks is no error of this reply.
    """
    def choose(owner: bytes, rtype: int) -> wire.RRset | None:
        """Return the records of a pool at a name server's name."""
        reply.pool = state.pools[owner]
        reply.plan = {}
        return reply.pool.pick(rtype, Reply(reply.request))
    reply.records += zone.refer(cut, choose)


def find_records(zone: ServedZone, names: Sequence[bytes], state: State,
                 reply: Reply) -> wire.RRset | None:
    """Return the RRset of the type that a query asks for, or the CNAME to follow. Where there is
    none, say so in the reply: NXDOMAIN or NODATA, both with the zone's SOA (RFC 2308 2)."""
    qtype = reply.request.query.qtype
    owner, pool, node = find(zone, names, state.pools)
    reply.owners.append(owner)
    rrset = pool.pick(qtype, reply) if pool is not None else None
    if rrset is None and node:
        rrset = node.get(qtype) or node.get(wire.CNAME)
        if qtype == wire.ANY:  # RFC 8482 4.1: one RRset is answer enough
            rrset = next(iter(node.values()))
    if rrset is None and reply.rcode != wire.SERVFAIL:
        if node is None:  # and no pool; those are names that exist
            reply.rcode = wire.NXDOMAIN  # after a CNAME too: RFC 6604 3
        negative = zone.negative._replace(ttl=min(zone.negative.ttl, reply.ttl_max))
        reply.records.append((wire.AUTHORITY, zone.apex, negative))
    return rrset


def find(zone: ServedZone, names: Sequence[bytes], pools: Mapping[bytes, AnyPool],
         ) -> tuple[bytes, AnyPool | None, dict[int, wire.RRset] | None]:
    """Return which data answers a name: their owner, its pool and its static records. (..., None,
    None) is for NXDOMAIN. `names` are the name in lower case and its ancestors.

    The order is: exact owner, anti-cache name, empty non-terminal (records {}), static wildcard at
    the closest encloser.
    """
    if names[0] not in pools and not zone.nodes.get(names[0]):
        owner = zone.find_anticache(names)
        if owner is not None:
            return owner, pools[owner], {}
    owner = zone.find_owner(names)
    return owner, pools.get(owner), zone.nodes.get(owner)


# ---- 3. Pools: who may be picked now -------------------------------------------------------------
SLICE = 256               # backends taken over before queries have their turn: about a millisecond
TTL_RESORT = 5            # seconds of TTL while an answer is unusual, such as the last resort
LAST_RESORT = "no backend is up"  # how what is said of such answers begins
DOWN = 4                  # the smallest Backend.rank of those that are down


def at_once(slices: Iterator[None]) -> None:
    """Do all slices of a piece of work, where nothing else waits."""
    for _ in slices:
        pass


class Backend:
    """One server of a pool inside a worker: its row, and what this worker remembers of it."""
    def __init__(self, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses
        self.rdata = dict(map(wire.address_rdata, addresses))  # type -> rdata
        self.key = hash_octets(",".join(addresses).encode())   # what `hash` knows it by
        self.turns: dict[int, float] = {}   # type -> its next turn when it left a rotation
        self.answers = 0                    # this worker's answers with it, as far as they matter
        self.number = 0                     # what counts of it are known by: see Counters
        self.place = 2                      # where answers with it are counted, and
        self.places: dict[int, int] = {}    # by type those of the fast path, by way
        self.full_at = math.inf             # the number of `answers` at which it is at its limit
        self.history = History()            # of its reports

    def update(self, row: Row) -> None:
        """Take over what a snapshot says of it."""
        (_, self.weight, self.max_connections, self.state, self.connections, down,
         self.opened) = row
        self.capacity = self.weight or 1.0  # to divide by; where all weigh 0, they count alike
        self.down = [wire.AAAA if ":" in each else wire.A for each in down]  # record types
        # Its place in the order in which backends are picked, each only if there are none of those
        # before it: 0 = up, 1 = up with weight 0, 2 = draining, 3 = draining with weight 0.
        self.rank = 2 * STATES.index(self.state) + (not self.weight)

    def up(self) -> bool:
        """Say whether it takes part: not drained, and well by an address at least."""
        return self.state == "up" and len(self.down) < len(self.addresses)


class Group(NamedTuple):
    """Backends that may be picked for a record type, and how."""
    kind: "type[Policy]"
    backends: list[Backend]     # [] = the last resort is none of them
    unusual: str                # what is unusual about these; "" = nothing
    limited: bool = False       # whether those that reach their limit are left out


Plan = dict[int, "Policy"]      # of a pool: how it answers, by record type, until the next plan


class Pool:
    """A pool inside a worker: its backends, and for each record type who may be picked now.

    `scale` is the number of workers, on all servers, that decide on the same reports; `kind` the
    policy, where it is a user's.
    """
    def __init__(self, config: PoolConfig, scale: int, log: "Log", dice: Dice,
                 kind: "type[Policy] | None" = None, counters: "Counters | None" = None,
                 zone: int = 0) -> None:
        self.config = config
        self.log = log
        self.dice = dice
        self.counters = counters or Counters()
        self.zone = zone                # of which replies are counted: its `counted_name`
        self.kind = kind or POLICIES[config.policy]
        self.backends: list[Backend] = []
        self.stale = False              # whether reports are too old to be believed
        self.loaded = math.inf          # when a snapshot was taken over; inf = none was
        self.load = Load(scale, 4 * config.source.every if config.source else 0.0,
                         config.lifetime)
        self.counting = True            # whether own answers matter to anything
        self.policies: dict[tuple[int, type[Policy]], Policy] = {}
        self.current: Plan = {}
        at_once(self.apply_rows(config.backends, False, math.inf))

    def apply_rows(self, rows: Iterable[Row], stale: bool, now: float) -> Iterator[None]:
        """Take over a snapshot, in slices of about a millisecond, between which the old plan is
        answered from. A backend that stays keeps its answers and its turn."""
        known = {each.addresses: each for each in self.backends}
        backends: list[Backend] = []
        for row in rows:
            backend = known.pop(row.addresses, None) or self.make_backend(row.addresses)
            backend.update(row)
            backends.append(backend)
            if len(backends) % SLICE == 0:
                yield
        for gone in known.values():
            self.counters.forget(gone.number, self.zone)
        is_large = len(backends) >= SLICE
        passed = max(0.0, now - self.loaded)
        self.backends = backends
        self.loaded = now
        self.counting = self.kind.uses_load or any(
            each.max_connections is not None for each in backends)
        if self.counting:
            yield from self.load.learn(backends, now, passed)
        if is_large:
            yield
        self.load.set_limits(backends, now)
        self.log_frozen()
        if is_large:
            yield
        if stale != self.stale:  # answers say so, whatever the policy
            self.stale = stale
            self.current = {}
        self.replan()

    def make_backend(self, addresses: tuple[str, ...]) -> Backend:
        """Return a backend that is new to this pool."""
        backend = Backend(addresses)
        backend.number = hash_octets(f"{self.config.name} {','.join(addresses)}".encode())
        backend.place = self.counters.place(COUNTED_KEYS["answers"], backend.number)
        backend.places = {rtype: self.counters.place(DEALT[rtype] + self.zone, backend.number)
                          for rtype in backend.rdata if rtype in DEALT}
        return backend

    def log_frozen(self) -> None:
        """Log which reports are not believed, if the policy would believe them."""
        if not self.kind.uses_load:
            return
        frozen = [each.addresses[0] for each in self.backends if each.history.frozen]
        text = ""
        if frozen:
            text = (f"the same for {self.load.patience:g} s despite answers, and counted as the "
                    f"median: {wire.plural(len(frozen), 'backend')}, such as {frozen[0]}")
        self.log.trouble("load-frozen", f"pool {self.config.name}: reports", text)

    def replan(self) -> None:
        """Decide for each type which backends may be picked, and by which policy. A plan that would
        be the same again stays, and what the fast path has learned with it."""
        current: Plan = {}
        same = True
        # A function that has its addresses in its own code is asked for those of both families.
        alone = not (self.backends or self.config.source or self.kind.needs_backends)
        for rtype in (wire.A, wire.AAAA, wire.CNAME):
            have = [each for each in self.backends if rtype in each.rdata]
            if not have and (rtype == wire.CNAME or not alone):
                continue
            kind, backends, unusual, limited = self.find_group(rtype, have)
            policy = self.policies.setdefault((rtype, kind), kind(rtype, self))
            if not policy.holds(backends, limited):
                policy.prepare(backends, limited)
                same = False
            if policy.unusual != unusual:
                policy.unusual = unusual
                policy.deal = None  # its records have another TTL
                same = False
            current[rtype] = policy
        if not same or current != self.current:
            self.current = current

    def find_group(self, rtype: int, have: list[Backend]) -> Group:
        """Return the best group that is not empty: up and below the limit; up but full; the others
        by their rank; the last resort. Only in that are backends that fail their check, unless
        checks are ignored: see `healthy`."""
        if not have:
            return Group(self.kind, have, "")
        kind = Random if self.stale and self.kind.uses_load else self.kind
        well, unusual = self.healthy(rtype, have)
        best = min((each.rank for each in well), default=DOWN)
        if best >= DOWN:
            return self.last_group(kind, have)
        backends = [each for each in well if each.rank == best]
        if best > 0:
            return Group(kind, backends, unusual)
        below_limit = [each for each in backends if each.answers < each.full_at]
        if not below_limit:
            return Group(LowestRatio, backends, unusual)
        limited = any(each.full_at < math.inf for each in below_limit)
        return Group(kind, below_limit, unusual, limited)

    def healthy(self, rtype: int, have: list[Backend]) -> tuple[list[Backend], str]:
        """Return the backends that pass their checks; or all, and why, when too few are up."""
        well = [each for each in have if rtype not in each.down]
        up = sum(each.state == "up" for each in well)
        if up < self.config.min_up and len(well) < len(have):
            return have, (f"only {up} of {wire.plural(len(have), 'backend')} up, min_up = "
                          f"{self.config.min_up}: checks ignored")
        return well, ""

    def last_group(self, kind: "type[Policy]", have: list[Backend]) -> Group:
        """Return what is left where no backend is up or draining."""
        all_down = self.config.all_down
        unusual = f"{LAST_RESORT}; all_down = {all_down}"
        if all_down != "all":
            return Group(Failover, [], unusual)
        wanted = [each for each in have if each.state != "down"]
        return Group(kind, wanted or have, unusual)

    def pick(self, qtype: int, reply: Reply) -> wire.RRset | None:
        """Return the records to answer a type with. None = NODATA, or SERVFAIL if the reply's rcode
        says so."""
        reply.pool = self
        reply.plan = self.current
        rtype = wire.CNAME if wire.CNAME in self.current else qtype
        if qtype == wire.ANY:
            rtype = next(iter(self.current), wire.A)
        if rtype in self.current:
            policy = self.current[rtype]
            if policy.unusual:
                reply.explain(0, policy.unusual)
                reply.ttl_max = TTL_RESORT
            if self.backends and not policy.backends:
                return self.last_resort(qtype, reply)
            return self.pick_backends(policy, reply)
        if not self.backends and rtype in (wire.A, wire.AAAA):
            reply.rcode = wire.SERVFAIL  # so that a resolver asks another name server
            reply.explain(0, f"pool {self.config.name} has no backends")
        return None

    def pick_backends(self, policy: "Policy", reply: Reply) -> wire.RRset | None:
        """Return the records of the backends that a policy picks; None as in `pick`."""
        if self.stale:
            reply.explain(3, "the load of the backends is unknown")  # 3: Stale Answer
        reply.policy = policy
        rtype = policy.rtype
        chosen = policy.pick(reply.request, self.config.answers)
        reply.scoped |= policy.scoped
        if chosen is None:
            reply.rcode = wire.SERVFAIL
        if not chosen:
            return None
        self.credit(chosen)
        family = -1 if rtype == wire.AAAA else 0
        reply.chosen = [each.addresses[family] for each in chosen]
        # Two rows or a user's function may name one address twice: RFC 2181 5 wants it once.
        rdatas = list(dict.fromkeys(each.rdata[rtype] for each in chosen))
        return wire.RRset(rtype, min(self.config.ttl, reply.ttl_max), rdatas)

    def last_resort(self, qtype: int, reply: Reply) -> wire.RRset | None:
        """Return what all_down says, other than "all"; None as in `pick`."""
        all_down = self.config.all_down
        if all_down == "servfail":
            reply.rcode = wire.SERVFAIL
        elif all_down != "empty":
            rtype, rdata = wire.address_rdata(all_down)
            if qtype in (rtype, wire.ANY):
                reply.chosen = [all_down]
                return wire.RRset(rtype, min(self.config.ttl, reply.ttl_max), [rdata])
        return None

    def credit(self, chosen: list[Backend]) -> None:
        """Count an answer, for people and where answers matter."""
        for backend in chosen:
            self.counters.cells[backend.place] += 1
        if self.counting:
            for backend in chosen:
                backend.answers += 1
                if backend.answers == backend.full_at:
                    self.on_full(backend)

    def on_full(self, backend: Backend) -> None:
        """Leave out a backend that has reached its limit; if too few are left for whole answers,
        plan anew."""
        left = [policy.leave_out(backend) for policy in self.current.values()]
        if min(left) < self.config.answers:
            self.replan()


# ---- 4. Policies: who is picked ------------------------------------------------------------------
# The fewest answers for each backend over which shares by load are taken: with 1 they are wrong by
# one or two hundredths, with 10 by one or two thousandths, since the last answer goes to one alone.
SHOWN_LEAST = 10
# What `chances` pours over: a base of each backend, and by how much an answer raises that; and the
# number of answers to pour.
Ground = tuple[Iterable[tuple[float, float]], float]


class Policy:
    """How a pool picks; what all policies have in common. `prepare` gets the backends that may be
    picked, whenever they change; after that, `draw` and `spread` pick from them.

    There is one object for each pool and record type, so that A and AAAA never disturb each other.

    A new policy is a subclass that has `draw`, or, if it looks at the query, `pick` and
    reads_query; `spread`, unless the front of the list will do for answers of several addresses;
    `prepare` (which calls this one first) and `leave_out` if it keeps something for each backend,
    of which the latter must not loop over all of them; and those of the attributes below that
    differ. It stands in POLICIES, EXAMPLE, SYNONYMS and the README. `draw` is not called when none
    is left below the limit, for then the pool plans anew. The pool counts the answers of each
    backend, but only if `uses_load`, or if a backend has a limit.

    What people are shown of the next answers follows from `ground`: a policy of which that does not
    hold has to override it.
    """
    reads_query = False   # whether the choice depends on the query: never on the fast path then
    uses_load = False     # whether it depends on connections: each snapshot is planned anew, and
                          # answers count; while reports are stale, the pool's choice is at random
    scoped = False        # whether it depends on the client's network: RFC 7871 7.2.1
    needs_backends = True  # False = it may have addresses of its own

    def __init__(self, rtype: int, pool: Pool) -> None:
        self.rtype, self.pool = rtype, pool
        self.backends: list[Backend] = []
        self.weights: list[float] = [math.nan]  # equal to no others: nothing is prepared yet
        # Those of the backends that can still be picked, in their order, as the keys of a dict;
        # None = all can, limits do not matter.
        self.below_limit: dict[Backend, None] | None = None
        self.unusual = ""                # what is unusual about the answers; "" = nothing
        self.deal: Dealer | None = None  # of `dealer`; kept until `prepare`, or another TTL

    def prepare(self, backends: list[Backend], limited: bool) -> None:
        """Prepare for picking from these. If there are none, nothing is picked but by a user's
        function. If `limited`, a backend that reaches its limit is left out: see `leave_out`."""
        self.backends = backends
        self.weights = [each.capacity for each in backends]
        self.below_limit = dict.fromkeys(backends) if limited else None
        self.deal = None

    def holds(self, backends: list[Backend], limited: bool) -> bool:
        """Say whether what was prepared last is as good as what would be prepared now."""
        return (not limited and self.below_limit is None and not self.uses_load
                and self.backends == backends
                and self.weights == [each.capacity for each in backends])

    def leave_out(self, backend: Backend) -> float:
        """Leave out a backend that has reached its limit. Return how many are left; inf = limits do
        not matter. All policies do this without a look at all other backends each time,
        since thousands may reach their limits within a second."""
        if self.below_limit is None:
            return math.inf
        self.below_limit.pop(backend, None)
        return len(self.below_limit)

    def draw(self, dice: Dice) -> Backend:
        """Pick one backend."""
        raise NotImplementedError

    def available(self) -> Iterator[Backend]:
        """Return the backends that can still be picked, in the order they are listed."""
        return iter(self.backends if self.below_limit is None else self.below_limit)

    def spread(self, dice: Dice, count: int) -> list[Backend]:
        """Pick up to `count` different backends, best first: here in the order they are listed."""
        return list(itertools.islice(self.available(), count))

    def pick(self, request: Request, count: int) -> list[Backend] | None:
        """Return the backends to answer a query with. [] = there is no record of this type, None =
        the query cannot be answered."""
        if count == 1:
            return [self.draw(request.dice)]
        return self.spread(request.dice, count)

    def dealer(self, before: bytes, dice: Dice) -> Dealer | None:
        """Return, for the fast path, what gives the records of an answer each time it is called,
        `before` being what stands before each rdata; None where their number varies."""
        rtype = self.rtype
        pool = self.pool
        counts = pool.counters.cells
        place = pool.counters.place(DEALT[rtype] + pool.zone)  # of answers with several
        count = pool.config.answers

        def deal_one(way: int) -> bytes:
            """Do as `deal`, quicker, where an answer has one address."""
            backend = self.draw(dice)
            counts[backend.places[rtype] + way] += 1
            if pool.counting:
                backend.answers += 1
                if backend.answers == backend.full_at:
                    pool.on_full(backend)
            return before + backend.rdata[rtype]

        def deal(way: int) -> bytes:
            """Return the records of the next answer."""
            counts[place + way] += 1
            chosen = self.spread(dice, count)
            pool.credit(chosen)
            return b"".join([before + each.rdata[rtype] for each in chosen])
        if count == 1:
            return deal_one
        unique = {each.rdata[rtype] for each in self.backends}
        return deal if len(unique) == len(self.backends) else None

    def ground(self) -> Ground | None:
        """Return what `chances` pours over, for people: here what leads to shares in proportion to
        weights. None = a user's function decides."""
        return [(0.0, 1 / weight) for weight in self.weights], 1.0


class Failover(Policy):
    """The first in the list that can be picked."""
    def draw(self, dice: Dice) -> Backend:
        """Pick the first, quickest where limits do not matter."""
        if self.below_limit is None:
            return self.backends[0]
        return next(iter(self.below_limit))

    def ground(self) -> Ground | None:
        """Return bases that are a step apart, so that the next gets what the first cannot."""
        return [(float(at), 1.0) for at in range(len(self.backends))], 1.0


class Random(Policy):
    """Each answer on its own, in proportion to the weights."""
    def prepare(self, backends: list[Backend], limited: bool) -> None:
        """Lay the weights end to end, so that a pick is one draw and one bisection."""
        super().prepare(backends, limited)
        *self.edges, self.total = itertools.accumulate(self.weights or [0.0])
        self.left = self.total  # weight of those that can still be picked

    def leave_out(self, backend: Backend) -> float:
        """Draw again where a draw falls upon this one; where half of them would, prepare anew."""
        if self.below_limit and backend in self.below_limit:
            self.left -= backend.capacity
        count = super().leave_out(backend)
        if count and self.left < self.total / 2:
            deal = self.deal
            self.prepare(list(self.available()), True)
            self.deal = deal  # which calls `draw` or `spread`, since answers count: so it holds
        return count

    def draw(self, dice: Dice) -> Backend:
        """Pick the backend where a throw of the dice falls between the edges."""
        while True:
            backend = self.backends[bisect.bisect(self.edges, dice() * self.total)]
            if self.below_limit is None or backend in self.below_limit:
                return backend

    def dealer(self, before: bytes, dice: Dice) -> Dealer | None:
        """Return the same; where answers do not count, choose ready-made records, not a backend."""
        if self.pool.counting or self.pool.config.answers > 1:
            return super().dealer(before, dice)
        edges, total = self.edges, self.total
        records = [before + each.rdata[self.rtype] for each in self.backends]
        places = [each.places[self.rtype] for each in self.backends]
        counts = self.pool.counters.cells
        find = bisect.bisect  # quicker so than by the module's name

        def deal_record(way: int) -> bytes:
            """Return the record of the next answer."""
            at = find(edges, dice() * total)
            counts[places[at] + way] += 1
            return records[at]
        return deal_record

    def spread(self, dice: Dice, count: int) -> list[Backend]:
        """Pick those with the smallest exponential draws (Efraimidis, Spirakis 2006)."""
        return heapq.nsmallest(count, self.available(),
                               key=lambda each: -math.log(1 - dice()) / each.capacity)


# A backend in the rotation, as a plain tuple, since each pick makes one:
# - its key: the base, and some chance; the backend with the smallest key is picked next.
# - its order: no two backends have the same, so that equal keys need no look at the backends.
# - the backend itself.
# - its step: by how much a pick moves the base.
# - its base: the key without chance.
Turn = tuple[float, int, Backend, float, float]


class RoundRobin(Policy):
    """Smooth weighted rotation: each backend's key is its next turn, 1/weight after its last, and
    the smallest key is picked. A backend that joins or comes back starts level with the earliest
    of the others, so they notice nothing. First turns are at random: otherwise all workers and
    servers would begin with the same backend."""
    chance = 0.0  # part of a step by which keys may be larger than they should

    def __init__(self, rtype: int, pool: Pool) -> None:
        super().__init__(rtype, pool)
        self.heap: list[Turn] = []  # by heapq, the next turn first

    def prepare(self, backends: list[Backend], limited: bool) -> None:
        """Line all backends up."""
        super().prepare(backends, limited)
        chance = self.chance
        dice = self.pool.dice
        self.heap = [
            (base + step * chance * dice(), order, backend, step, base)
            for order, (backend, base, step)
            in enumerate(zip(backends, *self.line_up(), strict=True))]
        heapq.heapify(self.heap)

    def line_up(self) -> tuple[list[float], list[float]]:
        """Return bases and steps of the backends: here so that they go on with the turns of the
        last plan."""
        for turn, _, backend, _, _ in self.heap:
            backend.turns[self.rtype] = turn
        steps = [1 / weight for weight in self.weights]
        if not self.heap:
            return [step * self.pool.dice() for step in steps], steps
        level = self.heap[0][0]
        return [max(level, min(each.turns.get(self.rtype, level), level + step))
                for each, step in zip(self.backends, steps, strict=True)], steps

    def drop_full(self) -> None:
        """Take those that have reached their limits off the top of the heap."""
        heap = self.heap
        below = self.below_limit
        while below is not None and heap and heap[0][2] not in below:
            turn, _, backend, _, _ = heapq.heappop(heap)
            backend.turns[self.rtype] = turn

    def draw(self, dice: Dice) -> Backend:
        """Pick the backend with the smallest key, which lines up again a step later."""
        if self.below_limit is not None:
            self.drop_full()
        _, order, backend, step, base = self.heap[0]
        base += step
        key = base + step * self.chance * dice()
        heapq.heapreplace(self.heap, (key, order, backend, step, base))
        return backend

    def spread(self, dice: Dice, count: int) -> list[Backend]:
        """Pick the backends with the smallest keys."""
        taken: list[Turn] = []
        self.drop_full()
        while self.heap and len(taken) < count:
            taken.append(heapq.heappop(self.heap))
            self.drop_full()
        for _, order, backend, step, base in taken:
            base += step
            key = base + step * self.chance * dice()
            heapq.heappush(self.heap, (key, order, backend, step, base))
        return [backend for _, _, backend, _, _ in taken]


class LeastConnections(RoundRobin):
    """The smallest load, as section 5 estimates it, which each answer raises at once by what it is
    expected to bring. Differences smaller than that are noise, so all keys have that much chance in
    them; without it, a client that asks for each connection twice would always get one half of
    them."""
    chance = 1.0
    uses_load = True

    def line_up(self) -> tuple[list[float], list[float]]:
        """Return the loads of the backends, and what an answer adds to them."""
        return self.pool.load.estimate(self.backends)

    def ground(self) -> Ground | None:
        """Return loads and what an answer adds to them, and the answers until the next report."""
        source = self.pool.config.source
        recent = sum(each.history.count_recent(each) for each in self.backends)
        expected = recent * (source.every / LOAD_MEMORY if source else 1)
        return zip(*self.line_up(), strict=True), max(SHOWN_LEAST * len(self.backends), expected)


class LowestRatio(LeastConnections):
    """For a pool whose backends are all full, whatever its policy: the least overfull one."""

    def line_up(self) -> tuple[list[float], list[float]]:
        """Return (connections + what answers since have brought) / max_connections of the backends,
        and what an answer adds to that."""
        brings = self.pool.load.brings
        steps = [brings / (each.max_connections or 1) for each in self.backends]  # all have one
        return [((each.connections or 0)
                 + brings * (each.answers - each.history.answers_at_report))
                / (each.max_connections or 1) for each in self.backends], steps


def hash_octets(octets: bytes) -> int:
    """Return a number of 64 bits that looks like chance and is the same on every server."""
    return int.from_bytes(hashlib.blake2b(octets, digest_size=8).digest(), "big")


class Hash(Policy):
    """Rendezvous hashing (Thaler, Ravishankar 1996): a client's network always gets the same
    backend, on every server, and when one is removed only its clients move.

    Each backend draws a number u in [0, 1) from its key and the network's, and the smallest
    -log(1 - u) / weight wins. Since u <= -log(1 - u), most backends are ruled out by u / weight,
    which costs a tenth of a microsecond.
    """
    reads_query = scoped = True
    MIX = 0x9E3779B97F4A7C15  # odd, 2**64 / the golden ratio: multiplying spreads low bits upwards

    def prepare(self, backends: list[Backend], limited: bool) -> None:
        """Set out the keys, and forget what networks were given before."""
        super().prepare(backends, limited)
        self.keys = [(each.key, 2.0**-64 / each.capacity) for each in backends]
        self.found = functools.lru_cache(LEARNED_MAX)(self.choose)

    def leave_out(self, backend: Backend) -> float:
        """Forget what networks were given, some of it by the one that leaves."""
        self.found.cache_clear()
        return super().leave_out(backend)

    def pick(self, request: Request, count: int) -> list[Backend] | None:
        """Return the backends with the best draws; a network just asked for is remembered."""
        return self.found(request.network(), count)

    def choose(self, network: bytes, count: int) -> list[Backend]:
        """Return the backends with the `count` best draws, the best first."""
        mix = self.MIX
        mask = 2**64 - 1
        below = self.below_limit
        hashed = hash_octets(network)
        bounds = [((key ^ hashed) * mix & mask) * share for key, share in self.keys]
        if below is not None:
            bounds = [bound if backend in below else math.inf
                      for bound, backend in zip(bounds, self.backends, strict=True)]

        def score(at: int) -> float:
            """Return -log(1 - u) / weight of the backend at an index."""
            weight = self.weights[at]
            return -math.log1p(-min(bounds[at] * weight, 1 - 2**-53)) / weight
        leading = heapq.nsmallest(count, range(len(bounds)), key=bounds.__getitem__)
        limit = max(map(score, leading))
        rest = [at for at, bound in enumerate(bounds) if bound <= limit]
        chosen = heapq.nsmallest(count, rest, key=score)
        return [self.backends[at] for at in chosen if bounds[at] < math.inf]


POLICIES: dict[str, type[Policy]] = {
    "random": Random, "round-robin": RoundRobin, "least-connections": LeastConnections,
    "failover": Failover, "hash": Hash}


# ---- 5. Load: what reports mean ------------------------------------------------------------------
# Every report is seconds old, and other servers decide on the same one. To send all clients to the
# backend that looks emptiest would fill it far beyond the others before a report says so. So what
# `least-connections` answers is the backend with the smallest
#
#     load = (level + brings * own recent answers) / share
#
# `share` is the backend's weight, or less where it has a limit, of which it is to hold no more than
# LOAD_ROOM. The median is that of connections / weight, of the backends that may be picked.
#
#     share = min(weight, LOAD_ROOM * max_connections / median)
#
# `level` are the connections of its report. Where they are fewer than its share of the median, this
# gap counts, but never more than a third of what it holds, and a few: a newcomer may fail all who
# connect, and report nothing. A harmonic sum is below both bounds. A report that is unknown, or not
# believed, counts as the median.
#
#     level = median * share - allowed(median * share - connections)
#     allowed(gap) = 1 / (1 / gap + LOAD_GROW / (connections + LOAD_FIRST)) if gap > 0, else gap
#
# `brings` are the connections that follow one answer of ours: other servers answer too, and
# resolvers share answers.
#
#     brings = (LOAD_PRIOR + arrivals) / (LOAD_PRIOR + answers), both fading over LOAD_LIFE
#
# Where some backends count what they have opened, arrivals are what those opened, and answers those
# with them alone. Where none does, arrivals are taken for total / lifetime a second, or for
# LOAD_GROWTH times what the reports grew by, if that is more. Too high an estimate makes the choice
# a weighted rotation, too low a one sends everybody to one backend; so it falls no faster than it
# fades, and never below `scale`, the number of workers that decide on the same reports.
LOAD_LIFE = 600.0         # seconds over which `brings` is learned; unless given, also `lifetime`
LOAD_MEMORY = 20.0        # seconds in which own answers fade: longer than reports take to hold them
LOAD_PRIOR = 32.0         # answers to see before `brings` follows what was seen
LOAD_GROWTH = 4.0         # weight of connections seen to come: short lives would hide them
LOAD_MOST = 1000          # connections that an answer brings at most; more are no true report
LOAD_NOISE = 2            # connections by which a report may grow and mean nothing
LOAD_GROW = 3.0           # an emptier backend may grow by a third of what it holds ...
LOAD_FIRST = 8.0          # ... as if it held so many more, within LOAD_MEMORY
LOAD_ROOM = 0.9           # part of its limit that a backend is filled to, while others have room
# A report that has not changed for FROZEN_AFTER seconds, or four polls if they take longer, though
# FROZEN_ANSWERS answers went there meanwhile, is not believed.
FROZEN_AFTER, FROZEN_ANSWERS = 60.0, 8


class News(NamedTuple):
    """What a snapshot adds to what is known of a backend."""
    answers: int              # of this worker with it, since the snapshot before
    grown: int                # connections by which its report grew; -1 = nobody knows
    opened: int               # connections that it accepted meanwhile; below 0 = nobody knows


def increase(old: int | None, new: int | None) -> int:
    """Return by how much a number of two reports grew; -1 = one of them lacks it."""
    return -1 if old is None or new is None else new - old


class History:
    """What a backend's reports said, and what this worker answered with it meanwhile."""
    def __init__(self) -> None:
        self.connections: int | None = None  # in the last report
        self.opened: int | None = None       # in the last report
        self.changed_at = 0.0                # monotonic seconds: when one of them was last new
        self.answers_at_change = 0           # answers up to then
        self.answers_at_report = 0           # answers up to the last snapshot
        self.answers_recent = 0.0            # those of them that have not faded: see LOAD_MEMORY
        self.frozen = False                  # whether it stands still though it should not
        self.up = False                      # in the last snapshot

    def update(self, backend: Backend, now: float, fade: float, usual: float,
               patience: float) -> News:
        """Take note of a new report. Return what is new in it. `fade` is what is left of answers of
        before, `usual` are those that a backend of capacity 1 has, if it has just come."""
        answers = backend.answers
        if (self.connections, self.opened) != (backend.connections, backend.opened):
            self.changed_at, self.answers_at_change = now, answers
        self.frozen = (backend.connections is not None and now - self.changed_at > patience
                       and answers - self.answers_at_change >= FROZEN_ANSWERS)
        stayed = self.up and backend.up()
        news = News(answers - self.answers_at_report,
                    increase(self.connections, backend.connections) if stayed else 0,
                    # A 0 may be the column's default, and what follows not its increase.
                    increase(self.opened or None, backend.opened)
                    if stayed and not self.frozen else -1)
        self.answers_recent = (self.count_recent(backend) * fade if stayed
                               else usual * backend.capacity)
        self.connections, self.opened, self.up = backend.connections, backend.opened, backend.up()
        self.answers_at_report = answers
        return news

    def count_recent(self, backend: Backend) -> float:
        """Return how many answers went there lately, of which some may be in no report yet."""
        return self.answers_recent + backend.answers - self.answers_at_report


class Load:
    """The load of a pool's backends. `scale` is what `brings` is at least, `pause` the seconds
    after which a report has to change if answers went there, unless FROZEN_AFTER is longer."""
    def __init__(self, scale: int, pause: float, lifetime: float) -> None:
        self.scale = scale
        self.patience = max(FROZEN_AFTER, pause)
        self.lifetime = lifetime
        self.brings = float(scale)
        self.arrivals = self.answers = 0.0   # those that count, fading over LOAD_LIFE

    def learn(self, backends: list[Backend], now: float, passed: float) -> Iterator[None]:
        """Take note of all reports of a snapshot, in slices as in Pool.apply_rows. `passed` are the
        seconds since the snapshot before."""
        fade = math.exp(-passed / LOAD_MEMORY)
        # Those of weight 0 are spares.
        up = [each for each in backends if each.up() and each.weight]
        # A backend that has just come counts as answered like the others: otherwise it would get
        # all that they got meanwhile.
        usual = fade * median([each.history.count_recent(each) / each.capacity
                               for each in up if each.history.up])
        news = []
        for at, each in enumerate(backends, 1):
            news.append(each.history.update(each, now, fade, usual, self.patience))
            if at % SLICE == 0:
                yield
        reports = believed(up)
        middle = median_load(up, reports)
        total = sum(middle * each.capacity if report is None else report
                    for each, report in zip(up, reports, strict=True))
        self.learn_brings(news, total, passed)

    def learn_brings(self, news: list[News], total: float, passed: float) -> None:
        """Set `brings` by what a snapshot adds, and the connections that there are in all."""
        most = LOAD_MOST * (1 + sum(each.answers for each in news))
        counted = [each for each in news if 0 <= each.opened <= most]
        grown = [each.grown - LOAD_NOISE for each in news if LOAD_NOISE < each.grown <= most]
        arrivals = max(total * passed / self.lifetime, LOAD_GROWTH * sum(grown))
        if counted:
            arrivals = sum(each.opened for each in counted)
        answers = sum(each.answers for each in counted or news)
        keep = math.exp(-passed / LOAD_LIFE)
        self.arrivals = self.arrivals * keep + min(arrivals, most)
        self.answers = self.answers * keep + answers
        seen = (LOAD_PRIOR + self.arrivals) / (LOAD_PRIOR + self.answers)
        self.brings = max(self.scale, self.brings * keep, seen)

    def set_limits(self, backends: list[Backend], now: float) -> None:
        """Set after which answer each backend is full. What no report holds yet are recent answers,
        or, for as long, all since the report."""
        for each in backends:
            each.full_at = math.inf
            if each.max_connections is not None and each.connections is not None:
                history, missing = each.history, each.history.answers_recent
                if now - history.changed_at <= LOAD_MEMORY:
                    missing = max(missing, each.answers - history.answers_at_change)
                left = (each.max_connections - each.connections) / self.brings - missing
                each.full_at = each.answers + math.ceil(max(0, left))

    def estimate(self, backends: list[Backend]) -> tuple[list[float], list[float]]:
        """Return the load of each backend, of all that may be picked for one type of record, and
        what an answer adds to it."""
        loads, steps = [], []
        reports = believed(backends)
        middle = median_load(backends, reports)
        for each, report in zip(backends, reports, strict=True):
            share = each.capacity
            if each.max_connections is not None and middle:
                share = min(share, LOAD_ROOM * each.max_connections / middle)
            load = middle
            if report is not None:
                load -= allowed(load * share - report, report) / share
            step = self.brings / share
            loads.append(load + step * each.history.count_recent(each))
            steps.append(step)
        return loads, steps


def believed(backends: Iterable[Backend]) -> list[int | None]:
    """Return the connections of each backend's report; None = unknown, or not believed."""
    return [None if each.history.frozen else each.connections for each in backends]


def median_load(backends: Iterable[Backend], reports: Iterable[int | None]) -> float:
    """Return the median of connections / capacity, of the backends whose reports are known."""
    return median([report / each.capacity for each, report in zip(backends, reports, strict=True)
                   if report is not None])


def allowed(gap: float, connections: int) -> float:
    """Return how many of the connections that a backend lacks to its share of the median count,
    where it holds so many; of a gap below 0 all."""
    grow = (connections + LOAD_FIRST) / LOAD_GROW
    return gap * grow / (gap + grow) if gap > 0 else gap


def median(values: list[float]) -> float:
    """Return the median; of none, 0."""
    return sorted(values)[len(values) // 2] if values else 0.0


# ---- 6. The fast path: a cache of `decide` -------------------------------------------------------
Peers = Callable[[], Sequence[Peer]]
# What transports call, as respond(queries, peers, tcp, ways): `peers` is called only where it
# matters who asks, `tcp` says whether the queries came over TCP, `ways` of each which of WAYS it
# came. It returns a reply for each, without the id, which is the query's first two octets;
# b"" = there is no reply. Over TCP, where a reply may be long, it may stop after any of them.
Respond = Callable[[Sequence[bytes], Peers, bool, Sequence[int]], list[bytes]]


class Known:
    """A reply, cut into the parts that others are made of: header, (question), records, OPT."""
    __slots__ = ("client", "draw", "end", "header", "opt", "place", "plan", "pool", "records",
                 "rest", "short")

    def __init__(self, packet: bytes, peer: Peer, answered: Answered, place: int) -> None:
        octets, query, reply = answered
        size = 11 + sum(4 + len(data) for _, data in reply.options) if query.has_opt else 0
        # Where the question ends, which is repeated as it came, letter case and all.
        self.end = wire.HEADER + len(query.question)
        # The header without the id, which is each query's own.
        self.header = octets[2:wire.HEADER]
        # The records but OPT, unless `draw` is there.
        self.records = octets[self.end:len(octets) - size]
        # What gives other records each time; None = they are always the same.
        self.draw: Dealer | None = None
        # The record OPT with all its options; b"" = there is none.
        self.opt = octets[len(octets) - size:]
        # The client that the reply is for, since it holds a cookie; None = it is for everybody,
        # b"" = for nobody, so that `ask` sees each query for it, and counts.
        self.client = b"" if reply.short else peer if wire.COOKIE in query.options else None
        # The reply over the limit; None = none holds.
        self.short: Known | None = None
        # Where it is counted, by way, unless `draw` does that.
        self.place = place
        # The pool that had a say; where none had, the reply holds until the next `tick`.
        self.pool = reply.pool or NO_POOL
        # The pool's plan: the reply holds as long as it is the current one.
        self.plan = reply.plan
        # The query behind the name, if lower() can change what it means; None = it cannot.
        rest = packet[self.end - 4:]
        self.rest = rest if rest.lower() != rest.upper() else None


class Unknown(Known):
    """A reply that is not kept: it is for no client."""
    __slots__ = ()

    def __init__(self) -> None:
        self.client = b""
        self.pool, self.plan = NO_POOL, NO_POOL.current
        self.rest = self.short = None


class Alike:
    """Queries that differ in nothing but their id, letter case and the text of the first label.

    If the name exists, its reply is its own. Otherwise it is the one that all anti-cache names of
    a pool share, or else the one that all other names share.
    """
    __slots__ = ("endings", "exist", "known", "name", "pools")

    def __init__(self, names: Sequence[bytes], zones: dict[bytes, ServedZone]) -> None:
        start, length = wire.HEADER + 1, names[0][0]     # of the first label
        parent = names[1]
        zone = wire.find_zone(names[1:], wire.A, zones) or ServedZone(b"")
        # Where the whole name stands in a query.
        self.name = slice(wire.HEADER, wire.HEADER + len(names[0]))
        # The names that exist in the parent's zone; where the parent is in none, the apexes.
        self.exist: Container[bytes] = zone.nodes or zones
        # The ends of a first label that make an anti-cache name.
        self.pools: Container[bytes] = zone.endings.get(parent, ())
        # Where such ends stand in a query, the longest first.
        self.endings = [slice(start + length - size, start + length)
                        for size in zone.lengths.get(parent, ()) if size < length]
        # The replies, by what `stands_for` returns.
        self.known: dict[bytes, Known] = {}

    def stands_for(self, octets: bytes) -> bytes:
        """Return what decides about a query: its name, the end of its first label, or b"" =
        neither."""
        name = octets[self.name]
        if name in self.exist:
            return name
        return next((octets[each] for each in self.endings if octets[each] in self.pools), b"")


UNKNOWN = Unknown()
UNLIKE = Alike((b"\0", b""), {})  # those of which no reply is kept


class Cache:
    """Answers what it knows, asks `miss` for the rest, and learns from the replies to that.

    What it answers is equal to `decide` octet for octet; where a policy picks, it is the policy of
    the same plan that picks anew. For a reply is kept by all octets of the query that it depends
    on, in lower case, and by its transport; only for as long as its pool has the same plan; and
    only if it depends on nothing else (`is_regular`). Names that do not exist are not kept, only
    what answers all of them, so no stranger can fill the memory with names.
    """
    def __init__(self, state: State, dice: Dice,
                 miss: Callable[[bytes, Peer, bool], Answered | str], learns: bool = True) -> None:
        self.state = state
        self.dice = dice
        self.miss = miss         # returns the reply, or which of DROPS this is
        self.learns = learns
        self.counters = state.counters
        # Of UDP and of TCP: by octets 2 to 12 (header, length of the first label) and all that
        # follows the first label.
        self.alike: list[dict[bytes, Alike]] = [{}, {}]
        self.size = 0            # replies that were kept since all began anew
        self.step = 0.0          # of the clock, in which cookies stay the same
        self.now = 0.0           # the time that the limit goes by

    def tick(self, now: float) -> None:
        """Begin anew when cookies change, or too much has gathered; `now` is in Unix seconds."""
        self.now = now
        if now // COOKIE_STEP != self.step or self.size >= LEARNED_MAX:
            self.step = now // COOKIE_STEP
            self.alike = [{}, {}]
            self.size = 0

    def replies(self, packets: Sequence[bytes], peers: Peers, tcp: bool,
                ways: Sequence[int]) -> list[bytes]:
        """Return the replies to some queries, as Respond says: over TCP up to the first that is not
        known, since only such a reply has more than LEARNED_SIZE octets. A packet may be anything:
        what its octets find here was learned from a good query that had the same ones.

        All common queries pass here, so this is one loop, nested deeper than others, in which calls
        are written out: each would cost a tenth of the time that a query takes.
        """
        replies: list[bytes] = []
        clients: Sequence[Peer] = ()                     # found out only when they matter
        table, add, join = self.alike[tcp], replies.append, b"".join
        counts = self.counters.cells
        for packet, way in zip(packets, ways, strict=False):
            octets = packet.lower()
            try:
                end = 13 + octets[12]                    # of the first label
            except IndexError:
                end = 13                                 # too short for a query, and for any key
            alike = table.get(octets[2:13] + octets[end:], UNLIKE)
            name = octets[alike.name]                    # from here on as in `stands_for`
            if name not in alike.exist:
                for ending in alike.endings:
                    name = octets[ending]
                    if name in alike.pools:
                        break
                else:
                    name = b""
            known = alike.known.get(name, UNKNOWN)
            if (known.plan is not known.pool.current
                    or (known.rest is not None and not packet.endswith(known.rest))):
                known = UNKNOWN
            if known.client is not None:
                clients = clients or peers()
                if known.client != clients[len(replies)]:
                    add(self.ask(packet, clients[len(replies)], tcp, way, known))
                    if tcp:
                        break
                    continue
            if known.draw is None:
                counts[known.place + way] += 1
                records = known.records
            else:
                records = known.draw(way)
            add(join((known.header, packet[12:known.end], records, known.opt)))
        return replies

    def ask(self, packet: bytes, peer: Peer, tcp: bool, way: int, known: Known) -> bytes:
        """Have a query answered, count the reply, and learn from it. Return it as in `replies`.
        Where the reply is `known`, there is only the limit to be kept."""
        if known.short is not None:
            return self.keep_limit(packet, peer, way, known, known.short)
        answered = self.miss(packet, peer, tcp)
        if isinstance(answered, str) or not answered.octets:
            self.counters.add(answered if isinstance(answered, str) else "rate")
            return b""
        place = self.counters.reply_place(answered)
        self.counters.cells[place + way] += 1
        if self.learns and self.is_regular(packet, answered):
            known = Known(packet, peer, answered, place)
            reply = answered.reply
            if reply.short:
                short = answered._replace(octets=reply.short)
                place = self.counters.reply_place(short)
                # Of no pool, since `known` is looked at before; and without options.
                known.short = Known(packet, peer, short._replace(reply=Reply(reply.request)), place)
            self.learn(packet, tcp, known, answered)
        return answered.octets[2:]

    def keep_limit(self, packet: bytes, peer: Peer, way: int, known: Known, short: Known) -> bytes:
        """Return a large reply that is known, or what RateLimit.apply makes of it."""
        over = self.state.limit.count(peer, self.now)
        if is_dropped(over):
            self.counters.add("rate")
            return b""
        known = short if over else known
        if known.draw is None:
            self.counters.cells[known.place + way] += 1
            records = known.records
        else:
            records = known.draw(way)
        return b"".join((known.header, packet[12:known.end], records, known.opt))

    def is_regular(self, packet: bytes, answered: Answered) -> bool:
        """Say whether a reply depends on nothing but the octets that it is kept by."""
        octets, query, reply = answered
        end = wire.HEADER + len(query.qname)
        policy = reply.policy
        pool = reply.pool
        return (query.rcode == wire.NOERROR and len(query.qname) > 1
                and max(len(packet), len(octets)) <= LEARNED_SIZE and self.size < LEARNED_MAX
                # Nothing but OPT behind the question; its owner could be a pointer into the name.
                and int.from_bytes(packet[6:wire.HEADER]) == query.has_opt
                and packet[end + 4:end + 5] in (b"", b"\0")
                # Nothing was cut off: what a policy chooses next might be shorter.
                and not octets[2] & wire.TC >> 8
                # Not one to be counted that is for one client.
                and not (reply.short and wire.COOKIE in query.options)
                # If a pool had a say, no other name had, and its plan still holds.
                and (pool is None or (len(reply.records) < 2 and reply.plan is pool.current))
                # No choice that looks at the query, nor one whose rdata may be compressed.
                and (policy is None or (not policy.reads_query
                                        and policy.rtype == query.qtype != wire.CNAME)))

    def learn(self, packet: bytes, tcp: bool, known: Known, answered: Answered) -> None:
        """Keep a regular reply, if the name exists or all like it are answered alike."""
        names = wire.suffixes(answered.query.key)
        zones = self.state.zones
        octets = packet.lower()
        policy = answered.reply.policy
        if policy is not None:
            policy.deal = policy.deal or policy.dealer(known.records[:12], self.dice)
            known.draw = policy.deal
            if known.draw is None:
                return
        key = octets[2:13] + octets[13 + octets[12]:]
        alike = self.alike[tcp].get(key) or Alike(names, zones)
        name = alike.stands_for(octets)
        if name != names[0]:  # are all its siblings answered alike, too?
            zone = wire.find_zone(names, wire.A, zones)
            if (zone is None or names[1] not in zone.nodes or b"\x01*" + names[1] in zone.nodes
                    or zone.find_cut(names[1:], wire.A) is not None):
                return
        self.alike[tcp][key] = alike
        alike.known[name] = known
        self.size += 1


# ==== II  The worker: its sockets; no files, no threads, nothing that waits =======================


# ---- 7. UDP: one datagram in, one out, or a batch of them ----------------------------------------
UDP_MMSG = sys.platform == "linux"  # whether to try recvmmsg
# Numbers of Linux that the socket module of 3.11 does not name.
IP_PKTINFO, IP_FREEBIND, SO_RCVBUFFORCE, SO_MEMINFO = 8, 15, 33, 55
LINK_LOCAL = b"\xfe\x80"  # fe80::/64 in fact: RFC 4291 2.5.6


class Datagrams:
    """UDP one by one, as every system can; `Batch` does the same on Linux."""
    def __init__(self, sock: socket.socket, respond: Respond,
                 counters: "Counters | None" = None) -> None:
        self.sock, self.respond, self.counters = sock, respond, counters or Counters()
        self.is_ipv4 = sock.family == socket.AF_INET
        self.came = 0            # datagrams that the last call took from the kernel

    def serve(self) -> bool:
        """Answer what has come in, at most UDP_BATCH datagrams; returns whether that many came.
        Raises OSError, also one of an earlier reply (ICMP: RFC 1122 4.1.3.3)."""
        return all(self.serve_one() for _ in range(UDP_BATCH))

    def serve_one(self) -> bool:
        """Answer one datagram; returns whether one came. Raises OSError like `serve`."""
        self.came = 0
        try:
            # One octet more than is allowed: `ask` drops what is too long.
            packet, control, _, peer = self.sock.recvmsg(UDP_QUERY_MAX + 1, CONTROL_SIZE)
        except BlockingIOError:
            return False
        self.came = 1
        host = peer[0]
        ways = ALL_IPV4 if self.is_ipv4 else [way_of(host, False)]
        if not peer[1]:  # port 0, where nobody listens
            self.counters.add("send")
            return True
        [reply] = self.respond([packet], lambda: [pack_host(host)], False, ways)
        try:
            if reply and control:
                self.sock.sendmsg([packet[:2], reply], reply_from(control), 0, peer)
            elif reply:
                self.sock.sendto(packet[:2] + reply, peer)
        except OSError:  # no route, no buffer, a filter: this reply is lost, others are not
            self.counters.add("send")
        return True


def pack_host(host: str) -> bytes:
    """Return the octets that a peer's address has in a sockaddr."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.inet_pton(family, host.partition("%")[0])


def reply_from(control: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Return control data that makes a reply leave from the address that was asked.

    The interface index is cleared, since the way back need not be the way in (RFC 3542 6.2). Only
    a link-local address means nothing without its interface (RFC 4007 6).
    """
    out = []
    for level, kind, data in control:
        if level == socket.IPPROTO_IP:  # of IP_PKTINFO: index, local address, destination
            data = bytes(4) + data[4:8] + bytes(4)
        elif not data.startswith(LINK_LOCAL):  # of IPV6_PKTINFO: address, index
            data = data[:16] + bytes(4)
        out.append((level, kind, data))
    return out


# What recvmmsg(2) and sendmmsg(2) read and write, as C lays it out on this machine. In the formats,
# P is an address, N a size_t, I and i are of four octets, and 0P ends where an address could begin.
IOVEC = struct.Struct("PN")  # struct iovec: a buffer's address and size
# struct msghdr: address and size of the name (the peer's sockaddr), address and number of vectors,
# address and size of the control data, flags.
MSGHDR = "PIPNPNi0P"
MMSGHDR = struct.Struct(MSGHDR + "I0P")  # struct mmsghdr: that, and the octets of the datagram
NAME_SIZE = 28                           # octets of a sockaddr_in6, the longest that comes
CONTROL_SIZE = socket.CMSG_SPACE(20)     # with a struct in6_pktinfo; in_pktinfo is shorter
BUFFER_SIZE = UDP_QUERY_MAX + 192        # powers of two would share few cache lines
NO_INTERFACES = memoryview(bytes(4 * BATCH)).cast("I")
ALL_IPV4, ALL_IPV6 = bytes(BATCH), bytes([1]) * BATCH  # the ways of a whole batch
NO_FAMILY = 0xFFFF                       # of an address that the kernel refuses to send to


def places(start: int, size: int) -> range:
    """Return where each item begins in an array of BATCH items of this size; `stop` of what is
    returned is where the array ends."""
    return range(start, start + size * BATCH, size)


class Batch(Datagrams):
    """UDP with recvmmsg(2) and sendmmsg(2): up to BATCH datagrams for one system call each way.

    Both calls take an array of messages (MMSGHDR), each of which points to a name (the peer's
    sockaddr), a vector (a buffer and its size) and control data (the address that was asked). The
    kernel fills all that in and notes how long the datagram was. The reply takes the query's place
    in the buffer, its size goes into the vector, and the same array is sent.

    All of it lies in one piece of memory that is mapped here and stays where it is. Messages and
    vectors come first, so that one assignment makes them new for the next call.
    """
    def __init__(self, sock: socket.socket, respond: Respond,
                 counters: "Counters | None" = None) -> None:
        super().__init__(sock, respond, counters)
        messages = places(0, MMSGHDR.size)
        vectors = places(messages.stop, IOVEC.size)
        names = places(vectors.stop, NAME_SIZE)
        controls = places(names.stop, CONTROL_SIZE)
        buffers = places(controls.stop, BUFFER_SIZE)
        self.memory = memory = mmap.mmap(-1, buffers.stop)
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for message, vector, name, control, buffer in zip(
                messages, vectors, names, controls, buffers, strict=True):
            MMSGHDR.pack_into(memory, message, base + name, NAME_SIZE, base + vector, 1,
                              base + control, CONTROL_SIZE, 0, 0)
            # One octet more than is allowed tells what is too long.
            IOVEC.pack_into(memory, vector, base + buffer, UDP_QUERY_MAX + 1)
        self.messages = [base + message for message in messages]  # their addresses
        self.names = names
        self.families = self.field("H", names, 0)
        self.headers = slice(0, vectors.stop)               # messages and vectors,
        self.fresh = memory[self.headers]                   # as they are before each call
        self.starts = list(buffers)                         # of queries, and replies with their id
        self.afters = [start + 2 for start in buffers]      # of replies behind the id, which stays
        self.lengths = self.field("I", messages, struct.calcsize(MSGHDR))  # octets that came
        self.sizes = self.field("L", vectors, struct.calcsize("P"))        # octets that are to go
        self.peer = struct.Struct("4x4s20x" if self.is_ipv4 else "8x16s4x")  # of a name
        data = socket.CMSG_LEN(0)                           # where a packet info begins
        self.asked = [slice(start + data, start + data + len(LINK_LOCAL)) for start in controls]
        self.interfaces = self.field("I", controls, data + (0 if self.is_ipv4 else 16))
        libc, address, number = ctypes.CDLL(None, use_errno=True), ctypes.c_void_p, ctypes.c_int
        self.receive, self.send, self.fd = libc.recvmmsg, libc.sendmmsg, sock.fileno()
        self.send.argtypes = [number, address, ctypes.c_uint, number]
        self.receive.argtypes = [*self.send.argtypes, address]  # the last: how long to wait

    def field(self, kind: Literal["H", "I", "L"], items: range, offset: int) -> "memoryview[int]":
        """Return one field of each item of an array, as a view on the memory: H has 2 octets, I has
        4, and L is a size_t. `offset` says where the field begins in an item."""
        width = struct.calcsize(kind)
        view = memoryview(self.memory)[:items.stop].cast("B").cast(kind)
        return view[(items.start + offset) // width::items.step // width]

    def serve(self) -> bool:
        """Do what that of Datagrams does."""
        return all(self.turn() == BATCH for _ in range(UDP_BATCH // BATCH))

    def turn(self) -> int:
        """Receive, answer and send once; returns how many datagrams came. Raises OSError."""
        memory = self.memory
        self.came = 0
        memory[self.headers] = self.fresh
        came = int(self.receive(self.fd, self.messages[0], BATCH, socket.MSG_DONTWAIT, None))
        if came < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return 0
            raise OSError(number, os.strerror(number))
        self.came = came
        lengths = self.lengths[:came]
        packets = [memory[start:start + length]
                   for start, length in zip(self.starts, lengths, strict=False)]
        replies, sizes = self.respond(packets, self.peers, False, self.ways_of(came)), []
        for start, reply in zip(self.afters, replies, strict=False):
            size = len(reply)
            memory[start:start + size] = reply
            sizes.append(size + 2)
        self.sizes[:came] = array.array("L", sizes)
        if not all(replies):
            for at, reply in enumerate(replies):
                if not reply:
                    self.families[at] = NO_FAMILY
        self.send_first(came)
        return came

    def peers(self) -> list[Peer]:
        """Return the addresses that the messages came from."""
        names = self.memory[self.names.start:self.names.stop]
        return [address for address, in self.peer.iter_unpack(names)]

    def ways_of(self, count: int) -> Sequence[int]:
        """Return by which of WAYS each of the first messages came. Sockets of IPv6 may take IPv4,
        too, from addresses that begin with MAPPED; as a rule, all of a batch do, or none."""
        if self.is_ipv4:
            return ALL_IPV4
        names = self.memory[self.names.start:self.names[count - 1] + NAME_SIZE]
        mapped = names.count(MAPPED)
        if mapped in (0, count):
            return ALL_IPV4 if mapped else ALL_IPV6
        return [not address.startswith(MAPPED) for address, in self.peer.iter_unpack(names)]

    def send_first(self, count: int) -> None:
        """Send the first `count` messages, without the interface that each came in by, as in
        `reply_from`. A link-local address gets its own back if it does not go without."""
        interfaces = self.interfaces.tolist()
        self.interfaces[:] = NO_INTERFACES
        sent = 0
        while sent < count:
            message = self.messages[sent]
            went = self.send(self.fd, message, count - sent, socket.MSG_DONTWAIT)
            if went < 0 and self.memory[self.asked[sent]] == LINK_LOCAL:
                self.interfaces[sent] = interfaces[sent]
                went = self.send(self.fd, message, 1, socket.MSG_DONTWAIT)
            if went < 0 and self.families[sent] != NO_FAMILY:
                self.counters.add("send")
            sent += max(1, went)  # -1 is about the first of them: it is lost, the others are not


def choose_transport() -> tuple[type[Datagrams], str]:
    """Return Batch, if it works here, else Datagrams; and a description for the log."""
    try:
        if not UDP_MMSG:
            raise OSError("only Linux has recvmmsg")
        if ctypes is None:
            raise OSError("this Python has no module ctypes")
        try_batch()
    except (AttributeError, OSError, MemoryError) as bad:
        return Datagrams, f"UDP one by one: {bad}"
    return Batch, f"UDP in batches of {BATCH}"


def try_batch() -> None:
    """Have a Batch answer three datagrams of two clients with id, query and the client's address.
    Raises OSError or AttributeError where the replies do not all come back as they should: kernel,
    sandbox or C library may lack these calls, or have a structure that is not ours."""
    with contextlib.ExitStack() as stack:
        server, one, two = socks = [
            stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(3)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(TICK)
        batch = Batch(server, lambda packets, peers, *_: list(
            map(bytes.__add__, packets, cast("Sequence[bytes]", peers()))))
        for sock, size in ((one, 12), (two, 700), (one, 40)):
            sock.sendto(bytes(size), server.getsockname())
        server.recv(1, socket.MSG_PEEK)  # waits for them
        batch.serve()
        if [len(sock.recv(UDP_QUERY_MAX)) for sock in (one, two, one)] != [18, 706, 46]:
            raise OSError("recvmmsg does not work as it should")


# ---- 8. TCP: one client --------------------------------------------------------------------------
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Connection:
    """A TCP client: what it sent and is not answered, what it was answered and has not read.

    A connection is in one or more of these states, which end with it when a limit has passed:

        idle     nothing waits in inbox or outbox, for TCP_IDLE at most
        asking   the inbox ends with a part of a query, whose rest has TCP_MESSAGE to come
        behind   the outbox holds replies that the client does not read; with TCP_QUEUE octets of
                 them, its queries wait in the inbox, and no more are read. So the outbox holds that
                 and a group of replies at most, of which one may have 64 KiB
        closing  nothing more is read, since the client has said that it sends no more, or there
                 is the order STOP: what it asked is still answered
    """
    def __init__(self, sock: socket.socket, host: str, now: float) -> None:
        self.sock = sock
        self.host = host                 # the client's address,
        self.network = network_of(host)  # and the octets of its network
        self.ways = [way_of(host, True)] * TCP_GROUP
        self.inbox = bytearray()         # what came and is not answered: queries, each behind its
                                         # length in two octets; the last one may be incomplete
        self.outbox = bytearray()        # replies in the same form that the kernel did not take yet
        self.born = now                  # when it was accepted, in monotonic seconds
        self.active = now                # when a query was last answered, or replies were taken
        self.partial = 0.0               # since when a query has been incomplete; 0 = none is
        self.closing = False             # RFC 7766 6.2.4: half-closed, by whichever side
        self.events = READ               # what the selector waits for
        self.held = 0                    # octets of both boxes, as the worker has counted them

    def query_end(self, start: int = 0) -> int:
        """Return where the query ends that begins there in the inbox (also one of a length that no
        query has); 0 = it is not complete."""
        end = start + 2 + int.from_bytes(self.inbox[start:start + 2], "big")
        return end if len(self.inbox) >= end else 0

    def next_queries(self) -> list[bytes]:
        """Return up to TCP_GROUP whole queries, which stay in the inbox until they are answered;
        none while TCP_QUEUE octets of replies wait, so that a client that does not read gets no
        more of them made."""
        packets: list[bytes] = []
        start = 0
        if len(self.outbox) >= TCP_QUEUE:
            return packets
        for _ in range(TCP_GROUP):
            end = self.query_end(start)
            if not end:
                break
            packets.append(bytes(self.inbox[start + 2:end]))
            start = end
        return packets

    def serve(self, respond: Respond, now: float) -> bool:
        """Answer the whole queries received, TCP_TURNS groups of them at most. Returns False to
        hang up: what is no query closes the connection (RFC 7766 6.2.1)."""
        for _ in range(TCP_TURNS):
            packets = self.next_queries()
            if not packets:
                break
            if not self.answer(packets, respond):
                return False
            self.active, self.partial = now, 0.0
        if self.inbox and not self.partial and not self.query_end():
            self.partial = now
        return True

    def answer(self, packets: list[bytes], respond: Respond) -> bool:
        """Answer the queries that the inbox begins with, until TCP_QUEUE octets wait; returns False
        where one is no query."""
        while packets and len(self.outbox) < TCP_QUEUE:
            replies, end = respond(packets, lambda: [self.host] * TCP_GROUP, True, self.ways), 0
            for packet, reply in zip(packets, replies, strict=False):
                end += 2 + len(packet)
                if reply:
                    self.outbox += (2 + len(reply)).to_bytes(2, "big") + packet[:2] + reply
            del self.inbox[:end]
            if not all(replies):
                return False
            packets = packets[len(replies):]
        return True

    def advance(self, events: int, respond: Respond, now: float) -> int:
        """Read, answer and write as far as that goes without waiting; returns the events to wait
        for, 0 = close the connection."""
        alive = True
        try:
            if events & READ and not self.closing:
                octets = self.sock.recv(TCP_READ)
                self.inbox += octets
                self.closing = not octets
            alive = self.serve(respond, now)
            if self.outbox:
                del self.outbox[:self.sock.send(self.outbox)]
                self.active = now
        except BlockingIOError:
            pass
        except OSError:  # reset by the client
            return 0
        return self.wanted() if alive else 0

    def wanted(self) -> int:
        """Return the events to wait for: READ unless queries wait here, WRITE if queries or replies
        do; 0 = the client has closed its side and has been answered."""
        behind = self.query_end()
        events = WRITE if behind or self.outbox else 0
        if not behind and not self.closing and len(self.outbox) < TCP_QUEUE:
            events |= READ
        return events

    def expired(self, now: float, leaving: bool) -> bool:
        """Return whether a limit may pass before the next look, in WAKE or a little later: idle, a
        query or a reply too slow, or a life too long."""
        now += 2 * WAKE
        idle = now - self.active
        slow = self.partial and now - self.partial > TCP_MESSAGE
        done = leaving and idle > TCP_IDLE / 2  # a client whose worker is to end waits less
        if (slow or done) and not self.outbox:
            return True
        return idle > TCP_IDLE or now - self.born > TCP_LIFE


class Networks:
    """Which networks the clients come from, and which client makes room for another: the longest
    idle one of the network that has most, so that each can have its share when others wait, and all
    that there is while nobody does. Of several such networks, it is the one of which no client
    came, went or was served for longest.

    Each step costs the same, however many clients there are.
    """
    def __init__(self) -> None:
        # By network its clients, the longest idle one first.
        self.clients: dict[bytes, dict[Connection, None]] = {}
        # The same by how many they are, the network first in which nothing happened for longest.
        self.by_size: dict[int, dict[bytes, dict[Connection, None]]] = collections.defaultdict(dict)
        self.most = 0                    # clients that a network has

    def update(self, client: Connection, stays: bool = True) -> None:
        """Take note of a client that came or was served; or that is gone, and does not stay."""
        network = client.network
        clients = self.clients.setdefault(network, {})
        self.by_size[len(clients)].pop(network, None)
        clients.pop(client, None)
        if stays:
            clients[client] = None
        if clients:
            self.by_size[len(clients)][network] = clients
        else:
            del self.clients[network]
        self.most = max(self.most, len(clients))
        if self.most and not self.by_size[self.most]:
            self.most -= 1

    def next_to_go(self) -> Connection:
        """Return the client that makes room; there must be one."""
        return next(iter(next(iter(self.by_size[self.most].values()))))


# ---- 9. The loop ---------------------------------------------------------------------------------
FD_RESERVE = 24           # file descriptors kept for everything but TCP clients
SLICE_TIME = 0.0005       # seconds for which small slices of a snapshot are taken over as one


class Worker:
    """A process that answers: one loop over UDP sockets, TCP listeners and TCP clients.

    No threads, no files but the log and the snapshots, no blocking call once `run` has begun. The
    selector keeps beside every descriptor what to call when it is ready, with the events and the
    time (of the pass, in monotonic seconds; `now` is that everywhere here).
    """
    def __init__(self, state: State, sockets: "Sockets", child: "Child", log: "Log") -> None:
        self.state, self.child, self.log = state, child, log
        self.clients: dict[int, Connection] = {}  # by descriptor
        self.networks = Networks()       # of these clients
        self.held, self.room = 0, TCP_MEMORY // state.workers  # octets: of these, and the most
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_clients = max(8, min(TCP_CONNECTIONS, soft - FD_RESERVE))
        self.order = 0                   # the newest one, by which it ends; 0 = it serves
        self.until = math.inf            # monotonic seconds: when it ends, even with clients
        self.slices = self.apply_snapshots()
        self.is_calm = False             # whether one datagram is what has come, as a rule
        self.selector = selectors.DefaultSelector()
        if sys.platform == "linux":      # the same one, for what `selectors` does not know
            self.epoll = select.epoll.fromfd(os.dup(self.selector.fileno()))
        # What random gives is seeded anew in every process by the module itself.
        self.cache = Cache(state, random.random, self.ask, log.level < 2)
        self.counters = state.counters
        transport, description = choose_transport()
        # A UDP socket or a listener -> what serves it, and returns whether more may wait.
        self.doors: dict[socket.socket, Callable[..., bool]] = {}
        self.failed: dict[socket.socket, int] = {}  # how often that raised OSError lately,
        self.rests: dict[socket.socket, float] = {}  # and until when it rests, in monotonic seconds
        for udp, tcp in sockets.values():
            datagrams = transport(udp, self.respond, self.counters)
            for option in socket.SO_SNDBUF, socket.SO_RCVBUF:  # connections take them over
                tcp.setsockopt(socket.SOL_SOCKET, option, TCP_KERNEL)
            self.doors[udp] = functools.partial(self.on_datagrams, datagrams)
            self.doors[tcp] = functools.partial(self.on_accept, tcp)
        if child.slot == FIRST_WORKER and child.failed == -math.inf:  # it speaks for all, once
            log.change("udp", description)
            log.flush()

    def run(self) -> None:
        """Serve until the time that an order leaves is over, or before that when no client is
        left.

        A pass waits for what is ready, takes over a slice of the newest snapshot, and serves what
        was ready. While few queries come, each costs a pass, so that all that can wait is left to
        `look`, at least once in WAKE; at random, since workers take turns by that (`listen`).
        """
        gc.freeze()  # the config is here to stay: the collector need not walk it again
        # Nor need it walk all backends, which takes half a second where 100,000 come and go: what
        # refers to itself and grows old is not collected, and nothing here does.
        gc.set_threshold(700, 10, 1 << 30)
        generation, is_loading = self.child.generation, False
        self.catch_up()
        now = ended = next_look = time.monotonic()
        self.look(now)
        while now < self.until and (self.clients or not self.order or self.is_needed()):
            ready = self.selector.select(0 if is_loading else next_look - ended)
            woken = time.monotonic()
            # It has waited for longer than the last pass took.
            self.is_calm = woken - ended > ended - now
            now = woken
            if is_loading or generation.has_news():
                is_loading = next(self.slices)
            self.serve(ready, now)
            if now >= next_look:
                next_look = now + WAKE * random.uniform(0.5, 1)
                self.look(now)
            if self.log.lines:
                self.log.flush()
            ended = time.monotonic()
        self.leave(list(self.doors), now)

    def catch_up(self) -> None:
        """Take over all of the newest snapshot, without which large pools would be SERVFAIL. Until
        the first sign of life, which says that this worker is ready, there is time for that."""
        while next(self.slices):
            if self.child.generation.shared[self.child.slot]:
                self.child.beat()

    def is_needed(self) -> bool:
        """Return whether to answer over UDP though no client is left: after STOP until the monitor
        has ended, too. The next start waits for that, and nobody else answers."""
        return self.order == STOP and self.child.generation.shared[MONITOR] > 0

    def look(self, now: float) -> None:
        """Do what is due now and then: show a sign of life, mind limits of time, and obey."""
        self.child.beat()
        self.cache.tick(time.time())
        self.listen(now)
        self.hang_up(now)
        self.obey(self.child.order(), now)

    def serve(self, ready: Iterable[tuple[selectors.SelectorKey, int]], now: float) -> None:
        """Serve what is ready. Thousands of clients may be: whenever they have taken TCP_TIME, it
        is the turn of UDP."""
        begun = now
        for key, events in ready:
            if time.monotonic() > begun + TCP_TIME:
                begun = self.serve_udp()
            try:
                key.data(events, now)
            except OSError as bad:
                self.on_failure(key.fileobj, bad)

    def serve_udp(self) -> float:
        """Answer what has come in over UDP meanwhile; returns when that was done, in monotonic
        seconds."""
        self.is_calm = False
        for door, serve in self.doors.items():
            if door.type == socket.SOCK_DGRAM:
                with suppress(OSError):  # it comes again in the loop
                    serve(READ, 0.0)
        return self.child.beat()

    def on_datagrams(self, datagrams: Datagrams, events: int, now: float) -> bool:
        """Answer what has come in; returns whether more may wait. Raises OSError.

        A datagram taken alone costs a fifth less than in a batch of one. A mistake of ours costs
        the datagrams with which it came; where none came, it would be met for ever, and ends this
        worker, which is then replaced.
        """
        try:
            return datagrams.serve_one() if self.is_calm else datagrams.serve()
        except Exception as bug:
            if isinstance(bug, OSError) or not datagrams.came:
                raise
            self.on_bug(bug)
            return True

    def on_failure(self, door: Any, bad: OSError) -> None:
        """Let what fails again and again rest for FAILURES_REST, instead of spinning; a few errors
        mean nothing."""
        self.failed[door] = self.failed.get(door, 0) + 1
        if self.failed[door] > FAILURES_MAX:
            self.selector.unregister(door)
            self.rests[door] = self.child.beat() + FAILURES_REST
            is_udp = door.type == socket.SOCK_DGRAM
            doing = "receiving UDP queries" if is_udp else "accepting TCP connections"
            self.log.trouble("socket", doing, str(bad.strerror))

    def apply_snapshots(self) -> Iterator[bool]:
        """Take over each new snapshot in slices, between which queries have their turn; yields
        whether there are more slices. Small ones, as of small pools, are joined for SLICE_TIME. A
        snapshot that cannot be taken over costs no worker: answers go on by the plans that hold,
        until the next one."""
        while True:
            try:
                begun = time.monotonic()
                for _ in self.apply_newest():
                    if time.monotonic() > begun + SLICE_TIME:
                        yield True
                        begun = time.monotonic()
            except Exception as bug:  # such as a number that no float can hold
                self.log.trouble("internal-error", "internal error in a snapshot, please report",
                                 f"{show_error(bug)} in {show_traceback(bug)}")
            yield False

    def apply_newest(self) -> Iterator[None]:
        """Take over the newest snapshot, if it is new, in slices."""
        snapshot = self.child.generation.news()
        if snapshot is not None:
            yield from self.state.apply_snapshot(snapshot, time.monotonic())

    def listen(self, now: float) -> None:
        """Take queries and connections, also those of a socket that has rested from errors; forget
        the errors of one that does not rest.

        For a datagram Linux then wakes one worker instead of all: of those that wait, the first in
        a queue. Each goes to its end here, so that all have equal parts of the queries, as `scale`
        presumes. What one was woken for that died is found here by another.
        """
        for door, serve in self.doors.items():
            if door in self.selector.get_map():
                self.failed.pop(door, None)
            elif now >= self.rests.get(door, 0.0):
                self.selector.register(door, READ, serve)
            else:
                continue
            if sys.platform == "linux" and door.type == socket.SOCK_DGRAM:
                self.epoll.unregister(door)
                try:
                    self.epoll.register(door, select.EPOLLIN | select.EPOLLEXCLUSIVE)
                except OSError:  # some sandboxes do not have that
                    self.epoll.register(door, select.EPOLLIN)

    def obey(self, order: int, now: float) -> None:
        """Take no more once an order to end has come. Connections may go on until they are idle,
        or with STOP until they are answered."""
        if order == self.order:
            return
        self.order, self.until = order, now + TIME_LEFT[order]
        # With STOP, datagrams are answered to the end: see `is_needed`.
        self.leave([door for door in self.doors
                    if order != STOP or door.type == socket.SOCK_STREAM], now)
        if order == STOP:
            for client in list(self.clients.values()):
                self.on_client(client, READ, now)  # a query may have come just now
                client.closing = True
                self.on_client(client, 0, now)

    def leave(self, doors: Iterable[socket.socket], now: float) -> None:
        """Take no more of what comes in there; answer what has come and nobody else will answer."""
        limit = min(self.until, now + STOP_LIMIT)
        for door in doors:
            serve = self.doors.pop(door)
            with suppress(KeyError):  # it rests
                self.selector.unregister(door)
            # The next generation has the same sockets; those that it has not, `Supervisor.unbind`
            # has marked.
            is_last = self.order != RETIRE or door.getsockopt(socket.SOL_SOCKET,
                                                              socket.SO_REUSEPORT)
            with suppress(OSError):
                while is_last and serve(READ, now) and self.child.beat() < limit:
                    pass
            door.close()

    def ask(self, packet: bytes, peer: Peer, tcp: bool) -> Answered | str:
        """Call `decide`, and log the query if all are: then nothing is learned, so that each one
        comes here. Should it fail by a mistake of ours, say SERVFAIL and go on. A datagram that is
        too long is dropped undecoded."""
        if not tcp and len(packet) > UDP_QUERY_MAX:
            return "long"
        if isinstance(peer, str):
            client = peer
        else:
            family = socket.AF_INET if len(peer) == 4 else socket.AF_INET6
            client = socket.inet_ntop(family, peer)
        begun = time.perf_counter_ns()
        try:
            answered = decide(packet, client, tcp, self.state, time.time(), random.random)
            if isinstance(answered, Answered) and self.log.level >= 2:
                micros = (time.perf_counter_ns() - begun) // 1000
                self.log.query(answered.query, client, answered.reply, micros)
            return answered
        except Exception as bug:
            self.log_bug(bug, packet)
            return servfail(packet, client)

    def respond(self, packets: Sequence[bytes], peers: Peers, tcp: bool,
                ways: Sequence[int]) -> list[bytes]:
        """Return the replies to some queries, as Respond says. Where the fast path fails by a
        mistake of ours, that costs no other query: each is answered alone, and the one that it
        fails for without it."""
        try:
            return self.cache.replies(packets, peers, tcp, ways)
        except Exception as bug:
            if len(packets) > 1:
                return [self.respond([packet], [peer].copy, tcp, [way])[0]
                        for packet, peer, way in zip(packets, peers(), ways, strict=False)]
            self.on_bug(bug, packets[0])
        answered = self.ask(packets[0], peers()[0], tcp)
        return [b"" if isinstance(answered, str) else answered.octets[2:]]

    def on_bug(self, bug: Exception, packet: bytes = b"") -> None:
        """Go on after a mistake of ours, but when memory runs out. What the fast path has learned
        may be wrong, so that it begins anew, at the next `tick`."""
        if isinstance(bug, MemoryError):
            raise bug
        self.cache.step = -1.0
        self.log_bug(bug, packet)

    def log_bug(self, bug: Exception, packet: bytes) -> None:
        """Log a mistake of ours, and the packet that it was met with; b"" = that is not known."""
        where = show_traceback(bug).rpartition(" ")[2]
        self.log.trouble("internal-error", f"internal error, please report: line {where}",
                         f"{show_error(bug)} for {packet[:512].hex() or 'what just came'}")

    def on_accept(self, listener: socket.socket, events: int, now: float) -> bool:
        """Take new connections; when there are too many, one makes room. Returns whether more may
        wait. Raises OSError, also when a client went away (ECONNABORTED)."""
        for _ in range(ACCEPT_TURN):
            try:
                sock, peer = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except BlockingIOError:
                return False
            except OSError as bad:
                if bad.errno == errno.EMFILE and self.clients:
                    self.evict(0, now)
                    return True
                raise
            self.evict(self.max_clients - 1, now)
            try:
                client = self.clients[sock.fileno()] = Connection(sock, peer[0], now)
            except Exception as bug:
                self.on_bug(bug)
                continue
            self.networks.update(client)
            self.counters.add("tcp")
            self.counters.put("tcp open", len(self.clients))
            self.selector.register(sock, READ, functools.partial(self.on_client, client))
        return True

    def evict(self, limit: int, now: float) -> None:
        """Answer and close the client that makes room when there are more than `limit`."""
        if len(self.clients) > limit:
            client = self.networks.next_to_go()
            self.on_client(client, READ, now)  # its query may have come meanwhile
            self.close(client)

    def on_client(self, client: Connection, events: int, now: float) -> None:
        """Bring a client on as far as it goes, then close it or wait for what it needs next."""
        before = client.active
        if client.sock.fileno() < 0:  # evicted in this very turn
            return
        try:
            wanted = client.advance(events, self.respond, now)
        except Exception as bug:
            self.on_bug(bug, bytes(client.inbox))
            wanted = 0
        if not wanted:
            self.close(client)
            return
        if client.active != before:  # to the end of the queue of idlers
            self.networks.update(client)
        if wanted != client.events:
            client.events = wanted
            self.selector.modify(client.sock, wanted, functools.partial(self.on_client, client))
        held = len(client.inbox) + len(client.outbox)
        self.held += held - client.held
        client.held = held
        if self.held > self.room:
            self.make_room()

    def make_room(self) -> None:
        """Close the clients that hold most, until an eighth of the room is free: to look for them
        takes a millisecond, with thousands of clients."""
        for client in sorted(self.clients.values(), key=lambda each: each.held, reverse=True):
            if self.held <= self.room * 7 // 8:
                break
            self.close(client)

    def close(self, client: Connection) -> None:
        """Forget a client, unless that is done."""
        if self.clients.pop(client.sock.fileno(), None) is not None:
            self.networks.update(client, False)
            self.held -= client.held
            # What is ready in this turn refers to it to the end of that.
            client.inbox.clear()
            client.outbox.clear()
            self.selector.unregister(client.sock)
            client.sock.close()
            self.counters.put("tcp open", len(self.clients))

    def hang_up(self, now: float) -> None:
        """Close the clients that pass a limit of time, all of which `Connection.expired` knows."""
        for client in list(self.clients.values()):
            if client.expired(now, bool(self.order)):
                self.close(client)


# ==== III  The monitor: files, other programs, the network; never a query =========================
# One asyncio program: each poll, each probe that is due, and what publishes are tasks of one loop.
# SQLite, which blocks, has POLL_THREADS threads at most; nothing else has. Whatever goes wrong here
# is logged and costs no answer: workers go on with the last snapshot, also while there is no
# monitor. (That reports are old, only a monitor finds out.)


# ---- 10. Sources: what backends there are, and their load ----------------------------------------
# A Poll reads a source every `every` seconds, in these steps:
#   read_sqlite, or Runner.run and read_printed      what a source says, as entries
#   Poll.deal                                        the entries of each pool
#   Feed.row_of                                      a row for each entry that keeps the rules
#   Feed.apply                                       the rows of the pool, which a Watch looks at
# A poll that fails, is late or finds nothing leaves the last good rows in force. They grow old, and
# after `stale` seconds their connections are not believed any more.
VALUE_MAX = 1 << 16       # octets that a value of a table may have
TABLE_MAX = 16 << 20      # characters that all rows which a poll finds in a table may have
ROWS_MAX = 10_000         # rows that a source may have, of a table for each pool
TOO_MANY = f"more than {ROWS_MAX} rows"
SCHEMA = """CREATE TABLE backends (
  pool TEXT NOT NULL COLLATE NOCASE,
  address TEXT NOT NULL,                       -- several addresses of one server: comma-separated
  connections INTEGER,                         -- established now; NULL = unknown, which is not 0
  opened INTEGER,                              -- accepted ever; NULL = not counted
  weight REAL NOT NULL DEFAULT 1, max_connections INTEGER,
  state TEXT NOT NULL DEFAULT 'up' CHECK (state IN ('up', 'drain', 'down')),
  updated_at REAL,                             -- unix time of the report; NULL = as of the poll
  PRIMARY KEY (pool, address))"""
# The column's own NOCASE makes the index of SCHEMA fit; a table without it is scanned.
TABLE_QUERY = """SELECT pool, address, connections, opened, weight, max_connections, state,
  updated_at FROM backends WHERE pool COLLATE NOCASE IN (SELECT value FROM json_each(?))"""
POOLS_QUERY = "SELECT DISTINCT pool FROM backends WHERE pool > '' LIMIT 100"
# Of a printed line, in this order.
COLUMNS = ("address", "connections", "weight", "max_connections", "state", "opened")
NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"  # as text may have it
# File of a table -> the file, open to read its header. It stays open, since closing any descriptor
# of a file ends all locks that this process has on it (POSIX), also those of another thread's poll.
HEADERS: dict[str, io.FileIO] = {}
Entry = dict[str, Any]  # column -> value, of what a source says about one backend


class Found(NamedTuple):
    """What a poll has found."""
    entries: list[Entry]
    wrong: Sequence[str] = ()   # why lines that a command has printed are no entries
    pools: Sequence[str] = ()   # that have rows, if one which was asked for has none
    failed: Mapping[str, str] = {}  # pool -> why its rows, unlike those of others, cannot be read


class Excess(Problem):
    """A source has more rows, or larger ones, than are taken over."""


class Nothing(Problem):
    """A source works, and has no rows."""


def read_sqlite(source: Source, pools: Sequence[str], makes: bool) -> Found:
    """Read what a file has for some pools, and make its table first where that is wanted; raises
    Problem."""
    path = os.path.realpath(source.name)  # the files that SQLite makes stand beside that
    try:
        for each in path, path + "-journal":  # to open a pipe could take for ever
            if os.path.exists(each) and not os.path.isfile(each):
                raise Problem(f"{each} is a folder, pipe or device: name a file")
        if makes and source.query is None:
            make_table(path)
        refuse_wal(path)
        uri = f"file:{urllib.parse.quote(os.fsencode(path))}?mode=ro"
        # It waits for a writer's lock for a quarter of the time, so that there is some to read in.
        database = sqlite3.connect(uri, timeout=source.timeout / 4, uri=True)
        with contextlib.closing(database):
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_MAX)
            database.text_factory = lambda octets: octets.decode("utf-8", "replace")
            limit = time.monotonic() + source.timeout
            database.set_progress_handler(lambda: time.monotonic() > limit, 10_000)
            if source.query is None:
                return read_table(database, pools)
            return Found(fetch(database.execute(source.query, {"pool": pools[0]}), ROWS_MAX))
    except Problem:
        raise
    except (OSError, sqlite3.Error, sqlite3.Warning, ValueError) as bad:
        raise Problem(explain(bad, path)) from None


def read_table(database: Any, pools: Sequence[str]) -> Found:
    """Return the entries of some pools, of a table like SCHEMA's. Raises sqlite3.Error, Problem.

    Where all of them together are too many or too large, each pool is read alone: what one of them
    has must not cost the others theirs. Where a pool has no rows, the names of others are looked
    up, so that a misspelled one can be pointed out.
    """
    entries, failed = list[Entry](), dict[str, str]()
    try:
        entries = read_pools(database, pools)
    except (Excess, database.DataError):  # the latter: a value is too large
        if len(pools) == 1:
            raise
        for pool in pools:
            try:
                entries += read_pools(database, [pool])
            except (Excess, database.DataError) as bad:
                failed[pool] = explain(bad, "")
    if {plain_pool(each["pool"]) for each in entries}.issuperset(set(pools) - failed.keys()):
        return Found(entries, failed=failed)
    others = [str(name) for name, in database.execute(POOLS_QUERY)]
    return Found(entries, pools=others, failed=failed)


def read_pools(database: Any, pools: Sequence[str]) -> list[Entry]:
    """Return the entries of some pools, the oldest first; raises as `read_table` does.

    All names go into one query as one parameter, a JSON array, since the number of parameters is
    limited: 999 in old SQLite. A table may have the names with the final dot, too.
    """
    names = json.dumps([*pools, *(pool + "." for pool in pools)])
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(VALUE_MAX, len(names)))
    query = TABLE_QUERY
    if "opened" not in columns_of(database.execute("SELECT * FROM backends LIMIT 0")):
        query = query.replace("opened, ", "")  # a table that 0.5.0 or an earlier version has made
    try:
        cursor = database.execute(query + " ORDER BY rowid", [names])
    except database.OperationalError as bad:  # of a view, or of a table WITHOUT ROWID
        if "rowid" not in str(bad):
            raise
        cursor = database.execute(query, [names])
    return fetch(cursor, ROWS_MAX * len(pools))


def columns_of(cursor: Any) -> list[str]:
    """Return the names of a query's columns in lower case, since SQL's have none."""
    return [each[0].lower() for each in cursor.description or ()]


def fetch(cursor: Any, limit: int) -> list[Entry]:
    """Return what a query finds, at most `limit` rows; raises sqlite3.Error, Problem."""
    columns = columns_of(cursor)
    if "address" not in columns:
        raise Problem(f"no column 'address' among {', '.join(columns) or 'none'}: write the query "
                      "as SELECT ip AS address, ...")
    entries, size = list[Entry](), 0
    for row in cursor:
        size += len(str(row))
        if size > TABLE_MAX:
            raise Excess(f"its rows have more than {TABLE_MAX} octets")
        if len(entries) == limit:
            raise Excess(TOO_MANY)
        entries.append(dict(zip(columns, row, strict=True)))
    return entries


def plain_pool(name: Any) -> str:
    """Return the name of a pool as configs have it, from an entry's spelling."""
    return str(name).lower().removesuffix(".")


def make_table(path: str) -> None:
    """Make the table where there is no file, or an empty one; raises OSError, sqlite3.Error. A file
    that is made here may be written by its group, whatever the umask: SQLite gives the journals its
    mode."""
    if os.path.exists(path) and os.path.getsize(path):
        return
    with suppress(FileExistsError), open(path, "xb") as file:
        os.fchmod(file.fileno(), 0o664)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(SCHEMA)


def refuse_wal(path: str) -> None:
    """Raise Problem where a table is in WAL mode and its writers would be locked out by a poll,
    which has to make the files of that mode (-wal and -shm) where they are missing. Raises
    OSError."""
    if locks_out(path) and is_in_wal_mode(path):
        raise Problem(f"it is in WAL mode, which {show_user(os.geteuid())} cannot read without "
                      "locking out its writers: run PRAGMA journal_mode = DELETE on it as "
                      f"{show_user(os.stat(path).st_uid)}")


def locks_out(path: str) -> bool:
    """Return whether files that SQLite makes here beside a table could not be written by its
    writers. SQLite gives them the table's mode, but they belong to this process's user and group.
    Raises OSError."""
    folder, status, user = os.stat(os.path.dirname(path)), os.stat(path), os.geteuid()
    if user == 0 or status.st_mode & stat.S_IWOTH:  # SQLite gives what root makes to the owner
        return False
    if status.st_uid not in (0, user):  # that user need not be in the group
        return True
    group = folder.st_gid if folder.st_mode & stat.S_ISGID else os.getegid()
    return bool(status.st_mode & stat.S_IWGRP) and group != status.st_gid


def is_in_wal_mode(path: str) -> bool:
    """Return whether SQLite would make a -wal and a -shm beside a table that it reads. Raises
    OSError."""
    if path not in HEADERS or not os.path.samestat(os.fstat(HEADERS[path].fileno()),
                                                   os.stat(path)):
        HEADERS[path] = io.FileIO(path)  # the last reference to the one before closes that
    return os.pread(HEADERS[path].fileno(), 2, 18) == b"\2\2"  # SQLite's file format, 1.3.3


def show_user(number: int) -> str:
    """Return a user by name, or by number where there is no name: "user www-data"."""
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def explain(bad: Exception, path: str) -> str:
    """Say why a table cannot be read, or made."""
    if "too big" in str(bad):
        return f"a value in it, or the query, has more than {VALUE_MAX} octets"
    if isinstance(bad, OSError) or re.search("unable to open|readonly|disk I/O", str(bad)):
        reason = explain_file(path)
        if reason:
            return "unable to open database file" + reason
    return str(bad)


def explain_file(path: str) -> str:
    """Say why this user cannot use a file, if that can be seen, and what to do; begins with a
    comma."""
    folder, user = os.path.dirname(path), show_user(os.geteuid())
    try:
        os.stat(folder)
        os.stat(path)
    except FileNotFoundError as bad:
        if bad.filename == folder:
            return f", since its folder {folder} does not exist: make it"
        if not os.access(folder, os.W_OK | os.X_OK):
            return (f", since it does not exist and {user} may not write to {folder}: make the "
                    "table yourself, or let that user write there")
        return ", since it does not exist: make it, or restart lbdns, which makes its own table"
    except PermissionError as bad:
        return f", since {user} may not enter a folder above {bad.filename}: chmod or chgrp it"
    except OSError as bad:
        return f", since {bad.filename}: {bad.strerror}"
    if not os.access(path, os.R_OK):
        return f", since {user} may not read it: chmod or chgrp it"
    if not os.path.getsize(path):
        return f", since it is empty and {user} may not make a table in it: make it yourself"
    if os.path.exists(path + "-journal"):
        return ", since its writer was stopped while it wrote: let it open the file once"
    if not os.access(folder, os.W_OK):
        return (f", maybe since it is in WAL mode and {user} may not write to {folder}: run PRAGMA "
                "journal_mode = DELETE on it")
    return ""


def read_printed(octets: bytes) -> Found:
    """Read what a command has printed: one backend a line, blank lines and comments (#) left out,
    or all of them as one JSON array; raises Problem."""
    octets = octets.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
    lines, entries, wrong = octets.split(b"\n"), list[Entry](), list[str]()
    if octets.lstrip()[:1] == b"[":
        try:
            lines = [json.dumps(each).encode() for each in json.loads(octets)[:ROWS_MAX + 1]]
        except (ValueError, RecursionError) as bad:
            raise Problem(f"no JSON array: {bad}") from None
    for number, line in enumerate(map(bytes.strip, lines), 1):
        try:
            if line and line[:1] != b"#":
                entries.append(parse_line(line.decode()))
        except (ValueError, RecursionError) as bad:  # Problem, too; not UTF-8, no JSON
            wrong.append(f"line {number}: {bad}: {line[:40]!r}")
        if len(entries) + len(wrong) > ROWS_MAX:
            raise Problem(TOO_MANY)
    return Found(entries, wrong)


def parse_line(line: str) -> Entry:
    """Return a line of a command as an entry: a JSON object, or COLUMNS separated by | or tab, else
    comma or white space (an address may hold a comma there); raises Problem, ValueError."""
    if line[0] == "{":
        entry: Entry = json.loads(line)
        return entry
    mark = r"\s+"
    if re.search(r"[|\t]", line):
        mark = r"[|\t]"
    elif re.search(r",\s|\s,|^\S*$", line):
        mark = ","
    fields = [each.strip() for each in re.split(mark, line)]
    if len(fields) > len(COLUMNS):
        raise Problem(f"more columns than {', '.join(COLUMNS)}")
    return dict(zip(COLUMNS, fields, strict=False))


def tidy(entry: Entry) -> Entry:
    """Return an entry as it is meant: names of columns and states have no case, numbers may be
    text, and what stands for NULL is left out, except for a pool. What cannot be read stays, for
    its rule to refuse it."""
    found = {}
    for name, value in entry.items():
        column = name.lower()
        value = tidy_value(column, value)
        if value is not None or column == "pool":
            found[column] = value
    return found


def tidy_value(column: str, value: Any) -> Any:
    """Return a value as it is meant; None = NULL."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        value = value.strip()
        if column in NUMBERS and re.fullmatch(NUMBER, value):
            number = float(value)
            value = int(number) if number.is_integer() else number
        elif column == "state":
            value = value.lower()
    return None if str(value).upper() in ("", "NONE", "NULL", r"\N") else value


def worse_state(one: str, other: str) -> str:
    """Return which of two states counts, of config and source: a drain in the config is meant."""
    return max(one, other, key=STATES.index)


class Dated(NamedTuple):
    """A row, and since when it is true."""
    row: Row
    at: float = math.inf        # monotonic seconds; inf = as of the last good poll


def merge_rows(one: Dated, other: Dated) -> Dated:
    """Return what two entries say about one backend, as two agents on one server write them: their
    connections are added, and the worse of all else counts, so that the order of entries does not
    matter. The older report is the age of the sum. What was opened is known only if both count it:
    the sum would otherwise jump when the other one begins to."""
    (row, at), (more, since) = one, other
    counts = [each.connections for each in (row, more) if each.connections is not None]
    opened = [each.opened for each in (row, more) if each.opened is not None]
    limits = filter(None, (row.max_connections, more.max_connections))
    merged = row._replace(
        weight=min(row.weight, more.weight), state=worse_state(row.state, more.state),
        connections=sum(counts) if counts else None,
        max_connections=min(limits, default=None),
        opened=sum(opened) if len(opened) == 2 else None)
    return Dated(merged, min(at, since))


Rows = dict[tuple[str, ...], Dated]  # by all addresses of the backend


def refuse_overlaps(found: Rows, wrong: list[str]) -> dict[str, tuple[str, ...]]:
    """Take out the backends that have an address of another, and say so in `wrong`; returns the
    backend that has each address. Rows with one address go first, so that the same ones stay in
    whatever order they came."""
    taken = dict[str, tuple[str, ...]]()
    for addresses in sorted(found, key=lambda key: (len(key), key)):
        both = [each for each in addresses if each in taken]
        if both:
            del found[addresses]
            wrong.append(f"{','.join(addresses)}: {both[0]} is in the row of "
                         f"{','.join(taken[both[0]])}, too: delete one of them")
        else:
            taken.update(dict.fromkeys(addresses, addresses))
    return taken


class Feed:
    """The last good rows of a pool, as its source has them; or as its config has them, where that
    is the source: then they never change, and there is no poll.

    A row is true since its own report, where that has a time; else since the last good poll, even
    if that has found nothing new. So `at` of such a row is inf, which `good` limits: see `dated`.
    Rows of the config, which may be joined by a source that knows their load, are true since -inf:
    as long as no entry speaks of them, they have no report.

    Where agents are the source and no check says how backends are, one without a recent report is
    down.

    rows       by all addresses of the backend
    silent     addresses of backends that are down for that -> whether they had time to report
    began      when this process did (monotonic seconds)
    is_first   whether the source has never had a row
    is_empty   whether the last poll went well but for that
    version    a number that is another one when the rows, or what is wrong with them, may be
    good       when the last good poll began, or this process; what the config says does not age
    late       when the poll that began last should long have ended; inf = none began
    trouble    why the last poll has failed; "" = it has not
    skipped    why entries of the last poll were ignored
    doubled    which backends had several entries
    times      how often the load became unknown
    unknown    that it is so now, for people; "" = it is known
    """
    def __init__(self, pool: PoolConfig, origin: str) -> None:
        self.pool = pool
        self.origin = f"{pool.source.name if pool.source else origin:.80}"  # for people
        self.silence_is_down = bool(pool.source and pool.source.reports and not pool.check)
        self.silent = dict[str, bool]()
        self.version, self.began, self.is_first, self.is_empty = 0, time.monotonic(), True, False
        self.good = self.began if pool.source else math.inf
        self.base = {row.addresses: Dated(row, -math.inf) for row in pool.backends}
        self.inline = {address: row for row in pool.backends for address in row.addresses}
        self.rows: Rows = self.base
        self.late = math.inf
        self.times = 0
        self.trouble = self.skipped = self.doubled = self.unknown = ""

    def resume(self, before: "PoolState") -> None:
        """Begin with what another monitor has read, as far as the config has it still."""
        self.rows, self.good = self.base.copy(), -math.inf if before.stale else self.good
        for row in before.rows:
            own = self.base.get(row.addresses)
            if own:
                # What is left of a source that says nothing about it any more is its state.
                row = (own.row if row.connections is None else row)._replace(
                    state=worse_state(own.row.state, row.state), down=row.down)
            if own or not self.base:
                self.rows[row.addresses] = self.resume_row(row, before.at)
        self.is_first = self.rows == self.base

    def resume_row(self, row: Row, at: float) -> Dated:
        """Return a row that another monitor had at a time (monotonic seconds). Without a check, one
        that was down stays so until its source speaks of it."""
        if self.pool.check or not row.down:
            return Dated(row, at)
        if self.silence_is_down:
            return Dated(row, at - self.pool.stale)
        return Dated(row._replace(state="down"), at)

    def apply(self, found: Found, now: float) -> None:
        """Take over what a poll that began at `now` has found for this pool. A bad entry is passed
        over, and its last good row stays."""
        self.version += 1
        try:
            self.apply_entries(found, now)
            self.trouble, self.good, self.is_first = "", now, False
        except Problem as bad:
            self.fail(str(bad), isinstance(bad, Nothing))

    def fail(self, trouble: str, is_empty: bool = False) -> None:
        """Take note of why a poll has failed."""
        self.version += trouble != self.trouble
        self.trouble, self.is_empty = trouble, is_empty

    def hear(self, rows: Rows, now: float) -> None:
        """Take over rows that agents have reported. All others stay for as long as FORGET, or for
        ever if the config has them, but those that have an address of these."""
        taken = {address for addresses in rows for address in addresses}
        kept = {addresses: dated for addresses, dated in self.rows.items()
                if (dated.at > now - FORGET or addresses in self.base)
                and taken.isdisjoint(addresses)}
        self.rows = self.base | kept | rows
        self.version, self.trouble, self.good, self.is_first = self.version + 1, "", now, False

    def apply_entries(self, found: Found, now: float) -> None:
        """Make rows of what was found; raises Problem where nothing can be taken over."""
        if self.pool.name in found.failed:
            raise Problem(found.failed[self.pool.name])
        if len(found.entries) > ROWS_MAX:
            raise Problem(TOO_MANY)
        rows, wrong, doubled = Rows(), list(found.wrong), ""
        blamed: set[tuple[str, ...] | None] = {None} if wrong else set()
        for entry in found.entries:
            try:
                dated = self.row_of(entry)
            except Problem as bad:
                wrong.append(f"{entry.get('address')!s:.40}: {bad!s:.400}")
                blamed.add(self.backend_of(entry.get("address")))
                continue
            addresses = dated.row.addresses
            if addresses in rows:
                dated = merge_rows(rows[addresses], dated)
                doubled = (f"several about one backend, such as {addresses[0]}: their connections "
                           "are added, the worst state and the smallest weight and limit count")
            rows[addresses] = dated
        taken = refuse_overlaps(rows, wrong)
        self.doubled = doubled
        self.skipped = f"{len(wrong)} ignored, such as: {wrong[0]}" if wrong else ""
        if not rows:
            if wrong:
                raise Problem("no rows that can be used")
            self.refuse_nothing(found.pools)
        # Where a bad entry does not say which backend it is about, all rows that are young enough
        # stay: a backend that was removed must not stay for ever. No address stays beside a row
        # that has it now.
        oldest = now - self.pool.stale if None in blamed else math.inf
        kept = {dated.row.addresses: dated for dated in self.dated()
                if (dated.at > oldest or dated.row.addresses in blamed)
                and taken.keys().isdisjoint(dated.row.addresses)}
        self.rows = self.base | kept | rows

    def refuse_nothing(self, others: Sequence[str]) -> NoReturn:
        """Raise Nothing, since the pool has no rows; or Problem where others have, for then its
        name may be misspelled."""
        names = [each[:wire.NAME_MAX] for each in dict.fromkeys(others[:100])]
        near = difflib.get_close_matches(self.pool.name, names, 3, 0)
        if near:
            raise Problem(f"no rows for {self.pool.name}; there are rows for "
                          f"{', '.join(near):.200}")
        raise Nothing(f"no rows for {self.pool.name}")

    def backend_of(self, address: Any) -> tuple[str, ...] | None:
        """Return the addresses of the backend that a bad entry is about; None = it does not
        say."""
        with suppress(Problem):
            addresses = backend_address(address)
            if addresses[0] in self.inline:
                return self.inline[addresses[0]].addresses
            if is_address(addresses[0]):  # else it could be a mistyped one
                return addresses
        return None

    def row_of(self, entry: Entry) -> Dated:
        """Return the row that an entry makes, by the rules of inline backends; raises Problem."""
        given = {"address": "", **entry}
        if given.pop("pool", "") is None:
            raise Problem("its pool is NULL or empty")
        reader = ConfigReader("")
        given = reader.table("", given, ENTRY)
        if reader.problems:
            raise Problem(reader.problems[0])
        addresses = given.pop("address")
        row = self.row_before(addresses)
        at = time.monotonic() - time.time() + given.pop("updated_at", math.inf)
        load = given.keys() & {"connections", "opened"}
        if not load and not self.silence_is_down:  # only these grow old
            at = math.inf
        given["state"] = worse_state(row.state, given.get("state", "up"))
        return Dated(row._replace(**given), at)

    def row_before(self, addresses: tuple[str, ...]) -> Row:
        """Return what is known of a backend before its entry is read: the config's row of it, or
        where the config has none at all, a new one. Raises Problem."""
        ours = {self.inline[each] for each in addresses if each in self.inline}
        if len(ours) > 1:
            raise Problem(f"{' and '.join(addresses)} are two of the config's backends")
        if ours:
            return ours.pop()
        if self.inline:
            raise Problem(f"{addresses[0]} is none of the config's backends")
        if addresses[0].endswith("."):
            raise Problem(f"{addresses[0]}: host names are possible only as inline backends")
        return Row(addresses)

    def dated(self) -> Iterator[Dated]:
        """Yield the rows, each at most as fresh as the last good poll, also where the clock of a
        report is ahead of ours."""
        for row, at in self.rows.values():
            yield Dated(row, min(at, self.good))

    def reported(self) -> float:
        """Return when (monotonic seconds) the newest connections were true; where none are known,
        when the last good poll began."""
        return max((at for row, at in self.dated() if row.connections is not None),
                   default=self.good)

    def is_stale(self, now: float) -> bool:
        """Return whether no connections are young enough to be believed; where none are known,
        whether the last good poll is too old."""
        return self.reported() < now - self.pool.stale

    def note_silence(self, now: float) -> None:
        """Take note of whose agents are silent."""
        oldest = now - self.pool.stale
        self.silent = {address: at > -math.inf or self.began < oldest
                       for row, at in self.dated() for address in row.addresses
                       if at < oldest and self.silence_is_down}

    def believed(self, now: float) -> list[Row]:
        """Return the rows, without connections that are too old to be true."""
        oldest = now - self.pool.stale
        return [row if at >= oldest else row._replace(connections=None, opened=None)
                for row, at in self.dated()]

    def is_restless(self) -> bool:
        """Return whether the same entries may soon mean other rows: some were ignored for now, or
        have ages of their own."""
        return bool(self.skipped) or any(-math.inf < at < math.inf for _, at in self.rows.values())

    def failure(self, now: float) -> str:
        """Say why there is nothing new from the source; "" = nothing is wrong."""
        if now > self.late:
            return "a poll hangs"
        if not self.trouble or self.is_waiting(now):
            return ""
        if not self.is_first:
            return f"{self.trouble}; the last good rows stay"
        return self.trouble + ("; the config's backends stay" if self.base else "")

    def is_waiting(self, now: float) -> bool:
        """Return whether nothing is wrong, but that nobody has written a row since the start. After
        `stale` seconds that is wrong, too."""
        return self.is_empty and self.is_first and now <= self.began + self.pool.stale

    def show_wait(self) -> str:
        """Say for what the pool waits, and how to give it that."""
        name, source = self.pool.name, self.pool.source
        if source and source.reports:
            return ("waits for the first report; on each backend: python3 lbdns.py agent "
                    f"{name} PORT --to THIS_HOST --key FILE")
        if source and source.command:
            return f"waits for the first row that {self.origin} prints, such as: 192.0.2.1"
        if source and source.query:
            return f"waits for the first row that its query finds in {self.origin}"
        return (f"waits for its first row in {self.origin}, such as: INSERT INTO backends (pool, "
                f"address) VALUES ('{name}', '192.0.2.1')")

    def troubles(self, now: float) -> Iterator[tuple[str, str, str]]:
        """Take note of whether the load is known; yield what may be wrong, for the log: code,
        subject, and a text about that, "" = all is well."""
        load, stale = "", self.is_stale(now)
        self.times += stale and not self.unknown
        times = wire.plural(self.times, "time")
        self.unknown = f"load unknown ({times} so far)" if stale else ""
        if stale:
            says = f"reports are over {self.pool.stale:g} s old"
            load = f"{'no report since the start' if self.is_first else says}, {self.unknown}"
        yield "poll", self.origin, self.failure(now)
        yield "rows-ignored", f"rows of {self.origin}", self.skipped
        yield "rows-merged", f"backends of {self.origin}", self.doubled
        yield "load-unknown", "load", load
        if not stale:  # else they go on to be silent, and the line before is about all
            yield "load-unknown", "reports", self.show_silent(now - self.pool.stale)

    def show_silent(self, oldest: float) -> str:
        """Return which backends have reported before a time and not since, for the log: their load
        is unknown, though not that of others. What drains may be silent, and what is down for
        that has a line of its own."""
        silent = [row.addresses[0] for row, at in self.dated()
                  if -math.inf < at < oldest and row.state == "up" and not self.silence_is_down]
        if not silent:
            return ""
        return (f"over {self.pool.stale:g} s old, load unknown: "
                f"{wire.plural(len(silent), 'backend')}, such as {silent[0]}")


class Poll:
    """Reads a source again and again, for all pools that have it.

    Most polls find what the last one has found. Then rows need not be made of it again, which is
    most of a poll's cost; they only become as fresh as the poll.

    count      polls that have ended, well or not
    makes      whether a missing table is made: not when it has been there before
    last       what it has found, of a command the octets; None = the next one is looked at in any
               case
    has_failed whether the last one has failed for all pools
    """
    def __init__(self, source: Source, feeds: Sequence[Feed], makes: bool,
                 runner: "Runner", counters: "Counters | None" = None) -> None:
        self.source, self.makes, self.runner = source, makes, runner
        self.counters = counters or Counters()
        self.feeds = {feed.pool.name: feed for feed in feeds}
        self.count, self.has_failed = 0, False
        self.last: Found | bytes | None = None

    async def run(self) -> NoReturn:
        """Poll every `every` seconds, counted from start to start."""
        while True:
            begun, trouble = time.monotonic(), ""
            for feed in self.feeds.values():
                feed.late = begun + self.source.every + 2 * self.source.timeout
            try:
                await self.poll_once(begun)
            except Problem as bad:
                trouble = str(bad)
            except Exception as bug:  # a poll must never end the polling
                trouble = f"internal error, please report: {bug!r}"
            self.has_failed = bool(trouble)
            if trouble:
                self.last = None  # a good poll ends the trouble, also if it finds the same
                for feed in self.feeds.values():
                    feed.fail(trouble)
            for feed in self.feeds.values():
                self.counters.add("polls", 1, feed.pool.name)
                self.counters.add("failed polls", bool(feed.trouble), feed.pool.name)
            self.count += 1
            await self.rest(begun + self.source.every - time.monotonic())

    async def rest(self, seconds: float) -> None:
        """Wait until the next poll is due."""
        await asyncio.sleep(max(0.05, seconds))

    async def poll_once(self, now: float) -> None:
        """Read the source, and deal its rows out to the pools; raises Problem."""
        raw: Found | bytes
        if self.source.command:
            code, raw, errors = await self.runner.run(self.source.command, self.source.timeout)
            if code:
                raise Problem(show_end(code, errors))
        else:
            # What failed the last time may hang: no more than half of the threads are for such.
            async with self.runner.doubtful if self.has_failed else contextlib.nullcontext():
                raw = await self.runner.call(read_sqlite, self.source, [*self.feeds], self.makes)
            self.makes = False
        if raw == self.last:
            for feed in self.feeds.values():
                if not feed.trouble:
                    feed.good = now
            return
        self.last = raw
        found = read_printed(raw) if isinstance(raw, bytes) else raw
        dealt, others = self.deal(found)
        for name, feed in self.feeds.items():
            feed.apply(found._replace(entries=dealt[name], pools=others), now)
            if feed.is_restless():
                self.last = None
            await asyncio.sleep(0)  # other tasks have their turn, such as the one that beats

    def deal(self, found: Found) -> tuple[dict[str, list[Entry]], list[str]]:
        """Return the entries of each pool, and the names of other pools that were found. An entry
        that names no pool is for all of them."""
        dealt: dict[str, list[Entry]] = {name: [] for name in self.feeds}
        others = list(found.pools)
        for entry in map(tidy, found.entries):
            pool = entry.get("pool")
            names = list(self.feeds) if pool is None else [plain_pool(pool)]
            for name in names:
                if name in dealt:
                    dealt[name].append(entry)
                else:
                    others.append(str(pool))
        return dealt, others


# ---- 11. Other people's commands, and what would block ------------------------------------------
# Sources and checks may be any program. It may hang, print without end, ignore signals, or leave
# processes behind; nothing that stays in its process group lasts longer than its time, or than this
# process. Functions that block, as those of SQLite do, have threads, so that the loop goes on.
COMMANDS_MAX = 4096       # commands that run at the same time, of sources and checks
OUTPUT_MAX = 1 << 20      # octets that a command may print, to each of stdout and stderr
POLL_THREADS = 64         # tables that are read at the same time
MORE_TASKS = "raise TasksMax of the unit, or ulimit -u, if that is why"


class Runner:
    """Runs programs of the operator, each in a process group of its own, and functions that block.

    What a program leaves behind in its group is killed when it ends, and all of it when it takes
    too long or prints too much. Groups that run stand in memory that the supervisor shares (0 = a
    free place), so that it can kill them when this process has been killed.
    """
    def __init__(self, groups: "memoryview[int]") -> None:
        self.groups = groups
        self.slots = asyncio.Semaphore(len(groups))
        self.doubtful = asyncio.Semaphore(POLL_THREADS // 2)  # for polls that may hang
        self.changed: set[asyncio.Event] = set()  # of each program: something is to be looked at
        self.threads = concurrent.futures.ThreadPoolExecutor(POLL_THREADS)

    def on_end(self) -> None:
        """Have each program looked at: one of them has ended."""
        for changed in self.changed:
            changed.set()

    async def call(self, function: Callable[..., Found], *words: Any) -> Found:
        """Return what a function that may block returns, or raise what it raises; Problem where
        there is no thread to be had."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, function, *words)
        except RuntimeError as bad:
            # The one that failed has kept the call, and would keep one at each attempt.
            self.threads = concurrent.futures.ThreadPoolExecutor(POLL_THREADS)
            raise Problem(f"{bad}; {MORE_TASKS}") from None

    async def run(self, command: Sequence[str], seconds: float) -> tuple[int, bytes, bytes]:
        """Run a program to its end; returns its exit code (-N: signal N ended it), stdout and
        stderr. Raises Problem."""
        async with self.slots:
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, bufsize=0, start_new_session=True)
            except (OSError, ValueError) as bad:  # ValueError: a NUL in a word
                reason = getattr(bad, "strerror", None) or bad
                raise Problem(f"cannot be run: {reason}") from bad
            place = self.groups.tolist().index(0)
            self.groups[place] = process.pid
            try:
                return await self.follow(process, seconds)
            finally:
                self.groups[place] = 0

    async def follow(self, process: subprocess.Popen[bytes],
                     seconds: float) -> tuple[int, bytes, bytes]:
        """Gather what a program prints until it has ended, though others may hold its pipes; then
        kill what is left of it, and wait for that, so that no zombie stays. Raises Problem.

        SIGCHLD does not say which program has ended, and asyncio's own watchers start a thread for
        each: so each program is asked whenever one has ended, and when there is output of its own.
        """
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        self.changed.add(changed)
        loop.add_signal_handler(signal.SIGCHLD, self.on_end)
        printed = {pipe: bytearray() for pipe in (process.stdout, process.stderr) if pipe}
        try:
            for pipe in printed:
                os.set_blocking(pipe.fileno(), False)
                loop.add_reader(pipe, changed.set)
            async with asyncio.timeout(seconds):
                while True:
                    ended = process.poll() is not None  # after that nothing more of it can come
                    closed = [pipe for pipe, octets in printed.items() if read_pipe(pipe, octets)]
                    if ended:
                        break
                    for pipe in closed:
                        loop.remove_reader(pipe)
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise Problem(f"timed out after {seconds:g} s") from None
        finally:
            for pipe in printed:
                loop.remove_reader(pipe)
                pipe.close()
            kill_group(process.pid)
            while process.poll() is None:
                await changed.wait()
                changed.clear()
            self.changed.discard(changed)
        output, errors = map(bytes, printed.values())
        return process.returncode, output, errors


def read_pipe(pipe: IO[bytes], octets: bytearray) -> bool:
    """Add to `octets` what is in a pipe that does not block; returns whether nobody can print to
    the pipe any more. Raises Problem."""
    with suppress(BlockingIOError):
        while len(octets) <= OUTPUT_MAX:
            piece = os.read(pipe.fileno(), 1 << 16)
            if not piece:
                return True
            octets += piece
        raise Problem(f"printed more than {OUTPUT_MAX} octets")
    return False


def show_end(code: int, printed: bytes) -> str:
    """Say how a program ended, with the first line that it has printed."""
    line = printed.decode("utf-8", "replace").strip().partition("\n")[0]
    end = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{end}: {line:.{CHECK_TEXT}}" if line else end


def kill_groups(groups: "memoryview[int]") -> None:
    """End what stands in the memory of a Runner."""
    for place, group in enumerate(groups):
        if group:
            kill_group(group)
            groups[place] = 0


def kill_group(group: int) -> None:
    """End all processes of a group, whatever they do about it."""
    with suppress(OSError):  # there are none, or they became another user's
        os.killpg(group, signal.SIGKILL)


# ---- 12. Health checks: what is up ---------------------------------------------------------------
# A Target is an address with the way to probe it; several pools may share one. The Prober begins
# each probe when it is due: `rise` good ones in a row make a target up, `fall` bad ones down. What
# is wrong with this host, such as too few descriptors, says nothing of a target.
CHECK_TICK = 0.05         # seconds between two looks at which probes are due
CHECK_SPREAD = 0.002      # seconds between the first probes of two targets,
CHECK_FIRST = 1.0         # and at most from the first of them to the last
CHECK_TIMEOUT = 2.0       # seconds that a probe may take, unless the config says otherwise
CHECK_READ = 65536        # octets of an HTTP reply that are looked at
CHECK_CHUNKS = 1000       # chunks of its body that are looked at, and records of TLS
CHECK_INTERIM = 16        # replies 1xx after which no other is waited for
CHECK_PIECES = 32         # pieces of a reply that are read as soon as they come
CHECK_PAUSE = 0.05        # seconds before each further piece: a reply that drips must cost little
CHECK_RESERVE = 64        # file descriptors of the monitor for everything but probes
CHECK_COMMANDS = 192      # probes by command at the same time; the unit allows 512 tasks
CHECK_TEXT = 120          # characters shown of a command's output, or of what is no HTTP reply
# Errors that say something of this host and nothing of the backend.
LOCAL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.ENETUNREACH,
         errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES}


def show_probe(probe: Probe, address: str) -> str:
    """Return a probe as people know it: "tcp://192.0.2.1:443", or its command's name."""
    if probe.command:
        return os.path.basename(probe.command[0])
    return f"{probe.kind}://{show_endpoint(address, probe.port)}{probe.path}"


class Target:
    """What is probed, for all pools and workers: an address, in some way.

    key        by which the next monitor knows it
    health     up, down, or unknown: it could never be probed; "" = it has not been yet
    count      results in a row that contradict the health
    reason     of the last change of health
    anchor     a start from which its intervals count
    trouble    why the last probe could not be made
    wanted     whether it is still to be probed
    """
    def __init__(self, address: str, probe: Probe) -> None:
        self.address, self.probe = address, probe
        self.key = json.dumps([address, probe])
        self.health, self.count, self.reason, self.trouble = "", 0, "", ""
        self.anchor = 0.0
        self.wanted = True

    def record(self, result: str | None) -> bool:
        """Count a result: "" = good, None = unknown, else what is wrong; returns whether health or
        count are not as they were. The first result decides at once."""
        before, count = self.health, self.count
        if result is None:
            self.health = before or "unknown"
        else:
            health, enough = ("down", self.probe.fall) if result else ("up", self.probe.rise)
            self.count = 0 if health == before else self.count + 1
            if self.count >= enough or before in ("", "unknown"):
                self.count, self.reason, self.health = 0, result or "good", health
        return (self.health, self.count) != (before, count)


# Where parts of an HTTP reply end. The first octet tells most other protocols from HTTP: such a
# server may say no more until it is spoken to. A chunk is looked at from the line's end before it.
STATUS_END = re.compile(rb"\n|\A[^Hh]")
HEAD_END = re.compile(rb"(?:\A|\n)\r?\n")
CHUNK_END = re.compile(rb"[^\r\n]\r?\n")
STATUS = re.compile(rb"(?i)HTTP/(?:1\.[01]|2) +([1-9][0-9][0-9])(?!\S).*\n")
CHUNK = re.compile(rb"(?i)\r?\n([0-9a-f]{1,15})[ \t]*(?:;.*)?\r?\n")
CHUNKED = re.compile(rb"(?im)^transfer-encoding:(?:.*,)?[ \t]*chunked[ \t]*\r?$")
LENGTH = re.compile(rb"(?im)^content-length:[ \t]*([0-9]{1,15})\b")


def show_refusal(bad: OSError) -> str:
    """Say what an error tells of a backend."""
    if isinstance(bad, ssl.SSLError):  # an OSError with numbers of its own
        why = (bad.reason or "closed").lower().replace("_", " ")
        return f"TLS: {getattr(bad, 'verify_message', '') or why}".rstrip(".")
    return os.strerror(bad.errno).lower() if bad.errno else str(bad) or "closed"


def show_host(probe: Probe) -> str:
    """Return what a request says for Host: with the port, if it is unusual (RFC 9110 7.2)."""
    return probe.host if probe.port == URL_PORTS[probe.kind] else f"{probe.host}:{probe.port}"


class Exchange:
    """An HTTP request, and as much of the reply (RFC 9112) as it takes to judge it.

    Replies are understood as curl does. Not by http.client, which blocks until all has come, would
    have to begin anew with each piece, and takes the first 103 for the reply. Nor by asyncio's
    transports: they decrypt what drips as fast as it comes, and cost twice the CPU time (1,550 us a
    probe, against 810).

    data       octets that came and were not looked at yet
    left       octets that may still come
    before     the last octets of the body so far: the text that is looked for may begin there
    pieces     times that something was received, decrypted or sent: a bound on the work
    """
    def __init__(self, probe: Probe, sock: socket.socket) -> None:
        self.probe, self.sock = probe, sock
        self.data, self.left, self.before, self.pieces = bytearray(), CHECK_READ, bytearray(), 0
        self.received, self.to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.read, self.write = self.received.read, self.to_send.write
        if probe.kind == "https":
            tls = tls_context(probe.verify).wrap_bio(self.received, self.to_send,
                                                     server_hostname=probe.host)
            self.read, self.write = tls.read, tls.write

    async def run(self) -> str:
        """Send the request and judge the reply; returns what is wrong, "" = it is good. Raises
        OSError."""
        probe = self.probe
        request = (f"GET {probe.path} HTTP/1.1\r\nHost: {show_host(probe)}\r\nUser-Agent: "
                   f"lbdns/{VERSION}\r\nAccept: */*\r\nConnection: close\r\n\r\n").encode()
        await self.exchange(self.write, request)  # which begins with the handshake of TLS
        for _ in range(CHECK_INTERIM):
            line = await self.until(STATUS_END)
            match = STATUS.fullmatch(line)
            if match is None:
                begin = (line + self.data)[:CHECK_TEXT].decode("latin-1")
                return f"no HTTP reply: {begin!a}" if begin else "closed without a reply"
            head = await self.until(HEAD_END)
            if not head and not self.left:
                return f"a head of more than {CHECK_READ >> 10} KiB"
            status = int(match[1])
            # After any other of 1xx the reply is still to come (RFC 9110 15.2).
            if status >= 200 or status == 101 or status in probe.status:
                if status not in (probe.status or range(200, 400)):
                    return f"status {status}"
                return await self.look_for_text(status, head)
        return "too many 1xx replies"

    async def look_for_text(self, status: int, head: bytes) -> str:
        """Judge the body by the text that it has to hold: it is good at the first place where that
        stands, though more were to come. Raises OSError."""
        text, chunks = self.probe.body.encode(), 0
        if not text:
            return ""
        async for size in self.body_parts(status, head):
            chunks += 1
            if await self.holds(text, size):
                return ""
        where = f" in its first {CHECK_CHUNKS:,} chunks" if chunks >= CHECK_CHUNKS else ""
        if not self.left:
            where = f" in its first {CHECK_READ >> 10} KiB"
        return f'body lacks "{self.probe.body}"{where}'

    async def body_parts(self, status: int, head: bytes) -> AsyncIterator[int]:
        """Yield the size of each part of the body, in octets, when it is the next to be read: of a
        chunk, or of all of it (RFC 9112 6.3). Raises OSError."""
        head = re.sub(rb"\r?\n[ \t]+", b" ", head)  # a folded line: RFC 9112 5.2
        length = LENGTH.search(head)
        if not head or status in (204, 304):
            return  # there is no body
        if not CHUNKED.search(head):
            yield int(length[1]) if length else CHECK_READ
            return
        self.data[:0] = b"\n"  # as before every other chunk
        for _ in range(CHECK_CHUNKS):
            line = await self.until(CHUNK_END)
            if not line:
                return
            match = CHUNK.fullmatch(line)
            if match is None:
                raise ConnectionError("malformed chunk")
            size = int(match[1], 16)
            if size == 0:
                return
            yield size

    async def holds(self, text: bytes, size: int) -> bool:
        """Return whether a text ends in the next `size` octets of the body. Raises OSError."""
        while size and (self.data or await self.fill()):
            piece = self.data[:size]
            del self.data[:size]
            size -= len(piece)
            self.before += piece
            if text in self.before:
                return True
            del self.before[:-len(text)]
        return False

    async def until(self, end: re.Pattern[bytes]) -> bytes:
        """Take what comes up to such an end, looking at each octet once; b"" = the reply's own end
        came first. Raises OSError."""
        looked = 0
        while True:
            match = end.search(self.data, looked)
            if match:
                taken = bytes(self.data[:match.end()])
                del self.data[:match.end()]
                return taken
            looked = max(0, len(self.data) - 3)  # a pattern may have begun
            if not await self.fill():
                return b""

    async def fill(self) -> bool:
        """Wait for more of the reply; returns whether there is more to look at. Raises OSError."""
        if not self.left or self.pieces > CHECK_CHUNKS:
            return False
        try:
            piece = await self.exchange(self.read, self.left)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return False
        self.left -= len(piece)
        self.data += piece
        return bool(piece)

    async def exchange(self, action: Callable[[Any], Any], word: Any) -> Any:
        """Call `read` or `write`, and again after each piece that had to be received first; returns
        what that returns. Raises OSError."""
        loop = asyncio.get_running_loop()
        while True:
            self.pieces += 1
            with suppress(ssl.SSLWantReadError):
                result = action(word)
                if result or self.received.eof:
                    return result
            if self.to_send.pending:
                await loop.sock_sendall(self.sock, self.to_send.read())
            if self.pieces > CHECK_PIECES:
                await asyncio.sleep(CHECK_PAUSE)
            piece = await loop.sock_recv(self.sock, CHECK_READ)
            self.received.write(piece)
            if not piece:
                self.received.write_eof()


@functools.cache
def tls_context(verify: bool) -> Any:
    """Return what probes of https need of TLS: certificates of the system, or of SSL_CERT_FILE."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


Memory = tuple[str, int, str, float]  # of a target: health, count, reason, anchor


class Prober:
    """Probes all targets, each at its time.

    memory     of an earlier monitor: what it knew of targets, by key
    targets    by address and probe
    due        a heap: when a target is probed next (monotonic seconds), its id, itself
    changes    how often the health of any of them has changed
    """
    def __init__(self, memory: dict[str, Memory], runner: Runner,
                 counters: "Counters | None" = None) -> None:
        self.memory, self.runner, self.counters = memory, runner, counters or Counters()
        self.targets: dict[tuple[str, Probe], Target] = {}
        self.due: list[tuple[float, int, Target]] = []
        self.changes = 0
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.slots = asyncio.Semaphore(max(1, soft - CHECK_RESERVE))
        self.commands = asyncio.Semaphore(CHECK_COMMANDS)

    def set_targets(self, keys: Iterable[tuple[str, Probe]], now: float) -> None:
        """Probe these from now on, and no others. First starts are CHECK_SPREAD apart; the second
        comes after a share of the interval that grows from target to target, so that later ones are
        spread over all of it."""
        wanted = dict.fromkeys(keys)
        for key in self.targets.keys() - wanted.keys():
            self.targets.pop(key).wanted = False
        fresh = [Target(*key) for key in wanted if key not in self.targets]
        for at, target in enumerate(fresh):
            interval = target.probe.interval
            first = now + at * min(CHECK_SPREAD, CHECK_FIRST / len(fresh))
            target.anchor = first + interval * (at + 1) / len(fresh)
            memory = self.memory.pop(target.key, None)
            if memory:
                target.health, target.count, target.reason, target.anchor = memory
                first = now + (target.anchor - now) % interval
            self.targets[target.address, target.probe] = target
            heapq.heappush(self.due, (first, id(target), target))

    def remember(self) -> dict[str, Memory]:
        """Return what the next monitor may have to know. What was not probed yet is probed at once
        by that one, too."""
        return {each.key: (each.health, each.count, each.reason, each.anchor)
                for each in self.targets.values() if each.health}

    def trouble(self) -> str:
        """Say what keeps probes from being made."""
        found = [each for each in self.targets.values() if each.trouble]
        if not found:
            return ""
        return (f"{len(found)} of {len(self.targets)} cannot be made, such as "
                f"{show_probe(found[0].probe, found[0].address)}: {found[0].trouble}")

    async def run(self) -> NoReturn:
        """Begin what is due until the next look; together, since that costs half the CPU time of
        beginning each at its own moment."""
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        async with asyncio.TaskGroup() as tasks:  # should one fail by a mistake of ours, all end
            while True:
                while self.due and self.due[0][0] < time.monotonic() + CHECK_TICK:
                    due, _, target = heapq.heappop(self.due)
                    tasks.create_task(self.follow(target, due))
                await asyncio.sleep(CHECK_TICK)

    async def follow(self, target: Target, due: float) -> None:
        """Probe a target until the time for its next probe is still to come."""
        interval = target.probe.interval
        while target.wanted:
            async with self.slots:
                result = await self.probe(target)
            self.changes += target.record(result)
            self.counters.add("failed checks", bool(result), target.address)
            if due + CHECK_TICK < target.anchor:  # this was the target's first probe
                due = target.anchor
            else:  # one that takes all of the interval is followed by the next at once
                due += max(interval, (time.monotonic() - due) // interval * interval)
            if due > time.monotonic():
                heapq.heappush(self.due, (due, id(target), target))
                return

    async def probe(self, target: Target) -> str | None:
        """Make one attempt; returns what is wrong, "" = nothing, None = it could not be made."""
        trouble, timeout = "", target.probe.timeout
        try:
            if target.probe.command:
                return await self.run_command(target)
            async with asyncio.timeout(timeout):
                return await self.connect(target)
        except TimeoutError:
            return f"timed out after {timeout:g} s"
        except OSError as bad:
            if isinstance(bad, ssl.SSLError) or bad.errno not in LOCAL:
                return show_refusal(bad)
            trouble = os.strerror(bad.errno)
        except Problem as bad:
            trouble = str(bad)
        except Exception as bug:  # a probe must never end the probing
            trouble = f"internal error, please report: {bug!r}"
        finally:
            target.trouble = trouble
        return None

    async def run_command(self, target: Target) -> str:
        """Probe by a command; returns what is wrong. Raises Problem where it cannot be run."""
        words = [word.replace("{address}", target.address) for word in target.probe.command]
        try:
            async with self.commands:
                code, out, err = await self.runner.run(words, target.probe.timeout)
        except Problem as bad:
            if isinstance(bad.__cause__, OSError):  # it says nothing of the backend
                raise
            return str(bad)
        return show_end(code, out.strip() or err) if code else ""

    async def connect(self, target: Target) -> str:
        """Probe over the network; returns what is wrong. Raises OSError, Problem."""
        probe, address, loop = target.probe, target.address, asyncio.get_running_loop()
        # Not by streams: 415 to 505 us of CPU time a probe, against 215 to 260.
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            sock.setblocking(False)
            code = sock.connect_ex((address, probe.port))
            if code in LOCAL:  # what comes later, such as from a router, is about the backend
                raise Problem(os.strerror(code))
            try:
                await loop.sock_connect(sock, (address, probe.port))
            except OSError as bad:
                raise ConnectionError(os.strerror(bad.errno or 0).lower()) from None
            return await Exchange(probe, sock).run() if probe.path else ""


# ---- 13. Reports of agents: signed datagrams, which nobody answers ------------------------------
# A report is a datagram: hex(HMAC-SHA-256(key, REPORT_CONTEXT + body)) SP body, the body being one
# JSON object with the columns of an entry, `pool`, `agent` (a name of its sender that no other
# has), and `updated_at` by the sender's clock. An entry without address is about the address that
# the datagram came from.
#
# Reports are the third reader of a source, beside tables and commands: what arrives is gathered,
# and once a second, or twice where a state changes, it is a poll. A report that is refused
# changes nothing; each kind of refusal is counted, and logged once in LOG_REPEAT.
REPORT_MAX = 1200         # octets of a datagram: it fits into one packet on every road
REPORT_CONTEXT = b"lbdns report 1\0"  # what is signed with a key is a report, and nothing else
SEAL = 65                 # octets before the body: a signature in hexadecimal digits, and a space
KEY_OCTETS = 16           # of a key, at least: 128 bits
CLOCK_MAX = 300.0         # seconds by which the clock of an agent may differ from ours
AGENT = "agent "          # before the name of one in `PoolReports.times`
FIRST_ROUND = 1.5         # seconds in which each agent that runs has reported once
FORGET = 3600.0           # seconds of silence after which a backend is forgotten
EARS_PAUSE = 0.01         # seconds for which datagrams are left to gather: each wake costs 30 us
EARS_TURN = 1000          # datagrams read before other tasks have their turn


def sign_report(key: bytes, body: bytes) -> bytes:
    """Return what stands before the body of a report that is signed with a key."""
    return hmac.digest(key, REPORT_CONTEXT + body, "sha256").hex().encode() + b" "


def seal_report(key: bytes, entry: "Entry") -> bytes:
    """Return the datagram that reports an entry; raise Problem where it would be too long."""
    body = json.dumps(entry, separators=(",", ":")).encode()
    octets = sign_report(key, body) + body
    if len(octets) > REPORT_MAX:
        raise Problem(f"a report of {len(octets)} octets, of which {REPORT_MAX} may be sent")
    return octets


def open_report(keys: Iterable[bytes], octets: bytes) -> "Entry":
    """Return the entry of a report that is signed with one of the keys; raise Problem. Before the
    signature is found good, nothing but the length of a datagram matters."""
    if len(octets) > REPORT_MAX:
        raise Problem("too long")
    seal, body = octets[:SEAL], octets[SEAL:]
    if not any(hmac.compare_digest(seal, sign_report(key, body)) for key in keys):
        raise Problem("signed with none of our keys")
    try:
        entry = json.loads(body)
    except (ValueError, RecursionError) as bad:
        raise Problem(f"no JSON: {bad}") from None
    if not isinstance(entry, dict):
        raise Problem("no JSON object")
    return entry


def read_report_keys(path: pathlib.Path) -> tuple[bytes, ...]:
    """Return the keys of reports that a file has, one a line: the first signs, all are believed.
    Raise Problem where a stranger may use the file, or it has no good keys."""
    remedy = (f"make one by (umask 077; openssl rand -hex 32 > {path}), the same for all name "
              "servers and backends")
    if not path.exists():
        raise Problem(f"No such file; {remedy}")
    if not path.is_file():  # a pipe could be read for ever
        raise Problem("is no file")
    if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise Problem(f"everybody on this host may read or write it: chmod 640 {path}")
    keys = re.findall(r"^\s*([^#\s].*?)\s*$", read_text(path), re.MULTILINE)
    form = f"([0-9a-fA-F]{{2}}){{{KEY_OCTETS},}}"
    if not keys or not all(re.fullmatch(form, key) for key in keys):
        raise Problem(f"must have a key on each line, of at least {2 * KEY_OCTETS} hexadecimal "
                      f"digits; {remedy}")
    return tuple(map(bytes.fromhex, keys))


class Heard(NamedTuple):
    """What is known of the last report about a backend."""
    at: float                   # monotonic seconds: when it arrived
    state: str
    agent: str                  # that sent it
    other: str                  # that sent those before its first one; "" = no other did
    since: float                # monotonic seconds: when `agent` last became another


class PoolReports:
    """What agents report about one pool.

    times      of each backend and of each agent `updated_at` of the last report (unix time by its
               sender's clock): that of the next must be greater, or somebody replays
    heard      by all addresses of the backend
    owners     of each address the backend that has it
    fresh      rows that the feed has not got yet
    """
    def __init__(self, feed: Feed, log: "Log") -> None:
        self.feed, self.log = feed, log
        self.times: dict[str, float] = {}
        self.heard: dict[tuple[str, ...], Heard] = {}
        self.owners: dict[str, tuple[str, ...]] = {}
        self.fresh: Rows = {}

    def resume(self, times: Mapping[str, float]) -> None:
        """Begin with the times that another monitor knew, so that nobody can replay reports."""
        now, self.times = time.monotonic(), dict(times)
        for key in times:
            if not key.startswith(AGENT):
                self.know(tuple(key.split(",")), Heard(now, "up", "", "", now))

    def know(self, backend: tuple[str, ...], heard: Heard) -> None:
        """Take note of what was heard about a backend."""
        self.heard[backend] = heard
        self.owners.update(dict.fromkeys(backend, backend))

    def is_new(self, backend: tuple[str, ...], agent: str, at: float) -> bool:
        """Return whether a report is the newest about its backend, and of its agent, and take note
        of its time; False = it came before, by another address of this server. Raise Problem where
        it is older, or comes again from elsewhere: the sender's address is not signed."""
        keys = [",".join(backend)]
        if agent:
            keys.append(AGENT + agent)
        last = [self.times.get(key, 0.0) for key in keys]
        if at == min(last) == max(last):
            return False
        if at <= max(last):
            raise Problem(f"not newer than the last one: {backend[0]}; replayed, or two agents "
                          "report it, or one from two addresses, which needs --address")
        if len(self.times) > 4 * ROWS_MAX:
            raise Problem("of one agent too many")
        self.times.update(dict.fromkeys(keys, at))
        return True

    def accept(self, row: Row, agent: str, now: float) -> bool:
        """Take note of a row that an agent reports; return whether its state is another one. Raise
        Problem as `meet` does."""
        backend = row.addresses
        last = self.heard.get(backend) or self.meet(backend, agent, now)
        self.fresh[backend] = Dated(row, now)
        new = last._replace(at=now, state=row.state)
        if agent != last.agent:
            new = new._replace(agent=agent, other=last.agent, since=now)
            if agent == last.other and now - last.since < CLOCK_MAX:
                self.log.trouble("two-agents", f"pool {self.feed.pool.name}: agents",
                                 f"two report one backend by turns: {backend[0]}, {agent} and "
                                 f"{last.agent}; the newest counts; give each its own --address")
        self.know(backend, new)
        return row.state != last.state

    def meet(self, backend: tuple[str, ...], agent: str, now: float) -> Heard:
        """Return what is known of a backend that nobody has reported yet. Raise Problem where there
        are too many, or another one reports an address of it; one that is silent has to give
        way."""
        for other in {self.owners[each] for each in backend if each in self.owners}:
            if self.heard[other].at > now - self.feed.pool.stale:
                raise Problem("with an address that another backend reports: "
                              f"{','.join(backend)} beside {','.join(other)}")
            self.forget(other)
        if len(self.heard) >= ROWS_MAX:
            raise Problem(f"about one backend too many: {TOO_MANY} of {self.feed.pool.name}")
        return Heard(now, "", agent, "", now)

    def forget(self, backend: tuple[str, ...]) -> None:
        """Forget what was heard about a backend."""
        del self.heard[backend]
        for each in backend:
            del self.owners[each]

    def hand_over(self, now: float, is_first: bool) -> None:
        """Give the feed what is new, and forget what is old; `is_first`: nobody has before."""
        rows, self.fresh = self.fresh, {}
        if rows:
            self.feed.hear(rows, now)
        elif is_first and not self.heard:
            self.feed.fail("no agent has reported yet", True)
        for backend in [each for each, last in self.heard.items() if last.at < now - FORGET]:
            self.forget(backend)
        oldest = time.time() - 2 * CLOCK_MAX  # what is older is refused in any case
        self.times = {key: at for key, at in self.times.items() if at > oldest}


class Reports(Poll):
    """Hears agents, for all pools whose source they are, until `is_deaf` says that another monitor
    is to hear. What is `urgent` does not wait for the next poll."""
    def __init__(self, source: Source, feeds: Sequence[Feed], runner: "Runner",
                 keys: Sequence[bytes], ears: Sequence[socket.socket], log: "Log",
                 is_deaf: Callable[[], bool] = lambda: False) -> None:
        super().__init__(source, feeds, False, runner, log.counters)
        self.keys, self.ears, self.log, self.is_deaf = keys, ears, log, is_deaf
        self.pools = {name: PoolReports(feed, log) for name, feed in self.feeds.items()}
        self.urgent = asyncio.Event()

    def remember(self) -> dict[str, dict[str, float]]:
        """Return what the next monitor has to know: see `PoolReports.resume`."""
        return {name: pool.times for name, pool in self.pools.items()}

    async def run(self) -> NoReturn:
        """Hear what comes, and make rows of it."""
        for sock in self.ears:
            asyncio.get_running_loop().add_reader(sock, self.on_readable, sock)
        await super().run()

    def on_readable(self, sock: socket.socket) -> None:
        """Take what has come in at a socket. After a pause, the loop looks at it again."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        loop.call_later(EARS_PAUSE, loop.add_reader, sock, self.on_readable, sock)
        if self.is_deaf():
            return
        now = time.monotonic()
        with suppress(OSError):  # BlockingIOError: that was all
            for _ in range(EARS_TURN):
                octets, (sender, *_) = sock.recvfrom(REPORT_MAX + 1)
                try:
                    self.take(octets, plain_address(sender), now)
                    self.counters.add("reports")
                except Exception as bad:  # nothing that is sent may end the hearing
                    self.counters.add("refused reports")
                    says = str(bad) if isinstance(bad, Problem) else f"not understood: {bad!r:.80}"
                    kind, _, detail = says.partition(": ")
                    says = f"the last one came from: {plain_address(sender)} {detail}".rstrip()
                    self.log.trouble("report-refused", f"reports refused, {kind}", says, "warning")

    def take(self, octets: bytes, sender: str, now: float) -> None:
        """Take note of a report that arrives now; raise Problem, whose text up to the first colon
        is one of few, where it is refused."""
        entry = tidy(open_report(self.keys, octets))
        name, agent = plain_pool(entry.get("pool")), str(entry.pop("agent", ""))[:wire.NAME_MAX]
        unknown = entry.keys() - ENTRY.keys() - {"pool"}
        if name not in self.pools:
            raise Problem(f"about no pool that listens to agents: {name:.80}")
        if unknown:  # to suggest known ones takes a millisecond
            raise Problem(f"with unknown columns: {min(unknown):.40}")
        if "updated_at" not in entry or not (agent or "address" in entry):
            raise Problem("without updated_at, or without agent and address")
        try:
            row, _ = self.feeds[name].row_of({"address": sender, **entry})
        except Problem as bad:
            raise Problem(f"against the rules of rows: {bad}") from None
        off = entry["updated_at"] - time.time()
        if abs(off) > CLOCK_MAX:
            raise Problem(f"of a clock that is wrong: by {off:+.0f} s; set it by NTP")
        pool = self.pools[name]
        if pool.is_new(row.addresses, agent, entry["updated_at"]) and pool.accept(row, agent, now):
            self.urgent.set()

    async def poll_once(self, now: float) -> None:
        """Hand what was heard to the feeds; the first time, after a round of reports."""
        if not self.count and not self.is_deaf():
            await self.first_round(now + FIRST_ROUND)
        for pool in self.pools.values():
            pool.hand_over(time.monotonic(), not self.count)
            await asyncio.sleep(0)  # other tasks have their turn, such as the one that beats

    async def first_round(self, limit: float) -> None:
        """Wait until all backends have been heard that are known from the start, of each pool some,
        or until a time (monotonic seconds)."""
        known = {pool: {*pool.heard, *pool.feed.base} for pool in self.pools.values()}
        while time.monotonic() < limit and not all(
                backends and backends <= pool.heard.keys() for pool, backends in known.items()):
            await asyncio.sleep(PUBLISH)

    async def rest(self, seconds: float) -> None:
        """Wait until the next poll is due, or is urgent; at least for half of that time, since each
        change of a state is logged."""
        await asyncio.sleep(seconds / 2)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.urgent.wait(), max(0.0, seconds / 2))
        self.urgent.clear()


# ---- 14. What changed: the snapshot for workers, log lines for people ----------------------------
# A Watch joins the rows of a pool with the health of its targets. Ten times a second the Monitor
# asks whether there may be anything new; then each Watch looks at its pool, and where lines have
# changed, a Snapshot of all pools is published in the memory that workers read.
PUBLISH = 0.1             # seconds between two looks at what there is to publish
DRAIN_MARGIN = 1.0        # seconds in which the last worker has learned of a drain
LOG_BURST = 20            # changes of one look that are logged one by one
CHANGES_MAX = 20          # changes of backends, of all pools, that the status page shows
CHANGE = ("pool", "address", "old", "new", "why")  # what it shows of one, and when that was


class Snapshot(NamedTuple):
    """What the monitor publishes, as text that is cut at the ends of lines."""
    status: str = ""            # for people: systemctl status shows it
    # What the next monitor has to know, as JSON: health of targets, states of addresses by pool,
    # names of sources, times of reports by pool, the last changes of backends, and rates.
    memory: str = ('{"targets": {}, "pools": {}, "polled": [], "heard": {}, "changes": [], '
                   '"rates": []}')
    pools: Sequence[str] = ()   # a line for each pool: see `pack_pool`

    def pack(self) -> bytes:
        """Return all of it as octets."""
        return "\n".join((self.status, self.memory, *self.pools)).encode()

    @classmethod
    def unpack(cls, octets: bytes) -> "Snapshot":
        """Return what `pack` has packed."""
        status, memory, *pools = octets.decode().split("\n")
        return cls(status, memory, pools)


def check_snapshot(octets: bytes) -> None:
    """Raise LookupError, ValueError or TypeError for what is no snapshot, or that of a version with
    other rows."""
    snapshot = Snapshot.unpack(octets)
    if json.loads(snapshot.memory).keys() != json.loads(Snapshot().memory).keys():
        raise ValueError("it has other keys")
    for pool in map(unpack_pool, snapshot.pools):
        collections.deque(pool.rows, 0)


class PoolState(NamedTuple):
    """What a snapshot says of a pool."""
    name: str
    stale: bool                 # whether all reports are too old to be believed
    at: float                   # monotonic seconds: when the newest connections were true
    rows: Iterator[Row]


def pack_rows(rows: Sequence[Row]) -> str:
    """Return rows in pieces of JSON with tabs between, so that thousands need not be read at
    once."""
    return "".join(f"\t{json.dumps(rows[start:start + SLICE])}"
                   for start in range(0, len(rows), SLICE))


def pack_pool(name: str, stale: bool, at: float, rows: str) -> str:
    """Return the line of a pool, with rows that are packed already."""
    return json.dumps([name, stale, at]) + rows


def unpack_pool(line: str) -> PoolState:
    """Return what the line of a pool says."""
    head, *pieces = line.split("\t")
    name, stale, at = json.loads(head)
    rows = (Row(tuple(addresses), *rest) for piece in pieces
            for addresses, *rest in json.loads(piece))
    return PoolState(name, stale, at, rows)


def is_watched(pool: PoolConfig) -> bool:
    """Return whether there is anything about a pool that changes, or that is to be shown."""
    return bool(pool.source or pool.check or any(row.state == "drain" for row in pool.backends))


def show_change(old: str, new: str) -> str:
    """Return a change of a backend's state for people; one that was absent is a newcomer."""
    return f"new, {new}" if old == "absent" else f"{old} -> {new}"


def show_time(at: float) -> str:
    """Return monotonic seconds as a date."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + at - time.monotonic()))


class Past(NamedTuple):
    """What is known of an address of a pool."""
    state: str                  # absent | up | drain | down
    checked: bool               # whether its check made it so: down, or up again
    since: float                # monotonic seconds
    gone: float = 0.0           # when the last resolver forgets one that drains; 0 = it has


class Watch:
    """A pool as the monitor sees it: the rows of its feed, and what the probes say of them. It
    makes the pool's line of the snapshot, its status, and log lines.

    twin       finds out which backends are answered, by the rules of the workers
    seen       what decided when the pool was looked at last
    status     what people are shown of it
    is_new     whether nothing was ever known of the pool, so that its backends are no news
    met        when the first of them was there (monotonic seconds); inf = none is yet
    has_waited whether it was logged that there is none
    known      Past by address
    rows       packed, as the line holds them
    draining   whether one of them drains, which time alone changes
    kept       seconds for which resolvers keep an answer
    overlap    until when (monotonic) processes of an earlier config may answer
    changes    the last ones of backends of all pools, the newest last: CHANGE, and `at` (unix time)
    """
    def __init__(self, pool: PoolConfig, origin: str, prober: Prober, log: "Log",
                 changes: collections.deque[dict[str, Any]]) -> None:
        self.pool, self.prober, self.log, self.title = pool, prober, log, f"pool {pool.name}"
        self.feed = Feed(pool, origin)
        self.twin = Pool(pool._replace(policy="failover"), 1, log, random.random)
        self.seen: tuple[Any, ...] = ()
        self.status = self.line = self.rows = ""
        self.is_new, self.met, self.has_waited = True, math.inf, False
        self.known, self.changes = dict[str, Past](), changes
        self.draining, self.kept, self.overlap = False, pool.ttl, 0.0

    def list_targets(self) -> list[tuple[str, Probe]]:
        """Return the keys of what is to be probed now."""
        check = self.pool.check
        if not check:
            return []
        return [(address, check) for addresses in self.feed.rows for address in addresses]

    def health(self, address: str) -> str:
        """Return what is known of an address: up, down, or unknown; "" = nothing yet."""
        if address in self.feed.silent:
            return "down" if self.feed.silent[address] else ""
        if not self.pool.check:
            return "unknown"
        return self.prober.targets[address, self.pool.check].health

    def healths(self) -> list[str]:
        """Return what is known of all targets."""
        return [self.prober.targets[key].health for key in self.list_targets()]

    def refresh(self, now: float) -> tuple[Any, ...]:
        """Look at the pool, and log what is new; returns what is another value when there may be
        something to publish.

        What goes wrong, drains, or has ages of its own may be new each second. Where connections
        matter, each poll makes the pool's line another one, though it may have found the same:
        workers have to know that reports are new.
        """
        feed, failure = self.feed, self.feed.failure(now)
        restless = (self.draining or failure or feed.doubled or feed.unknown
                    or self.is_new or feed.is_restless())
        stale = feed.is_stale(now)
        seen = feed.version, stale, failure, self.healths(), int(now) if restless else 0
        if seen != self.seen:
            self.seen = seen
            self.log_changes(now)
        at = max(0.0, feed.reported()) if self.pool.source else 0.0
        if not self.twin.counting and not POLICIES.get(self.pool.policy, Custom).uses_load:
            at -= at % (self.pool.stale / 4)  # exact enough for the next monitor
        self.line = pack_pool(self.pool.name, stale, at, self.rows)
        return seen, self.line

    def log_changes(self, now: float) -> None:
        """Pack the rows, make the status, and log each thing that is not as it was."""
        troubles = list(self.feed.troubles(now))
        self.feed.note_silence(now)
        rows = [row._replace(down=[address for address in row.addresses
                                   if self.health(address) in ("", "down")])
                for row in self.feed.believed(now)]
        self.rows = pack_rows(rows)
        at_once(self.twin.apply_rows(rows, bool(self.feed.unknown), now))
        answered = {each.addresses[-1 if rtype == wire.AAAA else 0]
                    for rtype, policy in self.twin.current.items() for each in policy.backends}
        begins = self.is_new and self.is_beginning(len(rows), now)
        if not begins:  # else it is no wonder that no backend is up
            troubles += self.unusual_answers()
        for code, subject, trouble in troubles:
            self.log.trouble(code, f"{self.title}: {subject}", trouble)
        self.log_states(rows, answered, now, begins)
        draining = [row for row in rows if row.state == "drain"]
        self.draining = bool(draining)
        self.status = (f"{self.pool.name} {sum(map(Backend.up, self.twin.backends))}/{len(rows)} up"
                       + self.show_drain(draining, answered))
        if self.feed.unknown:
            self.status += f", {self.feed.unknown}"

    def unusual_answers(self) -> Iterator[tuple[str, str, str]]:
        """Yield what may be unusual about the answers of the pool as a whole, for the log: code,
        subject, and a text about that, "" = nothing is."""
        current = self.twin.current
        full = {each for policy in current.values()
                if isinstance(policy, LowestRatio) for each in policy.backends}
        count = wire.plural(len(full), "backend")
        yield "limits", "limits", f"all are at max_connections: {count}" if full else ""
        for rtype in (wire.A, wire.AAAA, wire.CNAME):
            unusual = current[rtype].unusual if rtype in current else ""
            yield "last-resort", f"{wire.show_type(rtype)} answers", unusual

    def show_drain(self, rows: list[Row], answered: set[str]) -> str:
        """Return what the status says of rows that drain."""
        if not rows:
            return ""
        addresses = [each for row in rows for each in row.addresses]
        since = min(self.known[each].since for each in addresses)
        text = f", {len(rows)} draining since {show_time(since)}"
        if not answered.isdisjoint(addresses):
            return text + ", still answered"
        gone = max(self.known[each].gone for each in addresses)
        return text + (f", forgotten at {show_time(gone)}" if gone else ", forgotten")

    def log_states(self, rows: list[Row], answered: set[str], now: float, begins: bool) -> None:
        """Log one line for each address that came, went or changed its state. When nothing was ever
        known of the pool, its backends are no news but in number, unless one of them is not up."""
        is_new, known = self.is_new, self.known
        states = dict.fromkeys(known, "absent") | {
            address: row.state for row in rows for address in row.addresses}
        if is_new and rows and not begins:
            self.introduce(len(rows))
        self.known, changes = {}, list[dict[str, Any]]()
        for address, state in states.items():
            old = known.get(address, Past("absent", False, now))
            new = self.compare(old, address, state, address in answered, now)
            if new.state != "absent":
                self.known[address] = new
            change = self.explain(address, old, new, now)
            if change and not (is_new and (old.state, new.state) == ("absent", "up")):
                changes.append(change)
        for change in changes[:LOG_BURST]:
            self.log.change("backend", **change)
        if len(changes) > LOG_BURST:
            more = wire.plural(len(changes) - LOG_BURST, "more change")
            self.log.change("backend", f"{self.title}: and {more}")
        at = time.time()
        self.changes.extend({"at": at, **{key: change[key] for key in CHANGE}}
                            for change in changes)

    def is_beginning(self, count: int, now: float) -> bool:
        """Return whether the pool waits for its first row, or its `count` first backends are still
        to be probed, or to have their turn to report. What it waits for is logged once."""
        if self.feed.is_waiting(now):
            if not self.has_waited:
                self.log.change("pool-rows", f"{self.title}: {self.feed.show_wait()}")
            self.has_waited = True
            return True
        if count:
            self.met = min(self.met, now)
        source, unprobed = self.pool.source, "" in self.healths()
        return (unprobed and now < self.met + FIRST_LIMIT
                or bool(source and source.reports) and now < self.met + FIRST_ROUND)

    def introduce(self, count: int) -> None:
        """Log how many backends the pool has, and how many are up; from now on they are news."""
        self.is_new = False
        is_read = self.pool.source and not self.pool.backends
        up = sum(map(Backend.up, self.twin.backends))
        self.log.change("pool-rows", f"{self.title}: {wire.plural(count, 'backend')}, {up} up"
                                     + (f", read from {self.feed.origin}" if is_read else ""))

    def judge(self, old: Past, address: str, state: str) -> tuple[str, bool]:
        """Return the state of an address by source and check together, and whether its check made
        it so. One that drains may fail its check: nobody is sent there anyway."""
        health = self.health(address) if state == "up" else "unknown"
        if not health:  # a newcomer: it is logged when it has been probed
            return old.state, old.checked
        if health == "down":
            return "down", True
        return state, health == "up" and old.checked

    def compare(self, old: Past, address: str, state: str, answered: bool, now: float) -> Past:
        """Return what there is to know of an address now, whose source says `state`.

        When it begins to drain, and as long as it is answered nevertheless, its last resolver is
        expected to forget it when the TTL of an answer given now has passed.
        """
        state, checked = self.judge(old, address, state)
        since, gone = (old.since, old.gone) if state == old.state else (now, 0.0)
        if state == "drain" and (state != old.state or answered):
            gone = max(now + DRAIN_MARGIN, self.overlap) + self.kept
        return Past(state, checked, since, gone if gone > now else 0.0)

    def explain(self, address: str, old: Past, new: Past, now: float) -> dict[str, Any]:
        """Return what to log of a change, as a text and its parts: what CHANGE names, and for how
        many seconds it was otherwise; {} = nothing has changed, and no drain is over."""
        if new.state == old.state and (new.gone or not old.gone):
            return {}
        state, why = new.state, self.reason(address, new)
        seconds, text = now - old.since, f"{show_change(old.state, state)}, {why}"
        if state == old.state:
            state, why = "drained", "no resolver that keeps the TTL hands it out any more"
            text = f"drained: {why}; draining for {seconds:.0f} s"
        elif old.state != "absent":
            text += f"; was {old.state} for {seconds:.0f} s"
        if new.gone:
            text += f"; resolvers that keep the TTL have forgotten it at {show_time(new.gone)}"
        change = {"text": f"{self.title}: backend {address}: {text}", "pool": self.pool.name,
                  "address": address, "old": old.state, "new": state, "why": why}
        return change if old.state == "absent" else {**change, "seconds": round(seconds, 1)}

    def reason(self, address: str, past: Past) -> str:
        """Say what has decided on the state of an address: its check, its agent's silence, or the
        source."""
        if not past.checked:
            return f"says {self.feed.origin}"
        if not self.pool.check:
            return f"no good report of its agent for over {self.pool.stale:g} s"
        target = self.prober.targets[address, self.pool.check]
        return f"check {show_probe(target.probe, address)}: {target.reason}"


class Shared(NamedTuple):
    """What the supervisor shares with a monitor."""
    ears: Sequence[socket.socket] = ()   # where agents report
    doors: Sequence[socket.socket] = ()  # where HTTP is served
    counters: "Sequence[Counters]" = ()  # of all processes that ever ran, the supervisor's first
    notice: "bytes | mmap.mmap" = b""    # why the last reload was refused


class Monitor:
    """The program of the monitor: polls, probes, and what is published of them.

    `before` is the config of the processes that answered so far. What an earlier monitor knew is in
    the snapshot that is there: neither a reload nor a crash forgets reports or health.
    """
    def __init__(self, config: Config, before: Config, child: "Child", log: "Log",
                 shared: "Shared | None" = None) -> None:
        shared = shared or Shared()
        self.config, self.before, self.child, self.log = config, before, child, log
        self.ears = shared.ears
        self.http = HttpServer(shared.doors, log, self.respond, config.nsid)
        # By path, what answers a request with its parameters.
        self.routes: dict[str, Callable[[dict[str, str]], Page]] = {
            "/": self.show_view, "/healthz": self.show_health, "/status.json": self.show_status,
            "/explain.json": self.show_explained, "/metrics": self.show_metrics}
        snapshot = Snapshot.unpack(child.generation.read())
        self.memory: dict[str, Any] = json.loads(snapshot.memory)
        self.states = {each.name: each for each in map(unpack_pool, snapshot.pools)}
        self.runner = Runner(child.generation.commands)
        self.prober = Prober(self.memory["targets"], self.runner, log.counters)
        self.changes = collections.deque(self.memory["changes"], CHANGES_MAX)
        self.looks: list[tuple[Any, ...]] | None = None  # what each watch saw at the last look
        self.published = Snapshot()
        names = {pool.name for pool in config.pools.values()}
        # What an earlier monitor published is shown until this one has something.
        self.first = snapshot._replace(pools=[
            line for line in snapshot.pools if unpack_pool(line).name in names])
        self.watches = self.make_watches()
        self.reports: Reports | None = None
        self.must_hear = False   # whether there is a pool of which no backend is known otherwise
        self.polls = self.make_polls()
        self.overview = Overview(self, shared)

    def make_watches(self) -> list[Watch]:
        """Return what is watched, as far as it is known already."""
        watches = []
        for owner, pool in self.config.pools.items():
            if not is_watched(pool):
                continue
            watch = Watch(pool, self.config.file, self.prober, self.log, self.changes)
            watches.append(watch)
            if pool.name in self.states:
                past = self.memory["pools"][pool.name]
                watch.is_new = not past
                watch.known = {address: Past(*each) for address, each in past.items()}
                if pool.source:
                    watch.feed.resume(self.states[pool.name])
            watch.kept = max(pool.ttl, self.before.pools.get(owner, pool).ttl)
            if self.before is not self.config:  # its processes may answer TCP clients for a while
                watch.overlap = self.child.beat() + RETIRE_LIMIT
        return watches

    def make_polls(self) -> list[Poll]:
        """Return one poll for each distinct source; all agents are one. A query that names `:pool`
        finds other rows for each pool, so each has a poll of its own. A table that an earlier
        monitor has polled is not made if it is missing: somebody has taken it away, and will put
        another in its place."""
        sources: dict[tuple[Source, str], list[Feed]] = {}
        for watch in self.watches:
            source = watch.pool.source
            if source is not None:
                own = watch.pool.name if ":pool" in (source.query or "") else ""
                sources.setdefault((source, own), []).append(watch.feed)
        polls = list[Poll]()
        for (source, _), feeds in sources.items():
            if source.reports:
                self.reports = Reports(source, feeds, self.runner, self.config.reports_key,
                                       self.ears, self.log, self.is_deaf)
                for name, pool in self.reports.pools.items():
                    pool.resume(self.memory["heard"].get(name, {}))
                    self.must_hear = self.must_hear or not pool.heard
                polls.append(self.reports)
            else:
                is_new = source.name not in self.memory["polled"]
                polls.append(Poll(source, feeds, is_new, self.runner, self.log.counters))
        return polls

    def is_deaf(self) -> bool:
        """Return whether another generation is to hear agents: the next one, or that before as long
        as it serves. They have one socket, and what one has heard the other does not know."""
        shared = self.child.generation.shared
        return shared[DEAF] > 0 or not (shared[SERVING] or self.must_hear)

    async def stop_hearing(self, now: float) -> None:
        """Publish all that was heard, for the next generation, and say that this is done."""
        if self.reports:
            await self.reports.poll_once(now)
        self.publish_changes(now)
        self.child.generation.shared[DEAF] = 2

    async def run(self) -> None:
        """Do all of it at the same time until it is to end; raises what one of the tasks raises, so
        that another monitor begins anew."""
        tasks = [asyncio.ensure_future(each) for each in (
            self.publish(), self.prober.run(), self.overview.run(), self.serve_status(),
            *(poll.run() for poll in self.polls))]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        for task in tasks:
            task.cancel()
        # Over a reload, those who ask are answered; a stop does not wait for them.
        await self.http.finish(HTTP_TIME if self.child.order() == RETIRE else 0.0)
        await asyncio.gather(*tasks, return_exceptions=True)
        # While a loop closes, signals would be written to what it has closed already.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    async def serve_status(self) -> None:
        """Take requests, at a reload not before it is done: what serves until then answers."""
        while self.before is not self.config and not self.child.generation.shared[SERVING]:
            await asyncio.sleep(PUBLISH)
        await self.http.run()

    def respond(self, path: str, parameters: dict[str, str]) -> "Page":
        """Return the page of a path."""
        if path not in self.routes:
            return Page(404, f"there is no such page, but {', '.join(self.routes)}\n")
        return self.routes[path](parameters)

    def show_view(self, parameters: dict[str, str]) -> "Page":
        """Return all that operators see, as a page."""
        return Page(200, show_status_page(self.overview.view()), "text/html",
                    {"Content-Security-Policy": PAGE_CSP})

    def show_status(self, parameters: dict[str, str]) -> "Page":
        """Return all that operators see, as JSON."""
        return Page(200, json.dumps(self.overview.view()), "application/json")

    def show_metrics(self, parameters: dict[str, str]) -> "Page":
        """Return all that is a number, as Prometheus reads it."""
        return Page(200, show_metrics(self.overview.view()),
                    "text/plain; version=0.0.4")

    def show_explained(self, parameters: dict[str, str]) -> "Page":
        """Return what would be answered, and why, with all backends of the pool."""
        words = {"name": "", "type": "A", "client": "", **parameters}
        view = self.overview.view()
        try:
            found = explain_answer(self.overview.state, words["name"], words["type"],
                                   words["client"])
        except Problem as bad:
            return Page(400, f"{bad}\n")
        rows = [{**row, "next": find_chance(found["next"], row["address"])}
                for row in (view["pools"][found["pool"]]["rows"] if found["pool"] else [])]
        found |= {"lbdns": VERSION, "format": view["format"], "rows": rows}
        return Page(200, json.dumps(found), "application/json")

    def show_health(self, parameters: dict[str, str]) -> "Page":
        """Return whether all workers can answer: have a snapshot, and show signs of life. After an
        order to end, this is asked of the wrong monitor, and others answer."""
        generation = self.child.generation
        if not generation.informed():
            return Page(503, "no first snapshot yet\n")
        limit = (time.monotonic() - HEARTBEAT / 2) * 1000  # by HEARTBEAT they are killed
        silent = [str(slot - 1) for slot in generation.slots
                  if slot >= FIRST_WORKER and generation.shared[slot] < limit]
        if silent and not self.child.order():
            return Page(503, f"no sign of life of worker {', '.join(silent)}\n")
        return Page(200, "ok\n")

    async def publish(self) -> None:
        """Publish a snapshot when the first round of polls and probes is complete, at the latest
        after FIRST_LIMIT, then every change, until this process is to end."""
        limit, before = self.child.beat() + FIRST_LIMIT, tuple[float, ...]()
        while not self.child.order():
            now = self.child.beat()
            polled = sum(poll.count for poll in self.polls)
            moment = int(now), now > limit, self.prober.changes, polled
            if moment != before:
                before = moment
                self.prober.set_targets(
                    (key for watch in self.watches for key in watch.list_targets()), now)
                if now > limit or self.is_ready():
                    limit = 0.0
                    self.publish_changes(now)
            if self.child.generation.shared[DEAF] == 1:
                await self.stop_hearing(now)
            self.log.flush()
            await asyncio.sleep(PUBLISH)

    def is_ready(self) -> bool:
        """Return whether the first polls and the first probes are done."""
        healths = (watch.healths() for watch in self.watches)
        return all(poll.count for poll in self.polls) and all(map(all, healths))

    def publish_changes(self, now: float) -> None:
        """Look at all pools, and publish a snapshot where it is not the last one. To compare what
        the watches saw is much cheaper than to pack what there is to remember."""
        looks: list[tuple[Any, ...]] = [(self.prober.changes,)]
        for watch in self.watches:
            looks.append(watch.refresh(now))
            self.child.beat()  # thousands of rows take a while
        self.log.trouble("checks", "health checks", self.prober.trouble())
        if looks == self.looks:
            return
        memory = {"targets": self.prober.remember(),
                  "heard": self.reports.remember() if self.reports else {},
                  "pools": {watch.pool.name: watch.known for watch in self.watches},
                  "polled": [poll.source.name for poll in self.polls],
                  "changes": [*self.changes], "rates": [*self.overview.rates]}
        snapshot = Snapshot("; ".join(watch.status for watch in self.watches), json.dumps(memory),
                            [watch.line for watch in self.watches])
        if snapshot != self.published:
            self.child.generation.publish(snapshot.pack())
        self.looks, self.published = looks, snapshot


def import_for_monitor() -> None:
    """Import what only the monitor uses: 4 MiB that no other process is to pay for, unless root is
    given up, after which `user` may have no right to read Python's files."""
    global asyncio, concurrent, ssl
    import asyncio
    import concurrent.futures.thread
    import encodings.idna  # noqa: F401  (what ssl loads when it is given a host's name)
    import ssl


def monitor(config: Config, before: Config, child: "Child", log: "Log",
            shared: Shared) -> None:
    """Be the monitor of a config until the supervisor ends it."""
    with suppress(OSError):  # a sandbox forbids it
        os.nice(5)  # where processors are short, answers come first
    import_for_monitor()
    try:
        os.chdir(pathlib.Path(config.file).parent)  # paths in commands are relative to it
    except OSError as bad:
        log.error("folder", f"commands cannot run in the config's folder: {bad.strerror}")

    asyncio.run(Monitor(config, before, child, log, shared).run())


# ---- 15. HTTP: page, metrics, status -------------------------------------------------------------
# All of it prints one dict: what the monitor knows, and what all processes count. Nothing else is
# kept but samples of the counts, for rates.
SAMPLE = 10.0             # seconds between two samples
SAMPLES = 60              # of queries a second that are shown: ten minutes
VIEW_REST = 5             # times what a view took until the next is made: 20 % of a core
SHARE_SAMPLES = 6         # over which shares of answers are counted: a minute
TICKS = os.sysconf("SC_CLK_TCK")  # of a second, in which /proc counts CPU time
# Codes of troubles that are not reported again while they last.
LASTING = {"poll", "rows-ignored", "rows-merged", "load-unknown", "limits", "last-resort", "checks",
           "load-frozen"}


class Overview:
    """What operators see.

    state      what a worker has: a snapshot, and policies that pick for nobody
    zones      by `counted_name`, that of none included
    counted    how often each backend of it was answered up to now, by its number
    samples    monotonic seconds, and all counts then, oldest first
    rates      Unix seconds, and the queries a second in the SAMPLE that began then
    """
    def __init__(self, monitor: "Monitor", shared: "Shared") -> None:
        self.monitor, self.notice = monitor, shared.notice
        self.shared = shared.counters or (Counters(),)
        config = monitor.config._replace(workers=1)  # all of ours are one to the policies
        self.log = Log()         # of the state: nobody prints its lines, `troubles` reads it
        self.state = State(config, b"", self.log, random.random, {
            owner: Unseen for owner, pool in config.pools.items() if pool.policy not in POLICIES})
        self.counted: dict[int, int] = {}
        self.kept: Table = {}    # the last view,
        self.kept_until = 0.0    # and until when (monotonic seconds) it is new enough
        self.zones = {0: ""} | {name_zone(zone): wire.show_name(apex)
                                for apex, zone in config.zones.items()}
        self.rates = collections.deque(monitor.memory["rates"], SAMPLES)
        self.samples = collections.deque([(time.monotonic(), self.totals())], SHARE_SAMPLES + 1)

    def totals(self) -> "Totals":
        """Return the sums of what all processes count."""
        return sum_counters(self.shared)

    async def run(self) -> NoReturn:
        """Take samples."""
        while True:
            await asyncio.sleep(SAMPLE)
            at, totals = time.monotonic(), self.totals()
            self.refresh(totals)
            self.rates.append([round(time.time() - SAMPLE), self.rate(at, totals)])
            self.samples.append((at, totals))

    def rate(self, now: float, totals: "Totals") -> float:
        """Return the queries a second since the last sample, or where that is new, since the one
        before."""
        at, before = next((each for each in reversed(self.samples) if each[0] < now - SAMPLE / 2),
                          self.samples[0])
        return round((count_replies(totals) - count_replies(before)) / max(1.0, now - at), 1)

    def refresh(self, totals: "Totals") -> None:
        """Take over the newest snapshot, and what was answered up to now."""
        now, monitor = time.monotonic(), self.monitor
        at_once(self.state.apply_snapshot(
            monitor.first if monitor.looks is None else monitor.published, now))
        before, self.counted = self.counted, {}
        for pool in self.state.pools.values():
            for backend in pool.backends:
                count = totals[ANSWERS, backend.number]
                backend.answers += count - before.get(backend.number, count)
                self.counted[backend.number] = count
            if any(backend.answers >= backend.full_at for backend in pool.backends):
                pool.replan()
        self.log.lines.clear()

    def view(self) -> "Table":
        """Return all of it, as README.md, "Operate", has it as a page. Where making it takes
        long, it is kept for a while, so that those who ask leave time for polls and checks."""
        begun = time.monotonic()
        if begun > self.kept_until:
            self.kept = self.make_view()
            took = time.monotonic() - begun
            self.kept_until = begun + VIEW_REST * took
        return self.kept

    def make_view(self) -> "Table":
        """Return a new view."""
        totals, now, config = self.totals(), time.monotonic(), self.monitor.config
        self.refresh(totals)
        error = bytes(self.notice).rstrip(b"\0").decode("utf-8", "replace")
        main, restarted = COUNTED_KEYS, ("workers", "monitors")
        watches = {each.pool.name: each for each in self.monitor.watches}
        troubles = self.troubles()
        children = self.monitor.child.generation.counters
        workers = [each for slot, each in children.items() if slot >= FIRST_WORKER]
        return {
            "lbdns": VERSION, "format": 1, "host": config.nsid or socket.gethostname(),
            "now": time.time(), "started": self.shared[0].get("since"),
            "config": {"file": config.file, "hash": config.hash, "loaded": config.loaded,
                       "error": error or None, "reloads": totals[main["reloads"], 0],
                       "reloads_failed": totals[main["refused reloads"], 0]},
            "workers": [{"pid": each.get("pid"), "since": each.get("since"), "answers":
                         each.count_replies() - each.get("replies before")}
                        for each in workers],
            "processes": list(self.processes()),
            "dns": {"rate": self.rate(now, totals), "rates": [*self.rates],
                    **self.view_counts(totals)},
            "restarts": {each[:-1]: totals[main[f"restarted {each}"], 0] for each in restarted},
            "lost_lines": totals[main["lost lines"], 0],
            "reports": {"taken": totals[main["reports"], 0],
                        "refused": totals[main["refused reports"], 0]},
            "changes": [*self.monitor.changes][::-1],
            "trouble": troubles[""],
            "pools": {name: {**self.view_pool(pool, watches.get(name), totals, now),
                             "trouble": troubles[name]}
                      for name, pool in self.state.names.items()}}

    def processes(self) -> "Iterator[Table]":
        """Yield what /proc says of our processes, which some sandboxes hide."""
        generation = self.monitor.child.generation
        found = {"supervisor": os.getppid()}
        found |= {slot_name(slot): each.get("pid") for slot, each in generation.counters.items()}
        if sys.platform != "linux":
            return
        # The unit hides /proc/uptime, which says the same.
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        for role, pid in found.items():
            with suppress(OSError):  # it has ended, or cannot be seen
                text = pathlib.Path(f"/proc/{pid}/stat").read_text()
                fields = text.rpartition(")")[2].split()  # the first is the third of proc(5)
                yield {"role": role, "pid": pid,
                       "started": round(booted + int(fields[19]) / TICKS, 2),
                       "cpu": (int(fields[11]) + int(fields[12])) / TICKS,
                       "memory": int(fields[21]) * mmap.PAGESIZE}

    def view_counts(self, totals: "Totals") -> "Table":
        """Return what is counted of all packets, by what they are."""
        requests, responses, rcodes, truncated = (collections.Counter[Any]() for _ in range(4))
        for (key, way), count in totals.items():
            if key >= REPLIES and count:
                rtype, rcode, cut = (*COUNTED[(key >> 48) - 1], "NOERROR", False)[:3]
                requests[(*WAYS[way], rtype)] += count
                if key % 2**48 in self.zones:  # else a reload has removed the zone, and the series
                    responses[rcode, self.zones[key % 2**48]] += count
                rcodes[rcode] += count
                truncated[cut] += count
        return {"rcodes": rcodes, "truncated": truncated[True],
                "dropped": {each: totals[COUNTED_KEYS[each], 0] for each in DROPS},
                "requests": [[*labels, count] for labels, count in sorted(requests.items())],
                "responses": [[*labels, count] for labels, count in sorted(responses.items())],
                "tcp": {"open": totals[COUNTED_KEYS["tcp open"], 0],
                        "total": totals[COUNTED_KEYS["tcp"], 0]}}

    def troubles(self) -> "Mapping[str, list[Table]]":
        """Return the troubles there are, by the name of the pool; "" = of none. Of those whose end
        nobody reports, it leaves out what was not seen for two LOG_REPEAT."""
        limit = time.monotonic() - 2 * LOG_REPEAT
        found: dict[str, list[Table]] = collections.defaultdict(list)
        for subject, each in (*self.monitor.log.troubles.items(), *self.log.troubles.items()):
            if each.printed > limit or each.code in LASTING:
                first, _, rest = subject.partition(": ")
                name = first.removeprefix("pool ") if subject.startswith("pool ") else ""
                found[name].append({"code": each.code,
                                    "text": f"{rest if name else subject}: {each.text}"})
        return found

    def view_pool(self, pool: Pool, watch: "Watch | None", totals: "Totals",
                  now: float) -> "Table":
        """Return what is known of a pool, but its troubles."""
        config, policies = pool.config, pool.current.values()
        host, port = self.monitor.config.listen[0]
        host = {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(host, host)
        rows = self.view_rows(pool, watch, totals, now)
        ages = [each["age"] for each in rows if each["age"] is not None]
        return {
            "policy": config.policy, "ttl": config.ttl, "answers": config.answers,
            "anticache": config.anticache, "dig": f"dig @{host} -p {port} {config.name}",
            "source": watch and self.view_source(watch.feed, totals, now),
            "check": show_probe(config.check, "") if config.check else None,
            "backends": len(rows), "up": sum(each["state"] == "up" for each in rows),
            "last_resort": any(each.unusual.startswith(LAST_RESORT) for each in policies),
            "load_unknown": pool.stale,
            "full": any(isinstance(each, LowestRatio) for each in policies),
            "load_age": max(ages, default=None), "rows": rows}

    def view_source(self, feed: Feed, totals: "Totals", now: float) -> "Table | None":
        """Return what is known of a pool's source, if it has one."""
        source, name = feed.pool.source, counted_name(feed.pool.name)
        if source is None:
            return None
        polls, failures = (totals[COUNTED_KEYS[kind] + name, 0]
                           for kind in ("polls", "failed polls"))
        age = round(now - feed.good, 3) if polls > failures else None
        kind = "reports" if source.reports else "command" if source.command else "sqlite"
        return {"kind": kind, "name": source.name, "age": age, "polls": polls,
                "error": feed.failure(now) or None, "failures": failures,
                "last_success": None if age is None else time.time() - age}

    def view_rows(self, pool: Pool, watch: "Watch | None", totals: "Totals",
                  now: float) -> "list[Table]":
        """Return what is known of the backends of a pool."""
        dated = watch.feed.dated() if watch else []
        reports = {row.addresses: round(now - at, 3) for row, at in dated
                   if row.connections is not None and abs(at) < math.inf}
        rows = [self.view_row(pool, watch, each, totals) for each in pool.backends]
        recent = [row["answers"] - self.samples[0][1][ANSWERS, each.number]
                  for row, each in zip(rows, pool.backends, strict=True)]
        likely, total = next_answers(pool), sum(recent)
        for row, answers in zip(rows, recent, strict=True):
            row["age"] = reports.get(row["address"])
            row["share"] = round(answers / total, 4) if total else None
            row["next"] = find_chance(likely, row["address"])
        return rows

    def view_row(self, pool: Pool, watch: "Watch | None", backend: Backend,
                 totals: "Totals") -> "Table":
        """Return what is known of a backend, but what follows from the others."""
        failed = [counted_name(address) for address in backend.addresses if pool.config.check]
        return {"address": backend.addresses, **self.view_state(pool, watch, backend),
                "connections": backend.connections, "max": backend.max_connections,
                "weight": backend.weight, "answers": totals[ANSWERS, backend.number],
                "check_failures": sum(totals[COUNTED_KEYS["failed checks"] + name, 0]
                                      for name in failed)}

    def view_state(self, pool: Pool, watch: "Watch | None", backend: Backend) -> "Table":
        """Return the state of a backend, why, since when, and when resolvers have forgotten it, in
        Unix seconds. One that is up by an address only says what is wrong with the other."""
        unknown = {"since": None, "forgotten_at": None}
        if watch is None:
            return {"state": backend.state, "why": f"says {self.monitor.config.file}", **unknown}
        pasts = {each: watch.known[each] for each in backend.addresses if each in watch.known}
        if not pasts:
            why = "not probed yet" if pool.config.check else "no report of its agent yet"
            return {"state": "down", "why": why, **unknown}
        best = min(pasts, key=lambda each: STATES.index(pasts[each].state))
        past, why = pasts[best], watch.reason(best, pasts[best])
        for each, other in pasts.items():
            if other.state != past.state:
                why += f"; {each} is {other.state}: {watch.reason(each, other)}"
        gone = max(each.gone for each in pasts.values())
        return {"state": past.state, "since": unix_time(past.since), "why": why,
                "forgotten_at": unix_time(gone) if gone else None}


def unix_time(at: float) -> float:
    """Return monotonic seconds as Unix seconds."""
    return round(time.time() + at - time.monotonic(), 3)


def sum_counters(counters: "Iterable[Counters]") -> "Totals":
    """Return the sums of what several processes count, and by ANSWERS those of each backend."""
    found: Totals = collections.Counter()
    for key, backend, counts in itertools.chain(*(each.read() for each in counters)):
        for way, count in enumerate(counts):
            found[key, way] += count
        if backend:  # all that is counted of backends are answers
            found[ANSWERS, backend] += sum(counts)
    return found


def count_replies(totals: "Totals") -> int:
    """Return how many replies were made."""
    return sum(count for (key, _), count in totals.items() if key >= REPLIES)


def find_chance(likely: Mapping[str, float] | None, addresses: Iterable[str]) -> float | None:
    """Return the probability of the likelier of a backend's addresses; None = nobody knows it."""
    if likely is None:
        return None
    return round(max(likely.get(each, 0.0) for each in addresses), 4)


def next_answers(pool: Pool) -> dict[str, float] | None:
    """Return the probability of each address in the next answer of its type; None = a user's
    function decides."""
    found: dict[str, float] = {}
    for policy in pool.current.values():
        each = chances(policy, pool.config.answers)
        if each is None:
            return None
        found |= each
    return found


# Why an answer is as it is: part I is asked, over a State that the monitor keeps for this alone.
class Unseen(Policy):
    """A user's function in the monitor, which must not run it."""
    needs_backends = False

    def pick(self, request: Request, count: int) -> list[Backend] | None:
        """Return no backends: `explain_answer` says that the function decides."""
        return []

    def ground(self) -> Ground | None:
        """Return None: nobody can say what the function will do."""
        return None


def pour(amount: float, most: float, lanes: Iterable[tuple[float, float]]) -> float:
    """Return the level at which lanes of (base, step) hold an amount in all, where each holds
    (level - base) / step, but no less than 0 and no more than `most`."""
    edges = [edge for base, step in lanes if step < math.inf
             for edge in ((base, 1 / step), (base + most * step, -1 / step))]
    level = width = 0.0  # width: what is held more where the level is 1 higher
    for edge, change in sorted(edges):
        if amount < (edge - level) * width:
            return level + amount / width
        amount -= (edge - level) * width
        level = edge
        width += change
    return level


def chances(policy: Policy, count: int) -> dict[str, float] | None:
    """Return the probability with which the next answer, if that has `count` addresses, holds each
    address (or host name) that a policy may pick now, over all clients. None = a user's function
    decides.

    Answers run like water to where the ground is lowest, and none holds a backend twice. That is
    approximate for several addresses at random: `spread` gives small weights some more. A limit
    counts once it is reached, not one that these answers would reach.
    """
    ground = policy.ground()
    if ground is None:
        return None
    lanes, answers = ground
    left = dict.fromkeys(policy.available())
    lanes = [(base, step if each in left else math.inf)
             for each, (base, step) in zip(policy.backends, lanes, strict=True)]
    level = pour(answers * count, answers, lanes)
    family = -1 if policy.rtype == wire.AAAA else 0
    return {each.addresses[family]: min(1.0, max(0.0, level - base) / step / answers)
            for each, (base, step) in zip(policy.backends, lanes, strict=True)}


def make_question(name: str, rtype: str, client: str) -> bytes:
    """Return the octets of a query that a person describes; raises Problem where a word is wrong.
    `client` is an address, or "" = any."""
    if client and not is_address(client):
        raise Problem(f"{client!r:.80} is no address of a client; write one such as 192.0.2.1")
    try:
        rest = struct.pack("!2H", wire.parse_type(rtype), wire.CLASS_IN)
    except Problem:
        raise Problem(f"{rtype!r:.80} is no record type; write one such as A or TYPE65") from None
    return struct.pack("!6H", 0, 0, 1, 0, 0, 0) + wire.parse_name(name) + rest


def explain_answer(state: State, name: str, rtype: str, client: str,
                   dice: Dice = random.random) -> dict[str, Any]:
    """Return what would be answered to a client (an address; "" = any), and why; raises Problem.

    `records` are those of one such reply. `next` says for each address of the pool how probable it
    is in the next one (0 where it is missing), to this client if the policy looks at clients. Where
    a user's function decides, there are no records, and `rcode` and `next` are None.
    """
    query = wire.decode_query(make_question(name, rtype, client))
    reply = Reply(Request(query, client or "::", dice))
    counting = [each for each in state.pools.values() if each.counting]
    for each in counting:
        each.counting = False  # nobody gets this answer
    try:
        if query.rcode == wire.NOERROR:
            respond(state, reply)
    finally:
        for each in counting:
            each.counting = True
    return {
        "name": wire.show_name(query.qname), "type": wire.show_type(query.qtype), "client": client,
        "rule": explain_rule(state, reply),
        "zone": wire.show_name(reply.zone.apex) if reply.zone else None,
        "rcode": wire.RCODES[reply.rcode],
        "ttl": reply.records[-1][2].ttl if reply.records else None,
        "records": list(show_records(reply)),
        **explain_pool(state, reply, bool(client))}


def show_records(reply: Reply) -> Iterator[str]:
    """Yield the records of a reply as lines of a zone."""
    for _, owner, rrset in reply.records:
        start = f"{wire.show_name(owner)} {rrset.ttl} IN {wire.show_type(rrset.type)} "
        for rdata in rrset.rdatas:
            yield start + wire.show_rdata(rrset.type, rdata)


def explain_pool(state: State, reply: Reply, for_client: bool) -> dict[str, Any]:
    """Return what `explain_answer` says of the pool that had a say, if one had."""
    policy = reply.policy
    pool = policy.pool if policy else state.pools.get((reply.owners or [b""])[-1])
    unusual = [octets[2:].decode() for _, octets in reply.options]
    if pool is None:
        return {"pool": None, "policy": None, "unusual": unusual, "next": None}
    found: dict[str, Any] = {
        "pool": pool.config.name, "policy": pool.config.policy, "unusual": unusual,
        "next": dict.fromkeys(reply.chosen, 1.0)}
    if type(policy) is LowestRatio:
        unusual.append("all backends are at max_connections, with what answers since their "
                       "reports bring")
    if policy and not (policy.reads_query and for_client):
        found["next"] = chances(policy, pool.config.answers)
    if found["next"] is None:
        unusual.append(f"the function {pool.config.policy} decides")
        found |= {"rcode": None, "ttl": None, "records": []}
    return found


def explain_rule(state: State, reply: Reply) -> str:
    """Return which rule answers the name asked for, and each to which a CNAME leads from there."""
    query = reply.request.query
    if query.rcode != wire.NOERROR or query.qtype in NO_DATA_TYPES:
        return query.why or "no records are of this type, so it is never answered"
    name, rules = query.qname, []
    answers = [rrset for section, _, rrset in reply.records if section == wire.ANSWER]
    for owner, rrset in itertools.zip_longest(reply.owners, answers):
        rules.append(explain_owner(state, reply, name.lower() == owner, owner, rrset))
        if rrset is None or rrset.type != wire.CNAME or query.qtype in (wire.CNAME, wire.ANY):
            return "; ".join(rules)
        name = rrset.rdatas[0]
        rules[-1] += f", CNAME -> {wire.show_name(name)}"
    return "; ".join([*rules, explain_end(state, name, query.qtype)])


def explain_end(state: State, name: bytes, qtype: int) -> str:
    """Return why no data of ours answers a name that was asked for, or that a CNAME leads to."""
    names = wire.suffixes(name.lower())
    zone = wire.find_zone(names, qtype, state.zones)
    if zone is None:
        return f"{wire.show_name(name)} is outside all zones"
    cut = zone.find_cut(names, qtype)
    if cut is None:
        return f"not followed there, in a circle or after {CHAIN_MAX} CNAMEs"
    return f"delegation {wire.show_name(cut)}"


def explain_owner(state: State, reply: Reply, own: bool, owner: bytes,
                  rrset: wire.RRset | None) -> str:
    """Return which data answer a name: an RRset of their owner, which is the name itself (`own`) or
    stands for it; None = there is none of the type."""
    if reply.rcode == wire.NXDOMAIN and rrset is None:
        return "no such name (NXDOMAIN)"
    shown, pool = wire.show_name(owner), state.pools.get(owner)
    if rrset and rrset.type not in (wire.A, wire.AAAA, wire.CNAME):
        pool = None  # these stand beside it
    if not own:
        rule = f"wildcard {shown}" if owner[:2] == b"\x01*" else f"anti-cache name of pool {shown}"
    else:
        rule = f"pool {shown}, its own name" if pool else f"static records of {shown}"
    if rrset or reply.policy or reply.rcode == wire.SERVFAIL:
        return rule
    return f"{rule if pool else 'the name exists'}, but not with this type (NODATA)"


# The page is one document that needs no other: HTML made here. JavaScript fetches the same document
# every 2 s and takes over what is new in it, so there is one renderer; without JavaScript the
# browser loads it anew. All that comes from the view goes through `StatusPage.text`, for strangers
# may have written it. The policy for contents (CSP) allows the two texts below and nothing else, no
# style attribute either: so the length of a bar is a class, b0 to b20.
PAGE_POOLS = 1000         # pools that a page shows, those with trouble first
PAGE_ROWS = 3000          # backends that it shows, as many of each pool
PAGE_ROWS_LEAST = 3       # but of each pool so many
PAGE_LINES = 100          # lines of a refused config, and of trouble, that it shows
PAGE_RATES = 600          # seconds that its picture of queries a second shows
PAGE_STYLE = """
:root {
  color-scheme: light dark;
  --back: #f4f5f7; --card: #ffffff; --code: #eef0f3; --line: #dfe3e8; --bar: #6fa3dc;
  --text: #1d232b; --soft: #58626e; --link: #0b5cad;
  --up: #187a38; --drain: #875800; --down: #bd1f2a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #0e1116; --card: #161b22; --code: #21272f; --line: #2c333c; --bar: #4680c2;
    --text: #e5e9ee; --soft: #9ba5b0; --link: #7ab8ff;
    --up: #56c96f; --drain: #e2b340; --down: #ff7f78;
  }
}
@media print {
  :root {
    color-scheme: light;
    --back: #ffffff; --card: #ffffff; --code: #ffffff; --line: #999999; --bar: #666666;
    --text: #000000; --soft: #000000; --link: #000000;
    --up: #000000; --drain: #000000; --down: #000000;
  }
}
* { box-sizing: border-box }
body {
  margin: 0 auto; padding: 20px 24px 40px; max-width: 1320px;
  background: var(--back); color: var(--text); overflow-wrap: anywhere;
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, Ubuntu, Cantarell, sans-serif;
  font-variant-numeric: tabular-nums;
}
h1, h2, h3, p, ul, pre { margin: 0; padding: 0; font-size: inherit }
a { color: var(--link); text-decoration: none }
a:hover { text-decoration: underline }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 4px }
code, pre { font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
code { padding: 2px 6px; border-radius: 4px; background: var(--code); user-select: all }
small { color: var(--soft); font-size: 13px }
header { display: flex; flex-wrap: wrap; gap: 0 20px; align-items: baseline }
header p, footer { color: var(--soft) }
header .rate { min-width: 9em }
h1 { font-size: 22px; font-weight: 650; letter-spacing: -0.01em }
h2 { margin: 0 0 8px; font-size: 15px; font-weight: 650 }
footer { margin-top: 20px }

/* States have a word, a sign and a colour. */
.up, .rows td:first-child { color: var(--up) }
.drain.drain, .rows .drain td:first-child { color: var(--drain) }
.down.down, .rows .down td:first-child { color: var(--down) }
.rows .drain, .rows .down { color: inherit }
.up::before, .rows td:first-child::before { content: "\\25CF\\A0" }
span.drain::before, .rows .drain td:first-child::before { content: "\\25CB\\A0" }
span.down::before, .rows .down td:first-child::before { content: "\\25BC\\A0" }

section { margin-top: 24px }
.card, details { background: var(--card); border: 1px solid var(--line); border-radius: 8px }
.card { padding: 14px 16px }
.cards { display: grid; gap: 0 16px; grid-template-columns: minmax(0, 2fr) minmax(0, 1fr) }
.cards > :nth-child(2) { grid-area: 1 / 2 / 3 }
#verdict { margin-top: 14px; border-left: 4px solid var(--up) }
#verdict.trouble { border-left-color: var(--down) }
#verdict h2 { margin: 0; font-size: 16px }
#verdict h2::before { content: "\\25CF\\A0"; color: var(--up) }
#verdict.trouble h2::before { content: "\\25BC\\A0"; color: var(--down) }
#verdict ul { margin-top: 10px; list-style: none }
#verdict li { padding: 7px 0; border-top: 1px solid var(--line) }
#verdict li:last-child { padding-bottom: 0 }
#verdict pre { white-space: pre-wrap }
#old {
  position: fixed; bottom: 0; left: 0; right: 0; padding: 10px 24px;
  background: var(--card); color: var(--down); border-top: 2px solid var(--down);
}

details { margin-top: 4px; overflow: hidden }
summary {
  display: grid; grid-template-columns: 12px minmax(0, 1fr) 150px 76px 88px 120px 190px;
  gap: 0 12px; align-items: baseline; padding: 8px 16px; cursor: pointer; list-style: none;
}
summary::-webkit-details-marker { display: none }
summary::before { content: "\\25B8"; color: var(--soft) }
[open] > summary::before { transform: rotate(90deg) }
summary:hover { background: var(--code) }
summary:focus-visible { outline-offset: -2px }
summary h3 { font-weight: 600 }
summary span { color: var(--soft) }
summary span:last-child { text-align: right }
details div { padding: 4px 16px 10px; border-top: 1px solid var(--line) }
details p {
  display: flex; flex-wrap: wrap; gap: 4px 20px; align-items: baseline; padding: 6px 0;
  font-size: 13px;
}

table { width: 100%; border-collapse: collapse; table-layout: fixed }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top; font-weight: 400 }
thead th { color: var(--soft); font-size: 12px }
tbody tr { border-top: 1px solid var(--line) }
th:last-child, td:last-child { padding-right: 0 }
.rows :nth-child(n + 5), .counts :nth-child(2), .processes :nth-child(n + 2) { text-align: right }
.rows :nth-child(n + 5) { white-space: nowrap }
.rows tbody th { font-weight: 600 }
.rows th:nth-child(1) { width: 88px }
.rows th:nth-child(2) { width: 27% }
.rows th:nth-child(3) { width: 66px }
.rows th:nth-child(5) { width: 128px }
.rows th:nth-child(6), .rows th:nth-child(7), .rows th:nth-child(8) { width: 76px }
.changes th:nth-child(1) { width: 150px }
.changes th:nth-child(2), .changes th:nth-child(3) { width: 22% }
.changes th:nth-child(4) { width: 150px }
.processes th:nth-child(1) { width: 90px }
.counts th:nth-child(2) { width: 110px }
[class^="b"] {
  background: linear-gradient(var(--bar), var(--bar)), linear-gradient(var(--line), var(--line));
  background-origin: content-box; background-position: 0 calc(1.45em - 1px);
  background-repeat: no-repeat;
}
BARS
svg { display: block; width: 100%; height: 120px; border: solid var(--line); border-width: 1px 0 }
svg path { fill: var(--bar); fill-opacity: 0.15; stroke: var(--bar); stroke-width: 1.5 }
svg path { vector-effect: non-scaling-stroke }
.axis { display: flex; justify-content: space-between; color: var(--soft); font-size: 12px }

/* Where nothing can be opened by a click, all is open. */
@media print { details::details-content { content-visibility: visible } }
@media (scripting: none) { details::details-content { content-visibility: visible } }
@media (prefers-reduced-motion: no-preference) { summary::before { transition: transform 0.15s } }

/* On a phone a row of a table is a block, and a number has its name above it. */
@media (max-width: 800px) {
  body { padding: 14px 12px 40px }
  header { column-gap: 12px }
  .cards { display: block }
  summary { display: flex; flex-wrap: wrap; gap: 2px 14px; padding: 8px 12px }
  summary h3 { flex: 1 1 calc(100% - 110px) }
  summary span { order: 1; font-size: 13px }
  summary .state { order: 0 }
  summary::before { margin-right: -8px }
  .card, details div { padding-left: 12px; padding-right: 12px }
  .rows thead, .changes thead { display: none }
  .rows tr, .changes tr { display: grid; gap: 2px 8px; padding: 7px 0 }
  .rows tr { grid-template-columns: 60px minmax(0, 1.6fr) repeat(3, minmax(0, 1fr)) }
  .rows :is(td:nth-child(3), td:nth-child(n + 5)) { font-size: 13px }
  .rows td:nth-child(5) { white-space: normal }
  .processes :is(th, td):is(:nth-child(2), :nth-child(3)) { display: none }
  .rows.rows tr > *, .changes.changes tr > * { width: auto; padding: 0; text-align: left }
  .rows tbody th { grid-column: 2 / 6 }
  .rows td:nth-child(4) { grid-area: 2 / 1 / 3 / 6 }
  .rows td:nth-child(3)::before { content: "since" }
  .rows td:nth-child(5)::before { content: "load" }
  .rows td:nth-child(6)::before { content: "age" }
  .rows td:nth-child(7)::before { content: "share" }
  .rows td:nth-child(8)::before { content: "next" }
  .rows td:nth-child(n + 3)::before { display: block; color: var(--soft); font-size: 11px }
  [class^="b"] { background-position: 0 100% }
  .changes tr { grid-template-columns: repeat(2, minmax(0, 1fr)) }
  .changes td:nth-child(4) { grid-area: 1 / 2 }
  .changes :is(td:nth-child(2), td:nth-child(3), td:nth-child(5)) { grid-column: 1 / 3 }
}
""".replace("BARS", "\n".join(
    f".b{step} {{ background-size: {5 * step}% 3px, 100% 3px }}" for step in range(21)))
PAGE_SCRIPT = """
"use strict";
const EVERY = 1900;    // ms: what goes down is seen within 2 s
const PATIENCE = 5000; // ms that an answer may take
const MOVE = Element.prototype.moveBefore || Element.prototype.insertBefore;
const served = new Map(); // whether the server opened a pool: only when that changes, it counts
let timer = 0;
let fresh = Date.now(); // when the server answered last

function changeAttributes(old, page) {
  for (const {name, value} of page.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const {name} of [...old.attributes]) {
    if (name !== "open" && !page.hasAttribute(name)) old.removeAttribute(name);
  }
  if (old.nodeName === "DETAILS" && served.get(page.id) !== page.open) {
    served.set(page.id, page.open);
    old.open = page.open;
  }
}

// Make the children of one element equal to those of another. Nodes stay where they can, and with
// them focus, selection and scroll: one with an id is the one of that id, any other the next one.
function changeChildren(old, page) {
  const known = new Map([...old.children].map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const child of [...page.childNodes]) {
    const twin = child.id ? known.get(child.id) : at;
    if (twin && twin.nodeName === child.nodeName && (twin.id || "") === (child.id || "")) {
      if (twin === at) at = at.nextSibling;
      else MOVE.call(old, twin, at);
      change(twin, child);
    } else {
      old.insertBefore(document.importNode(child, true), at);
      if (child.nodeName === "DETAILS") served.set(child.id, child.open);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function change(old, page) {
  if (old.nodeType === Node.ELEMENT_NODE) {
    changeAttributes(old, page);
    changeChildren(old, page);
  } else if (old.data !== page.data) {
    old.replaceWith(document.importNode(page)); // not moved: a longer number starts further left
  }
}

async function refresh() {
  const old = document.getElementById("old");
  try {
    const answer = await fetch(location.href,
      {cache: "no-store", signal: AbortSignal.timeout(PATIENCE)});
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [ours, theirs] = [document, page].map((each) => each.querySelector("script"));
    if (!answer.ok || !theirs) throw new Error("this is not the page");
    if (ours.text !== theirs.text) location.reload(); // another version of lbdns
    const focus = document.activeElement;
    document.title = page.title;
    change(document.body, page.body);
    if (focus.isConnected && focus !== document.activeElement) focus.focus({preventScroll: true});
    fresh = Date.now();
  } catch (error) {
    const since = new Date(fresh).toISOString().slice(11, 19);
    old.textContent = `No answer from lbdns: all of this is of ${since} UTC, ` +
      `${Math.round((Date.now() - fresh) / 1000)} s ago. Trying again.`;
    old.hidden = false;
  }
}

// A hidden tab asks for nothing; when it is shown again, it asks at once.
async function watch() {
  clearTimeout(timer);
  if (document.hidden) return;
  const begun = Date.now();
  await refresh();
  clearTimeout(timer);
  timer = setTimeout(watch, Math.max(100, begun + EVERY - Date.now()));
}
for (const pool of document.querySelectorAll("details")) served.set(pool.id, pool.open);
document.addEventListener("visibilitychange", watch);
timer = setTimeout(watch, EVERY);
"""
PAGE_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<noscript><meta http-equiv="refresh" content="2"></noscript>
<style>{style}</style>
<script type="module">{script}</script>
</head>
<body>
<header>
<h1>{host}</h1>
<p>lbdns {version}</p>
<p title="{started}">up {up}</p>
<p class="rate">{rate} queries/s</p>
<p>config {file} {hash}, loaded <span title="{loaded}">{loaded_ago} ago</span>, {state}</p>
</header>
<main>
<section id="verdict" class="card {mood}" aria-labelledby="verdict-title">
<h2 id="verdict-title">{verdict}</h2>
{problems}
</section>
<section aria-labelledby="pools-title">
<h2 id="pools-title">Pools</h2>
{pools}
</section>
<section class="card" aria-labelledby="changes-title">
<h2 id="changes-title">Last changes</h2>
{changes}
</section>
<div class="cards">
<section class="card" aria-labelledby="rates-title">
<h2 id="rates-title">Queries a second</h2>
{rates}
</section>
<section class="card" aria-labelledby="dns-title">
<h2 id="dns-title">Counts</h2>
{counts}
</section>
<section class="card" aria-labelledby="processes-title">
<h2 id="processes-title">Processes</h2>
{processes}
</section>
</div>
</main>
<footer>As of <time datetime="{now}">{now}</time>; times of day are UTC. Also as
<a href="metrics">metrics</a> and <a href="status.json">JSON</a>.</footer>
<p id="old" role="status" hidden></p>
</body>
</html>
"""
PAGE_POOL = """<details id="{id}"{opened}>
<summary><h3>{name}</h3><span>{policy}</span><span>TTL {ttl}</span>\
<span class="state {state}">{up}/{backends} up</span><span>{load}</span><span>{next}</span>\
</summary>
<div>
<p>{facts}<code>{dig}</code></p>
{rows}
</div>
</details>
"""
PAGE_TABLE = """<table class="{kind}">
<thead><tr>{head}</thead>
<tbody>
{body}
</tbody>
</table>"""
# End tags of rows and cells are left out, as HTML allows: of 1,000 backends they are 40 KB.
PAGE_ROW = ("<tr{state}><td>{word}<th scope=row>{address}<td{since}>{ago}<td>{why}"
            "<td{bar}>{load}<td>{age}<td>{share}<td>{next}")
PAGE_PICTURE = """<p class="axis"><span>{top}</span><span>{words}</span></p>
<svg viewBox="0 0 600 100" preserveAspectRatio="none" role="img" aria-label="Queries a second: \
{words}"><path d="M{begin:.0f},100{path}V100"/></svg>
<p class="axis"><span>10 minutes ago</span><span>5 minutes</span><span>now</span></p>"""
PAGE_HEADS = {
    "rows": ("State", "Backend", "Since", "Why", "Connections", "Report", "Share", "Next"),
    "changes": ("When", "Pool", "Backend", "Change", "Why"),
    "counts": ("Since the start", "How many"),
    "processes": ("Process", "PID", "Up", "Answers", "CPU s", "Memory")}
# Codes of trouble of which the page says more.
PAGE_FLAGS = {"last-resort": "last_resort", "limits": "full", "load-unknown": "load_unknown"}


def hash_source(text: str) -> str:
    """Return what allows a text between <style> or <script> in a policy for contents (CSP 2)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


PAGE_CSP = ("default-src 'none'; "
            f"style-src {hash_source(PAGE_STYLE)}; script-src {hash_source(PAGE_SCRIPT)}; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def show_date(at: float) -> str:
    """Return unix seconds as a date and time of day, UTC, as RFC 3339 writes them."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def show_clock(at: float, now: float) -> str:
    """Return unix seconds as a time of day, UTC; with the date if it is 12 h from now or more."""
    form = "%H:%M:%S" if abs(at - now) < 43200 else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, time.gmtime(at))


def answer_drain(row: Mapping[str, Any], now: float, clock: Callable[[float, float], str]) -> str:
    """Return whether a backend that drains may be stopped now, and if not, when or why. `clock`
    shows a unix time."""
    count, at = row["connections"], row["forgotten_at"]
    connected = "connections not counted" if count is None else f"{count} connected"
    if row["next"]:
        return f"still answered, as no other is better ({connected})"
    is_known = count is not None  # else nobody can say whom a stop would cut
    if at is not None and at > now:
        until = "safe to stop at" if is_known else "no new clients after"
        return f"{until} {clock(at, now)} ({connected})"
    return f"no new clients; {connected}" if count != 0 else f"safe to stop now ({connected})"


class StatusPage:
    """The page of one view.

    now        unix seconds
    problems   what is wrong with each pool, as HTML, by name
    names      of the pools: first those with trouble, then those where a backend drains
    """
    def __init__(self, view: Mapping[str, Any]) -> None:
        self.view, self.now, self.pools = view, view["now"], view["pools"]
        self.problems = {name: list(self.find_problems(pool)) for name, pool in self.pools.items()}
        self.names = sorted(self.pools, key=lambda name: (
            not self.problems[name], self.count_state("drain", name) == 0, name))

    @staticmethod
    def text(value: object) -> str:
        """Return a text without markup, and with nothing that moves a cursor or turns a line."""
        return html.escape(printable(str(value)))

    def age(self, at: float | None) -> str:
        """Return how long ago a time was; None is -."""
        return "-" if at is None else show_span(self.now - at)

    def anchor(self, name: str) -> str:
        """Return the id of a pool's element, in which no letter needs an escape."""
        return "pool-" + urllib.parse.quote(name, "")

    def count_state(self, state: str, *names: str) -> int:
        """Return how many backends of some pools, or of all, have a state."""
        return sum(row["state"] == state for name in names or self.pools
                   for row in self.pools[name]["rows"])

    def table(self, kind: str, rows: Iterable[str]) -> str:
        """Return a table of a kind that PAGE_HEADS has."""
        head = "".join(f"<th scope=col>{word}" for word in PAGE_HEADS[kind])
        return PAGE_TABLE.format(kind=kind, head=head, body="\n".join(rows))

    def find_problems(self, pool: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is wrong with a pool, in words, and what to do, as HTML."""
        down = [row for row in pool["rows"] if row["state"] == "down"]
        if down:
            more = f", and {len(down) - 1} more" if down[1:] else ""
            yield (f"{self.text(' '.join(down[0]['address']))} is <span class=down>down</span> for "
                   f"{self.age(down[0]['since'])}{more}: {self.text(down[0]['why'])}")
        flags = {code: flag for code, flag in PAGE_FLAGS.items() if pool[flag]}
        yield from map(self.remedy, flags)
        yield from (self.text(show_trouble(each)) for each in pool["trouble"]
                    if each["code"] not in flags)

    def remedy(self, code: str) -> str:
        """Return what is wrong by a code of the log, and what to do, as HTML."""
        _, says, remedy = LOG_CODES[code]
        return self.text(f"{says}. {remedy[0].upper()}{remedy[1:]}".replace("`", ""))

    def show_problems(self) -> str:
        """Return all that is wrong as a list; pools with the same problem share a line."""
        lines = [self.text(show_trouble(each)) for each in self.view["trouble"]]
        error = self.view["config"]["error"]
        if error:
            text = "\n".join(map(self.text, error.split("\n")[:PAGE_LINES]))
            lines.insert(0, f"config: {self.remedy('reload-refused')}:<pre>{text}</pre>")
        concerned: dict[str, list[str]] = {}
        for name in self.names:
            for text in self.problems[name]:
                concerned.setdefault(text, []).append(
                    f'<a href="#{self.anchor(name)}">{self.text(name)}</a>')
        lines += [f"{', '.join(names)}: {text}" for text, names in concerned.items()]
        if len(lines) > PAGE_LINES:
            lines[PAGE_LINES:] = [f"and {len(lines) - PAGE_LINES} more"]
        items = "\n".join(f"<li>{line}</li>" for line in lines)
        return f"<ul>\n{items}\n</ul>" if lines else ""

    def verdict(self, wrong: bool) -> str:
        """Return how the backends are, in a sentence."""
        total = sum(len(pool["rows"]) for pool in self.pools.values())
        down, drain = self.count_state("down"), self.count_state("drain")
        but = ", but:" if wrong else ""
        backends = f"{wire.plural(total, 'backend')} of {wire.plural(len(self.pools), 'pool')}"
        if not self.pools:
            return "This config has no pool; “lbdns.py example” prints one that has"
        if down:
            return f"{down} of {backends} {'is' if down == 1 else 'are'} down"
        if drain:
            return f"None of {backends} is down; {drain} draining" + but
        return (f"All {backends} are up" if total > 1 else "The only backend is up") + but

    def row(self, row: Mapping[str, Any]) -> str:
        """Return a backend as a row of its pool's table."""
        state, count, most = row["state"], row["connections"], row["max"]
        address, why, bar = "<br>".join(map(self.text, row["address"])), self.text(row["why"]), ""
        if row["weight"] != 1:
            address += f" <small>weight {row['weight']:g}</small>"
        if state == "drain":
            why = f"<b>{answer_drain(row, self.now, show_clock)}</b> {why}"
        if most and count is not None:
            bar = f" class=b{min(20, math.ceil(20 * count / most))}"
        shown = "-" if count is None else count
        share, following = ("-" if part is None else f"{100 * part:.1f} %"
                            for part in (row["share"], row["next"]))
        return PAGE_ROW.format(
            state="" if state == "up" else f" class={state}", word=state, address=address, bar=bar,
            since="" if row["since"] is None else f" title={show_date(row['since'])}",
            ago=self.age(row["since"]), why=why, share=share, next=following,
            load=shown if most is None else f"{shown}/{most}",
            age="-" if row["age"] is None else show_span(row["age"]))

    def next_answer(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return with which probabilities the backends are in the next answer, in the order of
        the rows; of many, the least and the most."""
        shares = [row["next"] for row in rows]
        if None in shares:
            return "next: as the function says"
        if len(shares) > 5:
            least, most = (f"{100 * bound(shares):.1f}" for bound in (min, max))
            return f"next {least} % each" if least == most else f"next {least} to {most} %"
        return f"next {' / '.join(f'{100 * share:.0f}' for share in shares)} %" if shares else ""

    def facts(self, pool: Mapping[str, Any]) -> str:
        """Return what a pool's backends and their states come from."""
        source, facts = pool["source"], []
        if pool["check"]:
            facts.append(f"check {pool['check']}")
        if source:
            facts.append(f"{source['kind']} {source['name']}" + (
                "" if source["age"] is None else f", {show_span(source['age'])} old"))
        if pool["answers"] != 1:
            facts.append(f"{pool['answers']} in each answer")
        return "".join(f"<span>{self.text(fact)}</span>" for fact in facts)

    def pool(self, name: str, limit: int) -> str:
        """Return a pool with so many of its rows, open if there is anything to see."""
        pool = self.pools[name]
        rows = sorted(pool["rows"], key=lambda row: (
            -STATES.index(row["state"]), -(row["share"] or 0), row["address"]))
        worst = rows[0]["state"] if rows else "down"
        shown = self.table("rows", map(self.row, rows[:limit]))
        if len(rows) > limit:
            shown += f"\n<p>and {len(rows) - limit} more, which status.json has</p>"
        load = "" if pool["load_age"] is None else f"load {show_span(pool['load_age'])} old"
        return PAGE_POOL.format(
            id=self.anchor(name), opened=" open" if self.problems[name] or worst != "up" else "",
            name=self.text(name), policy=self.text(pool["policy"]), ttl=pool["ttl"], state=worst,
            up=pool["up"], backends=pool["backends"], next=self.next_answer(rows),
            load="load unknown" if pool["load_unknown"] else load, facts=self.facts(pool),
            dig=self.text(pool["dig"]), rows=shown)

    def show_pools(self) -> str:
        """Return the pools, as many as a page shows."""
        shown = self.names[:PAGE_POOLS]
        limit = max(PAGE_ROWS_LEAST, PAGE_ROWS // max(1, len(shown)))
        pools = "".join(self.pool(name, limit) for name in shown)
        more = len(self.names) - len(shown)
        if more:
            pools += f"<p>and {more} more, which status.json has</p>"
        return pools or "<p>None.</p>"

    def change(self, old: str, new: str) -> str:
        """Return a change of a state, in which the new one has its colour."""
        before, _, state = self.text(show_change(old, new).replace("->", "→")).rpartition(" ")
        return f"{before} <span class={new}>{state}</span>"

    def changes(self) -> str:
        """Return the last changes, with their reasons, newest first."""
        rows = [(f"<tr><td title={show_date(each['at'])}>{show_clock(each['at'], self.now)} "
                 f"<small>{self.age(each['at'])} ago</small><td>{self.text(each['pool'])}"
                 f"<td>{self.text(each['address'])}<td>{self.change(each['old'], each['new'])}"
                 f"<td>{self.text(each['why'])}") for each in self.view["changes"]]
        return self.table("changes", rows) if rows else "<p>None since the start.</p>"

    def rates(self) -> str:
        """Return queries a second over the last ten minutes as a picture, and in words."""
        rates = self.view["dns"]["rates"]
        if not rates:
            return "<p>None yet: the first figure comes after 10 s.</p>"
        values = [rate for _, rate in rates]
        digits = 10 ** math.floor(math.log10(max(1, *values)))
        top = next(digits * step for step in (1, 2, 5, 10) if digits * step >= max(values))
        begin = rates[-1][0] + 10 - PAGE_RATES
        path = "".join(f"V{100 - 100 * rate / top:.1f}H{at + 10 - begin:.0f}"
                       for at, rate in rates if at >= begin)
        words = f"least {min(values):,.0f}, most {max(values):,.0f}, now {values[-1]:,.0f}"
        return PAGE_PICTURE.format(top=f"{top:,}", words=words, path=path,
                                   begin=max(0, rates[0][0] - begin))

    def counts(self) -> str:
        """Return what has been counted."""
        dns, view = self.view["dns"], self.view
        dropped = ", ".join(f"{why} {n:,}" for why, n in dns["dropped"].items() if n)
        counts = [*sorted(dns["rcodes"].items(), key=lambda each: -each[1]),
                  ("truncated", dns["truncated"]),
                  (f"dropped ({dropped})" if dropped else "dropped", sum(dns["dropped"].values())),
                  ("TCP connections", dns["tcp"]["total"]), ("and open now", dns["tcp"]["open"]),
                  ("reports taken", view["reports"]["taken"]),
                  ("reports refused", view["reports"]["refused"]),
                  ("processes replaced", sum(view["restarts"].values())),
                  ("log lines lost", view["lost_lines"])]
        return self.table("counts", (f"<tr><td>{self.text(name)}<td>{count:,}"
                                     for name, count in counts))

    def processes(self) -> str:
        """Return the processes and their cost; where the system tells nothing of them, the
        workers."""
        workers = {each["pid"]: each for each in self.view["workers"]}
        known = self.view["processes"] or [
            {"role": f"worker {at}", "pid": each["pid"], "started": each["since"]}
            for at, each in enumerate(self.view["workers"], 1)]
        return self.table("processes", (
            f"<tr><td>{self.text(each['role'])}<td>{each['pid']}<td>{self.age(each['started'])}"
            + (f"<td>{workers[each['pid']]['answers']:,}" if each["pid"] in workers else "<td>-")
            + (f"<td>{each['cpu']:,.1f}<td>{each['memory'] / 2 ** 20:.0f} MiB"
               if "cpu" in each else "<td>-<td>-") for each in known))

    def show(self) -> str:
        """Return the document."""
        view, config, problems = self.view, self.view["config"], self.show_problems()
        host, down = self.text(view["host"]), self.count_state("down")
        news = f"{down} down: " if down else "trouble: " if problems else ""
        return PAGE_DOCUMENT.format(
            title=f"{news}lbdns {host}", style=PAGE_STYLE, script=PAGE_SCRIPT, host=host,
            version=self.text(view["lbdns"]), up=self.age(view["started"]),
            started=show_date(view["started"]), rate=f"{view['dns']['rate']:,.0f}",
            file=self.text(config["file"]), hash=self.text(config["hash"]),
            loaded=show_date(config["loaded"]), loaded_ago=self.age(config["loaded"]),
            state="<span class=down>a reload was refused</span>" if config["error"] else "ok",
            mood="trouble" if problems else "", verdict=self.verdict(bool(problems)),
            problems=problems, pools=self.show_pools(), changes=self.changes(),
            rates=self.rates(), counts=self.counts(), processes=self.processes(),
            now=show_date(self.now))


def show_status_page(view: Mapping[str, Any]) -> str:
    """Return the page of a view: an HTML document, to be sent with PAGE_CSP."""
    return StatusPage(view).show()


# /metrics is the view as Prometheus' text format 0.0.4. METRICS has each metric: its name, its
# labels, the key under which `list_samples` has its value, and its help. Counters, and nothing
# else, end in _total. Names and labels of lbdns_dns_ are CoreDNS' with another prefix, and those of
# process_ are of Prometheus' own clients, so that dashboards fit. The help is all that users have
# to read: it says what values and labels mean, and when a series is absent.
METRICS = (
    ("lbdns_build_info", "version python", "one",
     "Always 1: its labels are the versions of lbdns and of Python."),
    ("lbdns_config_ok", "", "ok", "1, but 0 after a reload that was refused."),
    ("lbdns_config_hash_info", "hash", "one",
     "Always 1: its label is the hash of the zones and pools in force."),
    ("lbdns_reloads_total", "", "reloads", "Reloads that went well."),
    ("lbdns_reload_failed_total", "", "reloads_failed", "Reloads that were refused."),
    ("lbdns_child_restarts_total", "role", "restarts",
     "Processes that ended and were replaced; role is worker or monitor."),
    ("lbdns_log_lines_lost_total", "", "lost_lines", "Log lines for which there was no room."),
    ("process_start_time_seconds", "role", "started",
     "Unix time when the process started; role is supervisor, monitor, worker 1 and so on."),
    ("process_resident_memory_bytes", "role", "memory", "Memory that the process holds."),
    ("process_cpu_seconds_total", "role", "cpu", "CPU time that the process has used."),
    ("lbdns_dns_requests_total", "proto family type", "total",
     "Queries; family 1 is IPv4 and 2 is IPv6, and type is other for those that CoreDNS does not "
     "list."),
    ("lbdns_dns_responses_total", "rcode zone", "total",
     "Replies; zone is empty where the name is in none of ours."),
    ("lbdns_dns_dropped_total", "reason", "total",
     "Queries without a reply; reason is short or long (too much so), response (it was no query), "
     "rate (of large replies), kernel (no room in its buffer) or send (the system failed)."),
    ("lbdns_dns_truncated_total", "", "truncated", "Replies over UDP that ask for TCP."),
    ("lbdns_tcp_connections", "", "open", "TCP connections of clients that are open now."),
    ("lbdns_tcp_connections_total", "", "total", "TCP connections of clients ever."),
    ("lbdns_reports_total", "", "taken", "Reports of agents that were believed."),
    ("lbdns_reports_refused_total", "", "refused", "Reports of agents that were refused."),
    ("lbdns_pool_backends", "pool", "backends", "Backends of the pool."),
    ("lbdns_pool_backends_up", "pool", "up", "Backends of the pool that are up."),
    ("lbdns_pool_last_resort", "pool", "last_resort",
     "1 while no backend is up and all_down answers, else 0."),
    ("lbdns_pool_load_unknown", "pool", "load_unknown",
     "1 while reports are too old to balance by, else 0."),
    ("lbdns_pool_full", "pool", "full", "1 while all backends are at their limits, else 0."),
    ("lbdns_source_polls_total", "pool", "polls",
     "Polls of the pool's source; absent where the pool has none."),
    ("lbdns_source_failures_total", "pool", "failures",
     "Polls of the pool's source that failed; absent where the pool has none."),
    ("lbdns_source_last_success_time_seconds", "pool", "last_success",
     "Unix time of the last good poll of the pool's source; absent before the first."),
    ("lbdns_backend_up", "pool address", "is_up",
     "1 if the backend is up, 0 if it drains or is down; address has all of its addresses."),
    ("lbdns_backend_draining", "pool address", "drains", "1 if the backend drains, else 0."),
    ("lbdns_backend_connections", "pool address", "connections",
     "Established connections of the backend, by its last report; absent while unknown."),
    ("lbdns_backend_max_connections", "pool address", "max",
     "The most connections that the backend may have; absent without a limit."),
    ("lbdns_backend_weight", "pool address", "weight", "Weight of the backend."),
    ("lbdns_backend_report_age_seconds", "pool address", "age",
     "Age of the backend's last report; absent without one."),
    ("lbdns_backend_state_change_time_seconds", "pool address", "since",
     "Unix time since when the backend has its state; absent where nothing watches it."),
    ("lbdns_backend_answers_total", "pool address", "answers",
     "Answers with an address of the backend."),
    ("lbdns_backend_check_failures_total", "pool address", "check_failures",
     "Checks that addresses of the backend failed, of all pools that check them."))


def show_metrics(view: dict[str, Any]) -> str:
    """Return a view in Prometheus' text format 0.0.4. What is unknown has no sample, and a metric
    without samples is left out."""
    samples = {names: [(show_labels(names, texts), values) for texts, values in found]
               for names, found in list_samples(view).items()}
    blocks = []
    for name, names, key, says in METRICS:
        # Fixed point, without zeros at its end: 1790000000.1, 0.000001, 1.
        lines = [f"{name}{labels} " + f"{values[key]:f}".rstrip("0").rstrip(".")
                 for labels, values in samples[names] if values.get(key) is not None]
        if lines:
            kind = "counter" if name.endswith("_total") else "gauge"
            blocks += [f"# HELP {name} {says}", f"# TYPE {name} {kind}", *lines]
    return "\n".join([*blocks, ""])


def list_samples(view: dict[str, Any]) -> dict[str, list[tuple[Sequence[Any], dict[str, Any]]]]:
    """Return by names of labels, as METRICS has them, what has these: the labels' values, and
    values of metrics by key."""
    dns, config, pools = view["dns"], view["config"], view["pools"].items()
    return {
        "": [((), {**view, **config, **dns, **dns["tcp"], **view["reports"],
                   "ok": config["error"] is None})],
        "version python": [((view["lbdns"], sys.version.split()[0]), {"one": 1})],
        "hash": [((config["hash"],), {"one": 1})],
        "role": [*(((role,), {"restarts": total}) for role, total in view["restarts"].items()),
                 *(((each["role"],), each) for each in view["processes"])],
        "proto family type": [(texts, {"total": total}) for *texts, total in dns["requests"]],
        "rcode zone": [(texts, {"total": total}) for *texts, total in dns["responses"]],
        "reason": [((reason,), {"total": total}) for reason, total in dns["dropped"].items()],
        "pool": [((name,), {**pool, **(pool["source"] or {})}) for name, pool in pools],
        "pool address": [
            ((name, ",".join(row["address"])),
             {**row, "is_up": row["state"] == "up", "drains": row["state"] == "drain"})
            for name, pool in pools for row in pool["rows"]]}


def show_labels(names: str, texts: Sequence[Any]) -> str:
    """Return labels as they stand in a sample. Control characters, newlines among them, are shown
    as in the log; then backslashes and quotes are escaped."""
    plain = [printable(f"{text}").replace("\\", r"\\").replace('"', r'\"') for text in texts]
    pairs = [f'{name}="{text}"' for name, text in zip(names.split(), plain, strict=True)]
    return f"{{{','.join(pairs)}}}" if pairs else ""


# A client sends one request and gets one page; then the connection ends. So there is no second
# request that could be confused with the rest of the first, and no state but that of one exchange,
# which has HTTP_TIME, all in all. There is no TLS and no password: that is for a proxy to add.
HTTP_CLIENTS = 32         # connections; beyond, the oldest without a whole request makes room
HTTP_HEAD = 8192          # octets of a request up to its empty line; the body is never looked at
HTTP_TIME = 5.0           # seconds from accept to the last octet, however slow the client reads
HTTP_FIELDS = 16          # parameters of a request
HTTP_DISCARD = 64         # reads, of 64 KiB each, of what comes behind a request
HTTP_RESERVE = 32         # file descriptors that are left for everything else
HTTP_PAUSE = 0.25         # seconds without accept where there is no room
HTTP_HEADERS = {"Connection": "close", "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
                "Content-Security-Policy": "default-src 'none'"}
# RFC 9112 2.1: method, target and minor version, then fields, one a line; a line that begins with a
# space is none, nor is what has a space before its colon. Groups: the first three, all fields.
REQUEST = re.compile(r"\A([!-~]+) ([!-~]+) HTTP/1\.([01])\r\n"
                     r"((?:[!-9;-~]+:[\t -~\xa0-\U0010ffff]*\r\n)*)\r\n\Z")
HOST = re.compile("^host:(.*)$", re.MULTILINE | re.IGNORECASE)


class Page(NamedTuple):
    """What a request is answered with."""
    status: int                       # of HTTP
    text: str
    kind: str = "text/plain"          # its media type; the charset is always UTF-8
    headers: Mapping[str, str] = {}   # more of them, or others than HTTP_HEADERS


class Refused(Exception):
    """Raised for a request that cannot be answered; its args are those of the Page that says why.
    """


def read_request(octets: bytes, names: set[str]) -> tuple[str, dict[str, str]]:
    """Return path and parameters of a request, or raise Refused. `names` are those of this host.

    A page of a stranger may have its own name lead here (DNS rebinding), and the browser then shows
    it what we answer. But the browser says which name that is.
    """
    head, end, _ = octets.partition(b"\r\n\r\n")
    if len(head + end) > HTTP_HEAD:
        raise Refused(431, f"a request must have at most {HTTP_HEAD} octets\n")
    try:
        [(method, target, minor, fields)] = REQUEST.findall((head + end).decode())
        hosts = HOST.findall(fields)
        asked = {urllib.parse.urlsplit(f"//{host.strip()}").hostname for host in hosts}
        foreign = set(itertools.filterfalse(is_address, asked)) - names
        url = urllib.parse.urlsplit(target)
        pairs = urllib.parse.parse_qsl(url.query, keep_blank_values=True, errors="strict",
                                       max_num_fields=HTTP_FIELDS)
        # RFC 9112 3.2: one Host, and none only in HTTP/1.0.
        if not int(minor) <= len(hosts) <= 1 or not "".join(map("".join, pairs)).isprintable():
            raise ValueError
    except ValueError:  # or one of `decode`, `urlsplit` and `parse_qsl`, or it was no match
        raise Refused(400, "this must be a request of HTTP/1.0 or 1.1, printable, in UTF-8, with "
                      "one Host\n") from None
    if method not in ("GET", "HEAD"):
        raise Refused(405, "only GET and HEAD are here\n", "text/plain", {"Allow": "GET, HEAD"})
    if foreign:
        raise Refused(421, "Host must be an address, localhost, this host's name as `hostname` "
                      "prints it, or `nsid`; a proxy has to say so, too\n")
    return url.path, dict(pairs)


def show_page(page: Page, is_head: bool) -> bytes:
    """Return the octets of a reply, those of HEAD without the text: RFC 9110 9.3.2."""
    body = page.text.encode("utf-8", "replace")
    headers = {"Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
               "Content-Type": f"{page.kind}; charset=utf-8", "Content-Length": len(body),
               **HTTP_HEADERS, **page.headers}
    lines = [f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}",
             *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head if is_head else head + body


class HttpServer:
    """Answers requests at listening sockets by what `respond` says to path and parameters.

    Each connection has a task, which ends in HTTP_TIME. A client that is cut off gets a reset, so
    that the kernel, too, keeps nothing for it.
    """
    def __init__(self, doors: Sequence[socket.socket], log: "Log",
                 respond: Callable[[str, dict[str, str]], Page], nsid: str) -> None:
        self.doors, self.log, self.respond = list(doors), log, respond
        self.clients: dict[socket.socket, asyncio.Task[None]] = {}  # the oldest first
        self.answered: set[socket.socket] = set()  # of those that have sent a whole request
        self.turn = asyncio.Lock()  # of the one whose page is made
        name = socket.gethostname().lower()
        self.names = {"localhost", name, name.partition(".")[0], nsid.lower()}
        # A connection whose descriptor is not below this one would be in the way of others.
        self.max_descriptor = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - HTTP_RESERVE

    async def run(self) -> None:
        """Serve until this is cancelled."""
        self.listen()
        await asyncio.Event().wait()

    def listen(self) -> None:
        """Take connections, also after a pause."""
        for door in self.doors:
            asyncio.get_running_loop().add_reader(door, self.on_accept, door)

    async def finish(self, seconds: float) -> None:
        """Take no more connections, and give those that are there some time."""
        for door in self.doors:
            asyncio.get_running_loop().remove_reader(door)
            door.close()
        self.doors.clear()
        if self.clients:
            await asyncio.wait(self.clients.values(), timeout=seconds)

    def on_accept(self, door: socket.socket) -> None:
        """Take one connection, if there is room. Else the oldest client ends that has not sent its
        whole request, or where all have, the oldest of all; and nothing is taken meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            spare = os.dup(0)  # the number that a connection would get
            os.close(spare)
            if spare >= self.max_descriptor:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if len(self.clients) < HTTP_CLIENTS:
                sock, _ = door.accept()
                sock.setblocking(False)
                task = self.clients[sock] = loop.create_task(self.serve(sock))
                task.add_done_callback(functools.partial(self.on_end, sock))
                return
        except (BlockingIOError, ConnectionError):  # another monitor has it, or it went away
            return
        except OSError as bad:
            self.log.trouble("http", "accepting HTTP connections", str(bad.strerror))
        loop.remove_reader(door)
        loop.call_later(HTTP_PAUSE, self.listen)
        if self.clients:
            self.clients[min(self.clients, key=self.answered.__contains__)].cancel()

    def on_end(self, sock: socket.socket, task: "asyncio.Task[None]") -> None:
        """Close a connection whose task has ended, and take others."""
        if task.cancelled() or task.exception():
            with suppress(OSError):  # the client may have sent a reset, too
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        del self.clients[sock]
        self.answered.discard(sock)
        self.listen()

    async def serve(self, sock: socket.socket) -> None:
        """Read a request, write the reply, and wait for the client to close the connection: what it
        still sends would otherwise make the kernel throw away the reply. Raises OSError, such as
        TimeoutError."""
        loop, octets = asyncio.get_running_loop(), b""
        async with asyncio.timeout(HTTP_TIME):
            while b"\r\n\r\n" not in octets and len(octets) <= HTTP_HEAD:
                piece = await loop.sock_recv(sock, HTTP_HEAD)
                if not piece:
                    break
                octets += piece
            self.answered.add(sock)
            async with self.turn:  # between two pages, all else that the monitor does has its turn
                octets = self.reply(octets)
                await asyncio.sleep(0)
            await loop.sock_sendall(sock, octets)
            sock.shutdown(socket.SHUT_WR)
            for _ in range(HTTP_DISCARD):
                if not await loop.sock_recv(sock, 1 << 16):
                    break

    def reply(self, octets: bytes) -> bytes:
        """Return the reply to what a client has sent, whatever that is."""
        is_head = octets.startswith(b"HEAD ")
        try:
            return show_page(self.respond(*read_request(octets, self.names)), is_head)
        except Refused as bad:
            return show_page(Page(*bad.args), is_head)
        except Exception as bug:
            self.log.trouble("internal-error", "internal error in a page, please report",
                             f"{show_error(bug)} in {show_traceback(bug)}")
            return show_page(Page(500, "internal error: see the log\n"), is_head)


# ==== IV  The supervisor: root, fork, signals; parses nothing of others, serves nobody ============


# A start: a loader, which is still root, reads the config and hands it over as octets. The
# supervisor binds the sockets, becomes `user`, and forks a monitor, if there is anything to watch,
# and the workers. These have what it has opened and loaded. Of each other they see what lies in the
# memory of their generation, and nothing else.
#
# From then on it only waits, in `tend`: children that end are forked anew, those whose heartbeat
# stops are killed before, and systemd's watchdog is fed while all workers live.
#
# A reload: another loader reads the config. If that is good, another generation starts beside the
# current one, on the same sockets and those that are new. When its workers are ready, it becomes
# the current one, and the one before gets the order RETIRE. If anything goes wrong, the new
# generation is killed, and the current one has noticed nothing.
#
# An upgrade: the supervisor executes the program file in its own process, so that its children stay
# its children. The new program has them serve until its own are ready, as at a reload.
#
# A restart: systemd keeps the sockets, and the memory of the current generation (class Store). The
# next supervisor takes both over, and its workers answer first by the snapshot there.
#
# A stop: all generations get the order STOP, and what is left after STOP_LIMIT is killed. Should
# the supervisor die, its children see that they have another parent: that is the order ORPHANED.


# ---- 16. Children, and the memory that they share ------------------------------------------------
TICK = 0.5                # seconds between two looks at timers and heartbeats
LOAD_LIMIT = 60           # seconds reading a config and trying its policy files may take
HEARTBEAT = 3.0           # seconds without a sign of life before a child is killed and replaced
STOP_LIMIT = 2.0          # seconds a worker may take to answer what has been asked before it ends
RETIRE_LIMIT = 60.0       # seconds an old generation may serve its TCP clients after a reload
CRASH_PAUSE = 1.0         # seconds from a child's start to its next, if it ended sooner
NOTICE_MAX = 8192         # octets of why a reload was refused, as the status shows it
STOPS = {signal.SIGTERM, signal.SIGINT}
# Slots of children in the memory of a generation, and other places there, from its end.
LOADER, MONITOR, FIRST_WORKER = 0, 1, 2
DEAF, NEWEST, SERVING, ORDER = -4, -3, -2, -1
DEAF_LIMIT = 1.0          # seconds in which a monitor hears no longer, when it is not to
# Orders. RETIRE: take no more, but go on with TCP clients until they are idle. STOP: answer what
# has come, and end. ORPHANED: end at once, nobody is left who would start a child anew.
RETIRE, STOP, ORPHANED = 1, 2, 3
TIME_LEFT = (math.inf, RETIRE_LIMIT, STOP_LIMIT, 0.0)  # seconds, by order; without one, no limit


# What is counted. A name of COUNTED is that of a number. A tuple of three is that of replies, by
# way: type, rcode, and whether TC is set; a tuple of one is that of replies of the fast path whose
# records a policy chose. Ways are transport and family (as in RFC 7871: 1 = IPv4, 2 = IPv6).
#
# What is dropped has its reasons: `short` for a header, a `response` and no query, too `long`; over
# the `rate` of large replies; no room in the buffer of the `kernel`; a reply that this did not
# `send`. Keys of replies, which are the last ones, begin with REPLIES.
WAYS = (("udp", 1), ("udp", 2), ("tcp", 1), ("tcp", 2))
DROPS = ("short", "response", "long", "rate", "kernel", "send")
# Types that are counted each on its own are those of CoreDNS, whose names of metrics we have.
COUNTED_TYPES = (*"A AAAA ANY AXFR CNAME DNSKEY DS HTTPS IXFR MX NS NSEC NSEC3 PTR RRSIG SOA SRV "
                 "TXT".split(), "other")
COUNTED: list[Any] = [
    *DROPS, "pid", "since", "replies before", "tcp open", "tcp", "answers", "polls", "failed polls",
    "failed checks", "reports", "refused reports", "reloads", "refused reloads",
    "restarted workers", "restarted monitors", "lost lines", ("A",), ("AAAA",),
    *itertools.product(COUNTED_TYPES, wire.RCODES.values(), (False, True))]
COUNTED_KEYS = {kind: number << 48 for number, kind in enumerate(COUNTED, 1)}
DEALT = {wire.A: COUNTED_KEYS["A",], wire.AAAA: COUNTED_KEYS["AAAA",]}
REPLIES, ANSWERS = DEALT[wire.A], 0
RECORD = 2 + len(WAYS)    # numbers of a record: see Counters


def counted_name(whose: str) -> int:
    """Return 48 bits of a key that stand for the zone, the pool or the target of a count."""
    return hash_octets(whose.encode()) >> 16 if whose else 0


# Counts of many Counters, by key and way; and by ANSWERS and its number those of a backend.
Totals = dict[tuple[int, int], int]


class Counters:
    """What one process counts, in memory that the monitor reads, too; whoever takes the place of a
    process that has died goes on counting there.

    The memory holds records in the order in which they were first wanted, and zeros behind the
    last. A record is a key, which is one of COUNTED_KEYS with a `counted_name` added; the number of
    a backend, 0 = it is about none; and the counts by way, of which the first is that of what has
    no ways. The first record has no key: there is counted what finds no room.
    """
    def __init__(self, memory: Any = None) -> None:
        self.cells = memoryview(memory or bytearray(8 * RECORD * COUNTERS_OWN)).cast("Q")
        self.places: dict[tuple[int, int], int] = {}  # key, backend -> place of the first count
        # Records of backends that are gone, in any order: their room may be taken.
        self.idle: dict[tuple[int, int], None] = {}

    def read(self) -> Iterator[tuple[int, int, list[int]]]:
        """Yield keys, backends and counts, also those of earlier processes."""
        for at in range(RECORD, len(self.cells), RECORD):
            key, backend, *counts = self.cells[at:at + RECORD].tolist()
            if not key:
                break
            yield key, backend, counts

    def resume(self) -> None:
        """Go on with what another process has counted."""
        self.places = {(key, backend): RECORD * at + 2
                       for at, (key, backend, _) in enumerate(self.read(), 1)}
        self.idle = dict.fromkeys(record for record in self.places if record[1])

    def place(self, key: int, backend: int = 0) -> int:
        """Return the place in `cells` of the first count of a record."""
        self.idle.pop((key, backend), None)
        if (key, backend) not in self.places:
            self.make(key, backend)
        return self.places.get((key, backend), 2)

    def reply_place(self, answered: Answered) -> int:
        """Return the place of replies like this one."""
        octets, query, reply = answered
        name = wire.show_type(query.qtype) if query.qname else ""
        kind = (name if name in COUNTED_TYPES else "other", wire.RCODES[reply.rcode],
                octets[2] & wire.TC >> 8 != 0)
        return self.place(COUNTED_KEYS[kind] + name_zone(reply.zone))

    def make(self, key: int, backend: int) -> None:
        """Begin a record. Where there is no room, it takes that of a backend that is gone, whose
        counts are added to those of the key alone."""
        at = RECORD * (len(self.places) + 1) + 2
        while at >= len(self.cells):
            if not self.idle:
                return
            stale, _ = self.idle.popitem()
            room = self.places.pop(stale)
            rest = self.places.setdefault((stale[0], 0), room)
            if rest != room:
                for way in range(len(WAYS)):
                    self.cells[rest + way] += self.cells[room + way]
                at = room
                continue
            self.cells[room - 1] = 0  # the first of this key: its record becomes the key's own
            if (key, backend) in self.places:
                return
        self.places[key, backend] = at
        record = array.array("Q", [key, backend] + [0] * len(WAYS))
        self.cells[at - 2:at + len(WAYS)] = memoryview(record)

    def get(self, kind: Any) -> int:
        """Return a number that another process has put here."""
        return next((counts[0] for key, _, counts in self.read() if key == COUNTED_KEYS[kind]), 0)

    def count_replies(self) -> int:
        """Return how many replies were counted here."""
        return sum(sum(counts) for key, _, counts in self.read() if key >= REPLIES)

    def forget(self, backend: int, zone: int) -> None:
        """Let the room of a backend's counts be taken when there is no other."""
        keys = COUNTED_KEYS["answers"], *(key + zone for key in DEALT.values())
        self.idle |= dict.fromkeys((key, backend) for key in keys if (key, backend) in self.places)

    def add(self, kind: Any, number: int = 1, whose: str = "") -> None:
        """Count so many more."""
        self.cells[self.place(COUNTED_KEYS[kind] + counted_name(whose))] += number

    def put(self, kind: Any, number: int) -> None:
        """Replace a number that is none of those that only grow."""
        self.cells[self.place(COUNTED_KEYS[kind])] = number


def name_zone(zone: wire.Zone | None) -> int:
    """Return the `counted_name` of a zone, 0 for none."""
    return counted_name(wire.show_name(zone.apex)) if zone else 0


def make_counters() -> Counters:
    """Return counters in memory that processes share which are forked later."""
    return Counters(mmap.mmap(-1, 8 * RECORD * COUNTERS_MAX))


def make_memory() -> IO[bytes]:
    """Return a file that lies in memory only, and that processes share which inherit it."""
    if sys.platform == "linux":
        return open(os.memfd_create("lbdns"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


class Generation:
    """What the processes of one config share, or the one that reads it: their orders and memory.

    There one of them publishes what the others read: two files, written in turn, and a number that
    says which is newest. Workers look at the number before they answer: nobody needs waking, no
    pipe can fill, and late starters find it here.
    """
    def __init__(self, slots: Sequence[int], run: "Callable[[Child], None]", seed: bytes,
                 counters: Sequence[Counters] = (), files: Sequence[IO[bytes]] = ()) -> None:
        self.slots = slots         # of its children
        self.counters = dict(zip(slots, counters, strict=False))
        self.run = run             # what each of them does
        # The numbers, and the two files that snapshots are written to: those of PARTS.
        self.files = files or [make_memory() for _ in PARTS]
        if not files:
            self.files[0].truncate(8 * (COMMANDS_MAX + max(slots) + 5))
            self.files[1].write(seed)
        numbers = memoryview(mmap.mmap(self.files[0].fileno(), 0)).cast("Q")
        # Process groups of the commands that its monitor runs; 0 = none.
        self.commands = numbers[:COMMANDS_MAX]
        # Numbers, by place:
        #   [slot]     a child's last heartbeat in monotonic milliseconds; 0 = none yet, or it ended
        #   [DEAF]     1 = agents must not be heard any more, 2 = they are not; else 0
        #   [NEWEST]   how often something was published; an odd one stands in the second file
        #   [SERVING]  whether workers may answer
        #   [ORDER]    how all of them are to end; 0 = they go on
        self.shared = numbers[COMMANDS_MAX:]
        self.monitor_died = False  # at least once
        self.seen = 0              # the number of what this process has last read
        self.until = math.inf      # monotonic seconds: when what is left is killed; inf = it serves

    def __del__(self) -> None:
        """Let go of the files, with the last process of it that is known."""
        for file in self.files:
            file.close()

    def publish(self, octets: bytes) -> None:
        """Make this the newest that was published. Only one process may do it. Raises OSError.

        It goes into the file that nobody reads now, and then the number names that file.
        """
        number = self.shared[NEWEST] + 1
        fd = self.files[1 + number % 2].fileno()
        os.ftruncate(fd, 0)
        if os.pwrite(fd, octets, 0) < len(octets):  # a limit of the size of files
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self.shared[NEWEST] = number

    def read(self, limit: int = sys.maxsize) -> bytes:
        """Return the newest that was published, `seed` before the first, or as many octets of it.
        When another is published meanwhile, that one is read."""
        while True:
            self.seen = self.shared[NEWEST]
            fd = self.files[1 + self.seen % 2].fileno()
            octets = os.pread(fd, min(os.fstat(fd).st_size, limit), 0)
            if self.shared[NEWEST] == self.seen:
                return octets

    def news(self) -> Snapshot | None:
        """Return the newest snapshot; None = there is none that this process has not read."""
        return Snapshot.unpack(self.read()) if self.has_news() else None

    def has_news(self) -> bool:
        """Return whether there is a snapshot that this process has not read."""
        return self.shared[NEWEST] != self.seen

    def informed(self) -> bool:
        """Return whether workers have what they need, which is the first snapshot."""
        return self.shared[NEWEST] > 0

    def ready(self, since: float = 0.0) -> bool:
        """Return whether every worker runs, as it showed later than `since` (monotonic seconds)."""
        return all(self.shared[slot] > since * 1000
                   for slot in self.slots if slot >= FIRST_WORKER)

    def end(self, order: int) -> None:
        """Order all of them to end; each looks at least once in WAKE."""
        self.shared[ORDER] = order
        self.until = time.monotonic() + TIME_LEFT[order] + 2 * TICK


def slot_name(slot: int) -> str:
    """Return what people call the process of a slot."""
    return ("loader", "monitor", f"worker {slot - 1}")[min(slot, FIRST_WORKER)]


class Child:
    """A process of a generation: what the supervisor knows of it, and what it shares with that.

    A monitor or worker beats all the time, or it is killed; it asks for orders at least once in
    WAKE, and ends when there is one; it looks for news when it has use for them. Signals are for
    the supervisor: a child has its handlers, which only note them.
    """
    def __init__(self, slot: int, generation: Generation) -> None:
        self.slot, self.generation = slot, generation
        self.counters = generation.counters.get(slot) or Counters()
        self.name = slot_name(slot)
        self.parent = os.getpid()
        self.pid = 0                 # 0 = it does not run
        # How it ended last: exit code, or -number of a signal; None = it never ran to its end.
        self.code: int | None = None
        self.born = -math.inf        # monotonic seconds: when it was last started,
        self.failed = -math.inf      # and when a failure of it was last logged

    def may_log_failure(self) -> bool:
        """Take note of a failure; returns whether to log it, as happens once in LOG_REPEAT. A child
        that fails asks its copy of what the supervisor knows."""
        now = time.monotonic()
        if now - self.failed < LOG_REPEAT:
            return False
        self.failed = now
        return True

    def order(self) -> int:
        """Return how to end: RETIRE, STOP, or ORPHANED where the supervisor is gone; 0 = go on."""
        if os.getppid() != self.parent:
            return ORPHANED
        return self.generation.shared[ORDER]

    def beat(self) -> float:
        """Show a sign of life; returns monotonic seconds."""
        now = time.monotonic()
        self.generation.shared[self.slot] = int(now * 1000) or 1
        return now

    def wait(self, seconds: float) -> bool:
        """Sleep; returns whether there is an order to end."""
        time.sleep(seconds)
        return self.order() != 0


def show_traceback(bug: BaseException) -> str:
    """Return where an error was raised: the innermost functions and their lines, on one line."""
    steps = [f"{frame.f_code.co_name} line {line}"
             for frame, line in traceback.walk_tb(bug.__traceback__)]
    return "; ".join(steps[-4:])


# ---- 17. Sockets, privileges, systemd ------------------------------------------------------------
UDP_BUFFER = 4 << 20      # octets of SO_RCVBUF: 10,000 small queries, half a second at 20,000/s
UDP_BUFFER_LOW = 1 << 20  # less than this is worth a line: a 50 ms stall may lose queries
TCP_BACKLOG = 1024        # connections that wait for accept()
# More numbers of Linux; OMIT: do not trust forged ICMP, as RFC 9715 3.1 wants it.
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IP_PMTUDISC_OMIT = 10, 23, 5
# The form of the memory that outlives a process: another form of Generation.shared, Snapshot or Row
# has another number. Names of descriptors that outlive a process begin with it.
FORM = "1"
KEPT = f"lbdns-{FORM} "
SNAPSHOT_MAX = 1 << 28    # octets of a snapshot that is taken over
PARTS = ("numbers", "even", "odd")  # of a generation's memory
CHILDREN = "LBDNS_CHILDREN"  # of the environment: slot:pid of processes that go on meanwhile
FIRST_HANDED = 3          # the first descriptor that is handed over: SD_LISTEN_FDS_START
HANDED_MAX = 1024         # descriptors that are handed over at most
NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV  # of getnameinfo(3)
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36  # of prctl(2)
# A line of /proc/self/net/udp or tcp: its number, local address and port, remote ones, the state
# (07: bound over UDP, 0A: listening over TCP), five more words, and the inode.
LISTENER = r"^ *\d+: (\w+):%04X \S+ 0[7A](?: +\S+){5} +(\d+)"


class ConfigError(Exception):
    """A config cannot be used, or not on this host; each line of the text is a problem."""


# What comes in at an endpoint, as the kinds of its sockets: queries, over UDP and TCP, for workers;
# or for the monitor reports, over UDP, or requests of HTTP, over TCP.
QUERIES = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
REPORTS = (socket.SOCK_DGRAM,)
REQUESTS = (socket.SOCK_STREAM,)
OF_BEFORE = -1            # in place of an interface


class Endpoint(NamedTuple):
    """An address that is listened on. Two that are equal need no new sockets."""
    host: str       # an IPv4 or IPv6 address, with %interface if it needs one
    port: int       # 0 = the kernel picks one
    both: bool      # whether "::" takes IPv4, too
    interface: int  # number of the one that the host names; 0 = none; OF_BEFORE = of no config
    kinds: tuple[socket.SocketKind, ...]  # QUERIES, REPORTS or REQUESTS


Sockets = dict[Endpoint, tuple[socket.socket, ...]]  # one of each of the endpoint's kinds


def show_endpoint(host: str, port: int | str) -> str:
    """Return host:port, the host of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def endpoints(config: Config) -> Iterator[Endpoint]:
    """Yield what `listen`, `reports` and `status` ask for. "::" leaves IPv4 to the IPv4 addresses
    that stand beside it with the same port; without any, it takes IPv4, too."""
    for listen, kinds in ((config.listen, QUERIES), (config.reports, REPORTS),
                          (config.status, REQUESTS)):
        ipv4 = {port for host, port in listen if ":" not in host}
        for host, port in listen:
            interface = 0
            with suppress(OSError):  # none is named, or it has gone
                interface = socket.if_nametoindex(host.partition("%")[2])
            yield Endpoint(host, port, host == "::" and port not in ipv4, interface, kinds)


def show_endpoints(sockets: Sockets, kinds: Collection[int]) -> list[str]:
    """Return the addresses, with the ports that the kernel has picked, of sockets of some kinds."""
    return [show_bound(socks[0])
            for endpoint, socks in sockets.items() if endpoint.kinds == kinds]


def show_bound(sock: socket.socket) -> str:
    """Return where a socket is bound, as host:port."""
    return show_endpoint(*socket.getnameinfo(sock.getsockname(), NUMERIC))


def show_more(sockets: Sockets) -> str:
    """Say where the monitor listens, if it does."""
    reports = ", ".join(show_endpoints(sockets, REPORTS))
    status = ", ".join(f"http://{each}/" for each in show_endpoints(sockets, REQUESTS))
    return (f"; hears reports on {reports}" if reports else "") + \
        (f"; status on {status}" if status else "")


def bind_beside(endpoint: Endpoint, own: Sockets, parting: bool) -> tuple[socket.socket, ...]:
    """Return the sockets of an endpoint, those of TCP listening, beside those of our own; `parting`
    says that processes of another generation may have others still. Raises OSError.

    The kernel lets addresses overlap that all say so and belong to one user. They say so only here:
    a second server is not to get in unnoticed.
    """
    host, port, both, _, kinds = endpoint
    sharing = [sock for (other, *_), socks in own.items() for sock in socks
               if {host, other} & {"::", "0.0.0.0"} and sock.getsockname()[1] == port]
    with contextlib.ExitStack() as undo:
        found = tuple(undo.enter_context(make_socket(kind, host, both)) for kind in kinds)
        if sharing or parting:
            sharing += found
        try:
            share(sharing, True)
            for sock in found:
                # It knows fe80::1%eth0, too; for text, it would import encodings.idna.
                sock.bind(socket.getaddrinfo(host.encode(), port)[0][4])
                port = sock.getsockname()[1]  # where it was 0, TCP gets the one that UDP got
                if sock.type == socket.SOCK_STREAM:
                    sock.listen(TCP_BACKLOG)
        finally:
            share(sharing, False)
        undo.pop_all()
    return found


def share(socks: Sequence[socket.socket], on: bool) -> None:
    """Let sockets of one user have overlapping addresses, or no longer."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(on))


def has_ipv6() -> bool:
    """Return whether this host has sockets of IPv6."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM):
        return True
    return False


def make_socket(kind: socket.SocketKind, host: str, both: bool) -> socket.socket:
    """Return a socket with all options that are to be set before bind."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
    if sys.platform == "linux" and host not in ("::", "0.0.0.0"):  # it may come later
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    if kind == socket.SOCK_STREAM:  # connections of before, in TIME_WAIT, are no obstacle
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    else:
        set_udp_options(sock, host)
    return sock


def set_udp_options(sock: socket.socket, host: str) -> None:
    """Make room for bursts, learn the addresses that are asked, and ignore forged ICMP."""
    for option in (socket.SO_RCVBUF, SO_RCVBUFFORCE):
        with suppress(OSError):  # Linux has the second, for root, beyond rmem_max
            sock.setsockopt(socket.SOL_SOCKET, option, UDP_BUFFER)
    if host == "::":  # a reply must leave from the address that was asked
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    if sys.platform != "linux":
        return
    if host == "0.0.0.0":
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT)
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_OMIT)


def explain_bind(host: str, port: int, bad: OSError) -> str:
    """Return why an address cannot be had, and what to do about it."""
    why = {errno.EADDRINUSE: f"in use{holders(port)}; stop that, or listen on single addresses of "
                             "this host",
           errno.EACCES: "ports below 1024 need root (at a reload: a restart) or "
                         "CAP_NET_BIND_SERVICE, which lbdns.service has; or listen on 9000 and "
                         "redirect 53 to it",
           errno.EADDRNOTAVAIL: "no interface of this host has that address"}
    return (f"cannot listen on {show_endpoint(host, port)}: "
            f"{why.get(bad.errno or 0, bad.strerror or bad)}")


def holders(port: int) -> str:
    """Return who holds a port, as far as /proc tells it: " by 127.0.0.53:53 (systemd-resolve, pid
    601)"."""
    found = find_listeners(port)
    for link in glob.iglob("/proc/[0-9]*/fd/*"):  # which passes over processes that have ended
        with suppress(OSError):  # ended meanwhile, or not ours to look at
            inode, process = os.readlink(link), pathlib.Path(link).parent.parent
            if inode in found and "(" not in found[inode]:
                name = (process / "comm").read_text(errors="replace").strip()
                found[inode] += f" ({name}, pid {process.name})"
    texts = dict.fromkeys(found.values())
    return " by " + ", ".join(texts) if texts else ""


def find_listeners(port: int) -> dict[str, str]:
    """Return the sockets that are bound to a port, "socket:[inode]" -> "address:port"; those that
    can be learned of: there may be no IPv6, or no /proc at all."""
    tables = ""
    with suppress(OSError):
        for name in ("udp", "tcp", "udp6", "tcp6"):
            tables += pathlib.Path("/proc/self/net", name).read_text()
    found = {}
    for address, inode in re.findall(LISTENER % port, tables, re.MULTILINE):
        words = array.array("I", bytes.fromhex(address))
        octets = struct.pack(f"!{len(words)}I", *words)
        found[f"socket:[{inode}]"] = show_endpoint(str(ipaddress.ip_address(octets)), port)
    return found


class Store:
    """Descriptors that outlive a process: sockets, and the memory of a generation.

    systemd keeps what it is given (FDSTORE of sd_pid_notify_with_fds(3)) over a restart, and passes
    on the sockets of a socket unit; a program that is executed in this process inherits both. All
    of them come as sd_listen_fds(3) describes, each with a name.

    sockets    what was handed over and is not in use yet, with its name
    memory     a generation's, by which of PARTS it is
    mark       the hash of the config whose pools the snapshot there is of
    refused    texts about what cannot be used
    kept       what need not be given to systemd any more: device and inode -> name
    """
    def __init__(self) -> None:
        self.sockets: dict[socket.socket, str] = {}
        self.memory: dict[str, IO[bytes]] = {}
        self.mark = ""
        self.refused: list[str] = []
        self.kept: dict[tuple[int, int], str] = {}
        pid, number, names = (os.environ.pop(f"LISTEN_{word}", "")
                              for word in ("PID", "FDS", "FDNAMES"))
        if not number or pid != str(os.getpid()):  # of a process that has started this one
            return
        if not (number.isdecimal() and int(number) <= HANDED_MAX):
            self.refused.append(f"LISTEN_FDS is {number!r}, and no number up to {HANDED_MAX}")
            return
        fds = range(FIRST_HANDED, FIRST_HANDED + int(number))
        for fd, name in zip(fds, names.split(":") + [""] * len(fds), strict=False):
            try:
                self.take(fd, name)
            except OSError as bad:
                self.refuse(f"descriptor {fd} {name!r}", bad.strerror or str(bad))

    def refuse(self, subject: str, why: str) -> None:
        """Note that something is not used."""
        self.refused.append(f"{subject}, which was handed over, is not used: {why}")

    def take(self, fd: int, name: str) -> None:
        """Take a descriptor. Raises OSError where it is closed, or nothing that can be used."""
        os.set_inheritable(fd, False)
        found = os.fstat(fd)
        key = found.st_dev, found.st_ino
        if key in self.kept:  # another descriptor of the same
            os.close(fd)
            return
        self.kept[key] = name
        if name.startswith(KEPT) and stat.S_ISREG(found.st_mode):
            part, _, self.mark = name.removeprefix(KEPT).partition(" ")
            self.memory[part] = open(fd, "r+b", buffering=0)
            return
        if not stat.S_ISSOCK(found.st_mode):
            os.close(fd)
            raise OSError("it is neither a socket nor the memory of this version")
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(fileno=fd))
            refuse_unfit(sock)
            undo.pop_all()
        self.sockets[sock] = name

    def adopt(self, endpoint: Endpoint) -> tuple[socket.socket, ...]:
        """Return the sockets of an endpoint; () = they were not handed over, or not all."""
        found = []
        with suppress(OSError):  # the host names an interface that is not there
            address = socket.getaddrinfo(endpoint.host.encode(), endpoint.port)[0][4]
            for kind in endpoint.kinds:
                found += [sock for sock in self.sockets
                          if sock.type == kind and sock.getsockname() == address
                          and (endpoint.host != "::" or endpoint.both is not bool(
                              sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)))][:1]
        if len(found) < len(endpoint.kinds):
            return ()
        for sock in found:
            del self.sockets[sock]
            sock.setblocking(False)
            if sock.type == socket.SOCK_DGRAM:
                set_udp_options(sock, endpoint.host)
        return tuple(found)

    def take_rest(self) -> Sockets:
        """Return what an earlier process listened on and the config does not ask for. What others
        have handed over, such as a socket unit, is closed here, and refused."""
        rest: dict[tuple[Any, ...], list[socket.socket]] = {}
        for sock, name in self.sockets.items():
            if name.startswith(KEPT):
                rest.setdefault(sock.getsockname(), []).append(sock)
                continue
            kind = "UDP" if sock.type == socket.SOCK_DGRAM else "TCP"
            self.refuse(f"the socket {name!r} of {kind} at {show_bound(sock)}",
                        "the config does not ask for that, or not for that kind alone")
            sock.close()
        self.sockets.clear()
        found = Sockets()
        for (host, port, *_), socks in rest.items():
            socks.sort(key=lambda sock: QUERIES.index(sock.type))
            kinds = tuple(socket.SocketKind(sock.type) for sock in socks)
            found[Endpoint(host, port, False, OF_BEFORE, kinds)] = tuple(socks)
        return found

    def is_lent(self, sock: socket.socket) -> bool:
        """Return whether a socket is that of a socket unit, which goes on using it."""
        found = os.fstat(sock.fileno())
        return not self.kept.get((found.st_dev, found.st_ino), KEPT).startswith(KEPT)

    def descriptors(self, sockets: Sockets, files: Sequence[IO[bytes]],
                    mark: str) -> dict[tuple[int, int], tuple[int, str]]:
        """Return what is to outlive this process, by device and inode: descriptor and name. `mark`
        is the hash of the config."""
        found = [(file.fileno(), f"{KEPT}{part} {mark}")
                 for part, file in zip(PARTS, files, strict=True)]
        for sock in itertools.chain(*sockets.values()):
            kind = "udp" if sock.type == socket.SOCK_DGRAM else "tcp"
            found.append((sock.fileno(), f"{KEPT}{kind} {show_bound(sock)}".replace(":", "_")))
        all_of = {}
        for fd, name in found:
            at = os.fstat(fd)
            key = at.st_dev, at.st_ino
            all_of[key] = fd, self.kept.get(key, name)  # a socket unit has its own names
        return all_of

    def keep(self, found: dict[tuple[int, int], tuple[int, str]]) -> None:
        """Have systemd keep these, and nothing else. What it was too busy for comes another
        time."""
        for key in self.kept.keys() - found:
            if not notify(f"FDSTOREREMOVE=1\nFDNAME={self.kept[key]}"):
                return  # nothing else of that name may be given to systemd before
            del self.kept[key]
        for key, (fd, name) in found.items():
            if key not in self.kept and notify(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", [fd]):
                self.kept[key] = name


def refuse_unfit(sock: socket.socket) -> None:
    """Raise OSError for a socket on which no queries, reports or requests can come."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise OSError("it is no socket of IPv4 or IPv6")
    if sock.type == socket.SOCK_STREAM:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("it does not listen")
    elif sock.type != socket.SOCK_DGRAM:
        raise OSError("it is of neither UDP nor TCP")
    elif is_connected(sock):
        raise OSError("it is connected to one peer")


def is_connected(sock: socket.socket) -> bool:
    """Return whether a socket hears one peer only."""
    with suppress(OSError):
        sock.getpeername()
        return True
    return False


def drop_privileges(user: str, sockets: Iterable[socket.socket] = ()) -> None:
    """Become `user` for good, when started as root; raises ConfigError. The sockets become the
    user's, too: those of one user may overlap while a reload binds others."""
    if os.geteuid() != 0 or user == "root":
        return
    try:
        _, _, uid, gid, *_ = pwd.getpwnam(user)
        for sock in sockets:
            with suppress(OSError):  # a sandbox forbids it
                os.fchown(sock.fileno(), uid, -1)
        os.initgroups(user, gid)
        os.setresgid(gid, gid, gid)  # real, effective and saved: none leads back
        os.setresuid(uid, uid, uid)
    except (KeyError, OSError) as bad:
        raise ConfigError(f"cannot become user {user!r}: {bad}; name another in `user`") from None


def set_name(name: str) -> None:
    """Call this process so in ps, top and pgrep, which show 15 characters."""
    call_libc("prctl", PR_SET_NAME, name.encode())


def return_memory() -> None:
    """Give freed memory back to the system before processes are forked that share the rest.

    The collector writes to all objects that it looks at, and each page that one process writes to
    is there twice from then on. So it is kept from looking at what exists now.
    """
    gc.unfreeze()  # for what an earlier config has left
    gc.collect()
    gc.freeze()
    call_libc("malloc_trim", 0)


def call_libc(function: str, *words: int | bytes) -> None:
    """Call a function that the C library may have, where it can be called."""
    with suppress(AttributeError, OSError):
        getattr(ctypes.CDLL(None), function)(*words)


def hand_over(found: Sequence[tuple[int, str]]) -> None:
    """Let a program that is executed in this process have these descriptors, by these names."""
    end = FIRST_HANDED + len(found)
    # Out of the way first, since one may have the number that another is to have.
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, end) for fd, _ in found]
    for number, fd in enumerate(copies, FIRST_HANDED):
        os.dup2(fd, number)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(found)),
                      LISTEN_FDNAMES=":".join(name for _, name in found))


def notify_reloading() -> None:
    """Tell systemd that a reload begins, which ends with READY=1."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def notify(lines: str, fds: Sequence[int] = ()) -> bool:
    """Send lines such as READY=1, and descriptors, to systemd (sd_notify(3)), where it listens; one
    that is busy or restarting gets the next ones. Returns whether they were sent."""
    address = re.sub("^@", "\0", os.environ.get("NOTIFY_SOCKET", ""))
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            sock.sendmsg([lines.encode()], rights[:len(fds)], socket.MSG_DONTWAIT, address)
            return True
    return False


# ---- Policies of users: tried in a process of their own, then run by workers ---------------------
Pick = Callable[..., Any]  # a user's function: see Custom
FILES_MAX = 1 << 20        # more descriptors than a process may have
GOOD = "good"              # what is said of a policy file that loads,
TOO_SLOW = "loading it timed out"  # and of one that does not end


def load_policies(config: Config) -> dict[bytes, type[Policy]]:
    """Return the policies of users, by the owners of their pools. Where a function cannot be loaded
    any more, though it could when the config was checked, `unloadable` stands for it."""
    found: dict[bytes, type[Policy]] = {}
    for owner, pool in config.pools.items():
        if pool.policy not in POLICIES:
            found[owner] = Custom
            with suppress(BaseException):
                function = staticmethod(load_function(pool))
                found[owner] = type("Custom", (Custom,), {"function": function})
    return found


def load_function(config: PoolConfig) -> Pick:
    """Return the function behind "file.py:name"; raises Problem, and whatever its code raises."""
    path, _, name = config.policy.rpartition(":")
    space: dict[str, Any] = {"__name__": "lbdns_policy", "__file__": path}
    exec(compile(config.code, path, "exec"), space)
    if not callable(space.get(name)):
        others = [each for each, value in space.items() if callable(value)]
        raise Problem(f"{path} has no function {name}; it has {', '.join(others) or 'none'}")
    return cast(Pick, space[name])


def try_policies(config: Config, child: Child, family: Sequence[Child]) -> None:
    """Load each "file.py:function" once, each in a process of its own; raises ConfigError.

    What these processes start becomes a child of this one when they end, and is killed, too.
    """
    call_libc("prctl", PR_SET_CHILD_SUBREAPER, 1)
    problems: list[str] = []
    for pool in {each.policy: each for each in config.pools.values()
                 if each.policy not in POLICIES}.values():
        said = try_policy(pool, config.user, child, family)
        if said != GOOD:
            problems.append(f'{config.file}: pools."{pool.name}".policy = {pool.policy!r}: {said}')
        if said.startswith(TOO_SLOW):  # more of them might not fit into LOAD_LIMIT
            break
    if problems:
        raise ConfigError("\n".join(problems))


def try_policy(pool: PoolConfig, user: str, child: Child, family: Sequence[Child]) -> str:
    """Load a policy file in a new process, which ends with all that it starts; returns GOOD or what
    is wrong. Of that process, which may be hostile, comes one line of text and nothing else."""
    reading, writing = os.pipe()
    pid = os.fork() or run_policy(pool, user, writing, family)
    os.close(writing)
    os.set_blocking(reading, False)
    said, limit = None, time.monotonic() + START_LIMIT
    with open(reading, "rb", buffering=0) as pipe:
        while said is None and time.monotonic() < limit and not child.wait(WAKE / 10):
            said = pipe.read(LOG_LINE)
        code = kill_family(pid)
    if said is None:
        return f"{TOO_SLOW} after {START_LIMIT:g} s"
    text = printable(said.decode("utf-8", "replace"))
    return text or f"loading it ends the process (code {code})"


def run_policy(pool: PoolConfig, user: str, pipe: int, family: Sequence[Child]) -> NoReturn:
    """Be the process that loads a policy file: give up root, descriptors, shared memory and the
    terminal, then load the policy and write GOOD or what is wrong. Whatever the policy replaces,
    nobody trusts this process with more than text; but it runs as the user that serves, and may do
    to that user's files and processes whatever the user may."""
    try:
        os.setsid()  # no terminal
        set_name("lbdns-policy")
        signal.set_wakeup_fd(-1)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.dup2(pipe, 3)
        os.closerange(4, FILES_MAX)
        for child in family:  # unmaps the memory that others share
            child.generation.shared.release()
            child.generation.commands.release()
        said = GOOD
        try:
            drop_privileges(user)
            call_libc("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
            load_function(pool)
        except BaseException as bad:
            said = blame(bad, pool)
        os.write(3, said.encode("utf-8", "replace")[:LOG_LINE])
    finally:
        os._exit(0)


def kill_family(pid: int) -> int:
    """End a child's process group, then all children of this process until none is left: those of
    children that end become its own, where prctl works. Returns the child's exit code; -N = it
    was ended by signal N."""
    code = 0
    with suppress(ChildProcessError):
        while True:
            kill_group(pid)
            kill_children()
            ended, status = os.waitpid(-1, 0)
            if ended == pid:
                code = os.waitstatus_to_exitcode(status)
    return code


def kill_children() -> None:
    """End the children of this process, as far as /proc names them."""
    with suppress(OSError):
        for child in pathlib.Path("/proc/thread-self/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


class View(NamedTuple):
    """A backend as a user's function sees it: documented fields, none of which can be set."""
    name: str                   # its first address, or its host name
    addresses: tuple[str, ...]  # IPv4 and/or IPv6; or one host name
    weight: float
    connections: int | None     # as of the last report; None = unknown
    max_connections: int | None
    state: str                  # up | drain | down


def question(request: Request) -> types.SimpleNamespace:
    """Return what a user's function sees: name and type asked for, the client's address
    (usually a resolver's), and the client subnet, "192.0.2.0/24"; None = none was sent."""
    query = request.query
    subnet = None
    if query.subnet is not None:
        family, prefix, octets = query.subnet
        octets = octets.ljust(wire.ECS_BITS[family] // 8, b"\0")
        subnet = f"{ipaddress.ip_address(octets)}/{prefix}"
    return types.SimpleNamespace(
        name=wire.show_name(query.key), type=wire.show_type(query.qtype),
        client=plain_address(request.sender), subnet=subnet)


@functools.lru_cache(1000)
def own_address(text: str) -> Backend:
    """Return an address that is no backend's as a backend; raise TypeError for any other text,
    Problem for an address that no client can reach."""
    if not is_address(text):
        raise TypeError(f"it returned {text[:40]!r}, which is neither a backend nor an address")
    return Backend(server_address(text))


def unloadable(query: Any, backends: Any) -> Any:
    """Stand for a user's function that could be loaded when the config was checked, but not now."""
    raise TypeError("it cannot be loaded any more")


class Custom(Random):
    """A user's function. What it raises or returns wrongly is logged, and the query answered at
    random, or SERVFAIL where there are no backends; when it never returns, the worker is replaced
    (HEARTBEAT)."""
    reads_query = True
    needs_backends = False
    function = staticmethod(unloadable)  # each loaded one has a class of its own: `load_policies`

    def ground(self) -> Ground | None:
        """Return None: nobody can say what the function will do."""
        return None

    def holds(self, backends: list[Backend], limited: bool) -> bool:
        """Say no: the function sees what each snapshot says."""
        return False

    def prepare(self, backends: list[Backend], limited: bool) -> None:
        """Make the views that the function gets."""
        super().prepare(backends, limited)
        self.views = [View(each.addresses[0], each.addresses, each.weight, each.connections,
                           each.max_connections, each.state) for each in backends]
        self.named = {each.addresses[0]: each for each in backends}

    def pick(self, request: Request, count: int) -> list[Backend] | None:
        """Return what pick(query, backends) returns: a backend, an address as text, several of
        them, or None = SERVFAIL. Addresses of the other family are no answer to this type."""
        try:
            chosen = self.call(request)
        except BaseException as bad:  # SystemExit and MemoryError of theirs are not ours
            chosen = super().pick(request, count) if self.backends else None
            self.pool.log.trouble(
                "policy", f"pool {self.pool.config.name}: {self.pool.config.policy}",
                f"{blame(bad, self.pool.config)}; answering "
                f"{'at random' if chosen else 'SERVFAIL'}")
            return chosen
        if chosen is None:
            return None
        return [each for each in chosen if self.rtype in each.rdata][:count]

    def call(self, request: Request) -> list[Backend] | None:
        """Return what the function returns, as backends. Raise whatever it raises, and TypeError
        for what is no answer."""
        named = self.named
        below = self.below_limit
        if below is not None:
            named = {name: each for name, each in named.items() if each in below}
        views = [view for view in self.views if view.name in named]
        result = self.function(question(request), views)
        if result is None:
            return None
        if isinstance(result, View) or not isinstance(result, (list, tuple)):
            result = [result]
        found = [self.find_backend(each, named) for each in result[:ROWS_MAX]]
        if not found:
            raise TypeError("it returned no backend; None is for SERVFAIL")
        return found

    def find_backend(self, value: Any, named: Mapping[str, Backend]) -> Backend:
        """Return the backend that a function means, by its view (which may be one of an earlier
        call), its name or its address; raise TypeError for what is none of these."""
        name = value.name if isinstance(value, View) else value
        if name in named:
            return named[name]
        if isinstance(value, str):
            return own_address(value)
        raise TypeError("it returned something that is neither a backend nor an address")


def blame(bad: BaseException, config: PoolConfig) -> str:
    """Say what a policy's code raised, and the last line of its file that led there."""
    if isinstance(bad, Problem):
        return str(bad)
    path = config.policy.rpartition(":")[0]
    at = bad.__traceback__
    lines = [bad.lineno] if isinstance(bad, SyntaxError) and bad.filename == path else []
    while at is not None:
        if at.tb_frame.f_code.co_filename == path:
            lines.append(at.tb_lineno)
        at = at.tb_next
    place = f" ({path}:{lines[-1]})" if lines else ""
    return show_error(bad) + place


def show_error(bad: BaseException) -> str:
    """Say what was raised, which may be of a user's class and fail to say so."""
    try:
        return f"{type(bad).__name__}: {bad}"
    except BaseException:
        return "an error that cannot be shown"


# ---- 18. The supervisor --------------------------------------------------------------------------
class Supervisor:
    """Binds, drops privileges, forks, waits.

    It parses nothing but what its own children publish, and serves nobody: configs come checked, so
    there is nothing here for bad input to break.
    """
    def __init__(self, read: Callable[[], Config], reloads: bool) -> None:
        self.store = Store()
        self.read = read                         # reads and checks the config, in the loader
        self.reloads = reloads                   # whether there is a file that it reads
        self.log = Log()
        self.secret = os.urandom(16)             # of State,
        self.limits = mmap.mmap(-1, 8 * LIMIT_CELLS)  # as are these, which all workers share
        self.config: Config                      # the one that is served,
        self.current: Generation                 # and the processes that do so
        self.children: list[Child] = []          # also those that get ready, and those that end
        self.sockets: Sockets = {}               # of what they listen on, but those that end
        self.least_buffer = UDP_BUFFER_LOW       # octets; less is logged
        self.has_left = False                    # whether systemd may hold others for a moment
        self.counters = make_counters()          # of this process,
        self.shared = [self.counters]            # and of all that ever ran
        self.drops: dict[socket.socket, int] = {}  # datagrams for which a buffer had no room
        self.notice = mmap.mmap(-1, NOTICE_MAX)  # why the last reload was refused; zeros = was not
        self.signals: set[int] = set()           # that came and are not dealt with
        # All in monotonic seconds:
        self.tended = math.inf                   # when children were last looked at
        self.woken = 0.0                         # when this process was last awake after a pause
        self.fed = math.inf                      # when systemd's watchdog was; inf = is not yet
        # systemd gives microseconds; the watchdog is fed four times as often.
        usec = os.environ.get("WATCHDOG_USEC", "")
        self.watchdog = int(usec) / 4e6 if usec.isdecimal() else math.inf
        self.wake, signalled = os.pipe()         # readable with every signal: select() returns
        os.set_blocking(signalled, False)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the loop, which asks who ended

    def run(self, banner: str) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code. Raises ConfigError, OSError."""
        self.begin(banner)
        while not self.signals & STOPS:
            self.keep()
            self.tend(TICK / 2)
            for each in self.signals - STOPS:
                self.signals.discard(each)
                if each == signal.SIGHUP:
                    self.reload()
                elif each == signal.SIGUSR2:
                    self.upgrade()
                else:
                    name = signal.Signals(each).name
                    self.log.change("signal", f"{name}: means nothing to lbdns")
            snapshot = self.current.news()
            if snapshot and snapshot.status:  # else nothing is watched
                notify(f"STATUS={snapshot.status}")
        return self.stop()

    def begin(self, banner: str) -> None:
        """Read the config, listen, and start the first processes. Raises ConfigError, OSError."""
        self.catch_signals()
        set_name("lbdns")
        self.log.counters = self.counters
        self.counters.put("since", int(time.time()))
        before = self.inherit()
        self.config = self.read_config()
        self.log.configure(self.config)
        self.prepare()
        if before and not self.is_good(before):
            before = None
        names = show_endpoints(self.sockets, QUERIES) or ["new addresses"]
        handed = "; goes on with what was handed over" if before else ""
        workers = wire.plural(self.config.workers, "worker")
        banner = show_more(self.sockets) + handed + banner.format(port=names[-1].rpartition(":")[2])
        self.log.change("start", f"lbdns {VERSION}, {workers}, on {', '.join(names)}{banner}")
        self.start(before)

    def catch_signals(self) -> None:
        """Take note of signals from now on; they were blocked so far, so that none came too early.
        `run` and `tend_until` look at what has come."""
        for number in SIGNALS:
            # nohup keeps a server going whose terminal is gone.
            if self.reloads or signal.getsignal(number) != signal.SIG_IGN or number in STOPS:
                signal.signal(number, lambda number, frame: self.signals.add(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def prepare(self) -> None:
        """Do what needs root, if started as root, and give that up. Raises ConfigError."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):  # a sandbox forbids it: with what there is
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for endpoint in endpoints(self.config):
            socks = self.store.adopt(endpoint)
            if endpoint.both and not socks and not has_ipv6():
                socks = self.store.adopt(endpoint._replace(host="0.0.0.0"))
            if socks:
                self.sockets[endpoint] = socks
                self.warn_of_buffer(socks)
        rest = self.store.take_rest()
        for text in self.store.refused:
            self.log.warning("handed-over", text)
        self.sockets |= rest
        if not self.children:  # else there are processes that answer until others can
            self.has_left = bool(rest)
            for sock in itertools.chain(*rest.values()):
                with suppress(OSError):  # addresses may overlap where all belong to one user
                    os.fchown(sock.fileno(), os.geteuid(), -1)
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # of TCP, wherever it is held
            self.unbind(endpoints(self.config), True)
            self.bind(self.config, QUERIES, REPORTS, REQUESTS)
            self.has_left = False
        if os.geteuid() == 0 and self.reloads:  # later, `user` may not read Python's files
            import_for_monitor()
        drop_privileges(self.config.user, itertools.chain(*self.sockets.values()))

    def bind(self, config: Config, *what: tuple[socket.SocketKind, ...]) -> None:
        """Listen also on those addresses of a config that are not taken yet, for what is named of
        QUERIES, REPORTS and REQUESTS. Raises ConfigError."""
        for endpoint in endpoints(config):
            if endpoint.kinds in what and endpoint not in self.sockets:
                socks = self.bind_endpoint(endpoint)
                if socks:
                    self.sockets[endpoint] = socks

    def bind_endpoint(self, endpoint: Endpoint) -> tuple[socket.socket, ...] | None:
        """Return the sockets of an endpoint; None = a system without IPv6 can do without them.
        Raises ConfigError.

        All workers share them: whoever is free takes the next datagram, so that a worker that
        stalls or dies loses nobody's query (measured beside SO_REUSEPORT: README).
        """
        host, port, both, _, kinds = endpoint
        generations = {child.generation for child in self.children}
        try:
            socks = bind_beside(endpoint, self.sockets, self.has_left or len(generations) > 1)
        except OSError as bad:
            if host == "::" and bad.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                self.log.change("no-ipv6", "no IPv6 on this host: listening on IPv4 only")
                either = Endpoint("0.0.0.0", port, False, 0, kinds)
                return self.bind_endpoint(either) if both else None
            if port == 0 and bad.errno == errno.EADDRINUSE:  # the other protocol's port is taken
                return self.bind_endpoint(endpoint)
            raise ConfigError(explain_bind(host, port, bad)) from None
        self.warn_of_buffer(socks)
        return socks

    def warn_of_buffer(self, socks: Sequence[socket.socket]) -> None:
        """Log once that the first of an endpoint's sockets has little room, if it is of UDP. That
        is so wherever nobody has tuned the system, and matters to busy servers alone."""
        size = socks[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        if size < self.least_buffer and socks[0].type == socket.SOCK_DGRAM:
            self.least_buffer = 0
            self.log.change("udp-buffer", f"UDP: a receive buffer of {size} octets; on a busy "
                            f"server raise net.core.rmem_max to {UDP_BUFFER}")

    def unbind(self, kept: Iterable[Endpoint], everywhere: bool) -> None:
        """Let go of all endpoints but these, in this process; if `everywhere`, they take no more in
        others, either, and are in nobody's way: a UDP socket that is connected to itself keeps what
        waits, for the processes that end, and hears nobody else."""
        for endpoint in self.sockets.keys() - set(kept):
            socks = self.sockets.pop(endpoint)
            if everywhere:
                share(socks, True)
                if socks[0].type == socket.SOCK_DGRAM and not self.store.is_lent(socks[0]):
                    with suppress(OSError):  # an address that this host has not
                        socks[0].connect(socks[0].getsockname())
            for sock in socks:
                sock.close()

    def announce(self, code: str, what: str) -> None:
        """Tell people and systemd that the current config is served."""
        for warning in self.config.warnings:
            self.log.warning("config", warning)
        self.log.change(code, what)
        self.current.seen, self.fed = 0, 0.0  # systemd then gets the snapshot's status, too
        self.keep()
        notify(f"READY=1\nSTATUS={what}")

    def tend(self, seconds: float) -> None:
        """Do one pass, also while something is awaited: wait for a signal, write the log, see to
        children that ended, should start, or show no sign of life; feed systemd's watchdog."""
        self.log.flush()
        if select.select([self.wake], [], [], seconds)[0]:
            os.read(self.wake, 512)
        ended: dict[int, int] = {}  # pid -> status, also of what is no child of a generation
        with suppress(ChildProcessError):  # there is none
            ended.update(iter(lambda: os.waitpid(-1, os.WNOHANG), (0, 0)))
        now = time.monotonic()
        if now - self.tended > HEARTBEAT / 2:  # all were stopped, perhaps: they need time, too
            self.woken = now
        self.tended = now
        for child in self.children:
            if child.pid in ended:
                self.on_death(child, ended[child.pid])
            self.look_after(child, now)
        self.children = [child for child in self.children
                         if child.pid or child.generation.until == math.inf]
        self.count_drops()
        if now - self.fed > self.watchdog and self.current.ready(self.fed):
            self.fed = now
            notify("WATCHDOG=1")

    def count_drops(self) -> None:
        """Count the datagrams that were lost since the kernel had no room for them. Other systems
        than Linux do not say."""
        drops: dict[socket.socket, int] = {}
        for sock in itertools.chain(*self.sockets.values()):
            if sock.type == socket.SOCK_DGRAM and sys.platform == "linux":
                numbers = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36)
                drops[sock] = int.from_bytes(numbers[32:], sys.byteorder)
                self.counters.add("kernel", drops[sock] - self.drops.get(sock, 0) & 0xFFFFFFFF)
        self.drops = drops

    def tend_until(self, condition: Callable[[], bool], limit: float = math.inf) -> bool:
        """Tend until something is the case; returns False if a signal to stop, or the time `limit`
        (monotonic seconds), comes first."""
        while not condition():
            if self.signals & STOPS or time.monotonic() > limit:
                return False
            self.tend(TICK / 50)
        return True

    def look_after(self, child: Child, now: float) -> None:
        """Start a child that should run and does not, kill one that runs and should not.

        A child is silent when its last heartbeat is too long ago; before the first, it has
        START_LIMIT more. Time in which this process did not run itself does not count.
        """
        generation = child.generation
        serving = generation.until == math.inf
        if not child.pid:
            if serving and now >= child.born + CRASH_PAUSE:
                self.start_child(child, now)
            return
        beat = generation.shared[child.slot] / 1000 or child.born + START_LIMIT
        silent = serving and now - max(beat, self.woken) > HEARTBEAT
        if silent:
            self.log_silence(child, now - beat)
            child.beat()  # it may take a while to end
        if silent or now > generation.until:
            os.kill(child.pid, signal.SIGKILL)

    def log_silence(self, child: Child, seconds: float) -> None:
        """Log that a child gave no sign of life, with what may hold it up."""
        text = f"{child.name} gave no sign of life for {seconds:.0f} s"
        if child.slot >= FIRST_WORKER:
            for pool in self.config.pools.values():
                if pool.policy not in POLICIES:
                    text += f"; does {pool.policy}, the policy of {pool.name}, ever end?"
        self.log.error("child-silent", text)

    def start_child(self, child: Child, now: float) -> None:
        """Fork a child. Where that fails, it is tried again after the pause, as after a crash."""
        child.born = now
        self.log.flush()  # or the child would print it once more
        try:
            child.pid = os.fork() or self.be_child(child)
        except OSError as bad:  # no more processes or memory
            self.log.trouble("child-start", "starting a process", f"{bad.strerror}; {MORE_TASKS}")

    def be_child(self, child: Child) -> NoReturn:
        """Do all that a child does, in the child, and end it and the commands that it runs.

        This never returns, whatever happens: the code behind the fork is the supervisor's.
        """
        code = 1
        set_name(f"lbdns-{child.name.replace(' ', '-')}")
        generation = child.generation
        generation.seen = 0
        self.log.counters = child.counters
        child.counters.resume()
        child.counters.put("pid", os.getpid())
        child.counters.put("since", int(time.time()))
        child.counters.put("replies before", child.counters.count_replies())
        try:
            generation.run(child)
            code = 0
        except BaseException as bug:
            if child.may_log_failure():
                where = show_traceback(bug)
                self.log.error("child-failed", f"{child.name} fails: {bug!r} in {where}")
        finally:
            self.log.flush()
            if child.slot == MONITOR:
                kill_groups(generation.commands)
            os._exit(code)

    def serve(self, config: Config, kept: Collection[Endpoint], child: Child) -> None:
        """Do what the monitor or a worker does, until an order to end has come."""
        self.log.configure(config)
        if child.slot == MONITOR:
            # A listener for queries that only a monitor holds would answer nobody.
            self.unbind({each for each in kept if each.kinds != QUERIES}, False)
            ears, doors = ([sock for each, [sock] in self.sockets.items() if each.kinds == kinds]
                           for kinds in (REPORTS, REQUESTS))
            # The second is, at a reload, the config before.
            shared = Shared(ears, doors, self.shared, self.notice)
            monitor(config, self.config, child, self.log, shared)
            return
        self.unbind({each for each in kept if each.kinds == QUERIES}, False)
        state = State(config, self.secret, self.log, random.random, load_policies(config),
                      child.counters, self.limits)
        worker = Worker(state, self.sockets, child, self.log)
        while not child.generation.shared[SERVING] and not child.wait(WAKE / 10):
            worker.catch_up()
            child.beat()
        worker.run()

    def on_death(self, child: Child, status: int) -> None:
        """Take note that a child has ended: end what it has left behind, and log its end unless
        that was to come. `look_after` starts it anew."""
        generation = child.generation
        code, child.pid = os.waitstatus_to_exitcode(status), 0
        child.code = code
        generation.shared[child.slot] = 0
        child.counters.resume()
        child.counters.put("pid", 0)
        child.counters.put("tcp open", 0)
        if child.slot == MONITOR:
            kill_groups(generation.commands)
            generation.monitor_died = True
        if generation.until < math.inf or not (code < 0 or child.may_log_failure()):
            return
        try:
            how = signal.Signals(-code).name
        except ValueError:  # those of real time have no name
            how = f"signal {-code}" if code < 0 else f"code {code}"
        lived = time.monotonic() - child.born
        self.counters.add("restarted monitors" if child.slot == MONITOR else "restarted workers")
        self.log.error("child-died",
                       f"{child.name} ended by {how} after {lived:.1f} s; replaced")

    def make_generation(self, config: Config, seed: bytes) -> Generation:
        """Return the processes of a config, none of which runs yet. `seed` is the snapshot that its
        monitor goes on from; where nothing can change, it is published: workers wait for no other.
        A monitor is there to watch, and to serve the status."""
        is_any_watched = any(map(is_watched, config.pools.values()))
        first = MONITOR if is_any_watched or config.status else FIRST_WORKER
        run = functools.partial(self.serve, config, set(endpoints(config)))
        return_memory()
        slots = range(first, FIRST_WORKER + config.workers)
        new = Generation(slots, run, seed if is_any_watched else Snapshot().pack(),
                         self.free_counters(len(slots)))
        new.shared[NEWEST] = 0 if is_any_watched else 2  # the seed is in the file of even numbers
        return new

    def inherit(self) -> Generation | None:
        """Return the generation whose memory was handed over; None = there is none. Its processes
        are children of this one, if they still run. Until `start`, none is replaced."""
        memory, words = self.store.memory, os.environ.pop(CHILDREN, "").split()
        found, pids = None, dict[int, int]()
        try:
            pids = {int(slot): int(pid) for slot, _, pid in (word.partition(":") for word in words)}
            if memory:
                found = Generation([*pids] or [FIRST_WORKER], lambda child: None, b"",
                                   self.free_counters(len(pids)), [memory[each] for each in PARTS])
        except (LookupError, ValueError, TypeError, OSError) as bad:
            self.store.refuse("the memory", show_error(bad))
        for slot, pid in pids.items():
            with suppress(ChildProcessError):  # it has ended, and this has noticed
                if os.waitpid(pid, os.WNOHANG)[0]:
                    continue
                if not found:  # nobody can tell them to end
                    os.kill(pid, signal.SIGKILL)
                    continue
                child = Child(slot, found)
                child.pid, child.born = pid, time.monotonic()
                self.children.append(child)
        if found and self.children:
            self.current, self.fed = found, 0.0
            found.until = time.monotonic() + LOAD_LIMIT + START_LIMIT
        return found

    def is_good(self, before: Generation) -> bool:
        """Return whether the snapshot that was handed over can be read. This is not asked as root:
        a monitor has written it. The processes that have another one end."""
        try:
            check_snapshot(before.read(SNAPSHOT_MAX))
        except Exception as bad:  # whatever lies there: the server starts without
            self.log.warning("handed-over", "the memory, which was handed over, is not used: it is "
                             f"not of this version ({show_error(bad)})")
            for child in self.children:
                os.kill(child.pid, signal.SIGKILL)
            self.tend_until(lambda: not self.children)
            self.unbind(endpoints(self.config), True)
            self.bind(self.config, QUERIES, REPORTS, REQUESTS)
            return False
        return True

    def free_counters(self, number: int) -> list[Counters]:
        """Return counters that no process has; they go on with what others have counted there."""
        taken = {each for child in self.children for each in child.generation.counters.values()}
        while len(self.shared) - 1 - len(taken) < number:
            self.shared.append(make_counters())
        return [each for each in self.shared[1:] if each not in taken][:number]

    def start(self, before: Generation | None) -> None:
        """Start the first processes; returns when they serve, or a signal to stop has come. They
        are a reload's where those of `before` serve.

        As no others serve otherwise, each worker answers as soon as it can. It waits for the first
        snapshot, but only until the monitor has died once, or until WAIT_LIMIT. That of `before`
        will do if the pools are the same.
        """
        if before and self.children:
            # A copy: the monitor takes another object for a reload.
            config, self.config = self.config, self.config._replace()
            before.run, before.until = functools.partial(
                self.serve, self.config, list(self.sockets)), math.inf
            self.renew(lambda: config, "upgrade", "upgraded", "processes stay")
            return
        limit = time.monotonic() + WAIT_LIMIT
        new = self.current = self.make_generation(
            self.config, before.read() if before else Snapshot().pack())
        if before and self.store.mark == self.config.hash:
            new.shared[NEWEST] = 2
        self.children += [Child(slot, new) for slot in new.slots]
        self.tend_until(lambda: new.informed() or new.monitor_died, limit)
        new.shared[SERVING] = 1
        if self.tend_until(new.ready):
            self.announce("ready", "ready")

    def replace(self, config: Config) -> Generation:
        """Start the processes of another config; returns them when they serve. Raises ConfigError,
        also when they do not in START_LIMIT.

        The monitor comes first, with all that it listens on. When it has published a snapshot, new
        addresses for queries are bound, for nobody answers there before, and the workers start,
        which answer once all are ready.
        """
        limit = time.monotonic() + START_LIMIT
        self.deafen()
        new = self.make_generation(config, self.current.read())
        children = [Child(slot, new) for slot in new.slots]
        try:
            self.bind(config, REPORTS, REQUESTS)
            self.children += children[:-config.workers]
            if self.tend_until(new.informed, limit):
                self.bind(config, QUERIES)
                self.children += children[-config.workers:]
            if not self.tend_until(new.ready, limit):
                raise ConfigError("the new processes did not get ready")
        except ConfigError:
            new.until = 0.0
            raise
        new.shared[SERVING] = 1
        return new

    def read_config(self) -> Config:
        """Return the config that a child has read and checked, with its policies. Raises
        ConfigError with what is wrong, or OSError where that child failed.

        The child runs no code of a user, so what it publishes can be trusted. A reader that never
        ends is killed after LOAD_LIMIT, and a stop need not wait for it.
        """
        loader = self.run_loader(self.read_and_publish)
        octets = loader.generation.read()
        if not octets:
            raise ChildProcessError("the process that reads the config and tries its policies did "
                                    f"not start, failed, was killed, or took over {LOAD_LIMIT} s")
        result: Config | ConfigError = pickle.loads(octets)  # of our own child, this very program
        if isinstance(result, ConfigError):
            raise result
        return result

    def deafen(self) -> None:
        """Have the monitor publish all that it has heard of agents, and hear no more."""
        if self.config.reports and MONITOR in self.current.slots:
            self.current.shared[DEAF] = 1
            self.tend_until(lambda: self.current.shared[DEAF] == 2, time.monotonic() + DEAF_LIMIT)

    def run_loader(self, run: Callable[[Child], None]) -> Child:
        """Run a function in a child in the loader's slot; return that when it has ended, or was
        killed, after LOAD_LIMIT, or a while after an order to stop."""
        new = Generation([LOADER], run, b"")
        loader = Child(LOADER, new)
        self.children.append(loader)
        self.tend(0)  # starts it,
        new.until = time.monotonic() + LOAD_LIMIT  # and only once
        while loader.pid:
            self.tend(TICK / 2)
            if self.signals & STOPS and not new.shared[ORDER]:
                new.end(STOP)
        return loader

    def read_and_publish(self, child: Child) -> None:
        """Do what the loader does: publish the config, or what is wrong with it, as octets that
        `read_config` turns back."""
        signal.alarm(LOAD_LIMIT)  # ends a file that never does, even with nobody to see it
        call_libc("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
        result: Config | ConfigError
        try:
            result = self.read()
            try_policies(result, child, self.children)
            drop_privileges(result.user)  # to see that it can be done
        except ConfigError as bad:
            result = bad
        child.generation.publish(pickle.dumps(result))

    def reload(self) -> None:
        """Replace the config by a new one, checked, in new processes; the old ones serve until the
        new ones do.

        In any case systemd hears READY at the end, with what has become of it.
        """
        if not self.reloads:  # the terminal has hung up
            self.log.change("signal", "SIGHUP: ends, since there is no config file to read anew")
            self.signals.add(signal.SIGTERM)
            return
        notify_reloading()
        self.renew(self.read_config, "reload", "reloaded", "config stays")

    def renew(self, read: Callable[[], Config], doing: str, done: str, what: str) -> None:
        """Replace config and processes, and log what is wrong. The words are for the log: reload,
        reloaded, and what stays where that is refused."""
        kept = list(self.sockets)
        try:
            config = read()
            new = self.replace(config)
        except (ConfigError, OSError) as bad:
            self.counters.add("refused reloads")
            octets = str(bad).encode("utf-8", "replace")  # names of files may be anything
            self.notice[:] = octets[:NOTICE_MAX].ljust(NOTICE_MAX, b"\0")
            for line in str(bad).splitlines():
                self.log.error("reload-refused", f"{doing}: {line}")
            self.unbind(kept, True)
            self.current.shared[DEAF] = 0
            self.announce("reload-refused", f"{doing}: refused; the old {what} in force")
        else:
            self.log.configure(config)
            if config.user != self.config.user:
                self.log.warning("restart", "a new `user` needs a restart")
            self.counters.add("reloads")
            self.notice[:] = bytes(NOTICE_MAX)
            before, self.config, self.current = self.current, config, new
            self.unbind(endpoints(config), True)
            before.end(RETIRE)
            self.announce("reload", f"{done}: {show_size(config)}")

    def descriptors(self) -> dict[tuple[int, int], tuple[int, str]]:
        """Return what is to outlive this process."""
        return self.store.descriptors(self.sockets, self.current.files, self.config.hash)

    def keep(self) -> None:
        """Have systemd keep what is to outlive this process, where systemd is."""
        if "NOTIFY_SOCKET" in os.environ:
            self.store.keep(self.descriptors())

    def upgrade(self) -> None:
        """Execute the program file anew, in this very process, whose children go on until those of
        the new program are ready. First a child executes its command `check`, or, where there is no
        config file, looks whether it is a program at all; if that ends with an error, this one
        stays."""
        self.log.change("upgrade", "SIGUSR2: tries the program file, to execute it in this process")
        words = sys.orig_argv[:len(sys.orig_argv) - len(sys.argv) + 1]
        trial = [*words, "--form", FORM]
        trial += ["check", *sys.argv[1:]] if self.reloads else ["--version"]
        loader = self.run_loader(lambda child: self.execute_quietly(trial))
        if self.signals & STOPS:
            return
        if loader.code != 0:
            self.log.error("upgrade", f"refused, this program goes on; see {' '.join(trial)}")
            return
        notify_reloading()
        self.keep()
        self.log.flush()
        # Those of earlier generations end by themselves, and nobody waits for them any more.
        children = [f"{child.slot}:{child.pid}" for child in self.children
                    if child.pid and child.generation is self.current]
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for each in self.signals:  # for the new program
            os.kill(os.getpid(), each)
        signal.set_wakeup_fd(-1)  # SIGCHLD would write to what gets the number of the pipe
        hand_over([*self.descriptors().values()])
        os.execve(sys.executable, sys.orig_argv, {**os.environ, CHILDREN: " ".join(children)})

    def execute_quietly(self, words: list[str]) -> NoReturn:
        """Execute a command line with the Python that runs this. What it says would stand raw among
        the lines of the log: people can call it themselves."""
        if not os.access(sys.executable, os.X_OK):
            self.log.error("upgrade", f"this user may not execute {sys.executable}")
        self.log.flush()
        for fd in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        try:
            os.execv(sys.executable, words)
        except OSError:
            os._exit(1)

    def stop(self) -> int:
        """End all children, politely first; returns the exit code. A second signal ends them at
        once."""
        notify("STOPPING=1")
        self.signals.clear()
        self.deafen()  # what was heard last is known after a restart
        for child in self.children:
            child.generation.end(STOP)
        while self.children:
            self.tend(TICK / 5)
            if self.signals:
                for child in self.children:
                    child.generation.until = 0.0
        self.log.change("stopped", "stopped")
        self.log.flush()
        return 0


# ==== V  The operator: terminal and config files ==================================================
# And the agent, which is no process of a server, but runs alone on a backend: it asks the kernel
# for numbers of connections, and sends them.


# ---- 19. The log: never blocks, counts what it cannot write --------------------------------------
# The log must never cost an answer. So lines gather in memory, and each process calls `flush` when
# it has time. A write never waits for the program that reads the log: lines for which that has no
# room are dropped, and the next line that gets out says how many were. Of trouble that is seen at
# each query or each poll, one line in LOG_REPEAT seconds is enough.
#
# Each kind of line has a code: a word that stays as it is for ever, whatever becomes of the text.
# Lines of JSON show it, and `lbdns.py explain log` prints LOG_CODES.
LOG_LINE = 4000           # octets of a log line; up to PIPE_BUF (4096) a write is all or nothing
LOG_REPEAT = 60.0         # seconds in which the same trouble is counted instead of printed
LOG_CODES = {  # of each code: severities, what the line says, and what to do
    "start": ("change", "version, workers, and the addresses that are listened on", "nothing"),
    "ready": ("change", "from now on queries are answered", "nothing"),
    "config": ("warning", "what is served, though hardly as it is meant",
        "mend what the line says"),
    "reload": ("change", "the new config is in force, or after SIGUSR2 the new program", "nothing"),
    "reload-refused": ("error, change",
        "the new config is refused, and the one before stays in force",
        "mend what the lines say, try it with `lbdns.py check`, and reload again"),
    "backend": ("change",
        "a backend's state, `old -> new`, why, and for how long it was otherwise; or that it is "
        "new; or drained, so that no resolver hands it out any more",
        "see the reason. `no good report of its agent`: `systemctl status lbdns-agent` on that "
        "host, `report-refused` here, and the way to the UDP port of `reports`"),
    "last-resort": ("error",
        "no backend is up, at least for one family of addresses, so `all_down` answers; or too "
        "few are, so checks are ignored (`min_up`)",
        "see why each is down. If they do serve, mend the pool's check, or set `min_up`"),
    "limits": ("error",
        "all backends are at `max_connections`, with what answers since their reports bring",
        "add backends, or raise the limits"),
    "poll": ("error",
        "a pool's table or command fails, or no agent has reported; the last good rows are "
        "answered",
        "mend what the line names"),
    "load-unknown": ("error",
        "the load is unknown, as no report is young enough; so backends are picked by weight "
        "alone. Or that of single backends is, which count as the median",
        "see whether the agents run (or what writes the table), whether this host can hear them, "
        "and the lines with `poll`; or their clock is behind"),
    "load-frozen": ("error",
        "reports of these backends stay the same, though answers go there; they count as the "
        "median",
        "see whoever counts their connections"),
    "rows-ignored": ("error", "how many rows break the rules, with one of them and its rule",
        "mend that row"),
    "rows-merged": ("error", "several rows are about one backend, and were added up",
        "leave one of them, unless that is meant"),
    "pool-rows": ("change",
        "how many backends a pool has, and how many are up, when that is known first; or for "
        "which row or report it waits",
        "where it waits: write the row that the line shows, or start the agents"),
    "report-refused": ("warning",
        "a backend's agent has a wrong key, pool, address or clock, or a stranger tries",
        "what the line says; the backend's own log cannot tell"),
    "two-agents": ("error", "two hosts, or two agents on one, say that they are one address",
        "give each its own `--address`"),
    "checks": ("error",
        "health checks that cannot be made, for a reason of this host; they count for nothing",
        "mend what the line names: a program, a route, the limit of descriptors"),
    "policy": ("error",
        "what the function of a policy file raised or returned wrongly; the answer was one at "
        "random, or SERVFAIL",
        "mend the line of the file that it names"),
    "child-died": ("error", "a process ended, and was replaced; the others went on",
        "again and again: report it, with the lines around. SIGKILL that nobody sent is the "
        "system's, out of memory"),
    "child-silent": ("error", "a process gave no sign of life, and is replaced",
        "does the policy that the line names end? Was the host overloaded? Else report it"),
    "child-failed": ("error", "a process fails, and by which error",
        "report it, unless the system is at fault, such as a full disk"),
    "child-start": ("error", "no process can be started; it is tried each second",
        "raise `TasksMax` of the unit, or memory"),
    "socket": ("error", "receiving queries or accepting connections fails again and again",
        "mend what the line names; `Too many open files`: raise `LimitNOFILE` of the unit"),
    "http": ("error", "no connection can be accepted at `status`",
        "mend what the line names; `Too many open files`: raise `LimitNOFILE` of the unit"),
    "internal-error": ("error",
        "a mistake in lbdns, and the query that shows it, if that is known; at most what came "
        "with it is lost, and the others go on",
        "report the line"),
    "log-lost": ("warning", "how many lines were dropped, as their reader was too slow",
        "log less than `queries`, or read faster"),
    "udp-buffer": ("change",
        "the system has room for few queries that wait; a busy server may lose some",
        "on a busy server: `sysctl -w net.core.rmem_max=4194304`, also in `/etc/sysctl.d`, and a "
        "restart"),
    "udp": ("change", "whether datagrams are read in batches",
        "`one by one` costs more for each query: see the reason"),
    "no-ipv6": ("change", "this host has no IPv6, so IPv4 alone is listened on",
        "nothing, or `listen` on IPv4 addresses"),
    "folder": ("error", "the config's folder cannot be entered, where commands are to run",
        "let `user` enter it"),
    "upgrade": ("change, error",
        "`SIGUSR2` came: the program file and the config are tried, then executed in this "
        "process; or why not",
        "type the command that the line names, mend what it says, and send the signal again"),
    "handed-over": ("warning",
        "a descriptor that systemd, or the program before an upgrade, handed over, and that is "
        "not used",
        "let the socket unit name what `listen`, `reports` and `status` do, UDP and TCP for "
        "`listen`"),
    "restart": ("warning", "a new `user` in the config is not in force yet", "restart"),
    "signal": ("change",
        "a signal came that means nothing; or SIGHUP, which ends a server without a config file",
        "nothing"),
    "stopped": ("change", "all processes have ended", "nothing"),
    "query": ("query",
        "a query and its reply: client, name, type, rcode, choice, microseconds, and what was "
        "wrong with it",
        "nothing"),
    "agent": ("change", "of `lbdns.py agent`: what is reported, where, how often", "nothing"),
    "agent-port": ("error", "nobody listens on the port, so the backend is reported as down",
        "start the service, or the agent where that is"),
    "agent-send": ("error", "a name server cannot be looked up or reached",
        "see `--to`, and `reports` in the config there, routes, firewalls"),
    "agent-count": ("error", "connections cannot be counted; the load is reported as unknown",
        "mend what the line names"),
    "agent-proc": ("warning", "connections are counted by /proc, at four times the cost",
        "allow `AF_NETLINK`")}


class Trouble(NamedTuple):
    """What the log remembers of a subject with which something is wrong."""
    code: str       # of its lines
    text: str       # what is wrong, as it was reported last
    level: str      # error | warning
    kind: str       # the text's beginning without its numbers: another kind is news
    since: float    # monotonic seconds when trouble with this subject began
    printed: float  # monotonic seconds when a line about the subject was printed last
    repeats: int    # times that the same trouble was reported since that line


class Log:
    """Lines to standard error. A full pipe, a slow terminal or a full disk costs lines, not time.

    The level "errors" prints trouble, "changes" also what changed, "queries" also every query. A
    code comes first in each call; fields are what JSON has beside the text.
    Each process has a log of its own, which writes whole lines, so that those of others do not
    cut them.
    """
    LEVELS = ("errors", "changes", "queries")

    def __init__(self) -> None:
        self.level = 1                           # index of a level in LEVELS
        self.json = False                        # whether each line is a JSON object
        self.lines: list[bytes] = []             # what the next flush writes
        self.lost = 0                            # lines dropped since the last that got out
        self.counters = Counters()               # where those that are lost are counted
        self.troubles: dict[str, Trouble] = {}   # subject -> what is wrong with it now
        self.write = open_stderr()

    def configure(self, config: Config) -> None:
        """Set the level and the form of lines that a config asks for."""
        self.level = self.LEVELS.index(config.log)
        self.json = config.log_format == "json"

    def error(self, code: str, text: str) -> None:
        """Report once that something went wrong."""
        self._put("error", code, f"error: {text}", text=text)

    def warning(self, code: str, text: str) -> None:
        """Report once that something may not be as it was meant."""
        self._put("warning", code, f"warning: {text}", text=text)

    def trouble(self, code: str, subject: str, text: str, level: str = "error") -> None:
        """Report, as often as it is seen, that something is wrong with a subject. An empty text
        says that all is well with it.

        A line is printed when the trouble begins or becomes another kind of trouble, then once in
        LOG_REPEAT with the number of reports in between, and when it ends.
        """
        now = time.monotonic()
        # What follows the first colon, such as a system's message, may differ each time, and so may
        # numbers: without them it is the same trouble.
        kind = re.sub("[0-9]+", "", text.partition(":")[0])
        old = self.troubles.get(subject, Trouble(code, "", level, "", now, 0.0, 0))
        if not text:
            if self.troubles.pop(subject, None):
                self.change(code, f"{subject}: well again after {now - old.since:.0f} s",
                            subject=subject)
        elif kind != old.kind or now - old.printed > LOG_REPEAT:
            repeats = f" ({wire.plural(old.repeats, 'time')} more)" if old.repeats else ""
            line = f"{subject}: {text}{repeats}"
            self._put(level, code, f"{level}: {line}", text=line, subject=subject)
            self.troubles[subject] = Trouble(code, text, level, kind, old.since, now, 0)
        else:
            self.troubles[subject] = old._replace(text=text, repeats=old.repeats + 1)

    def change(self, code: str, text: str, **fields: Any) -> None:
        """Report that something is not as it was: a state, a config, a process."""
        if self.level >= 1:
            self._put("change", code, text, text=text, **fields)

    def query(self, query: wire.Query, client: str, reply: Reply, micros: int) -> None:
        """Report a query, its reply and the microseconds that it took."""
        name = rtype = "-"  # of a packet in which no question could be read
        if query.qname:
            # The final dot is left out; but the root's name is just that dot.
            name = wire.show_name(query.qname)[:-1] or "."
            rtype = wire.show_type(query.qtype)
        client, rcode = plain_address(client), wire.RCODES[reply.rcode]
        chosen = ",".join(reply.chosen) or "-"
        line = f"{client} {name} {rtype} {rcode} {chosen} {micros}us {query.why}"
        self._put("query", "query", line.rstrip(), client=client, name=name, type=rtype,
                  rcode=rcode, chosen=reply.chosen, us=micros, why=query.why)

    def _put(self, level: str, code: str, line: str, **fields: Any) -> None:
        """Add a line as text, or in its place an object of JSON with level, code and fields."""
        now, before = time.time(), priority(level)
        # Milliseconds are cut, not rounded: 999.96 of them would become a fourth digit.
        date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        stamp = f"{date}.{int(now % 1 * 1000):03}Z"
        if self.json:
            fields = {"time": stamp, "level": level, "code": code, **fields}
            line = json.dumps(fields)
            while len(line) > LOG_LINE - len(before):  # cut by its end, it would be no JSON
                longest = max(fields, key=lambda key: len(str(fields[key])))
                fields[longest] = fields[longest][:len(fields[longest]) // 2]
                line = json.dumps(fields)
        elif not before:  # the journal has its own time
            line = f"{stamp} {line}"
        octets = (before + printable(line)).encode("utf-8", "replace")
        self.lines.append(octets[:LOG_LINE] + b"\n")

    def flush(self) -> None:
        """Write the lines that have gathered, as many as the log's reader takes at once; count the
        others as lost."""
        if self.lost and self.lines:
            lost, self.lost = self.lost, 0
            self.warning("log-lost", f"{wire.plural(lost, 'log line')} lost: the log's reader was "
                                     "too slow")
        lines, self.lines = self.lines, []
        for at, line in enumerate(lines):
            try:
                self.write(line)
            except OSError:  # EAGAIN, EPIPE, ENOSPC, EBADF: whatever it is, answers go on
                # The next lines would fail, too, and each attempt costs a system call.
                self.lost += len(lines) - at
                self.counters.add("lost lines", len(lines) - at)
                return


def open_stderr() -> Callable[[bytes], int]:
    """Return a function that writes octets to standard error and never waits: where they cannot be
    written at once, it raises OSError."""
    plain = functools.partial(os.write, 2)
    try:
        mode = os.fstat(2).st_mode
        if stat.S_ISSOCK(mode):  # the journal: each call says for itself that it does not wait
            journal = socket.socket(fileno=os.dup(2))
            return lambda line: journal.send(line, socket.MSG_DONTWAIT)
        if stat.S_ISREG(mode):
            # Files never block. Where the shell opened one with ">", others that write to it have
            # the same position, so it is for them, too, that all goes to the end.
            fcntl.fcntl(2, fcntl.F_SETFL, os.O_APPEND)
            return plain
        # A pipe or a terminal: O_NONBLOCK is a property of what `open` returns, and the shell's
        # own copy of this one must go on blocking. So it is opened once more.
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_NOCTTY
        return functools.partial(os.write, os.open("/dev/fd/2", flags))
    except OSError:  # such as another user's pipe, which cannot be opened once more
        with suppress(OSError):
            os.set_blocking(2, False)
        return plain


# What the journal calls our levels: err, warning, notice, info; so -p notice leaves queries out.
PRIORITIES = {"error": "<3>", "warning": "<4>", "change": "<5>", "query": "<6>"}


@functools.cache
def priority(level: str) -> str:
    """Return what stands before a line of this level where standard error is systemd's journal
    (sd-daemon(3)); "" elsewhere. JOURNAL_STREAM names device and inode of the journal's socket
    (systemd.exec(5)), and is inherited by programs whose standard error is something else."""
    with suppress(OSError):
        found = os.fstat(2)
        if os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}":
            return PRIORITIES[level]
    return ""


def printable(line: str) -> str:
    """Return a line in which nothing of a stranger moves a cursor or starts a line of its own:
    what cannot be printed stands there as \\xNN."""
    if line.isprintable():  # as nearly all are
        return line
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in line)


# ---- 20. Config: its words, the rules for their values, then the reader --------------------------
# The file is TOML: tables of words and values. For each kind of table there is a table here (TOP,
# ZONE, POOL, BACKEND, SOURCE, PROBE) with each word's rule and default. A rule checks one value;
# what values must not be together, ConfigReader checks. All that is wrong is said in one run, and
# each line names the file, the path of the word, its value, the rule, and the nearest right word.
# A start, a reload and the command `check` all come here.
#
# EXAMPLE is what `lbdns.py example` prints: each word with its meaning. A test holds it against the
# tables.
EXAMPLE = '''\
# A config of lbdns: each word with its default or an example.
listen = ["[::]:9000"]  # UDP and TCP
# reports = ["[::]:9053"]  # UDP: what agents on the backends say
# reports_key = "reports.key"  # one key a line; agents sign with the first, all are believed
# status = "127.0.0.1:9053"  # HTTP: how all of it does, for everybody who can reach it
workers = 0  # processes that answer; 0 = one per CPU
user = "nobody"  # become this user after binding, if root
log = "changes"  # errors | changes | queries
log_format = "text"  # text | json
# nsid = "ns1"  # what `dig +nsid` shows of this server
rate_limit = 20  # large replies a second over UDP to a client network; 0 = no limit
servers = 1  # that answer for these pools; a hint

[zones."example.com"]
ns = ["ns1.example.com.", "ns2.example.com."]  # the delegation
# contact = "hostmaster.example.com."  # or a mail address
# serial = 1  # of the SOA
# refresh = 7200  # seconds, as the next four
# retry = 1800
# expire = 1209600
# ttl = 3600  # of SOA, NS and records without one
# negative_ttl = 60  # of the answer that there is none
# file = "example.com.zone"  # records in a file of their own
records = """
ns1  300 IN A   192.0.2.53
ns2  300 IN A   198.51.100.53
@    300 IN MX  10 mail
www  300 IN A   192.0.2.80
"""

[pools."api.example.com"]
policy = "round-robin"  # random, round-robin, least-connections (needs a source), failover, \
hash, "file.py:function"
ttl = 60  # seconds
answers = 1  # addresses per answer; one balances best
anticache = true  # also answer <anything>api.example.com
backends = ["192.0.2.1", { address = "192.0.2.2", weight = 2, max_connections = 1000, \
state = "up" }]
# source = { sqlite = "backends.db", every = 1 }  # or { command = ["psql", "-XAtc", \
"SELECT ..."], every = 5, timeout = 4 }, or { reports = true }
# stale = 15  # seconds a report of load is believed
# lifetime = 600  # of least-connections: seconds a connection lives, about; a hint where no \
`opened` is counted
all_down = "all"  # when nothing is up: all | servfail | empty | "192.0.2.9"
# check = { url = "https://:443/health", interval = 5, timeout = 2, rise = 2, fall = 3, \
status = [200, 204], body = "ok", verify = true }  # or "tcp://:443", or { command = ["check_x", \
"-H", "{address}"] }
# min_up = 1  # with fewer up, the checks are ignored
'''

# A rule checks and converts one value of the file: it returns the value as we keep it, or raises
# Problem, whose text says what the value must be. Functions whose docstring begins with "Check" are
# rules; those before them make rules from parameters.
Rule = Callable[[Any], Any]
NSID_MAX = 64             # octets; the value rides in every reply that is asked for it


# Our words, and what other programs have for them, in lower case and without "-" and "_".
SYNONYMS = {
    # Keys.
    "listen": "port bind address addresses interface listenon", "reports": "agents agent",
    "reports_key": "key secret psk", "status": "http web stats page dashboard expectstatus",
    "workers": "threads processes procs cpus", "user": "uid username runas",
    "log": "loglevel logging verbosity level", "nsid": "identity serverid", "servers": "peers",
    "rate_limit": "rrl qps", "zones": "zone domain domains", "pools": "pool services",
    "ns": "nameserver nameservers", "contact": "soa mbox rname email admin hostmaster",
    "negative_ttl": "minimum ncache", "records": "data rrs txt mx", "policy":
    "algorithm balance method strategy mode", "answers": "count maxanswers", "anticache":
    "wildcard", "backends": "servers members nodes targets hosts upstream addresses address ip",
    "source": "feed database table agents", "lifetime": "sessiontime", "stale": "maxage expire",
    "check": "health healthcheck monitor probe", "min_up": "minhealthy upthresh", "all_down":
    "fallback lastresort", "address": "ip addr host server", "weight": "ratio",
    "max_connections": "maxconn maxconns limit", "connections": "conns conn load sessions active",
    "opened": "accepts accepted stot", "updated_at": "timestamp updated", "url": "uri target",
    "command": "cmd exec program script external", "interval": "inter every period",
    "every": "interval period poll", "rise": "upthresh healthythreshold", "fall":
    "downthresh unhealthythreshold", "body": "expect match contains", "verify": "tlsverify",
    "sqlite": "file database db", "query": "sql select", "file": "zonefile",
    # Values.
    "queries": "verbose debug all trace full", "changes": "info notice normal default",
    "errors": "error warning warnings warn quiet silent none off critical",
    "text": "plain", "random": "weighted wrand", "round-robin": "rr wrr weightedroundrobin",
    "least-connections": "lc wlc leastconn leastconns leastloaded leastrequests",
    "failover": "multifo primary backup first activepassive activebackup ordered simplefo",
    "hash": "source sticky persistent consistent consistenthash iphash chash affinity",
    "up": "enabled enable active online ready on", "drain": "draining drained",
    "down": "disabled disable maint maintenance offline inactive fail off"}


def suggest(word: Any, known: Collection[str]) -> str:
    """Return the known word that is meant by this one, as a question after a semicolon; "" = none
    is near enough."""
    # A word longer than any name is cut, since comparing takes time by the square of its length.
    text = str(word)[:wire.NAME_MAX].lower()
    plain = re.sub("[-_ ]", "", text)
    near = [each for each in known if plain in SYNONYMS.get(each, "").split()]
    near += difflib.get_close_matches(text, known, 1, 0.65)
    return f"; did you mean {near[0]}?" if near else ""


def require(test: Callable[[Any], Any], says: str, words: Sequence[str] = ()) -> Rule:
    """Return a rule that keeps values which pass a test and refuses others by what it `says`.
    `words` are those that a refused value could be meant to be."""
    def rule(value: Any) -> Any:
        """Return the value, or raise Problem."""
        if test(value):
            return value
        raise Problem(says + suggest(value, words) if words else says)
    return rule


def number(low: float, high: float, says: str = "") -> Rule:
    """Return a rule for numbers, both ends included."""
    # Types are compared, since `isinstance` takes True for an int.
    return require(lambda value: type(value) in (int, float) and low <= value <= high,
                   says or f"must be a number from {low} to {high}")


def whole(low: int, high: int) -> Rule:
    """Return a rule for whole numbers, both ends included."""
    return require(lambda value: type(value) is int and low <= value <= high,
                   f"must be a whole number from {low} to {high}")


def count(low: int, high: int) -> Rule:
    """Return a rule for whole numbers as tables of other programs have them: 17.0 is one, too, and
    so is 17.5, an average; they are rounded."""
    rule = number(low, high)
    return lambda value: round(rule(value))


def one_of(*words: str, other: Callable[[str], Any] = lambda _: False, says: str = "") -> Rule:
    """Return a rule for one of a few words, or for text that passes the test `other`, which the
    text `says` describes."""
    return require(lambda value: isinstance(value, str) and (value in words or other(value)),
                   f"must be one of {', '.join(words)} {says}".rstrip(), words)


def list_of(rule: Rule) -> Rule:
    """Return a rule for a list, never an empty one, of values that each pass a rule; as a tuple."""
    return lambda value: tuple(map(rule, LIST(value)))


# Rules for the plain types of TOML. No text may hold a NUL: paths, words of commands and names of
# users go to the operating system, where a NUL ends them.
TEXT = require(lambda value: isinstance(value, str) and value != "" and "\0" not in value,
               "must be text, without NUL")
SHORT = require(lambda value: isinstance(value, str) and 0 < len(value.encode()) <= NSID_MAX,
                f"must be text of 1 to {NSID_MAX} octets")
TRUTH = require(lambda value: isinstance(value, bool), "must be true or false")
LIST = require(lambda value: isinstance(value, list) and value != [],
               "must be a list with at least one item")
TABLE = require(lambda value: isinstance(value, dict), "must be a table")
SECONDS = whole(0, wire.TTL_MAX)


def weight(value: Any) -> Any:
    """Check a weight. Connections are divided by it, and the smallest floats would make that inf.
    """
    if 0 < number(0, 10**6)(value) < 1e-6:
        raise Problem("must be 0, or at least 0.000001")
    return value


def statuses(value: Any) -> Any:
    """Check the HTTP statuses of a good reply: one, or a list."""
    return list_of(whole(100, 599))(value if isinstance(value, list) else [value])


def domain(value: Any) -> bytes:
    """Check a domain name; it is absolute, with or without its final dot."""
    return wire.parse_name(TEXT(value))


def contact(value: Any) -> bytes:
    """Check a zone's contact: a domain name, or a mail address, which becomes one by the rule of
    RFC 1035 8 (a dot before the @ belongs to the first label)."""
    local, at, host = TEXT(value).partition("@")
    if not at:
        return domain(value)
    return domain(local.replace(".", "\\.") + "." + host)


def is_address(value: Any) -> bool:
    """Return whether a value is the text of an IPv4 or IPv6 address, without an interface."""
    with suppress(ValueError):
        return isinstance(value, str) and "%" not in value and bool(ipaddress.ip_address(value))
    return False


def endpoint(value: Any) -> tuple[str, int]:
    """Check what to listen on: "127.0.0.1:53", "[::]:53" or "[fe80::1%eth0]:53", the interface by
    name or number. Port 0 lets the kernel pick one. Returns host and port."""
    # Groups: address in brackets, its interface, address without brackets, port.
    match = re.fullmatch(r"(?:\[([^%]+)(?:%(.+))?\]|([0-9.]+)):([0-9]{1,5})", str(value))
    if not match or not is_address(match[1] or match[3]) or int(match[4]) > 65535:
        raise Problem('must be an address and a port, such as "127.0.0.1:53" or "[::]:53"')
    [host], interface, port = backend_address(match[1] or match[3]), match[2], int(match[4])
    # Each interface has its own fe80::/10 (RFC 4007 5), so which one is meant must be said.
    if bool(interface) != (":" in host and ipaddress.ip_address(host).is_link_local):
        raise Problem("addresses of fe80::/10, and no others, need an interface, such as "
                      '"[fe80::1%eth0]:53"')
    return f"{host}%{interface_name(interface)}" if interface else host, port


def interface_name(text: str) -> str:
    """Check an interface of this host, by its name or number. Returns the name, which stays the
    same when the number changes."""
    try:
        if text.isdecimal():
            text = socket.if_indextoname(int(text))
        socket.if_nametoindex(text)
    except (OSError, OverflowError):
        raise Problem(f"this host has no interface {text}; `ip link` shows those that it "
                      "has") from None
    return text


# Names of hosts as they are in use, with "_" and without "*". The last label is no number, so that
# a mistyped address is no name (RFC 3696 2).
HOST_NAME = r"([a-z0-9_-]*\.)*[0-9]*[a-z_-][a-z0-9_-]*\.?"


def backend_address(value: Any) -> tuple[str, ...]:
    """Check a backend: an address, one of each family (as a list, or with a comma in between), or a
    host name. Returns them in canonical form, IPv4 first, so that the same server is the same key
    in the config, in all sources and in the checks."""
    return read_addresses(",".join(map(TEXT, value)) if isinstance(value, list) else TEXT(value))


@functools.lru_cache(2 * ROWS_MAX)  # tables have the same addresses at each poll
def read_addresses(text: str) -> tuple[str, ...]:
    """Check the text of a backend: see `backend_address`."""
    if len(text) > wire.NAME_MAX:
        raise Problem(f"must have at most {wire.NAME_MAX} octets")
    found = sorted({wire.address_rdata(read_address(each)) for each in text.split(",")})
    # With two addresses of a family, one would be picked and the other one's load not be known.
    kinds = [rtype for rtype, _ in found]
    if kinds != [wire.A, wire.AAAA] and len(kinds) > 1:
        raise Problem("must be at most one IPv4 and one IPv6 address, or one host name")
    return tuple(wire.show_address(*each) for each in found)


def read_address(value: str) -> str:
    """Check one address or host name."""
    text: str = TEXT(value).strip().lower()
    if is_address(text):
        # "::ffff:192.0.2.1" is how sockets for both families show IPv4 (RFC 4291 2.5.5.2).
        mapped = getattr(ipaddress.ip_address(text), "ipv4_mapped", None)
        return str(mapped or text)
    if re.fullmatch(r"(\[.*\]|[^:]*):[0-9]+", text):  # what other load balancers want here
        raise Problem("is no IPv4 or IPv6 address alone, and DNS answers carry no port: give "
                      'it to a check, such as "tcp://:80", or clients by SRV or HTTPS records')
    if not re.fullmatch(HOST_NAME, text):
        raise Problem("is no IPv4 or IPv6 address, and no host name")
    return text


def server_address(value: Any) -> tuple[str, ...]:
    """Check a backend as `backend_address` does, and that clients can be sent there: "0.0.0.0" is
    what servers call themselves."""
    addresses = backend_address(value)
    for each in filter(is_address, addresses):
        ip = ipaddress.ip_address(each)
        if ip.is_unspecified or ip.is_multicast or each == "255.255.255.255":
            raise Problem("is no address that a client can connect to")
    return addresses


URL_PORTS = {"tcp": 0, "http": 80, "https": 443}  # scheme -> usual port; 0 = it has none


def probe_url(value: Any) -> tuple[str, str, int, str]:
    """Check a URL that says how to probe, without the address, which is each backend's own. Returns
    scheme, host, port and path; host and path may be "", and the path is so for tcp."""
    # Groups: scheme, host, port, path with its query.
    match = re.fullmatch(r"(\w+)://([^:/?#@\[\]]*)(?::([0-9]{1,5}))?((?:/[!-~]*)?)", TEXT(value))
    if match is None:
        raise Problem('must be such as "tcp://:443" or "http://:8080/health"')
    kind, path = match[1], match[4]
    host = match[2].lower().removesuffix(".")  # SNI and certificates do without: RFC 6066 3
    if kind not in URL_PORTS:
        raise Problem(f"must be tcp, http or https{suggest(kind, URL_PORTS)}")
    if kind != "tcp":
        path = path or "/"
    elif host or path:
        raise Problem("tcp has no host, which is each backend's own, and no path")
    if host:
        if not re.fullmatch(HOST_NAME, host):
            raise Problem("the host, which Host and SNI say, must be a name; who is asked are the "
                          "backends")
        wire.parse_name(host)  # raises Problem for labels and names that are too long
    port = int(match[3] or URL_PORTS[kind])
    if not 0 < port <= 65535:
        raise Problem("needs a port from 1 to 65535")
    return kind, host, port, path


Table = dict[str, Any]        # a table of the file: word -> value
Keys = types.SimpleNamespace  # the same after its rules, with defaults, as attributes


class Key(NamedTuple):
    """What the reader knows of a word of the config."""
    rule: Rule
    default: Any  # where the word is absent or wrong; None = it depends on other words, or nothing


# The tables: word -> Key. Ranges keep out what is surely a mistake, such as a TTL in milliseconds.
TOP = {  # the file itself
    "listen": Key(list_of(endpoint), (("::", 9000),)),  # "::" is IPv4, too
    "reports": Key(list_of(endpoint), ()),
    "reports_key": Key(TEXT, ""),
    "status": Key(lambda value: list_of(endpoint)(value if isinstance(value, list) else [value]),
                  ()),
    "workers": Key(whole(0, 256), 0),           # 0 = one per CPU
    "user": Key(TEXT, "nobody"),
    "log": Key(one_of(*Log.LEVELS), "changes"),
    "log_format": Key(one_of("text", "json"), "text"),
    "nsid": Key(SHORT, ""),
    "rate_limit": Key(whole(0, 10**6), 20),
    "servers": Key(whole(1, 1000), 1),
    "zones": Key(TABLE, {}),
    "pools": Key(TABLE, {})}
ZONE = {  # [zones."NAME"]
    "ns": Key(list_of(domain), ()),
    "contact": Key(contact, None),              # hostmaster at the apex
    "serial": Key(whole(0, 2**32 - 1), 1),
    # Secondaries would go by the next three; resolvers go by negative_ttl (RFC 2308 4).
    "refresh": Key(SECONDS, 7200),
    "retry": Key(SECONDS, 1800),
    "expire": Key(SECONDS, 1209600),
    "ttl": Key(SECONDS, 3600),
    "negative_ttl": Key(SECONDS, 60),
    "file": Key(TEXT, ""),
    "records": Key(TEXT, "")}
POOL = {  # [pools."NAME"]
    "policy": Key(one_of(*POLICIES, other=re.compile(r".+\.py:\w+").fullmatch,
                         says='or "file.py:function"'), "random"),
    "ttl": Key(SECONDS, 60),
    "answers": Key(whole(1, 13), 1),
    "anticache": Key(TRUTH, None),              # true, but at an apex false
    "backends": Key(LIST, ()),                  # see BACKEND
    "source": Key(TABLE, None),                 # see SOURCE
    "stale": Key(number(1, 86400), None),       # three polls, at least 10 s
    "lifetime": Key(number(1, 10**7), LOAD_LIFE),
    "all_down": Key(one_of("all", "servfail", "empty", other=is_address,
                           says="or an address"), "all"),
    # A URL, or see PROBE.
    "check": Key(require(lambda value: isinstance(value, (str, dict)), "must be text or a table"),
                 None),
    "min_up": Key(whole(0, ROWS_MAX), 0)}
BACKEND = {  # one of a pool's `backends`
    "address": Key(server_address, ()),
    "weight": Key(weight, 1.0),
    "max_connections": Key(whole(1, 10**9), None),
    "state": Key(one_of(*STATES), "up")}
# A row of a source has the same words, and those that say how much load there is, and since when.
# A row without `connections` says that they are unknown, which is not 0; and a limit may be 17.0.
ENTRY = BACKEND | {
    "connections": Key(count(0, 10**9), 0),
    "max_connections": Key(count(1, 10**9), None),
    "opened": Key(count(0, 2**63 - 1), None),
    "updated_at": Key(number(0, 1e12, "must be unix time: seconds since 1970"), 0)}
# Columns that a command may print as text although they are numbers.
NUMBERS = ENTRY.keys() - {"address", "state"}
PROBE = {  # a pool's `check`
    "url": Key(probe_url, None),
    "command": Key(list_of(TEXT), ()),
    "interval": Key(number(0.1, 3600), 5.0),
    "timeout": Key(number(0.05, 60), None),     # CHECK_TIMEOUT, or the interval if that is less
    "rise": Key(whole(1, 100), 2),
    "fall": Key(whole(1, 100), 3),
    "status": Key(statuses, ()),                # 200 to 399
    "body": Key(TEXT, ""),
    "verify": Key(TRUTH, True)}
SOURCE = {  # a pool's `source`
    "sqlite": Key(TEXT, ""),
    "query": Key(TEXT, None),                   # all of the pool's rows in a table `backends`
    "command": Key(list_of(TEXT), ()),
    "reports": Key(require(lambda value: value is True, "must be true, or be left out"), False),
    "every": Key(number(0.1, 3600), 1.0),
    "timeout": Key(number(0.1, 60), 2.0)}


BESIDE_CNAME = {wire.RRSIG, wire.NSEC}  # types that may stand there: RFC 4035 2.5
SOA_NUMBERS = ("serial", "refresh", "retry", "expire", "negative_ttl")  # RFC 1035 3.3.13
# Finds the parameters of an SQL query, as its group. The other alternatives match texts, names and
# comments, in which "?" and ":word" are no parameters.
SQL = r"""'[^']*'?|"[^"]*"?|`[^`]*`?|\[[^]]*]?|--[^\n]*|/\*.*?(?:\*/|\Z)|""" \
      r"(\?[0-9]*|(?<![\w$])[:@$]\w+)"


class Placed(NamedTuple):
    """A record of a zone, and where the config has it."""
    where: str           # for messages, such as zones."example.com".records line 3
    zone: ServedZone
    record: wire.Record  # the owner in lower case


class ConfigReader:
    """Turns a parsed TOML file into a Config, gathering everything that is wrong with it.

    Methods that read a table get `where`, its path in the file, such as pools."api.example.com",
    and return what the table describes. They go on after a problem, with defaults, so that one run
    shows all problems; the result is then of no use. A warning is about what can be served, though
    hardly as it is meant.
    """
    def __init__(self, file: str) -> None:
        self.file = file                          # "" = what is read is a row, not a file
        self.folder = pathlib.Path(file).parent   # where files stand that the config names
        self.problems: list[str] = []             # lines: why it cannot be served
        self.warnings: list[str] = []             # lines: what is hardly meant so
        self.texts: list[str] = []                # of other files that zones and pools name
        self.zones: dict[bytes, ServedZone] = {}  # by apex
        self.pools: dict[bytes, PoolConfig] = {}  # by owner
        # By what makes records the same to a resolver: zone, owner, type, and rdata without case.
        self.records: dict[tuple[Any, ...], Placed] = {}

    def problem(self, path: str, says: str) -> None:
        """Note why the config cannot be served: the path of a key, and what is wrong there. Values
        come from the file, so they could move a cursor."""
        line = f"{self.file}: {path}{says}" if self.file else f"{path}{says}"
        self.problems.append(printable(line))

    def warn(self, path: str, says: str) -> None:
        """Note what is hardly meant so: the path of a key, what follows from it, and the remedy."""
        self.warnings.append(f"{self.file}: {path}{says}")

    # -- The whole file, and what all its tables have in common --

    def config(self, document: Table) -> Config:
        """Return the whole config. Raises ConfigError with all problems, one a line.

        Zones come first, since pools stand in them; both are finished before their records are
        held against each other.
        """
        keys = self.read_keys("", document, TOP)
        for where, apex, value in self.named("zones", keys.zones):
            self.zones[apex] = self.zone(where, apex, value)
        for apex, zone in self.zones.items():
            # In the zone above, the apex and the names in between exist without records. Its answer
            # for them is NODATA: NXDOMAIN would deny all names below, too (RFC 8020).
            above = wire.find_zone(wire.suffixes(apex), wire.DS, self.zones) or zone
            above.add_name(apex)
        for where, owner, value in self.named("pools", keys.pools):
            self.pools[owner] = self.pool(where, owner, value)
        if not keys.zones:
            self.problem("zones", ': there is none; add [zones."example.com"]')
        self.review()
        self.review_hidden()
        self.read_reports(document, keys)
        self.read_status(keys)
        self.fit_to_host(keys)
        if self.problems:
            raise ConfigError("\n".join(self.problems))
        keys.zones, keys.pools, keys.file = self.zones, self.pools, self.file
        parts = [repr(document.get(each)) for each in ("zones", "pools")] + self.texts
        return Config(**vars(keys), warnings=tuple(self.warnings), loaded=time.time(),
                      hash=hash_text("\0".join(parts)))

    def table(self, path: str, value: Table, words: dict[str, Key]) -> Table:
        """Return the values of a table that pass their rules, as the rules return them; note the
        others. Words that are absent stay so, for rows in which that has a meaning."""
        found = {}
        for name, each in value.items():
            where = f"{path}.{name}" if path else name
            if name not in words:
                self.problem(where, ": unknown key" + (
                    suggest(name, words) or f"; known: {', '.join(words)}"))
                continue
            try:
                found[name] = words[name].rule(each)
            except (ValueError, RecursionError) as bad:  # Problem, or a value that has no text
                self.problem(where, f" = {show_value(each)}: {bad}")
        return found

    def read_keys(self, path: str, value: Table, words: dict[str, Key]) -> Keys:
        """Return the values of a table as attributes, with defaults for what is absent or wrong.
        Warn of names that were hardly meant as they stand there."""
        found = self.table(path, value, words)
        for key in found.keys() & {"ns", "contact", "address"}:
            for name in value[key] if isinstance(value[key], list) else [value[key]]:
                # Zone text would complete "ns1" with the name of its zone; names in keys are whole
                # with or without the final dot. With the dot nobody means anything else.
                if re.fullmatch(r"[\w-]+", name):
                    self.warn(path, f".{key} = {name!r}: stands for {name}. itself, since names in "
                              f"keys are whole; write all of it, such as {name}.example.com.")
        defaults = {name: key.default for name, key in words.items()}
        return Keys(**defaults | found)

    def named(self, path: str, value: Table) -> Iterator[tuple[str, bytes, Any]]:
        """Yield path, name in lower case, and table of each entry of [zones] or [pools]. TOML keeps
        a key from standing there twice, but not the same name in other spellings."""
        seen: dict[bytes, str] = {}  # name as we keep it -> name as it stands there
        for name, each in join_names(value):
            where = f'{path}."{name}"'
            if name not in value:
                self.problem(where, f": put the name in quotes: [{where}]")
            try:
                key = domain(name).lower()
                if seen.setdefault(key, name) != name:
                    raise Problem(f'the same name as {path}."{seen[key]}"')
                yield where, key, TABLE(each)
            except Problem as bad:
                self.problem(where, f": {bad}")

    def text(self, path: str, file: str, errors: str = "strict") -> str:
        """Return what a file beside the config holds, "" if it cannot be read: see `read_text`."""
        text = ""
        try:
            text = read_text(self.folder / file, errors)
        except Problem as bad:
            self.problem(path, f" = {file!r}: {bad}")
        self.texts.append(text)
        return text

    def read_reports(self, document: Table, keys: Keys) -> None:
        """Check that all words about reports go together, and read their keys."""
        pools = [pool.name for pool in self.pools.values() if pool.source and pool.source.reports]
        taken = {port for _, port in keys.listen} & {port for _, port in keys.reports} - {0}
        has_key = "reports_key" in document
        if (pools or has_key) and "reports" not in document:
            self.problem("reports", ": is missing, and agents cannot be heard without; add reports "
                         '= ["[::]:9053"]')
        if keys.reports and not has_key:
            self.problem("reports_key", ": is missing, and reports need it; make a key by openssl "
                         "rand -hex 32 > reports.key, the same for all backends")
        if keys.reports and not pools:
            self.warn("reports", ": no pool listens to agents; add source = { reports = true } to "
                      "one that should")
        if taken:
            self.problem("reports", f": port {taken.pop()} is one of listen; take another")
        keys.reports = tuple(dict.fromkeys(keys.reports))
        keys.reports_key = self.read_keys_of_reports(keys) if keys.reports_key else ()

    def read_keys_of_reports(self, keys: Keys) -> tuple[bytes, ...]:
        """Return the keys in the file that `reports_key` names."""
        path = self.folder / keys.reports_key
        try:
            found = read_report_keys(path)
            if not is_readable(path, keys.user):
                self.warn("reports_key", f": user {keys.user} cannot read it, so each reload would "
                          f"be refused: chown {keys.user} {path}")
            return found
        except (Problem, OSError) as bad:
            self.problem("reports_key", f" = {keys.reports_key!r:.80}: {bad}")
        return ()

    def read_status(self, keys: Keys) -> None:
        """Check where HTTP is served: not where queries come in, and not unnoticed to everybody."""
        keys.status = tuple(dict.fromkeys(keys.status))
        for host, port in keys.status:
            if port and port in {port for _, port in keys.listen}:
                self.problem("status", f": port {port} is one of listen; take another")
            if not ipaddress.ip_address(host).is_loopback:
                self.warn("status", f": {host} is not on loopback, and whoever can reach it reads "
                          "all, without a password or TLS; listen on 127.0.0.1, with a proxy or "
                          "ssh -L before it")

    def fit_to_host(self, keys: Keys) -> None:
        """Check the user and the addresses against this host, and count its CPUs. An address that
        it lacks is no problem: it may come later, from DHCP or VRRP."""
        try:
            pwd.getpwnam(keys.user if os.geteuid() == 0 else "root")  # only root needs the user
        except (KeyError, ValueError):  # ValueError: a NUL in it
            self.problem("user", f" = {keys.user!r}: no such user on this host")
        keys.listen = tuple(dict.fromkeys(keys.listen))
        # Each host once, whatever its ports, with the first word that has it.
        hosts = {host: word for word in ("status", "reports", "listen")
                 for host in dict(getattr(keys, word))}
        for host, word in hosts.items():
            if is_missing(host):
                self.warn(word, f": this host has no address {host} yet; lbdns is there as soon as "
                          "it has")
        if sys.platform != "linux":
            keys.workers = 1  # elsewhere nobody has measured more
        elif not keys.workers:
            keys.workers = len(os.sched_getaffinity(0))

    # -- Zones: value and keys of [zones."NAME"] become records --

    def zone(self, where: str, apex: bytes, value: Table) -> ServedZone:
        """Return one zone with all its records: from the key `records`, from the file, and what
        these two leave out of SOA and NS from the other keys."""
        keys, zone = self.read_keys(where, value, ZONE), ServedZone(apex)
        texts = {"records": keys.records}  # what stands before a line's number -> zone text
        if keys.file:
            # A zone file is octets (RFC 1035 5): those that are no UTF-8 pass through as they are.
            texts[f"file = {keys.file!r}"] = self.text(
                f"{where}.file", keys.file, "surrogateescape")
        for label, text in texts.items():
            parsed = wire.ZoneText(text, apex, keys.ttl)
            for problem in parsed.problems:
                self.problem(where, f".{label} {problem}")
            for record in parsed.records:
                self.add(f"{where}.{label} line {record.line}", zone, record)
        node = zone.nodes.get(apex, {})
        for word in value:
            rtype = wire.NS if word == "ns" else wire.SOA
            if rtype in node and word in ("ns", "contact", *SOA_NUMBERS):
                self.problem(where, f".{word}: the records have {wire.show_type(rtype)} already")
        self.add_apex(where, zone, keys)
        zone.finish()
        return zone

    def add(self, where: str, zone: ServedZone, record: wire.Record) -> None:
        """Put a record into its zone and take note of its place, or note why it cannot stand there.
        Of records that are the same to a resolver, the first one counts."""
        try:
            zone.add(record)
        except Problem as bad:
            self.problem(where, f": {bad}")
        else:
            record = record._replace(owner=record.owner.lower())
            rdata = wire.rdata_key(record.type, record.rdata)
            key = zone.apex, record.owner, record.type, rdata
            self.records.setdefault(key, Placed(where, zone, record))

    def add_apex(self, where: str, zone: ServedZone, keys: Keys) -> None:
        """Add what each zone needs at its apex, NS and SOA (RFC 1034 4.2.1), as the keys have them,
        unless it is there. The first name server is the SOA's primary one."""
        apex, node = zone.apex, zone.nodes.setdefault(zone.apex, {})
        own = wire.Record(apex, wire.NS, wire.CLASS_IN, keys.ttl, b"")
        if wire.NS not in node:
            for server in keys.ns or [self.name_below("ns1", where, "ns", apex)]:
                self.add(f"{where}.ns", zone, own._replace(rdata=server))
        if wire.SOA not in node:
            contact = keys.contact or self.name_below("hostmaster", where, "contact", apex)
            numbers = [getattr(keys, word) for word in SOA_NUMBERS]
            rdata = node[wire.NS].rdatas[0] + contact + struct.pack("!5I", *numbers)
            self.add(f"{where}.contact", zone, own._replace(type=wire.SOA, rdata=rdata))

    def name_below(self, label: str, where: str, word: str, apex: bytes) -> bytes:
        """Return the name below an apex that is a word's default. Some apexes leave no room for
        one within the 255 octets of a name (RFC 1035 3.1)."""
        try:
            return wire.parse_name(label, apex)
        except Problem as bad:
            self.problem(where, f".{word}: is to be given, for its default, {bad}")
            return apex

    # -- Pools: [pools."NAME"], with its backends, its source and its check --

    def pool(self, where: str, owner: bytes, value: Table) -> PoolConfig:
        """Return one pool, after putting it into its zone."""
        keys = self.read_keys(where, value, POOL)
        keys.name, keys.code = wire.show_name(owner)[:-1], ""
        keys.backends = tuple(self.backends(where, keys.backends))
        addresses = [each for row in keys.backends for each in row.addresses]
        hosts = [each for each in addresses if not is_address(each)]
        self.place(where, owner, keys, bool(hosts))
        if is_address(keys.all_down):
            self.read_last_resort(where, keys, addresses)
        if keys.policy not in POLICIES:
            # The text is read now, perhaps as root, and run later, as a user who may be barred from
            # the file; so it is also the text that was tried when the config was checked.
            keys.code = self.text(f"{where}.policy", keys.policy.rpartition(":")[0])
        elif "backends" not in value and keys.source is None:
            self.problem(where, ": needs backends, or a source that names them")
        if 0 < len(hosts) < len(keys.backends):
            self.problem(where, ".backends: addresses and host names do not mix, and these are "
                         f"names: {', '.join(hosts):.200}")
        if hosts and keys.check is not None:
            self.problem(where, ".check: needs backends with addresses; these are host names")
        self.read_source(where, keys)
        if "lifetime" in value and keys.policy != "least-connections":
            self.warn(where, f".lifetime = {keys.lifetime:g}: is a hint for least-connections, and "
                      f"the policy is {keys.policy}; leave it out")
        self.read_check(where, keys)
        return PoolConfig(**vars(keys))

    def read_last_resort(self, where: str, keys: Keys, addresses: Sequence[str]) -> None:
        """Read an `all_down` that is an address, which answers queries of its own family only."""
        [keys.all_down] = backend_address(keys.all_down)
        # Backends that a source will name may be of any family; then there are no addresses yet.
        if {":" in each for each in addresses} == {":" not in keys.all_down}:
            self.warn(where, f".all_down = {keys.all_down!r}: is never answered, since no "
                      "backend has an address of its family; name one of the other")

    def place(self, where: str, owner: bytes, keys: Keys, alias: bool) -> None:
        """Put a pool into its zone, or note why it cannot stand there. An `alias` has host names as
        backends, so it answers with a CNAME, beside which nothing may stand (RFC 1034 3.6.2)."""
        names = wire.suffixes(owner)
        zone = wire.find_zone(names, wire.A, self.zones)
        if zone is None or owner == b"\0":  # the root has no label for clients to ask for
            self.problem(where, ": in none of the zones; add its zone")
            return
        if zone.find_cut(names, wire.A):
            self.problem(where, ": below a delegation of its zone, so others answer for it")
        others = zone.nodes.get(owner, {}).keys()
        clash = others - BESIDE_CNAME if alias else others & {wire.A, wire.AAAA, wire.CNAME}
        if clash:
            found = ", ".join(map(wire.show_type, sorted(clash)))
            self.problem(where, f": its zone has {found} at this name; a pool has addresses of its "
                         "own, or host names, which make it a CNAME, and that stands alone")
        if keys.anticache is None:
            keys.anticache = owner != zone.apex  # there it would answer for all names of the zone
        zone.add_name(owner)
        for each in self.zones.values():  # a pool at an apex may be glue in the zone above
            if owner in each.nodes:
                each.owners.add(owner)
        if keys.anticache:  # see ServedZone.find_anticache
            label, parent = owner[1:1 + owner[0]], owner[1 + owner[0]:]
            zone.endings.setdefault(parent, {})[label] = owner
            lengths = {len(label), *zone.lengths.get(parent, ())}
            zone.lengths[parent] = sorted(lengths, reverse=True)

    def backends(self, where: str, values: Sequence[Any]) -> Iterator[Row]:
        """Yield a row for each inline backend, which is a table, or an address alone."""
        seen: set[str] = set()
        for at, value in enumerate(values):
            path = f"{where}.backends[{at}]"
            table = value if isinstance(value, dict) else {"address": value}
            keys = self.read_keys(path, table, BACKEND)
            if seen & set(keys.address):  # in canonical form: "::1" and "0::1" are the same
                self.problem(path, f" = {value!r:.80}: stands in the list twice")
            elif "address" not in table:
                self.problem(path, ": needs an address")
            seen.update(keys.address)
            if keys.address:
                yield Row(keys.address, keys.weight, keys.max_connections, keys.state)

    def read_source(self, where: str, keys: Keys) -> None:
        """Read where a pool's rows come from, and for how long their load is believed. Without a
        word from the config, reports outlive two polls that fail, and at least 10 s."""
        stale, rhythm = keys.stale, 0.0
        if keys.source is not None:
            keys.source = source = self.source(f"{where}.source", keys.source, keys.name)
            rhythm = max(source.every, source.timeout)
            if source.reports and stale and stale < AGENT_LOST * AGENT_EVERY:
                self.warn(where, f".stale = {stale:g}: agents report once a second, so that one or "
                          "two lost datagrams make a backend unknown or down; leave it out")
            elif stale and stale <= source.every:
                self.warn(where, f".stale = {stale:g}: load is unknown before each poll, since "
                          f"source.every = {source.every:g}; leave it out, or say "
                          f"{3 * source.every:g}")
        elif stale:
            self.warn(where, ".stale: is about the reports of a source, and there is none")
        if keys.policy == "least-connections" and keys.source is None:
            self.warn(where, '.policy = "least-connections": without a source nobody says how many '
                      "there are, so answers are random, by weight; add a source, or take another "
                      "policy")
        keys.stale = stale or max(10.0, 3 * rhythm)

    def source(self, where: str, value: Table, pool: str) -> Source:
        """Return where the rows of the pool of this name come from. Paths are relative to the
        config's folder; commands are run there by the monitor."""
        keys = self.read_keys(where, value, SOURCE)
        kinds = [word for word in ("sqlite", "command", "reports") if word in value]
        if len(kinds) != 1:
            self.problem(where, ': needs one of sqlite = "FILE", command = ["PROGRAM", ...] and '
                         "reports = true")
        elif keys.query and kinds != ["sqlite"]:
            self.problem(where, ".query: goes with sqlite only")
        elif keys.query:
            self.check_query(where, keys.query)
        elif keys.reports and value.keys() & {"every", "timeout"}:
            self.problem(where, ": every and timeout are about polls; agents report when they "
                         "will, by their option --every")
        if keys.reports:
            return Source("agents", None, (), True, keys.every, keys.timeout)
        command = tuple(word.replace("{pool}", pool) for word in keys.command)
        name = subprocess.list2cmdline(command) or os.path.abspath(self.folder / keys.sqlite)
        return Source(name, keys.query, command, False, keys.every, keys.timeout)

    def check_query(self, where: str, query: str) -> None:
        """Note why a query of SQL cannot work, as far as that shows without its tables: SQLite
        translates it (EXPLAIN) for an empty database, and so finds mistakes of syntax."""
        parameters = set(re.findall(SQL, query, re.DOTALL)) - {"", ":pool"}
        try:
            if parameters:
                raise Problem(f"{parameters.pop()}: the one parameter is :pool, the name of the "
                              "pool")
            with contextlib.closing(sqlite3.connect(":memory:")) as database:
                database.execute("EXPLAIN " + query, {"pool": ""})
        except (sqlite3.Error, sqlite3.Warning, ValueError) as bad:
            if not str(bad).startswith("no such"):  # "no such table: backends", of course
                self.problem(where, f".query = {query!r:.80}: {bad!s:.200}")

    def read_check(self, where: str, keys: Keys) -> None:
        """Read how a pool's backends are probed, and how many must be up for that to count."""
        min_up, backends = keys.min_up, len(keys.backends)
        if keys.check is not None:
            keys.check = self.probe(f"{where}.check", keys.check, keys.name)
            if backends and min_up >= max(2, backends):
                self.warn(where, f".min_up = {min_up}: checks never count, since the pool has "
                          f"{wire.plural(backends, 'backend')}; say less than that, or leave it "
                          "out")
        elif min_up and not (keys.source and keys.source.reports):
            self.problem(where, ".min_up: needs a check, or agents, whose silence it is about")

    def probe(self, where: str, value: Any, pool: str) -> Probe:
        """Return how to probe the backends of the pool of this name. The value is a table, or a URL
        alone."""
        table = value if isinstance(value, dict) else {"url": value}
        known = len(self.problems)
        keys = self.read_keys(where, table, PROBE)
        keys.timeout = keys.timeout or min(CHECK_TIMEOUT, keys.interval)
        keys.kind, host, keys.port, keys.path = vars(keys).pop("url") or ("command", "", 0, "")
        if keys.path:  # HTTP asks for a host by its name; without one in the URL by the pool's
            host = host or pool
        keys.host = host
        if len(self.problems) == known:  # else what contradicts may be a default
            for says in contradictions(table, keys):
                self.problem(where, says)
        keys.command = tuple(word.replace("{pool}", pool) for word in keys.command)
        return Probe(**vars(keys))

    # -- Review: what only shows when all zones and pools are finished --

    def review(self) -> None:
        """Check each record beside the others of its name, and each name server's address.

        All go by the records as the config has them, so each line can name the place to change.
        """
        for where, zone, record in self.records.values():
            owner, rtype, name = record.owner, record.type, wire.show_name(record.owner)
            rdatas = zone.nodes[owner][rtype].rdatas
            if rtype == wire.NS:
                self.review_server(where, owner, record.rdata)
            if record.rdata != rdatas[0]:
                continue  # what follows is about the whole RRset
            others = sorted(zone.nodes[owner].keys() - BESIDE_CNAME - {wire.CNAME})
            if rtype == wire.CNAME and others:  # RFC 1034 3.6.2
                self.problem(where, f": {name} has a CNAME, which stands alone, beside "
                             f"{', '.join(map(wire.show_type, others))}")
            if rtype == wire.NS and owner.startswith(b"\x01*"):
                self.problem(where, f": {name} cannot be delegated (RFC 4592 4.2); delegate each "
                             "name of its own")
            # A record has a pointer to its owner, type, class, TTL and length before its rdata.
            # Names in there can be written shorter, so all of it may fit after all.
            size = 12 * len(rdatas) + sum(map(len, rdatas))
            if size > wire.TCP_MAX:
                self.warn(where, f": {name} {wire.show_type(rtype)}: {size} octets, which may be "
                          "more than the 64 KiB of an answer over TCP hold; leave some out")

    def review_server(self, where: str, owner: bytes, server: bytes) -> None:
        """Warn of an owner's name server that nobody can reach, since its name is an address, or
        should have addresses in our zones and has none."""
        name, names = wire.show_name(server), wire.suffixes(server.lower())
        if is_address(name[:-1]):
            self.warn(where, f": name server {name} looks like an address; give it a name, and "
                      "that name the address")
        # The server's own zone, if it is ours; and the delegation that its name is below there.
        home = wire.find_zone(names, wire.A, self.zones)
        cut = home.find_cut(names, wire.A) if home else None
        if home is None or cut not in (None, owner):
            return  # its address is not ours to know
        # In a delegation only glue counts: no pool and no wildcard answers there.
        pool, node = (None, home.nodes.get(names[0])) if cut else find(home, names, self.pools)[1:]
        if pool is None and not {wire.A, wire.AAAA} & set(node or ()):
            self.warn(where, f": name server {name} has no A or AAAA record in the zone "
                      f"{wire.show_name(home.apex)}, so nobody can reach it; add one, or name "
                      "another server")

    def review_hidden(self) -> None:
        """Warn of records that no answer ever holds, since their name is in a delegation, or in a
        zone of its own; one warning for each of those."""
        servers = {(zone.apex, record.rdata.lower()) for _, zone, record in self.records.values()
                   if record.type == wire.NS}
        warned = set()
        for where, zone, record in self.records.values():
            owner, names = record.owner, wire.suffixes(record.owner)
            # Who answers for this name is a delegation, or the zone with the longest apex.
            home = wire.find_zone(names, wire.A, self.zones) or zone
            below = zone.find_cut(names, wire.A) or home.apex
            # Of names in a delegation, referrals show NS and DS at its top, and glue.
            shown = {wire.NS, wire.DS} if owner == below else set()
            if (zone.apex, owner) in servers:
                shown |= {wire.A, wire.AAAA}
            key = zone.apex, below
            if below != zone.apex and record.type not in shown and key not in warned:
                warned.add(key)
                what = f"{wire.show_name(owner)} {wire.show_type(record.type)}"
                self.warn(where, f": {what} is never answered: {wire.show_name(below)} is a zone "
                          "of its own, and the place for all below that name")


def contradictions(table: Table, keys: Keys) -> Iterator[str]:
    """Yield what is wrong with words of a check each of which is right by itself.

    `table` has the words that the config uses, `keys` all of them, and kind, host and path as its
    URL has them. A path means HTTP.
    """
    if ("url" in table) == ("command" in table):
        yield ": needs either a url or a command"
    if keys.timeout > keys.interval:
        yield f".timeout = {keys.timeout:g}: must not exceed the interval, {keys.interval:g}"
    if not keys.path and table.keys() & {"status", "body"}:
        yield ": status and body are for http and https only"
    if "verify" in table and keys.kind != "https":
        yield ".verify: is for https only"
    if keys.command and "{address}" not in "".join(keys.command):
        yield ".command: {address} must be in one of its words"
    if keys.path and not re.fullmatch(HOST_NAME, keys.host):
        yield ".url: needs a host name, since the pool's is none"


def join_names(table: Table) -> Iterator[tuple[str, Any]]:
    """Yield name and value of the entries of [zones] or [pools]. Without its quotes
    [pools.api.example.com] is, to TOML, a table in a table in a table. It becomes one entry of the
    whole name, so that what is in there is read, and the remedy names the line to change."""
    for name, value in table.items():
        inner = {}
        if isinstance(value, dict) and "." not in name:  # a name with a dot had its quotes
            inner = {word: each for word, each in value.items()
                     if isinstance(each, dict) and word not in POOL}
        for word, each in join_names(inner):
            yield f"{name}.{word}", each
        if not inner:
            yield name, value


def hash_text(text: str) -> str:
    """Return six digits that another text hardly has."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:6]


def is_missing(host: str) -> bool:
    """Return whether this host lacks an address for which `bind_endpoint` can wait, as it can on
    Linux. Only binding a socket there tells."""
    octets = host.encode()  # text would need the module encodings.idna, which may be unreadable
    try:
        family, *_, address = socket.getaddrinfo(octets, 0, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(family) as sock:
            sock.bind(address)
    except OSError as bad:
        return bad.errno == errno.EADDRNOTAVAIL and sys.platform == "linux"
    return False


def is_readable(path: pathlib.Path, user: str) -> bool:
    """Return whether a file can be read by what root becomes, as far as its mode tells; raise
    OSError."""
    if os.geteuid() != 0 or user == "root":
        return True
    status = path.stat()
    try:
        _, _, uid, gid, *_ = pwd.getpwnam(user)
    except (KeyError, ValueError):  # which `fit_to_host` says
        return True
    groups = os.getgrouplist(user, gid)
    return bool(status.st_uid == uid and status.st_mode & stat.S_IRUSR
                or status.st_gid in groups and status.st_mode & stat.S_IRGRP)


def show_value(value: Any) -> str:
    """Return a value of the config for messages, 80 characters of it at most. Not all values have a
    text: Python refuses to show numbers of thousands of digits."""
    try:
        return f"{value!r:.80}"
    except (ValueError, RecursionError):  # digits, or tables in tables
        return "..."


def read_text(path: pathlib.Path, errors: str = "strict") -> str:
    """Return what a file holds, without a byte order mark, which Windows puts there. `errors` is
    that of `bytes.decode`. Raises Problem."""
    try:
        octets = path.read_bytes()
        return octets.decode("utf-8", errors).removeprefix("\ufeff")
    except UnicodeDecodeError as bad:
        line = 1 + octets.count(b"\n", 0, bad.start)
        raise Problem(f"line {line}: octet 0x{octets[bad.start]:02x} is not UTF-8; save the file "
                      "as UTF-8") from None
    except (OSError, ValueError) as bad:  # ValueError: a NUL in the path
        raise Problem(getattr(bad, "strerror", None) or bad) from None


def read_document(file: str) -> Table:
    """Return what a TOML file says. Raises ConfigError."""
    try:
        text = read_text(pathlib.Path(file))
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as bad:
        raise ConfigError(f"{file}: {explain_toml(text, str(bad))}") from None
    except (ValueError, RecursionError) as bad:  # ValueError: Problem, and what int() refuses
        raise ConfigError(f"{file}: {bad}") from None


def read_config(file: str) -> Config:
    """Read and check a config file. Raises ConfigError, with a line for each problem: one if the
    file is no TOML, else all."""
    try:
        return ConfigReader(file).config(read_document(file))
    except RecursionError:
        raise ConfigError(f"{file}: tables stand in tables, too deep to be read") from None


def explain_toml(text: str, says: str) -> str:
    """Return why a text is no TOML: what tomllib says, the line that it means, and a remedy."""
    place = re.search("line ([0-9]+)", says)  # or "at end of document"
    line = text.split("\n")[int(place[1]) - 1] if place else text.rstrip().rpartition("\n")[2]
    remedy = ('; write text and names in quotes, and lists in brackets: listen = ["[::]:53"], '
              '[pools."api.example.com"]')
    if "Cannot" in says:  # what stands there twice has its quotes
        remedy = ""
    return f"{says}: {printable(line.strip()):.100}{remedy}"  # a line of its own


# ---- 21. Commands --------------------------------------------------------------------------------
# A command prints what it finds to standard output (`show`) and what is wrong to standard error
# (`complain`), and returns the exit code. Once a server runs, only the log speaks.
DEMO = ["api.example.com=1.2.3.4,8.8.4.4,8.8.8.8"]
USAGE = """lbdns.py                               the demo: api.example.com on 9000
       lbdns.py CONFIG                        serve what a TOML file says
       lbdns.py NAME=ADDR,ADDR ... [-p PORT]  serve pools without a file
       lbdns.py check CONFIG                  say what is wrong with it
       lbdns.py example                       print a config with every word
       lbdns.py status [CONFIG|URL ...]       which backends are up, and why
       lbdns.py explain NAME [TYPE] [CONFIG]  what answers a name, and why
       lbdns.py explain log [WORD ...]        what lines of the log mean
       lbdns.py agent POOL PORT [--to HOST]   report this backend's connections
       lbdns.py bundle                        print lbdns as one file to copy"""

EXPLAIN_USAGE = """lbdns.py explain NAME [TYPE] [--client ADDRESS] [CONFIG|URL]
       lbdns.py explain log [CODE or WORD ...]

Ask a running server what it answers to NAME and TYPE (A), and why: which rule
and pool, which backends, and the probability of each in the next answer. CONFIG
has its `status`, URL is of its page; unless given, http://127.0.0.1:9053/.
Exit code 0: it is explained; 2: a word is wrong, or nothing answers there.

explain log: print of each code what its lines say, and what to do; no server is
asked. (The DNS name log is "log.", with a dot.)"""


def main(argv: Sequence[str]) -> int:
    """Run a command. Returns the exit code.

    0   it did what it should, or ended because it was asked to
    1   `check` found problems; something is down, says `status`; or the system lacks what a start
        needs and may have it the next time
    2   people have to do something before a start can go well; a server does not answer `status`
    """
    # Descriptors 0 to 2 may be closed. The next sockets would get these numbers, and the log would
    # be written to the network.
    while os.open(os.devnull, os.O_RDWR) < 2:
        pass
    commands = {"agent": agent, "explain": explain_name, "status": status}
    if argv and argv[0] in commands:
        return commands[argv[0]](argv[1:])
    words, port = parse_arguments(argv)
    if words[0] == "check":
        return check(words[1])
    if words[0] == "example":
        return show(EXAMPLE)
    if words[0] == "bundle":
        return show(bundle())
    if "=" in words[0]:
        supervisor = Supervisor(lambda: inline_config(words, port), False)
        # The supervisor fills in the port, which the kernel may have picked.
        banner = "; try: dig @127.0.0.1 -p {port} " + words[0].partition("=")[0]
    else:
        supervisor, banner = Supervisor(lambda: read_config(words[0]), True), ""
    try:
        return supervisor.run(banner)
    except (ConfigError, OSError) as bad:
        supervisor.log.flush()  # what happened before comes first
        if supervisor.signals & STOPS:
            return 0
        complain("error", str(bad).splitlines(), "lbdns: ")
        # systemd starts it again after 1, and not after 2: see lbdns.service.
        return 2 if isinstance(bad, ConfigError) else 1


def parse_arguments(argv: Sequence[str]) -> tuple[list[str], int]:
    """Return what the command line asks for: words, those of the demo if there are none, and a
    port. Ends the process with a sentence and exit code 2 where they make no command."""
    parser = argparse.ArgumentParser(prog="lbdns.py", usage=USAGE)
    parser.add_argument("words", nargs="*", default=DEMO, help=argparse.SUPPRESS)
    parser.add_argument("-p", "--port", type=int, help="port to listen on, UDP and TCP (9000)")
    parser.add_argument("--form", type=is_form, help=argparse.SUPPRESS)  # see `upgrade`
    parser.add_argument("-V", "--version", action="version", version=f"lbdns {VERSION}")
    found = parser.parse_args(argv)
    words, port = found.words, found.port
    inline, is_check = all("=" in word for word in words), words[0] == "check"
    # argparse has no rule for words that depend on each other, so these are checked here.
    if port is None:
        port = 9000
    elif not inline or not 0 <= port <= 65535:
        parser.error("-p takes 0 to 65535 and goes with NAME=ADDR,ADDR; a config has `listen`")
    if is_check and len(words) != 2:
        parser.error("check takes one config file, such as: lbdns.py check lbdns.toml")
    if not inline and len(words) != 1 + is_check:
        parser.error(f"{' '.join(words)!r} is none of the forms above")
    return words, port


def is_form(text: str) -> bool:
    """Return True for FORM; raises ArgumentTypeError for that of another version."""
    if text != FORM:
        raise argparse.ArgumentTypeError(f"this version has {FORM}: restart instead")
    return True


def inline_config(pools: Sequence[str], port: int) -> Config:
    """Return the config of a command line, of NAME=ADDR,ADDR each, with a zone for each name: its
    parent, but no top-level domain. Raises ConfigError."""
    pool_tables: Table = {}
    for each in pools:
        name, _, addresses = each.lower().partition("=")  # names and IPv6 addresses have no case
        if name in pool_tables:
            raise ConfigError(f"{name} stands there twice; give all its addresses at once")
        pool_tables[name] = {"backends": addresses.split(",")}
    # The first label is left out where a dot is left then that is not the final one.
    zones: Table = {re.sub(r"^[^.]*\.(?=.*\..)", "", name): {} for name in pool_tables}
    document = {"listen": [f"[::]:{port}"], "log": "queries", "zones": zones, "pools": pool_tables}
    # Warnings would be about the zones' name servers, which nobody can give on a command line.
    return ConfigReader("command line").config(document)._replace(warnings=())


def bundle() -> str:
    """Return this program as one file. The text of wire.py stands where lbdns.py imports it, and
    the name `wire` is that file itself, so that `wire.decode_query` is found as before."""
    source = pathlib.Path(__file__).read_text(encoding="utf-8")
    start, end = source.find("\ntry:\n    import wire\n") + 1, source.find("\nVERSION = ")
    if not start:  # this is the bundle
        return source
    codec = pathlib.Path(wire.__file__).read_text(encoding="utf-8")
    return source[:start] + codec + "\n\nwire = sys.modules[__name__]\n" + source[end:]


def check(file: str) -> int:
    """Run the command `check`. Returns 0 after printing what is served, or 1 after printing what is
    wrong."""
    # Signals wait since the first lines of this file, and nothing but a supervisor's loop would see
    # to them; here they may end the process, as Ctrl-C should.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        # As a start does: in a child, with the policies run in a child of that one, not as root.
        config = Supervisor(lambda: read_config(file), False).read_config()
    except (ConfigError, OSError) as bad:
        complain("error", str(bad).splitlines())
        return 1
    complain("warning", config.warnings, "warning: ")
    pools = "".join(f"{show_pool(pool)}\n" for pool in config.pools.values())
    return show(f"{pools}{file}: good; {show_size(config)}\n")


def explain_name(argv: Sequence[str]) -> int:
    """Run the command `explain`. Returns the exit code: see EXPLAIN_USAGE."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # as in `check`
    parser = argparse.ArgumentParser(prog="lbdns.py explain", usage=EXPLAIN_USAGE)
    parser.add_argument("name", help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--client", metavar="ADDRESS", default="", help="who asks (anybody)")
    found = parser.parse_intermixed_args(argv)
    name, words, where = found.name, found.words, ""
    if name == "log":
        return explain_log(words or [*LOG_CODES])
    if words and ("/" in words[-1] or words[-1].endswith(".toml") or os.path.isfile(words[-1])):
        where = words.pop()
    if len(words) > 1:
        parser.error(f"{words[1]!r} is no config and no URL, and {name!r} has a type already")
    asked = {"name": name, "type": (words or ["A"])[0], "client": found.client}
    try:
        make_question(*asked.values())
        lines = show_explained(fetch_status(where, f"explain.json?{urllib.parse.urlencode(asked)}"))
    except (ConfigError, Problem) as bad:
        complain("error", str(bad).splitlines())
        return 2
    return show("".join(f"{printable(line)}\n" for line in lines))


def explain_log(words: Sequence[str]) -> int:
    """Print what lines with these codes, or about all of these words, say, and what to do. Returns
    the exit code, 2 where no line does."""
    found = list(words)
    if not all(word in LOG_CODES for word in words):
        found = [code for code, (_, says, remedy) in LOG_CODES.items() if all(
            word.lower() in f"{code} {says} {remedy}".lower() for word in words)]
    if not found:
        complain("error", [f"no line of the log is about {' '.join(words)!r}"
                           f"{suggest(words[0], LOG_CODES)}; `explain log` prints all"])
        return 2
    lines = []
    for code in found:
        levels, says, remedy = LOG_CODES[code]
        lines += textwrap.wrap(f"{code} ({levels}): {says}", 80, subsequent_indent="    ",
                               break_on_hyphens=False)
        lines += textwrap.wrap(f"To do: {remedy}", 80, initial_indent="    ",
                               subsequent_indent="    ", break_on_hyphens=False)
    return show("".join(f"{each}\n" for each in lines))


def show_explained(found: Any) -> list[str]:
    """Return the lines for what `explain_answer` has found, with the `rows` of the pool; raises
    Problem for what is nothing of the kind."""
    try:
        facts = [f"{key} {found[key]}" for key in ("zone", "pool", "policy", "ttl")
                 if found[key] is not None]
        about = found["rule"], "  ".join(facts), *found["unusual"], *show_chances(found["rows"])
        return [f"{found['name']} {found['type']}: {found['rcode'] or 'as the function says'}",
                *(f"  {each}" for each in about if each), *found["records"]]
    except (AttributeError, LookupError, TypeError, ValueError):
        raise Problem("cannot read what this server explains; use the lbdns.py of its version"
                      ) from None


def show_chances(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each backend, in columns with heads: first those that are down, then those
    that drain, then by probability."""
    cells = [show_chance(row) for row in sorted(
        rows, key=lambda row: (-STATES.index(row["state"]), -(row["next"] or 0)))]
    if cells:
        cells.insert(0, ["backend", "state", "load", "report", "next", "why"])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for each in cells:
        yield "  ".join(map(str.ljust, each, widths)).rstrip()


def show_chance(row: dict[str, Any]) -> list[str]:
    """Return the cells for a backend: address, state, connections, age of its report, probability
    in the next answer, and why it has its state; what is unknown is "-"."""
    load, most, age, chance = row["connections"], row["max"], row["age"], row["next"]
    count = "-" if load is None else str(load)
    return [",".join(row["address"]), {"down": "DOWN"}.get(row["state"], row["state"]),
            count if most is None else f"{count}/{most}",
            "-" if age is None else f"{age:.1f} s old", "-" if chance is None else f"{chance:.1%}",
            row["why"]]


def show_size(config: Config) -> str:
    """Return how many zones and pools a config has."""
    return f"{wire.plural(len(config.zones), 'zone')}, {wire.plural(len(config.pools), 'pool')}"


def show_pool(pool: PoolConfig) -> str:
    """Return a line about a pool: name, policy, TTL, inline backends, and where it has them its
    source and check, and that it answers anti-cache names."""
    words = [pool.policy, f"TTL {pool.ttl}"]
    words += ["+".join(row.addresses) for row in pool.backends]
    if pool.source:
        words.append(f"rows of {pool.source.name}")
    if pool.check:
        words.append(f"check {show_probe(pool.check, '')}")
    if pool.anticache:
        words.append("anti-cache")
    return f"{pool.name}: {', '.join(words)}"


# -- What the commands `status` and `explain` ask a server --

STATUS_URL = "http://127.0.0.1:9053/"  # of the status page, if no other is named
STATUS_LIMIT = 5.0        # seconds that a server may be silent, and half of what it may take in all
STATUS_MAX = 8 * 2**20    # octets of what it says
STATUS_FORMAT = 1         # of that, as this program reads it
WATCH_EVERY = 2.0         # seconds that a screen of `status --watch` stays
BAR = 10                  # characters of a bar, which is full at max_connections
RED, YELLOW, BOLD = "31", "33", "1"  # parameters of SGR (ECMA-48 8.3.117)
ROW_COLOURS = {"down": RED, "drain": YELLOW, "up": ""}
# Alternate screen, no cursor; and back. To the top left; erase to the line's, the screen's end.
ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
TO_TOP, ERASE_LINE, ERASE_REST = "\x1b[H", "\x1b[K", "\x1b[J"
STATUS_USAGE = """lbdns.py status [CONFIG|URL ...] [--watch]

Print what servers think of each backend, why, and since when; below that, how
the servers differ. CONFIG is a file with `status`, URL a status page's; without
any it is http://127.0.0.1:9053/. Times are local.

exit code: 0 all is up, 1 something is down or a reload was refused, 2 a server
does not answer"""
Line = tuple[str, str]        # a text, and its colour; "" = that of the terminal


def status_url(where: str) -> str:
    """Return the URL of a status page: one that is given, that of a config, or the usual one.
    Raises ConfigError. Of a config only `status` is looked at: the rest may be wrong, which is when
    people want to see the page."""
    if re.match("https?://", where) or not where:
        return where or STATUS_URL
    if not os.path.exists(where):
        raise ConfigError(f"{where}: no such file, and no URL, which begins with http://")
    document = read_document(where)
    if "status" not in document:
        raise ConfigError(f'{where}: has no status page; add the line: status = "127.0.0.1:9053"')
    value = document["status"]
    try:
        host, port = endpoint(value if isinstance(value, str) else LIST(value)[0])
    except Problem as bad:
        raise ConfigError(f"{where}: status = {show_value(value)}: {bad}") from None
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{show_endpoint(host, port)}/".replace("%", "%25")  # an interface: RFC 6874 2


def fetch_status(where: str, path: str) -> Any:
    """Return what the server of a status page, as `status_url` has it, says at a path below that.
    Raises ConfigError, or Problem where there is no answer of lbdns."""
    import http.client  # these import ssl, which no process of a server is to pay for
    import urllib.request
    page, direct = status_url(where), urllib.request.ProxyHandler({})

    def stop(*_: Any) -> NoReturn:
        """End what takes too long in all, such as a server that drips."""
        raise TimeoutError("timed out")
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 2 * STATUS_LIMIT)
    try:
        url = urllib.parse.urljoin(page, path)
        with urllib.request.build_opener(direct).open(url, timeout=STATUS_LIMIT) as reply:
            octets = reply.read(STATUS_MAX)
    except urllib.error.HTTPError as bad:
        with bad:
            says = bad.read(200).decode("utf-8", "replace").strip()
        raise Problem(f"{page}: {bad}; {says}".removesuffix("; ")) from None
    except (OSError, ValueError, http.client.HTTPException) as bad:
        why = getattr(bad, "reason", bad)
        raise Problem(f"nothing answers at {page} ({getattr(why, 'strerror', None) or why}): is "
                      "`status` set in its config, and is lbdns running?") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        found = json.loads(octets)
        version, form = found["lbdns"], found["format"]
    except (LookupError, RecursionError, TypeError, ValueError):
        raise Problem(f"{page}: what answers is not lbdns, or is over 8 MiB: "
                      f"{octets[:40]!r}") from None
    if form != STATUS_FORMAT:
        complain("warning", [f"{page}: has format {form}; use the lbdns.py of version {version}"])
    return found


def status(argv: Sequence[str]) -> int:
    """Run the command `status`. Returns the exit code: see STATUS_USAGE."""
    parser = argparse.ArgumentParser(prog="lbdns.py status", usage=STATUS_USAGE)
    parser.add_argument("where", nargs="*", default=[""], help=argparse.SUPPRESS)
    parser.add_argument("--watch", action="store_true",
                        help="print it every 2 seconds, until Ctrl-C")
    words = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # its encoding may lack what others wrote
        sys.stdout.reconfigure(errors="backslashreplace")
    if words.watch:
        return watch_status(words.where)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # as in `check`
    text, code = show_servers(words.where, False)
    return show(text) or code


def watch_status(places: Sequence[str]) -> int:
    """Print what servers say until a signal comes, or nobody reads it; on a terminal, always in the
    same place. Returns the exit code for what was printed last."""
    def stop(*_: Any) -> NoReturn:
        """End the loop below, wherever it is."""
        raise KeyboardInterrupt
    for each in SIGNALS:
        signal.signal(each, stop)
    redraws, code = is_terminal(), 2
    before = ENTER_SCREEN if redraws else ""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        while True:
            text, code = show_servers(places, redraws)
            if show(before + text):
                return 1
            before = "" if redraws else "\n"
            time.sleep(WATCH_EVERY)
    except KeyboardInterrupt:
        return code
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if redraws:
            show(LEAVE_SCREEN)


def is_terminal() -> bool:
    """Return whether a terminal that can do more than print lines gets the output."""
    return bool(sys.stdout) and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def show_servers(places: Sequence[str], redraws: bool) -> tuple[str, int]:
    """Return what servers say at some status pages, and the exit code. What is wrong goes to
    standard error; or into the text, if that is a screen that is drawn again and again."""
    views, lines, errors = dict[str, Any](), list[Line](), list[str]()
    for where in places:
        place = where or STATUS_URL
        try:
            view = fetch_status(where, "status.json")
            if len(places) > 1:
                lines.append((f"{place}:", BOLD))
            lines += show_view(view)
            views[place] = view
        except (ConfigError, Problem) as bad:
            errors += str(bad).splitlines()
        except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError):
            errors.append(f"{place}: cannot be read by this lbdns.py; use that of its version")
    lines += compare_views(views)
    code = 2 if errors else int(any(map(is_unwell, views.values())))
    if redraws:
        lines += [(each, RED) for each in errors]
    else:
        complain("error", errors)
    return lay_out(lines, redraws), code


def lay_out(lines: Sequence[Line], redraws: bool) -> str:
    """Return lines as they are printed: to a terminal in its width and in colour, unless NO_COLOR
    is set, maybe in place of the last ones; else as they are. Strangers may have written them."""
    if not is_terminal():
        return "".join(f"{printable(text)}\n" for text, _ in lines)
    (width, height), found = shutil.get_terminal_size(), list[str]()
    for text, colour in lines:
        form = f"\x1b[{colour}m{{}}\x1b[m" if colour and not os.environ.get("NO_COLOR") else "{}"
        found += map(form.format, textwrap.wrap(printable(text), width, subsequent_indent="      "))
    if not redraws:
        return "".join(f"{each}\n" for each in found)
    if len(found) >= height:  # the cursor stays on the last line
        found[height - 2:] = [f"... and {len(found) - height + 2} more lines"]
    # Erased before it is written: a full line leaves the cursor on its last character.
    return TO_TOP + "".join(f"{ERASE_LINE}{each}\n" for each in found) + ERASE_REST


def is_unwell(view: dict[str, Any]) -> bool:
    """Return whether something is down, or the last reload was refused."""
    return view["config"]["error"] is not None or any(map(is_down, view["pools"].values()))


def is_down(pool: dict[str, Any]) -> bool:
    """Return whether a backend of a pool is down, or all that could be up are."""
    return pool["last_resort"] or any(row["state"] == "down" for row in pool["rows"])


def compare_views(views: dict[str, Any]) -> list[Line]:
    """Return a line for each thing of which servers should say the same, and do not."""
    facts = {place: {"config": view["config"]["hash"], "version": view["lbdns"],
                     **{f"pool {name}": f"{pool['up']} of {pool['backends']} up"
                        for name, pool in view["pools"].items()}}
             for place, view in views.items()}
    lines = []
    for subject in dict.fromkeys(itertools.chain(*facts.values())):
        said = {place: each.get(subject, "absent") for place, each in facts.items()}
        if len(set(said.values())) > 1:
            each = [f"{says} at {place}" for place, says in said.items()]
            lines.append((f"differ: {subject}: {', '.join(each)}", YELLOW))
    return lines


def show_view(view: dict[str, Any]) -> list[Line]:
    """Return lines about a server: headline, what is wrong, its pools, those with a backend that is
    down first, and what has changed in the last hour."""
    now, config = view["now"], view["config"]
    problems = (config["error"] or "").splitlines()
    lines = [(f"{view['host']}  lbdns {view['lbdns']}  up {show_span(now - view['started'])}  "
              f"{view['dns']['rate']:.0f}/s  config {config['hash']} of "
              f"{show_local(config['loaded'], now)}, {'RELOAD REFUSED:' if problems else 'ok'}",
              BOLD), *((f"  {each}", RED) for each in problems),
             *((f"  {show_trouble(each)}", RED) for each in view["trouble"])]
    for name, pool in sorted(view["pools"].items(), key=lambda item: not is_down(item[1])):
        lines += show_rows(name, pool, now)
    changes = [(f"  {show_local(each['at'], now)}  {each['pool']} {each['address']}: "
                f"{show_change(each['old'], each['new'])}: {each['why']}", "")
               for each in view["changes"] if now - each["at"] < 3600]
    if changes:
        lines.append(("changes of the last hour, the newest first", BOLD))
    return lines + changes[:5]


def show_rows(name: str, pool: dict[str, Any], now: float) -> list[Line]:
    """Return lines about a pool at unix time `now`: a headline, what is wrong, and its backends,
    first those that are down, then those that drain, then by share."""
    heads = [name, pool["policy"], f"TTL {pool['ttl']}", f"{pool['up']}/{pool['backends']} up"]
    if pool["load_age"] is not None:
        heads.append(f"load {show_span(pool['load_age'])} old")
    if pool["last_resort"]:
        heads.append("LAST RESORT")
    rows = sorted(pool["rows"], key=lambda row: (-STATES.index(row["state"]), -(row["share"] or 0)))
    width = max((len(",".join(row["address"])) for row in rows), default=0)
    return [("  ".join(heads), BOLD),
            *((f"  {show_trouble(each)}", RED) for each in pool["trouble"]),
            *((show_row(row, width, now), ROW_COLOURS[row["state"]]) for row in rows)]


def show_trouble(trouble: Mapping[str, Any]) -> str:
    """Return what is wrong, with the words for lbdns.py that say what to do."""
    return f"{trouble['text']} (explain log {trouble['code']})"


def show_row(row: dict[str, Any], width: int, now: float) -> str:
    """Return a line about a backend at unix time `now`, its address in `width` columns. For one
    that is down, or by one of its addresses: why. Else its load, its share of answers, and for one
    that drains, when it can be stopped."""
    state = row["state"]
    since = "-" if row["since"] is None else show_span(now - row["since"])
    line = f"  {','.join(row['address']):{width}}  "
    if state == "down":
        return f"{line}DOWN   {since:>5}  {row['why']}"
    share, chance = ("-" if each is None else f"{each:.0%}" for each in (row["share"], row["next"]))
    line += f"{state:5}  {since:>5}  {show_load(row['connections'], row['max']):>{BAR + 13}}  " \
            f"{share:>4}  next {chance:>4}"
    if state == "drain":
        return f"{line}  {answer_drain(row, now, show_local)}"
    return f"{line}  {row['why']}" if "; " in row["why"] else line


def show_load(load: int | None, limit: int | None = None) -> str:
    """Return connections; where there is a limit, as a part of it, behind a bar."""
    known = "?" if load is None else f"{load}"
    if limit is None:
        return known
    bar = ("#" * BAR)[:round(BAR * (load or 0) / limit)]
    return f"{bar:-<{BAR}}  {f'{known}/{limit}':>11}"


def show_span(seconds: float) -> str:
    """Return how long something lasts, in its largest unit: "0.6 s", "4 m", "11 d"."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.2g} s"


def show_local(at: float, now: float) -> str:
    """Return a unix time as people at a terminal read it: local, with its zone, and with the day
    where it is not near."""
    form = "%H:%M:%S %Z" if abs(now - at) < 43200 else "%Y-%m-%d %H:%M %Z"
    return time.strftime(form, time.localtime(at))


def show(text: str) -> int:
    """Print what a command has found. Returns its exit code: 1 where that cannot be printed."""
    bad = write_text(text, sys.stdout)
    if bad and bad.errno != errno.EPIPE:  # a reader that is gone has seen enough, such as `head`
        complain("error", [f"cannot print: {bad.strerror}"])
    return 1 if bad else 0


def complain(level: str, lines: Iterable[str], before: str = "") -> None:
    """Print what is wrong to standard error, each line with its level in front, where the journal
    reads it, and the text `before`. If even that fails, nobody is there to read it."""
    start = priority(level) + before
    write_text("".join(f"{start}{printable(line)}\n" for line in lines), sys.stderr)


def write_text(text: str, file: Any) -> OSError | None:
    """Print to standard output or standard error. Returns why that failed, None if it did not.

    Python keeps what it could not write, would try again when it ends, and report that this failed.
    So the file's descriptor then leads to where everything can be written.
    """
    try:
        print(text, end="", file=file, flush=True)
    except OSError as bad:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        return bad
    return None


# ---- 22. The agent: a backend counts its connections, and reports them ---------------------------
# It runs on each backend. Again and again it asks the kernel which connections to a port are
# established, and sends their number to each name server, as section 13 has it; or prints it as a
# row, for those who keep a table. That takes no privilege, and nothing of the service itself.
#
# The kernel lists sockets over netlink (sock_diag(7)), each with a cookie that no other socket ever
# has: those that the last list had not were opened since. Where a sandbox refuses netlink, /proc
# says the same at four times the cost, and addresses and ports take the cookie's place.
#
# Names are looked up in threads of their own, so that a resolver that hangs delays no report.
# Signals are blocked, and looked for where the agent sleeps. While a program of the user counts,
# they are not: it would have them blocked, too.
AGENT_EVERY = 1.0         # seconds between two reports, if `--every` does not say otherwise
AGENT_LOST = 3            # reports in a row that `stale` should outlast
AGENT_REST = 20           # times the CPU time of a count until the next one: 5 % of a core, but
AGENT_GAP = 5.0           # no more seconds for that, since old reports are not believed
AGENT_PROGRAM = 2.0       # seconds that the program of `--count` may take
GOODBYES = 3              # last reports, since datagrams can be lost,
GOODBYE_PAUSE = 0.1       # and the seconds after each
REPORTS_PORT = 9053       # of a name server, if `--to` names none
NAME_LIFE = 60.0          # seconds until a name server's name is looked up anew,
NAME_RETRY = 5.0          # and as long as it has never been found
NAME_WAIT = 0.2           # seconds that the first report waits for names to be found
ERROR_LIFE = 10.0         # seconds an error counts: not each datagram to nobody is answered by one
NETLINK_SOCK_DIAG = 4     # linux/netlink.h, linux/inet_diag.h
# Lists the sockets of IPv4 and IPv6 at once, unlike the newer SOCK_DIAG_BY_FAMILY: 118 ms for
# 100,000 of them instead of 148.
TCPDIAG_GETSOCK = 18
NLM_F_DUMP = 0x301        # and NLM_F_REQUEST
NLMSG_ERROR, NLMSG_DONE = 2, 3
ESTABLISHED, LISTEN = 1, 10  # net/tcp_states.h
DUMP_SIZE = 65536         # octets for one part of a list; the kernel makes at most 32 KiB
DUMP_LIMIT = 5.0          # seconds that it may take for a part
# struct nlmsghdr: length, type, flags; then inet_diag_req: local port, states.
DIAG_REQUEST = struct.Struct("=IHH12xH46xI4x")
# struct nlmsghdr: length, type; then inet_diag_msg: state, local port, cookie.
DIAG_MESSAGE = struct.Struct("=IH11xB2xH38xQ")
NOBODY_LISTENS = ("nobody listens in this network namespace: start the service, or run the agent "
                  "where that is, in its container or by: nsenter -n -t PID")
PROC_TCP = "/proc/self/net/tcp"  # "tcp6" is beside it
AGENT_USAGE = """lbdns.py agent POOL PORT [options]
       lbdns.py agent POOL=PORT POOL=PORT ... [options]

Count the established connections to a port of this host, and report them to the
name servers that balance POOL; without --to print them, one JSON object a line.
SIGTERM reports once more, that this backend drains, and ends it."""
AGENT_OPTIONS = {
    "--to": ("HOST[:PORT],...", "the name servers; the port is 9053 unless given"),
    "--key": ("FILE", "the file that they have as `reports_key`"),
    "--address": ("IP[,IP]", "of this backend; unless given, that which they see"),
    "--weight": ("N", "its relative capacity, in all pools"),
    "--max-connections": ("N", "its limit, in all pools"),
    "--drain": ("FILE", "while that exists, no new clients are wanted")}


Listed = Iterator[tuple[int, int, Any]]  # state, local port, and what no other socket has


def list_by_netlink(port: int) -> Listed:
    """Yield what the kernel lists of a port, or with 0 of all; raises OSError. A socket for both
    IPv4 and IPv6 is listed once, and so is each of its connections."""
    buffer = bytearray(DUMP_SIZE + DIAG_MESSAGE.size)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(DUMP_LIMIT)
        sock.connect((0, 0))  # to the kernel: nobody else is heard
        sock.send(DIAG_REQUEST.pack(DIAG_REQUEST.size, TCPDIAG_GETSOCK, NLM_F_DUMP,
                                    socket.htons(port), 1 << ESTABLISHED | 1 << LISTEN))
        kind = at = size = 0
        while kind != NLMSG_DONE:
            if at >= size:
                size, at = sock.recv_into(buffer, DUMP_SIZE, socket.MSG_TRUNC), 0
            length, kind, state, local, cookie = DIAG_MESSAGE.unpack_from(buffer, at)
            if kind == NLMSG_ERROR or size > DUMP_SIZE:
                raise OSError(errno.EIO, "the kernel does not list sockets")
            if kind == TCPDIAG_GETSOCK:
                yield state, socket.ntohs(local), cookie
            at += length


def list_by_proc(port: int) -> Listed:
    """Yield what /proc lists, which is all ports in any case; raises OSError."""
    for path in filter(os.path.exists, (PROC_TCP, PROC_TCP + "6")):  # there may be no IPv6
        with open(path, "rb") as file:
            next(file)  # the names of the columns
            for line in file:
                _, local, remote, state = line.split(None, 4)[:4]
                yield int(state, 16), int(local[-4:], 16), local + remote


def choose_lister(log: "Log") -> Callable[[int], Listed]:
    """Return the function that can list sockets on this host; raises OSError."""
    try:
        for _ in list_by_netlink(REPORTS_PORT):  # whatever is listed: that works
            pass
    except OSError as bad:
        os.stat(PROC_TCP)
        log.warning("agent-proc", f"agent: counts by {PROC_TCP}, which costs four times the CPU "
                    f"time, since netlink is refused ({bad.strerror}): allow AF_NETLINK")
        return list_by_proc
    return list_by_netlink


class Recipient:
    """A name server that is reported to, by its name or address.

    Each address has a socket for as long as that works: only one that is connected learns that
    nobody listens there, and a new port each time would fill the tables of firewalls.
    """
    def __init__(self, host: str, port: int, both: bool) -> None:
        self.host, self.port = host, port
        self.both = both                       # families are reported to, rather than one
        self.addresses: Sequence[Any] = ()     # each a family and its kind of address
        self.missing = ""                      # why the name was not found when last looked up
        self.sockets: dict[Any, socket.socket] = {}  # address -> connected to it, never waits
        self.wrong, self.wrong_until = "", 0.0  # what last went wrong, and until when that counts

    def look_up(self) -> None:
        """Find the addresses of the name. Those that were found before stay where that fails."""
        try:
            # Octets, since text would need encodings.idna, which may be unreadable.
            found = socket.getaddrinfo(self.host.encode(), self.port, type=socket.SOCK_DGRAM)
            # A server that takes the sender's address would see two backends, if both families
            # led there. IPv4 has the smaller number.
            first = min(family for family, *_ in found)
            self.addresses = [(family, address) for family, *_, address in found
                              if self.both or family == first]
            self.missing = ""
        except OSError as bad:
            self.missing = f"cannot be looked up: {bad.strerror}; see --to, and this host's DNS"

    def keep_looking_up(self) -> NoReturn:
        """Be a thread that looks the name up again and again."""
        while True:
            self.look_up()
            time.sleep(NAME_LIFE if self.addresses else NAME_RETRY)

    def send(self, datagrams: Sequence[bytes], done: set[Any], now: float) -> str:
        """Send to all addresses that are not `done` yet. Returns what is wrong, as far as that is
        known at monotonic time `now`, or ""."""
        addresses = set(self.addresses)
        for gone in self.sockets.keys() - addresses:
            self.sockets.pop(gone).close()
        errors = {each: self.send_to(each, datagrams) for each in addresses - done}
        done |= addresses
        # A host that has one family alone is not blamed for the other one.
        spared = {0, *LOCAL} if 0 in errors.values() else {0}
        for (_, address), error in errors.items():
            if error not in spared:
                self.wrong = (f"not reached: {address[0]}: {os.strerror(error)}; see `reports` in "
                              "its config, routes, and firewalls")
                self.wrong_until = now + ERROR_LIFE
        return self.wrong if now < self.wrong_until else self.missing

    def send_to(self, to: Any, datagrams: Sequence[bytes]) -> int:
        """Send to an address. Returns the number of an error, which may be the answer to datagrams
        before these; 0 if there is none."""
        try:
            if to not in self.sockets:
                self.sockets[to] = socket.socket(to[0], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                self.sockets[to].connect(to[1])
            error = self.sockets[to].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            for each in datagrams:
                self.sockets[to].send(each)
            return error
        except OSError as bad:
            if to in self.sockets:  # the next one finds route and source address anew
                self.sockets.pop(to).close()
            return bad.errno or errno.EIO


class Agent:
    """Counts and reports, again and again, until a signal ends that. `words` are those of
    `agent_words`."""
    def __init__(self, words: argparse.Namespace, log: "Log") -> None:
        self.words, self.log = words, log
        self.ports = sorted(set(words.pools.values()))
        self.known: dict[int, set[Any]] = {}         # port -> connections at the last count
        self.opened = dict.fromkeys(self.ports, 0)   # port -> connections opened since the first
        self.loads: dict[int, Entry] = {port: {"state": "up"} for port in self.ports}
        self.updated_at = 0.0                        # of the last report
        self.signals: list[int] = []                 # that have come, each of which ends it
        self.name = f"{socket.gethostname()}/{os.urandom(8).hex()}"
        if words.count:
            import_for_monitor()
            self.runner = Runner(memoryview(array.array("i", [0])))
        else:
            self.list_sockets = choose_lister(log)

    def run(self) -> int:
        """Report until a signal comes. Returns the exit code."""
        set_name("lbdns-agent")
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self.signals.append(number))
        for each in self.words.to:
            threading.Thread(target=each.keep_looking_up, daemon=True).start()
        self.wait(NAME_WAIT)
        self.log.change("agent", self.describe())
        ready = "READY=1"
        while not self.signals:
            start, used = time.monotonic(), time.process_time()
            self.count()
            rest = min(AGENT_REST * (time.process_time() - used), AGENT_GAP)
            if self.report(time.time()):
                return 1
            notify(ready)
            ready = ""
            self.wait(start + max(self.words.every, rest) - time.monotonic())
        notify("STOPPING=1")
        for _ in range(GOODBYES):
            self.report(time.time(), "drain")
            time.sleep(GOODBYE_PAUSE)
        return 0

    def wait(self, seconds: float) -> None:
        """Sleep, or until a signal comes."""
        found = signal.sigtimedwait(SIGNALS, max(0.0, seconds))
        # Stopped and continued meanwhile, Python may return a number that is no signal.
        if found and found.si_signo in SIGNALS:
            self.signals.append(found.si_signo)

    def describe(self) -> str:
        """Say what this agent does."""
        pools = ", ".join(f"{pool} (port {port})" for pool, port in self.words.pools.items())
        names = [f"{each.host} ({', '.join(address[0] for _, address in each.addresses) or '?'})"
                 for each in self.words.to]
        return f"agent: reports {pools} to {', '.join(names) or 'its output'} every " \
               f"{self.words.every:g} s"

    def count(self) -> None:
        """Find out load and state of each port. If that fails, loads are unknown and states stay.
        """
        try:
            if self.words.count:
                self.loads = {self.ports[0]: self.run_program()}
            else:
                self.count_sockets()
            self.log.trouble("agent-count", "count", "")
        except (OSError, Problem) as bad:
            self.loads = {port: {"state": load["state"]} for port, load in self.loads.items()}
            self.log.trouble("agent-count", "count", f"{getattr(bad, 'strerror', None) or bad}")

    def count_sockets(self) -> None:
        """Find out the same from the kernel; raises OSError."""
        listening, found = set[int](), {port: set[Any]() for port in self.ports}
        # The kernel leaves out all ports but one, or none.
        for state, port, socket_id in self.list_sockets(self.ports[0] if len(found) == 1 else 0):
            if state == ESTABLISHED and port in found:
                found[port].add(socket_id)
            elif state == LISTEN:
                listening.add(port)
        for port, now in found.items():
            self.opened[port] += len(now - self.known.get(port, now))
            self.loads[port] = {"connections": len(now), "opened": self.opened[port],
                                "state": "up" if port in listening else "down"}
            self.log.trouble("agent-port", f"port {port}",
                             "" if port in listening else NOBODY_LISTENS)
        self.known = found

    def run_program(self) -> Entry:
        """Return what the program of `--count` says; raises Problem."""
        words, reader = self.words.count, ConfigReader("")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the program is to get its signals
        try:
            code, output, errors = asyncio.run(self.runner.run(words, AGENT_PROGRAM))
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        value = tidy_value("connections", output)
        load = reader.table(words[0], {"connections": value}, ENTRY)
        if code or reader.problems:
            raise Problem(f"{words[0]}: {show_end(code, errors)}" if code else reader.problems[0])
        return load | {"state": "up"}

    def report(self, now: float, state: str = "up") -> int:
        """Report what was counted last at unix time `now`, as a state no better than `state`.
        Returns an exit code other than 0 where nobody reads what is printed."""
        if os.path.exists(self.words.drain or ""):
            state = "drain"
        entries = [{"pool": pool, **self.words.row, **self.loads[port],
                    "state": worse_state(self.loads[port]["state"], state)}
                   for pool, port in self.words.pools.items()]
        if self.words.to:
            self.send(entries, now)
        self.log.flush()
        if self.words.to:
            return 0
        if len(entries) == 1:
            del entries[0]["pool"]
        return self.show_rows("".join(f"{json.dumps(each)}\n" for each in entries))

    def send(self, entries: Sequence[Entry], now: float) -> None:
        """Send reports to all name servers."""
        # A later report has a later time, or it would be taken for an old one that somebody sends
        # again; but a clock that was far ahead and has been put right is right.
        if abs(now - self.updated_at) < CLOCK_MAX:
            now = max(now, self.updated_at + 0.001)
        self.updated_at = now
        about = {"agent": self.name, "updated_at": now}
        datagrams = [seal_report(self.words.key, {**each, **about}) for each in entries]
        done = set[Any]()
        for each in self.words.to:
            wrong = each.send(datagrams, done, time.monotonic())
            self.log.trouble("agent-send", f"name server {show_endpoint(each.host, each.port)}",
                             wrong)

    def show_rows(self, text: str) -> int:
        """Print rows. Returns an exit code other than 0 where nobody reads them, or a signal came
        while nobody did."""
        def stop(number: int, _: Any) -> NoReturn:
            """Let the write fail, which Python would begin anew."""
            self.signals.append(number)
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if sys.stdout and len(text) <= select.PIPE_BUF:
            if select.select([], [sys.stdout], [], 0)[1]:
                return show(text)  # at once, so that a signal is met afterwards
        before = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            return show(text)
        except BrokenPipeError:  # of a signal that came just before or after
            return 1
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            for number, handler in before.items():
                signal.signal(number, handler)


def agent(argv: Sequence[str]) -> int:
    """Run the command `agent`. Returns the exit code."""
    log = Log()
    try:
        words = agent_words(argv)
        if sys.platform != "linux":
            raise Problem("runs on Linux only; elsewhere, write rows to a table")
        return Agent(words, log).run()
    except (OSError, RuntimeError, Problem) as bad:  # RuntimeError: no thread can be had
        log.flush()
        complain("error", str(bad).splitlines(), "lbdns agent: ")
        return 2 if isinstance(bad, Problem) else 1


def agent_parser() -> argparse.ArgumentParser:
    """Return what reads the command line of an agent."""
    parser = argparse.ArgumentParser(prog="lbdns.py agent", usage=AGENT_USAGE)
    parser.add_argument("pools", nargs="+", help=argparse.SUPPRESS)
    for option, (metavar, says) in AGENT_OPTIONS.items():
        parser.add_argument(option, metavar=metavar, help=says)
    parser.add_argument("--every", metavar="SECONDS", type=float, default=AGENT_EVERY,
                        help="from one report to the next, well below `stale` (1)")
    parser.add_argument("--count", metavar="PROGRAM", nargs=argparse.REMAINDER,
                        help="the last option: prints the number of connections, instead "
                             "of asking the kernel")
    return parser


def agent_words(argv: Sequence[str]) -> argparse.Namespace:
    """Return the words of a command line, each as its rule wants it. Ends the process with exit
    code 2 where they make no command; raises Problem."""
    parser = agent_parser()
    words = parser.parse_args(argv)
    columns = "address", "weight", "max_connections"
    reader = ConfigReader("")
    words.row = reader.table("", tidy({name: getattr(words, name) for name in columns}), ENTRY)
    reader.table("", {"every": words.every}, SOURCE)
    if reader.problems:
        raise Problem("\n".join(f"--{each.replace('_', '-', 1)}" for each in reader.problems))
    if "address" in words.row:
        if not all(map(is_address, words.row["address"])):
            raise Problem(f"--address = {words.address!r}: must be an IPv4 or IPv6 address, or one "
                          "of each with a comma")
        words.row["address"] = ",".join(words.row["address"])
    words.pools = agent_pools(words.pools)
    if words.count is not None and not len(words.count) >= len(words.pools) == 1:
        parser.error("--count takes a program and its words, and counts for one pool; run an agent "
                     "for each")
    if bool(words.to) != bool(words.key):
        parser.error("--to and --key go together; make a key by: (umask 077; openssl rand "
                     "-hex 32 > FILE)")
    words.to = words.to.split(",") if words.to else []
    words.to = [agent_recipient(each, "address" in words.row) for each in words.to]
    try:
        words.key = read_report_keys(pathlib.Path(words.key))[0] if words.key else b""
    except Problem as bad:
        raise Problem(f"--key {words.key}: {bad}") from None
    return words


def agent_pools(words: Sequence[str]) -> dict[str, int]:
    """Return the port of each pool, of POOL PORT or POOL=PORT ...; raises Problem."""
    if len(words) == 2 and "=" not in "".join(words):
        words = ["=".join(words)]
    pools = dict[str, int]()
    for each in words:
        pool, _, port = each.rpartition("=")
        try:
            if not pool:
                raise Problem("pool or port is missing")
            name = wire.show_name(domain(pool).lower())[:-1]
            if name in pools:
                raise Problem("the pool stands there twice; each has one port")
            number = int(port) if re.fullmatch("[0-9]{1,5}", port) else port
            pools[name] = whole(1, 65535)(number)
        except Problem as bad:
            raise Problem(f"{each!r}: {bad}; write POOL PORT, or POOL=PORT for each") from None
    return pools


def agent_recipient(text: str, both: bool) -> Recipient:
    """Return whom an item of `--to` means; raises Problem."""
    # Groups: address in brackets, name or address without them, port.
    match = re.fullmatch(r"(?:\[(.+)\]|([^:]+))(?::([0-9]{1,5}))?", text.strip().lower())
    host, port = (match[1] or match[2], match[3] or REPORTS_PORT) if match else ("", 0)
    if not is_address(host.partition("%")[0]) and not re.fullmatch(HOST_NAME, host) \
            or not 0 < int(port) <= 65535:
        raise Problem(f"--to {text!r}: must be a name or an address, and maybe a port, such as "
                      "ns1.example.com, 192.0.2.53:9053 or [2001:db8::53]:9053")
    return Recipient(host, int(port), both)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
