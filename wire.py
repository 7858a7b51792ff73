"""wire: DNS messages, names and rdata from bytes and text, and back (RFC 1035, RFC 6891).

No sockets, clocks, files or logging in here: every function can be tested with a literal, and
every function that reads a stranger's bytes returns a value or raises Malformed, nothing else.
Every function that reads an operator's text returns a value or raises BadText.

Read top to bottom: numbers, errors, Reader (the only code that indexes a packet), decode_query
(the way in), Writer (the way out), then names, rdata and zones as text, and decode_message.

A name is held as `bytes` in wire form without compression, root byte included, in the case it
was written in; its key for comparing is `name.lower()`, which is safe because length bytes are
at most 63 and so never look like letters. Rdata is held in wire form, names in it uncompressed.

Left out on purpose: DNSSEC signing, dynamic update, TSIG, zone transfer, $INCLUDE and $GENERATE.
"""
import base64
import binascii
import ipaddress
import re
import struct
from typing import NamedTuple
from collections.abc import Callable, Iterator, Sequence

# ---- 1. Numbers: limits, types, classes, rcodes ------------------------------------------------

HEADER = 12              # octets before the question: RFC 1035 4.1.1
LABEL_MAX = 63           # octets in a label: RFC 1035 2.3.4
NAME_MAX = 255           # octets in a name with lengths and root: RFC 1035 2.3.4
NAME_HOPS = 16           # pointers followed in one name; real messages need one or two
MESSAGE_HOPS = 4096      # pointers followed in one message: bounds the work of a hostile one
UDP_PLAIN = 512          # longest UDP reply to a client that sent no OPT: RFC 1035 4.2.1
UDP_EDNS = 1232          # with OPT: 1280 (smallest IPv6 MTU) - 40 - 8, so never fragmented
TCP_MAX = 65535          # the two-octet length in front of a message: RFC 1035 4.2.2
POINTER_MAX = 0x4000     # compression pointers hold 14 bits: RFC 1035 4.1.4
QUERY_RECORDS = 16       # records besides the question that a query may carry; OPT and a few more
TTL_MAX = 2**31 - 1      # RFC 2181 8
STRING_MAX = 255         # a <character-string>: RFC 1035 3.3

TYPES: dict[str, int] = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33,
    "OPT": 41, "DS": 43, "SSHFP": 44, "TLSA": 52, "SVCB": 64, "HTTPS": 65, "IXFR": 251,
    "AXFR": 252, "MAILB": 253, "MAILA": 254, "ANY": 255, "CAA": 257}
TYPE_NAMES: dict[int, str] = {number: name for name, number in TYPES.items()}
A, NS, CNAME, SOA, PTR, MX, AAAA, OPT, DS = (
    TYPES[name] for name in ("A", "NS", "CNAME", "SOA", "PTR", "MX", "AAAA", "OPT", "DS"))
TKEY, TSIG, IXFR, AXFR, MAILB, MAILA, ANY = 249, 250, 251, 252, 253, 254, 255
CLASS_IN = 1

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
RCODES: dict[int, str] = {
    NOERROR: "NOERROR", FORMERR: "FORMERR", SERVFAIL: "SERVFAIL", NXDOMAIN: "NXDOMAIN",
    NOTIMP: "NOTIMP", REFUSED: "REFUSED", BADVERS: "BADVERS"}
SILENT = -1              # in place of an rcode: these bytes are owed no reply

# The second 16 bits of the header (RFC 1035 4.1.1, AD and CD from RFC 4035 3.2):
#     15   14 .. 11   10   9    8    7    6    5    4    3 .. 0
#     QR   OPCODE     AA   TC   RD   RA   Z    AD   CD   RCODE
QR, AA, TC, RD = 0x8000, 0x0400, 0x0200, 0x0100
EDNS_DO = 0x8000         # "DNSSEC OK", the only flag of OPT: RFC 3225; copied into the reply
NSID, ECS, COOKIE, KEEPALIVE, EDE = 3, 8, 10, 11, 15  # OPT options: RFC 5001, 7871, 7873, 7828, 8914
ECS_BITS = {1: 32, 2: 128}  # address family -> bits of its addresses: RFC 7871 6

ANSWER, AUTHORITY, ADDITIONAL = 0, 1, 2

_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")  # type, class, TTL, rdlength: all of a record but owner and rdata
_U16, _U32 = struct.Struct("!H"), struct.Struct("!I")


# ---- 2. Errors -----------------------------------------------------------------------------------

class Malformed(Exception):
    """The bytes break the protocol: why, at which offset, and the rcode that says so."""

    def __init__(self, why: str, at: int, rcode: int = FORMERR) -> None:
        super().__init__(f"{why} at byte {at}")
        self.why, self.at, self.rcode = why, at, rcode


class BadText(ValueError):
    """An operator's name, rdata or zone text breaks the rules of RFC 1035 5; says how."""


