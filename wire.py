"""wire: DNS messages, records and zones, from bytes and text and back (RFC 1034, 1035 and 6891).

No sockets, clocks, files or logging in here: every function can be tested with a literal, and
every function that reads a stranger's bytes returns a value or raises Malformed, nothing else.
Every function that reads an operator's text returns a value or raises BadText.

Read top to bottom:
    1 numbers    each limit with its reason, and the table of types
    2 errors     Malformed for a stranger's bytes, BadText for an operator's text
    3 Reader     the only code that indexes a packet
    4 in         decode_query: what a query says, and the first rule that it breaks
    5 out        Writer: a reply, names compressed, RRsets whole, OPT kept
    6 text       names, types and times; every character is checked before it is converted
    7 rdata      a field for each letter of the table of types: from bytes, and from text
    8 zone text  ZoneText: records, and the problems in the text, each with its line
    9 zones      Zone and find_zone: delegations, referrals, wildcards, empty non-terminals

A stranger's packet reaches 3, 4, 5 and 9, of 6 what shows its name and type in a log, and of 7 the
fields in which the rdata of replies holds names. The rest of 6, 7 and 8 read what operators write:
configs, zones, addresses of backends. wire.py knows pools only as a set of owners: `Zone.owners`,
whose addresses somebody else chooses for each query.

A name is held as `bytes` in wire form without compression, root byte included, in the case it
was written in; its key for comparing is `name.lower()`, which is safe because length bytes are
at most 63 and so never look like letters. Rdata is held in wire form, names in it uncompressed.
A function called `read_` or `take_` works on octets, `parse_` turns text into octets, `show_` back.

Left out on purpose: DNSSEC signing, dynamic update, TSIG, zone transfer, $INCLUDE and $GENERATE.
"""
import binascii
import contextlib
import functools
import ipaddress
import re
import struct
from typing import NamedTuple, TypeVar
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

# ---- 1. Numbers: limits, types, classes, rcodes --------------------------------------------------
# Each limit is the protocol's own, or keeps a stranger's message from costing more than others.
HEADER = 12              # octets before the question: RFC 1035 4.1.1
LABEL_MAX = 63           # octets in a label: RFC 1035 2.3.4
NAME_MAX = 255           # octets in a name with lengths and root: RFC 1035 2.3.4
NAME_HOPS = 16           # pointers followed in one name; real messages need one or two
UDP_PLAIN = 512          # longest UDP reply to a client that sent no OPT: RFC 1035 4.2.1
UDP_EDNS = 1232          # with OPT: 1280 (smallest IPv6 MTU) - 40 - 8, so never fragmented
TCP_MAX = 65535          # the two-octet length in front of a message: RFC 1035 4.2.2
POINTER_MAX = 0x4000     # compression pointers hold 14 bits: RFC 1035 4.1.4
QUERY_RECORDS = 16       # records besides the question that a query may carry; OPT and a few more
QUERY_NAMES = 1024       # what reading a query's names may cost: three of the longest, and more
QUERY_OPTIONS = 16       # options that its OPT may carry; a client has use for three or four
TTL_MAX = 2**31 - 1      # RFC 2181 8
STRING_MAX = 255         # a <character-string>: RFC 1035 3.3

# The types known by name (IANA, "Resource Record (RR) TYPEs"): number, mnemonic, and the fields of
# the rdata, a letter each, which _FIELDS explains. A type with - has no text form here: it is known
# in order to be refused (AXFR, OPT, RRSIG) or read (ANY). Every other type is TYPEn (RFC 3597 5).
_TYPE_TABLE = """
    1 A          a
    2 NS         n
    5 CNAME      n
    6 SOA        nn4tttt
   12 PTR        n
   13 HINFO      cc
   15 MX         2n
   16 TXT        s
   17 RP         nn
   18 AFSDB      2n
   19 X25        c
   21 RT         2n
   26 PX         2nn
   28 AAAA       q
   29 LOC        -
   33 SRV        222n
   35 NAPTR      22cccn
   36 KX         2n
   37 CERT       k2lb
   39 DNAME      -
   41 OPT        -
   43 DS         2l1x
   44 SSHFP      11x
   46 RRSIG      -
   47 NSEC       -
   48 DNSKEY     -
   49 DHCID      b
   50 NSEC3      -
   51 NSEC3PARAM -
   52 TLSA       111x
   53 SMIMEA     111x
   59 CDS        2l1x
   60 CDNSKEY    21lb
   61 OPENPGPKEY b
   64 SVCB       2np
   65 HTTPS      2np
   99 SPF        s
  105 L32        2a
  107 LP         2n
  249 TKEY       -
  250 TSIG       -
  251 IXFR       -
  252 AXFR       -
  253 MAILB      -
  254 MAILA      -
  255 ANY        -
  256 URI        22u
  257 CAA        1gv
"""
_TYPE_ROWS = [line.split() for line in _TYPE_TABLE.strip().splitlines()]
TYPES = {name: int(number) for number, name, _ in _TYPE_ROWS}
TYPE_NAMES = {number: name for name, number in TYPES.items()}
A, NS, CNAME, SOA, PTR, MX, AAAA, OPT, DS = 1, 2, 5, 6, 12, 15, 28, 41, 43
DNAME, TKEY, TSIG, IXFR, AXFR, MAILB, MAILA, ANY = 39, 249, 250, 251, 252, 253, 254, 255
RRSIG, NSEC = 46, 47
CLASS_IN = 1

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
RCODES = dict(enumerate("NOERROR FORMERR SERVFAIL NXDOMAIN NOTIMP REFUSED".split()))
RCODES[BADVERS] = "BADVERS"
SILENT = -1              # in place of an rcode: these bytes are owed no reply

# The second 16 bits of the header (RFC 1035 4.1.1, AD and CD from RFC 4035 3.2):
#     15   14 .. 11   10   9    8    7    6    5    4    3 .. 0
#     QR   OPCODE     AA   TC   RD   RA   Z    AD   CD   RCODE
QR, OPCODE, AA, TC, RD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100
EDNS_DO = 0x8000         # "DNSSEC OK", the only flag of OPT: RFC 3225; copied into the reply
# Options of OPT: RFC 5001, 7871, 7873, 7828, 8914. Others are ignored: RFC 6891 6.1.2.
NSID, ECS, COOKIE, KEEPALIVE, EDE = 3, 8, 10, 11, 15
ECS_BITS = {1: 32, 2: 128}  # address family -> bits of its addresses: RFC 7871 6

ANSWER, AUTHORITY, ADDITIONAL = 0, 1, 2

_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")  # type, class, TTL, rdlength: all of a record but owner and rdata
_U16 = struct.Struct("!H")
_U16_PAIR = struct.Struct("!HH")  # type and class of a question; number and length of an option


# ---- 2. Errors -----------------------------------------------------------------------------------
class Malformed(Exception):
    """The bytes break the protocol: why, at which offset, and the rcode that says so."""
    def __init__(self, why: str, at: int, rcode: int = FORMERR) -> None:
        super().__init__(f"{why} at byte {at}")
        self.rcode = rcode


