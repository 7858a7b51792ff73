"""What fuzz.py feeds, one class each: good inputs to begin with, and what holds for any input.

A target is new after some inputs, so a finding can be replayed. Clocks stand still, dice are
seeded, and the limits of tables are small, so that what is bounded shows it soon. `feed` returns
the kind of outcome, and raises what is a finding.
"""
import asyncio
import collections
import contextlib
import json
import pathlib
import random
import socket
import sqlite3
import struct
import tempfile
import time
import tomllib
import types

import lbdns
from test_wire import OddPackets, decode_message

wire = lbdns.wire
NOW = 1_790_000_000.0    # unix seconds
TXT = wire.TYPES["TXT"]
CLIENTS = ("192.0.2.1", "2001:db8::1")
CONFIG = '''
listen = ["127.0.0.1:5300"]
user = "root"
nsid = "ns1"
rate_limit = 2
[zones."example.com"]
ns = ["ns1.example.com."]
records = """
ns1    A     192.0.2.53
www    300 IN A 192.0.2.80
www    AAAA  2001:db8::80
@      MX    10 mail
mail   A     192.0.2.25
txt    TXT   "LARGE" "another"
alias  CNAME www
topool CNAME api
loop   CNAME loop2
loop2  CNAME loop
a.ent  SRV   1 2 53 www
*.wild A     192.0.2.90
sub    NS    ns.sub
sub    NS    api
ns.sub A     192.0.2.99
sub    DS    1 8 2 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
big    TXT   "BIG" "BIG" "BIG" "BIG" "BIG" "BIG"
"""
[zones."lab.example.com"]
[pools."api.example.com"]
backends = ["10.0.0.1", { address = "10.0.0.2", weight = 2 }, ["10.0.0.3", "fd00::3"], "fd00::4"]
[pools."rr.example.com"]
policy = "round-robin"
answers = 2
backends = ["10.1.0.1", "10.1.0.2", { address = "10.1.0.3", weight = 5 }]
[pools."least.example.com"]
policy = "least-connections"
backends = [{ address = "10.2.0.1", max_connections = 40 }, { address = "10.2.0.2", weight = 3 }]
[pools."first.example.com"]
policy = "failover"
backends = ["10.3.0.1", "10.3.0.2"]
[pools."hash.example.com"]
policy = "hash"
backends = ["10.4.0.1", "10.4.0.2"]
[pools."lab.example.com"]
anticache = true
backends = ["10.5.0.1"]
[pools."host.example.com"]
backends = ["www.example.com", "elsewhere.test"]
[pools."dead.example.com"]
backends = [{ address = "10.6.0.1", state = "down" }]
[pools."none.example.com"]
all_down = "servfail"
backends = [{ address = "10.7.0.1", state = "down" }]
[pools."last.example.com"]
all_down = "10.9.9.9"
backends = [{ address = "10.8.0.1", state = "down" }]
'''.replace("BIG", "x" * 250).replace("LARGE", "y" * 200)
SOURCES = '''
listen = ["127.0.0.1:5300"]
user = "root"
[zones."example.com"]
[pools."api.example.com"]
policy = "least-connections"
source = { command = ["x"] }
[pools."own.example.com"]
backends = [["10.0.0.1", "fd00::1"], { address = "10.0.0.2", max_connections = 9 }]
source = { command = ["x"] }
'''
AGENTS = SOURCES.replace('command = ["x"]', "reports = true").replace(
    "user", 'reports = ["127.0.0.1:9053"]\nuser', 1)


class Broken(AssertionError):
    """A promise does not hold."""


def stand_still():
    """Stop the clocks of lbdns, and make the tables small that strangers fill."""
    lbdns.import_for_monitor()
    lbdns.time = types.SimpleNamespace(**{
        **vars(time), "time": lambda: NOW, "monotonic": lambda: 1000.0,
        "perf_counter_ns": lambda: 0})
    lbdns.LEARNED_MAX = 300
    lbdns.ROWS_MAX = 100
    lbdns.CHECK_PAUSE = 0.0


def promise(holds, says):
    """Raise Broken with what does not hold."""
    if not holds:
        raise Broken(says)


def read_config(text):
    """The config of a TOML text."""
    reader = lbdns.ConfigReader("fuzz.toml")
    if "reports = [" in text:  # the key, which is a file in earnest
        text = text.replace("user", 'reports_key = "key"\nuser', 1)
        reader.read_keys_of_reports = lambda keys: (KEY,)
    return reader.config(tomllib.loads(text))


def silent_log():
    """A log of all queries whose lines nobody sees; they have to be taken out."""
    log = lbdns.Log()
    log.level = 2
    log.write = len
    return log


