"""100,000 damaged queries through `decide`: each gets silence or a reply that can be read, and the
same octets from the fast path, which has seen the good ones.

usage: mutate.py [COUNT [SEED]]       from the project's root
"""
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import lbdns
import wire
from test_wire import decode_message

NAMES = (b"\x03api\x07example\x03com\0", b"\x0bx-1-aPi-api\x07eXample\x03com\0", b"\x03com\0",
         b"\0")
OPTS = (b"", b"\0\0\x29\x04\xd0\0\0\0\0\0\0", b"\0\0\x29\x04\xd0\0\0\x80\0\0\x17"
        b"\0\x08\0\x07\0\x01\x18\0\xcb\0\x71\0\x0a\0\x08abcdefgh")


def seeds():
    """Good queries, to be damaged."""
    for name in NAMES:
        for qtype in (1, 6, 28, 255):
            for opt in OPTS:
                yield (b"\x12\x34\1\0\0\1\0\0\0\0\0" + bytes([bool(opt)]) + name
                       + bytes([0, qtype, 0, 1]) + opt)


def damage(packet, rng):
    """A packet after one or two accidents."""
    octets = bytearray(packet)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(octets) + 1)
        match rng.randrange(5):
            case 0:
                del octets[at:]
            case 1:
                octets[at:at] = rng.randbytes(rng.randint(1, 8))
            case 2:
                octets[at:at + 2] = bytes([rng.randint(0xC0, 0xFF), rng.randrange(256)])
            case 3:
                octets[at:at + rng.randint(1, 9)] = b""
            case 4:
                octets[at:at + 1] = bytes([rng.choice((0, 1, 0x3F, 0x40, 0x80, 0xFF))])
    return bytes(octets)


def desk(seed):
    """A state and dice, equal to those of each other desk of this seed."""
    config = lbdns.inline_config(["api.example.com=1.2.3.4,2001:db8::1,1.2.3.5"], 0)
    dice = random.Random(seed).random
    return lbdns.State(config, bytes(16), lbdns.Log(), dice, {}), 0.0, dice


def fast_path(state, now, dice):
    """What answers as `decide` does; and how often that was asked."""
    asked = []

    def miss(packet, client, tcp):
        asked.append(packet)
        return lbdns.decide(packet, client, tcp, state, now, dice)
    cache = lbdns.Cache(state, dice, miss)

    def reply_to(packet, client, tcp):
        [reply] = cache.replies([packet], [client].copy, tcp, [lbdns.way_of(client, tcp)])
        return packet[:2] + reply if reply else None
    return reply_to, asked


def main(count=100_000, seed=8906):
    """Damage and ask; an exception or a broken promise ends it."""
    rng, good, plain = random.Random(seed), list(seeds()), desk(seed)
    rcodes, (fast, asked) = dict.fromkeys(range(24), 0), fast_path(*desk(seed))
    for at in range(-2 * len(good), count):
        packet, tcp = damage(rng.choice(good), rng), rng.random() < 0.5
        if at < 0:
            packet, tcp = good[at // 2], at % 2 > 0
        answered = lbdns.decide(packet, "192.0.2.1", tcp, *plain)
        reply = answered.octets if isinstance(answered, lbdns.Answered) else None
        if fast(packet, "192.0.2.1", tcp) != reply:
            sys.exit(f"the fast path says otherwise: {packet.hex()}")
        if (reply is None) != (len(packet) < 12 or packet[2] >= 0x80):
            sys.exit(f"silence or not: {packet.hex()}")
        if reply is not None:
            message = decode_message(reply)
            rcodes[message.flags & 15] += 1
            limit = len(packet) + 11 if message.flags & 15 == wire.FORMERR else 65535
            if len(reply) > min(limit, 65535 if tcp else 1232) or reply[:2] != packet[:2]:
                sys.exit(f"too long, or not a reply: {packet.hex()}")
    print(f"{count} damaged queries, {at + 1 + 2 * len(good) - len(asked)} by the fast path;",
          {rcode: n for rcode, n in rcodes.items() if n})


main(*map(int, sys.argv[1:]))