class BadText(ValueError):
    """An operator's name, rdata or zone text breaks the rules of RFC 1035 5; says how."""


# ---- 3. Reader: the only code that indexes a packet ----------------------------------------------
def plural(count: int, noun: str) -> str:
    """Return a number of things for people: "1 octet", "2 octets"; `noun` is that of one."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


class Reader:
    """A cursor over a stranger's bytes; reading past the end raises Malformed.

    Slices that run off the end are silent in Python, so nothing else reads a packet by slices. A
    reader of rdata ends where the rdata does, while the names in it may point to all that is
    before.
    """
    def __init__(self, wire: bytes, at: int = 0, end: int | None = None) -> None:
        self.wire, self.at = wire, at
        self.end = len(wire) if end is None else end
        self.cost = 0  # octets of the names read so far, and 16 for each pointer in them

    def take(self, count: int) -> bytes:
        """Return the next `count` octets."""
        start, self.at = self.at, self.at + count
        if self.at > self.end:
            raise Malformed(f"{plural(count, 'octet')} wanted, the data ends", start)
        return self.wire[start:self.at]

    def rest(self, least: int = 0) -> bytes:
        """Return all octets that are left; raise Malformed for fewer than `least`."""
        return self.take(max(least, self.end - self.at))

    def u8(self) -> int:
        """Return the next octet as a number."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Return the next two octets as a number, high first."""
        return int.from_bytes(self.take(2))

    def name(self) -> bytes:
        """Return the next name, decompressed, root byte included, case kept (RFC 1035 4.1.4).

        The work is bounded: pointers only lead back, and a name follows at most NAME_HOPS of them.
        """
        wire, end = self.wire, len(self.wire)
        pieces, size, hops, resume = [], 0, 0, -1
        at = begin = floor = self.at
        while True:
            if at >= end:
                raise Malformed("the data ends inside a name", at)
            length = wire[at]
            if length > LABEL_MAX:
                # The other two label types: one was never assigned, RFC 6891 5 retired the other.
                if length < 0xC0:
                    raise Malformed(f"label type 0x{length & 0xC0:02x}", at)
                pieces.append(wire[begin:at])
                self.at, hops = at, hops + 1
                if hops > NAME_HOPS:
                    raise Malformed("too many compression pointers", at)
                target = self.u16() & 0x3FFF
                # Strictly back ("a prior occurance"), so there is no loop: before the name, or
                # before where its last pointer led. The header is no name.
                if not HEADER <= target < floor:
                    raise Malformed(f"a pointer to byte {target}, which is no earlier name", at)
                at = begin = floor = target
                resume = self.at if resume < 0 else resume  # the name ends behind its first pointer
                continue
            at, size = at + 1 + length, size + 1 + length
            if size > NAME_MAX:  # counted as it would be written without compression
                raise Malformed(f"a name longer than {NAME_MAX} octets", at)
            if not length:
                self.at = at if resume < 0 else resume
                self.cost += size + 16 * hops
                return b"".join((*pieces, wire[begin:at]))

    def pairs(self) -> Iterator[tuple[int, bytes]]:
        """Yield what is left as numbers with octets: a number, a length, the octets, and so on.

        The options of OPT and the service parameters of SVCB are written like this.
        """
        while self.at < self.end:
            yield self.u16(), self.take(self.u16())


def _pack_pairs(pairs: Iterable[tuple[int, bytes]]) -> bytes:
    """Return numbers with octets as `Reader.pairs` reads them."""
    return b"".join(_U16_PAIR.pack(number, len(octets)) + octets for number, octets in pairs)


# ---- 4. The way in: one query --------------------------------------------------------------------
class Subnet(NamedTuple):
    """An EDNS client subnet (RFC 7871 6): the network a client sits in, as its resolver tells."""
    family: int       # 1 IPv4, 2 IPv6
    prefix: int       # bits of `address` that are meant
    address: bytes    # as many octets as `prefix` needs, spare bits zero


class Query:
    """One query as far as it could be read; `rcode` is what its first broken rule asks for.

    id         the client's number for it
    flags      the header's second 16 bits
    qname      the name as asked, 0x20 case kept; b"" = no question was read
    key        qname in lower case
    qtype      the type asked for; 0 = no question was read
    question   the question section as received; the reply repeats it
    rcode      NOERROR = nothing is wrong; else `why` says what
    has_opt    whether an OPT was read, so that the reply has to hold one
    payload    octets the client takes over UDP, as it says
    opt_flags  DO and the 15 unassigned ones
    options    the first option of each code
    subnet     the client subnet option, when it names a network
    """
    qname = key = question = b""
    qtype, rcode, why = 0, NOERROR, ""
    has_opt, payload, opt_flags = False, UDP_PLAIN, 0
    subnet: Subnet | None = None

    def __init__(self, ident: int, flags: int) -> None:
        self.id, self.flags = ident, flags
        self.options: dict[int, bytes] = {}

    def limit(self, tcp: bool) -> int:
        """Return how many octets the reply may have.

        RFC 1035 4.2 for TCP; RFC 6891 6.2.3: over UDP less than 512 means 512.
        """
        return TCP_MAX if tcp else min(max(self.payload, UDP_PLAIN), UDP_EDNS)


def decode_query(packet: bytes) -> Query:
    """Read a query: header, question and OPT, nothing more (RFC 1035 4.1, 6891 6.1, 9619).

    What breaks a rule is in `rcode` of the result, beside all that was read before it, so that
    the reply can repeat the question and keep OPT. Malformed, with rcode SILENT, is raised for what
    must not be answered: less than a header (there is no id to answer to), and replies.
    """
    if len(packet) < HEADER:
        raise Malformed("less than a header", len(packet), SILENT)
    ident, flags, questions, *records = _HEADER.unpack_from(packet)
    # An answer to an answer is how two servers start to talk to each other for ever.
    if flags & QR:
        raise Malformed("a reply, not a query", 2, SILENT)
    query = Query(ident, flags)
    try:
        _read_sections(Reader(packet, HEADER), query, questions, records)
    except Malformed as bad:
        query.rcode, query.why = bad.rcode, str(bad)
    # RFC 8906 3.1.4: what follows the header is up to the opcode. So nothing of it is wrong, or
    # repeated; but where it looked like a query's, the reply keeps OPT.
    if flags & OPCODE:
        if query.rcode == FORMERR:  # what was read by then may be anything
            query = Query(ident, flags)
        query.qname = query.key = query.question = b""
        query.qtype, query.rcode, query.why = 0, NOTIMP, f"opcode {flags >> 11 & 15} at byte 2"
    return query  # octets behind the last record are ignored, and never repeated