def look_at_log(log):
    """See that lines are lines whatever strangers wrote, and take them out."""
    for line in log.lines:
        promise(line[:-1].decode().isprintable() and line[-1:] == b"\n", f"a line {line!r}")
    log.lines.clear()


def ask(name, rtype, ident=7, flags=0x100, opt=b"", rclass=1):
    """The octets of a query; `name` is text, or octets already."""
    name = wire.parse_name(name) if isinstance(name, str) else name
    return (struct.pack("!6H", ident, flags, 1, 0, 0, bool(opt)) + name
            + struct.pack("!2H", rtype, rclass) + opt)


def make_opt(options=(), payload=1232, ttl=0):
    """The octets of an OPT record with options, each a code and its octets."""
    rdata = b"".join(struct.pack("!2H", code, len(data)) + data for code, data in options)
    return b"\0" + struct.pack("!HHIH", wire.OPT, payload, ttl, len(rdata)) + rdata


NAMES = ("api 1-aPi x.1-api www 2-www rr least first hash lab 1-lab.lab host dead none last txt "
         "alias topool loop ent a.ent x.wild wild x.sub sub ns.sub big nope mail").split()


def list_queries():
    """Good queries for all names, with all options."""
    opts = (b"", make_opt(), make_opt([(10, b"abcdefgh"), (3, b""), (11, b"")], 4096, 0x8000),
            make_opt([(8, b"\0\1\x18\0\xcb\0\x71")], 512),
            make_opt([(10, lbdns.server_cookie(b"abcdefgh", CLIENTS[0], bytes(16), NOW))]))
    found = [ask(f"{name}.example.com", rtype, opt=opt) for name in NAMES
             for rtype in (wire.A, wire.AAAA, TXT, wire.ANY) for opt in opts]
    return found + [ask(name, wire.SOA, flags=flags, opt=opts[1], rclass=rclass)
                    for name in (".", "com", "example.com") for flags in (0, 0x2000, 0x2900)
                    for rclass in (1, 3, 255)]


def judge_reply(packet, reply, tcp):
    """See that a reply may be sent; returns its kind. None = there is none, b"" = it would be over
    the limit of rates."""
    if reply == b"" and not tcp:
        return "over the limit"
    owed = len(packet) >= wire.HEADER and packet[2] < 0x80
    promise((reply is not None) == owed, "silence, or a reply to what is no query")
    if reply is None:
        return "silence"
    message = decode_message(reply)
    query, rcode = wire.decode_query(packet), message.flags & 15
    limit = max(512, min(query.payload, 1232)) if query.has_opt else 512
    promise(tcp or len(reply) <= limit, f"{len(reply)} octets, of which {limit} may be sent")
    promise(len(reply) <= 65535, "more than a message holds")
    promise(rcode != wire.FORMERR or len(reply) <= len(packet) + 11, "a long FORMERR")
    promise(reply[:2] == packet[:2] and reply[2] & 0x80, "no reply to this query")
    kept = 0x78 if packet[2] & 0x78 else 1
    promise(reply[2] & 0x79 == packet[2] & kept, "another opcode or RD")
    promise(not reply[3] & 0xF0, "RA, Z, AD or CD are set")
    return (rcode, message.flags & 0x0600, query.has_opt, *map(len, message.sections),
            query.why.partition(" at ")[0].strip("0123456789"))


def ask_all(state, dice):
    """See that each name of a config gets a good reply, whatever stands there."""
    state.limit.rate = 0
    names = {*state.pools, *(name for zone in state.zones.values() for name in zone.nodes)}
    for name in sorted(names)[:40]:
        for rtype in (wire.A, wire.AAAA, wire.ANY):
            packet = ask(name, rtype, opt=make_opt())
            answered = lbdns.decide(packet, CLIENTS[0], False, state, NOW, dice)
            judge_reply(packet, answered.octets, False)


class Target:
    """What is fuzzed.

    name   on the command line
    size   octets of an input at most
    words  that mean something in inputs
    """
    name, size, words = "", 4096, (b"\0",)

    def seeds(self):
        """Good inputs."""
        raise NotImplementedError

    def feed(self, octets):
        """Feed an input; returns the kind of outcome."""
        raise NotImplementedError

    def forget(self):
        """Drop what is kept on purpose, whatever it takes."""
        lbdns.read_addresses.cache_clear()


# ---- 1. What strangers send ----------------------------------------------------------------------

