"""Ask lbdns, NSD and Knot the same of the same zone: each difference is one of those listed here.

    python3 bench/differential.py                          a table; what is not listed fails it
    python3 bench/differential.py --replay HEX             one packet: what each of them says

Good queries, what accidents make of them (those of fuzz.py), and odd packets such as other people's
software sends, go to all three servers over UDP, good queries over TCP, too. Compared are silence,
rcode, flags, question, EDNS, and each section as a set of records. The exit code is 1 if there is a
difference that no row of CLASSES explains.
"""
import collections
import contextlib
import importlib
import os
import random
import re
import socket
import struct
import sys
import time
from typing import NamedTuple

from common import fail, installed, parser, split_cores, workspace
from fuzz import damage, find_lbdns
from peers import KNOT, NSD
from server import Server

BATCH = 30         # packets on their way at the same time
SOCKETS = 64        # that they come from
PATIENCE = 5.0      # seconds that a server may take for them
MARK = b"\xff\xff"  # id of the query that ends a batch
CONFIG = """\
listen = ["127.0.0.1:{port}"]
workers = 1
user = "root"
log = "errors"
rate_limit = 0
zones."example.com".file = "zone"
"""
# The records of the zone; BIG is replaced by a text of 250 octets.
ZONE = """\
$ORIGIN example.com.
$TTL 3600
@         SOA   ns1 hostmaster 1 7200 1800 1209600 60
@         NS    ns1
@         NS    ns2.example.net.
@         MX    10 mail
@         MX    20 mail.example.net.
@         TXT   "an apex"
ns1       A     192.0.2.53
ns1       AAAA  2001:db8::53
api       A     1.2.3.4
www 300   A     192.0.2.80
www 300   A     192.0.2.81
www       AAAA  2001:db8::80
mail      A     192.0.2.25
txt       TXT   "one" "two"
txt       TXT   "a \\"quote\\""
big       TXT   BIG BIG BIG
huge      TXT   BIG BIG BIG BIG BIG BIG BIG BIG BIG BIG
alias     CNAME www
chain     CNAME alias
out       CNAME www.example.net.
dangling  CNAME nope
tosub     CNAME x.sub
towild    CNAME x.wild
loop      CNAME pool
pool      CNAME loop
a.b.ent   SRV   1 2 53 www
*.wild    A     192.0.2.90
*.wild    TXT   "a wildcard"
x.y.wild  A     192.0.2.91
*.cwild   CNAME www
sub       NS    ns1.sub
sub       NS    ns2.example.net.
sub       DS    1 8 2 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
ns1.sub   A     192.0.2.99
ns1.sub   AAAA  2001:db8::99
deleg     NS    ns1
https     TYPE65 \\# 3 000100
odd       TYPE65280 \\# 3 010203
caa       CAA   0 issue "ca.example.net"
""".replace("BIG", f'"{"x" * 250}"')
NAMES = ("@ ns1 api www WwW mail txt big huge alias chain out dangling tosub towild loop ent b.ent "
         "a.b.ent x.ent wild a.wild b.a.wild y.wild x.y.wild z.y.wild q.cwild *.wild sub x.sub "
         "ns1.sub deleg x.deleg https odd caa nope x.nope x.www").split()
KINDS = ("A", "AAAA", "NS", "SOA", "MX", "TXT", "CNAME", "DS", "SRV", "HTTPS", "TYPE65280", "ANY")


# ---- 1. Replies ----------------------------------------------------------------------------------

class Said(NamedTuple):
    """What is compared of a reply; each field but `rcode` of silence is None."""
    rcode: object       # with the bits that OPT has; "silence", "no message"
    opcode: object = None
    aa: object = None
    tc: object = None
    rd: object = None
    ra: object = None
    ad: object = None
    cd: object = None
    question: object = None
    answer: object = None
    authority: object = None
    additional: object = None
    edns: object = None