def _read_sections(reader: Reader, query: Query, questions: int, records: list[int]) -> None:
    """Read the question, and the records behind it as far as they matter."""
    # RFC 9619: one question. RFC 7873 5.4 lets a client with a cookie ask none; that is
    # not supported: such a client learns the cookie with its first answer instead.
    if questions != 1 and (questions or not query.flags & OPCODE):
        raise Malformed(f"{questions} questions", 4)
    qclass = CLASS_IN
    if questions:
        qname = reader.name()  # no pointer can be right here: only the header is before
        query.qtype, qclass = _U16_PAIR.unpack(reader.take(4))
        query.qname, query.key = qname, qname.lower()
        query.question = reader.wire[HEADER:reader.at]
    if any(records):
        _read_records(reader, query, records)
    # Only now, so that these refusals keep OPT: RFC 6891 7.
    if qclass != CLASS_IN:
        raise Malformed(f"class {qclass}", reader.at, REFUSED)
    # OPT and TSIG live in the additional section only; a question for TKEY needs one there.
    if query.qtype in (OPT, TKEY, TSIG):
        raise Malformed(f"type {query.qtype} as a question", reader.at)


def _read_records(reader: Reader, query: Query, records: list[int]) -> None:
    """Step over what follows the question and read OPT (RFC 6891 6.1.1: at most one).

    `records` are their numbers in answer, authority and additional. Others than OPT are skipped
    unread, whatever their type; a query signed with TSIG is answered as if it were not.
    """
    # Caps instead of patience: 5,000 records of a 64 KB message cost as much as one.
    count = sum(records)
    if count > QUERY_RECORDS:
        raise Malformed(f"{count} records in a query", 6)
    for number in range(count):
        start, owner = reader.at, reader.name()
        if reader.cost > QUERY_NAMES:
            raise Malformed(f"names of more than {QUERY_NAMES} octets in a query", start)
        rtype, rclass, ttl, size = _RECORD.unpack(reader.take(_RECORD.size))
        rdata = reader.take(size)
        if rtype != OPT:
            continue
        if query.has_opt or owner != b"\0" or number < count - records[ADDITIONAL]:
            raise Malformed("an OPT that is not alone, at the root, in additional", start)
        # OPT keeps the client's payload size in CLASS, and upper rcode, version, flags in TTL.
        query.has_opt, query.payload, query.opt_flags = True, rclass, ttl & 0xFFFF
        # RFC 6891 6.1.3: only version 0 is known, and how another one's options look is not.
        if ttl >> 16 & 0xFF:
            raise Malformed(f"EDNS version {ttl >> 16 & 0xFF}", start, BADVERS)
        if size:
            _read_options(Reader(rdata), query)


def _read_options(reader: Reader, query: Query) -> None:
    """Read the options of OPT; of several with one code the first counts (RFC 7873 5.2).

    Only what this server acts on is checked. Offsets in errors count from the first option.
    """
    for count, (code, octets) in enumerate(reader.pairs(), 1):
        if count > QUERY_OPTIONS:
            raise Malformed(f"more than {QUERY_OPTIONS} options", reader.at)
        query.options.setdefault(code, octets)
    cookie = query.options.get(COOKIE)
    # RFC 7873 5.2.2: eight octets of the client's, alone or with 8 to 32 of the server's.
    if cookie is not None and len(cookie) != 8 and not 16 <= len(cookie) <= 40:
        raise Malformed(f"a cookie of {plural(len(cookie), 'octet')}", reader.at)
    if ECS in query.options:
        query.subnet = _read_subnet(Reader(query.options[ECS]))


def _read_subnet(reader: Reader) -> Subnet | None:
    """Read the client subnet option; return None when it names no network (RFC 7871 7.1.2).

    RFC 7871 6: scope is 0 in a query, the address has just the octets its prefix needs, and the
    spare bits of the last one are zero; anything else is FORMERR. So is a family not known here.
    """
    family, prefix, scope = reader.u16(), reader.u8(), reader.u8()
    address = reader.rest()
    size = (prefix + 7) // 8
    spare_bits = int.from_bytes(address) & (1 << size * 8 - prefix) - 1
    known = prefix <= ECS_BITS.get(family, 0)
    if scope or len(address) != size or spare_bits or not known:
        raise Malformed("a client subnet that contradicts itself", 0)
    return Subnet(family, prefix, address) if prefix else None


# ---- 5. The way out: one reply -------------------------------------------------------------------
class RRset(NamedTuple):
    """All records of one owner and type (RFC 2181 5): they travel together or not at all."""
    type: int
    ttl: int                      # seconds
    rdatas: Sequence[bytes]       # wire form, names in them uncompressed


# Types whose rdata holds names that may be compressed (RFC 3597 4: only those of RFC 1035). SRV is
# not among them: RFC 2782.
_COMPRESSED = {NS, CNAME, PTR, MX, SOA}