class Desk:
    """A state that answers, with dice and a log of its own."""
    config = None

    def __init__(self, config=None):
        if config is None:
            Desk.config = config = Desk.config or read_config(CONFIG)
        self.dice, self.log = random.Random(8906).random, silent_log()
        self.state = lbdns.State(config, bytes(16), self.log, self.dice, {})
        self.now = NOW

    def decide(self, packet, client, tcp):
        """What `decide` says, once it is logged."""
        answered = lbdns.decide(packet, client, tcp, self.state, self.now, self.dice)
        if isinstance(answered, lbdns.Answered):
            self.log.query(answered.query, client, answered.reply, 0)
            look_at_log(self.log)
        return answered

    def octets(self, packet, client, tcp):
        """The same as octets: see `judge_reply`."""
        answered = self.decide(packet, client, tcp)
        return answered.octets if isinstance(answered, lbdns.Answered) else None


class Packets(Target):
    """A packet gets a reply that may be sent, or none; and from the cache what `decide` says, octet
    for octet, with the same dice: between others, for several clients, over UDP and TCP."""
    name = "packet"
    words = (b"\3api", b"\7example", b"\3com\0", b"\xc0\x0c", b"\0\0\x29\x04\xd0\0\0\0\0\0\0",
             b"\0\x0a\0\x08abcdefgh", b"\0\x08\0\x07\0\x01\x18\0\xc0\0\x02", b"\0\x03\0\0",
             b"\0\x0b\0\0", b"\0\x01\0\x01", b"\0\xff\0\x01", b"\0\x00\xfa\0\xff\0\0\0\0\0\0")
    def __init__(self):
        self.plain, self.cached = Desk(), Desk()
        self.cache = lbdns.Cache(self.cached.state, self.cached.dice, self.cached.decide)
        self.last = ask("www.example.com", wire.A)

    def seeds(self):
        """Queries for all names, and odd packets."""
        return [*list_queries(), *OddPackets(8906).make(250)]

    def feed(self, octets):
        """Ask it behind the last one, and again, in other case, and for another client, so that
        replies come from the cache where they may."""
        kinds = []
        # Some inputs share what a client may get in a second.
        self.plain.now = self.cached.now = self.plain.now + 0.25
        self.cache.tick(self.plain.now)
        for tcp in (False, True):
            if not tcp and len(octets) > lbdns.UDP_QUERY_MAX:
                continue
            packets = [self.last, octets, octets.swapcase(), octets, octets]
            peers = [CLIENTS[tcp], *CLIENTS, *CLIENTS]
            wanted = [self.plain.octets(*each, tcp) for each in zip(packets, peers, strict=True)]
            ways = [lbdns.way_of(peer, tcp) for peer in peers]
            replies = []
            while len(replies) < len(packets):  # over TCP it may stop after any of them
                at = len(replies)
                replies += self.cache.replies(packets[at:], peers[at:].copy, tcp, ways[at:])
            for packet, reply, want in zip(packets, replies, wanted, strict=True):
                reply = packet[:2] + reply if reply else None
                promise(reply == (want or None), f"the cache says {reply and reply.hex()}, decide "
                                       f"{want and want.hex()}")
            kinds.append(judge_reply(octets, wanted[1], tcp))
        self.last = octets
        return tuple(kinds)


class Streams(Target):
    """What a TCP client sends is answered in order, however it is cut into pieces, up to what is no
    query; then the connection ends. The first two octets of an input are dice for the pieces."""
    name, size = "tcp", 20_000
    words = (*Packets.words, b"\0\0", b"\0\x0c", b"\xff\xff", b"\0\x1d")

    def __init__(self):
        self.desk = Desk(read_config(CONFIG.partition("[pools")[0]))  # so that equal is equal

    def seeds(self):
        """Some queries each behind their length."""
        found = list_queries()[::7]
        framed = [len(each).to_bytes(2, "big") + each for each in found]
        return [b"\0" + bytes([at]) + b"".join(framed[at:at + at % 12 + 1])
                for at in range(0, len(framed) - 12, 3)]

    def reply(self, packet):
        """The reply to a packet with its id; b"" = none."""
        return self.desk.octets(packet, CLIENTS[0], True) or b""

    def respond(self, packets, peers, tcp, ways):
        """Answer as a cache does, which stops after a long reply."""
        promise(len(peers()) >= len(packets) <= len(ways) and tcp, "peers or ways are missing")
        replies = [self.reply(packet)[2:] for packet in packets]
        long = [at for at, reply in enumerate(replies, 1) if len(reply) > lbdns.LEARNED_SIZE]
        return replies[:long[0]] if long else replies

    def feed(self, octets):
        """Send it piece by piece, then close that side."""
        dice, stream = random.Random(octets[:2]), octets[2:]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            client, got, events = lbdns.Connection(ours, CLIENTS[0], 1.0), bytearray(), lbdns.READ
            at = 0
            while at < len(stream) and events:
                size = dice.choice((1, 2, 3, 40, 500, 5000))
                theirs.sendall(stream[at:at + size])
                at += size
                events = self.advance(client, theirs, got)
            complete = bool(events)
            if events:
                theirs.shutdown(socket.SHUT_WR)
                events = self.advance(client, theirs, got)
            promise(not events, "it waits, though the client sends no more")
        return self.judge(stream[:at], bytes(got), complete)

    def advance(self, client, theirs, got):
        """Let a connection do what it can, and read what it sends; returns what it waits for."""
        ready = lbdns.READ
        for _ in range(1000):
            events = client.advance(ready, self.respond, 2.0)
            ready = lbdns.WRITE
            came = b""
            with contextlib.suppress(BlockingIOError):
                came = theirs.recv(1 << 20)
            got += came
            promise(len(client.outbox) < lbdns.TCP_QUEUE + 2 * 65537, "the outbox grows")
            if not events or (not came and not events & lbdns.WRITE):
                return events
        raise Broken("it never comes to rest")

    def judge(self, stream, got, complete):
        """Hold what was sent back against what each query deserves."""
        wanted, silent, at = [], None, 0
        while at + 2 <= len(stream):
            size = int.from_bytes(stream[at:at + 2], "big")
            if at + 2 + size > len(stream):
                break
            reply = self.reply(stream[at + 2:at + 2 + size])
            at += 2 + size
            if reply:
                wanted.append(len(reply).to_bytes(2, "big") + reply)
            elif silent is None:
                silent = len(wanted)
        promise((silent is None) == complete, "it hangs up on a good client, or not on a bad one")
        least = b"".join(wanted[:silent])
        promise(got.startswith(least) and b"".join(wanted).startswith(got), "other replies")
        return min(len(wanted), 20), silent is None


