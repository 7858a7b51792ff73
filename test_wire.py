"""Tests of wire.py: literals in, literals out; no sockets, no clock, seeded dice.

    python3 -m unittest test_wire                     wire.py
    python3 -m unittest -k Pure                       all tests that start no process
    LBDNS_WIRE=lbdns python3 -m unittest test_wire    what wire.py holds, in a bundled lbdns.py

To test ...          use ...
    a query          ask(), edns() and opt(), which return octets; PureQueries.rcode
    a reply          PureReplies.write, and decode_message to read it
    a type's rdata   a row of PureRdata.ROWS; rdata("MX", "10 mx.") for its octets
    zone text        PureZoneTexts.read for its records, .problems for its mistakes
    a zone           zone_of(), and show_rrset() for what it answers
    any octets       hostile(), which damages something good in every place
    a server         OddPackets(seed).make(number): what comes in from strangers

A table is text where all its cells are text: rows() cuts it. Octets are hex with blanks, grouped as
the fields of the message are, so that a row can be checked by hand against the RFC beside it.
"""
import binascii
import contextlib
import importlib
import ipaddress
import itertools
import os
import random
import re
import struct
import unittest
from collections.abc import Callable, Iterator
from typing import NamedTuple

wire = importlib.import_module(os.environ.get("LBDNS_WIRE", "wire"))

# A message (RFC 1035 4.1) has a header of 12 octets, six numbers of two:
#     id, flags, questions, records in answer, authority and additional
# A question (4.1.2) is a name, a type and a class; a record (4.1.3) has these, a TTL of four octets
# and the rdata behind its length:
#     name 0001 0001                       A, IN
#     name 0001 0001 0000003c 0004 c0000201
# In a name each label stands behind its length, and the root's 00 ends it (3.1). A length from c0
# on is a pointer (4.1.4): the rest of the name stands at the offset in its other 14 bits. So c00c
# is the name in the question, right behind the header.
ROOT = b"\0"
EXAMPLE = b"\7example\3com\0"
WWW = b"\3www" + EXAMPLE

# OPT (RFC 6891 6.1.2) is a record of the root. Its class is the payload size; its TTL holds the
# upper bits of the rcode, the version and the flags; its rdata are options: code, length, octets.
#     00 0029 04d0 00 00 8000 0000         1232 octets, rcode 0, version 0, DO, no options

# Octets that mean something else than their neighbours do, where a length is read.
EDGES = (0, 63, 64, 192, 255)


def octets(text: str) -> bytes:
    """Bytes from hex with blanks."""
    return bytes.fromhex(text)


def ask(name: bytes = WWW, qtype: int = 1, flags: int = 0x0100, counts: tuple[int, ...] = (),
        rest: bytes = b"", qclass: int = 1) -> bytes:
    """A query for `name`; `counts` are those of the sections behind the question, in `rest`."""
    numbers = (0x1234, flags, 1, *counts, *[0] * (3 - len(counts)))
    header = b"".join(number.to_bytes(2, "big") for number in numbers)
    return header + name + qtype.to_bytes(2, "big") + qclass.to_bytes(2, "big") + rest


def opt(options: str = "", payload: int = 1232, ttl: int = 0) -> bytes:
    """An OPT record."""
    data = octets(options)
    return (octets("00 0029") + payload.to_bytes(2, "big") + ttl.to_bytes(4, "big")
            + len(data).to_bytes(2, "big") + data)


def edns(options: str = "", **fields: int) -> bytes:
    """A query for www.example.com A with an OPT record."""
    return ask(counts=(0, 0, 1), rest=opt(options, **fields))


def hostile(good: bytes) -> Iterator[bytes]:
    """Every prefix of something good, then every byte of it replaced by each edge value."""
    for size in range(len(good)):
        yield good[:size]
    for at in range(len(good)):
        for edge in EDGES:
            yield good[:at] + bytes([edge]) + good[at + 1:]


# What odd packets are made of. Names: of zones that a server may hold, or never does.
ODD_ZONES = (b"", EXAMPLE, b"\7example\0", b"\3nil\0", b"\5tld2s\0", b"\6policy\5local" + ROOT)
ODD_LABELS = (b"www", b"API", b"ns1", b"*", b"_tcp", b"nSeC3", b"x" * 63, b"\xc3\xa9\0.")
# Headers: plain, RD, AD, CD, a reserved bit; NOTIFY, UPDATE, opcodes that nobody gave a meaning.
ODD_FLAGS = (*[0] * 12, *[0x120] * 4, *[0x100] * 4, 0x110, 0x10, 0x20, 0x40, 0x87A5,
             *[0x2400] * 4, *[0x2800] * 2, 0x6800, 0x7A89)
ODD_REPLIES = (*[0] * 9, 0x8400, 0x8400, 0x8400, 0x8180, 0x8183, 0x8500, 0x8485, 0x8202, 0x8010)
# Options of OPT: none, NSID, cookies, a client subnet, some that nobody knows. In BAD_OPTIONS a
# cookie's length, a subnet's length or family, the number of options or the end of one is wrong.
ODD_OPTIONS = ("", "", "", "0003 0000", "000a 0008 0102030405060708", "0008 0007 0001 18 00 c00002",
               "000a 0018" + "5a" * 24, "000b 0000  fde9 0001 ff")
BAD_OPTIONS = ("000a 0005 0102030405", "0008 0008 0001 18 00 c0000201", "0008 0004 0003 00 00",
               "0003 0000" * 20, "0003 0009 00", "0003")


class OddPackets:
    """Makes packets as tests and accidents of other people's software leave them on a wire: queries
    for zones that are not served, NOTIFY and UPDATE, signed messages, replies with records of all
    types; some are cut, run on, or break one of the rules that `wire.decode_query` knows."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        rows = {wire.parse_type(name): octets(shown) for name, _, shown in PureRdata.ROWS}
        rows |= {number: self.dice.randbytes(40) for number in wire.TYPES.values()
                 if number not in rows and not 249 <= number <= 255}
        self.rdata = list(rows.items())  # of each type, such as nobody asks for alone

    def make(self, number: int) -> list[bytes]:
        """Return so many packets, always the same for a seed."""
        return [self.packet() for _ in range(number)]

    def name(self) -> bytes:
        """A name of up to three labels below a zone, its octets not compressed."""
        labels = [self.dice.choice((*ODD_LABELS, b"a%d" % self.dice.randrange(2000),
                                    self.dice.randbytes(self.dice.randint(1, 24))))
                  for _ in range(self.dice.choice((0, 1, 1, 1, 2, 3)))]
        return b"".join(bytes([len(each)]) + each for each in labels) + (
            self.dice.choice(ODD_ZONES) or ROOT)

    def record(self, owner: bytes = b"\xc0\x0c") -> bytes:
        """A record with good rdata, of the name in the question unless another owner is given."""
        rtype, data = self.dice.choice(self.rdata)
        rclass = self.dice.choice((1, 1, 1, 1, 1, 1, 254, 255))
        ttl = self.dice.choice((0, 300, 3600, 999999, 2**31, 2**32 - 1))
        return owner + struct.pack("!HHIH", rtype, rclass, ttl, len(data)) + data

    def edns(self) -> bytes:
        """An OPT record; of fifty two have wrong options, one a version that nobody speaks, and one
        stands at a name."""
        kind, choose = self.dice.randrange(50), self.dice.choice
        found = opt(choose(BAD_OPTIONS if kind < 2 else ODD_OPTIONS),
                    choose((4096, 4096, 4096, 1280, 2048, 512, 1232, 1432, 0)),
                    0x10000 * self.dice.randint(1, 255) if kind == 2 else choose((0, 0x8000)))
        return WWW + found[1:] if kind == 3 else found

    def signature(self) -> bytes:
        """A TSIG record (RFC 8945 4.2) with a key that nobody knows."""
        data = octets("08 686d61632d6d6435 00  0000559af164 012c 0010") + (
            self.dice.randbytes(16) + octets("1267 0000 0000"))
        return self.name() + struct.pack("!HHIH", wire.TSIG, 255, 0, len(data)) + data

    def question(self) -> bytes:
        """A question; of a hundred one has a type or a class that cannot be asked for, one a name
        that cannot be read."""
        kind, types = self.dice.randrange(100), (1, 1, 1, 1, 6, 6, 28, 48, 16, 255, 252)
        rtype = self.dice.choice((*types * 3, 0, 65533, *[number for number, _ in self.rdata]))
        rclass = self.dice.choice((0, 3, 254, 255)) if kind == 1 else 1
        if not kind:
            rtype = self.dice.choice((wire.OPT, wire.TSIG, wire.TKEY))
        name = self.name() if kind != 2 else self.dice.choice((
            b"\x40" + b"x" * 64 + ROOT, b"\x80", (b"\x3f" + b"x" * 63) * 4 + ROOT, b"\xc0\x0c",
            b"\1a\xc0\0"))
        return name + struct.pack("!2H", rtype, rclass)

    def packet(self) -> bytes:
        """One packet, of 1,400 octets at most."""
        dice = self.dice
        flags = dice.choice(ODD_FLAGS) | dice.choice(ODD_REPLIES)
        sections: list[list[bytes]] = [[], [], []]
        if flags & 0xF800 or not dice.randrange(20):
            sections = [[self.record() for _ in range(dice.choice((0, 0, 1, 1, 2, 4)))]
                        for _ in range(3)]
        sections[2] += [self.edns() for _ in range(dice.choice((0, 0, 0, *[1] * 40, 2)))]
        if not dice.randrange(20):
            sections[2].append(self.signature())
        return self.message(flags, self.question(), sections)[:1400]

    def message(self, flags: int, question: bytes, sections: list[list[bytes]]) -> bytes:
        """The octets of a message; of twenty-five, one has more or less than a query may have: in
        questions, records, octets of names, or octets behind the last record."""
        kind, dice, questions = self.dice.randrange(125), self.dice, 1
        if kind == 0:
            questions = dice.choice((0, 2, 7, 65535))
        elif kind == 1:
            long = (b"\x3f" + b"x" * 63) * 3 + b"\x3d" + b"x" * 61 + ROOT
            owner, most = dice.choice(((ROOT, 20), (long, 5)))
            sections[1] += [self.record(owner) for _ in range(most)]
        packet = struct.pack("!6H", dice.randrange(65536), flags, questions, *map(len, sections))
        packet += question * min(questions, 2) + b"".join(itertools.chain(*sections))
        if kind in (2, 3):
            return packet[:dice.randrange(len(packet))]
        return packet + dice.randbytes(dice.randint(1, 40)) if kind == 4 else packet


def rdata(rtype: str, text: str) -> bytes:
    """Rdata from zone text, cut into words as in a zone; relative to the root."""
    zone = wire.ZoneText(f"@ {rtype} {text}", ROOT, 60)
    if zone.problems:
        raise wire.BadText(zone.problems[0])
    return zone.records[0].rdata


def quote(data: bytes) -> str:
    """Octets as a quoted string of zone text, in printable ASCII only."""
    shown = {octet: f"\\{octet:03d}" for octet in range(256) if not 32 <= octet < 127}
    shown.update({ord(each): "\\" + each for each in '"\\'})
    return '"' + data.decode("latin-1").translate(shown) + '"'


def show_base64(data: bytes) -> str:
    """Octets as one word of base64."""
    return binascii.b2a_base64(data, newline=False).decode()


def cut(data: bytes, size: int) -> list[bytes]:
    """Octets in pieces of one size."""
    return [data[at:at + size] for at in range(0, len(data), size)]


def show_strings(data: bytes) -> list[bytes]:
    """What stands in a row of <character-string>s (RFC 1035 3.3)."""
    found = []
    while data:
        found.append(data[1:1 + data[0]])
        data = data[1 + data[0]:]
    return found


def show_alpn(data: bytes) -> str:
    """Names of protocols, with the escapes of a list inside a string (RFC 9460 A.1)."""
    return quote(b",".join(re.sub(rb"[\\,]", rb"\\\g<0>", each) for each in show_strings(data)))


def show_addresses(found: list[bytes]) -> str:
    """Addresses between commas."""
    return ",".join(str(ipaddress.ip_address(each)) for each in found)


# By the number of a service parameter (RFC 9460 14.3.2): its name, and how its value is shown.
SHOW_PARAM: dict[int, tuple[str, Callable[[bytes], str]]] = {
    0: ("mandatory", lambda data: ",".join(
        show_param(int.from_bytes(each, "big"))[0] for each in cut(data, 2))),
    1: ("alpn", show_alpn),
    2: ("no-default-alpn", quote),
    3: ("port", lambda data: str(int.from_bytes(data, "big"))),
    4: ("ipv4hint", lambda data: show_addresses(cut(data, 4))),
    5: ("ech", show_base64),
    6: ("ipv6hint", lambda data: show_addresses(cut(data, 16))),
    7: ("dohpath", quote),
    8: ("ohttp", quote)}


def show_param(number: int) -> tuple[str, Callable[[bytes], str]]:
    """Name of a service parameter, and how its value is shown; any value if it is not known."""
    return SHOW_PARAM.get(number, (f"key{number}", quote))


def show_params(data: bytes) -> str:
    """Service parameters as key=value words, and as key alone where the value is empty."""
    words = []
    for number, value in wire.Reader(data).pairs():
        name, show = show_param(number)
        words.append(f"{name}={show(value)}" if value else name)
    return " ".join(words)


# By the letters of the table of types: a field of rdata as zone text. What `wire` reads from
# text is judged by this, which shares no code with that.
SHOW_FIELD: dict[str, Callable[[bytes], str]] = {
    **dict.fromkeys("124tlk", lambda data: str(int.from_bytes(data, "big"))),
    **dict.fromkeys("aq", lambda data: str(ipaddress.ip_address(data))),
    "n": lambda data: wire.show_name(data),
    "c": lambda data: quote(data[1:]),
    "s": lambda data: " ".join(map(quote, show_strings(data))),
    "g": lambda data: data[1:].decode(),
    **dict.fromkeys("vu", quote),
    "x": bytes.hex,
    "b": show_base64,
    "p": show_params}


def show_rdata(rtype: int, data: bytes) -> str:
    r"""Rdata as zone text; \# length hex where the type has none, or the octets make no sense."""
    letters = {int(number): letters for number, _, letters in wire._TYPE_ROWS}.get(rtype, "-")
    with contextlib.suppress(wire.Malformed):
        if letters != "-" and wire.read_rdata(wire.Reader(data), rtype, len(data)) == data:
            reader = wire.Reader(data)
            words = [SHOW_FIELD[each](wire._FIELDS[each].take(reader)) for each in letters]
            return " ".join(words).rstrip()
    return rf"\# {len(data)} {data.hex()}".rstrip()


def rows(table: str) -> list[list[str]]:
    """The rows of a table: cells between bars, without the blanks around them.

    Empty lines and lines that begin with # are no rows.
    """
    lines = [line.strip() for line in table.splitlines()]
    return [[cell.strip() for cell in line.split("|")]
            for line in lines if line and not line.startswith("#")]