# ---- 3. Reader: the only code that indexes a packet ------------------------------------------------

class Reader:
    """A cursor over a stranger's bytes; reading past the end raises Malformed."""

    __slots__ = ("wire", "at", "hops")

    def __init__(self, wire: bytes, at: int = 0) -> None:
        self.wire, self.at, self.hops = wire, at, 0

    def take(self, count: int) -> bytes:
        """The next `count` octets."""
        start, self.at = self.at, self.at + count
        if self.at > len(self.wire):
            raise Malformed(f"{count} octets wanted, the data ends", start)
        return self.wire[start:self.at]

    def u8(self) -> int:
        """The next octet."""
        return self.take(1)[0]

    def u16(self) -> int:
        """The next two octets, high first."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """The next four octets, high first."""
        return int.from_bytes(self.take(4), "big")

    def name(self) -> bytes:
        """The next name, decompressed, root byte included, case kept (RFC 1035 4.1.4)."""
        labels, size, floor, hops, resume = [], 0, self.at, 0, -1
        while True:
            start, length = self.at, self.u8()
            if length > LABEL_MAX:
                target = self._pointer(length, floor, start)
                hops, self.hops = hops + 1, self.hops + 1
                if hops > NAME_HOPS or self.hops > MESSAGE_HOPS:
                    raise Malformed("too many compression pointers", start)
                resume = self.at if resume < 0 else resume
                self.at = floor = target
                continue
            size += length + 1
            if size > NAME_MAX:
                raise Malformed(f"a name longer than {NAME_MAX} octets", start)
            self.at = start
            labels.append(self.take(length + 1))
            if not length:
                self.at = self.at if resume < 0 else resume
                return b"".join(labels)

    def _pointer(self, length: int, floor: int, start: int) -> int:
        """Where a pointer leads: strictly back ("a prior occurance"), so there is no loop."""
        if length < 0xC0:  # 01 and 10: RFC 6891 5 retired the one ever defined
            raise Malformed(f"label type 0x{length & 0xC0:02x}", start)
        target = (length & 0x3F) << 8 | self.u8()
        if not HEADER <= target < floor:
            raise Malformed(f"a pointer to byte {target}, which is no earlier name", start)
        return target


# ---- 4. The way in: one query ----------------------------------------------------------------------

class Subnet(NamedTuple):
    """An EDNS client subnet (RFC 7871 6): the network a client sits in, as its resolver tells."""

    family: int       # 1 IPv4, 2 IPv6
    prefix: int       # bits of `address` that are meant
    address: bytes    # as many octets as `prefix` needs, spare bits zero


class Query:
    """One query as far as it could be read; `rcode` is what its first broken rule asks for."""

    __slots__ = ("id", "flags", "qname", "key", "qtype", "question", "rcode", "why", "has_opt",
                 "payload", "opt_flags", "options", "subnet")

    def __init__(self, ident: int, flags: int) -> None:
        self.id = ident
        self.flags = flags                     # the header's second 16 bits
        self.qname = self.key = b""            # as asked, and lower-cased; b"" = none was read
        self.qtype = 0
        self.question = b""                    # the question section as received; the reply repeats it
        self.rcode, self.why = NOERROR, ""     # what is wrong with the query, if anything
        self.has_opt = False
        self.payload = UDP_PLAIN               # octets the client takes over UDP
        self.opt_flags = 0                     # DO and the unassigned ones
        self.options: dict[int, bytes] = {}    # the first option of each code
        self.subnet: Subnet | None = None   # the client subnet option, when it names a network

    def limit(self, tcp: bool) -> int:
        """Octets the reply may have: RFC 1035 4.2, RFC 6891 6.2.3 (under 512 means 512)."""
        if tcp:
            return TCP_MAX
        return min(max(self.payload, UDP_PLAIN), UDP_EDNS) if self.has_opt else UDP_PLAIN


def decode_query(packet: bytes) -> Query:
    """Read a query: header, question and OPT, nothing more (RFC 1035 4.1, 6891 6.1, 9619).

    What breaks a rule is in `rcode` of the result, beside all that was read before it, so that
    the reply can repeat the question and keep OPT. Raises Malformed with rcode SILENT for what
    must not be answered: less than a header, and replies (two servers would talk for ever).
    """
    if len(packet) < HEADER:
        raise Malformed("less than a header", len(packet), SILENT)
    ident, flags, questions, answers, authority, additional = _HEADER.unpack_from(packet)
    if flags & QR:
        raise Malformed("a reply, not a query", 2, SILENT)
    query = Query(ident, flags)
    try:
        if flags & 0x7800:  # the format of other opcodes is theirs to say: RFC 8906 3.1.4
            raise Malformed(f"opcode {flags >> 11 & 15}", 2, NOTIMP)
        if questions != 1:  # RFC 9619
            raise Malformed(f"{questions} questions", 4)
        reader = Reader(packet, HEADER)
        _read_question(reader, query)
        if answers or authority or additional:
            _read_records(reader, query, answers + authority, additional)
    except Malformed as bad:
        query.rcode, query.why = bad.rcode, str(bad)
    return query


def _read_question(reader: Reader, query: Query) -> None:
    """QNAME, QTYPE, QCLASS. No pointer can be right here: nothing but the header is before it."""
    qname = reader.name()
    qtype, qclass = reader.u16(), reader.u16()
    query.qname, query.key, query.qtype = qname, qname.lower(), qtype
    query.question = reader.wire[HEADER:reader.at]
    if qclass != CLASS_IN:
        raise Malformed(f"class {qclass}", reader.at - 2, REFUSED)
    if qtype in (OPT, TKEY, TSIG):  # they live in the additional section only
        raise Malformed(f"type {qtype} as a question", reader.at - 4)


def _read_records(reader: Reader, query: Query, before: int, additional: int) -> None:
    """Step over what follows the question and read OPT (RFC 6891 6.1.1: at most one)."""
    if before + additional > QUERY_RECORDS:
        raise Malformed(f"{before + additional} records in a query", 6)
    for number in range(before + additional):
        start, owner = reader.at, reader.name()
        rtype, rclass, ttl, size = _RECORD.unpack(reader.take(_RECORD.size))
        rdata = reader.take(size)
        if rtype != OPT:
            continue
        if query.has_opt or owner != b"\0" or number < before:
            raise Malformed("an OPT that is not alone, at the root, in additional", start)
        query.has_opt, query.payload, query.opt_flags = True, rclass, ttl & 0xFFFF
        if ttl >> 16 & 0xFF:  # RFC 6891 6.1.3; what its options look like is unknown
            raise Malformed(f"EDNS version {ttl >> 16 & 0xFF}", start, BADVERS)
        _read_options(Reader(rdata), query)


def _read_options(reader: Reader, query: Query) -> None:
    """The options of OPT; of several with one code the first counts (RFC 7873 5.2)."""
    while reader.at < len(reader.wire):
        code, size = reader.u16(), reader.u16()
        query.options.setdefault(code, reader.take(size))
    cookie = query.options.get(COOKIE)
    if cookie is not None and len(cookie) != 8 and not 16 <= len(cookie) <= 40:  # RFC 7873 5.2.2
        raise Malformed(f"a cookie of {len(cookie)} octets", reader.at)
    if ECS in query.options:
        query.subnet = _read_subnet(Reader(query.options[ECS]))


def _read_subnet(reader: Reader) -> Subnet | None:
    """The client subnet option; None when it asks for no network (RFC 7871 6 and 7.1.2)."""
    family, prefix, scope = reader.u16(), reader.u8(), reader.u8()
    address = reader.take(len(reader.wire) - reader.at)
    bits = int.from_bytes(address, "big")
    if (scope or len(address) != (prefix + 7) // 8 or prefix > ECS_BITS.get(family, 0)
            or bits & (1 << len(address) * 8 - prefix) - 1):
        raise Malformed("a client subnet that contradicts itself", 0)
    return Subnet(family, prefix, address) if prefix else None


# ---- 5. The way out: one reply ---------------------------------------------------------------------

class RRset(NamedTuple):
    """All records of one owner and type (RFC 2181 5): they travel together or not at all."""

    type: int
    ttl: int                      # seconds
    rdatas: Sequence[bytes]       # wire form, names in them uncompressed


# Rdata that holds names which may be compressed (RFC 3597 4: only types of RFC 1035):
# type -> (octets before the first name, names). SRV is not among them: RFC 2782.
_COMPRESSED: dict[int, tuple[int, int]] = {
    NS: (0, 1), CNAME: (0, 1), PTR: (0, 1), MX: (2, 1), SOA: (0, 2)}


class Writer:
    """Builds the reply to one query: `add` RRsets section by section, then `finish`.

    An RRset that does not fit is left out whole, and everything after it; then TC is set. Room
    for OPT is set aside first, so that a truncated reply keeps it (RFC 6891 7).
    """

    def __init__(self, query: Query, limit: int,
                 options: Sequence[tuple[int, bytes]] = ()) -> None:
        self.query, self.out = query, bytearray(HEADER) + query.question
        self.options = b"".join(_U16.pack(code) + _U16.pack(len(data)) + data
                                for code, data in options) if query.has_opt else b""
        self.room = limit - (11 + len(self.options) if query.has_opt else 0)
        self.counts, self.truncated = [0, 0, 0], False
        self.offsets: dict[bytes, int] = {}  # lower-cased name -> where a pointer may lead

    def add(self, section: int, owner: bytes, rrset: RRset) -> None:
        """Append an RRset, or mark the reply truncated and append nothing from here on."""
        start = len(self.out)
        for rdata in () if self.truncated else rrset.rdatas:
            self._name(owner)
            self.out += _RECORD.pack(rrset.type, CLASS_IN, rrset.ttl, 0)
            mark = len(self.out)
            self._rdata(rrset.type, rdata)
            self.out[mark - 2:mark] = _U16.pack(len(self.out) - mark)
            if len(self.out) > self.room:
                self.truncated = True
                del self.out[start:]
                return
        self.counts[section] += 0 if self.truncated else len(rrset.rdatas)

    def finish(self, rcode: int = NOERROR, authoritative: bool = False) -> bytes:
        """The message: RD copied, RA, Z, AD and CD clear (RFC 1035 4.1.1, RFC 6840 5.7)."""
        query, out = self.query, self.out
        if query.has_opt:  # RFC 6891 6.1.2: root, OPT, our size, upper rcode, version 0, flags
            out += b"\0" + _RECORD.pack(OPT, UDP_EDNS, rcode >> 4 << 24 | query.opt_flags & EDNS_DO,
                                        len(self.options)) + self.options
        flags = QR | query.flags & (0x7800 | RD) | rcode & 15
        flags |= (AA if authoritative else 0) | (TC if self.truncated else 0)
        answers, authority, additional = self.counts
        _HEADER.pack_into(out, 0, query.id, flags, 1 if query.question else 0, answers, authority,
                          additional + query.has_opt)
        return bytes(out)

    def _rdata(self, rtype: int, rdata: bytes) -> None:
        at, names = _COMPRESSED.get(rtype, (0, 0))
        self.out += rdata[:at]
        for _ in range(names):
            end = name_end(rdata, at)
            self._name(rdata[at:end])
            at = end
        self.out += rdata[at:]

    def _name(self, name: bytes) -> None:
        """A name, its longest suffix that stands earlier replaced by a pointer (RFC 1035 4.1.4)."""
        if name == self.query.qname and self.query.question:
            self.out += b"\xc0\x0c"  # the common owner: the name in the question
            return
        if not self.offsets and self.query.question:
            self._note(self.query.key, 0, HEADER)
        key, at = name.lower(), 0
        while name[at] and key[at:] not in self.offsets:
            at += 1 + name[at]
        start = len(self.out)
        self.out += name[:at]
        self.out += _U16.pack(0xC000 | self.offsets[key[at:]]) if name[at] else b"\0"
        self._note(key, 0, start, at)

    def _note(self, key: bytes, at: int, offset: int, end: int = NAME_MAX) -> None:
        """Remember where the suffixes of a name just written stand, while a pointer can say it."""
        while at < end and key[at] and offset + at < POINTER_MAX:
            self.offsets.setdefault(key[at:], offset + at)
            at += 1 + key[at]


def name_end(data: bytes, at: int = 0) -> int:
    """The offset behind the uncompressed name at `at` of data that has been checked before."""
    while data[at]:
        at += 1 + data[at]
    return at + 1


def suffixes(name: bytes) -> list[bytes]:
    """A name and its ancestors down to the root: of c.b.a. that is c.b.a., b.a., a. and the root."""
    found, at = [], 0
    while name[at]:
        found.append(name[at:])
        at += 1 + name[at]
    return found + [b"\0"]


# ---- 6. Names as text (RFC 1035 5.1) -----------------------------------------------------------------

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_*")
_ESCAPE = re.compile(r"\\(\d\d\d|\D)|([^\\])", re.S)


def _octets(text: str) -> Iterator[tuple[bytes, bool]]:
    r"""The octets of zone text, each with "was escaped": \DDD is a number, \X is X itself."""
    at = 0
    while at < len(text):
        match = _ESCAPE.match(text, at)
        if match is None:
            raise BadText(f"{text!r}: a backslash needs a character or three digits after it")
        escape, plain = match.groups()
        if escape is None or not escape.isdigit():
            yield (escape or plain).encode("utf-8", "surrogateescape"), escape is not None
        elif int(escape) <= 255:
            yield bytes([int(escape)]), True
        else:
            raise BadText(f"\\{escape} is more than an octet")
        at = match.end()


def parse_name(text: str, origin: bytes | None = b"\0") -> bytes:
    r"""A name from text, \DDD and \X understood; `origin` completes one without a final dot.

    "@" is the origin itself. Raises BadText for empty or long labels, long names and letters
    outside ASCII (which DNS carries in their xn-- form).
    """
    if text in ("@", "."):
        return b"\0" if text == "." or origin is None else origin
    labels, label = [], b""
    for octets, escaped in _octets(text):
        if len(octets) > 1:
            raise BadText(f"{text!r}: letters outside ASCII need their xn-- form")
        if octets == b"." and not escaped:
            labels.append(label)
            label = b""
        else:
            label += octets
    if label:
        labels.append(label)
    if not labels or not all(0 < len(each) <= LABEL_MAX for each in labels):
        raise BadText(f"{text!r}: a label has 1 to {LABEL_MAX} octets")
    name = b"".join(bytes([len(each)]) + each for each in labels)
    name += origin if label and origin is not None else b"\0"
    if len(name) > NAME_MAX:
        raise BadText(f"{text!r}: longer than {NAME_MAX} octets")
    return name


def show_name(name: bytes) -> str:
    r"""A name as text with its final dot; what is not a letter, digit, -, _ or * as \DDD.

    Safe to print: no byte of a stranger reaches a terminal, log or page as anything else.
    """
    labels, at = [], 0
    while name[at]:
        label = name[at + 1:at + 1 + name[at]]
        labels.append("".join(chr(b) if b in _PLAIN else "\\." if b == 46 else f"\\{b:03d}"
                              for b in label))
        at += 1 + name[at]
    return ".".join(labels) + "."


def parse_type(text: str) -> int:
    """A type's number from its mnemonic or TYPEn (RFC 3597 5); raises BadText."""
    upper = text.upper()
    number = TYPES.get(upper, int(upper[4:]) if re.fullmatch(r"TYPE[0-9]{1,5}", upper) else -1)
    if not 0 <= number <= 0xFFFF:
        raise BadText(f"{text!r} is no record type known here; TYPEn \\# length hex always works")
    return number