KEY = bytes(range(32))


class Reports(Target):
    """A datagram that is not sealed changes nothing. What is sealed with the key is refused with a
    reason, or becomes a row that can be published, read by a worker, and answered."""
    name, size = "report", lbdns.REPORT_MAX - lbdns.SEAL
    words = (b'"pool":"api.example.com"', b'"agent":"a"', b'"address":"10.0.0.1"',
             b'"state":"drain"', b'"updated_at":1790000000', b'"connections":', b'"opened":',
             b'"weight":', b"null", b'"max_connections":', b"true", b"1e999", b"NaN", b"Infinity",
             b"[", b"{", b"\\ud800", b'"down"', b"fd00::1", b",10.0.0.2", b"\\u0000",
             b"::ffff:10.0.0.7", b'"\\\\"')

    def __init__(self):
        self.pipeline = Pipeline(read_config(AGENTS))
        feeds = [watch.feed for watch in self.pipeline.watches]
        self.ears = lbdns.Reports(feeds[0].pool.source, feeds, None, [KEY], [], self.pipeline.log)

    def seeds(self):
        """Bodies of reports."""
        rows = [{}, {"state": "drain"}, {"address": "10.0.0.9", "weight": 0.5},
                {"address": "10.0.0.8,fd00::8", "max_connections": 17.5, "opened": 10**12}]
        return [json.dumps({"pool": pool, "agent": agent, "connections": 5,
                            "updated_at": NOW + shift, **row}).encode()
                for pool in ("api.example.com", "OWN.example.com.") for agent in ("a", "b")
                for shift, row in enumerate(rows)] + [b"[]", b"1", b'"x"', b"{}", b""]

    def feed(self, octets):
        """Take it with a seal, and without."""
        kinds = []
        for datagram in (lbdns.sign_report(KEY, octets) + octets, octets):
            try:
                self.ears.take(datagram, "10.0.0.1", 1000.0)
                kinds.append("taken")
            except lbdns.Problem as bad:
                kinds.append(str(bad).partition(":")[0])
                self.pipeline.log.trouble("report-refused", "reports refused", str(bad), "warning")
        promise(kinds[1] in ("too long", "signed with none of our keys"), "no seal, and taken")
        for pool in self.ears.pools.values():
            pool.hand_over(1000.0, False)
            promise(len(pool.times) <= 5 * lbdns.ROWS_MAX, "the times of reports grow")
            promise(len(pool.heard) <= lbdns.ROWS_MAX, "what was heard grows")
        json.loads(json.dumps(self.ears.remember()))
        return kinds[0], self.pipeline.publish()