def names_of(name: str) -> list[bytes]:
    """A name and its ancestors, as the functions of zones want them."""
    return wire.suffixes(wire.parse_name(name).lower())


def zone_of(text: str, apex: bytes = EXAMPLE, soa: str = "@ SOA ns host 1 2 3 4 5") -> "wire.Zone":
    """A finished zone; records stand on lines of their own, or with " ; " between them."""
    lines = [line.strip() for line in f"{soa}\n{text}".replace(" ; ", "\n").splitlines()]
    parsed = wire.ZoneText("\n".join(lines), apex, 60)
    assert not parsed.problems, parsed.problems
    zone = wire.Zone(apex)
    for record in parsed.records:
        zone.add(record)
    zone.finish()
    return zone


def show_rrset(owner: bytes, rrset: "wire.RRset") -> str:
    """An RRset on one line: owner, TTL, type, and the rdata of each record."""
    words = [show_rdata(rrset.type, each) for each in rrset.rdatas]
    return " ".join([wire.show_name(owner), str(rrset.ttl), wire.show_type(rrset.type), *words])


def show_nodes(zone: "wire.Zone") -> list[str]:
    """All RRsets of a zone but its SOA."""
    return [show_rrset(owner, rrset) for owner, node in zone.nodes.items()
            for rtype, rrset in node.items() if rtype != wire.SOA]


class Message(NamedTuple):
    """A decoded message; OPT stands in its section like any record."""
    id: int
    flags: int
    questions: list          # of name, type, class
    sections: tuple          # answer, authority, additional: lists of wire.Record


def decode_message(packet: bytes) -> Message:
    """Read a whole message (RFC 1035 4); every octet must be accounted for, else Malformed.

    Counts in the header are promises of a stranger: nothing is set aside for them, and reading
    ends with the octets.
    """
    reader = wire.Reader(packet)
    ident, flags, questions, *counts = [reader.u16() for _ in range(6)]
    asked = [(reader.name(), reader.u16(), reader.u16()) for _ in range(questions)]
    sections = tuple([read_record(reader) for _ in range(count)] for count in counts)
    if reader.at != len(packet):
        raise wire.Malformed("octets after the last record", reader.at)
    return Message(ident, flags, asked, sections)


def read_record(reader: "wire.Reader") -> "wire.Record":
    """Read one resource record (RFC 1035 4.1.3)."""
    owner, rtype, rclass = reader.name(), reader.u16(), reader.u16()
    ttl, size = int.from_bytes(reader.take(4), "big"), reader.u16()
    return wire.Record(owner, rtype, rclass, ttl, wire.read_rdata(reader, rtype, size))


class PureNames(unittest.TestCase):
    """Names as text and as octets (RFC 1035 5.1, RFC 2181 11)."""

    # A name as text, and its octets: a length before each label, and the root's 00.
    ROWS = [
        (".", "00"),
        ("a.example.", "01 61  07 65 78 61 6d 70 6c 65  00"),
        ("Www.eXample.", "03 57 77 77  07 65 58 61 6d 70 6c 65  00"),
        ("*._tcp.x-1.", "01 2a  04 5f 74 63 70  03 78 2d 31  00"),
        (r"api\.example.com.", "0b 61 70 69 2e 65 78 61 6d 70 6c 65  03 63 6f 6d  00"),
        (r"\000\255.x.", "02 00 ff  01 78  00"),
        (r"\034\092\010\060script\062.", "0b 22 5c 0a 3c 73 63 72 69 70 74 3e 00"),
        ("a" * 63 + ".", "3f" + "61" * 63 + "00"),
        ("a." * 127, "0161" * 127 + "00")]

    def test_text_and_octets_both_ways(self) -> None:
        """Each row is read from text, shown as the same text, and read from a message."""
        for text, spaced in self.ROWS:
            with self.subTest(text):
                self.assertEqual(wire.parse_name(text), octets(spaced))
                self.assertEqual(wire.show_name(octets(spaced)), text)
                reader = wire.Reader(octets(spaced))
                self.assertEqual(reader.name(), octets(spaced))

    def test_the_origin_completes_names_without_a_final_dot(self) -> None:
        """RFC 1035 5.1. The root is the origin unless another is given."""
        for text, origin, name in (
                ("www", EXAMPLE, WWW),
                ("@", EXAMPLE, EXAMPLE),
                (".", EXAMPLE, ROOT),
                ("www.example.com.", b"\1x\0", WWW),
                ("www.example.com", ROOT, WWW),
                ("@", ROOT, ROOT),
                (r"\w\w\119\.", ROOT, b"\4www.\0")):
            with self.subTest(text):
                self.assertEqual(wire.parse_name(text, origin), name)
                if origin == ROOT:
                    self.assertEqual(wire.parse_name(text), name)

    def test_what_is_no_name_is_refused(self) -> None:
        """Empty and long labels, blanks, quotes, unfinished escapes; digits and letters of other
        scripts, which Python's own functions would take for digits and letters."""
        for text in (
                "", "..", ".a", "a..b", "a" * 64, "a." * 128, "a" * 100_000,
                "a b", "a\nb", "a\0b", 'a"b', '"a"',
                "a\\", "a\\1", "a\\12", "a\\256", "a\\999",
                "b\u00fccher.example", "\\\u00b2\u00b2\u00b2", "\\\u0663\u0663\u0663",
                "\ud800", "\udcff", "\\\u00e9"):
            with self.subTest(text[:20]), self.assertRaises(wire.BadText):
                wire.parse_name(text)
        with self.assertRaises(wire.BadText):  # too long only with the origin
            wire.parse_name("a." * 126 + "a", EXAMPLE)

    def test_every_octet_survives_text(self) -> None:
        """What is shown is printable ASCII without blanks, and is read as the same octets."""
        for octet in range(256):
            name = bytes([1, octet]) + EXAMPLE
            text = wire.show_name(name)
            self.assertTrue(text.isascii() and text.isprintable() and " " not in text)
            self.assertEqual(wire.parse_name(text), name)

    def test_suffixes_are_a_name_and_its_ancestors(self) -> None:
        """From the name itself to the root, which is always among them."""
        self.assertEqual(wire.suffixes(WWW), [WWW, EXAMPLE, b"\3com\0", ROOT])
        self.assertEqual(wire.suffixes(ROOT), [ROOT])


class PureCompressedNames(unittest.TestCase):
    """Pointers in names (RFC 1035 4.1.4).

    They lead strictly back, to a name behind the header, and a name follows no more than sixteen:
    so there is no loop, and no message costs more than its octets are worth.
    """

    def read(self, at: int, names: str) -> bytes:
        """The name at an offset of a message, in which `names` follow the 12 octets of a header."""
        return wire.Reader(bytes(12) + octets(names), at).name()

    def test_pointers_lead_back(self) -> None:
        """To a name, and to a name that ends with a pointer itself."""
        self.assertEqual(self.read(17, "03 63 6f 6d 00  01 61 c0 0c"), b"\1a\3com\0")
        self.assertEqual(self.read(21, "03 63 6f 6d 00  01 61 c0 0c  c0 11"), b"\1a\3com\0")

    def test_reading_goes_on_behind_the_first_pointer(self) -> None:
        """However many more the name follows."""
        reader = wire.Reader(bytes(12) + octets("03 63 6f 6d 00  01 61 c0 0c  c0 11  abcd"), 21)
        reader.name()
        self.assertEqual((reader.at, reader.u16()), (23, 0xABCD))

    def test_other_pointers_labels_and_ends_are_malformed(self) -> None:
        """What is wrong, the offset that is read from, and the octets from offset 12 on."""
        for why, at, names in rows("""
                a pointer to itself            | 12 | c0 0c
                a pointer to its own label     | 12 | 01 61 c0 0c
                a pointer forward              | 12 | c0 10 00 00 00
                a pointer into the header      | 13 | 00 c0 0b
                a pointer to octet 0           | 13 | 00 c0 00
                a pointer past the end         | 12 | ff ff
                two pointers to each other     | 14 | c0 0e c0 0c
                half a pointer                 | 13 | 00 c0
                a label of type 01             | 12 | 40 00
                a label of type 10             | 12 | 80 00
                a label of type 01, the last   | 12 | 7f
                no root                        | 12 | 01 61
                nothing                        | 12 |
                half a label                   | 12 | 3f 61
                """):
            with self.subTest(why), self.assertRaises(wire.Malformed) as caught:
                self.read(int(at), names)
            self.assertEqual(caught.exception.rcode, wire.FORMERR)

    def test_sixteen_hops_and_no_more(self) -> None:
        """NAME_HOPS: a root at offset 12, and 17 pointers, each to the one before it."""
        chain = "00" + "".join(f"c0{12 if i == 0 else 11 + 2 * i:02x}" for i in range(17))
        self.assertEqual(self.read(11 + 2 * 16, chain), ROOT)
        with self.assertRaisesRegex(wire.Malformed, "too many compression pointers at byte 13"):
            self.read(11 + 2 * 17, chain)

    def test_255_octets_through_a_pointer(self) -> None:
        """The longest name fits behind a pointer; one more label before the pointer does not."""
        tail = "3f" + "61" * 63
        whole = tail * 3 + "3d" + "61" * 61 + "00"  # 255 octets
        self.assertEqual(len(self.read(12, whole)), 255)
        self.assertEqual(len(self.read(12 + 255, whole + "c00c")), 255)
        with self.assertRaises(wire.Malformed):
            self.read(12 + 255, whole + "01 61 c00c")


class PureTypes(unittest.TestCase):
    """Types and times as text (RFC 3597 5, RFC 2181 8)."""

    def test_types_both_ways(self) -> None:
        """Mnemonics in any case, TYPEn for a type without one; TYPE1 is A."""
        known = ("A 1, NS 2, CNAME 5, SOA 6, PTR 12, MX 15, TXT 16, AAAA 28, SRV 33, OPT 41, "
                 "DS 43, SSHFP 44, TLSA 52, SVCB 64, HTTPS 65, AXFR 252, ANY 255, CAA 257, "
                 "TYPE0 0, TYPE65534 65534, TYPE65535 65535")
        for text, number in map(str.split, known.split(", ")):
            with self.subTest(text):
                self.assertEqual(wire.parse_type(text), int(number))
                self.assertEqual(wire.parse_type(text.lower()), int(number))
                self.assertEqual(wire.show_type(int(number)), text)
        self.assertEqual(wire.parse_type("TYPE1"), 1)

    def test_constants_are_those_of_the_table(self) -> None:
        """Types that code asks about have a name in Python, too."""
        for name in ("A NS CNAME SOA PTR MX AAAA OPT DS DNAME TKEY TSIG IXFR AXFR MAILB MAILA ANY "
                     "RRSIG NSEC").split():
            self.assertEqual(getattr(wire, name), wire.TYPES[name])

    def test_what_is_no_type_is_refused(self) -> None:
        """Numbers of more than 16 bits, classes, and what str.upper makes a mnemonic of."""
        for text in (
                "", "B", "IN", "A\n", "TYPE", "TYPE65536", "TYPE-1", "TYPE+1", "TYPE1_0", "TYPE1 ",
                "TYPE" + "9" * 5000,
                "TYPE\u0661", "\u017frv", "\u00dfhfp"):
            with self.subTest(text[:20]), self.assertRaises(wire.BadText):
                wire.parse_type(text)

    def test_times_with_and_without_units(self) -> None:
        """Seconds, and weeks, days, hours and minutes in any case."""
        for text, seconds in rows("""
                0          | 0
                3600       | 3600
                1h         | 3600
                1H30M      | 5400
                90s        | 90
                1m30       | 90
                1w2d3h4m5s | 788645
                2147483647 | 2147483647
                """):
            self.assertEqual(wire.parse_ttl(text), int(seconds))

    def test_what_is_no_time_is_refused(self) -> None:
        """More than 31 bits among it (RFC 2181 8), and texts that could be read in many ways."""
        for text in (
                "", "h", "1x", "-1", "+1", "1_0", " 1", "1\n", "1.5h", "2147483648", "3551w",
                "\u0661", "1\u017f", "\u00b2",
                "9" * 5000, "1" * 100_000 + "x", "1s" * 50_000 + "x"):
            with self.subTest(text[:20]), self.assertRaises(wire.BadText):
                wire.parse_ttl(text)


