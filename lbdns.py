#!/usr/bin/env python3
"""lbdns: an authoritative DNS server that balances load by what it answers.

    python3 lbdns.py                    the demo: api.example.com on port 9000, every query logged
    python3 lbdns.py CONFIG             serve what a TOML file says; `lbdns.py example` prints one

How a query travels: UdpListener.serve or Worker.on_stream (bytes in) -> answer -> wire.decode_query
-> find -> Pool.pick -> wire.Writer.finish (bytes out). `answer` is a pure function of the packet,
the client, the transport, the state, the clock and the dice; nothing on its way blocks.

Where to change what: policies are section 5, what a name means is section 4 (`find`), transports
are sections 6 and 7, sources section 8, processes section 9, config words the tables of section 12.

Processes: a supervisor binds the sockets, drops privileges, forks and then only waits; workers
answer; a monitor reads the sources and publishes what it learns on a Board that workers read.
"""
import sys

if sys.version_info < (3, 11):  # noqa: UP036  # said before anything that an older one cannot import
    sys.exit("lbdns needs Python 3.11 or newer; this one is %d.%d: %s"
             % (sys.version_info[0], sys.version_info[1], sys.executable))

import argparse
import ast
import bisect
import difflib
import errno
import gc
import hashlib
import heapq
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
import selectors
import signal
import socket
import sqlite3
import stat
import struct
import tempfile
import threading
import time
import tomllib
import traceback
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, cast

try:
    import wire
except ImportError:
    sys.exit("lbdns.py needs wire.py beside it; where both are, "
             "'python3 lbdns.py bundle > DIR/lbdns.py' writes the one file to copy")

VERSION = "0.1.0"

# ---- 1. Limits ---------------------------------------------------------------------------------

UDP_BATCH = 64            # datagrams answered per wake-up, so that TCP and timers get their turn
UDP_QUERY_MAX = 4096      # octets of a query over UDP; what is longer is dropped unread
UDP_BUFFER = 4 << 20      # octets of SO_RCVBUF: 10,000 small queries, half a second at 20,000/s
UDP_BUFFER_LOW = 1 << 20  # less than this is worth a warning: a 50 ms stall loses queries
TCP_BACKLOG = 1024        # connections that wait for accept()
TCP_CONNECTIONS = 2000    # open connections a worker holds; beyond, the longest idle makes room
TCP_IDLE = 10.0           # seconds without a query before a connection is closed: RFC 7766 6.2.3
TCP_MESSAGE = 5.0         # seconds from a query's first octet to its last
TCP_LIFE = 300.0          # seconds a connection may live; then it is closed between two queries
TCP_READ = 16384          # octets taken from a connection per wake-up
TCP_QUEUE = 65536         # octets of unread replies after which a client's queries must wait
TCP_TURN = 64             # queries answered per connection and wake-up
ACCEPT_TURN = 32          # connections accepted per wake-up
ACCEPT_PAUSE = 0.5        # seconds without accept() when file descriptors have run out
FD_RESERVE = 24           # file descriptors kept for everything but TCP clients
TICK = 0.5                # seconds between two looks at timers and heartbeats
HEARTBEAT = 3.0           # seconds without a sign of life before a child is killed and replaced
START_LIMIT = 15.0        # seconds a new generation may take to get ready
STOP_LIMIT = 2.0          # seconds a worker may take to answer what has been asked before it ends
RETIRE_LIMIT = 60.0       # seconds an old generation may serve its TCP clients after a reload
CRASH_WINDOW = 10.0       # a child that lived shorter than this waits before it is started again
CRASH_PAUSE = 1.0         # seconds of that wait
CHAIN_MAX = 8             # CNAMEs followed in one answer
TTL_RESORT = 5            # seconds of TTL while a pool answers from its last resort
CREDIT_FADE = 20.0        # seconds in which own answers stop counting as load not yet reported
HASH_BITS = {4: 24, 6: 56}  # prefix that `hash` sees of a client: what resolvers send, RFC 7871 11.1
POLL_LIMIT = 2.0          # seconds a source may take before its poll counts as failed
FIRST_POLL = POLL_LIMIT + 1  # seconds the first answer waits for the first round of sources
ROWS_MAX = 100_000        # rows a source may have
PUBLISH = 0.1             # seconds between two looks at what there is to publish
LOG_LINE = 4000           # octets of a log line; up to PIPE_BUF (4096) a write is all or nothing
LOG_REPEAT = 60.0         # seconds in which the same trouble is counted instead of printed


# ---- 2. The log: never blocks, counts what it cannot write -------------------------------------

class Log:
    """Lines to standard error. A full pipe, a slow terminal or a full disk costs lines, not time.

    The level "errors" prints trouble, "changes" also what changed, "queries" also every query.
    """

    LEVELS = ("errors", "changes", "queries")

    def __init__(self, level: str = "changes", form: str = "text") -> None:
        self.level, self.json = self.LEVELS.index(level), form == "json"
        self.lines: list[bytes] = []
        self.rest = b""                                # the unwritten end of a line begun
        self.lost = 0                                  # lines dropped since the last that got out
        self.seen: dict[str, tuple[float, int]] = {}   # trouble -> (when printed, times since)
        self.fd, self.socket = self._own_description(2)

    @staticmethod
    def _own_description(fd: int) -> tuple[int, socket.socket | None]:
        """Standard error once more, not blocking, without making the shell's own copy so."""
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):  # the journal: MSG_DONTWAIT does it per call
                return fd, socket.socket(fileno=os.dup(fd))
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_NOCTTY
            return os.open(f"/dev/fd/{fd}", flags), None
        except OSError:
            return fd, None

    def error(self, text: str, key: str = "") -> None:
        """Trouble. With `key`, trouble of the same key is printed once a minute, with a count."""
        if key:
            now = time.monotonic()
            when, times = self.seen.get(key, (-LOG_REPEAT, 0))
            if now - when < LOG_REPEAT:
                self.seen[key] = (when, times + 1)
                return
            self.seen[key] = (now, 0)
            text += f" ({times} more in the last {now - when:.0f} s)" if times else ""
        self._line("error", text)

    def change(self, text: str) -> None:
        """Something is not as it was: a state, a config, a process."""
        if self.level >= 1:
            self._line("change", text)

    def query(self, client: str, name: str, rtype: str, rcode: str,
              chosen: Sequence[str], micros: int) -> None:
        """One query and what was answered; strangers' names come escaped."""
        if self.json:
            self._put({"client": client, "name": name, "type": rtype, "rcode": rcode,
                       "chosen": chosen, "us": micros})
        else:
            self._put(f"{client} {name} {rtype} {rcode} {','.join(chosen) or '-'} {micros}us")

    def _line(self, level: str, text: str) -> None:
        text = text.replace("\n", " ")
        self._put({"level": level, "text": text} if self.json else
                  ("error: " if level == "error" else "") + text)

    def _put(self, what: str | dict[str, Any]) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{now % 1 * 1000:03.0f}Z"
        text = f"{stamp} {what}" if isinstance(what, str) else json.dumps({"time": stamp, **what})
        self.lines.append(text.encode("utf-8", "backslashreplace")[:LOG_LINE] + b"\n")

    def flush(self) -> None:
        """Write what has gathered, as much as the reader takes now; count the rest as lost."""
        if self.lost and self.lines:
            lost, self.lost = self.lost, 0
            self._line("error", f"{lost} log lines lost: their reader was too slow")
        lines, self.lines = self.lines, []
        while lines or self.rest:
            chunk, taken = self.rest, 0
            while taken < len(lines) and len(chunk) + len(lines[taken]) <= LOG_LINE + 1:
                chunk += lines[taken]
                taken += 1
            written = self._write(chunk)
            if written <= 0:
                self.lost += len(lines)
                return
            self.rest, lines = chunk[written:], lines[taken:]

    def _write(self, chunk: bytes) -> int:
        try:
            if self.socket is not None:
                return self.socket.send(chunk, socket.MSG_DONTWAIT)
            return os.write(self.fd, chunk)
        except OSError:  # EAGAIN, EPIPE, ENOSPC, EBADF: whatever it is, answers go on
            self.rest = b""
            return -1


# ---- 3. Nouns: what an answer may look at ------------------------------------------------------

class Row(NamedTuple):
    """A backend as config or a source describes it."""

    addresses: tuple[str, ...]         # IPv4 and/or IPv6, canonical; or one host name
    weight: float = 1.0                # relative capacity; 0 = picked only when nothing else can be
    max_connections: int | None = None  # None = no limit
    state: str = "up"                  # up | drain | down
    connections: int | None = None     # established now; None = unknown, which is not 0


class Backend:
    """One server of a pool inside a worker: a Row, and what this worker remembers of it."""

    __slots__ = ("addresses", "connections", "credit", "max_connections", "rdata", "state",
                 "turns", "weight")

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses
        self.rdata = dict(map(_address_rdata, addresses))  # type -> rdata
        self.credit = 0.0               # connections this worker's answers will bring, unreported
        self.turns: dict[int, float] = {}  # type -> when it is next in the rotation
        self.update(Row(addresses))

    def update(self, row: Row) -> None:
        """Take over what the newest snapshot says."""
        self.weight, self.max_connections = row.weight, row.max_connections
        self.state, self.connections = row.state, row.connections

    @property
    def address(self) -> str:
        """The first address, the backend's name in logs."""
        return self.addresses[0]

    def load(self) -> float:
        """Connections as far as anyone can know: reported plus own answers since."""
        return (self.connections or 0) + self.credit

    def full(self) -> bool:
        """At or above max_connections; never while its connections are unknown."""
        return (self.max_connections is not None and self.connections is not None
                and self.load() >= self.max_connections)


def _address_rdata(address: str) -> tuple[int, bytes]:
    """The type and rdata that an address or host name is answered with."""
    try:
        if ":" in address:
            return wire.AAAA, socket.inet_pton(socket.AF_INET6, address)
        return wire.A, socket.inet_pton(socket.AF_INET, address)
    except OSError:
        return wire.CNAME, wire.parse_name(address)


class PoolConfig(NamedTuple):
    """A pool as the config has it."""

    name: str                   # as written
    owner: bytes                # its key
    policy: str
    ttl: int                    # seconds
    answers: int                # addresses per answer
    anticache: bool
    backends: tuple[Row, ...]   # inline; () = the source's rows are the backends
    source: "Source | None"
    stale: float                # seconds
    all_down: str               # all | servfail | empty | an address
    may_alias: bool             # host names (CNAME) are possible at this owner


class Source(NamedTuple):
    """Where a pool's rows come from: an SQLite file, and how often it is read."""

    path: str
    query: str | None           # None = the table of SCHEMA
    every: float                # seconds


class Zone:
    """A zone's static data, ready to answer from; `nodes` holds empty non-terminals as {}."""

    def __init__(self, apex: bytes) -> None:
        self.apex = apex
        self.nodes: dict[bytes, dict[int, wire.RRset]] = {}
        self.soa = wire.RRset(wire.SOA, 0, ())
        self.negative = self.soa        # the SOA with the TTL of negative answers: RFC 2308 3
        self.cuts: set[bytes] = set()   # delegated names: NS below the apex
        self.endings: dict[bytes, dict[bytes, bytes]] = {}  # parent -> last label text -> pool
        self.lengths: dict[bytes, list[int]] = {}           # parent -> lengths of those, falling

    def add_anticache(self, owner: bytes) -> None:
        """Let names that end with the text of `owner` find its pool."""
        parent, label = owner[1 + owner[0]:], owner[1:1 + owner[0]]
        endings = self.endings.setdefault(parent, {})
        endings[label] = owner
        self.lengths[parent] = sorted({len(each) for each in endings}, reverse=True)

    def anticache(self, names: Sequence[bytes]) -> bytes | None:
        """The longest pool owner that the asked name's text ends with; `names` are its suffixes.

        Deeper parents come first, so the first hit is the longest. Labels are compared as labels:
        a label that holds the octets of a dot or a length byte cannot pass for two.
        """
        for above, parent in zip(names, names[1:], strict=False):
            if parent in self.endings:
                label, endings = above[1:1 + above[0]], self.endings[parent]
                for length in self.lengths[parent]:
                    owner = endings.get(label[-length:])
                    if owner is not None:
                        return owner
            if above == self.apex:
                break
        return None


class Config(NamedTuple):
    """A checked config: everything a generation of processes needs, and nothing it must check."""

    listen: tuple[tuple[str, int], ...]
    workers: int
    user: str
    log: str
    log_format: str
    nsid: str
    servers: int
    zones: dict[bytes, Zone]
    pools: dict[bytes, PoolConfig]
    warnings: tuple[str, ...]


class State:
    """All that `answer` may look at; a worker has one, and loads each new snapshot into it."""

    def __init__(self, config: Config, secret: bytes, log: Log) -> None:
        self.zones, self.nsid = config.zones, config.nsid.encode()
        self.secret = secret            # keys the server cookies; made at start, kept over reloads
        scale = config.workers * config.servers
        self.pools = {owner: Pool(pool, scale, log) for owner, pool in config.pools.items()}
        self.names = {pool.config.name: pool for pool in self.pools.values()}
        self.lines: dict[str, str] = {}  # pool -> its line of the last snapshot
        # Called with every reply when queries are logged, else None.
        self.note: Callable[[wire.Query, str, Reply], None] | None = None

    def load(self, snapshot: str, now: float) -> None:
        """Take over what changed in a snapshot (Monitor.snapshot)."""
        for line in snapshot.splitlines()[1:]:
            name = line.split("\t", 1)[0]
            if name in self.names and self.lines.get(name) != line:
                self.lines[name] = line
                stale, rows = read_line(line)
                self.names[name].load(rows, stale, now)