class Requests(Target):
    """A request over HTTP is refused with a page that says why, or has a path and parameters that
    are printable; and whatever is asked to be explained is, or is refused with a reason."""
    name, size = "request", 9000
    words = (b"GET /", b"HEAD /", b" HTTP/1.1\r\n", b"Host: localhost\r\n", b"\r\n\r\n", b"?name=",
             b"&type=", b"&client=", b"%00", b"%ff", b"%e2%80%ae", b"&", b";", b"+", b"[::1]",
             b"http://", b"//", b"@", b"Host: [::1%25x]:80", b"\\.", b"%5c", b"api.example.com",
             b"ANY", b"TYPE65535", b"2001:db8::1", b" HTTP/1.0\r\n\r\n", b"*")
    PATHS = ("/", "/status.json", "/metrics", "/explain.json?name=1-api.example.com",
             "/explain.json?name=x.hash.example.com&type=AAAA&client=192.0.2.1",
             "/explain.json?name=sub.example.com&type=DS", "/explain.json?name=%5c046.&type=TYPE1")

    def __init__(self):
        self.desk = Desk()
        self.server = lbdns.HttpServer([], self.desk.log, self.respond, "ns1")
        self.kind = ""

    def seeds(self):
        """Requests for all pages."""
        return [f"{method} {path} HTTP/1.{minor}\r\nHost: {host}\r\nAccept: */*\r\n\r\n".encode()
                for path in self.PATHS for method, minor, host in (
                    ("GET", 1, "localhost:9053"), ("HEAD", 0, "[::1]:80"), ("POST", 1, "x.test"))]

    def respond(self, path, parameters):
        """Explain an answer, whatever the path; this is what reads parameters."""
        promise((path + "".join(map("".join, parameters.items()))).isprintable(), "not printable")
        words = {"name": "", "type": "A", "client": "", **parameters}
        try:
            found = lbdns.explain_answer(self.desk.state, words["name"], words["type"],
                                         words["client"], self.desk.dice)
        except lbdns.Problem as bad:
            self.kind = str(bad).rpartition("; ")[2][:20]
            return lbdns.Page(400, f"{bad}\n")
        self.kind = found["rule"].partition(" ")[0]
        return lbdns.Page(200, json.dumps(found), "application/json")

    def feed(self, octets):
        """Have it answered as a connection does."""
        self.kind = ""
        reply = self.server.reply(octets)
        head, end, body = reply.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        promise(end and status in (200, 400, 405, 421, 431), f"{head!r}: {self.desk.log.lines}")
        promise(not (octets.startswith(b"HEAD ") and body), "a body for HEAD")
        look_at_log(self.desk.log)
        return status, self.kind


# ---- 2. What backends and programs say -----------------------------------------------------------

class Pipeline:
    """The way of entries from a source to an answer: poll, feed, watch, snapshot, worker."""
    def __init__(self, config):
        self.log = silent_log()
        self.dice = random.Random(1).random
        self.watches = [lbdns.Watch(pool, pool.name, None, self.log, collections.deque(maxlen=20))
                        for pool in config.pools.values()]
        self.poll = lbdns.Poll(self.watches[0].feed.pool.source,
                               [watch.feed for watch in self.watches], False, None)
        self.state = lbdns.State(config, bytes(16), self.log, self.dice, {})

    def apply(self, found):
        """Give what a poll has found to the feeds, and on; returns the kind of outcome."""
        dealt, others = self.poll.deal(found)
        for name, feed in self.poll.feeds.items():
            feed.apply(found._replace(entries=dealt[name], pools=others), 1000.0)
        return self.publish()

    def publish(self):
        """Make a snapshot, read it as a worker does, and ask for all names."""
        for watch in self.watches:
            watch.refresh(1000.0)
        memory = {"pools": {watch.pool.name: watch.known for watch in self.watches}}
        snapshot = lbdns.Snapshot("; ".join(watch.status for watch in self.watches),
                                  json.dumps(memory), [watch.line for watch in self.watches])
        read = lbdns.Snapshot.unpack(snapshot.pack())
        promise(read == snapshot, f"read as {read}, written as {snapshot}")
        lbdns.at_once(self.state.apply_snapshot(read, 1000.0))
        ask_all(self.state, self.dice)
        for watch in self.watches:
            watch.known = {} if len(watch.known) > lbdns.ROWS_MAX else watch.known
        self.log.troubles.clear()
        look_at_log(self.log)
        return tuple((len(watch.feed.rows), watch.feed.trouble.partition(":")[0][:30],
                      watch.feed.skipped.rpartition(": ")[2][:20].strip("0123456789"))
                     for watch in self.watches)