class PureRdata(unittest.TestCase):
    """Rdata as text and as octets; what has to be right in it (RFC 1035 3.3, and a type's RFC).

    What is right is decided once, by taking octets: text is turned into octets, and these are then
    taken as if a message had them. So a mistake is found in both forms or in none.
    """

    # Type, text and octets.
    ROWS = [
        # RFC 1035 3.4.1, RFC 3596 2.2: addresses
        ("A", "192.0.2.1", "c0 00 02 01"),
        ("AAAA", "2001:db8::1", "20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01"),

        # RFC 1035 3.3: a name; of a SOA two, and five numbers of four octets
        ("NS", "ns1.example.com.", "03 6e 73 31 07 65 78 61 6d 70 6c 65 03 63 6f 6d 00"),
        ("CNAME", ".", "00"),
        ("PTR", r"a\.b.c.", "03 61 2e 62  01 63  00"),
        ("SOA", "n. h.n. 4294967295 7200 1800 1209600 60",
         "01 6e 00  01 68 01 6e 00  ffffffff  00001c20  00000708  00127500  0000003c"),
        ("MX", "10 mx.", "00 0a  02 6d 78 00"),

        # RFC 1035 3.3.14: strings, each with its length before it
        ("TXT", '"v=spf1 -all"', "0b 76 3d 73 70 66 31 20 2d 61 6c 6c"),
        ("TXT", r'"a;b" "" "\"\\\000\255"', "03 61 3b 62  00  04 22 5c 00 ff"),

        # RFC 2782: priority, weight, port, target
        ("SRV", "1 2 443 a.b.", "00 01  00 02  01 bb  01 61 01 62 00"),

        # RFC 8659 4.1: flags, a tag with its length, a value without
        ("CAA", '0 issue "ca.example"', "00  05 69 73 73 75 65  63 61 2e 65 78 61 6d 70 6c 65"),
        ("CAA", '128 iodef ""', "80  05 69 6f 64 65 66"),

        # RFC 4034 5.1, RFC 6698 2.1, RFC 4255 3.1: numbers, and a digest
        ("DS", "60485 5 1 2bb183af", "ec 45  05  01  2b b1 83 af"),
        ("TLSA", "3 1 1 abcd", "03 01 01 ab cd"),
        ("SSHFP", "4 2 00", "04 02 00"),

        # RFC 9460 2.2: priority, target, and parameters: number, length, value
        ("HTTPS", "0 a.", "00 00  01 61 00"),
        ("HTTPS", '1 . alpn="h2,h3" port=443',
         "00 01  00  0001 0006 02 68 32 02 68 33  0003 0002 01 bb"),
        ("HTTPS",
         '1 . alpn="h3" no-default-alpn ipv4hint=192.0.2.1,192.0.2.2 ech=AAE= '
         "ipv6hint=::1,2001:db8::2",
         "00 01  00  0001 0003 02 68 33  0002 0000  0004 0008 c0000201 c0000202"
         "0005 0002 0001  0006 0020"
         "00000000000000000000000000000001 20010db8000000000000000000000002"),
        # RFC 9460 D.2, figures 5, 8 and 10: numbered keys, mandatory, escapes within escapes
        ("SVCB", r'1 foo.example.com. key667="hello\210qoo"',
         "00 01  03 66 6f 6f 07 65 78 61 6d 70 6c 65 03 63 6f 6d 00"
         "02 9b 00 09 68 65 6c 6c 6f d2 71 6f 6f"),
        ("SVCB", '16 f. mandatory=alpn,ipv4hint alpn="h2,h3-19" ipv4hint=192.0.2.1',
         "00 10  01 66 00  0000 0004 0001 0004  0001 0009 02 68 32 05 68 33 2d 31 39"
         "0004 0004 c0 00 02 01"),
        ("SVCB", r'16 f. alpn="f\\\\oo\\,bar,h2"',
         "00 10  01 66 00  0001 000c 08 66 5c 6f 6f 2c 62 61 72 02 68 32"),
        ("SVCB", r'1 . alpn="\255"', "00 01 00  0001 0002 01 ff"),
        ("SVCB", "1 . key9 key65534", "00 01 00  0009 0000  fffe 0000"),
        ("SVCB", '1 . alpn="h2" dohpath="/q{?dns}" ohttp',  # RFC 9461 5, RFC 9540 4
         "00 01 00  0001 0003 02 68 32  0007 0008 2f 71 7b 3f 64 6e 73 7d  0008 0000"),
        # types that few use: two strings or two names, a preference before a name or an address
        ("HINFO", '"a b" ""', "03 61 20 62 00"),
        ("RP", "a. b.c.", "01 61 00  01 62 01 63 00"),
        ("AFSDB", "1 a.", "0001 01 61 00"),
        ("RT", "1 a.", "0001 01 61 00"),
        ("KX", "1 a.", "0001 01 61 00"),
        ("LP", "1 a.", "0001 01 61 00"),
        ("PX", "1 a. b.", "0001 01 61 00 01 62 00"),
        ("X25", '"311"', "03 33 31 31"),
        ("L32", "10 10.1.2.0", "000a 0a010200"),
        ("SPF", '"a" "b"', "01 61 01 62"),

        # RFC 3403 6.1, RFC 7553 4.6, RFC 4398 2.2
        ("NAPTR", '100 50 "s" "http+N2L" "" www.', "0064 0032 01 73 08 68 74 74 70 2b 4e 32 4c 00"
                                                    "03 77 77 77 00"),
        ("URI", '10 1 "ftp://f/"', "000a 0001 66 74 70 3a 2f 2f 66 2f"),
        ("URI", f'1 2 "{"x" * 300}"', "0001 0002" + "78" * 300),
        ("CERT", "1 2 5 AAECAw==", "0001 0002 05 00010203"),
        # RFC 8078 4 (these delete a DS), RFC 7929 2.2, RFC 4701 3.1, RFC 8162 2
        ("CDS", "0 0 0 00", "0000 00 00 00"),
        ("CDNSKEY", "0 3 0 AA==", "0000 03 00 00"),
        ("OPENPGPKEY", "AAEC", "000102"),
        ("DHCID", "AAIB", "000201"),
        ("SMIMEA", "3 1 1 abcd", "03 01 01 ab cd"),

        # RFC 3597 5: types that are not known here
        ("TYPE731", r"\# 6 abcdef012345", "ab cd ef 01 23 45"),
        ("TYPE62347", r"\# 0", "")]

    def test_text_and_octets_both_ways(self) -> None:
        """Each row is read from text, shown as the same text, and taken from a message."""
        for rtype, text, spaced in self.ROWS:
            with self.subTest(f"{rtype} {text}"):
                number, data = wire.parse_type(rtype), octets(spaced)
                self.assertEqual(rdata(rtype, text), data)
                self.assertEqual(show_rdata(number, data), text)
                reader = wire.Reader(data + b"more")
                self.assertEqual(wire.read_rdata(reader, number, len(data)), data)
                self.assertEqual(reader.at, len(data))

    def test_what_is_shown_means_the_same(self) -> None:
        """The text for people is good zone text, in ASCII: in the generic form where a field has
        none of its own, and with quotes and backslashes as numbers."""
        for rtype, text, spaced in self.ROWS:
            shown = wire.show_rdata(wire.parse_type(rtype), octets(spaced))
            with self.subTest(f"{rtype} {text}"):
                self.assertRegex(shown, r"\A[ -~]+\Z")
                self.assertEqual(rdata(rtype, shown), octets(spaced))
                if not shown.startswith("\\#"):
                    self.assertEqual(shown.replace(r"\034", r"\"").replace(r"\092", r"\\"), text)
                self.assertEqual(shown.startswith("\\#"), bool(re.match(
                    "CAA|HTTPS|SVCB|URI|CERT|CDNSKEY|OPENPGPKEY|DHCID|DNSKEY|TYPE", rtype)))

    def test_generic_form_of_known_types(self) -> None:
        r"""Any rdata can be written as \# length hex, whatever its type (RFC 3597 5)."""
        for rtype, _, spaced in self.ROWS:
            size = len(octets(spaced))
            self.assertEqual(rdata(rtype, rf"\# {size} {spaced}"), octets(spaced))
        self.assertEqual(rdata("A", r"\# 4 c0 00 0201"), octets("c0000201"))

    # Type, a text, and the text that is shown of what it means.
    OTHER_WAYS = rows(r"""
        AAAA    | 2001:DB8:0::1                           | 2001:db8::1
        MX      | 010 mx.                                 | 10 mx.
        SOA     | n. h. 1 2h 30m 2w 1m                    | n. h. 1 7200 1800 1209600 60
        URI     | 1 2 foo                                 | 1 2 "foo"
        NAPTR   | 1 2 U E2U !a!b! .                       | 1 2 "U" "E2U" "!a!b!" .
        HTTPS   | 1 . port=80 alpn=h2                     | 1 . alpn="h2" port=80
        HTTPS   | 1 . port="80" ipv4hint="192.0.2.1"      | 1 . port=80 ipv4hint=192.0.2.1
        SVCB    | 1 . port=80 key667=                     | 1 . port=80 key667
        SVCB    | 1 . mandatory=port,alpn port=1 alpn=a   | 1 . mandatory=alpn,port alpn="a" port=1
        SVCB    | 1 . alpn=\104\050                       | 1 . alpn="h2"
        SVCB    | 16 f. alpn=f\\\092oo\092,bar,h2         | 16 f. alpn="f\\\\oo\\,bar,h2"

        # Algorithms and certificates by name: RFC 4034 5.3 and A.1, RFC 4398 2.1.
        DS      | 1 2 3 AB cd                             | 1 2 3 abcd
        DS      | 1 RSASHA1 1 ab                          | 1 5 1 ab
        DS      | 1 ed25519 2 ab                          | 1 15 2 ab
        DS      | 1 RSASHA1-NSEC3-SHA1 1 ab               | 1 7 1 ab
        DS      | 1 NSEC3RSASHA1 1 ab                     | 1 7 1 ab
        CDS     | 1 ECDSAP256SHA256 2 AB cd               | 1 13 2 abcd
        CDNSKEY | 257 3 PRIVATEOID AA EC                  | 257 3 254 AAEC
        CERT    | PKIX 1 RSASHA256 AAEC Aw==              | 1 1 8 AAECAw==
        CERT    | oid 1 0 AAEC                            | 254 1 0 AAEC

        # RFC 9460 2.1: the value of keyN is what goes over the wire, of known ones too.
        SVCB    | 1 . key1=\002h2                         | 1 . alpn="h2"
        SVCB    | 1 . key3=\001\187                       | 1 . port=443
        SVCB    | 1 . key3=80                             | 1 . port=14384
        SVCB    | 1 . key0=\000\001 key1=\002h2           | 1 . mandatory=alpn alpn="h2"
        SVCB    | 1 . key1=\002h2 key2                    | 1 . alpn="h2" no-default-alpn
        SVCB    | 1 . key4=\192\000\002\001               | 1 . ipv4hint=192.0.2.1
        SVCB    | 1 . key5=\000\001                       | 1 . ech=AAE=
        SVCB    | 1 . key7=/{?dns} key8                   | 1 . dohpath="/{?dns}" ohttp

        # Quotes within words, as BIND reads them.
        TXT     | a                                       | "a"
        TXT     | \"a\;\ b                                | "\"a; b"
        TXT     | a"b"                                    | "a" "b"
        TXT     | "a"b                                    | "a" "b"
        TXT     | "a""b"c"d e"                            | "a" "b" "c" "d e"
        TXT     | v="x"                                   | "v=" "x"
        TXT     | a\"b"c"                                 | "a\"b" "c"
        HINFO   | a"b"                                    | "a" "b"
        """)

    def test_other_ways_to_write_the_same(self) -> None:
        """Spelling and order do not matter; what is shown is always written in one way."""
        # A string may hold the end of a line (RFC 1035 5.1), and what is no ASCII is UTF-8.
        odd = [
            ("SVCB", "1 . key6=abcdefghijklmnop",
             "1 . ipv6hint=6162:6364:6566:6768:696a:6b6c:6d6e:6f70"),
            ("TXT", '"a\nb"', r'"a\010b"'),
            ("TXT", '"a\\\nb\r\n"', r'"a\010b\013\010"'),
            ("TXT", 'a"\n"', r'"a" "\010"'),
            ("TXT", "a\u00a0\x0cb", r'"a\194\160\012b"'),
            ("TXT", '"\u00e9"', r'"\195\169"'),
            ("TXT", "\udcff \udc80", r'"\255" "\128"')]
        for rtype, text, shown in [*self.OTHER_WAYS, *odd]:
            with self.subTest(text):
                self.assertEqual(show_rdata(wire.parse_type(rtype), rdata(rtype, text)), shown)
        with self.assertRaisesRegex(wire.BadText, "a value is missing"):  # a comment
            rdata("CAA", "0 issue ;")

    def test_equal_but_for_the_case_of_names(self) -> None:
        """RFC 2181 5, RFC 4343: names in rdata are compared without case, all else is not."""
        for rtype, one, other, verdict in rows(r"""
                CNAME   | A.B.            | a.b.            | equal
                MX      | 1 Mail.         | 1 mail.         | equal
                MX      | 1 mail.         | 2 mail.         | different
                SRV     | 1 2 3 A.        | 1 2 3 a.        | equal
                SOA     | N. H. 1 2 3 4 5 | n. h. 1 2 3 4 5 | equal
                NAPTR   | 1 2 a b c D.    | 1 2 a b c d.    | equal
                NAPTR   | 1 2 a b c d.    | 1 2 A b c d.    | different
                HTTPS   | 1 A. alpn=h2    | 1 a. alpn=h2    | equal
                HTTPS   | 1 a. alpn=h2    | 1 a. alpn=H2    | different
                TXT     | a               | A               | different
                A       | 65.65.65.65     | 97.97.97.97     | different
                URI     | 1 2 A           | 1 2 a           | different
                TYPE999 | \# 1 41         | \# 1 61         | different
                TYPE999 | \# 0            | \# 0            | equal
                """):
            with self.subTest(f"{rtype} {one} {other}"):
                number = wire.parse_type(rtype)
                equal = (wire.rdata_key(number, rdata(rtype, one))
                         == wire.rdata_key(number, rdata(rtype, other)))
                self.assertEqual(equal, verdict == "equal")

    def test_words_may_come_in_any_sequence(self) -> None:
        """A tuple is left as it is; the origin completes the names."""
        self.assertEqual(wire.parse_rdata(wire.A, (r"\#", "4", "c0000201")), octets("c0000201"))
        self.assertEqual(wire.parse_rdata(wire.MX, ("1", "mx"), EXAMPLE), b"\0\1\2mx" + EXAMPLE)

    # Type, and texts that are no rdata of it: a word is missing or too many, a number is too large
    # or not written in plain digits, a name, address or digest is none. An empty cell is no word.
    BAD = rows(r"""
        A | | 1.2.3 | 1.2.3.256 | 01.2.3.4 | 1.2.3.4 5.6.7.8 | ::1 | "1.2.3.4"
        AAAA | 1.2.3.4 | fe80::1%eth0 | ::: | g::
        NS | | a..b | "a."
        MX | 10 | mx. | 65536 mx. | -1 mx. | 1_0 mx. | +1 mx. | 1 a b | 1"b"
        SRV | 1 2 3
        SOA | a. b. 1 2 3 4 | a. b. 4294967296 1 1 1 1 | a. b. 1 4294967296 1 1 1 | a. b. 1 x 1 1 1
        TXT | | "\256"
        CAA | 0 issue | 256 issue x | 0 is-sue "x" | 0 "" x | 0 issue a b | 0 issue a"b"
        DS | 1 2 3 | 1 2 3 abc | 1 2 3 xy | 1 2 256 ab
        DS | 1 RSA 1 ab | 1 256 1 ab | 1 -1 1 ab
        SSHFP | 1 1
        HINFO | a | "a b" | a b c
        NAPTR | 1 2 a b c | 1 2 a b c d. e | 1 x a b c d.
        RP | a.
        AFSDB | a.
        URI | 1 2 "" | 1 2 | 1 2 a b | x 2 a
        CERT | PKIX 1 0 | PKIY 1 0 AAEC | 65536 1 0 AAEC | 1 1 0 AAE
        CDNSKEY | 0 3 0 | 0 3 x AAEC
        OPENPGPKEY | | !
        DHCID |
        LOC | 1 N 1 E 1m
        RRSIG | A 8 2 60 1 1 1 a. abcd
        NSEC | a. A
        TYPE731 | abcd | \# 2 ab | \# x ab | \# | \# -1 | \# 65536 | \# 1_0 | \# 1 a | \# \u0661 ab

        # RFC 9460 2.1, 7 and 8: keys, and what their values look like
        SVCB | 1 | 1 . x | 1 . =a | 1 . "port=1" | 1 . Alpn=h2
        SVCB | 1 . key65535=a | 1 . key01=a | 1 . key99999=a | 1 . keyx=a
        SVCB | 1 . port | 1 . port=65536 | 1 . port=x | 1 . port=44\051 | 1 . port=1 port=1
        SVCB | 1 . alpn | 1 . alpn="" | 1 . alpn=a,,b | 1 . alpn=, | 1 . alpn=a"b"
        SVCB | 1 . alpn=a\\b | 1 . alpn=a\\
        SVCB | 1 . no-default-alpn=a | 1 . no-default-alpn | 1 . no-default-alpn port=1
        SVCB | 1 . ipv4hint | 1 . ipv4hint=::1 | 1 . ipv4hint=1.2.3.4, | 1 . ipv4hint=1\.2.3.4
        SVCB | 1 . ipv6hint=::1%eth0 | 1 . ipv6hint=\058:1
        SVCB | 1 . ech | 1 . ech=A | 1 . ech=AA==A | 1 . ech=AA\061=
        SVCB | 1 . mandatory | 1 . mandatory=mandatory | 1 . mandatory=port | 1 . mandatory=x
        SVCB | 1 . mandatory=port,port port=1 | 1 . mandatory=a\lpn alpn=h2
        SVCB | 1 . mandatory="al\112n" alpn=h2
        SVCB | 1 . dohpath | 1 . dohpath=q{?dns} | 1 . dohpath=/q | 1 . ohttp=a

        # RFC 9460 2.1 and 7: keyN is taken as it is, and held against the same shape
        SVCB | 1 . key3=1 port=1 | 1 . key1=\002h2 alpn=h3
        SVCB | 1 . key0=\000 | 1 . key1=h2 | 1 . key2=a | 1 . key2 | 1 . key3=443
        SVCB | 1 . key4=\192\000\002 | 1 . key5 | 1 . key7=/q | 1 . key8=a
        """)

    # The same, of letters and digits of other scripts, and of texts that are too long.
    BAD += [
        ["A", "\u0661.2.3.4"],
        ["MX", "\u00b2 mx.", "9" * 5000 + " mx."],
        ["NS", "b\u00fc."],
        ["TXT", '"' + "a" * 256 + '"'],
        ["CAA", '0 i\u00e9 "x"'],
        ["DS", "1 2 3 \u00e9\u00e9", "1 RSA\u017fHA1 1 ab", "1 \u00b2 1 ab"],
        ["CERT", "1 1 0 \u00e9"],
        ["SVCB", "1 . port=\u0661", "1 . ech=\u00e9"],
        ["SVCB", "1 . alpn=" + "a" * 256, "1 . key" + "1" * 5000 + "=a"],
        ["TYPE731", rf"\# {'1' * 5000}"]]

    def test_what_is_no_rdata_is_refused(self) -> None:
        """As words of a zone, and cut at each blank, as no zone would be."""
        for rtype, *texts in self.BAD:
            for text in texts:
                with self.subTest(f"{rtype} {text[:40]}"), self.assertRaises(wire.BadText):
                    rdata(rtype, text)
                with self.subTest(f"{rtype} {text[:40]}, split at blanks"):
                    self.assertRaises(wire.BadText, wire.parse_rdata, wire.parse_type(rtype),
                                      text.split())

    def test_generic_form_must_hold_the_type(self) -> None:
        """Octets that are wrong for their type are refused, and shown as nothing but octets."""
        for rtype, why, spaced in rows("""
                A    | three octets            | c0 00 02
                A    | five octets             | c0 00 02 01 05
                NS   | a pointer               | c0 00
                TXT  | no string               |
                TXT  | half a string           | 05 61
                DS   | no digest               | 00 01 02 03
                CAA  | a tag of no letters     | 00 00
                CAA  | the tag -               | 00 01 2d
                SVCB | a port of one octet     | 00 01 00 00 03 00 01 50
                SVCB | key2 twice              | 00 01 00 00 02 00 00 00 02 00 00
                SVCB | port before key2        | 00 01 00 00 03 00 02 00 50 00 02 00 00
                SVCB | key65535                | 00 01 00 ff ff 00 00
                SVCB | an alpn of no octets    | 00 01 00 00 01 00 01 00
                SVCB | mandatory, not there    | 00 01 00 00 00 00 02 00 03
                SVCB | half a parameter        | 00 01 00 00
                """):
            data = octets(spaced)
            with self.subTest(why, rtype=rtype):
                self.assertRaises(wire.BadText, rdata, rtype, rf"\# {len(data)} {spaced}")
                shown = show_rdata(wire.parse_type(rtype), data)
                self.assertTrue(shown.startswith(rf"\# {len(data)}"))

    def test_pointer_in_generic_form(self) -> None:
        """RFC 3597 4: it would point into a message that is not there."""
        pointing = octets("0b 61 61 61 61 61 61 61 61 61 61 61 00  01 61 c0 0c") + bytes(20)
        self.assertRaises(wire.BadText, rdata, "SOA", rf"\# {len(pointing)} {pointing.hex()}")
        self.assertEqual(show_rdata(6, pointing), rf"\# {len(pointing)} {pointing.hex()}")

    def test_rdata_ends_where_it_says(self) -> None:
        """Fields never read the octets behind the rdata, nor go back to its end."""
        for rtype, sizes in (("DS", (2, 3, 4)), ("CAA", (0, 1)), ("TLSA", (2,)), ("A", (3,)),
                             ("TXT", (0, 2)), ("MX", (2,)), ("SVCB", (2, 6))):
            for size in sizes:
                reader = wire.Reader(octets("00 01 01 00 01 01 01 01 01 01 01 01"))
                with self.subTest(rtype, size=size), self.assertRaises(wire.Malformed):
                    wire.read_rdata(reader, wire.TYPES[rtype], size)

    def test_what_answers_with_an_address(self) -> None:
        """An address of either kind, or a host name as a CNAME."""
        self.assertEqual(wire.address_rdata("192.0.2.1"), (wire.A, octets("c0000201")))
        self.assertEqual(wire.address_rdata("2001:db8::1"),
                         (wire.AAAA, octets("20010db8" + "00" * 11 + "01")))
        self.assertEqual(wire.address_rdata("www.example.com"), (wire.CNAME, WWW))
        for text in ("192.0.2.1", "2001:db8::1", "www.example.com."):
            self.assertEqual(wire.show_address(*wire.address_rdata(text)), text)

    def test_rdata_has_64_kb_at_most(self) -> None:
        """Its length has 16 bits (RFC 1035 3.2.1)."""
        longest = [r"\#", "65535", "00" * 65535]
        self.assertEqual(len(wire.parse_rdata(999, longest)), 65535)
        with self.assertRaises(wire.BadText):
            wire.parse_rdata(wire.TYPES["TXT"], ["a" * 255] * 257)

    def test_quotes_count_as_a_pair_only(self) -> None:
        """Around the whole word; within a string they are escaped."""
        for text, data in (
                ('""', b""),
                ("a", b"a"),
                ('"a b"', b"a b"),
                (r'"\"\\\010"', b'"\\\n')):
            self.assertEqual(wire.unquote(text), data)
        self.assertEqual(quote(b'a"\\\n\xff'), r'"a\"\\\010\255"')
        for text in ('"', '"a', 'a"', '"a"b"', '"a\\"', "\\"):
            with self.subTest(text), self.assertRaises(wire.BadText):
                wire.unquote(text)