# ---- 4. A query's way: answer, find -----------------------------------------------------------

class Reply:
    """What is to be said, before it becomes bytes."""

    __slots__ = ("authoritative", "chosen", "options", "rcode", "records", "scope")

    def __init__(self, rcode: int) -> None:
        self.rcode, self.authoritative = rcode, False
        self.records: list[tuple[int, bytes, wire.RRset]] = []  # section, owner, RRset
        self.options: list[tuple[int, bytes]] = []              # of OPT: code, data
        self.chosen: list[str] = []                             # backends answered, for the log
        self.scope = 0                                          # bits of client subnet that counted

    def explain(self, code: int, text: str) -> None:
        """Say why this answer is unusual: an Extended DNS Error (RFC 8914)."""
        self.options.append((wire.EDE, struct.pack("!H", code) + text.encode()))


class Ask:
    """What a policy may know of a query; a user's function gets it as `query`."""

    __slots__ = ("query", "sender")

    def __init__(self, query: wire.Query, sender: str) -> None:
        self.query, self.sender = query, sender

    @property
    def name(self) -> str:
        """The name asked for, lower case, with its final dot."""
        return wire.show_name(self.query.key)

    @property
    def type(self) -> str:
        """The type asked for: "A", "AAAA"."""
        return wire.show_type(self.query.qtype)

    @property
    def client(self) -> str:
        """The address that asked: usually a resolver's."""
        return plain_address(self.sender)

    @property
    def subnet(self) -> str | None:
        """The network of the resolver's client, "192.0.2.0/24", when the resolver tells."""
        subnet = self.query.subnet
        if subnet is None:
            return None
        octets = subnet.address.ljust(wire.ECS_BITS[subnet.family] // 8, b"\0")
        return f"{ipaddress.ip_address(octets)}/{subnet.prefix}"

    def network(self) -> tuple[bytes, int]:
        """What `hash` hashes: family and prefix of the client; and the bits of ECS it used."""
        if self.query.subnet is not None:
            family, _, octets = self.query.subnet
            bits = HASH_BITS[4 if family == 1 else 6]
            return bytes([family]) + octets[:bits // 8].ljust(bits // 8, b"\0"), bits
        address = ipaddress.ip_address(self.client)
        family = 1 if address.version == 4 else 2
        return bytes([family]) + address.packed[:HASH_BITS[address.version] // 8], 0


def plain_address(host: str) -> str:
    """A socket's peer as people write it: IPv4 as IPv4, no interface."""
    host = host.partition("%")[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def answer(packet: bytes, client: str, tcp: bool, state: State, now: float,
           dice: Callable[[], float]) -> bytes | None:
    """The reply to one query, or None to stay silent (only for what is not a query).

    `client` is the peer's address as text, `now` monotonic seconds, `dice` gives floats in [0, 1).
    """
    try:
        query = wire.decode_query(packet)
    except wire.Malformed:
        return None
    reply = Reply(query.rcode)
    if query.rcode == wire.NOERROR:
        respond(Ask(query, client), state, reply, dice)
        if reply.rcode == wire.SERVFAIL:  # nothing found on the way there is worth caching
            reply.authoritative, reply.records = False, []
    if query.options:
        add_options(query, client, tcp, state, reply, now)
    writer = wire.Writer(query, query.limit(tcp), reply.options)
    for section, owner, rrset in reply.records:
        writer.add(section, owner, rrset)
    if state.note is not None:
        state.note(query, client, reply)
    return writer.finish(reply.rcode, reply.authoritative)


def add_options(query: wire.Query, client: str, tcp: bool, state: State, reply: Reply,
                now: float) -> None:
    """Answer the options of the query's OPT that deserve an answer; ignore the rest."""
    options = query.options
    if wire.NSID in options and state.nsid:  # RFC 5001
        reply.options.append((wire.NSID, state.nsid))
    if wire.ECS in options and reply.rcode != wire.FORMERR:  # RFC 7871 7.2.1: as sent, with our scope
        echo = options[wire.ECS]
        reply.options.append((wire.ECS, echo[:3] + bytes([reply.scope]) + echo[4:]))
    if wire.KEEPALIVE in options and tcp:  # RFC 7828 3.2.2: in units of 100 ms
        reply.options.append((wire.KEEPALIVE, struct.pack("!H", int(TCP_IDLE * 10))))
    if wire.COOKIE in options and reply.rcode != wire.FORMERR:
        # RFC 7873 5.2 in the layout of RFC 9018 4. No cookie is ever demanded, so none is checked:
        # what this gives a client is proof that the reply comes from whom it asked.
        cookie = options[wire.COOKIE][:8] + struct.pack("!II", 1 << 24, int(now))
        seal = hashlib.blake2s(cookie + plain_address(client).encode(), key=state.secret,
                               digest_size=8)
        reply.options.append((wire.COOKIE, cookie + seal.digest()))


# Types that ask for something other than records, and what they get: no transfers (RFC 5936 2.2.1),
# and nothing for the two that were obsolete in 1987 (RFC 1035 3.2.3).
NO_DATA_TYPES = {wire.IXFR: wire.REFUSED, wire.AXFR: wire.REFUSED,
                 wire.MAILA: wire.NOTIMP, wire.MAILB: wire.NOTIMP}


def respond(ask: Ask, state: State, reply: Reply, dice: Callable[[], float]) -> None:
    """Fill the reply: look the name up, and follow CNAMEs while they stay in our zones."""
    query = ask.query
    if query.qtype in NO_DATA_TYPES:
        reply.rcode = NO_DATA_TYPES[query.qtype]
        return
    name: bytes | None = query.qname
    seen: set[bytes] = set()
    while name is not None and name.lower() not in seen and len(seen) <= CHAIN_MAX:
        seen.add(name.lower())
        name = look_up(name, ask, state, reply, dice)


def look_up(name: bytes, ask: Ask, state: State, reply: Reply,
            dice: Callable[[], float]) -> bytes | None:
    """Add what one name has to the reply; returns the name a CNAME leads to, else None."""
    key, qtype = name.lower(), ask.query.qtype
    names = wire.suffixes(key)
    zone = find_zone(names, qtype, state)
    if zone is None:  # the first name: not ours to answer; a CNAME's target: the asker goes on
        reply.rcode = wire.NOERROR if reply.records else wire.REFUSED
        return None
    cut = find_cut(zone, names, qtype)
    if cut is not None:
        refer(zone, cut, reply)
        return None
    reply.authoritative = True
    pool, node = find(zone, names, state)
    rrset = None
    if pool is not None:
        rrset = pool.pick(qtype, ask, reply, dice)
    if rrset is None and node:
        rrset = node.get(qtype) or node.get(wire.CNAME)
        if qtype == wire.ANY:  # RFC 8482 4.1: one RRset is answer enough
            rrset = next(iter(node.values()))
    if rrset is not None:
        reply.records.append((wire.ANSWER, name, rrset))
        if rrset.type == wire.CNAME and qtype not in (wire.CNAME, wire.ANY):
            return rrset.rdatas[0]
    elif reply.rcode != wire.SERVFAIL:
        if pool is None and node is None:
            reply.rcode = wire.NXDOMAIN  # after a CNAME too: RFC 6604 3
        reply.records.append((wire.AUTHORITY, zone.apex, zone.negative))
    return None


def find_zone(names: Sequence[bytes], qtype: int, state: State) -> Zone | None:
    """The zone with the longest apex; DS at an apex belongs to the zone above (RFC 4035 3.1.4.1)."""
    zones = [state.zones[each] for each in names if each in state.zones]
    if len(zones) > 1 and qtype == wire.DS and zones[0].apex == names[0]:
        return zones[1]
    return zones[0] if zones else None


def find_cut(zone: Zone, names: Sequence[bytes], qtype: int) -> bytes | None:
    """The delegation above or at a name, the one nearest the apex; DS at it is answered here."""
    if not zone.cuts:
        return None
    below = itertools.takewhile(lambda each: each != zone.apex, names)
    cuts = [each for each in below if each in zone.cuts]
    return cuts[-1] if cuts and (qtype != wire.DS or cuts[-1] != names[0]) else None


def refer(zone: Zone, cut: bytes, reply: Reply) -> None:
    """A referral with the addresses we hold of its name servers (RFC 1034 4.3.2 3b, RFC 9471)."""
    servers = zone.nodes[cut][wire.NS]
    reply.records.append((wire.AUTHORITY, cut, servers))
    for server in servers.rdatas:
        node = zone.nodes.get(server.lower(), {})
        for rtype in (wire.A, wire.AAAA):
            if rtype in node:
                reply.records.append((wire.ADDITIONAL, server, node[rtype]))


def find(zone: Zone, names: Sequence[bytes],
         state: State) -> "tuple[Pool | None, dict[int, wire.RRset] | None]":
    """Which data answers a name: its pool and its static records, or (None, None) for NXDOMAIN.

    `names` is the lower-cased name and its ancestors. The order is: exact owner, anti-cache name,
    empty non-terminal (node {}), static wildcard at the closest encloser (RFC 4592 3.3.1).
    """
    key = names[0]
    pool, node = state.pools.get(key), zone.nodes.get(key)
    if pool is not None or node:
        return pool, node
    owner = zone.anticache(names)
    if owner is not None:
        return state.pools[owner], {}
    if node is not None:
        return None, node
    encloser = next(each for each in names if each in zone.nodes)
    wildcard = b"\x01*" + encloser
    return state.pools.get(wildcard), zone.nodes.get(wildcard)


# ---- 5. Pools and policies: which backend ------------------------------------------------------

class Policy:
    """How a pool chooses. One object per pool and record type, so A and AAAA never disturb each
    other. `plan` gets the eligible backends whenever they change; `pick` must be cheap."""

    def __init__(self, rtype: int, pool: "Pool") -> None:
        self.rtype, self.pool = rtype, pool
        self.backends: list[Backend] = []

    def plan(self, backends: list[Backend]) -> None:
        """Prepare for picking from these, of which there is at least one."""
        self.backends = backends

    def pick(self, ask: Ask, count: int, dice: Callable[[], float]) -> list[Backend]:
        """Up to `count` different backends, best first."""
        raise NotImplementedError

    def scope(self, ask: Ask) -> int:
        """Bits of the client subnet that the choice depends on (RFC 7871 7.2.1)."""
        return 0


def capacity(backend: Backend) -> float:
    """A weight to divide by; in a group where all have weight 0, they count alike."""
    return backend.weight or 1.0


class Random(Policy):
    """Each answer on its own, in proportion to the weights."""

    def plan(self, backends: list[Backend]) -> None:
        """Lay the weights end to end, so that a pick is one draw and one bisection."""
        super().plan(backends)
        self.edges = list(itertools.accumulate(map(capacity, backends)))

    def pick(self, ask: Ask, count: int, dice: Callable[[], float]) -> list[Backend]:
        """One draw; for several, the smallest of exponential draws (Efraimidis, Spirakis 2006)."""
        if count == 1:
            at = bisect.bisect(self.edges, dice() * self.edges[-1])
            return [self.backends[min(at, len(self.backends) - 1)]]
        return heapq.nsmallest(count, self.backends,
                               key=lambda each: -math.log(1 - dice()) / capacity(each))


class Lowest(Policy):
    """Each backend has a key; the smallest is picked and moves up by its step."""

    def arrange(self, keys: Iterable[float], order: Iterable[int]) -> None:
        """Build the heap; (key, order) is never equal for two backends."""
        self.heap = list(zip(keys, order, self.backends, strict=False))
        heapq.heapify(self.heap)

    def step(self, backend: Backend) -> float:
        """How far a pick moves a backend's key."""
        return 1 / capacity(backend)

    def pick(self, ask: Ask, count: int, dice: Callable[[], float]) -> list[Backend]:
        """The backends with the smallest keys."""
        taken = [heapq.heappop(self.heap) for _ in range(min(count, len(self.heap)))]
        for key, order, backend in taken:
            heapq.heappush(self.heap, (key + self.step(backend), order, backend))
        return [backend for _, _, backend in taken]


class RoundRobin(Lowest):
    """Smooth weighted rotation: the key is a backend's next turn, 1/weight after its last. Who
    joins or comes back starts level with the earliest of the others, so they notice nothing."""

    heap: list[tuple[float, int, Backend]] = []

    def plan(self, backends: list[Backend]) -> None:
        """Go on with the turns of the last plan; equal turns are taken in the config's order."""
        super().plan(backends)
        for turn, _, backend in self.heap:
            backend.turns[self.rtype] = turn
        level = min((turn for turn, _, _ in self.heap), default=0.0)
        self.arrange((max(level, each.turns.get(self.rtype, level)) for each in backends),
                     itertools.count())


class LeastConnections(Lowest):
    """The smallest (reported connections + own answers not yet reported) / weight.

    The report is seconds old, so every own answer counts at once for the connections it will
    bring: as many as there are workers and servers, since those decide on the same report. It
    fades over CREDIT_FADE, by when reports include it. A backend without a report counts as the
    median of the others.
    """

    def plan(self, backends: list[Backend]) -> None:
        """Build the heap; equal loads stand in random order, lest all servers begin alike."""
        super().plan(backends)
        known = sorted(each.load() / self.size(each) for each in backends
                       if each.connections is not None)
        middle = known[len(known) // 2] if known else 0.0
        self.arrange((each.load() / self.size(each) if each.connections is not None
                      else middle + each.credit / self.size(each) for each in backends),
                     random.sample(range(len(backends)), len(backends)))

    def size(self, backend: Backend) -> float:
        """What the load of a backend is measured against."""
        return capacity(backend)

    def step(self, backend: Backend) -> float:
        """One answer of ours stands for one of every worker and server."""
        return self.pool.scale / self.size(backend)


class LowestRatio(LeastConnections):
    """For a pool whose backends are all full: the least overfull one."""

    def size(self, backend: Backend) -> float:
        """The limit; only full backends come here, so there is one."""
        return float(backend.max_connections or 1)


class Failover(Policy):
    """The first of the list that is eligible."""

    def pick(self, ask: Ask, count: int, dice: Callable[[], float]) -> list[Backend]:
        """The first ones in the order of the config or of the table."""
        return self.backends[:count]


class Hash(Policy):
    """Rendezvous hashing (Thaler, Ravishankar 1996): a client's network always gets the same
    backend, on every server, and when one is removed only its clients move."""

    def pick(self, ask: Ask, count: int, dice: Callable[[], float]) -> list[Backend]:
        """The backends with the best draws, the draw being a hash of network and backend."""
        network, _ = ask.network()

        def draw(backend: Backend) -> float:
            octets = ",".join(backend.addresses).encode() + network
            number = int.from_bytes(hashlib.blake2b(octets, digest_size=8).digest(), "big")
            return -math.log((number + 1) / 2**64) / capacity(backend)
        return heapq.nsmallest(count, self.backends, key=draw)

    def scope(self, ask: Ask) -> int:
        """The prefix that was hashed, when it came with the query."""
        return ask.network()[1]


class Custom(Random):
    """A user's function; whatever it does wrong, the query is answered, at random."""

    def pick(self, ask: Ask, count: int, dice: Callable[[], float]) -> list[Backend]:
        """What pick(query, backends) returns: a backend, several of them, or None for SERVFAIL."""
        try:
            result = self.pool.function(ask, list(self.backends))
            if result is None:
                return []
            chosen = list(result) if isinstance(result, (list, tuple)) else [result]
            if not chosen or any(each not in self.backends for each in chosen):
                raise TypeError("returned something else than backends it was given")
            return chosen[:count]
        except BaseException as bad:  # SystemExit and MemoryError of theirs are not ours
            self.pool.complain(f"{type(bad).__name__}: {bad}; answering at random")
            return super().pick(ask, count, dice)


POLICIES: dict[str, type[Policy]] = {
    "random": Random, "round-robin": RoundRobin, "least-connections": LeastConnections,
    "failover": Failover, "hash": Hash}


class Pool:
    """A pool inside a worker: its backends, and for each record type who may be picked now."""

    def __init__(self, config: PoolConfig, scale: int, log: Log) -> None:
        self.config, self.scale, self.log = config, scale, log
        self.kind = POLICIES.get(config.policy, Custom)
        self.function: Callable[..., Any] = lambda query, backends: random.choice(backends)
        if self.kind is Custom:
            try:
                self.function = load_function(config.policy)
            except BaseException as bad:
                self.complain(f"{bad}; answering at random")
        self.backends: list[Backend] = []
        self.stale, self.loaded = False, 0.0
        self.policies: dict[tuple[int, type[Policy]], Policy] = {}
        self.current: dict[int, tuple[Policy, bool]] = {}  # type -> (policy, last resort?)
        self.load(config.backends, False, 0.0)

    def complain(self, text: str) -> None:
        """Log trouble of this pool's policy, once a minute."""
        self.log.error(f"pool {self.config.name}: policy {self.config.policy}: {text}",
                       self.config.name + " policy")

    def load(self, rows: Iterable[Row], stale: bool, now: float) -> None:
        """Take over a snapshot; a backend that stays keeps its credit and its turn."""
        fade, self.loaded, self.stale = math.exp((self.loaded - now) / CREDIT_FADE), now, stale
        known = {each.addresses: each for each in self.backends}
        self.backends = []
        for row in rows:
            backend = known.get(row.addresses) or Backend(row.addresses)
            backend.update(row)
            backend.credit *= fade
            self.backends.append(backend)
        self.plan()

    def plan(self) -> None:
        """Decide for each type who is eligible and by which policy."""
        self.current = {}
        for rtype in (wire.A, wire.AAAA, wire.CNAME):
            have = [each for each in self.backends if rtype in each.rdata]
            if have:
                kind, eligible, resort = self.eligible(have)
                policy = self.policies.get((rtype, kind)) or kind(rtype, self)
                self.policies[rtype, kind] = policy
                policy.plan(eligible)
                self.current[rtype] = policy, resort

    def eligible(self, have: list[Backend]) -> tuple[type[Policy], list[Backend], bool]:
        """Policy, backends, and whether they are the last resort: the best group that is not
        empty of: up with room; up but full; up with weight 0; draining; whatever there is."""
        kind = Random if self.stale and self.kind is LeastConnections else self.kind
        weighty = [each for each in have if each.state == "up" and each.weight]
        room = [each for each in weighty if not each.full()]
        if room or not weighty:
            spare = [each for each in have if each.state == "up"]
            drain = [each for each in have if each.state == "drain"]
            found = room or spare or drain
            return kind, found or have, not found
        return LowestRatio, weighty, False

    def pick(self, qtype: int, ask: Ask, reply: Reply,
             dice: Callable[[], float]) -> wire.RRset | None:
        """The records to answer a type with; None with reply.rcode set for SERVFAIL, else NODATA."""
        rtype = wire.CNAME if wire.CNAME in self.current else qtype
        if qtype == wire.ANY:
            rtype = next(iter(self.current), wire.A)
        if rtype not in self.current:
            if not self.backends and rtype in (wire.A, wire.AAAA):
                reply.rcode = wire.SERVFAIL  # so that a resolver asks another name server
                reply.explain(0, f"pool {self.config.name} has no backends")
            return None
        policy, resort = self.current[rtype]
        if resort:
            reply.explain(0, f"no backend is up; all_down = {self.config.all_down}")
            if self.config.all_down != "all":
                return self.last_resort(rtype, reply)
        if self.stale:
            reply.explain(3, "the load of the backends is unknown")  # 3: Stale Answer
        chosen = policy.pick(ask, self.config.answers, dice)
        if not chosen:
            reply.rcode = wire.SERVFAIL
            return None
        reply.chosen = [self.credit(each) for each in chosen]
        reply.scope = max(reply.scope, policy.scope(ask))
        ttl = min(self.config.ttl, TTL_RESORT) if resort else self.config.ttl
        return wire.RRset(rtype, ttl, [each.rdata[rtype] for each in chosen])

    def last_resort(self, rtype: int, reply: Reply) -> wire.RRset | None:
        """What all_down says, other than "all"."""
        if self.config.all_down == "servfail":
            reply.rcode = wire.SERVFAIL
        if self.config.all_down in ("servfail", "empty"):
            return None
        kind, rdata = _address_rdata(self.config.all_down)
        reply.chosen = [self.config.all_down]
        return wire.RRset(kind, min(self.config.ttl, TTL_RESORT), [rdata]) if kind == rtype else None

    def credit(self, backend: Backend) -> str:
        """Count an answer as load to come; returns the backend's name for the log."""
        was_full = backend.full()
        backend.credit += self.scale
        if backend.max_connections is not None and backend.full() and not was_full:
            self.plan()
        return backend.address


def load_function(policy: str) -> Callable[..., Any]:
    """The function behind "file.py:name"; raises whatever its file raises."""
    path, _, name = policy.rpartition(":")
    space: dict[str, Any] = {"__name__": "lbdns_policy", "__file__": path}
    exec(compile(pathlib.Path(path).read_bytes(), path, "exec"), space)
    function = space.get(name)
    if not callable(function):
        raise TypeError(f"{path} has no function {name!r}")
    return cast("Callable[..., Any]", function)


# ---- 6. UDP: one datagram in, one out ----------------------------------------------------------

IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)        # Linux; the module learned its name in 3.12
IP_MTU_DISCOVER, IP_PMTUDISC_OMIT = 10, 5            # Linux: do not trust forged ICMP, RFC 9715 3.1
IPV6_MTU_DISCOVER = 23
CONTROL_SPACE = socket.CMSG_SPACE(20)                # a struct in6_pktinfo; in_pktinfo is shorter

# What a transport calls with a query's octets, the peer's address and whether it came over TCP.
Respond = Callable[[bytes, str, bool], "bytes | None"]


class UdpListener:
    """A bound UDP socket. `serve` is all a worker knows of it, so that another way to move
    datagrams can take its place."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        """For the selector."""
        return self.sock.fileno()

    def serve(self, respond: Respond) -> int:
        """Answer what has come in, at most UDP_BATCH datagrams; returns how many came."""
        for count in range(UDP_BATCH):
            try:
                packet, control, flags, peer = self.sock.recvmsg(UDP_QUERY_MAX, CONTROL_SPACE)
            except BlockingIOError:
                return count
            except OSError:  # an ICMP error of an earlier reply (RFC 1122 4.1.3.3): not ours to mind
                continue
            if flags & socket.MSG_TRUNC or not peer[1]:  # too long; or port 0, where nobody listens
                continue
            reply = respond(packet, peer[0], False)
            if reply is not None:
                try:
                    self.sock.sendmsg([reply], reply_from(control), 0, peer)
                except OSError:  # no route, no buffer, a filter: this reply is lost, others are not
                    pass
        return UDP_BATCH


def reply_from(control: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Control data that makes a reply leave from the address that was asked.

    The interface index is cleared, since the way back need not be the way in. RFC 3542 6.2.
    """
    out = []
    for level, kind, data in control:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            out.append((level, kind, data[:16] + bytes(4)))
        elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:  # index, local address, destination
            out.append((level, kind, bytes(4) + data[4:8] + bytes(4)))
    return out


# ---- 7. TCP: connections and the worker's loop -------------------------------------------------

class Connection:
    """One TCP client: what it sent and is not answered, what it was answered and has not read."""

    __slots__ = ("active", "born", "closing", "events", "host", "inbox", "outbox", "partial", "sock")

    def __init__(self, sock: socket.socket, host: str, now: float) -> None:
        self.sock, self.host = sock, host
        self.inbox, self.outbox = bytearray(), bytearray()
        self.born = self.active = now    # when it was accepted; when it last asked or read
        self.partial = 0.0               # since when a query is incomplete; 0 = none is
        self.closing = False             # it will send no more: RFC 7766 6.2.4's half-closed
        self.events = selectors.EVENT_READ

    def fileno(self) -> int:
        """For the selector."""
        return self.sock.fileno()

    def has_query(self) -> bool:
        """Whether a whole query waits in the inbox (or a length that no query has)."""
        return len(self.inbox) >= 2 and len(self.inbox) - 2 >= int.from_bytes(self.inbox[:2], "big")

    def serve(self, respond: Respond, now: float) -> bool:
        """Answer the whole queries received, TCP_TURN at most; False = hang up (RFC 7766 6.2.1)."""
        done, at = 0, 0
        while done < TCP_TURN and len(self.outbox) < TCP_QUEUE and len(self.inbox) - at >= 2:
            end = at + 2 + int.from_bytes(self.inbox[at:at + 2], "big")
            if end - at - 2 < wire.HEADER:
                return False
            if end > len(self.inbox):
                break
            reply = respond(bytes(self.inbox[at + 2:end]), self.host, True)
            if reply is None:
                return False
            self.outbox += len(reply).to_bytes(2, "big") + reply
            done, at = done + 1, end
        if done:
            self.active, self.partial = now, 0.0
            del self.inbox[:at]
        if self.inbox and not self.partial:
            self.partial = now
        return True

    def expired(self, now: float) -> bool:
        """Whether a limit has passed: idle, a query or a reply too slow, or a life too long."""
        if self.partial and now - self.partial > TCP_MESSAGE and not self.outbox:
            return True
        idle = now - self.active > TCP_IDLE
        return idle or (now - self.born > TCP_LIFE and not self.outbox and not self.inbox)


class TcpListener(NamedTuple):
    """A listening TCP socket, told apart from connections by its type."""

    sock: socket.socket

    def fileno(self) -> int:
        """For the selector."""
        return self.sock.fileno()


class Worker:
    """A process that answers: one loop over UDP sockets, TCP listeners and TCP clients.

    No threads, no file access, no blocking call once `run` has begun.
    """

    def __init__(self, config: Config, state: State, sockets: "Sockets", life: "Life",
                 log: Log) -> None:
        self.state, self.life, self.log = state, life, log
        self.udp = [UdpListener(sock) for sock in sockets.udp]
        self.tcp = [TcpListener(sock) for sock in sockets.tcp]
        self.clients: dict[int, Connection] = {}  # by descriptor, the longest idle first
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.room = max(8, min(TCP_CONNECTIONS, soft - FD_RESERVE))
        self.dice = random.random        # seeded anew in every process by the module itself
        self.paused = 0.0                # until when accept() rests
        self.begun = 0                   # when the query in hand arrived, ns; for the log
        self.selector = selectors.DefaultSelector()
        if log.level >= 2:
            state.note = self.note

    def run(self) -> None:
        """Serve until told to stop: SIGTERM ends within STOP_LIMIT, SIGUSR1 when clients are done."""
        for fd in self.life.fds:
            self.selector.register(fd, selectors.EVENT_READ)
        self.listen()
        gc.freeze()  # the config is here to stay: the collector need not walk it again
        checked = now = self.life.beat()
        until = math.inf
        while now < until and (until == math.inf or self.clients):
            ready = self.selector.select(TICK)
            now = self.life.beat()
            snapshot = self.life.news()
            if snapshot is not None:
                self.state.load(snapshot, now)
            for key, events in ready:
                self.on_ready(key.fileobj, events, now)
            if now - checked > TICK:
                checked = now
                self.on_tick(now)
            if self.life.ended and until == math.inf:
                until = now + ENDINGS[self.life.ended]
                self.stop_listening()
            self.log.flush()

    def listen(self) -> None:
        """Start taking datagrams and connections."""
        for listener in (*self.udp, *self.tcp):
            self.selector.register(cast(Any, listener), selectors.EVENT_READ)

    def stop_listening(self) -> None:
        """Answer what has arrived and take no more; a successor has the same sockets."""
        for udp in self.udp:
            if self.life.ended == "stop":
                while udp.serve(self.respond) == UDP_BATCH:
                    self.life.beat()
            self.selector.unregister(udp)
        for tcp in self.tcp:
            if not self.paused:
                self.selector.unregister(tcp)
        if self.life.ended == "stop":
            for client in list(self.clients.values()):
                client.closing = True
                self.on_client(client, 0, time.monotonic())

    def on_ready(self, thing: Any, events: int, now: float) -> None:
        """One socket has something for us."""
        if isinstance(thing, UdpListener):
            thing.serve(self.respond)
        elif isinstance(thing, TcpListener):
            self.on_accept(thing, now)
        elif isinstance(thing, Connection):
            self.on_client(thing, events, now)
        else:
            self.life.on_wake()

    def respond(self, packet: bytes, client: str, tcp: bool) -> bytes | None:
        """Call `answer`; should it fail by a mistake of ours, say SERVFAIL and go on."""
        if self.state.note is not None:
            self.begun = time.perf_counter_ns()
        try:
            return answer(packet, client, tcp, self.state, time.monotonic(), self.dice)
        except Exception as bug:
            where = traceback.extract_tb(bug.__traceback__)[-1]
            self.log.error(f"internal error, please report: {bug!r} at line {where.lineno} for "
                           f"{packet[:512].hex()}", f"bug {where.lineno}")
            return packet[:2] + bytes([0x80 | packet[2] & 0x79, wire.SERVFAIL]) + bytes(8)

    def note(self, query: wire.Query, client: str, reply: Reply) -> None:
        """Log one query."""
        name = wire.show_name(query.qname).rstrip(".") or "." if query.qname else "-"
        self.log.query(plain_address(client), name,
                       wire.show_type(query.qtype) if query.qname else "-",
                       wire.RCODES[reply.rcode], reply.chosen,
                       (time.perf_counter_ns() - self.begun) // 1000)

    # -- TCP clients --

    def on_accept(self, listener: TcpListener, now: float) -> None:
        """Take new connections; when there is no room, the longest idle one makes some."""
        for _ in range(ACCEPT_TURN):
            try:
                sock, peer = listener.sock.accept()
            except BlockingIOError:
                return
            except OSError as bad:
                if bad.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self.pause(bad, now)
                    return
                continue  # the client went away meanwhile (ECONNABORTED), or a filter said no
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if len(self.clients) >= self.room:
                self.close(next(iter(self.clients.values())))
            client = Connection(sock, peer[0], now)
            self.clients[client.fileno()] = client
            self.selector.register(client, client.events)

    def pause(self, bad: OSError, now: float) -> None:
        """Out of descriptors or memory: free one, and let accept() rest instead of spinning."""
        self.log.error(f"cannot accept TCP connections: {bad.strerror}", "accept")
        if self.clients:
            self.close(next(iter(self.clients.values())))
        if not self.paused:
            for tcp in self.tcp:
                self.selector.unregister(tcp)
        self.paused = now + ACCEPT_PAUSE

    def on_client(self, client: Connection, events: int, now: float) -> None:
        """Read, answer and write as far as this client goes along without waiting."""
        try:
            if events & selectors.EVENT_READ and not client.closing:
                octets = client.sock.recv(TCP_READ)
                client.inbox += octets
                client.closing = not octets
            before = client.active
            alive = client.serve(self.respond, now)
            if client.outbox:
                del client.outbox[:client.sock.send(client.outbox)]
                client.active = now
        except BlockingIOError:
            alive = True
        except OSError:  # reset by the client
            alive = False
        waiting = bool(client.outbox) or (alive and client.has_query())
        if not alive or (client.closing and not waiting):
            self.close(client)
            return
        if client.active != before:  # to the end of the queue of idlers
            self.clients[client.fileno()] = self.clients.pop(client.fileno())
        reading = not client.closing and len(client.outbox) < TCP_QUEUE and not client.has_query()
        events = (selectors.EVENT_READ if reading else 0) | (selectors.EVENT_WRITE if waiting else 0)
        if events != client.events:
            client.events = events
            self.selector.modify(client, events)

    def close(self, client: Connection) -> None:
        """Forget a client."""
        self.selector.unregister(client)
        del self.clients[client.fileno()]
        client.sock.close()

    def on_tick(self, now: float) -> None:
        """Hang up on clients that passed a limit; accept again after a pause."""
        for client in list(self.clients.values()):
            if client.expired(now) or (self.life.ended and not client.inbox and not client.outbox
                                       and now - client.active > TCP_IDLE / 2):
                self.close(client)
        if self.paused and now > self.paused and not self.life.ended:
            self.paused = 0.0
            for tcp in self.tcp:
                self.selector.register(tcp, selectors.EVENT_READ)


# ---- 8. Sources and the monitor: what changes the state ------------------------------------------

SCHEMA = """CREATE TABLE backends (
  pool TEXT NOT NULL, address TEXT NOT NULL,      -- several addresses of one server: comma-separated
  connections INTEGER,                            -- established now; NULL = unknown, which is not 0
  weight REAL NOT NULL DEFAULT 1, max_connections INTEGER,
  state TEXT NOT NULL DEFAULT 'up' CHECK (state IN ('up', 'drain', 'down')),
  updated_at REAL,                                -- unix time of the report; NULL = as fresh as the poll
  PRIMARY KEY (pool, address))"""
COLUMNS = ("address", "connections", "weight", "max_connections", "state", "updated_at")
TABLE_QUERY = f"SELECT {', '.join(COLUMNS)} FROM backends WHERE pool = ? ORDER BY rowid"
STATES = ("up", "drain", "down")   # from best to worst


class SourceError(Exception):
    """A source could not be read, or what it holds is no list of backends."""


class Report(NamedTuple):
    """One row of a source, checked."""

    addresses: tuple[str, ...]
    given: dict[str, Any]       # fields of Row that the source fills in
    at: float                   # monotonic seconds of the report


def read_sqlite(source: Source, pool: str) -> list[dict[str, Any]]:
    """All rows of one poll, as column name -> value; raises SourceError."""
    try:
        if source.query is None and not os.path.exists(source.path):
            create_table(source.path)
        uri = f"file:{urllib.parse.quote(source.path)}?mode=ro"
        database = sqlite3.connect(uri, uri=True, timeout=POLL_LIMIT / 4)
        try:
            limit = time.monotonic() + POLL_LIMIT
            database.set_progress_handler(lambda: time.monotonic() > limit, 10_000)
            cursor = database.execute(source.query or TABLE_QUERY,
                                      () if source.query else (pool,))
            columns = [each[0] for each in cursor.description or ()]
            check_columns(columns)
            rows = cursor.fetchmany(ROWS_MAX + 1)
        finally:
            database.close()
    except (sqlite3.Error, sqlite3.Warning, OSError) as bad:
        raise SourceError(str(bad)) from None
    if len(rows) > ROWS_MAX:
        raise SourceError(f"more than {ROWS_MAX} rows")
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    return [row for row in found if row.pop("pool", pool) == pool]


def create_table(path: str) -> None:
    """Make the database of a first start; in WAL mode, so that reading never blocks a writer."""
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(SCHEMA)
        database.commit()
    finally:
        database.close()


def check_columns(columns: Sequence[str]) -> None:
    """A misspelt column would be ignored for ever: say so instead."""
    known = (*COLUMNS, "pool")
    for column in columns:
        if column not in known:
            raise SourceError(f"column {column!r}: " + suggest(column, known))
    if "address" not in columns:
        raise SourceError("no column 'address'")


def check_row(row: dict[str, Any], now: float) -> Report:
    """A source's row; raises SourceError naming the column and its value."""
    def number(column: str, least: float, whole: bool) -> Any:
        value = row[column]
        try:
            found = int(value) if whole else float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not least <= found < math.inf:
            raise SourceError(f"{column} = {value!r}: must be a "
                              f"{'whole ' if whole else ''}number from {least:g}")
        return found
    try:
        addresses = check_addresses(str(row["address"] or "").split(","))
    except ValueError as bad:
        raise SourceError(f"address = {row['address']!r}: {bad}") from None
    given: dict[str, Any] = {}
    if row.get("weight") is not None:
        given["weight"] = number("weight", 0, False)
    if row.get("max_connections") is not None:
        given["max_connections"] = number("max_connections", 1, True)
    if row.get("connections") is not None:
        given["connections"] = number("connections", 0, True)
    if row.get("state") is not None:
        if row["state"] not in STATES:
            raise SourceError(f"state = {row['state']!r}: must be one of {', '.join(STATES)}")
        given["state"] = row["state"]
    age = 0.0
    if row.get("updated_at") is not None:
        age = max(0.0, time.time() - number("updated_at", 0, False))
    return Report(addresses, given, now - age)


class Feed(threading.Thread):
    """Polls one pool's source, again and again; keeps the last good rows."""

    def __init__(self, pool: PoolConfig, source: Source) -> None:
        super().__init__(daemon=True)
        self.pool, self.source = pool, source
        self.reports: tuple[Report, ...] = ()
        self.polls = 0
        self.trouble = ""       # why the last poll failed
        self.skipped = ""       # why some of its rows were ignored

    def run(self) -> None:
        """Poll every `every` seconds, counted from start to start."""
        while True:
            begun = time.monotonic()
            try:
                self.poll(begun)
                self.trouble = ""
            except SourceError as bad:
                self.trouble = str(bad)
            except Exception as bug:  # a poll must never end the polling
                self.trouble = f"internal error: {bug!r}"
            self.polls += 1
            time.sleep(max(0.05, begun + self.source.every - time.monotonic()))

    def poll(self, now: float) -> None:
        """Read the source once; a bad row is passed over, and its backend's last good row stays."""
        old = {each.addresses: each for each in self.reports}
        reports: dict[tuple[str, ...], Report] = {}
        bad_rows = []
        for row in read_sqlite(self.source, self.pool.name):
            try:
                report = check_row(row, now)
                self.check_kind(report, reports)
                reports[report.addresses] = report
            except SourceError as bad:
                bad_rows.append(str(bad))
                kept = [each for each in old if str(row["address"]) == ",".join(each)]
                reports.update((each, old[each]) for each in kept)
        self.skipped = f"{len(bad_rows)} rows ignored: {bad_rows[0]}" if bad_rows else ""
        if not reports:
            raise SourceError(self.skipped or "no rows")
        self.reports = tuple(reports.values())

    def check_kind(self, report: Report, others: dict[tuple[str, ...], Report]) -> None:
        """Addresses and host names do not mix, and a host name (CNAME) stands alone at its owner."""
        host = is_host(report.addresses)
        peers = list(others) or [row.addresses for row in self.pool.backends]
        if host and not self.pool.may_alias:
            raise SourceError(f"address = {report.addresses[0]!r}: a CNAME cannot stand beside "
                              "the other records of this name")
        if peers and is_host(peers[0]) != host:
            raise SourceError(f"address = {report.addresses[0]!r}: a pool has addresses or host "
                              "names, not both")

    def merge(self, now: float) -> tuple[list[Row], bool, list[str]]:
        """The pool's rows now, whether its load is stale, and addresses nobody configured."""
        stale = [now - each.at > self.pool.stale for each in self.reports
                 if "connections" in each.given]
        rows = {row.addresses: row for row in self.pool.backends}
        owners = {address: row.addresses for row in self.pool.backends for address in row.addresses}
        unknown = []
        for report in self.reports:
            given = dict(report.given)
            if now - report.at > self.pool.stale:
                given["connections"] = None
            if not self.pool.backends:
                rows[report.addresses] = Row(report.addresses)._replace(**given)
                continue
            row = rows.get(owners.get(report.addresses[0], ()))
            if row is None:
                unknown.append(report.addresses[0])
            else:  # of two states the worse counts: a drain in the config is meant
                given["state"] = max(row.state, given.get("state", "up"), key=STATES.index)
                rows[row.addresses] = row._replace(**given)
        return list(rows.values()), bool(stale) and all(stale), unknown


def is_host(addresses: Sequence[str]) -> bool:
    """Whether a backend is a host name."""
    return _address_rdata(addresses[0])[0] == wire.CNAME


def write_line(name: str, stale: bool, rows: Sequence[Row], at: float) -> str:
    """A pool's line of a snapshot: name, stale, time of the last report, rows."""
    return f"{name}\t{int(stale)}\t{at:.3f}\t{json.dumps(rows)}"


def read_line(line: str) -> tuple[bool, list[Row]]:
    """Whether the pool's load is stale, and its rows."""
    _, stale, _, rows = line.split("\t", 3)
    return stale == "1", [Row(tuple(addresses), *rest) for addresses, *rest in json.loads(rows)]


class Monitor:
    """The process that watches what changes and tells the workers through the Board."""

    def __init__(self, config: Config, life: "Life", log: Log) -> None:
        self.life, self.log = life, log
        self.feeds = [Feed(pool, pool.source) for pool in config.pools.values() if pool.source]
        self.said: dict[str, str] = {}       # subject -> the trouble last logged
        self.known: dict[str, dict[tuple[str, ...], tuple[str, float]]] = {}
        self.seed(life.board.read()[1])

    def seed(self, snapshot: str) -> None:
        """Start from what a predecessor published, so that a reload forgets no load."""
        lines = {line.split("\t", 1)[0]: line for line in snapshot.splitlines()[1:]}
        for feed in self.feeds:
            line = lines.get(feed.pool.name)
            if line is not None:
                at = float(line.split("\t", 3)[2])
                feed.reports = tuple(Report(row.addresses, row._asdict() | {"state": row.state}, at)
                                     for row in read_line(line)[1])

    def run(self) -> None:
        """Publish the first round when it is complete, then every change, until told to stop."""
        for feed in self.feeds:
            feed.start()
        limit, last = self.life.beat() + FIRST_POLL, ""
        while not self.life.wait(PUBLISH):
            now = self.life.beat()
            if now < limit and not all(feed.polls for feed in self.feeds):
                continue
            snapshot = self.snapshot(now)
            if snapshot != last:
                last = snapshot
                self.life.board.publish(snapshot)
            self.log.flush()

    def snapshot(self, now: float) -> str:
        """What workers load: a line of status for people, then a line for each pool."""
        status, lines = [], []
        for feed in self.feeds:
            rows, stale, unknown = feed.merge(now)
            self.log_changes(feed, rows, stale, unknown, now)
            status.append(f"{feed.pool.name} {sum(row.state == 'up' for row in rows)}"
                          f"/{len(rows)} up" + (", load unknown" if stale else ""))
            newest = max((each.at for each in feed.reports), default=0.0)
            lines.append(write_line(feed.pool.name, stale, rows, newest))
        return "\n".join(["; ".join(status), *lines])

    def log_changes(self, feed: Feed, rows: Sequence[Row], stale: bool,
                    unknown: Sequence[str], now: float) -> None:
        """One line for each thing that is not as it was."""
        pool = f"pool {feed.pool.name}"
        path = feed.source.path
        self.trouble(f"{pool}: source {path}", feed.trouble, "; the last good rows stay")
        self.trouble(f"{pool}: source {path}: rows", feed.skipped, "")
        self.trouble(f"{pool}: source {path}: unknown backends", ", ".join(unknown[:10]), "; ignored")
        self.trouble(f"{pool}: load", "stale: no report is younger than "
                     f"{feed.pool.stale:g} s" if stale else "", "; least-connections becomes random")
        open_ = [row for row in rows if row.state == "up" and row.weight]
        full = [row for row in open_ if row.max_connections is not None
                and row.connections is not None and row.connections >= row.max_connections]
        self.trouble(f"{pool}: limits", f"all {len(open_)} backends are at max_connections"
                     if open_ and len(full) == len(open_) else "", "; answering the least overfull")
        self.log_states(pool, rows, path, now)

    def trouble(self, subject: str, text: str, then: str) -> None:
        """Log trouble when it begins or turns into other trouble, and its end."""
        before = self.said.get(subject, "")
        if text and text != before:
            self.log.error(f"{subject}: {text}{then}")
        elif before and not text:
            self.log.change(f"{subject}: well again")
        self.said[subject] = text

    def log_states(self, pool: str, rows: Sequence[Row], path: str, now: float) -> None:
        """One line for each backend that came, went or changed its state."""
        known = self.known.get(pool)
        states = {row.addresses: row.state for row in rows}
        if known is None:
            self.log.change(f"{pool}: {len(rows)} backends, {path} is read for changes")
            self.known[pool] = {each: (state, now) for each, state in states.items()}
            return
        for addresses in known.keys() - states.keys():
            self.log.change(f"{pool}: backend {addresses[0]}: removed from {path}")
            del known[addresses]
        for addresses, state in states.items():
            old, since = known.get(addresses, ("", now))
            if not old:
                self.log.change(f"{pool}: backend {addresses[0]}: new in {path}, {state}")
            elif old != state:
                self.log.change(f"{pool}: backend {addresses[0]}: {old} -> {state}, says {path}; "
                                f"was {old} for {now - since:.0f} s")
            if old != state:
                known[addresses] = (state, now)


# ---- 9. Processes: supervisor, board, life -----------------------------------------------------

ENDINGS = {"stop": STOP_LIMIT, "retire": RETIRE_LIMIT, "orphan": 0.0}  # seconds a child has left


class Board:
    """Where the monitor publishes snapshots and everyone reads them: two files in memory, written
    in turn, and a number in shared memory that says which holds the newest.

    A worker looks at the number before it answers, so it needs no waking, no pipe can fill, and
    whoever is started later finds the newest snapshot here.
    """

    def __init__(self, shared: memoryview, seed: str = "") -> None:
        self.shared = shared  # [0] is the number: 0 = nothing published yet
        self.files = [anonymous_file(), anonymous_file()]
        os.pwrite(self.files[0], seed.encode(), 0)

    def publish(self, snapshot: str) -> None:
        """Make a snapshot the newest. Only one process may do this."""
        number, octets = self.shared[0] + 1, snapshot.encode()
        fd = self.files[number % 2]
        os.ftruncate(fd, 0)
        os.pwrite(fd, octets, 0)
        self.shared[0] = number

    def read(self) -> tuple[int, str]:
        """The newest number and snapshot; tried again if it was overtaken while reading."""
        while True:
            number = self.shared[0]
            fd = self.files[number % 2]
            octets = os.pread(fd, os.fstat(fd).st_size, 0)
            if self.shared[0] == number:
                return number, octets.decode()

    def close(self) -> None:
        """Give the files back."""
        for fd in self.files:
            os.close(fd)


def anonymous_file() -> int:
    """A descriptor of a file without a name, in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lbdns")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Life:
    """A child's ties to the supervisor: heartbeat, snapshots, and how it learns of its end."""

    def __init__(self, board: Board, slot: int, lifeline: int) -> None:
        self.board, self.slot, self.lifeline = board, slot, lifeline
        self.number = 0              # of the snapshot last read
        self.ended = ""              # a key of ENDINGS, once it has
        wake, signalled = os.pipe()
        for fd in (wake, signalled, lifeline):
            os.set_blocking(fd, False)
        self.fds = (wake, lifeline)  # readable when there is something to learn
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: self.end("stop"))
        signal.signal(signal.SIGUSR1, lambda *_: self.end("retire"))
        for number in (signal.SIGINT, signal.SIGHUP):  # the terminal's, meant for the supervisor
            signal.signal(number, signal.SIG_IGN)

    def end(self, how: str) -> None:
        """Note that it is time to go; a stop beats a retirement."""
        self.ended = self.ended if self.ended in ("stop", "orphan") else how

    def beat(self) -> float:
        """Show a sign of life; returns monotonic seconds."""
        now = time.monotonic()
        self.board.shared[self.slot] = int(now * 1000) or 1
        return now

    def news(self) -> str | None:
        """The newest snapshot, when it was not read before."""
        if self.board.shared[0] == self.number:
            return None
        self.number, snapshot = self.board.read()
        return snapshot

    def on_wake(self) -> None:
        """Empty the signal pipe; the lifeline ends when the supervisor does."""
        for fd in self.fds:
            try:
                if not os.read(fd, 512):
                    self.end("orphan")
            except BlockingIOError:
                pass

    def wait(self, seconds: float) -> bool:
        """Sleep, but not through the end; returns whether it has come."""
        with selectors.DefaultSelector() as selector:
            for fd in self.fds:
                selector.register(fd, selectors.EVENT_READ)
            if selector.select(seconds):
                self.on_wake()
        return bool(self.ended)


class StartError(Exception):
    """Something a start needs is not to be had; the text is a sentence with the remedy."""


class Sockets:
    """The bound sockets of one config, both transports of every address."""

    def __init__(self) -> None:
        self.bound: dict[tuple[str, int], tuple[socket.socket, socket.socket]] = {}

    @property
    def udp(self) -> list[socket.socket]:
        """The UDP sockets, shared by all workers: one that stalls delays nobody's query."""
        return [udp for udp, _ in self.bound.values()]

    @property
    def tcp(self) -> list[socket.socket]:
        """The listening TCP sockets."""
        return [tcp for _, tcp in self.bound.values()]

    def bind(self, addresses: Iterable[tuple[str, int]], log: Log) -> "Sockets":
        """The sockets for a list of addresses; those bound already are taken over as they are."""
        new = Sockets()
        try:
            for address in addresses:
                new.bound[address] = self.bound.get(address) or bind_pair(*address, log)
        except StartError:
            new.close_but(self)
            raise
        return new

    def close_but(self, kept: "Sockets") -> None:
        """Close the sockets that `kept` does not have."""
        for address, pair in self.bound.items():
            if address not in kept.bound:
                for sock in pair:
                    sock.close()

    def names(self) -> str:
        """The addresses as people write them."""
        return ", ".join(show_endpoint(*udp.getsockname()[:2]) for udp in self.udp)


def show_endpoint(host: str, port: int) -> str:
    """host:port, the host of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_pair(host: str, port: int, log: Log) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on one address; raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(16):  # port 0: the port that UDP got may be taken for TCP
        pair: list[socket.socket] = []
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                pair.append(socket.socket(family, kind))
                prepare(pair[-1], host)
                pair[-1].bind((host, pair[0].getsockname()[1] or port))
            pair[1].listen(TCP_BACKLOG)
            size = pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            if size < UDP_BUFFER_LOW:
                log.error(f"the receive buffer is {size} octets; raise net.core.rmem_max to "
                          f"{UDP_BUFFER}, or bursts lose queries", "buffer")
            return pair[0], pair[1]
        except OSError as bad:
            for sock in pair:
                sock.close()
            off = bad.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
            if host == "::" and off:
                log.error(f"no IPv6 on this host: listening on 0.0.0.0:{port} only")
                return bind_pair("0.0.0.0", port, log)
            if port or bad.errno != errno.EADDRINUSE or attempt == 15:
                raise StartError(explain_bind(host, port, bad)) from None
    raise AssertionError("the last attempt returns or raises")


def prepare(sock: socket.socket, host: str) -> None:
    """Options before bind."""
    sock.setblocking(False)
    v6 = sock.family == socket.AF_INET6
    if v6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
    if sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return
    for option in (getattr(socket, "SO_RCVBUFFORCE", 33), socket.SO_RCVBUF):  # the first needs root
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, UDP_BUFFER)
            break
        except OSError:
            continue
    if host == "::":  # a reply must leave from the address that was asked
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    elif host == "0.0.0.0" and sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_OMIT)


def explain_bind(host: str, port: int, bad: OSError) -> str:
    """Why an address cannot be had, and what to do about it."""
    where = f"cannot listen on {show_endpoint(host, port)}"
    if bad.errno == errno.EADDRINUSE:
        return (f"{where}: in use{holders(port)}; stop that, or listen on one address of this "
                "host instead of all")
    if bad.errno == errno.EACCES:
        return (f"{where}: ports below 1024 need root or CAP_NET_BIND_SERVICE, which lbdns.service "
                "has; or listen on 9000 and redirect 53 to it")
    if bad.errno == errno.EADDRNOTAVAIL:
        return f"{where}: no interface of this host has that address"
    return f"{where}: {bad.strerror}"


def holders(port: int) -> str:
    """Who holds a port, as far as /proc tells: " by 127.0.0.53:53 (systemd-resolve, pid 601)"."""
    inodes = {}
    for table in ("udp", "udp6", "tcp", "tcp6"):
        for line in read_lines(f"/proc/net/{table}")[1:]:
            fields = line.split()
            address, _, hexport = fields[1].partition(":")
            if int(hexport, 16) == port and fields[3] in ("07", "0A"):  # UDP bound, TCP listening
                words = struct.unpack(f"={len(address) // 8}I", bytes.fromhex(address))
                octets = struct.pack(f"!{len(words)}I", *words)
                inodes[f"socket:[{fields[9]}]"] = show_endpoint(str(ipaddress.ip_address(octets)),
                                                                port)
    found = dict.fromkeys(inodes.values(), "")
    for link in pathlib.Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        try:
            where = inodes.get(os.readlink(link), "")
        except OSError:  # ended meanwhile, or not ours to look at
            continue
        if where:
            pid = link.parts[2]
            name = "".join(read_lines(f"/proc/{pid}/comm")).strip()
            found[where] = f" ({name}, pid {pid})"
    return " by " + ", ".join(f"{where}{who}" for where, who in found.items()) if found else ""


def read_lines(path: str) -> list[str]:
    """The lines of a file of /proc, none if it cannot be read."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def drop_privileges(user: str) -> None:
    """Become `user` for good, when started as root; raises StartError."""
    if os.geteuid() != 0 or user == "root":
        return
    try:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except (KeyError, OSError) as bad:
        raise StartError(f"cannot become user {user!r}: {bad}; name another in `user`") from None


class Notify:
    """Messages to systemd (sd_notify(3)); silent where nobody listens."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        mine = usec.isdecimal() and pid in ("", str(os.getpid()))
        self.interval = int(usec) / 2e6 if mine else math.inf  # seconds: half of what is allowed
        self.status, self.fed = "", 0.0

    def send(self, *lines: str) -> None:
        """Send lines such as READY=1."""
        if self.address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                try:
                    sock.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self.address)
                except OSError:  # systemd is restarting, or its queue is full: try at the next
                    pass

    def feed(self, now: float) -> None:
        """Feed the watchdog when it is due."""
        if now - self.fed >= min(self.interval, 1.0) and self.interval < math.inf:
            self.fed = now
            self.send("WATCHDOG=1")


class Child:
    """A process of a generation: slot 1 is the monitor, 2 and above are workers."""

    def __init__(self, slot: int) -> None:
        self.slot, self.pid = slot, 0
        self.name = "monitor" if slot == 1 else f"worker {slot - 1}"
        self.born = -math.inf    # monotonic seconds
        self.due = 0.0           # when it may be started


class Generation:
    """The processes of one config, and the memory they share."""

    def __init__(self, config: Config, sockets: Sockets, seed: str) -> None:
        self.config, self.sockets = config, sockets
        self.watched = any(pool.source for pool in config.pools.values())
        slots = [*([1] if self.watched else []), *range(2, config.workers + 2)]
        self.children = [Child(slot) for slot in slots]
        self.memory = mmap.mmap(-1, 8 * (config.workers + 2))
        self.shared = memoryview(self.memory).cast("Q")  # [0]: Board; [slot]: heartbeat in ms
        self.board = Board(self.shared, seed)
        self.begun = time.monotonic()
        self.ready = self.retired = False

    def alive(self) -> list[Child]:
        """The children that run."""
        return [child for child in self.children if child.pid]

    def all_beat(self) -> bool:
        """Whether every child has begun to serve."""
        return all(child.pid and self.shared[child.slot] for child in self.children)

    def send(self, number: int) -> None:
        """Send all of them a signal."""
        for child in self.alive():
            os.kill(child.pid, number)


class Supervisor:
    """Binds, drops privileges, forks, waits. It parses nothing and serves nobody: configs are read
    by a child that sends them back checked, so there is nothing here for bad input to break."""

    def __init__(self, load: Callable[[], Config], reloads: bool, log: Log) -> None:
        self.read_config, self.reloads, self.log = load, reloads, log
        self.notify = Notify(dict(os.environ))
        self.secret = os.urandom(16)
        self.generations: list[Generation] = []  # the last is the current or the coming one
        self.loader = (0, -1)                    # pid and pipe of a child that reads the config
        self.loaded = b""
        self.signals: list[int] = []
        self.lifeline = os.pipe()                # children read it: it ends when this process does
        self.checked = time.monotonic()
        self.selector = selectors.DefaultSelector()

    def run(self, banner: str = "") -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code. Raises StartError, ConfigError."""
        self.start_loader()
        config = self.finish_loader(os.fdopen(self.loader[1], "rb").read())
        self.log.level, self.log.json = Log.LEVELS.index(config.log), config.log_format == "json"
        raise_descriptor_limit()
        sockets = Sockets().bind(config.listen, self.log)
        drop_privileges(config.user)
        for warning in config.warnings:
            self.log.error(f"warning: {warning}")
        self.listen_to_signals()
        self.begin(config, sockets, "")
        self.log.change(f"lbdns {VERSION}: {len(config.pools)} pools in {len(config.zones)} zones, "
                        f"listening on {sockets.names()}, {config.workers} workers")
        if banner:
            self.log.change(banner.format(port=sockets.udp[0].getsockname()[1]))
        self.log.flush()
        while not {signal.SIGTERM, signal.SIGINT} & set(self.signals):
            self.turn()
        return self.stop()

    def listen_to_signals(self) -> None:
        """Turn signals into entries of a list, and wake the loop."""
        wake, signalled = os.pipe()
        for fd in (wake, signalled):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda number, frame: self.signals.append(number))
        self.selector.register(wake, selectors.EVENT_READ)

    def turn(self) -> None:
        """One pass: wait, then see to children, heartbeats, reloads and systemd."""
        for key, _ in self.selector.select(TICK / 2):
            octets = os.read(key.fd, 1 << 16)
            if key.fd == self.loader[1]:
                self.on_loader(octets)
        if signal.SIGHUP in self.signals:
            self.signals = [each for each in self.signals if each != signal.SIGHUP]
            self.reload()
        self.reap()
        now = time.monotonic()
        if now - self.checked > TICK:
            if now - self.checked < HEARTBEAT / 2:  # else it was we who slept: give them time
                self.check_heartbeats(now)
            self.checked = now
        self.start_due(now)
        self.advance(now)
        self.log.flush()

    # -- children --

    def begin(self, config: Config, sockets: Sockets, seed: str) -> None:
        """Start a generation."""
        self.generations.append(Generation(config, sockets, seed))
        self.start_due(time.monotonic())

    def start_due(self, now: float) -> None:
        """Start the children that should run and do not."""
        if self.generations:
            generation = self.generations[-1]
            for child in generation.children:
                if not child.pid and now >= child.due:
                    generation.shared[child.slot] = 0
                    child.born = now
                    child.pid = os.fork()
                    if not child.pid:
                        self.be_child(generation, child)

    def be_child(self, generation: Generation, child: Child) -> NoReturn:
        """All of a child's life."""
        code = 1
        try:
            os.close(self.lifeline[1])
            self.selector.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            life = Life(generation.board, child.slot, self.lifeline[0])
            if child.slot == 1:
                Monitor(generation.config, life, self.log).run()
            elif self.await_snapshot(generation, life):
                state = State(generation.config, self.secret, self.log)
                Worker(generation.config, state, generation.sockets, life, self.log).run()
            code = 0
        except BaseException as bug:
            where = "; ".join(f"{each.name} line {each.lineno}"
                              for each in traceback.extract_tb(bug.__traceback__)[-4:])
            self.log.error(f"{child.name} fails: {bug!r} in {where}")
        finally:
            self.log.flush()
            os._exit(code)

    @staticmethod
    def await_snapshot(generation: Generation, life: Life) -> bool:
        """Wait for the first round of sources before the first answer; False = ended meanwhile."""
        while generation.watched and not generation.shared[0] and not life.ended:
            life.wait(PUBLISH / 10)
        return not life.ended

    def reap(self) -> None:
        """Learn which children have ended, and when each may be started again."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for generation in self.generations:
                for child in generation.alive():
                    if child.pid == pid:
                        self.on_death(generation, child, status)

    def on_death(self, generation: Generation, child: Child, status: int) -> None:
        """A child has ended: expected in a retired generation, else trouble."""
        now = time.monotonic()
        lived, child.pid = now - child.born, 0
        if generation.retired:
            return
        code = os.waitstatus_to_exitcode(status)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        child.due = now + (CRASH_PAUSE if lived < CRASH_WINDOW else 0)
        self.log.error(f"{child.name} was {how} after {lived:.0f} s; starting another"
                       + (f" in {CRASH_PAUSE:g} s" if child.due > now else ""))

    def check_heartbeats(self, now: float) -> None:
        """Kill what shows no sign of life; `reap` sees to the rest."""
        for generation in self.generations:
            for child in generation.alive():
                beat = generation.shared[child.slot] / 1000 or child.born + START_LIMIT
                if now - beat > HEARTBEAT:
                    self.log.error(f"{child.name} gave no sign of life for {now - beat:.0f} s")
                    os.kill(child.pid, signal.SIGKILL)

    def advance(self, now: float) -> None:
        """Let a generation that is ready take over; feed systemd while all is well."""
        current = self.generations[-1]
        if not current.ready and current.all_beat():
            current.ready = True
            self.retire_others(current)
            self.log.change("ready")
            self.notify.send("READY=1", "STATUS=serving")
        elif not current.ready and len(self.generations) > 1 and (
                now - current.begun > START_LIMIT or any(not c.pid for c in current.children)):
            self.abandon(current)
        for old in self.generations[:-1]:
            if not old.alive() or now - old.begun > START_LIMIT + RETIRE_LIMIT and old.retired:
                old.send(signal.SIGKILL)
                old.board.close()
                self.generations.remove(old)
        if all(g.all_beat() for g in self.generations if g.ready and not g.retired):
            self.notify.feed(now)
        status = self.generations[-1].board.read()[1].split("\n", 1)[0]
        if status and status != self.notify.status and current.ready:
            self.notify.status = status
            self.notify.send(f"STATUS={status}")

    # -- reload and stop --

    def reload(self) -> None:
        """SIGHUP: read the config anew, in a child; without a config file, the terminal hung up."""
        if not self.reloads:
            self.signals.append(signal.SIGTERM)
        elif self.loader[0] or len(self.generations) > 1 and not self.generations[-1].ready:
            self.log.error("reload: the one before is not done yet; asked for again in vain")
        else:
            self.notify.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self.start_loader()
            self.loaded = b""
            self.selector.register(self.loader[1], selectors.EVENT_READ)

    def start_loader(self) -> None:
        """Fork a child that reads and checks the config and sends it back."""
        receive, send = os.pipe()
        pid = os.fork()
        if not pid:
            load_and_send(self.read_config, send)
        os.close(send)
        self.loader = (pid, receive)

    def finish_loader(self, octets: bytes) -> Config:
        """What the loader sent; raises ConfigError."""
        self.loader = (0, -1)
        if not octets:
            raise ConfigError(["the process that reads the config died"])
        result = pickle.loads(octets)  # from our own child, which is this very program
        if isinstance(result, list):
            raise ConfigError(result)
        return cast(Config, result)

    def on_loader(self, octets: bytes) -> None:
        """A piece of the new config has come; at the end, start a generation with it."""
        self.loaded += octets
        if octets:
            return
        self.selector.unregister(self.loader[1])
        os.close(self.loader[1])
        current = self.generations[-1]
        try:
            config = self.finish_loader(self.loaded)
            sockets = current.sockets.bind(config.listen, self.log)
        except (ConfigError, StartError) as bad:
            for line in str(bad).splitlines():
                self.log.error(f"reload: {line}")
            self.log.error("reload: refused; the old config stays in force")
            self.notify.send("READY=1", "STATUS=reload refused, the old config stays in force")
            return
        for warning in config.warnings:
            self.log.error(f"warning: {warning}")
        self.begin(config, sockets, current.board.read()[1])

    def retire_others(self, current: Generation) -> None:
        """The new generation answers: the old ones finish their TCP clients and end."""
        self.log.level = Log.LEVELS.index(current.config.log)
        self.log.json = current.config.log_format == "json"
        for old in self.generations[:-1]:
            old.retired, old.begun = True, time.monotonic()
            old.send(signal.SIGUSR1)
            old.sockets.close_but(current.sockets)

    def abandon(self, failed: Generation) -> None:
        """A new generation does not get ready: back to the old one, which never stopped."""
        self.log.error("reload: the new processes did not get ready; the old config stays in force")
        failed.retired = True
        failed.send(signal.SIGKILL)
        self.generations.remove(failed)
        self.generations.insert(0, failed)
        failed.sockets.close_but(self.generations[-1].sockets)
        self.notify.send("READY=1", "STATUS=reload refused, the old config stays in force")

    def stop(self) -> int:
        """End all children: politely first."""
        self.notify.send("STOPPING=1")
        limit = time.monotonic() + STOP_LIMIT + 1
        for generation in self.generations:
            generation.retired = True
            generation.send(signal.SIGTERM)
        self.signals.clear()
        while any(generation.alive() for generation in self.generations):
            self.selector.select(TICK / 5)
            self.reap()
            if time.monotonic() > limit or signal.SIGINT in self.signals:
                for generation in self.generations:
                    generation.send(signal.SIGKILL)
        self.log.change("stopped")
        self.log.flush()
        return 0


def raise_descriptor_limit() -> None:
    """As many descriptors as we may have; connections need them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a sandbox forbids it, or the system wants less than "infinity"
        pass


def load_and_send(load: Callable[[], Config], fd: int) -> NoReturn:
    """In a child: read the config and write it, or the list of what is wrong with it, to `fd`."""
    result: Config | list[str]
    try:
        result = load()
        drop_privileges(result.user)  # a policy file is run, though not as root
        result = check_functions(result) or result
    except (ConfigError, StartError) as bad:
        result = str(bad).splitlines()
    except BaseException as bug:
        result = [f"internal error while reading the config: {bug!r}"]
    with os.fdopen(fd, "wb") as pipe:
        pickle.dump(result, pipe)
    os._exit(0)


# ---- 10. Config: one table of keys, one checker for start, reload and `check` ------------------

class ConfigError(Exception):
    """The config cannot be used; every problem found is a line."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))


class Problem(Exception):
    """One value breaks a rule; the text is the rule."""


class Key(NamedTuple):
    """A word of the config: how a value is checked and turned into what we keep, what holds when
    it is absent, and its line in the example."""

    check: Callable[[Any], Any]
    default: Any
    example: str
    help: str


def suggest(word: str, known: Iterable[str]) -> str:
    """The nearest right word, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)


def whole(low: int, high: int) -> Callable[[Any], int]:
    """A check for whole numbers; True is none, though Python thinks so."""
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Problem(f"must be a whole number from {low} to {high}")
        return value
    return check


def number(low: float, high: float) -> Callable[[Any], float]:
    """A check for numbers."""
    def check(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise Problem(f"must be a number from {low:g} to {high:g}")
        return float(value)
    return check


def one_of(*words: str) -> Callable[[Any], str]:
    """A check for one of a few words."""
    def check(value: Any) -> str:
        if value not in words:
            raise Problem(f"must be one of {', '.join(words)}; " + suggest(str(value), words))
        return str(value)
    return check


def text(value: Any) -> str:
    """A check for text that is not empty."""
    if not isinstance(value, str) or not value:
        raise Problem("must be text")
    return value


def truth(value: Any) -> bool:
    """A check for true and false, which a string is not."""
    if not isinstance(value, bool):
        raise Problem("must be true or false")
    return value


def items(check: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """A check for a list of at least one of something."""
    def check_items(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise Problem("must be a list with at least one item")
        return tuple(map(check, value))
    return check_items


def endpoint(value: Any) -> tuple[str, int]:
    """A check for "127.0.0.1:53" and "[::]:53"; port 0 lets the kernel pick one."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", text(value))
    try:
        if match and int(match[3]) <= 65535:
            return str(ipaddress.ip_address(match[1] or match[2])), int(match[3])
    except ValueError:
        pass
    raise Problem('must be an address and a port, such as "127.0.0.1:53" or "[::]:53"')


def name_text(value: Any) -> bytes:
    """A check for a domain name."""
    try:
        return wire.parse_name(text(value))
    except wire.BadText as bad:
        raise Problem(str(bad)) from None


def check_addresses(value: Sequence[str]) -> tuple[str, ...]:
    """A backend's address: one, or one of each family, or a host name; raises ValueError."""
    found = []
    for each in map(str.strip, value):
        try:
            found.append(str(ipaddress.ip_address(each)))
        except ValueError:
            labels = each.rstrip(".").split(".")
            if labels[-1].isdigit() or ":" in each or "%" in each or not each:
                raise ValueError("is no IPv4 or IPv6 address") from None
            found.append(wire.show_name(wire.parse_name(each).lower()))
    kinds = [_address_rdata(each)[0] for each in found]
    if len(set(kinds)) != len(kinds) or (wire.CNAME in kinds and len(kinds) > 1):
        raise ValueError("at most one IPv4 and one IPv6 address, or one host name")
    if any("%" in each for each in found):
        raise ValueError("an address with an interface means nothing to a client")
    return tuple(sorted(found, key=lambda each: ":" in each))


def backend_address(value: Any) -> tuple[str, ...]:
    """A check for the address of an inline backend."""
    each = [value] if isinstance(value, str) else value
    if not isinstance(each, list) or not each or not all(isinstance(one, str) for one in each):
        raise Problem("must be an address, or a list with one IPv4 and one IPv6 address")
    try:
        return check_addresses(each)
    except ValueError as bad:
        raise Problem(str(bad)) from None


def policy_word(value: Any) -> str:
    """A check for a policy's name or "file.py:function"."""
    if not isinstance(value, str) or (value not in POLICIES and not re.search(r"\.py:\w+$", value)):
        raise Problem(f'must be one of {", ".join(POLICIES)} or "file.py:function"; '
                      + suggest(str(value), POLICIES))
    return value


def last_resort_word(value: Any) -> str:
    """A check for all_down: a word or an address."""
    words = ("all", "servfail", "empty")
    if value in words:
        return str(value)
    try:
        return str(ipaddress.ip_address(text(value)))
    except ValueError:
        raise Problem(f"must be one of {', '.join(words)}, or an address; "
                      + suggest(str(value), words)) from None


def anything(value: Any) -> Any:
    """No check here: the value is a table with a checker of its own."""
    return value


TOP = {
    "listen": Key(items(endpoint), (("::", 9000),), 'listen = ["[::]:9000"]',
                  'UDP and TCP; "[::]" is IPv6 and IPv4'),
    "workers": Key(whole(0, 256), 0, "workers = 0", "processes that answer; 0 = one per CPU"),
    "user": Key(text, "nobody", 'user = "nobody"', "become this user after binding, if root"),
    "log": Key(one_of(*Log.LEVELS), "changes", 'log = "changes"', "errors | changes | queries"),
    "log_format": Key(one_of("text", "json"), "text", 'log_format = "text"', "text | json"),
    "nsid": Key(text, "", '# nsid = "ns1"', "what `dig +nsid` shows of this server"),
    "servers": Key(whole(1, 1000), 1, "servers = 1",
                   "name servers that answer for these pools; for least-connections"),
    "zones": Key(anything, {}, "", ""),
    "pools": Key(anything, {}, "", "")}

ZONE = {
    "ns": Key(items(name_text), (), 'ns = ["ns1.example.com.", "ns2.example.com."]',
              "name servers of the zone, as its parent delegates it"),
    "contact": Key(text, "", '# contact = "hostmaster.example.com."', "who answers for it"),
    "serial": Key(whole(0, 2**32 - 1), 1, "# serial = 1", "of the SOA"),
    "refresh": Key(whole(1, wire.TTL_MAX), 7200, "# refresh = 7200", "seconds, as the next ones"),
    "retry": Key(whole(1, wire.TTL_MAX), 1800, "# retry = 1800", ""),
    "expire": Key(whole(1, wire.TTL_MAX), 1209600, "# expire = 1209600", ""),
    "ttl": Key(whole(0, wire.TTL_MAX), 3600, "# ttl = 3600", "of SOA, NS and records without one"),
    "negative_ttl": Key(whole(0, wire.TTL_MAX), 60, "# negative_ttl = 60",
                        "how long resolvers remember that a name or type is not there"),
    "file": Key(text, "", '# file = "example.com.zone"', "records in a file of their own"),
    "records": Key(text, "", 'records = """\nns1  300 IN A   192.0.2.53\nns2  300 IN A   '
                   '198.51.100.53\n@    300 IN MX  10 mail\nwww  300 IN A   192.0.2.80\n"""',
                   "master-file text: RFC 1035 5")}

POOL = {
    "policy": Key(policy_word, "random", 'policy = "least-connections"',
                  'random | round-robin | least-connections | failover | hash | "file.py:function"'),
    "ttl": Key(whole(0, wire.TTL_MAX), 60, "ttl = 60", "seconds"),
    "answers": Key(whole(1, 13), 1, "answers = 1", "addresses per answer; one balances best"),
    "anticache": Key(truth, None, "anticache = true", "also answer <anything>api.example.com"),
    "backends": Key(items(anything), (),
                    'backends = ["192.0.2.1", { address = "192.0.2.2", weight = 2, '
                    'max_connections = 1000 }]',
                    "or host names; state = up | drain | down"),
    "source": Key(anything, None, '# source = { sqlite = "backends.db", every = 1 }',
                  "read backends or their load from a table"),
    "stale": Key(number(1, 86400), 10.0, "stale = 10",
                 "seconds after which a load report is no longer believed"),
    "all_down": Key(last_resort_word, "all", 'all_down = "all"',
                    'what to answer when nothing is up: all | servfail | empty | "192.0.2.9"')}

BACKEND = {
    "address": Key(backend_address, (), "", ""), "weight": Key(number(0, 1e6), 1.0, "", ""),
    "max_connections": Key(whole(1, 10**9), None, "", ""),
    "state": Key(one_of(*STATES), "up", "", "")}

SOURCE = {
    "sqlite": Key(text, "", "", ""), "query": Key(text, None, "", ""),
    "every": Key(number(0.1, 3600), 1.0, "", "")}


class Checker:
    """Turns a parsed TOML file into a Config, gathering everything that is wrong with it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.folder = pathlib.Path(file).parent.absolute()
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def problem(self, path: str, rule: str) -> None:
        """Note a problem: file, path of the key, rule."""
        self.problems.append(f"{self.file}: {path}{rule}" if path else f"{self.file}: {rule}")

    def table(self, path: str, value: Any, keys: dict[str, Key]) -> dict[str, Any]:
        """The checked values of a table, with defaults for what is absent or wrong."""
        found = {name: key.default for name, key in keys.items()}
        if not isinstance(value, dict):
            self.problem(path, f" = {value!r}: must be a table")
            return found
        for name, each in value.items():
            where = f"{path}.{name}" if path else name
            if name not in keys:
                self.problem(where, ": unknown key; " + suggest(name, keys))
                continue
            try:
                found[name] = keys[name].check(each)
            except Problem as bad:
                self.problem(where, f" = {show_value(each)}: {bad}")
        return found

    def named(self, path: str, value: Any) -> Iterator[tuple[str, bytes, str, Any]]:
        """Path, key, name and value of each entry of [zones] or [pools], doubles excluded."""
        if not isinstance(value, dict):
            self.problem(path, f" = {value!r}: must be a table of names")
            return
        seen: dict[bytes, str] = {}
        for name, each in value.items():
            where = f'{path}."{name}"'
            try:
                key = wire.parse_name(name).lower()
            except wire.BadText as bad:
                self.problem(where, f": {bad}")
                continue
            if key in seen:
                self.problem(where, f": the same name as {path}.\"{seen[key]}\"")
                continue
            seen[key] = name
            yield where, key, name, each

    def config(self, document: dict[str, Any]) -> Config:
        """The whole config; raises ConfigError with all problems."""
        top = self.table("", document, TOP)
        zones, named = {}, list(self.named("zones", top["zones"]))
        for where, apex, _, value in named:
            zones[apex] = self.zone(where, apex, value)
        pools = {}
        for where, owner, name, value in self.named("pools", top["pools"]):
            pools[owner] = self.pool(where, owner, name, value, zones)
        if not named:
            self.problem("", 'no zone; add [zones."example.com"]')
        for where, apex, _, _ in named:
            finish_zone(zones[apex], [each for each in pools if home(each, zones) is zones[apex]])
            self.lint(where, zones[apex], pools)
        if not self.problems and os.geteuid() == 0:
            try:
                pwd.getpwnam(top["user"])
            except KeyError:
                self.problem("user", f" = {top['user']!r}: no such user on this host")
        if self.problems:
            raise ConfigError(self.problems)
        return Config(tuple(dict.fromkeys(top["listen"])), count_workers(top["workers"]),
                      top["user"], top["log"], top["log_format"], top["nsid"], top["servers"],
                      zones, pools, tuple(self.warnings))

    # -- zones --

    def zone(self, where: str, apex: bytes, value: Any) -> Zone:
        """One zone: its records, and SOA and NS from the keys where the records have none."""
        keys = self.table(where, value, ZONE)
        zone = Zone(apex)
        for label, content in (("file", self.read(where, keys["file"])),
                               ("records", keys["records"])):
            parsed = wire.ZoneText(content, apex, keys["ttl"])
            for each in parsed.problems:
                self.problem(where, f".{label} {each}")
            for record in parsed.records:
                self.add(f"{where}.{label} line {record.line}", zone, record)
        node = zone.nodes.setdefault(apex, {})
        if wire.NS in node and keys["ns"]:
            self.problem(where, ".ns: the records have NS of their own; keep one of them")
        if wire.SOA in node and isinstance(value, dict) and {"contact", "serial"} & value.keys():
            self.problem(where, ".contact: the records have a SOA of their own; keep one of them")
        servers = keys["ns"] or (b"\x03ns1" + apex,)
        node.setdefault(wire.NS, wire.RRset(wire.NS, keys["ttl"], tuple(dict.fromkeys(servers))))
        node.setdefault(wire.SOA, self.soa(where, apex, keys, node[wire.NS].rdatas[0]))
        return zone

    def read(self, where: str, file: str) -> str:
        """The text of a zone file."""
        if not file:
            return ""
        path = self.folder / file
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as bad:
            self.problem(where, f".file = {file!r}: {getattr(bad, 'strerror', None) or bad}")
            return ""

    def soa(self, where: str, apex: bytes, keys: dict[str, Any], primary: bytes) -> wire.RRset:
        """The SOA that the keys describe; a contact may be written as a mail address."""
        contact = keys["contact"] or wire.show_name(b"\x0ahostmaster" + apex)
        local, at, domain = contact.partition("@")
        try:
            rname = wire.parse_name(local.replace(".", "\\.") + "." + domain if at else contact)
        except wire.BadText as bad:
            self.problem(where, f".contact = {contact!r}: {bad}")
            rname = b"\0"
        timers = (keys[each] for each in ("serial", "refresh", "retry", "expire", "negative_ttl"))
        return wire.RRset(wire.SOA, keys["ttl"], (primary + rname + struct.pack("!5I", *timers),))

    def add(self, where: str, zone: Zone, record: wire.Record) -> None:
        """Put a record into its zone; the smallest TTL of an RRset counts (RFC 2181 5.2)."""
        owner = record.owner.lower()
        if zone.apex not in wire.suffixes(owner):
            self.problem(where, f": {wire.show_name(record.owner)} is outside the zone")
            return
        node = zone.nodes.setdefault(owner, {})
        old = node.get(record.type)
        alone = {wire.CNAME, record.type} - {wire.CNAME} if wire.CNAME in node else set(node)
        if (wire.CNAME in (record.type, *node)) and alone:
            self.problem(where, f": {wire.show_name(owner)} has a CNAME, which stands alone")
        elif old and record.type in (wire.CNAME, wire.SOA) and record.rdata not in old.rdatas:
            self.problem(where, f": {wire.show_name(owner)} has a second "
                                f"{wire.show_type(record.type)}")
        elif record.type == wire.SOA and owner != zone.apex:
            self.problem(where, ": a SOA stands at the apex only")
        else:
            rdatas = dict.fromkeys((*(old.rdatas if old else ()), record.rdata))
            ttl = min(record.ttl, old.ttl) if old else record.ttl
            node[record.type] = wire.RRset(record.type, ttl, tuple(rdatas))

    def lint(self, where: str, zone: Zone, pools: dict[bytes, PoolConfig]) -> None:
        """Warn of name servers inside a zone that have no address there: nobody could reach them."""
        for server in zone.nodes[zone.apex][wire.NS].rdatas:
            key = server.lower()
            if zone.apex in wire.suffixes(key) and key not in pools \
                    and not {wire.A, wire.AAAA} & zone.nodes.get(key, {}).keys():
                self.warnings.append(f"{self.file}: {where}.ns: {wire.show_name(server)} has no A "
                                     "or AAAA record in its zone")

    # -- pools --

    def pool(self, where: str, owner: bytes, name: str, value: Any,
             zones: dict[bytes, Zone]) -> PoolConfig:
        """One pool."""
        keys = self.table(where, value, POOL)
        rows = tuple(self.backends(where, keys["backends"]))
        source = self.source(where, keys["source"])
        if isinstance(value, dict) and not keys["backends"] and keys["source"] is None:
            self.problem(where, ": needs backends, or a source that names them")
        hosts = [is_host(row.addresses) for row in rows]
        if any(hosts) and not all(hosts):
            self.problem(where, ".backends: addresses and host names do not mix")
        zone = home(owner, zones)
        alone = self.check_owner(where, owner, zone, zones, any(hosts))
        policy = keys["policy"]
        if policy not in POLICIES:
            policy = str(self.folder / policy)
        anticache = keys["anticache"]
        if anticache is None:
            anticache = zone is None or owner != zone.apex
        return PoolConfig(name, owner, policy, keys["ttl"], keys["answers"], anticache, rows,
                          source, keys["stale"], keys["all_down"], alone)

    def check_owner(self, where: str, owner: bytes, zone: Zone | None, zones: dict[bytes, Zone],
                    alias: bool) -> bool:
        """Whether a pool can stand at its name; returns whether a CNAME could."""
        if zone is None:
            near = ", ".join(wire.show_name(each) for each in zones)
            self.problem(where, f": in none of the zones ({near}); add its zone")
            return False
        names, node = wire.suffixes(owner), zone.nodes.get(owner, {})
        if owner == b"\0":
            self.problem(where, ": the root cannot be a pool")
        if any(wire.NS in zone.nodes.get(each, {}) for each in names[:names.index(zone.apex)]):
            self.problem(where, ": below a delegation of its zone, so others answer for it")
        clash = sorted(node) if alias else [each for each in (wire.A, wire.AAAA, wire.CNAME)
                                            if each in node]
        if clash:
            self.problem(where, f": its zone has {wire.show_type(clash[0])} at this name already"
                         + (", and host names make it a CNAME, which stands alone" if alias else ""))
        return not node

    def backends(self, where: str, values: Sequence[Any]) -> Iterator[Row]:
        """The inline backends."""
        seen: set[str] = set()
        for at, value in enumerate(values):
            path = f"{where}.backends[{at}]"
            try:
                plain = {"address": backend_address(value)} if isinstance(value, str) else None
            except Problem as bad:
                self.problem(path, f" = {value!r}: {bad}")
                continue
            keys = self.table(path, {} if plain else value, BACKEND)
            addresses = plain["address"] if plain else keys["address"]
            if not addresses and isinstance(value, dict) and "address" not in value:
                self.problem(path, ": needs an address")
            if seen & set(addresses):
                self.problem(path, f" = {show_value(value)}: stands in the list twice")
            seen |= set(addresses)
            if addresses:
                yield Row(addresses, keys["weight"], keys["max_connections"], keys["state"])

    def source(self, where: str, value: Any) -> Source | None:
        """Where rows come from."""
        if value is None:
            return None
        keys = self.table(f"{where}.source", value, SOURCE)
        if isinstance(value, dict) and "sqlite" not in value:
            self.problem(f"{where}.source", ': needs sqlite = "FILE"')
        return Source(str(self.folder / keys["sqlite"]), keys["query"], keys["every"])


def show_value(value: Any) -> str:
    """A value of the config, short enough for a message."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def home(owner: bytes, zones: dict[bytes, Zone]) -> Zone | None:
    """The zone of a name: the one with the longest apex."""
    return next((zones[each] for each in wire.suffixes(owner) if each in zones), None)


def count_workers(wanted: int) -> int:
    """How many processes answer; one per CPU we may use, unless told."""
    if sys.platform != "linux":  # elsewhere nobody has measured that sharing a socket works well
        return 1
    return wanted or len(os.sched_getaffinity(0))


def finish_zone(zone: Zone, pools: Sequence[bytes]) -> None:
    """What answers need besides the records: empty non-terminals, cuts, the negative SOA."""
    for owner in [*zone.nodes, *pools]:
        for name in wire.suffixes(owner):
            zone.nodes.setdefault(name, {})
            if name == zone.apex:
                break
    zone.cuts = {owner for owner, node in zone.nodes.items()
                 if wire.NS in node and owner != zone.apex}
    zone.soa = zone.nodes[zone.apex][wire.SOA]
    minimum = int.from_bytes(zone.soa.rdatas[0][-4:], "big")
    zone.negative = zone.soa._replace(ttl=min(zone.soa.ttl, minimum))  # RFC 2308 3


def check_functions(config: Config) -> list[str]:
    """What is wrong with the files behind "file.py:function": they are loaded, once, to see."""
    problems = []
    for pool in config.pools.values():
        if pool.policy not in POLICIES:
            try:
                load_function(pool.policy)
            except BaseException as bad:
                problems.append(f'pools."{pool.name}".policy = {pool.policy!r}: '
                                f"{type(bad).__name__}: {bad}")
    return problems


def read_config(file: str) -> Config:
    """Read and check a config file; raises ConfigError."""
    try:
        document = tomllib.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    except OSError as bad:
        raise ConfigError([f"{file}: {bad.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as bad:
        raise ConfigError([f"{file}: {bad}"]) from None
    config = Checker(file).config(document)
    for pool in config.pools.values():
        if pool.anticache:
            zone = home(pool.owner, config.zones)
            assert zone is not None
            zone.add_anticache(pool.owner)
    return config


# ---- 11. Command line --------------------------------------------------------------------------

DEMO = ["api.example.com=1.2.3.4,8.8.4.4,8.8.8.8"]
USAGE = """usage: lbdns.py                                   the demo: api.example.com on port 9000
       lbdns.py CONFIG                            serve what a TOML file says
       lbdns.py NAME=ADDR,ADDR ... [-p PORT]      serve pools without a file
       lbdns.py check CONFIG                      say what is wrong with it, or what it serves
       lbdns.py example                           print a config with every word explained
       lbdns.py bundle                            print this program as the one file to copy"""
EXAMPLE_HEAD = """# A config of lbdns: every word with its default or an example. Lines that start with
# "# word =" are optional. Paths are relative to this file.
"""


def example() -> str:
    """A config with every word explained, made from the tables that check it."""
    def show(keys: dict[str, Key]) -> str:
        lines = []
        for key in keys.values():
            if key.example:
                first, newline, rest = key.example.partition("\n")
                lines.append(f"{first}  # {key.help}".rstrip("# ") if key.help and not newline
                             else (f"# {key.help}\n" if key.help else "") + first + newline + rest)
        return "\n".join(lines) + "\n"
    return (f'{EXAMPLE_HEAD}\n{show(TOP)}\n[zones."example.com"]\n{show(ZONE)}'
            f'\n[pools."api.example.com"]\n{show(POOL)}')


def bundle() -> str:
    """This program as one file: wire.py stands where lbdns.py imports it."""
    source = pathlib.Path(__file__).read_text(encoding="utf-8")
    start, end = source.find("\ntry:\n    import wire\n") + 1, source.find("\nVERSION = ")
    if not start:  # this is the bundle
        return source
    codec = pathlib.Path(wire.__file__).read_text(encoding="utf-8")
    return source[:start] + codec + "\n\nwire = sys.modules[__name__]\n" + source[end:]


def inline_config(pools: Sequence[str], port: int) -> Config:
    """The config of a command line: NAME=ADDR,ADDR with a zone made for each name."""
    document: dict[str, Any] = {"listen": [f"[::]:{port}"], "log": "queries", "zones": {},
                                "pools": {}}
    for each in pools:
        name, _, addresses = each.partition("=")
        parent = name.split(".", 1)[1] if name.count(".") > 1 else name
        document["zones"][parent] = {}
        document["pools"][name] = {"backends": addresses.split(",")}
    checker = Checker("command line")
    config = checker.config(document)
    for owner, pool in config.pools.items():
        zone = home(owner, config.zones)
        if pool.anticache and zone is not None:
            zone.add_anticache(owner)
    return config._replace(warnings=())


def check(file: str) -> int:
    """The command `check`: 0 and what is served, or 1 and what is wrong."""
    try:
        config = read_config(file)
        problems = check_functions(config)
        if problems:
            raise ConfigError([f"{file}: {each}" for each in problems])
    except ConfigError as bad:
        print(bad, file=sys.stderr)
        return 1
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for pool in config.pools.values():
        rows = ", ".join("+".join(row.addresses) for row in pool.backends)
        origin = pool.source.path if pool.source else ""
        print(f"{pool.name}: {pool.policy}, TTL {pool.ttl}, {rows or 'backends'}"
              + (f" from {origin}" if origin else "") + (", anti-cache" if pool.anticache else ""))
    print(f"{file}: good; {len(config.zones)} zones, {len(config.pools)} pools")
    return 0


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="lbdns.py", usage=USAGE[7:], add_help=False,
                                     description="A DNS server that balances load by its answers.")
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-p", "--port", type=int, default=None, help="port to listen on (9000)")
    parser.add_argument("-h", "--help", action="help", help="show this and exit")
    parser.add_argument("-V", "--version", action="version", version=f"lbdns {VERSION}",
                        help="show the version and exit")
    found = parser.parse_args(argv)
    words = found.words
    inline = not words or all("=" in word for word in words)
    if found.port is not None and not inline:
        parser.error("-p goes with NAME=ADDR,ADDR; a config has `listen`")
    if found.port is not None and not 0 <= found.port <= 65535:
        parser.error(f"-p {found.port}: a port is 0 to 65535")
    if words[:1] == ["check"] and len(words) != 2:
        parser.error("check takes one CONFIG")
    if words[:1] in (["example"], ["bundle"]) and len(words) != 1:
        parser.error(f"{words[0]} takes no argument")
    if words[:1] != ["check"] and not inline and len(words) != 1:
        parser.error(f"one CONFIG, or NAME=ADDR,ADDR; what is {words[1]!r}?")
    return found


def main(argv: Sequence[str]) -> int:
    """Run a command; returns the exit code: 0, 1 (check found problems) or 2 (cannot start)."""
    found = parse_arguments(argv)
    words, port = found.words, 9000 if found.port is None else found.port
    if words[:1] == ["check"]:
        return check(words[1])
    if words[:1] in (["example"], ["bundle"]):
        sys.stdout.write(example() if words[0] == "example" else bundle())
        return 0
    banner = ""
    if not words or "=" in words[0]:
        pools = words or DEMO
        banner = "try: dig @127.0.0.1 -p {port} " + pools[0].partition("=")[0]
        supervisor = Supervisor(lambda: inline_config(pools, port), False, Log())
    else:
        supervisor = Supervisor(lambda: read_config(words[0]), True, Log())
    try:
        return supervisor.run(banner)
    except (StartError, ConfigError) as bad:
        supervisor.log.flush()
        print(f"lbdns: {bad}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