class Printed(Target):
    """What a command prints becomes rows that can be published and answered, is ignored with a
    reason line by line, or refused as a whole."""
    name = "printed"
    words = (*Reports.words[:1], b"|", b"\t", b",", b"#", b"\xef\xbb\xbf", b"\n", b"drain", b"NULL",
             b"{", b"[", b"}", b"]", b'"address":', *Reports.words[5:])

    def __init__(self):
        self.pipeline = Pipeline(read_config(SOURCES))

    def seeds(self):
        """Lines in all forms."""
        rows = [{"address": "10.0.0.1", "connections": 5, "weight": 2, "state": "up"},
                {"pool": "api.example.com", "address": ["10.0.0.4", "fd00::4"], "opened": 17.0}]
        return [b"10.0.0.1|5|1.5|100|up|7000\n10.0.0.2|||| drain\n# no row\n\n10.0.0.3\n",
                b"10.0.0.1 5 1\n10.0.0.2,fd00::2 7\n", b"10.0.0.1\t5\t\\N\t\tDOWN\n",
                b"10.0.0.1, 5, 2\r\n10.0.0.2, 6, 3\r\n", "\n".join(map(json.dumps, rows)).encode(),
                json.dumps(rows).encode(), json.dumps(["10.0.0.1", "10.0.0.2|5"]).encode(),
                b"\xef\xbb\xbf10.0.0.1\n", b"x.example.com 5\n", b"10.0.0.1 " * 2 + b"x\n"]

    def feed(self, octets):
        """Read it as a poll does."""
        try:
            found = lbdns.read_printed(octets)
        except lbdns.Problem as bad:
            return str(bad).partition(":")[0]
        return self.pipeline.apply(found)


class Tables(Target):
    """The same for a table of SQLite, whose columns may hold anything. An input is a row of values
    after the other, each behind an octet that says of which kind it is."""
    name = "table"
    words = (b"\3api.example.com\0", b"\3OWN.example.com.\0", b"\x0310.0.0.1\0", b"\3fd00::1\0",
             b"\3drain\0", b"\0", b"\1\0\0\0\0\0\0\0\5", b"\2\x40\x09\x1e\xb8\x51\xeb\x85\x1f",
             b"\2\x7f\xf0\0\0\0\0\0\0", b"\2\xff\xf8\0\0\0\0\0\0", b"\4\xff\xfe\0",
             b"\3\xed\xa0\x80\0")
    COLUMNS = "pool address connections opened weight max_connections state updated_at".split()

    def __init__(self):
        self.pipeline = Pipeline(read_config(SOURCES))
        self.folder = tempfile.TemporaryDirectory(prefix="lbdns-fuzz-")
        path = f"{self.folder.name}/table.db"
        self.source = self.pipeline.poll.source._replace(name=path, command=(), timeout=5.0)
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute("PRAGMA journal_mode = OFF")
        self.database.execute("PRAGMA synchronous = OFF")
        self.database.execute(f"CREATE TABLE backends ({', '.join(self.COLUMNS)})")

    def seeds(self):
        """Rows as tables have them."""
        number, share = self.words[6:8]
        row = [self.words[0], self.words[2], number, number, share, b"\0", b"\3up\0", b"\0"]
        other = [self.words[1], self.words[3], b"\0", b"\3 7 \0", b"\3.5\0", number, b"\4drain\0",
                 b"\2" + struct.pack("!d", NOW)]
        return [b"".join(each) for each in ([], row, other, row + other, (row + other) * 20)]

    @staticmethod
    def values(octets):
        """Yield the SQL expression and the value of each."""
        at = 0
        while at < len(octets):
            kind, at = octets[at] % 5, at + 1
            eight = octets[at:at + 8].ljust(8, b"\0")
            text = octets[at:].partition(b"\0")[0][:300]
            if kind == 0:
                yield "?", None
            elif kind in (1, 2):
                yield "?", struct.unpack("!qd"[0] + "qd"[kind - 1], eight)[0]
                at += 8
            else:
                yield ("CAST(? AS TEXT)" if kind == 3 else "?"), text
                at += len(text) + 1

    def feed(self, octets):
        """Write it into the table, and read it as a poll does."""
        self.database.execute("DELETE FROM backends")
        found = list(self.values(octets))[:8 * 150]
        for start in range(0, len(found) - 7, 8):
            marks, values = zip(*found[start:start + 8], strict=True)
            self.database.execute(f"INSERT INTO backends VALUES ({', '.join(marks)})", values)
        try:
            read = lbdns.read_sqlite(self.source, [*self.pipeline.poll.feeds], False)
        except lbdns.Problem as bad:
            return str(bad)[:30]
        return self.pipeline.apply(read)