def read_reply(reply):
    """What a reply says."""
    if reply is None:
        return Said("silence")
    try:
        message = targets.decode_message(reply)
    except wire.Malformed:
        return Said(f"no message: {reply.hex()}")
    sections = [set(), set(), set()]
    edns, rcode = None, message.flags & 15
    for section, records in zip(sections, message.sections, strict=True):
        for record in records:
            if record.type == wire.OPT:
                edns, rcode = record.ttl & 0xFFFF, rcode | record.ttl >> 24 << 4
                continue
            rdata = wire.rdata_key(record.type, record.rdata)
            section.add((record.owner.lower(), record.type, record.rclass, record.ttl, rdata))
    flags = [bool(message.flags & bit) for bit in (0x400, 0x200, 0x100, 0x80, 0x20, 0x10)]
    return Said(rcode, message.flags >> 11 & 15, *flags, tuple(message.questions),
                *map(frozenset, sections), edns)


def differing(ours, theirs):
    """The names of the fields that are not the same. Where one is silent, that is all; where rcodes
    differ, flags and sections follow from that."""
    fields = Said._fields
    if isinstance(ours.rcode, str) or isinstance(theirs.rcode, str):
        fields = fields[:1]
    elif ours.rcode != theirs.rcode:
        fields = ("rcode", "opcode", "rd", "ra", "ad", "cd", "edns")
    return frozenset(name for name in fields if getattr(ours, name) != getattr(theirs, name))


# ---- 2. What may differ, and why -----------------------------------------------------------------

class Asked(NamedTuple):
    """What a packet asks, as far as it can be read."""
    opcode: int
    flags: int
    rtype: int          # 0 = no question could be read
    why: str            # what lbdns finds wrong with it
    others: frozenset   # types of records in it, but for OPT
    payload: int        # of OPT, or 512
    rest: int           # octets behind the last record; -1 = not all records can be read


def read_packet(packet):
    """What a packet asks."""
    try:
        query = wire.decode_query(packet)
    except wire.Malformed:
        return Asked(0, 0, 0, "no query", frozenset(), 512, -1)
    reader, others, rest = wire.Reader(packet, wire.HEADER), set(), -1
    questions, *counts = struct.unpack("!4H", packet[4:12])
    with contextlib.suppress(wire.Malformed):
        for _ in range(questions):
            reader.name(), reader.take(4)
        for _ in range(sum(counts)):
            reader.name()
            others.add(reader.u16())
            reader.take(6), reader.take(reader.u16())
        rest = len(packet) - reader.at
    return Asked(query.flags >> 11 & 15, query.flags, query.qtype, query.why,
                 frozenset(others - {wire.OPT}), query.payload, rest)


class Class(NamedTuple):
    """A regular difference: its name, why it is right, whose it is, which fields may differ, and
    what says of (Asked, ours, theirs) whether it is of this class."""
    name: str
    reason: str
    peers: str
    fields: str
    when: object