class PureQueries(unittest.TestCase):
    """decode_query: what is read, and which rule each rcode stands for.

    NOERROR   nothing is wrong (with the query; a zone may have another view of its name)
    FORMERR   the octets break the protocol, so not all of them could be read
    NOTIMP    an opcode but QUERY: what follows the header means something else
    REFUSED   a class but IN
    BADVERS   a version of EDNS but 0
    SILENT    no reply at all: there is no id, or the packet is a reply itself
    """

    PLAIN = octets("1234 0100 0001 0000 0000 0000"           # id, RD, one question
                   "03 57 77 77 07 65 78 61 6d 70 6c 65 03 63 6f 6d 00  0001 0001")
    FULL = octets("beef 0120 0001 0000 0000 0001"            # id, RD and AD, a question and OPT
                  "03 77 77 77 07 65 78 61 6d 70 6c 65 03 63 6f 6d 00  001c 0001"
                  "00 0029 1000 00008000 0023"               # 4096 octets, version 0, DO
                  "0003 0000"                                # NSID
                  "000a 0008 0102030405060708"               # a client cookie
                  "0008 0007 0001 18 00 c00002"              # 192.0.2.0/24
                  "fde9 0004 61626364")                      # 65001: for local use

    def rcode(self, packet: bytes, rcode: int, why: str = "") -> None:
        """Check the rcode of a query and why it has it, and that a reply to it can be read.

        A reply to a mistake is no longer than the query, so nobody can use it to flood others.
        """
        query = wire.decode_query(packet)
        self.assertEqual(query.rcode, rcode, query.why)
        self.assertEqual(bool(rcode), bool(query.why))
        self.assertIn(why, query.why)
        reply = wire.Writer(query, query.limit(False)).finish(query.rcode)
        message = decode_message(reply)
        self.assertEqual(message.id, query.id)
        self.assertEqual(message.flags & 15, rcode & 15)
        self.assertLessEqual(len(reply), len(packet) + 11 * query.has_opt)

    def test_plain_query(self) -> None:
        """Every field of Query, where a query has a question and nothing else."""
        query = wire.decode_query(self.PLAIN)
        self.assertEqual((query.id, query.flags), (0x1234, 0x0100))
        self.assertEqual((query.rcode, query.why), (wire.NOERROR, ""))
        self.assertEqual((query.qname, query.key), (b"\3Www\7example\3com\0", WWW))
        self.assertEqual((query.qtype, query.question), (wire.A, self.PLAIN[12:]))
        self.assertEqual((query.has_opt, query.payload), (False, 512))
        self.assertEqual((query.opt_flags, query.options, query.subnet), (0, {}, None))
        self.assertEqual((query.limit(False), query.limit(True)), (512, 65535))

    def test_full_query(self) -> None:
        """Every field that OPT fills (RFC 6891 6.1.2)."""
        query = wire.decode_query(self.FULL)
        self.assertEqual((query.rcode, query.qtype), (wire.NOERROR, wire.AAAA))
        self.assertEqual((query.has_opt, query.payload), (True, 4096))
        self.assertEqual(query.opt_flags, wire.EDNS_DO)
        self.assertEqual(query.options, {
            wire.NSID: b"",
            wire.COOKIE: bytes(range(1, 9)),
            wire.ECS: octets("0001 18 00 c00002"),
            65001: b"abcd"})
        self.assertEqual(query.subnet, wire.Subnet(1, 24, b"\xc0\0\2"))
        self.assertEqual((query.limit(False), query.limit(True)), (1232, 65535))

    def test_silence_below_a_header(self) -> None:
        """There is no id to answer to; from 12 octets on there is an answer, or it is a reply."""
        for filling in (b"\0", b"\xff"):
            for size in range(12):
                with self.assertRaises(wire.Malformed) as caught:
                    wire.decode_query(filling * size)
                self.assertEqual((caught.exception.rcode, str(caught.exception)),
                                 (wire.SILENT, f"less than a header at byte {size}"))
        for size in range(12, 18):
            self.rcode(bytes(size), wire.FORMERR, "0 questions")
            self.assertRaises(wire.Malformed, wire.decode_query, b"\xff" * size)

    def test_silence_for_replies(self) -> None:
        """An answer to an answer is how two servers start to talk to each other for ever."""
        for flags in (0x8000, 0x8180, 0xFFFF):
            with self.assertRaises(wire.Malformed) as caught:
                wire.decode_query(ask(flags=flags))
            self.assertEqual(caught.exception.rcode, wire.SILENT)

    def test_opcodes(self) -> None:
        """RFC 8906 3.1.4: NOTIMP with the opcode, whatever follows the header."""
        for opcode in range(1, 16):
            for rest in (b"", b"\xff" * 20):
                packet = ask(flags=opcode << 11)[:12] + rest
                self.rcode(packet, wire.NOTIMP, f"opcode {opcode}")
                query = wire.decode_query(packet)
                reply = wire.Writer(query, 512).finish(query.rcode)
                flags = 0x8004 | opcode << 11
                self.assertEqual(reply, octets(f"1234 {flags:04x}") + bytes(8))

    def test_opcodes_keep_opt_where_it_can_be_read(self) -> None:
        """RFC 6891 7, RFC 8906 3.1.4: but for OPT, nothing that follows the header is wrong, or
        repeated; RD has a meaning for QUERY only."""
        cookie, seen = "000a 0008 0102030405060708", {wire.COOKIE: bytes(range(1, 9))}
        zone = ask(qtype=6, counts=(0, 1, 1), rest=octets("c00c 00ff 00ff 00000000 0000") + opt())
        none = octets("0000 0000 0000 0000 0000 0001") + opt(cookie)  # as of dig +header-only
        twice = ask(counts=(0, 0, 2), rest=opt() * 2)
        # What the packet is, and the options of the OPT that can be read; None = there is none.
        for what, packet, options in (
                ("query", edns(), {}),
                ("options", edns(cookie), seen),
                ("class ANY", ask(qclass=255, counts=(0, 0, 1), rest=opt()), {}),
                ("EDNS 1", edns("ffff", ttl=1 << 16), {}),
                ("update", zone, {}),
                ("no question", none, seen),
                ("no OPT", ask(), None),
                ("header", ask()[:12], None),
                ("two questions", none[:5] + b"\2" + none[6:], None),
                ("cut off", edns()[:-1], None),
                ("half an option", edns("000300"), None),
                ("half a cookie", edns("0003 0000 000a 0001 ff"), None),
                ("bad subnet", edns("0008 0001 ff"), None),
                ("two OPT", twice, None)):
            for opcode in range(1, 16):
                flags = (opcode << 11 | 0x0100).to_bytes(2, "big")
                query = wire.decode_query(packet[:2] + flags + packet[4:])
                with self.subTest(what, opcode=opcode):
                    self.assertEqual(query.rcode, wire.NOTIMP)
                    self.assertEqual(query.why, f"opcode {opcode} at byte 2")
                    self.assertEqual((query.qname, query.question), (b"", b""))
                    self.assertEqual(query.has_opt, options is not None)
                    self.assertEqual(query.options, options or {})
                    reply = wire.Writer(query, 512).finish(query.rcode)
                    expected = packet[:2] + octets(f"{0x8004 | opcode << 11:04x}") + bytes(7)
                    expected += b"\1" + opt() if query.has_opt else b"\0"
                    self.assertEqual(reply, expected)

    def test_number_of_questions(self) -> None:
        """A query has one question (RFC 9619), whatever follows the header."""
        for count in (0, 2, 65535):
            for rest in (b"", self.PLAIN[12:], self.PLAIN[12:] * 2):
                head = self.PLAIN[:4] + count.to_bytes(2, "big") + bytes(6)
                self.rcode(head + rest, wire.FORMERR, f"{count} questions")

    def test_counts_without_octets(self) -> None:
        """Counts are promises of a stranger: nothing is set aside for them."""
        before, behind = self.PLAIN[:6], self.PLAIN[12:]
        for section in range(3):
            for count in (1, 2, 16, 17, 65535):
                counts = [0, 0, 0]
                counts[section] = count
                header = before + b"".join(each.to_bytes(2, "big") for each in counts)
                self.rcode(header + behind, wire.FORMERR)
        self.rcode(before + b"\xff" * 6 + behind, wire.FORMERR, "196605 records")

    def test_pointers_and_long_names_in_the_question(self) -> None:
        """Nothing before the question can be pointed to; the reply is FORMERR of 12 octets."""
        for name in (
                "c00c", "c00d", "c000", "c004", "c0", "ffff", "0161c00c", "c00ec00c",
                "40", "80", "7f", "bf",
                "40" + "61" * 64 + "00",
                ("3f" + "61" * 63) * 4 + "00",
                "0161" * 126 + "026161" + "00",
                "0161" * 128 + "00"):
            packet = ask(octets(name))
            self.rcode(packet, wire.FORMERR)
            query = wire.decode_query(packet)
            self.assertEqual(wire.Writer(query, 512).finish(query.rcode),
                             octets("1234 8101") + bytes(8))
            self.assertEqual((query.qname, query.question), (b"", b""))

    def test_longest_labels_and_names(self) -> None:
        """A label of 63 octets, names of 255, and the root (RFC 1035 2.3.4)."""
        for name in (
                "3f" + "61" * 63 + "00",
                ("3f" + "61" * 63) * 3 + "3d" + "61" * 61 + "00",
                "0161" * 127 + "00",
                "00"):
            self.rcode(ask(octets(name)), wire.NOERROR)

    def test_classes_and_types(self) -> None:
        """The question is read, whatever is asked for, so that the reply repeats it."""
        for qclass in (0, 3, 4, 254, 255, 65535):
            self.rcode(ask(qclass=qclass), wire.REFUSED, f"class {qclass}")
            self.assertEqual(wire.decode_query(ask(qclass=qclass)).qname, WWW)
        for qtype in (41, 249, 250):
            self.rcode(ask(qtype=qtype), wire.FORMERR, f"type {qtype}")
        for qtype in (0, 1, 251, 252, 253, 254, 255, 65535):
            self.rcode(ask(qtype=qtype), wire.NOERROR)

    # What `decode_query` finds wrong with odd packets, numbers left out.
    FOUND = """
        less than a header | a reply, not a query | opcode | questions | class
        type as a question | records in a query | names of more than octets in a query
        an OPT that is not alone, at the root, in additional | EDNS version | more than options
        a cookie of octets | a client subnet that contradicts itself | octets wanted, the data ends
        the data ends inside a name | label type | a name longer than octets
        a pointer to, which is no earlier name"""

    def test_odd_packets_are_wrong_in_every_way(self) -> None:
        """The generator serves other tests and bench/: here is what they can rely on."""
        packets, found, types = OddPackets(1).make(5000), set(), set()
        for packet in packets:
            self.assertLessEqual(len(packet), 1400)
            try:
                why = wire.decode_query(packet).why
            except wire.Malformed as bad:
                self.assertEqual(bad.rcode, wire.SILENT)
                why = str(bad)
            found.add(re.sub(r"( at)? byte \d+| ?\b(0x[0-9a-f]+|\d+)\b", "", why).strip())
            with contextlib.suppress(wire.Malformed):
                types |= {record.type for each in decode_message(packet).sections
                          for record in each}
        wanted = {each.strip() for each in re.split(r"[|\n]", self.FOUND)}
        self.assertEqual(found, wanted)
        self.assertGreaterEqual(types, {*wire.TYPES.values()} - {*range(249, 256)})
        self.assertEqual(OddPackets(1).make(99), packets[:99])
        self.assertNotEqual(OddPackets(2).make(99), packets[:99])

    def test_octets_behind_the_message(self) -> None:
        """They are ignored, and never repeated."""
        for packet in (self.PLAIN, self.FULL):
            query = wire.decode_query(packet + b"\xc0\x0c" * 50)
            self.assertEqual(query.rcode, wire.NOERROR)
            self.assertEqual(query.question, wire.decode_query(packet).question)

    def test_records_besides_the_question(self) -> None:
        """They are stepped over unread, up to sixteen; so is a signature, behind OPT."""
        record = octets("c00c 0001 0001 00000000 0003 c00000")
        for counts, there, rcode, why in (
                ((5, 5, 6), 16, wire.NOERROR, ""),
                ((5, 5, 6), 15, wire.FORMERR, "the data ends"),
                ((5, 6, 6), 17, wire.FORMERR, "17 records"),
                ((0, 0, 5000), 5000, wire.FORMERR, "5000 records")):
            self.rcode(ask(counts=counts, rest=record * there), rcode, why)
        tsig = octets("00 00fa 00ff 00000000 0002 abcd")
        self.rcode(ask(counts=(0, 0, 2), rest=opt() + tsig), wire.NOERROR)

    def test_sizes_of_replies(self) -> None:
        """RFC 6891 6.2.3: under 512 means 512; more than 1232 might be fragmented."""
        for payload, limit in rows("""
                0     | 512
                511   | 512
                512   | 512
                1231  | 1231
                1232  | 1232
                4096  | 1232
                65535 | 1232
                """):
            query = wire.decode_query(edns(payload=int(payload)))
            self.assertEqual(query.limit(False), int(limit))
            self.assertEqual(query.limit(True), 65535)

    def test_versions_of_edns(self) -> None:
        """RFC 6891 6.1.3: BADVERS before anything else of OPT is looked at."""
        for version in (1, 2, 255):
            self.rcode(edns("ffff", ttl=version << 16), wire.BADVERS, f"EDNS version {version}")
        query = wire.decode_query(edns(ttl=1 << 16 | 0x8000))
        reply = wire.Writer(query, 512).finish(query.rcode)
        self.assertEqual(reply, octets("1234 8100 0001 0000 0000 0001") + query.question
                         + octets("00 0029 04d0 01008000 0000"))

    def test_extended_rcode_and_flags_are_ignored(self) -> None:
        """What they mean in a query nobody has said."""
        query = wire.decode_query(edns(ttl=0xFF00FFFF))
        self.assertEqual((query.rcode, query.opt_flags), (wire.NOERROR, 0xFFFF))

    def test_opt_out_of_place(self) -> None:
        """RFC 6891 6.1.1: one at most, its owner the root, in the additional section."""
        for why, counts, rest in (
                ("two", (0, 0, 2), opt() + opt()),
                ("two versions", (0, 0, 2), opt() + opt(ttl=1 << 16)),
                ("owner a.", (0, 0, 1), b"\1a" + opt()),
                ("owner a pointer", (0, 0, 1), b"\xc0\x0c" + opt()[1:]),
                ("in answer", (1, 0, 0), opt()),
                ("in authority", (0, 1, 0), opt()),
                ("in answer too", (1, 0, 1), opt() * 2)):
            with self.subTest(why):
                packet = ask(counts=counts, rest=rest)
                self.rcode(packet, wire.FORMERR, "an OPT that is not alone")

    def test_opt_that_runs_over_its_end(self) -> None:
        """Its length ends behind the packet, or an option's behind its length."""
        self.rcode(edns()[:-1] + b"\1", wire.FORMERR)
        for options in ("00", "0003", "000300", "0003 0001", "0003 0000 00", "0003 ffff 00"):
            self.rcode(edns(options), wire.FORMERR)

    def test_number_of_options(self) -> None:
        """What reading costs is counted: sixteen, of any code."""
        for one in ("fde9 0000", "0003 0000", "0008 0004 0001 00 00"):
            self.rcode(edns(one * 16), wire.NOERROR)
            self.rcode(edns(one * 17), wire.FORMERR, "more than 16 options")
        self.rcode(edns("".join(f"{code:04x} 0000" for code in range(65000, 65350))),
                   wire.FORMERR, "more than 16 options")

    def test_octets_of_names(self) -> None:
        """What reading costs is counted: 1024 octets, written out, and 16 for each pointer."""
        long, rest = b"\1a" * 127 + ROOT, octets("0001 0001 00000000 0000")
        middle, pointer = b"\x2f" + b"a" * 47 + EXAMPLE, b"\xc0\x0c"
        too_long = wire.FORMERR, "names of more than 1024 octets"
        # The name asked for, the owner of the records behind it, their number, rcode and why.
        for name, owner, count, verdict in (
                (long, long, 3, (wire.NOERROR,)),
                (long, long, 4, too_long),
                (long, pointer, 2, (wire.NOERROR,)),
                (long, pointer, 3, too_long),
                (ROOT, ROOT, 16, (wire.NOERROR,)),
                (WWW, pointer, 16, (wire.NOERROR,)),
                (middle, pointer, 16, too_long)):
            packet = ask(name, counts=(count,), rest=(owner + rest) * count)
            self.rcode(packet, *verdict)
        signed = pointer + rest + long + rest + opt()  # IXFR, signed with TSIG
        self.rcode(ask(long, counts=(0, 1, 2), rest=signed), wire.NOERROR)

    def test_unknown_and_double_options(self) -> None:
        """RFC 6891 6.1.2: unknown ones are ignored; RFC 7873 5.2: the first of several counts."""
        self.rcode(edns("0000 0000  ffff 0001 00"), wire.NOERROR)
        query = wire.decode_query(edns("000a 0008 0000000000000001  000a 0001 ff"
                                       "0008 0004 0001 00 00  0008 0001 ff"))
        self.assertEqual((query.rcode, query.options[10], query.subnet),
                         (0, bytes(7) + b"\1", None))

    def test_cookies(self) -> None:
        """RFC 7873 5.2.2: 8 octets of the client's, alone or with 8 to 32 of the server's."""
        for size in range(60):
            packet = edns(f"000a {size:04x}" + "ab" * size)
            if size == 8 or 16 <= size <= 40:
                self.rcode(packet, wire.NOERROR)
            else:
                self.rcode(packet, wire.FORMERR, f"a cookie of {wire.plural(size, 'octet')}")

    def test_subnets(self) -> None:
        """The option, and what it says: family, bits of the prefix, address (RFC 7871 6).

        With a prefix of no bits the client asks for no use of its address (7.1.2).
        """
        for option, family, prefix, address in rows("""
                0001 20 00 c0000201                         | 1 | 32  | c0000201
                0001 18 00 c00002                           | 1 | 24  | c00002
                0001 17 00 c000fe                           | 1 | 23  | c000fe
                0001 01 00 80                               | 1 | 1   | 80
                0002 38 00 20010db8000000                   | 2 | 56  | 20010db8000000
                0002 80 00 20010db8000000000000000000000001 \
                                 | 2 | 128 | 20010db8000000000000000000000001
                0001 00 00                                  |   |     |
                0002 00 00                                  |   |     |
                0000 00 00                                  |   |     |
                """):
            query = wire.decode_query(edns(f"0008 {len(octets(option)):04x} {option}"))
            subnet = (int(family), int(prefix), octets(address)) if family else None
            self.assertEqual((query.rcode, query.subnet), (wire.NOERROR, subnet), option)

    def test_subnets_that_contradict_themselves(self) -> None:
        """What is wrong with an option; each is FORMERR (RFC 7871 6 and 7.1.2).

        The address has just the octets that its prefix needs, the bits behind the prefix are zero,
        and the scope is for replies only.
        """
        v6 = "20010db8000000000000000000000001"
        for why, option in rows(f"""
                nothing                   |
                no prefix                 | 0001
                no scope                  | 0001 18
                scope in a query          | 0001 18 18 c00002
                too few octets            | 0001 18 00 c000
                too many octets           | 0001 18 00 c0000200
                spare bits that are set   | 0001 17 00 c000ff
                prefix 33 of IPv4         | 0001 21 00 c000020180
                prefix 129 of IPv6        | 0002 81 00 {v6} 00
                prefix 255 of IPv6        | 0002 ff 00 {v6} {v6}
                family 3                  | 0003 18 00 c00002
                family 0                  | 0000 18 00 c00002
                an octet for prefix 0     | 0001 00 00 00
                """):
            with self.subTest(why):
                self.rcode(edns(f"0008 {len(octets(option)):04x} {option}"), wire.FORMERR)