def show_type(number: int) -> str:
    """A type's mnemonic, else TYPEn (RFC 3597 5)."""
    return TYPE_NAMES.get(number, f"TYPE{number}")


_TTL = re.compile(r"(?:[0-9]+[smhdw]?)+", re.I)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_ttl(text: str) -> int:
    """Seconds from digits, or digits with units: "3600", "1h30m" (RFC 2308 4's example form)."""
    if not _TTL.fullmatch(text):
        raise BadText(f"{text!r} is no time; write seconds, or 1h30m")
    seconds = sum(int(number) * _UNITS[unit.lower()]
                  for number, unit in re.findall(r"([0-9]+)([smhdwSMHDW]?)", text))
    if seconds > TTL_MAX:
        raise BadText(f"{text!r} is more than {TTL_MAX} seconds")
    return seconds


# ---- 7. Rdata: one table for wire and text -----------------------------------------------------------
# A type is a row of fields; a field knows how to take its octets from a message (decompressing),
# how to make them from words of zone text, and how to show them.

class Words:
    """The words of one record's rdata in zone text, taken one by one."""

    def __init__(self, words: Sequence[str], origin: bytes) -> None:
        self.words, self.origin = list(words), origin

    def next(self, what: str) -> str:
        """The next word; raises BadText when there is none, naming `what` is missing."""
        if not self.words:
            raise BadText(f"{what} is missing")
        return self.words.pop(0)

    def rest(self) -> list[str]:
        """All words that are left."""
        rest, self.words = self.words, []
        return rest