class Writer:
    """Builds the reply to one query: `add` RRsets section by section, then `finish`.

    An RRset that does not fit is left out whole, and everything after it; then TC is set (RFC 2181
    9: half an RRset is worse than none, for a cache would take it for the whole). Room for OPT is
    set aside first, so that a truncated reply keeps it (RFC 6891 7).

    All that is added comes from the operator (config, sources, policies) and was checked when it
    was read.
    """
    def __init__(self, query: Query, limit: int, options: Iterable[tuple[int, bytes]] = ()) -> None:
        self.query, self.out = query, bytearray(HEADER) + query.question
        self.opt = b""        # the options that the reply's OPT holds
        self.room = limit     # octets for everything but OPT
        if query.has_opt:
            self.opt = _pack_pairs(options)
            self.room -= 1 + _RECORD.size + len(self.opt)
        self.counts = [0, 0, 0]              # records in answer, authority and additional
        self.truncated = False               # whether something was left out
        self.offsets: dict[bytes, int] = {}  # lower-cased name -> where a pointer may lead

    def add(self, section: int, owner: bytes, rrset: RRset) -> None:
        """Append an RRset, or mark the reply truncated and append nothing from here on."""
        if self.truncated:
            return
        start = len(self.out)  # where to cut back to; names noted behind it are never used again
        for rdata in rrset.rdatas:
            self._name(owner)
            self.out += _RECORD.pack(rrset.type, CLASS_IN, rrset.ttl, 0)
            mark = len(self.out)
            self._rdata(rrset.type, rdata)
            self.out[mark - 2:mark] = _U16.pack(len(self.out) - mark)
            if len(self.out) > self.room:
                self.truncated = True
                del self.out[start:]
                return
        self.counts[section] += len(rrset.rdatas)

    def finish(self, rcode: int = NOERROR, authoritative: bool = False) -> bytes:
        """Return the message, its header and OPT filled in (RFC 1035 4.1.1, RFC 6840 5.8).

        RD is copied for opcode 0, which gives it a meaning; RA, Z, AD and CD are clear. The opcode
        is copied too, so that NOTIMP says what is not implemented. BADVERS needs the eight upper
        bits of the rcode, which only OPT has room for (RFC 6891 6.1.3).
        """
        query, out = self.query, self.out
        # RFC 6891 6.1.1: OPT only in reply to OPT. 6.1.2: root, type, our size, upper rcode,
        # version 0 (the one spoken here, which tells a client that asked in another), flags.
        if query.has_opt:
            upper = rcode >> 4 << 24 | query.opt_flags & EDNS_DO
            out += b"\0" + _RECORD.pack(OPT, UDP_EDNS, upper, len(self.opt)) + self.opt
            self.counts[ADDITIONAL] += 1
        flags = QR | rcode & 15 | query.flags & (OPCODE if query.flags & OPCODE else RD)
        if authoritative:
            flags |= AA
        if self.truncated:
            flags |= TC
        _HEADER.pack_into(out, 0, query.id, flags, bool(query.question), *self.counts)
        return bytes(out)

    def _rdata(self, rtype: int, rdata: bytes) -> None:
        """Write rdata, its names compressed where every client has to cope with that."""
        if rtype not in _COMPRESSED:
            self.out += rdata
            return
        reader = Reader(rdata)
        for field in _FORMATS[rtype]:
            octets = field.take(reader)
            if field is _FIELDS["n"]:
                self._name(octets)
            else:
                self.out += octets

    def _name(self, name: bytes) -> None:
        """Write a name, its longest suffix that stands earlier as a pointer (RFC 1035 4.1.4).

        Names are compared without case but written as they are, so a pointer may lead to other
        case: RFC 4343 4.1 lets a server do that.
        """
        query, out, offsets = self.query, self.out, self.offsets
        if name == query.qname and query.question and not offsets:
            out += b"\xc0\x0c"  # the common owner: the name in the question, at HEADER
            return
        key, start, at = name.lower(), len(out), 0
        if query.question and not offsets:
            # Only now the name asked for is noted, since most replies hold no other name. Where it
            # is below this one, its first labels are left out: few replies could point there.
            below = len(query.key) - len(key) if key in suffixes(query.key) else 0
            self._note(query.key[below:], HEADER + below)
            offsets[b"\0"] = HEADER  # never used; says that this is done
        while name[at] and key[at:] not in offsets:
            at += 1 + name[at]
        out += name[:at]
        out += _U16.pack(0xC000 | offsets[key[at:]]) if name[at] else b"\0"
        self._note(key, start, at)

    def _note(self, key: bytes, offset: int, end: int = NAME_MAX) -> None:
        """Remember where the suffixes of a name just written stand, while a pointer can say it."""
        at = 0
        while at < end and key[at] and offset + at < POINTER_MAX:
            self.offsets.setdefault(key[at:], offset + at)
            at += 1 + key[at]


def suffixes(name: bytes) -> list[bytes]:
    """Return a name and its ancestors: of c.b.a. these are c.b.a., b.a., a. and the root."""
    found, at = [], 0
    while name[at]:
        found.append(name[at:])
        at += 1 + name[at]
    return found + [b"\0"]


# ---- 6. Names, types and times as text (RFC 1035 5.1) --------------------------------------------
# No int(), \d, isdigit() or upper() here without a check before it: they take 1_0, other scripts'
# digits and letters, and numbers of any length.

# How each octet of a label is shown. Quotes, blanks, <, & and the like are all among the \DDD, so
# that a name can stand in a log line, a page or a zone without being looked at again.
_SHOWN = [chr(b) if chr(b).isalnum() and b < 128 or b in b"-_*" else f"\\{b:03d}"
          for b in range(256)]
_SHOWN[ord(".")] = "\\."
_ESCAPE = re.compile(rb'\\([0-9]{3})|\\([^0-9])|([^\\"])|.', re.S)  # \DDD, \X, X, a mistake


def _octets(text: str) -> Iterator[tuple[int, bool]]:
    r"""Yield the octets of a word, each with "was escaped": \DDD is a number, \X is X itself.

    Text outside ASCII counts as UTF-8. A quote must be escaped: unquote has taken off the outer
    ones, so one that is left means that the word is not what its author thinks it is.
    """
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair: no file holds it, but a str can
        raise BadText(f"{text!r} cannot be written as UTF-8") from None
    for match in _ESCAPE.finditer(data):
        kind = match.lastindex or 0
        octet = int(match.group(1)) if kind == 1 else match.group(kind)[0]
        if kind == 0 or octet > 255:
            raise BadText(rf'{text!r}: a " inside a word is written as \", and after \ comes a '
                          "character, or three digits up to 255")
        yield octet, kind < 3


def parse_name(text: str, origin: bytes = b"\0") -> bytes:
    r"""Return a name from text, \DDD and \X understood; `origin` completes one without final dot.

    "@" is the origin itself, which is the root unless given. BadText is raised for empty or long
    labels, long names, blanks, and letters outside ASCII (which DNS carries in their xn-- form);
    what is escaped may be any octet (RFC 2181 11).
    """
    if text in ("@", "."):
        return origin if text == "@" else b"\0"
    labels = [bytearray()]
    for octet, escaped in _octets(text):
        if octet == ord(".") and not escaped:
            labels.append(bytearray())
        elif escaped or 32 < octet < 127:
            labels[-1].append(octet)
        else:
            raise BadText(rf"{text!r}: write a blank as \032, letters outside ASCII as xn--")
    if not labels[-1] and len(labels) > 1:  # a dot ends it: complete as it is
        del labels[-1]
        origin = b"\0"
    if not all(0 < len(label) <= LABEL_MAX for label in labels):
        raise BadText(f"{text!r}: a label has 1 to {LABEL_MAX} octets")
    name = b"".join(map(_counted, labels)) + origin
    if len(name) > NAME_MAX:
        raise BadText(f"{text!r}: longer than {NAME_MAX} octets")
    return name


def show_name(name: bytes) -> str:
    r"""Return a name as text with its final dot; what is no letter, digit, -, _ or * is \DDD.

    The text is safe to print: no byte of a stranger reaches a terminal, log or page as anything
    else.
    """
    text = ""
    for suffix in suffixes(name)[:-1]:
        label = suffix[1:1 + suffix[0]]
        text += "".join([_SHOWN[octet] for octet in label]) + "."
    return text or "."


def _upper(text: str) -> str:
    """Return text in upper case; text with letters outside ASCII remains as it is."""
    return text.upper() if text.isascii() else text


def _parse_number(text: str, most: int, names: Mapping[str, int] = {}) -> int:
    """Return a whole number from 0 to `most` from plain digits, or from its name in any case.

    Signs, blanks, underscores and points are refused. Ten digits hold every number of DNS; a text
    of thousands is refused before it is converted.
    """
    upper = _upper(text)
    if upper in names:
        return names[upper]
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > most:
        raise BadText(" nor ".join((f"{text!r} is no number from 0 to {most}", *names)))
    return int(text)