class PureReplies(unittest.TestCase):
    """Writer: what it writes, decode_message reads back.

    Flags of replies are in hex: 8000 QR, a reply; 0400 AA, authoritative; 0200 TC, truncated; 0100
    RD, which the query of ask() has; the last digit is the rcode.
    """

    def write(self, packet: bytes, *added: tuple[int, bytes, int, int, list[bytes]], rcode: int = 0,
              limit: int = 0, authoritative: bool = True) -> bytes:
        """The reply to a query; `added` are section, owner, type, TTL and rdata of RRsets."""
        query = wire.decode_query(packet)
        writer = wire.Writer(query, limit or query.limit(False))
        for section, owner, rtype, ttl, rdatas in added:
            writer.add(section, owner, wire.RRset(rtype, ttl, rdatas))
        reply = writer.finish(rcode, authoritative)
        self.assertLessEqual(len(reply), limit or query.limit(False))
        decode_message(reply)
        return reply

    def test_full_reply(self) -> None:
        """Every octet of a reply with all sections, a CNAME and OPT.

        Names stand at these offsets: www.example.com. at 0c, in the question; example.com., the end
        of it, at 10; api.example.com. at 2d, in the CNAME; ns.example.com. at 5f, in the NS.
        """
        reply = self.write(
            edns(ttl=0x8000),
            (wire.ANSWER, WWW, wire.CNAME, 300, [b"\3api" + EXAMPLE]),
            (wire.ANSWER, b"\3api" + EXAMPLE, wire.A, 60, [b"\xc0\0\2\1", b"\xc0\0\2\2"]),
            (wire.AUTHORITY, EXAMPLE, wire.NS, 60, [b"\2ns" + EXAMPLE]),
            (wire.ADDITIONAL, b"\2NS" + EXAMPLE, wire.AAAA, 60, [bytes(16)]))
        self.assertEqual(reply, octets(
            "1234 8500 0001 0003 0001 0002"                             # QR AA RD
            "03 77 77 77  07 65 78 61 6d 70 6c 65  03 63 6f 6d 00  0001 0001"
            "c00c 0005 0001 0000012c 0006  03 61 70 69 c010"            # CNAME api.example.com.
            "c02d 0001 0001 0000003c 0004  c0 00 02 01"
            "c02d 0001 0001 0000003c 0004  c0 00 02 02"
            "c010 0002 0001 0000003c 0005  02 6e 73 c010"               # example.com. NS ns
            "c05f 001c 0001 0000003c 0010" + "00" * 16 +                # NS is ns
            "00 0029 04d0 00008000 0000"))                              # OPT with DO
        message = decode_message(reply)
        self.assertEqual((message.id, message.flags), (0x1234, 0x8500))
        self.assertEqual(message.questions, [(WWW, 1, 1)])
        answer, authority, additional = message.sections
        api = b"\3api" + EXAMPLE
        self.assertEqual(answer, [
            wire.Record(WWW, wire.CNAME, 1, 300, api),
            wire.Record(api, wire.A, 1, 60, b"\xc0\0\2\1"),
            wire.Record(api, wire.A, 1, 60, b"\xc0\0\2\2")])
        self.assertEqual(authority, [wire.Record(EXAMPLE, wire.NS, 1, 60, b"\2ns" + EXAMPLE)])
        self.assertEqual([each.type for each in additional], [wire.AAAA, wire.OPT])

    def test_nxdomain_with_soa(self) -> None:
        """Every octet of a negative answer (RFC 2308 3); both names of the SOA are compressed."""
        soa = rdata("SOA", "ns.example.com. host.example.com. 1 2 3 4 5")
        reply = self.write(ask(), (wire.AUTHORITY, EXAMPLE, wire.SOA, 5, [soa]),
                           rcode=wire.NXDOMAIN)
        self.assertEqual(reply, octets(
            "1234 8503 0001 0000 0001 0000"
            "03 77 77 77  07 65 78 61 6d 70 6c 65  03 63 6f 6d 00  0001 0001"
            "c010 0006 0001 00000005 0020  02 6e 73 c010  04 68 6f 73 74 c010"
            "00000001 00000002 00000003 00000004 00000005"))
        self.assertEqual(decode_message(reply).sections[1][0].rdata, soa)

    def test_flags(self) -> None:
        """Opcode and RD are copied; AA, TC, RA, Z, AD and CD never, whatever a query says."""
        for bits in range(128):
            flags = (bits & 7) << 8 | (bits >> 3) << 4  # AA TC RD and RA Z AD CD
            for authoritative, aa in ((False, 0), (True, 0x0400)):
                reply = self.write(ask(flags=flags | 7), authoritative=authoritative, rcode=5)
                expected = 0x8005 | aa | flags & 0x0100
                self.assertEqual(reply[2:4], expected.to_bytes(2, "big"))

    def test_edns_flags(self) -> None:
        """RFC 3225 3: DO is copied; RFC 6891 6.1.4: the others are zero. No OPT for no OPT."""
        for ttl, flags in (
                (0, 0),
                (0x8000, 0x8000),
                (0x7FFF, 0),
                (0xFF00FFFF, 0x8000)):
            [record] = decode_message(self.write(edns(ttl=ttl))).sections[wire.ADDITIONAL]
            self.assertEqual(record, wire.Record(ROOT, wire.OPT, 1232, flags, b""))
        self.assertEqual(decode_message(self.write(ask())).sections[wire.ADDITIONAL], [])

    def test_options_only_with_opt(self) -> None:
        """RFC 6891 6.1.1: a client that sent no OPT gets none, whatever there is to say."""
        for packet, expected in (
                (ask(), []),
                (edns(), [octets("0003 0002 6162  000f 0000")])):
            query = wire.decode_query(packet)
            reply = wire.Writer(query, 512, [(wire.NSID, b"ab"), (wire.EDE, b"")]).finish()
            found = [each.rdata for each in decode_message(reply).sections[wire.ADDITIONAL]]
            self.assertEqual(found, expected)

    def test_question_repeated_byte_for_byte(self) -> None:
        """In the case it was asked in, by which resolvers know their answers; with any octet."""
        for name in (
                b"\3wWw\7eXaMpLe\3CoM\0",
                b'\x0d.\0\\"\n\xff<script\3com\0',
                b"\x0bapi.example\3com\0",
                ROOT):
            packet = ask(name)
            reply = self.write(packet, (wire.ANSWER, name, wire.A, 1, [bytes(4)]))
            self.assertEqual(reply[12:len(packet)], packet[12:])
            self.assertEqual(decode_message(reply).sections[0][0].owner, name)

    def test_owner_in_another_case_points_to_the_question(self) -> None:
        """Names are compressed without looking at case (RFC 4343 4.1)."""
        packet = ask(b"\3WWW\7EXAMPLE\3com\0")
        reply = self.write(packet, (wire.ANSWER, WWW, wire.A, 1, [bytes(4)]))
        self.assertEqual(len(reply), len(packet) + 16)

    def test_label_with_a_dot_is_not_two_labels(self) -> None:
        """No pointer leads to example.com. for a label that only looks like it."""
        packet = ask(b"\x0bwww.example\3com\0")
        reply = self.write(packet, (wire.ANSWER, WWW, wire.A, 1, [bytes(4)]))
        self.assertEqual(decode_message(reply).sections[0][0].owner, WWW)

    def test_compressed_types(self) -> None:
        """RFC 3597 4: names in rdata of NS, CNAME, PTR, MX and SOA, and of no other type.

        The type, what stands in its rdata before the name a.example.com., and behind it.
        """
        for rtype, before, after in rows("""
                NS    |      |
                CNAME |      |
                PTR   |      |
                MX    | 0007 |
                SOA   |      | 00 00000001 00000002 00000003 00000004 00000005
                """):
            data = octets(before) + b"\1a" + EXAMPLE + octets(after)
            reply = self.write(ask(), (wire.ANSWER, WWW, wire.TYPES[rtype], 1, [data]))
            self.assertTrue(reply.endswith(octets(before + "01 61 c010" + after)), rtype)
            self.assertEqual(decode_message(reply).sections[0][0].rdata, data)

    def test_types_never_compressed(self) -> None:
        """RFC 2782 for SRV, RFC 9460 2.2 for SVCB and HTTPS, RFC 3597 4 for unknown ones."""
        for rtype, before in (("SRV", bytes(6)), ("SVCB", b"\0\1"), ("HTTPS", b"\0\0"),
                              ("TYPE999", b"")):
            data = before + WWW
            reply = self.write(ask(), (wire.ANSWER, WWW, wire.parse_type(rtype), 1, [data]))
            self.assertTrue(reply.endswith(data))
            self.assertEqual(decode_message(reply).sections[0][0].rdata, data)

    def test_no_pointer_beyond_14_bits(self) -> None:
        """Names behind octet 16383 are written and read back; nothing points there."""
        query = wire.decode_query(ask(b"\1q\0"))
        writer = wire.Writer(query, wire.TCP_MAX)
        owners = [b"\x0c%012d\2xy\0" % number for number in range(1500)]
        servers = [b"\2ns" + owner for owner in owners]
        for owner, server in zip(owners, servers, strict=True):
            writer.add(wire.ANSWER, owner, wire.RRset(wire.NS, 1, [server]))
        for server in reversed(servers):
            writer.add(wire.ADDITIONAL, server, wire.RRset(wire.A, 1, [bytes(4)]))
        reply = writer.finish()
        self.assertGreater(len(reply), 60_000)
        answer, _, additional = decode_message(reply).sections
        self.assertEqual([each.owner for each in answer], owners)
        self.assertEqual([each.rdata for each in answer], servers)
        written = [each.owner for each in additional]
        self.assertEqual(written, servers[::-1][:len(written)])

    def test_reply_of_exactly_the_limit(self) -> None:
        """512 octets fit, 513 do not, with and without OPT."""
        for packet in (ask(), edns(payload=512)):
            room = 512 - len(packet) - 12  # owner as a pointer, and the rest of a record
            reply = self.write(packet, (wire.ANSWER, WWW, 999, 1, [bytes(room)]))
            self.assertEqual((len(reply), decode_message(reply).flags), (512, 0x8500))
            reply = self.write(packet, (wire.ANSWER, WWW, 999, 1, [bytes(room + 1)]))
            self.assertEqual((len(reply), decode_message(reply).flags), (len(packet), 0x8700))

    def test_truncation_drops_whole_rrsets_and_keeps_opt(self) -> None:
        """RFC 2181 9, RFC 6891 7: what does not fit is left out, and all that follows it."""
        query = wire.decode_query(edns(ttl=0x8000, payload=512))
        writer = wire.Writer(query, 512, [(wire.NSID, b"here")])
        fits = [bytes([192, 0, 2, last]) for last in range(10)]
        too_many = [bytes(15) + bytes([last]) for last in range(50)]
        writer.add(wire.ANSWER, WWW, wire.RRset(wire.A, 1, fits))
        writer.add(wire.ANSWER, WWW, wire.RRset(wire.AAAA, 1, too_many))
        writer.add(wire.AUTHORITY, EXAMPLE, wire.RRset(wire.NS, 1, [b"\2ns" + EXAMPLE]))
        message = decode_message(writer.finish())
        self.assertEqual(message.flags, 0x8300)
        answer, authority, additional = message.sections
        self.assertEqual([each.rdata for each in answer], fits)
        self.assertEqual(authority, [])
        nsid = octets("0003 0004") + b"here"
        self.assertEqual(additional, [wire.Record(ROOT, wire.OPT, 1232, 0x8000, nsid)])

    def test_limit_of_tcp(self) -> None:
        """A reply has 65,535 octets at most: 4,093 addresses, and none of 4,094."""
        many = [number.to_bytes(4, "big") for number in range(5000)]
        for asked, written, truncated in (
                (4000, 4000, 0),
                (4093, 4093, 0),
                (4094, 0, 0x0200),
                (5000, 0, 0x0200)):
            rrset = wire.ANSWER, WWW, wire.A, 1, many[:asked]
            message = decode_message(self.write(ask(), rrset, limit=wire.TCP_MAX))
            self.assertEqual(len(message.sections[wire.ANSWER]), written)
            self.assertEqual(message.flags & 0x0200, truncated)

    def test_rdata_that_fits_no_message(self) -> None:
        """The longest there is: its reply is truncated over TCP too."""
        rrset = wire.ANSWER, WWW, 999, 1, [bytes(65535)]
        reply = self.write(ask(), rrset, limit=wire.TCP_MAX)
        self.assertEqual(decode_message(reply).flags, 0x8700)

    def test_no_question_no_pointer_to_it(self) -> None:
        """Where none was read there is none to repeat, and owners are written out."""
        query = wire.Query(1, 0)
        writer = wire.Writer(query, 512)
        writer.add(wire.ANSWER, WWW, wire.RRset(wire.CNAME, 1, [EXAMPLE]))
        [record] = decode_message(writer.finish()).sections[wire.ANSWER]
        self.assertEqual(record, wire.Record(WWW, wire.CNAME, 1, 1, EXAMPLE))