class Replies(Target):
    """A backend's reply to a check over HTTP is judged, or raises OSError; and alike however it is
    cut into pieces. The first two octets of an input are dice for the pieces."""
    name = "check"
    words = (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 503 \n", b"HTTP/2 100\r\n\r\n", b"\r\n\r\n",
             b"\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: ", b"5\r\nhello\r\n",
             b"0\r\n\r\n", b"ok", b";x=y", b"ffffffffffffffff", b" \t", b"\n \t",
             b"SSH-2.0-x\r\n", b"gzip, ")
    PROBE = lbdns.Probe("http", "api.example.com", 80, "/", (), 5.0, 2.0, 1, 1, (), "is ok", True)

    def __init__(self):
        self.loop = asyncio.new_event_loop()

    def seeds(self):
        """Replies as servers give them."""
        return [b"\0\1" + each for each in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall is ok",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"4\r\nall \r\n5;a=b\r\nis ok\r\n0\r\n\r\n",
            b"HTTP/1.0 200\n\nis\nis ok\n", b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 503 x\r\n\r\n",
            b"HTTP/1.1 101 Switch\r\n\r\nis ok", b"SSH-2.0-OpenSSH_9.2\r\n", b"")]

    def feed(self, octets):
        """Judge it in pieces and as a whole."""
        dice = random.Random(octets[:2])
        pieces, at = [], 2
        while at < len(octets):
            size = dice.choice((1, 2, 5, 100, 1000)) if len(pieces) < 20 else len(octets)
            pieces.append(octets[at:at + size])
            at += size
        verdicts = [self.loop.run_until_complete(self.judge(each))
                    for each in ([octets[2:]], pieces)]
        promise(verdicts[0] == verdicts[1], f"judged by its pieces: {verdicts}")
        return verdicts[0]

    async def judge(self, pieces):
        """The kind of verdict on what comes in pieces."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            task = asyncio.ensure_future(lbdns.Exchange(self.PROBE, ours).run())
            await asyncio.sleep(0)
            for piece in pieces:
                if piece and not task.done():
                    theirs.sendall(piece)
                    for _ in range(6):  # until it waits again
                        await asyncio.sleep(0)
            theirs.shutdown(socket.SHUT_WR)
            try:
                verdict = await asyncio.wait_for(task, 30)
            except OSError as bad:
                return lbdns.show_refusal(bad)
        promise(verdict.isprintable(), f"a verdict {verdict!r}")
        return verdict.partition(":")[0]


# ---- 3. What operators write, and what our own processes do --------------------------------------

class Zones(Target):
    """Zone text is refused with a reason for each mistake, or served: each name of it."""
    name = "zone"
    words = (b"$ORIGIN ", b"$TTL ", b"@", b"*", b"\\", b"\\046", b"(", b")", b";", b'"', b"\n ",
             b" IN ", b" CH ", b"\\# 4 0a000001", b"1w2d", b"4294967295", b".", b"..",
             b"a." * 120, b"\xff", b" NS ", b" CNAME ", b" DS ", b" SOA ", b" TXT ", b" HTTPS ",
             b" TYPE65280 ", b"\\", b"=", b"alpn=h2,h3", b"mandatory=alpn", b"key65535",
             b"$INCLUDE x", b"\xed\xb2\x80")

    def seeds(self):
        """A zone with all types that have a text form."""
        return [each.encode() for each in (CONFIG.split('"""')[1], ALL_TYPES)] + [
            line.encode() for line in ALL_TYPES.splitlines()]

    def feed(self, octets):
        """Read it as the records of a zone, from a file as it were."""
        text = octets.decode("utf-8", "surrogateescape")
        return read_and_serve(lbdns.ConfigReader("fuzz.toml").config, {
            "listen": ["127.0.0.1:5300"], "user": "root", "zones": {
                "example.com": {"records": text}, "sub.example.com": {}},
            "pools": {"api.example.com": {"backends": ["10.0.0.1"]}}})


def read_and_serve(read, what):
    """Read a config and ask for its names; returns the kind of outcome."""
    try:
        config = read(what)
    except lbdns.ConfigError as bad:
        promise(str(bad) and all(map(str.isprintable, str(bad).split("\n"))), f"says {str(bad)!r}")
        return tuple(line.rpartition(": ")[2][:25] for line in str(bad).split("\n")[:2])
    promise("\n" not in "".join(config.warnings), f"warns {config.warnings}")
    desk = Desk(config)
    ask_all(desk.state, desk.dice)
    return tuple(each.rpartition(": ")[2][:25] for each in config.warnings[:2])


ALL_TYPES = r"""
@ 3600 IN SOA ns1 hostmaster ( 1 2h 30m 2w ; a comment
   60 )
@ NS ns1
ns1 A 192.0.2.1
ns1 AAAA 2001:db8::1
_x._tcp SRV 0 5 53 ns1
caa CAA 0 issue "ca.example.net"
h HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1 port=443 mandatory=alpn
s SVCB 2 ns1 ech=AAAA dohpath=/q{?dns} key700="x\001"
p PTR ns1
t TXT "a b" c "\"\\\200"
tl TLSA 3 1 1 0011
ss SSHFP 1 2 00ff
n NAPTR 10 20 "u" "E2U" "!^.*$!x!" .
l LOC \# 16 00000000000000000000000000000000
d DS 1 RSASHA256 2 00112233
u URI 1 2 "https://x/"
c CNAME ns1
rp RP a b
hi HINFO x y
g TYPE65280 \# 3 010203
deleg NS ns.deleg
ns.deleg A 192.0.2.3
*.w MX 10 ns1
"""