def parse_type(text: str) -> int:
    """Return a type's number from its mnemonic or TYPEn (RFC 3597 5); raise BadText for others."""
    upper = _upper(text)
    if upper in TYPES:
        return TYPES[upper]
    if not re.fullmatch("TYPE[0-9]+", upper):
        raise BadText(f"{text!r} is no record type known here; for other data write TYPEn "
                      r"\# length hex")
    return _parse_number(upper[4:], 0xFFFF)


def show_type(number: int) -> str:
    """Return a type's mnemonic, else TYPEn (RFC 3597 5)."""
    return TYPE_NAMES.get(number, f"TYPE{number}")


# A number without unit can stand last only, so that there is one way to read a text: else a long
# run of digits could be cut in so many ways that a mistake in it takes for ever to find.
_TTL = re.compile("(?:[0-9]{1,10}[smhdw])*(?:[0-9]{1,10})?")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_ttl(text: str, most: int = TTL_MAX) -> int:
    """Return seconds, `most` at most, from digits or digits with units: "3600", "1h30m", "1W".

    RFC 2181 8: a TTL has 31 bits. The times of SOA have 32: RFC 1035 3.3.13.
    """
    lower = text.lower()
    if not lower or not _TTL.fullmatch(lower):
        raise BadText(f"{text!r} is no time; write seconds, or 1h30m")
    seconds = 0
    for number, unit in re.findall("([0-9]+)([smhdw]?)", lower):
        seconds += int(number) * _UNITS[unit]
    if seconds > most:
        raise BadText(f"{text!r} is more than {most} seconds")
    return seconds


# ---- 7. Rdata: one table for wire and text -------------------------------------------------------
# A type is a row of fields; a field knows how to take its octets from a message (decompressing),
# and how to make them from words of zone text. What is right is decided in one direction only:
# octets made from text are taken again as if they had come from a message.

def _next(words: list[str], what: str) -> str:
    """Take the next word off a record and return it; raise BadText when there is none."""
    if not words:
        raise BadText(f"{what} is missing")
    return words.pop(0)


def _joined(words: list[str]) -> str:
    """Take off all words that are left and return them as one; hex and base64 may be grouped."""
    text = "".join(words)
    words.clear()
    return text


class Field(NamedTuple):
    """One field of rdata: how its octets are read from a message, and from text, and shown."""
    take: Callable[[Reader], bytes]             # from a reader that ends where the rdata does
    parse: Callable[[list[str], bytes], bytes]  # from words, taken off the front, and the origin
    show: Callable[[bytes], str] | None = None  # as text; None = there is none, see `show_rdata`


def _numbers(table: str) -> dict[str, int]:
    """Return the numbers in a table by their names, which follow each of them on its line."""
    rows = map(str.split, table.strip().splitlines())
    return {name: int(number) for number, *names in rows for name in names}


# Algorithms that sign zones as RFC 4034 A.1 and IANA's list name them, and as BIND does.
_ALGORITHMS = _numbers("""
    1 RSAMD5
    3 DSA
    5 RSASHA1
    6 DSA-NSEC3-SHA1      NSEC3DSA
    7 RSASHA1-NSEC3-SHA1  NSEC3RSASHA1
    8 RSASHA256
   10 RSASHA512
   12 ECC-GOST            ECCGOST
   13 ECDSAP256SHA256
   14 ECDSAP384SHA384
   15 ED25519
   16 ED448
  253 PRIVATEDNS
  254 PRIVATEOID
""")
_CERTIFICATES = _numbers("""
    1 PKIX
    2 SPKI
    3 PGP
    4 IPKIX
    5 ISPKI
    6 IPGP
    7 ACPKIX
    8 IACPKIX
  253 URI
  254 OID
""")  # RFC 4398 2.1


def _number(size: int, parse: Callable[[str, int], int] = _parse_number) -> Field:
    """Return the field of a number that has `size` octets."""
    most = 256**size - 1
    return Field(
        lambda reader: reader.take(size),
        lambda words, _: parse(_next(words, "a number"), most).to_bytes(size),
        lambda octets: str(int.from_bytes(octets)))


_Family = type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]


def _address(family: _Family, size: int) -> Field:
    """Return the field of an IPv4 or IPv6 address, which has `size` octets."""
    return Field(
        lambda reader: reader.take(size),
        lambda words, _: _parse_address(family, _next(words, "an address")),
        lambda octets: str(family(octets)))


def _parse_address(family: _Family, text: str) -> bytes:
    """Return an address from text; refuse fe80::1%eth0, as no record carries what follows %."""
    if "%" in text:
        raise BadText(f"{text!r}: an address in DNS has no zone")
    return family(text).packed


def unquote(word: str) -> bytes:
    """Return the octets of a word of zone text, quotes and escapes resolved.

    Quotes count as a pair only: a word that has one of them is refused, not guessed at.
    """
    if len(word) > 1 and word[0] == word[-1] == '"':
        word = word[1:-1]
    return bytes(octet for octet, _ in _octets(word))


def _split_strings(octets: bytes) -> list[bytes]:
    """Return what stands in a row of <character-string>s, lengths dropped (RFC 1035 3.3)."""
    reader, found = Reader(octets), []
    while reader.at < reader.end:
        found.append(reader.take(reader.u8()))
    return found


def _show_strings(octets: bytes) -> str:
    r"""Return <character-string>s in quotes; what is no ASCII, a quote or a backslash is \DDD."""
    strings = ["".join([chr(octet) if 31 < octet < 127 and octet not in b'"\\' else f"\\{octet:03d}"
                        for octet in each]) for each in _split_strings(octets)]
    return '"' + '" "'.join(strings) + '"'


def _take_some(reader: Reader) -> bytes:
    """Take what is left of the rdata, one octet at least."""
    return reader.rest(1)


def _take_strings(reader: Reader) -> bytes:
    """Take strings up to the end of the rdata, one at least (RFC 1035 3.3.14)."""
    octets = _take_some(reader)
    _split_strings(octets)  # raises where they do not end together
    return octets


def _counted(octets: bytes | bytearray) -> bytes:
    """Return octets with their number in front, as a <character-string>; raise BadText if long."""
    if len(octets) > STRING_MAX:
        raise BadText(f"a string of {len(octets)} octets: write several of up to {STRING_MAX}")
    return bytes([len(octets)]) + octets


def _take_string(reader: Reader) -> bytes:
    """Take one <character-string>, its length included."""
    return _counted(reader.take(reader.u8()))


def _parse_string(words: list[str], origin: bytes) -> bytes:
    """Read one word as a <character-string>."""
    return _counted(unquote(_next(words, "a string")))


def _parse_strings(words: list[str], origin: bytes) -> bytes:
    """Read all words that are left as <character-string>s, one at least."""
    octets = _parse_string(words, origin)
    while words:
        octets += _parse_string(words, origin)
    return octets


def _take_tag(reader: Reader) -> bytes:
    """Take the property of a CAA record: ASCII letters and digits, at least one (RFC 8659 4.1)."""
    tag = _take_string(reader)
    if not tag[1:].isalnum():
        raise Malformed("a CAA tag is letters and digits", reader.at)
    return tag