NOERROR, FORMERR, NXDOMAIN, NOTIMP, REFUSED, NOTAUTH, BADVERS, BADCOOKIE = 0, 1, 3, 4, 5, 9, 16, 23
META = {0, 41, *range(249, 255)}   # types that are only asked for, or only sent
TYPE_NSEC = 47
LIMITS = re.compile(r"more than \d+ options|\d records in a query|names of more than \d+ octets")
CLASSES = [
    Class("opcodes but QUERY", "lbdns knows no NOTIFY, UPDATE or others, and says so (NOTIMP); "
          "others may be secondaries, or find fault with the rest of the message first",
          "nsd knot", "rcode question rd ra ad cd edns aa tc",
          lambda asked, ours, theirs: asked.opcode and ours.rcode == NOTIMP),
    Class("silence", "Knot drops what it cannot parse; RFC 1035 4.1.1 has FORMERR for that",
          "knot", "rcode",
          lambda asked, ours, theirs: theirs.rcode == "silence" and ours.rcode == FORMERR),
    Class("header of an error", "NSD sends the query's flags back, and no question; the flags of "
          "lbdns are its own (RFC 1035 4.1.1)",
          "nsd", "question aa tc rd ra ad cd edns",
          lambda asked, ours, theirs: ours.rcode == theirs.rcode in (FORMERR, REFUSED, BADVERS)),
    Class("OPT of an error", "where OPT could be read, the reply has it, whatever is wrong behind "
          "it (RFC 6891 6.1.1)",
          "knot", "edns question rd",
          lambda asked, ours, theirs: ours.rcode == theirs.rcode == FORMERR),
    Class("octets behind the message", "lbdns ignores them; for Knot they are a FORMERR; no RFC "
          "says which",
          "knot", "rcode edns",
          lambda asked, ours, theirs: theirs.rcode == FORMERR and asked.rest > 0),
    Class("rcode in a query", "lbdns ignores what has no meaning there; for NSD it is a FORMERR",
          "nsd", "rcode ra rd ad cd edns",
          lambda asked, ours, theirs: theirs.rcode == FORMERR and asked.flags & 15),
    Class("other records in a query", "lbdns skips them; for others they may be a FORMERR",
          "nsd knot", "rcode ra rd ad cd edns",
          lambda asked, ours, theirs: theirs.rcode == FORMERR and asked.others),
    Class("TSIG", "lbdns has no keys and answers as if there were no TSIG; others look for theirs",
          "nsd knot", "rcode additional question ra rd ad cd edns",
          lambda asked, ours, theirs: wire.TSIG in asked.others),
    Class("additional addresses", "of mail and name servers: lbdns sends those that a referral "
          "needs",
          "nsd knot", "additional",
          lambda asked, ours, theirs: ours.additional < theirs.additional),
    Class("ANY", "one RRset is answer enough (RFC 8482 4.1); each chooses another one",
          "nsd knot", "answer additional",
          lambda asked, ours, theirs: asked.rtype == wire.ANY and ours.answer and theirs.answer),
    Class("types of no records", "OPT, TSIG, TKEY and 0 as a question, MAILA, MAILB, transfers "
          "over UDP: whether refused, unknown or no data, they get no records",
          "nsd knot", "rcode aa edns authority",
          lambda asked, ours, theirs: asked.rtype in META),
    Class("NSEC of an alias", "lbdns and NSD follow the CNAME (RFC 1034 3.6.2); Knot does not for "
          "a type that may stand beside it",
          "knot", "rcode answer authority",
          lambda asked, ours, theirs: asked.rtype == TYPE_NSEC),
    Class("classes but IN", "NSD and Knot say who they are in CHAOS (version.bind), and take ANY "
          "for IN; lbdns refuses both",
          "nsd knot", "rcode edns",
          lambda asked, ours, theirs: ours.rcode == REFUSED and asked.why.startswith("class ")),
    Class("client subnet", "lbdns reads the option and has FORMERR for a wrong one (RFC 7871 "
          "7.1.2); others do not look",
          "nsd knot", "rcode edns",
          lambda asked, ours, theirs: (ours.rcode == FORMERR
                                       and asked.why.startswith("a client subnet"))),
    Class("version or form of OPT", "an OPT of another version in a broken message: FORMERR or "
          "BADVERS, whichever is seen first",
          "nsd knot", "rcode edns ra rd ad cd",
          lambda asked, ours, theirs: {ours.rcode, theirs.rcode} == {FORMERR, BADVERS}),
    Class("small payload in OPT", "less than 512 means 512 (RFC 6891 6.2.3); Knot has FORMERR for "
          "some of these",
          "knot", "rcode edns",
          lambda asked, ours, theirs: theirs.rcode == FORMERR and asked.payload < 512),
    Class("OPT that is wrong", "lbdns has FORMERR for two OPT, or one at a name (RFC 6891 6.1); "
          "others may not look",
          "nsd knot", "rcode edns ra rd ad cd",
          lambda asked, ours, theirs: (ours.rcode == FORMERR
                                       and asked.why.startswith("an OPT that is not alone"))),
    Class("limits of a query", "lbdns reads 16 records, 16 options and 1,024 octets of names, and "
          "has FORMERR for more; others have no such limits",
          "nsd knot", "rcode edns",
          lambda asked, ours, theirs: (ours.rcode == FORMERR
                                       and LIMITS.search(asked.why) is not None)),
    Class("BADCOOKIE", "Knot has clients show that they have its cookie, now and then; lbdns "
          "answers (RFC 7873 5.2.3)",
          "knot", "rcode",
          lambda asked, ours, theirs: theirs.rcode == BADCOOKIE)]