class Field(NamedTuple):
    """One field of rdata. `take` gets the offset at which the rdata ends."""

    take: Callable[[Reader, int], bytes]
    parse: Callable[[Words], bytes]
    show: Callable[[bytes], str]


def _number(size: int, parse: Callable[[str], int] = int) -> Field:
    def from_words(words: Words) -> bytes:
        word = words.next("a number")
        if not word[:1].isdigit() or not word.isascii():
            raise BadText(f"{word!r} is no number")
        try:
            return parse(word).to_bytes(size, "big")
        except BadText:
            raise
        except (ValueError, OverflowError):
            raise BadText(f"{word!r} is no number from 0 to {256 ** size - 1}") from None
    return Field(lambda reader, end: reader.take(size), from_words,
                 lambda octets: str(int.from_bytes(octets, "big")))


def _parse_address(kind: Callable[[str], object]) -> Callable[[Words], bytes]:
    def from_words(words: Words) -> bytes:
        try:
            return bytes(kind(words.next("an address")).packed)
        except ipaddress.AddressValueError as bad:
            raise BadText(str(bad)) from None
    return from_words


def unquote(word: str) -> bytes:
    """The octets of a word of zone text, quotes and escapes resolved."""
    word = word[1:-1] if word[:1] == '"' else word
    return b"".join(octets for octets, _ in _octets(word))