def _parse_base64(text: str) -> bytes:
    """Return octets from base64 (RFC 4648 4)."""
    return binascii.a2b_base64(text, strict_mode=True)


class Param(NamedTuple):
    """The value of a service parameter of SVCB and HTTPS."""
    shape: bytes                     # a regular expression all of the value matches
    parse: Callable[[str], bytes]    # from text without its quotes, escapes still in it


def _hint(family: _Family, size: int) -> Param:
    """Return a parameter that holds addresses of `size` octets."""
    return Param(
        b"(?:.{%d})+" % size,
        lambda text: b"".join(_parse_address(family, each) for each in text.split(",")))


# RFC 9460 A.1: a list inside a string has escapes of its own, so a comma in an item is \\, there.
_ALPN_ITEM = re.compile(rb"(?:[^\\,]|\\[\\,])+")


def _parse_alpn(text: str) -> bytes:
    """Read protocol names between commas."""
    raw = unquote(text)
    items = _ALPN_ITEM.findall(raw)
    if b",".join(items) != raw:
        raise BadText(r"alpn has an empty item, or a backslash before neither \ nor a comma")
    return b"".join(_counted(re.sub(rb"\\(.)", rb"\1", item)) for item in items)


def _parse_keys(text: str) -> bytes:
    """Read the names of parameters between commas, and sort them by number (RFC 9460 8)."""
    numbers = sorted(_svc_number(key) for key in text.split(","))
    return b"".join(_U16.pack(number) for number in numbers)


# In the order of their numbers (RFC 9460 14.3.2). Lists hold an item at least: RFC 9460 7 and 8.
# Numbers, keys and addresses have no escapes in them (7.2, 7.3 and 8), so none are resolved.
_PARAMS = {
    "mandatory": Param(b"(?:..)+", _parse_keys),
    "alpn": Param(b".+", _parse_alpn),
    "no-default-alpn": Param(b"", unquote),
    "port": Param(b"..", lambda text: _U16.pack(_parse_number(text, 0xFFFF))),
    "ipv4hint": _hint(ipaddress.IPv4Address, 4),
    "ech": Param(b".+", _parse_base64),
    "ipv6hint": _hint(ipaddress.IPv6Address, 16),
    # RFC 9461 5: a path, as a template with a variable "dns". RFC 9540 4: a flag.
    "dohpath": Param(rb"/.*\{[^{}]*dns.*", unquote),
    "ohttp": Param(b"", unquote)}


def _svc_number(key: str) -> int:
    """Return a service parameter's number; keyN works for all but the one reserved as invalid."""
    if key in _PARAMS:
        return list(_PARAMS).index(key)
    if not re.fullmatch("key(?:0|[1-9][0-9]*)", key):
        raise BadText(f"{key!r} is no service parameter; known: {', '.join(_PARAMS)}, keyN")
    return _parse_number(key[3:], 65534)


def _parse_svc(words: list[str], origin: bytes) -> bytes:
    """Read key=value words and write them in the order of their numbers (RFC 9460 2.2).

    RFC 9460 2.1: the value of keyN is what goes over the wire, whether N has a name or not.
    """
    found = []
    while words:
        key, equals, value = words.pop(0).partition("=")
        if equals and not value and words and words[0].startswith('"'):  # key= and "value"
            value = words.pop(0)[1:-1]
        parse = _PARAMS[key].parse if key in _PARAMS else unquote
        found.append((_svc_number(key), parse(value)))
    return _pack_pairs(sorted(found))


def _take_svc(reader: Reader) -> bytes:
    """Take service parameters, in order, each value in its shape (RFC 9460 2.2).

    Clients must reject all records of a name when one breaks these rules, so none is served.
    """
    start, octets = reader.at, reader.rest()
    pairs = list(Reader(octets).pairs())
    found = dict(pairs)
    # The last number is reserved for mistakes: RFC 9460 14.3.2.
    if pairs != sorted(found.items()) or 65535 in found:
        raise Malformed("service parameters out of order, or one twice", start)
    for number, (name, param) in enumerate(_PARAMS.items()):
        if number in found and not re.fullmatch(param.shape, found[number], re.S):
            raise Malformed(f"a wrong value of {name}", start)
    if not all(_split_strings(found.get(1, b""))):
        raise Malformed("an alpn item of no octets", start)
    if 2 in found and 1 not in found:  # RFC 9460 7.1.1
        raise Malformed("no-default-alpn without alpn", start)
    # RFC 9460 8: in order, each once, itself not among them, and all of them present.
    needed = [number for (number,) in _U16.iter_unpack(found.get(0, b""))]
    if needed != sorted(set(needed) & found.keys() - {0}):
        raise Malformed("mandatory names something twice, itself, or what is not there", start)
    return octets


# The letters of _TYPE_TABLE: numbers of 1, 2 and 4 octets, t a time, a and q addresses (q as in
# quad-A), l an algorithm, k a kind of certificate, n a name, c a string, s strings, g a CAA tag, v
# its value, u a URI, x octets in hex, b in base64, p service parameters. Octets in hex or base64
# are digests and keys, so none at all is a mistake.
_FIELDS = {
    "1": _number(1),
    "2": _number(2),
    "4": _number(4),
    "t": _number(4, parse_ttl),
    "a": _address(ipaddress.IPv4Address, 4),
    "q": _address(ipaddress.IPv6Address, 16),
    "n": Field(Reader.name, lambda words, origin: parse_name(_next(words, "a name"), origin),
               show_name),
    "l": _number(1, functools.partial(_parse_number, names=_ALGORITHMS)),
    "k": _number(2, functools.partial(_parse_number, names=_CERTIFICATES)),
    "c": Field(_take_string, _parse_string, _show_strings),
    "s": Field(_take_strings, _parse_strings, _show_strings),
    "g": Field(_take_tag, _parse_string),
    "v": Field(Reader.rest, lambda words, _: unquote(_next(words, "a value"))),
    "u": Field(_take_some, lambda words, _: unquote(_next(words, "a URI"))),
    "x": Field(_take_some, lambda words, _: binascii.unhexlify(_joined(words)), bytes.hex),
    "b": Field(_take_some, lambda words, _: _parse_base64(_joined(words))),
    "p": Field(_take_svc, _parse_svc)}

_FORMATS = {int(number): [_FIELDS[letter] for letter in letters]
            for number, _, letters in _TYPE_ROWS if letters != "-"}
_OPAQUE = [_FIELDS["v"]]  # any octets will do for types that are not known here: RFC 3597 3


def read_rdata(reader: Reader, rtype: int, size: int) -> bytes:
    """Return rdata of `size` octets at the cursor, its names decompressed; all of it is used."""
    start = reader.at
    reader.take(size)
    inner = Reader(reader.wire, start, reader.at)
    rdata = b"".join(field.take(inner) for field in _FORMATS.get(rtype, _OPAQUE))
    if inner.at != inner.end:  # octets are left, or a name ran over the end
        raise Malformed(f"rdata of {show_type(rtype)} is not {plural(size, 'octet')}", start)
    return rdata