def explain(peer, asked, ours, theirs):
    """The class of a difference; "" = there is no difference, None = it is not in the list."""
    fields = differing(ours, theirs)
    if not fields:
        return ""
    for each in CLASSES:
        if (peer in each.peers and fields <= set(each.fields.split())
                and each.when(asked, ours, theirs)):
            return each
    return None


# ---- 3. Asking -----------------------------------------------------------------------------------

def make_query(name, rtype, opt=b"", flags=0x100):
    """The octets of a query; names are relative to the zone, types are text."""
    owner = wire.parse_name(name, wire.parse_name("example.com."))
    return targets.ask(owner, wire.parse_type(rtype), 0, flags, opt)


def good_queries():
    """Queries for all names and types; others differ in flags and options."""
    make_opt = targets.make_opt
    found = [make_query(name, kind, opt) for name in NAMES for kind in KINDS
             for opt in (b"", make_opt(), make_opt(payload=512, ttl=0x8000))]
    options = (wire.NSID, b""), (wire.COOKIE, b"abcdefgh"), (65001, b""), (
        wire.ECS, b"\0\1\x18\0\xcb\0\x71")
    found += [make_query(name, "A", make_opt([each], payload))
              for name in ("www", "nope", "sub", "big")
              for each in options for payload in (0, 512, 4096, 65535)]
    found += [make_query(name, "A", opt, flags)
              for name in ("www", "nope", "x.sub", "example.net.", ".")
              for opt in (b"", make_opt()) for flags in range(0, 0x800, 16)]
    found += [make_query(name, kind) for name in ("example.net.", "com.", ".", "wexample.com.")
              for kind in KINDS]
    found += [make_query("www", f"TYPE{number}", opt) for number in (
        *range(300), 32768, 32769, 65535) for opt in (b"", make_opt())]
    return found