def quote(octets: bytes) -> str:
    """Octets as a quoted string of zone text."""
    return '"' + "".join(f"\\{chr(b)}" if b in b'"\\' else chr(b) if 32 <= b < 127 else f"\\{b:03d}"
                         for b in octets) + '"'


def _take_string(reader: Reader) -> bytes:
    size = reader.take(1)
    return size + reader.take(size[0])


def _take_strings(reader: Reader, end: int) -> bytes:
    start = reader.at
    _take_string(reader)  # one at least: RFC 1035 3.3.14
    while reader.at < end:
        _take_string(reader)
    return reader.wire[start:reader.at]


def _parse_string(word: str) -> bytes:
    octets = unquote(word)
    if len(octets) > STRING_MAX:
        raise BadText(f"a string of {len(octets)} octets: write several of up to {STRING_MAX}")
    return bytes([len(octets)]) + octets


def _parse_strings(words: Words) -> bytes:
    return b"".join(map(_parse_string, [words.next("a string"), *words.rest()]))


def _show_strings(octets: bytes) -> str:
    reader, shown = Reader(octets), []
    while reader.at < len(octets):
        shown.append(quote(_take_string(reader)[1:]))
    return " ".join(shown)


def _parse_tag(words: Words) -> bytes:
    tag = words.next("a tag")
    if not tag.isalnum() or not tag.isascii():  # RFC 8659 4.1.1
        raise BadText(f"{tag!r}: a CAA tag is letters and digits")
    return _parse_string(tag)