class PureWholeMessages(unittest.TestCase):
    """Reader in decode_message: strict, and never more work than the octets are worth."""

    def test_every_octet_counts(self) -> None:
        """A message ends with its last record, and before it nothing is missing."""
        good = PureQueries.FULL
        decode_message(good)
        for packet in (b"", bytes(11), good[:-1], good + b"\0", bytes(12) + b"\0"):
            with self.assertRaises(wire.Malformed):
                decode_message(packet)

    def test_counts_without_octets(self) -> None:
        """65,535 records are promised, and none is there."""
        for at in (4, 6, 8, 10):
            packet = bytes(at) + b"\xff\xff" + bytes(10 - at)
            with self.assertRaises(wire.Malformed):
                decode_message(packet)

    def test_compressed_rdata_is_read_whole(self) -> None:
        """RFC 3597 4: also in SRV, where others may have compressed what they should not."""
        packet = ask(counts=(1,), rest=octets("c00c 0021 0001 00000001 0008 000100020003 c010"))
        record = decode_message(packet).sections[0][0]
        self.assertEqual(record.rdata, octets("000100020003") + EXAMPLE)
        self.assertEqual(show_rdata(33, record.rdata), "1 2 3 example.com.")

    def test_long_chain_of_pointers(self) -> None:
        """64 KB, 2,000 names through a chain of 7,900 pointers, each of which leads back.

        Followed to its end for each name, the chain would cost 15,800,000 steps. The first record
        holds it as rdata; the others have its last pointer as their owner.
        """
        head = bytes(10) + (2000).to_bytes(2, "big")
        chain = octets("00 00ff 00ff 00000000") + (15801).to_bytes(2, "big") + ROOT
        where = len(head) + len(chain) - 1
        for _ in range(7900):
            here = len(head) + len(chain)
            chain += (0xC000 | where).to_bytes(2, "big")
            where = here
        record = (0xC000 | where).to_bytes(2, "big") + octets("00ff 00ff 00000000 0000")
        packet = head + chain + record * 1999
        self.assertLess(len(packet), 65536)
        self.assertRaisesRegex(wire.Malformed, "pointers", decode_message, packet)
        self.assertEqual(wire.decode_query(packet).rcode, wire.FORMERR)

    def test_many_short_chains(self) -> None:
        """Names that follow few pointers each are counted together in a query.

        Of a query no more than sixteen records are read; a whole message costs 16 pointers a name
        at most. Here each name follows as many as it may.
        """
        base = 28  # behind the header, the question, and the first record's owner and fixed part
        links = octets("c01c" + "".join(f"{0xC000 | base + 2 * i - 1:04x}" for i in range(1, 15)))
        first = ROOT + octets("00ff 0001 00000000 001f") + ROOT + links
        record = octets(f"{0xC000 | base + 29:04x} 00ff 0001 00000000 0000")  # 16 hops
        for count, rcode in (
                (4, wire.NOERROR),
                (5, wire.FORMERR),
                (16, wire.FORMERR),
                (5000, wire.FORMERR)):
            packet = ask(ROOT, counts=(count,), rest=first + record * (count - 1))
            self.assertEqual(wire.decode_query(packet).rcode, rcode)
            self.assertEqual(len(decode_message(packet).sections[wire.ANSWER]), count)