class Configs(Target):
    """A config is refused with a reason for each mistake, or served: each name of it."""
    name = "config"
    words = tuple(f"{word} = ".encode() for table in (
        lbdns.TOP, lbdns.ZONE, lbdns.POOL, lbdns.BACKEND, lbdns.SOURCE, lbdns.PROBE)
        for word in table) + (
        b"[", b"]", b"{", b"}", b'"', b'"""', b"[pools]\n", b'[pools."x.example.com"]\n', b"true",
        b"1e400", b"nan", b"-inf", b"0x7f", b"1979-05-27", b'"\\u0000"', b'"\\uFFFF"', b"''",
        b'"https://:443/x"', b'"tcp://:1"', b'"{address}"', b'"127.0.0.1:0"', b'"[fe80::1%lo]:1"',
        b'"::"', b'"a@b.c"', b"zones.x.y = {}\n", b"[[pools]]\n", b'"*.example.com"', b'"."',
        b"= =", b'":pool"', b'"SELECT 1"', b"a.b.c", b"[" * 50, b'"hash"', b'"example"', b'"\\n"')

    def seeds(self):
        """The configs above, and the one that lbdns prints, without the marks of comments."""
        example = lbdns.EXAMPLE.replace("# ", "").partition("\n")[2]
        return [each.encode() for each in (CONFIG, SOURCES, lbdns.EXAMPLE, example)] + [
            f'[zones."example.com"]\n[pools.{each}'.encode() for each in (
                'api.example.com]\nbackends = ["10.0.0.1"]',
                '"a.example.com"]\nbackends = ["10.0.0.1"]\ncheck = "https://:443/health"',
                '"a.example.com"]\nsource = { sqlite = "x", query = "SELECT 1 AS address" }',
                '"a.example.com"]\nbackends = ["b.example.com"]\npolicy = "hash"')]

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lbdns-fuzz-")
        self.file = pathlib.Path(self.folder.name) / "fuzz.toml"

    def feed(self, octets):
        """Read it as a file, and serve it."""
        self.file.write_bytes(octets)
        return read_and_serve(lbdns.read_config, str(self.file))


class Snapshots(Target):
    """What was published is read as it was written. Of what was damaged, a worker takes over what
    it can, and then all names get an answer, be it SERVFAIL."""
    name = "snapshot"
    words = (b"\t", b"\n", b"[", b"]", b"null", b'"api.example.com"', b'["10.0.0.9"]', b"Infinity",
             b"NaN", b"true", b'"drain"', b"{}", b'["10.0.0.2"], 1.0, null, "up", 5, [], 9')

    def __init__(self):
        config, log = read_config(SOURCES), silent_log()
        state = lbdns.State(config, bytes(16), log, random.Random(1).random, {})
        self.octets = b""
        generation = types.SimpleNamespace(news=lambda: lbdns.Snapshot.unpack(self.octets))
        self.worker = lbdns.Worker.__new__(lbdns.Worker)  # without sockets
        self.worker.state, self.worker.log = state, log
        self.worker.child = types.SimpleNamespace(generation=generation)
        self.slices = self.worker.apply_snapshots()

    def seeds(self):
        """Snapshots."""
        rows = [lbdns.Row(("10.0.0.1", "fd00::1"), connections=5, opened=9),
                lbdns.Row(("10.0.0.2",), 2.5, 9, "drain", down=["10.0.0.2"])]
        lines = [lbdns.pack_pool("own.example.com", False, 900.0, lbdns.pack_rows(rows)),
                 lbdns.pack_pool("api.example.com", True, 1.5, lbdns.pack_rows(rows * 20))]
        return [lbdns.Snapshot("status", pools=lines[:count]).pack() for count in (0, 1, 2)]

    def feed(self, octets):
        """Read it as a worker does, and ask."""
        self.octets = octets
        while next(self.slices):
            pass
        said = [each.text.partition(":")[0] for each in self.worker.log.troubles.values()]
        self.worker.log.troubles.clear()
        if not said:
            promise(lbdns.Snapshot.unpack(octets).pack() == octets, "written as it was not read")
        for name in self.worker.state.pools:
            for rtype in (wire.A, wire.AAAA):
                packet = ask(name, rtype)
                reply = self.worker.ask(packet, CLIENTS[0], False).octets
                said.append(judge_reply(packet, reply, False)[0])
        self.worker.log.troubles.clear()
        look_at_log(self.worker.log)
        return tuple(said)


TARGETS = (Packets, Streams, Requests, Reports, Replies, Printed, Tables, Zones, Configs, Snapshots)
stand_still()