def _parse_hex(words: Words) -> bytes:
    text = "".join(words.rest())
    try:
        return binascii.unhexlify(text)
    except ValueError:
        raise BadText(f"{text!r} is no even number of hexadecimal digits") from None


def _take_rest(reader: Reader, end: int) -> bytes:
    return reader.take(end - reader.at)


def _take_name(reader: Reader, end: int) -> bytes:
    return reader.name()


def _parse_name(words: Words) -> bytes:
    return parse_name(words.next("a name"), words.origin)


# Parameters of SVCB and HTTPS (RFC 9460 14.3.2), in the order of their numbers.
_SVC_KEYS = ("mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint")


def _svc_number(key: str) -> int:
    if key in _SVC_KEYS:
        return _SVC_KEYS.index(key)
    if re.fullmatch(r"key(0|[1-9][0-9]{0,4})", key) and int(key[3:]) < 65535:
        return int(key[3:])
    raise BadText(f"{key!r} is no service parameter; known: {', '.join(_SVC_KEYS)}, keyN")


def _svc_name(number: int) -> str:
    return _SVC_KEYS[number] if number < len(_SVC_KEYS) else f"key{number}"


def _parse_svc_value(number: int, value: str) -> bytes:
    raw = unquote(value)
    items = raw.decode("latin-1").split(",")
    try:
        if number == 0:
            return b"".join(_U16.pack(each) for each in sorted(map(_svc_number, items)))
        if number == 1:
            if not all(items):
                raise BadText("alpn has an empty item")
            return b"".join(map(_parse_string, items))
        if number == 3:
            return _U16.pack(int(raw))
        if number in (4, 6):
            kind = ipaddress.IPv4Address if number == 4 else ipaddress.IPv6Address
            return b"".join(kind(each).packed for each in items)
        return base64.b64decode(raw, validate=True) if number == 5 else raw
    except BadText:
        raise
    except (ValueError, struct.error) as bad:
        raise BadText(f"{_svc_name(number)}={value}: {bad}") from None


def _parse_svc(words: Words) -> bytes:
    """key=value words; sorted, each once, the mandatory ones present (RFC 9460 2.2, 8)."""
    found: dict[int, bytes] = {}
    for word in words.rest():
        key, _, value = word.partition("=")
        number = _svc_number(key.lower())
        if number in found:
            raise BadText(f"{key} is given twice")
        if (number == 2) == bool(value):
            raise BadText(f"{key} takes {'no' if number == 2 else 'a'} value")
        found[number] = _parse_svc_value(number, value)
    needed = [number for (number,) in _U16.iter_unpack(found.get(0, b""))]
    if 0 in needed or len(set(needed)) != len(needed) or not set(needed) <= set(found):
        raise BadText("mandatory names each parameter once, itself not, and all must be given")
    return b"".join(_U16.pack(number) + _U16.pack(len(found[number])) + found[number]
                    for number in sorted(found))


def _take_svc(reader: Reader, end: int) -> bytes:
    start, last = reader.at, -1
    while reader.at < end:
        number, size = reader.u16(), reader.u16()
        if number <= last:
            raise Malformed("service parameters out of order", reader.at - 4)
        last = number
        reader.take(size)
    return reader.wire[start:reader.at]


def _show_svc(octets: bytes) -> str:
    reader, shown = Reader(octets), []
    while reader.at < len(octets):
        number = reader.u16()
        value = reader.take(reader.u16())
        shown.append(_svc_name(number) + ("=" + _show_svc_value(number, value) if value else ""))
    return " ".join(shown)