class PureZoneTexts(unittest.TestCase):
    """ZoneText: records from text, and where the mistakes in it are (RFC 1035 5).

    An entry is a line, or several where parentheses hold the ends of lines:

        [owner] [TTL] [class] type rdata     TTL and class in either order
        $ORIGIN name                         completes the names without a final dot
        $TTL time                            is for the records without one

    A blank at its beginning stands for the owner before it. A semicolon begins a comment. A string
    in quotes may hold all of these, and the ends of lines too.
    """

    def read(self, text: str) -> list[tuple[str, int, str]]:
        """Records as (owner, TTL, type and rdata); there must be no problem."""
        zone = wire.ZoneText(text, EXAMPLE, 60)
        self.assertEqual(zone.problems, [])
        return [(wire.show_name(each.owner), each.ttl,
                 f"{wire.show_type(each.type)} {show_rdata(each.type, each.rdata)}")
                for each in zone.records]

    def problems(self, text: str) -> list[str]:
        """What is wrong with a text, each mistake with its line."""
        return list(wire.ZoneText(text, EXAMPLE, 60).problems)

    def test_a_whole_zone(self) -> None:
        """Line, owner, TTL, type and rdata of each record of a text that has a bit of all."""
        zone = wire.ZoneText(r"""; a comment
$TTL 1h
@   IN SOA ns1 hostmaster (   ; opened here
        2024010101 ; serial
        2h 30m 2w
        1m )
    NS  ns1                   ; the owner of the line before
    NS  ns2.example.net.
ns1 300 IN A 192.0.2.1
    IN 300 AAAA 2001:db8::1
www IN CNAME @

$ORIGIN sub
$TTL 5m
*   TXT "a;b (c)" d\;e
a\.b MX 10 mail
$ORIGIN .
x   7 A 192.0.2.2
""", EXAMPLE, 60)
        self.assertEqual(zone.problems, [])
        found = [(each.line, wire.show_name(each.owner), each.ttl, wire.show_type(each.type),
                  show_rdata(each.type, each.rdata)) for each in zone.records]
        self.assertEqual(found, [
            (3, "example.com.", 3600, "SOA",
             "ns1.example.com. hostmaster.example.com. 2024010101 7200 1800 1209600 60"),
            (7, "example.com.", 3600, "NS", "ns1.example.com."),
            (8, "example.com.", 3600, "NS", "ns2.example.net."),
            (9, "ns1.example.com.", 300, "A", "192.0.2.1"),
            (10, "ns1.example.com.", 300, "AAAA", "2001:db8::1"),
            (11, "www.example.com.", 3600, "CNAME", "example.com."),
            (15, "*.sub.example.com.", 300, "TXT", '"a;b (c)" "d;e"'),
            (16, r"a\.b.sub.example.com.", 300, "MX", "10 mail.sub.example.com."),
            (18, "x.", 7, "A", "192.0.2.2")])
        self.assertTrue(all(each.rclass == 1 for each in zone.records))

    def test_texts_without_records(self) -> None:
        """Blanks, comments and empty parentheses are nothing, and no mistake."""
        for text in ("", "\n", " \n\t\r\n", "; only a comment", "   ; and a blank before it\n()"):
            self.assertEqual(self.read(text), [])

    def test_ttl_and_class_in_any_order(self) -> None:
        """RFC 1035 5.1; either may be left out, and CLASS1 is IN (RFC 3597 5)."""
        for text, ttl in rows("""
                a A 1.2.3.4          | 60
                a IN A 1.2.3.4       | 60
                a 5 A 1.2.3.4        | 5
                a 5 IN A 1.2.3.4     | 5
                a IN 5 A 1.2.3.4     | 5
                a in 1h A 1.2.3.4    | 3600
                a CLASS1 0 A 1.2.3.4 | 0
                """):
            self.assertEqual(self.read(text), [("a.example.com.", int(ttl), "A 1.2.3.4")])

    def test_owners_that_look_like_something_else(self) -> None:
        """What stands first on a line is its owner, unless it begins with a dollar."""
        for owner in ("IN", "A", "300", "TYPE1", "CH"):
            found = self.read(f"{owner} A 1.2.3.4")
            self.assertEqual(found, [(f"{owner}.example.com.", 60, "A 1.2.3.4")])
        [(owner, _, _)] = self.read(r"\$ORIGIN A 1.2.3.4")
        self.assertEqual(owner, r"\036ORIGIN.example.com.")

    def test_blank_owner_before_any_owner_is_the_origin(self) -> None:
        """There is no owner before it that it could mean."""
        self.assertEqual(self.read("\tA 1.2.3.4"), [("example.com.", 60, "A 1.2.3.4")])

    def test_line_ends_of_other_systems(self) -> None:
        """A carriage return is a blank, within parentheses too."""
        text = "a A 1.2.3.4\r\n  A 1.2.3.5 ; x\r\n(b\r\nA\r\n1.2.3.6)\r\n"
        self.assertEqual(len(self.read(text)), 3)

    def test_parentheses_without_blanks(self) -> None:
        """They end a word as a blank does."""
        self.assertEqual(self.read("a(A)1.2.3.4"), [("a.example.com.", 60, "A 1.2.3.4")])
        self.assertEqual(self.read('a TXT("b"\n"c")"d"'),
                         [("a.example.com.", 60, 'TXT "b" "c" "d"')])

    def test_svcb_with_a_quoted_value(self) -> None:
        """key= and "value" are two words, which belong together (RFC 9460 2.1)."""
        self.assertEqual(self.read('@ HTTPS 1 . alpn="h2,h3" port=8443'),
                         [("example.com.", 60, 'HTTPS 1 . alpn="h2,h3" port=8443')])

    def test_generic_records(self) -> None:
        r"""TYPEn, CLASSn and \# (RFC 3597 5), of types with a mnemonic too."""
        self.assertEqual(self.read(r"a CLASS1 TYPE731 \# 6 abcd ( ef 01 23 45 )"),
                         [("a.example.com.", 60, r"TYPE731 \# 6 abcdef012345")])
        self.assertEqual(self.read(r"a TYPE1 \# 4 01020304")[0][2], "A 1.2.3.4")

    def test_all_mistakes_are_collected_with_their_lines(self) -> None:
        """The line is that on which the entry begins; good entries between them are read."""
        found = self.problems("a A 1.2.3\nb A 1.2.3.4\n(\nc\nAA 1.2.3.4\n)\n d..e A 1.2.3.4\n"
                              "$TTL 1y\n$ORIGIN ..\nf A\ng\ni MX 1 a b\n1 1 1 A 1.2.3.4")
        lines = [int(each.partition(":")[0].removeprefix("line ")) for each in found]
        self.assertEqual(lines, [1, 3, 7, 8, 9, 10, 11, 12, 13])
        self.assertIn("1.2.3", found[0])
        self.assertIn("'AA' is no record type", found[1])
        self.assertIn("a type is missing", found[6])

    def test_directives(self) -> None:
        """$ORIGIN and $TTL in any case; others would read files or fill the memory."""
        for text in (
                "$INCLUDE /etc/passwd", "$GENERATE 1-9 a A 1.2.3.4",
                "$ORIGIN", "$ORIGIN a b",
                "$TTL", "$TTL 1 2", "$ttl x",
                "$", "$TTLS 1"):
            self.assertEqual([each[:7] for each in self.problems("\n" + text)], ["line 2:"], text)
        self.assertEqual(self.read("$origin a\n$ttl 9\n@ A 1.2.3.4"),
                         [("a.example.com.", 9, "A 1.2.3.4")])

    def test_other_classes_are_refused(self) -> None:
        """Before the TTL and behind it; IN twice, or two TTLs, are one word too many."""
        for text in (
                "a CH A 1.2.3.4",
                "a HS A 1.2.3.4",
                "a 60 CH TXT x",
                "a CLASS3 A 1.2.3.4",
                "a CS 60 A 1.2.3.4"):
            [problem] = self.problems(text)
            self.assertIn("only IN is served", problem)
        twice = "a IN IN A 1.2.3.4\nb 1 IN 1 A 1.2.3.4\nc IN 1 IN A 1.2.3.4"
        self.assertEqual(len(self.problems(twice)), 3)

    def test_types_that_are_no_data(self) -> None:
        """Types of queries and of messages (RFC 6895 3.1), and DNAME, by name and by number."""
        for rtype in (
                "DNAME", "TYPE39", "OPT", "TYPE41", "TYPE0",
                "TYPE128", "TKEY", "TSIG", "TYPE250", "IXFR", "AXFR", "MAILA", "ANY", "TYPE255"):
            self.assertIn("cannot stand in a zone", self.problems(rf"a {rtype} \# 0")[0])
        self.assertEqual(self.problems(r"a TYPE127 \# 0"), [])
        self.assertEqual(self.problems(r"a TYPE258 \# 0"), [])

    def test_what_is_refused_says_what_to_write(self) -> None:
        """TYPEn is the way out only where it is one."""
        for text, said in (
                ("DNAME b", "write a CNAME for each name below the owner, or one at *"),
                ("LOC 1 N 1 E 1m", r"LOC: no text form here; write \# length hex"),
                ("RRSIG A 8 2 60", "leave out what a signer has added"),
                ("DNSKEY 257 3 8 AA==", "leave out what a signer has added"),
                ("NSEC3PARAM 1 0 0 -", "leave out what a signer has added"),
                ("APL 1:1.2.3.4/32", r"'APL' is no record type known here; for other data write"),
                ("ANY", "cannot stand in a zone, for it is no data")):
            self.assertIn(said, self.problems("a " + text)[0])
            self.assertEqual("TYPEn" in self.problems("a " + text)[0], text.startswith("APL"))
        for rtype in ("LOC", "TYPE29", "RRSIG", "TYPE46", "TYPE42"):
            self.assertEqual(self.problems(rf"a {rtype} \# 1 00"), [])
        self.assertIn("'$INCLUDE': only $ORIGIN name and $TTL time are supported; write out",
                      self.problems("$INCLUDE x")[0])

    def test_quotes_without_their_other_end_say_which_may_be_meant(self) -> None:
        """The quote that has none is seldom the one that was forgotten."""
        text = 'a TXT "b\nc TXT "d"\ne TXT "f"\n'
        self.assertEqual(self.problems(text)[-1], 'line 3: a " without its other end; the string '
                         "that begins on line 1 goes on over the end of that line")
        self.assertEqual(self.problems('a TXT "b'), ['line 1: a " without its other end'])
        self.assertEqual(self.problems("a TXT b\\\n"), ["line 1: a \\ with nothing behind it"])

    def test_lines_behind_a_string_of_several(self) -> None:
        """The ends of lines within strings are counted."""
        zone = wire.ZoneText('a TXT "b\n\nc" d"\n"\n  A 1.2.3.4\n', EXAMPLE, 60)
        self.assertEqual([each.line for each in zone.records], [1, 5])

    def test_without_the_other_end(self) -> None:
        """A quote, a backslash or a parenthesis that is alone ends the reading, on this line."""
        for text, line in (
                ('a TXT "b', 2),
                ('a TXT "b\nc', 2),
                ('a TXT b"', 2),
                ('a TXT "b\\', 2),
                ("a TXT b\\", 2),
                ("a (\nA", 2),
                ("a )", 2),
                ("a ((b))", 2),
                ("a A 1.2.3.4 (\n)\n)", 4),
                ("a A \xa01.2.3.4", 2),
                ("a\x0cA", 2)):
            with self.subTest(text):
                [problem] = self.problems("\n" + text)
                self.assertEqual(problem.partition(":")[0], f"line {line}")

    def test_byte_order_mark_and_other_letters(self) -> None:
        """They are letters that no name and no number has; octets that are no UTF-8 are shown."""
        for text in (
                "\ufeffa A 1.2.3.4",
                "b\u00fccher A 1.2.3.4",
                "a \u0661 A 1.2.3.4",
                "a \u00b2 A 1.2.3.4"):
            self.assertEqual(len(self.problems(text)), 1)
        self.assertIn(r"line 1: 'b\xfccher': ", self.problems("b\udcfccher A 1.2.3.4")[0])

    def test_a_record_per_line_of_a_long_text(self) -> None:
        """Lines are counted right to the end."""
        zone = wire.ZoneText("a A 1.2.3.4\n" * 5000, EXAMPLE, 60)
        self.assertEqual((len(zone.records), zone.records[-1].line), (5000, 5000))

    def test_long_mistakes(self) -> None:
        """No text takes time out of proportion: these are 100 to 200 KB each."""
        for text in (
                "(" * 100_000,
                '"' + "\\a" * 100_000,
                "\\a" * 100_000 + "\\",
                "a" * 100_000,
                '""' * 50_000,
                "a" + " " * 200_000 + "\\",
                "$TTL " + "1" * 100_000,
                "$TTL " + "1h" * 50_000 + "z",
                "a TXT" + " b" * 40_000,
                "a SVCB 1 . alpn=" + "a\\\\," * 20_000 + "\\\\"):
            self.assertEqual(len(self.problems(text)), 1, text[:20])