def ask_udp(port, packets):
    """The reply to each packet, None for silence. Where there was silence, they are asked again, as
    long as that brings replies: NSD makes at most 100 errors a second in each of its processes, of
    which one gets all that comes from a socket."""
    replies, known = [None] * len(packets), -1
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(SOCKETS)]
        for sock in socks:
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", port))
        while replies.count(None) and len(replies) - replies.count(None) > known:
            if known >= 0:
                time.sleep(1)
            known = len(replies) - replies.count(None)
            silent = [at for at, reply in enumerate(replies) if reply is None]
            for start in range(0, len(silent), BATCH):
                places = silent[start:start + BATCH]
                ask_batch(socks[start // BATCH % SOCKETS], places, packets, replies)
    return replies


def ask_batch(sock, places, packets, replies):
    """Ask the packets at some places, each with its place as its id. What reads a socket answers in
    order, so the reply to the query behind all of them comes last."""
    for at in places:
        packet = packets[at]
        sock.send(struct.pack("!H", at) + packet[2:] if len(packet) > 1 else packet)
    sock.send(MARK + make_query("mark", "TXT")[2:])
    reply = sock.recv(65535)
    while reply[:2] != MARK:
        replies[int.from_bytes(reply[:2], "big")] = reply
        reply = sock.recv(65535)


def ask_tcp(port, packets):
    """The reply to each of some good queries, over one connection."""
    found = []
    with (socket.create_connection(("127.0.0.1", port), PATIENCE) as sock,
          sock.makefile("rb") as file):
        for packet in packets:
            sock.sendall(len(packet).to_bytes(2, "big") + packet)
            found.append(file.read(int.from_bytes(file.read(2), "big")) or None)
    return found


def start(options, folder):
    """Start the three servers: by name."""
    cores, _ = split_cores()
    lbdns = [options.python, options.lbdns.resolve(), "{folder}/lbdns.toml"]
    many = NSD.replace("server-count: 1", "server-count: 16\n    reuseport: yes")
    servers = {"lbdns": (lbdns, {"lbdns.toml": CONFIG}),
               "nsd": (["nsd", "-d", "-c", "{folder}/config"], {"config": many}),
               "knot": (["knotd", "-c", "{folder}/config"], {"config": KNOT})}
    return {name: Server(name, words, {**files, "zone": ZONE}, folder, cores)
            for name, (words, files) in servers.items()}


# ---- 4. The command line -------------------------------------------------------------------------

def compare(servers, packets, ask, table, odd):
    """Count the differences in `table`, by (class, peer), and gather those that are in no class."""
    replies = {name: ask(server.port, packets) for name, server in servers.items()}
    for at, packet in enumerate(packets):
        ours, asked = read_reply(replies["lbdns"][at]), read_packet(packet)
        for peer in ("nsd", "knot"):
            theirs = read_reply(replies[peer][at])
            found = explain(peer, asked, ours, theirs)
            if found is None:
                odd.append((peer, packet, ours, theirs))
            elif found:
                table[found, peer] += 1


def show_odd(odd, most):
    """Print differences that no class explains, one of each kind."""
    kinds = collections.defaultdict(list)
    for peer, packet, ours, theirs in odd:
        fields = differing(ours, theirs)
        kinds[peer, fields, ours.rcode, theirs.rcode].append((packet, ours, theirs))
    for (peer, fields, *_), cases in sorted(kinds.items(), key=lambda item: -len(item[1]))[:most]:
        packet, ours, theirs = min(cases, key=lambda case: len(case[0]))
        print(f"UNKNOWN: {len(cases)} of {peer}, such as --replay {packet.hex()}")
        asked = read_packet(packet)
        print(f"    {asked}")
        for name in sorted(fields):
            print(f"    {name}: lbdns {show(getattr(ours, name))}, "
                  f"{peer} {show(getattr(theirs, name))}")


def show(value):
    """A field as text."""
    if isinstance(value, frozenset):
        return sorted(f"{wire.show_name(owner)} {ttl} {wire.show_type(rtype)} "
                      f"{wire.show_rdata(rtype, rdata):.60}"
                      for owner, rtype, _, ttl, rdata in value)
    return value


def show_table(table, total):
    """Print the classes as a table for README.md."""
    print(f"{total:,} packets\n\n| class | NSD | Knot | why |\n| --- | --- | --- | --- |")
    for each in CLASSES:
        print(f"| {each.name} | {table[each, 'nsd']:,} | {table[each, 'knot']:,} | {each.reason} |")


def main():
    """Run what the command line asks for. Returns the exit code."""
    args = parser(__doc__, rounds=False)
    args.add_argument("--damaged", type=int, default=15000, help="damaged queries (%(default)s)")
    args.add_argument("--odd", type=int, default=5000, help="odd packets (%(default)s)")
    args.add_argument("--seed", type=int, default=1, help="of these two (%(default)s)")
    args.add_argument("--replay", metavar="HEX", help="ask this alone")
    options = args.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    find_lbdns(options)
    for program in ("nsd", "knotd"):
        if not installed(program):
            fail(f"{program} is not installed: apt-get install nsd knot.")
    global targets, wire
    targets = importlib.import_module("fuzz_targets")
    wire = targets.wire
    good, dice, words = good_queries(), random.Random(options.seed), targets.Packets.words
    packets = [*good, *targets.OddPackets(options.seed).make(options.odd),
               *(damage(dice.choice(good), dice, words, good, 1400)
                 for _ in range(options.damaged))]
    table, odd = collections.Counter(), []
    with workspace(options) as folder:
        servers = start(options, folder)
        try:
            if options.replay:
                packets = [bytes.fromhex(options.replay)]
            compare(servers, packets, ask_udp, table, odd)
            if not options.replay:
                compare(servers, good[::3], ask_tcp, table, odd)
        finally:
            for server in servers.values():
                server.stop()
    show_odd(odd, 25)
    show_table(table, len(packets))
    return int(bool(odd))


if __name__ == "__main__":
    sys.exit(main())