def show_rdata(rtype: int, rdata: bytes) -> str:
    r"""Return the text of rdata, in printable ASCII: `\# length hex`, which is right for every type
    (RFC 3597 5), unless all of its fields have a text here."""
    reader = Reader(rdata)
    shown = [field.show and field.show(field.take(reader))
             for field in _FORMATS.get(rtype, _OPAQUE)]
    if all(shown):
        return " ".join(filter(None, shown))
    return rf"\# {len(rdata)} {rdata.hex()}".rstrip()


def rdata_key(rtype: int, rdata: bytes) -> bytes:
    """Return what is equal for good rdata that differs in nothing but the case of names.

    RFC 4343: names are compared without case. RFC 2181 5: no record stands twice in an RRset.
    """
    reader, key = Reader(rdata), b""
    for field in _FORMATS.get(rtype, _OPAQUE):
        octets = field.take(reader)
        key += octets.lower() if field is _FIELDS["n"] else octets
    return key


def address_rdata(address: str) -> tuple[int, bytes]:
    """Return the type and rdata that answer with an address or, as a CNAME, with a host name."""
    for rtype in (A, AAAA):
        with contextlib.suppress(BadText):
            return rtype, parse_rdata(rtype, [address])
    return CNAME, parse_name(address)


def show_address(rtype: int, rdata: bytes) -> str:
    """Return the text of what `address_rdata` returns, in canonical form; names end with a dot."""
    return show_name(rdata) if rtype == CNAME else str(ipaddress.ip_address(rdata))


def parse_rdata(rtype: int, words: Sequence[str], origin: bytes = b"\0") -> bytes:
    r"""Return rdata in wire form from the words of zone text, or raise BadText (RFC 1035 5.1).

    `\# length hex` works for every type (RFC 3597 5).
    """
    left = list(words)
    try:
        if left[:1] == [r"\#"]:
            del left[0]
            size = _parse_number(_next(left, "a length"), TCP_MAX)
            rdata = binascii.unhexlify(_joined(left))
            if size != len(rdata):
                raise BadText(f"length {size} but {plural(len(rdata), 'octet')}")
        elif rtype in _FORMATS:
            rdata = b"".join(field.parse(left, origin) for field in _FORMATS[rtype])
        else:  # zones are not signed here
            raise BadText(r"no text form here; write \# length hex, or leave out what a signer has "
                          "added")
        if left:
            raise BadText(f"{left[0]!r} is one word too many")
        if len(rdata) > TCP_MAX:
            raise BadText(f"{len(rdata)} octets, more than a message holds")
        taken = read_rdata(Reader(rdata), rtype, len(rdata))
    except (Malformed, ValueError) as bad:  # the latter from ipaddress and binascii too
        raise BadText(f"{show_type(rtype)}: {bad}") from None
    if taken != rdata:  # only \# can do that, and there is no message to point into
        raise BadText("a compression pointer in zone text")
    return rdata


# ---- 8. Zones as text (RFC 1035 5) ---------------------------------------------------------------
class Record(NamedTuple):
    """One resource record; `line` is where zone text holds it, 0 elsewhere."""
    owner: bytes
    type: int
    rclass: int
    ttl: int
    rdata: bytes
    line: int = 0


# A quoted string is a word of its own, whatever stands beside it, and may hold the end of a line
# (RFC 1035 5.1). No kind of token can be read in two ways, so reading takes time in proportion to
# the text. What is no blank, quote, parenthesis, semicolon or backslash is as good as a letter.
_TOKEN = re.compile(r"""(?P<word>"(?:[^"\\]|\\.)*"|(?:[^ \t\r\n"();\\]|\\[^\n])+)
    |(?P<other>[()]|;[^\n]*)|(?P<newline>\n)|(?P<space>[ \t\r]+)|.""", re.X | re.S)