class PureZone(unittest.TestCase):
    """Zone and find_zone: which data answers a name (RFC 1034 4.3.2).

    Texts are relative to example.com. and have a TTL of 60 seconds where they name none. In tables
    a name stands beside the type that is asked for, and the last column is what answers.
    """

    def refusal(self, text: str) -> str:
        """What zone_of says against a text; "" = nothing."""
        try:
            zone_of(text)
        except wire.BadText as bad:
            return str(bad)
        return ""

    def test_records_of_one_owner_and_type_make_an_rrset(self) -> None:
        """The smallest TTL counts (RFC 2181 5.2), and no record stands there twice (5): names are
        compared without case (RFC 4343), all else is not. What was written first stays."""
        for text, shown in (
                ("a 60 A 192.0.2.1 ; a 30 A 192.0.2.2 ; a 90 A 192.0.2.3",
                 ["a.example.com. 30 A 192.0.2.1 192.0.2.2 192.0.2.3"]),
                ("a A 192.0.2.1 ; a AAAA ::1 ; b A 192.0.2.2",
                 ["a.example.com. 60 A 192.0.2.1",
                  "a.example.com. 60 AAAA ::1",
                  "b.example.com. 60 A 192.0.2.2"]),
                ("a 60 MX 1 Mail ; A 30 MX 1 mAIL",
                 ["a.example.com. 30 MX 1 Mail.example.com."]),
                ("a MX 1 mail ; a MX 2 mail",
                 ["a.example.com. 60 MX 1 mail.example.com. 2 mail.example.com."]),
                ("a TXT x ; a TXT X ; a TXT x", ['a.example.com. 60 TXT "x" "X"']),
                ("a CNAME b ; A CNAME B", ["a.example.com. 60 CNAME b.example.com."])):
            with self.subTest(text):
                self.assertEqual(show_nodes(zone_of(text)), shown)

    def test_records_that_cannot_stand(self) -> None:
        """One SOA at the apex, one CNAME an owner (RFC 1034 3.6.2), all of it inside the zone."""
        for text, said in (
                ("a.example.org. A 192.0.2.1", "a.example.org. is outside the zone"),
                ("com. NS ns", "com. is outside the zone"),
                ("xexample.com. A 192.0.2.1", "xexample.com. is outside the zone"),
                # one label, which holds the octets of the apex
                (r"a\007example\003com. A 192.0.2.1", r"a\007example\003com. is outside the zone"),
                ("a SOA ns host 1 2 3 4 5", "a SOA stands at the apex only"),
                ("@ SOA ns host 2 2 3 4 5", "a second SOA of example.com."),
                ("a CNAME b ; A CNAME c", "a second CNAME of a.example.com.")):
            with self.subTest(text):
                self.assertEqual(self.refusal(text), said)
        for text in ("@ SOA NS host 1 2 3 4 5", "EXAMPLE.com. A 192.0.2.1", "a CNAME a"):
            with self.subTest(text):
                self.assertEqual(self.refusal(text), "")

    def test_names_between_an_owner_and_the_apex_exist(self) -> None:
        """They are empty non-terminals (RFC 4592 2.2.2): no records, but no NXDOMAIN."""
        zone = zone_of("A.b.C A 192.0.2.1 ; x.c TXT x")
        self.assertEqual(sorted(map(wire.show_name, zone.nodes)), [
            "a.b.c.example.com.", "b.c.example.com.", "c.example.com.", "example.com.",
            "x.c.example.com."])
        self.assertEqual(zone.nodes[b"\1b\1c" + EXAMPLE], {})
        self.assertEqual(zone.nodes[b"\1c" + EXAMPLE], {})

    def test_a_name_that_exists_keeps_its_records(self) -> None:
        """add_name is for the owners of pools and the apexes of zones further down."""
        zone = zone_of("c A 192.0.2.1")
        for owner in (b"\1a\1b\1c" + EXAMPLE, EXAMPLE):
            zone.add_name(owner)
        self.assertEqual(show_nodes(zone), ["c.example.com. 60 A 192.0.2.1"])
        self.assertEqual({name for name, node in zone.nodes.items() if not node},
                         {b"\1a\1b\1c" + EXAMPLE, b"\1b\1c" + EXAMPLE})

    def test_ttl_of_negative_answers(self) -> None:
        """It is the SOA's TTL or its last field, whichever is smaller (RFC 2308 3)."""
        for ttl, minimum, negative in ((300, 60, 60), (60, 300, 60), (60, 60, 60), (60, 0, 0),
                                       (2**31 - 1, 2**32 - 1, 2**31 - 1)):
            zone = zone_of("", soa=f"@ {ttl} SOA ns host 1 2 3 4 {minimum}")
            with self.subTest(ttl=ttl, minimum=minimum):
                self.assertEqual((zone.negative.type, zone.negative.ttl), (wire.SOA, negative))
                self.assertEqual(zone.negative.rdatas, zone.nodes[EXAMPLE][wire.SOA].rdatas)

    def test_the_cut_nearest_the_apex_delegates(self) -> None:
        """What is below a delegation is not ours to answer, another delegation neither; but DS at
        the delegation is the parent's (RFC 4035 3.1.4.1). The apex is none for all its NS."""
        zone = zone_of("@ NS ns ; sub NS ns ; deep.er.sub NS ns ; er.sub TXT x ; www A 192.0.2.1")
        for name, rtype, cut in rows("""
                example.com.                 | NS  |
                www.example.com.             | A   |
                xsub.example.com.            | A   |
                sub.example.com.             | A   | sub.example.com.
                sub.example.com.             | NS  | sub.example.com.
                sub.example.com.             | DS  |
                er.sub.example.com.          | TXT | sub.example.com.
                www.sub.example.com.         | DS  | sub.example.com.
                deep.er.sub.example.com.     | A   | sub.example.com.
                deep.er.sub.example.com.     | DS  | sub.example.com.
                www.deep.er.sub.example.com. | A   | sub.example.com.
                """):
            with self.subTest(name, rtype=rtype):
                found = zone.find_cut(names_of(name), wire.TYPES[rtype])
                self.assertEqual(wire.show_name(found) if found else "", cut)
        self.assertIsNone(zone_of("@ NS ns").find_cut(names_of("sub.example.com."), wire.A))

    def test_the_zone_with_the_longest_apex_has_a_name(self) -> None:
        """DS at an apex is for the zone above, if that is here (RFC 4035 3.1.4.1)."""
        zones = {}
        for apex in ("com.", "example.com.", "sub.example.com."):
            zones[wire.parse_name(apex)] = wire.Zone(wire.parse_name(apex))
        for name, rtype, apex in rows("""
                .                    | A  |
                org.                 | A  |
                example.org.         | DS |
                com.                 | A  | com.
                com.                 | DS | com.
                www.com.             | A  | com.
                xexample.com.        | A  | com.
                example.com.         | A  | example.com.
                example.com.         | DS | com.
                www.example.com.     | DS | example.com.
                sub.example.com.     | A  | sub.example.com.
                sub.example.com.     | DS | example.com.
                a.sub.example.com.   | A  | sub.example.com.
                a.sub.example.com.   | DS | sub.example.com.
                """):
            with self.subTest(name, rtype=rtype):
                zone = wire.find_zone(names_of(name), wire.TYPES[rtype], zones)
                self.assertEqual(wire.show_name(zone.apex) if zone else "", apex)
        root = {ROOT: wire.Zone(ROOT)}
        self.assertIs(wire.find_zone(names_of("org."), wire.DS, root), root[ROOT])
        self.assertIsNone(wire.find_zone(names_of("org."), wire.A, {}))

    # RFC 4592 2.2.1: the example zone, with rdata where the RFC has none.
    WILDCARDS = r"""
        $ORIGIN example.
        $TTL 3600
        @                SOA  ns.example.com. host.example.com. 1 7200 3600 86400 300
        @                NS   ns.example.com.
        @                NS   ns.example.net.
        *                TXT  "this is a wildcard"
        *                MX   10 host1
        sub.*            TXT  "this is not a wildcard"
        host1            A    192.0.2.1
        _ssh._tcp.host1  SRV  0 0 22 host1
        _ssh._tcp.host2  SRV  0 0 22 host2
        subdel           NS   ns.example.com.
        subdel           NS   ns.example.net.
        """

    def test_answers_of_rfc_4592(self) -> None:
        """RFC 4592 2.2.1: which names a wildcard answers for, and which exist themselves.

        The first three are synthesized from *.example. The next five are not, and these are the
        reasons: host1 exists; sub.* exists; the closest encloser of _telnet._tcp.host1 is
        _tcp.host1, which exists without data; subdel is delegated; the closest encloser of ghost.*
        is *.example. itself. The others are what the same rules say of other names.
        """
        zone = zone_of(self.WILDCARDS, wire.parse_name("example."), soa="")
        for name, rtype, expected in rows("""
                host3.example.               | MX  | host3.example. 3600 MX 10 host1.example.
                host3.example.               | A   | NODATA at *.example.
                foo.bar.example.             | TXT | foo.bar.example. 3600 TXT "this is a wildcard"

                host1.example.               | MX  | NODATA at host1.example.
                sub.*.example.               | MX  | NODATA at sub.*.example.
                _telnet._tcp.host1.example.  | SRV | NXDOMAIN
                host.subdel.example.         | A   | delegated at subdel.example.
                ghost.*.example.             | MX  | NXDOMAIN

                *.example.                   | TXT | *.example. 3600 TXT "this is a wildcard"
                host2.example.               | MX  | NODATA at host2.example.
                _tcp.host2.example.          | TXT | NODATA at _tcp.host2.example.
                x.host1.example.             | TXT | NXDOMAIN
                subdel.example.              | DS  | NODATA at subdel.example.
                """):
            with self.subTest(name, rtype=rtype):
                self.assertEqual(self.answer(zone, name, wire.TYPES[rtype]), expected)

    def answer(self, zone: "wire.Zone", name: str, qtype: int) -> str:
        """What a zone answers, in the steps of RFC 1034 4.3.2."""
        cut = zone.find_cut(names_of(name), qtype)
        if cut is not None:
            return f"delegated at {wire.show_name(cut)}"
        owner = zone.find_owner(names_of(name))
        if owner not in zone.nodes:
            return "NXDOMAIN"
        if qtype not in zone.nodes[owner]:
            return f"NODATA at {wire.show_name(owner)}"
        return show_rrset(wire.parse_name(name), zone.nodes[owner][qtype])

    def refer(self, zone: "wire.Zone", cut: bytes, chosen: dict) -> list[str]:
        """A referral, a part a line; `chosen` is what the owners of pools answer, by type."""
        self.asked = []

        def choose(owner: bytes, rtype: int) -> "wire.RRset | None":
            self.asked.append((wire.show_name(owner), rtype))
            return chosen.get(rtype)
        sections = {wire.AUTHORITY: "authority", wire.ADDITIONAL: "additional"}
        return [f"{sections[section]}: {show_rrset(owner, rrset)}"
                for section, owner, rrset in zone.refer(cut, choose)]

    def test_a_referral_has_the_glue_that_is_here(self) -> None:
        """RFC 1034 4.3.2 3b, RFC 9471: addresses of name servers inside the zone, below the cut or
        not, below another cut too; none of servers outside the zone, and nothing but addresses.
        Owners of glue are written as NS records name them."""
        zone = zone_of("""sub 300 NS NS1.sub ; sub NS ns2 ; sub NS ns3.other ; sub NS ns4
            sub NS ns.example.org. ; sub NS alias ; sub NS nowhere.sub
            ns1.sub A 192.0.2.1 ; ns1.sub A 192.0.2.2 ; ns1.sub AAAA 2001:db8::1
            ns2 AAAA 2001:db8::2 ; ns4 TXT x ; alias CNAME ns2
            other NS ns2 ; ns3.other 20 A 192.0.2.3""")
        self.assertEqual(self.refer(zone, b"\3sub" + EXAMPLE, {}), [
            "authority: sub.example.com. 60 NS NS1.sub.example.com. ns2.example.com. "
            "ns3.other.example.com. ns4.example.com. ns.example.org. alias.example.com. "
            "nowhere.sub.example.com.",
            "additional: NS1.sub.example.com. 60 A 192.0.2.1 192.0.2.2",
            "additional: NS1.sub.example.com. 60 AAAA 2001:db8::1",
            "additional: ns2.example.com. 60 AAAA 2001:db8::2",
            "additional: ns3.other.example.com. 20 A 192.0.2.3"])
        self.assertEqual(self.asked, [])

    def test_glue_of_owners_is_chosen(self) -> None:
        """`choose` is asked for each type that an owner has no record of; what it returns of
        another type, a CNAME, is no glue."""
        zone = zone_of("sub NS Api ; sub NS www ; api AAAA 2001:db8::1 ; www A 192.0.2.1")
        zone.owners.add(b"\3api" + EXAMPLE)
        address = wire.RRset(wire.A, 5, [octets("c0 00 02 09")])
        alias = wire.RRset(wire.CNAME, 5, [WWW])
        servers = "authority: sub.example.com. 60 NS Api.example.com. www.example.com."
        static = ["additional: Api.example.com. 60 AAAA 2001:db8::1",
                  "additional: www.example.com. 60 A 192.0.2.1"]
        for chosen, glue in (({}, []),
                             ({wire.A: alias}, []),
                             ({wire.AAAA: address}, []),
                             ({wire.A: address}, ["additional: Api.example.com. 5 A 192.0.2.9"])):
            self.assertEqual(self.refer(zone, b"\3sub" + EXAMPLE, chosen),
                             [servers, *glue, *static])
            self.assertEqual(self.asked, [("api.example.com.", wire.A)])


class PureHostile(unittest.TestCase):
    """Whatever the octets are: a value or Malformed. Whatever the text is: a value or BadText.

    Any other exception fails the test by itself.
    """

    def good(self) -> list[bytes]:
        """Messages that are right, to be broken: queries, and replies with every row of rdata."""
        subnet = edns("0008 000b 0002 38 00 20010db8000000  000a 0018" + "cd" * 24)
        found = [PureQueries.PLAIN, PureQueries.FULL, subnet, edns(ttl=1 << 16)]
        for at in range(0, len(PureRdata.ROWS), 4):
            writer = wire.Writer(wire.decode_query(edns()), wire.TCP_MAX, [(3, b"ns1")])
            for rtype, _, spaced in PureRdata.ROWS[at:at + 4]:
                rrset = wire.RRset(wire.parse_type(rtype), 1, [octets(spaced)])
                writer.add(wire.ANSWER, WWW, rrset)
            found.append(writer.finish())
        return found

    def decode(self, packet: bytes) -> None:
        """Both decoders; the one for queries also sees the packet without its QR bit."""
        self.query(packet)
        self.query(packet[:2] + bytes(each & 0x7F for each in packet[2:3]) + packet[3:])
        try:
            message = decode_message(packet)
        except wire.Malformed:
            return
        for record in sum(message.sections, []):
            self.show(record.type, record.rdata)

    def query(self, packet: bytes) -> None:
        """A query is read or owed no reply; if it is, the reply can be written and read."""
        try:
            query = wire.decode_query(packet)
        except wire.Malformed as bad:
            self.assertEqual(bad.rcode, wire.SILENT)
            return
        self.assertIn(query.rcode, (0, 1, 4, 5, 16))
        reply = wire.Writer(query, query.limit(False)).finish(query.rcode)
        self.assertEqual(decode_message(reply).id, query.id)

    def show(self, rtype: int, data: bytes) -> None:
        """Rdata is shown in printable ASCII, from which the same rdata is read."""
        shown = show_rdata(rtype, data)
        self.assertTrue(shown.isascii() and shown.isprintable(), shown)
        try:
            good = wire.read_rdata(wire.Reader(data), rtype, len(data)) == data
        except wire.Malformed:
            good = False
        if good:
            words = shown.split()
            again = wire.parse_rdata(rtype, words) if words[0] == r"\#" else rdata(
                wire.show_type(rtype), shown)
            self.assertEqual(again, data)
        else:
            self.assertEqual(shown.split()[0], r"\#")

    def test_damaged_messages(self) -> None:
        """Every prefix of a good message, and every octet of it replaced."""
        for good in self.good():
            decode_message(good)
            for packet in hostile(good):
                self.decode(packet)

    def test_damaged_rdata(self) -> None:
        """Every prefix of good rdata, and every octet of it replaced."""
        for rtype, _, spaced in PureRdata.ROWS:
            for data in hostile(octets(spaced) + b"\0"):
                self.show(wire.parse_type(rtype), data)
            self.show(wire.parse_type(rtype), octets(spaced))

    def test_rdata_of_one_type_as_another(self) -> None:
        """All rows as all types."""
        for rtype in [*wire.TYPE_NAMES, 0, 65535]:
            for _, _, spaced in PureRdata.ROWS:
                self.show(rtype, octets(spaced))

    def test_damaged_text(self) -> None:
        """Every character of good rdata text replaced by one that matters to the reader."""
        edges = ["", *'"\\(; \0', "\u00b2", "\u0661", "\u00e9", "\ud800"]
        for rtype, text, _ in PureRdata.ROWS:
            for at in range(len(text) + 1):
                for edge in edges:
                    try:
                        rdata(rtype, text[:at] + edge + text[at + 1:])
                    except wire.BadText:
                        pass

    def test_messages_damaged_in_several_places(self) -> None:
        """Up to seven octets of a good message replaced, half of the messages cut off."""
        dice, good = random.Random(1), self.good()
        for _ in range(4000):
            packet = bytearray(dice.choice(good))
            for _ in range(dice.randrange(1, 8)):
                at = dice.randrange(len(packet))
                packet[at] = dice.choice((dice.randrange(256), *EDGES))
            if dice.random() < 0.9:
                packet[2] &= 0x7F  # a query
            size = dice.choice((len(packet), dice.randrange(len(packet))))
            self.decode(bytes(packet[:size]))

    def test_any_octets_behind_a_header(self) -> None:
        """A header of one question and up to three records."""
        dice = random.Random(1)
        for _ in range(4000):
            header = bytes(5) + b"\1" + bytes(5) + bytes([dice.randrange(4)])
            self.decode(header + dice.randbytes(dice.randrange(80)))

    def test_any_zone_text(self) -> None:
        """Problems are collected, not raised."""
        dice, letters = random.Random(1), 'ab1 0.\\"();$@\n\t\r=,#:A\u00e9\u00b2\ud800'
        for _ in range(4000):
            text = "".join(dice.choice(letters) for _ in range(dice.randrange(40)))
            wire.ZoneText(text, EXAMPLE, 60)


class PureErrors(unittest.TestCase):
    """What errors say, and the names of rcodes."""

    def test_malformed_says_where(self) -> None:
        """What was wanted, and at which octet; the rcode is FORMERR unless another is given."""
        with self.assertRaises(wire.Malformed) as caught:
            wire.Reader(b"\1\2", 1).u16()
        self.assertEqual(str(caught.exception), "2 octets wanted, the data ends at byte 1")
        self.assertEqual(caught.exception.rcode, wire.FORMERR)

    def test_rdata_errors_name_the_type(self) -> None:
        """Type, text, and the beginning of what is said of it."""
        for rtype, text, said in rows(r"""
                A     | 1.2.3 | A: Expected 4 octets
                MX    | x a   | MX: 'x' is no number
                TYPE9 | x     | TYPE9: no text form here; write \# length hex
                SRV   | 1     | SRV: a number is missing
                NS    | a b   | NS: 'b' is one word
                """):
            with self.assertRaises(wire.BadText) as caught:
                rdata(rtype, text)
            self.assertIn(said, str(caught.exception))

    def test_every_rcode_has_a_name(self) -> None:
        """The one that log and metrics use."""
        for name in ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "BADVERS"):
            self.assertEqual(wire.RCODES[getattr(wire, name)], name)


if __name__ == "__main__":
    unittest.main()