def _show_svc_value(number: int, value: bytes) -> str:
    step = {0: 2, 4: 4, 6: 16}.get(number, 1)
    pieces = [value[at:at + step] for at in range(0, len(value), step)]
    if len(value) % step or (number == 3 and len(value) != 2):
        raise Malformed(f"a value of {_svc_name(number)} that is not whole", 0)
    if number == 0:
        return ",".join(_svc_name(int.from_bytes(each, "big")) for each in pieces)
    if number in (4, 6):
        return ",".join(str(ipaddress.ip_address(each)) for each in pieces)
    if number == 1:
        return _show_strings(value).replace('" "', ",")
    if number == 3:
        return str(int.from_bytes(value, "big"))
    return base64.b64encode(value).decode() if number == 5 else quote(value)


_FIELDS: dict[str, Field] = {
    "1": _number(1), "2": _number(2), "4": _number(4), "t": _number(4, parse_ttl),
    "a": Field(lambda reader, end: reader.take(4), _parse_address(ipaddress.IPv4Address),
               lambda octets: str(ipaddress.IPv4Address(octets))),
    "q": Field(lambda reader, end: reader.take(16), _parse_address(ipaddress.IPv6Address),
               lambda octets: str(ipaddress.IPv6Address(octets))),
    "n": Field(_take_name, _parse_name, show_name),
    "s": Field(_take_strings, _parse_strings, _show_strings),
    "g": Field(lambda reader, end: _take_string(reader), _parse_tag,
               lambda octets: quote(octets[1:])[1:-1]),
    "v": Field(_take_rest, lambda words: unquote(words.next("a value")), quote),
    "x": Field(_take_rest, _parse_hex, lambda octets: octets.hex()),
    "p": Field(_take_svc, _parse_svc, _show_svc)}

_FORMATS: dict[int, str] = {TYPES[name]: fields for name, fields in {
    "A": "a", "NS": "n", "CNAME": "n", "SOA": "nn4tttt", "PTR": "n", "MX": "2n", "TXT": "s",
    "AAAA": "q", "SRV": "222n", "DS": "211x", "SSHFP": "11x", "TLSA": "111x", "SVCB": "2np",
    "HTTPS": "2np", "CAA": "1gv"}.items()}


def _fields(rtype: int) -> list[Field]:
    return [_FIELDS[letter] for letter in _FORMATS.get(rtype, "x")]


def read_rdata(reader: Reader, rtype: int, size: int) -> bytes:
    """Rdata of `size` octets at the cursor, its names decompressed; all of it must be used."""
    start = reader.at
    reader.take(size)
    end, reader.at = reader.at, start
    rdata = b"".join(field.take(reader, end) for field in _fields(rtype))
    if reader.at != end:
        raise Malformed(f"rdata of {show_type(rtype)} is not {size} octets", start)
    return rdata


def parse_rdata(rtype: int, words: Sequence[str], origin: bytes = b"\0") -> bytes:
    r"""Rdata in wire form from the words of zone text; `\# len hex` works for every type.

    Raises BadText. RFC 1035 5.1, RFC 3597 5.
    """
    left = Words(words, origin)
    if words[:1] == [r"\#"]:
        rdata = _parse_generic(left)
        try:
            return read_rdata(Reader(rdata), rtype, len(rdata))
        except Malformed as bad:
            raise BadText(f"no {show_type(rtype)} in these octets: {bad}") from None
    if rtype not in _FORMATS:
        raise BadText(rf"{show_type(rtype)} has no text form here; write \# length hex")
    rdata = b"".join(field.parse(left) for field in _fields(rtype))
    if left.words:
        raise BadText(f"{left.words[0]!r} is one word too many")
    if len(rdata) > TCP_MAX:
        raise BadText(f"rdata of {len(rdata)} octets")
    return rdata


def _parse_generic(left: Words) -> bytes:
    left.next(r"\#")
    size = left.next("a length")
    rdata = _parse_hex(left)
    if not size.isdecimal() or int(size) != len(rdata):
        raise BadText(f"length {size} but {len(rdata)} octets")
    return rdata


def show_rdata(rtype: int, rdata: bytes) -> str:
    r"""Rdata as zone text; `\# len hex` when the type has no text form or the octets do not fit it."""
    try:
        reader = Reader(rdata)
        text = " ".join(field.show(field.take(reader, len(rdata))) for field in _fields(rtype))
        if rtype in _FORMATS and reader.at == len(rdata):
            return text.rstrip()
    except Malformed:
        pass
    return rf"\# {len(rdata)} {rdata.hex()}".rstrip()


# ---- 8. Zones as text (RFC 1035 5) ---------------------------------------------------------------------

class Record(NamedTuple):
    """One resource record; `line` is where zone text holds it, 0 elsewhere."""

    owner: bytes
    type: int
    rclass: int
    ttl: int
    rdata: bytes
    line: int = 0


_TOKEN = re.compile(r"""(?P<quoted>"(?:[^"\\\n]|\\[^\n])*")|(?P<paren>[()])|(?P<comment>;[^\n]*)
    |(?P<newline>\n)|(?P<space>[ \t\r]+)
    |(?P<word>(?:[^\s"();\\]|\\[^\n])+(?:"(?:[^"\\\n]|\\[^\n])*")?)""", re.X)