def _tokens(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of each token of zone text; raise BadText where none begins."""
    line, long = 1, 0
    for match in _TOKEN.finditer(text):
        kind, piece = match.lastgroup, match.group()
        if kind is None:
            says = r"a \ with nothing behind it" if piece == "\\" else 'a " without its other end'
            if long:
                says += f"; the string that begins on line {long} goes on over the end of that line"
            raise BadText(f"line {line}: {says}")
        yield line, kind, piece
        if kind == "word" and "\n" in piece:
            long = long or line
        line += piece.count("\n")


def split_zone(text: str) -> Iterator[tuple[int, bool, list[str]]]:
    """Yield the entries of zone text, comments dropped and parentheses joined; raise BadText.

    An entry is its first line's number, whether it began with a blank, and its words.
    """
    depth, first, blank = 0, 1, False
    words: list[str] = []
    for line, kind, piece in _tokens(text + "\n"):
        if kind == "word":
            words.append(piece)
        blank = blank or kind == "space" and not words and not depth
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if depth not in (0, 1):
            raise BadText(f"line {line}: parentheses do not match")
        if kind == "newline" and not depth:
            yield first, blank, words
            first, blank, words = line + 1, False, []
    if depth:
        raise BadText(f"line {first}: a parenthesis that is never closed")


class ZoneText:
    """The records of zone text, and the problems in it, each with its line.

    `origin` completes relative names; `ttl` (seconds) is for records without one before $TTL.
    A quote or parenthesis without its other end stops the reading: nobody can say what the text
    behind it was meant to be.
    """
    def __init__(self, text: str, origin: bytes, ttl: int) -> None:
        self.origin, self.ttl, self.owner = origin, ttl, origin
        self.records: list[Record] = []
        self.problems: list[str] = []
        try:
            for line, blank, words in split_zone(text):
                self._entry(line, blank, words)
        except BadText as bad:
            self.problems.append(str(bad))

    def _entry(self, line: int, blank: bool, words: list[str]) -> None:
        """Read one directive or record, or nothing at all; a mistake in it ends with it.

        An entry that begins with a blank belongs to the owner before it (RFC 1035 5.1).
        """
        try:
            if words and words[0].startswith("$"):
                self._directive(words)
            elif words:
                self.owner = self.owner if blank else parse_name(words.pop(0), self.origin)
                self.records.append(self._record(words, line))
        except BadText as bad:  # octets that are no UTF-8 are shown as \xNN
            self.problems.append(f"line {line}: {bad}".replace(r"\udc", r"\x"))

    def _directive(self, words: list[str]) -> None:
        """Obey $ORIGIN name or $TTL time (RFC 1035 5.1, RFC 2308 4)."""
        name, whole = _upper(words[0]), len(words) == 2
        if whole and name == "$ORIGIN":
            self.origin = parse_name(words[1], self.origin)
        elif whole and name == "$TTL":
            self.ttl = parse_ttl(words[1])
        else:  # $INCLUDE would read files, $GENERATE fill the memory
            raise BadText(f"{words[0]!r}: only $ORIGIN name and $TTL time are supported; write out "
                          "what others would add")

    def _record(self, words: list[str], line: int) -> Record:
        """Read [TTL] [class] type rdata, TTL and class in either order (RFC 1035 5.1).

        No type begins with a digit, so a word that does is a TTL.
        """
        ttl, classed = self.ttl, _take_class(words)
        if words and words[0][0].isdigit():
            ttl = parse_ttl(words.pop(0))
        if not classed:
            _take_class(words)
        rtype = parse_type(_next(words, "a type"))
        if rtype in (0, OPT) or 128 <= rtype <= 255:  # RFC 6895 3.1: meta types
            raise BadText(f"{show_type(rtype)} cannot stand in a zone, for it is no data")
        if rtype == DNAME:  # it means more than its rdata
            raise BadText("DNAME cannot stand in a zone here; write a CNAME for each name below "
                          "the owner, or one at * below it")
        rdata = parse_rdata(rtype, words, self.origin)
        return Record(self.owner, rtype, CLASS_IN, ttl, rdata, line)


def _take_class(words: list[str]) -> bool:
    """Take the class IN off and return whether it was there; raise BadText for other classes."""
    word = _upper(words[0]) if words else ""
    if word in ("IN", "CLASS1"):  # RFC 3597 5
        words.pop(0)
        return True
    if word in ("CS", "CH", "HS") or word.startswith("CLASS"):
        raise BadText(f"class {word!r}: only IN is served")
    return False


# ---- 9. Zones: which data answers a name (RFC 1034 4.3.2) ----------------------------------------
# What is called `names` here is a name in lower case and its ancestors, as `suffixes` returns them.
GlueChooser = Callable[[bytes, int], RRset | None]  # (owner, type) -> its RRset, if it has one


class Zone:
    """The data of one zone, ready to answer from once `finish` has run.

    All names are in lower case, but for those in rdata.

    apex       the name that the zone begins at
    nodes      owner -> type -> RRset, of every name that exists; {} = a name without records here:
               an empty non-terminal, one of `owners`, or the apex of a zone further down
    owners     names whose A, AAAA or CNAME records somebody else chooses for each query
    cuts       names that are delegated: they have NS records and are not the apex
    negative   the SOA with the TTL that negative answers have
    """
    def __init__(self, apex: bytes) -> None:
        self.apex = apex
        self.nodes: dict[bytes, dict[int, RRset]] = {}
        self.owners: set[bytes] = set()
        self.cuts: set[bytes] = set()
        self.negative = RRset(SOA, 0, ())
        self._seen: set[tuple[bytes, int, bytes]] = set()  # while records are added

    def add(self, record: Record) -> None:
        """Put a record into its RRset, of which the smallest TTL counts (RFC 2181 5.2).

        A record that is there already adds nothing but its TTL. Raises BadText where the record
        cannot stand.
        """
        owner, rtype = record.owner.lower(), record.type
        if self.apex not in suffixes(owner):
            raise BadText(f"{show_name(owner)} is outside the zone")
        if rtype == SOA and owner != self.apex:
            raise BadText("a SOA stands at the apex only")
        node = self.nodes.setdefault(owner, {})
        old = node.get(rtype, RRset(rtype, record.ttl, ()))
        rdatas = old.rdatas
        key = owner, rtype, rdata_key(rtype, record.rdata)
        if key not in self._seen:
            rdatas = (*rdatas, record.rdata)
        if rtype in (CNAME, SOA) and len(rdatas) > 1:
            raise BadText(f"a second {show_type(rtype)} of {show_name(owner)}")
        self._seen.add(key)
        node[rtype] = RRset(rtype, min(record.ttl, old.ttl), rdatas)

    def add_name(self, owner: bytes) -> None:
        """Let a name of the zone exist, and every name between it and the apex.

        Those without records are empty non-terminals (RFC 4592 2.2.2).
        """
        names = suffixes(owner)
        for name in names[:names.index(self.apex)]:
            self.nodes.setdefault(name, {})

    def finish(self) -> None:
        """Set what follows from all records together; call it once, when they are all there.

        One of them is the SOA.
        """
        soa = self.nodes[self.apex][SOA]
        # Of its TTL and its last field the smaller one is that of negative answers: RFC 2308 3.
        minimum = int.from_bytes(soa.rdatas[0][-4:])
        self.negative = soa._replace(ttl=min(soa.ttl, minimum))
        with_servers = {owner for owner, node in self.nodes.items() if NS in node}
        self.cuts = with_servers - {self.apex}
        self._seen.clear()
        for owner in list(self.nodes):
            self.add_name(owner)

    def find_cut(self, names: Sequence[bytes], qtype: int) -> bytes | None:
        """Return the delegation that a name is at or below, the one nearest the apex, else None.

        DS at a delegation is not delegated: the parent answers it (RFC 4035 3.1.4.1).
        """
        if not self.cuts:
            return None
        cuts = [each for each in names if each in self.cuts]
        if not cuts or qtype == DS and cuts[-1] == names[0]:
            return None
        return cuts[-1]

    def find_owner(self, names: Sequence[bytes]) -> bytes:
        """Return the owner whose data answers a name that is not delegated.

        That is the name itself where it exists, else the wildcard at its closest encloser. Where
        that does not exist either, the name does not (RFC 4592 3.3.1).
        """
        if names[0] in self.nodes:
            return names[0]
        encloser = next(each for each in names if each in self.nodes)
        return b"\x01*" + encloser

    def refer(self, cut: bytes, choose: GlueChooser) -> Iterator[tuple[int, bytes, RRset]]:
        """Yield section, owner and RRset of each part of a referral to a delegation.

        The parts are its NS records and the addresses of its name servers, as far as they are known
        here (RFC 1034 4.3.2 3b, RFC 9471). `choose` is asked for those of `owners`.
        """
        servers = self.nodes[cut][NS]
        yield AUTHORITY, cut, servers
        for server in servers.rdatas:
            owner = server.lower()
            node = self.nodes.get(owner, {})
            for rtype in (A, AAAA):
                glue = node.get(rtype)
                if glue is None and owner in self.owners:
                    glue = choose(owner, rtype)
                if glue is not None and glue.type == rtype:  # `choose` may return a CNAME
                    yield ADDITIONAL, server, glue


ZoneKind = TypeVar("ZoneKind", bound=Zone)  # Zone, or a class of the caller's that adds to it


def find_zone(names: Sequence[bytes], qtype: int,
              zones: Mapping[bytes, ZoneKind]) -> ZoneKind | None:
    """Return the zone that a name is in: of `zones`, by their apex, the one with the longest.

    DS at an apex belongs to the zone above, if that is here (RFC 4035 3.1.4.1). None = the name is
    in none of the zones.
    """
    found = [zones[each] for each in names if each in zones]
    if len(found) > 1 and qtype == DS and found[0].apex == names[0]:
        return found[1]
    return found[0] if found else None