class Entry(NamedTuple):
    """One entry of zone text: its first line, whether it began with a blank, its words."""

    line: int
    blank: bool
    words: list[str]


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Pieces of zone text as (kind, text, line); raises BadText where no kind fits."""
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadText(f"line {line}: a quote or backslash that does not end")
        yield str(match.lastgroup), match.group(), line
        line += match.group() == "\n"
        at = match.end()


def split_zone(text: str) -> Iterator[Entry]:
    """The entries of zone text, comments dropped and parentheses joined; raises BadText."""
    depth, entry = 0, Entry(1, False, [])
    for kind, piece, line in _tokens(text):
        if kind in ("word", "quoted"):
            entry.words.append(piece)
        if kind == "space" and not entry.words and not depth:
            entry = entry._replace(blank=True)
        if kind == "paren":
            depth += 1 if piece == "(" else -1
        if depth not in (0, 1):
            raise BadText(f"line {line}: parentheses do not match")
        if kind == "newline" and not depth:
            yield entry
            entry = Entry(line + 1, False, [])
    if depth:
        raise BadText(f"line {entry.line}: a parenthesis that is never closed")
    yield entry


class ZoneText:
    """Reads zone text into records; mistakes are collected, each with its line.

    `origin` completes relative names; `ttl` (seconds) is for records without one before $TTL.
    """

    def __init__(self, text: str, origin: bytes, ttl: int) -> None:
        self.origin, self.ttl, self.owner = origin, ttl, origin
        self.records: list[Record] = []
        self.problems: list[str] = []
        try:
            for entry in split_zone(text):
                self._entry(entry)
        except BadText as bad:
            self.problems.append(str(bad))

    def _entry(self, entry: Entry) -> None:
        words = list(entry.words)
        try:
            if words and words[0].startswith("$"):
                self._directive(words)
            elif words:
                if not entry.blank:
                    self.owner = parse_name(words.pop(0), self.origin)
                self.records.append(self._record(words, entry.line))
        except BadText as bad:
            self.problems.append(f"line {entry.line}: {bad}")

    def _directive(self, words: list[str]) -> None:
        name = words[0].upper()
        if name not in ("$ORIGIN", "$TTL"):
            raise BadText(f"{words[0]} is not supported; $ORIGIN and $TTL are")
        if len(words) != 2:
            raise BadText(f"{name} takes one word")
        if name == "$TTL":
            self.ttl = parse_ttl(words[1])
        else:
            self.origin = parse_name(words[1], self.origin)

    def _record(self, words: list[str], line: int) -> Record:
        """[TTL] [class] type rdata; TTL and class in either order (RFC 1035 5.1)."""
        ttl, seen = self.ttl, set()
        while words:
            kind = "ttl" if words[0][0].isdigit() else "class"
            if kind in seen or (kind == "class" and words[0].upper() not in ("IN", "CH", "HS")):
                break
            seen.add(kind)
            word = words.pop(0)
            if kind == "ttl":
                ttl = parse_ttl(word)
            elif word.upper() != "IN":
                raise BadText(f"class {word}: only IN is served")
        if not words:
            raise BadText("a type is missing")
        rtype = parse_type(words.pop(0))
        if rtype in (0, OPT) or 128 <= rtype <= 255:  # RFC 6895 3.1: meta types are no data
            raise BadText(f"{show_type(rtype)} cannot stand in a zone")
        rdata = parse_rdata(rtype, words, self.origin)
        return Record(self.owner, rtype, CLASS_IN, ttl, rdata, line)


# ---- 9. Whole messages, for tools and tests: slow, strict, never on a query's way ------------------------

class Message(NamedTuple):
    """A decoded message; OPT stands in its section like any record."""

    id: int
    flags: int
    questions: list[tuple[bytes, int, int]]      # name, type, class
    sections: tuple[list[Record], list[Record], list[Record]]


def decode_message(packet: bytes) -> Message:
    """Read a whole message (RFC 1035 4); every octet must be accounted for, else Malformed."""
    reader = Reader(packet)
    ident, flags, questions, *counts = _HEADER.unpack(reader.take(HEADER))
    asked = [(reader.name(), reader.u16(), reader.u16()) for _ in range(questions)]
    sections = tuple([_read_record(reader) for _ in range(count)] for count in counts)
    if reader.at != len(packet):
        raise Malformed("octets after the last record", reader.at)
    return Message(ident, flags, asked, (sections[0], sections[1], sections[2]))


def _read_record(reader: Reader) -> Record:
    owner = reader.name()
    rtype, rclass, ttl, size = _RECORD.unpack(reader.take(_RECORD.size))
    return Record(owner, rtype, rclass, ttl, read_rdata(reader, rtype, size))
