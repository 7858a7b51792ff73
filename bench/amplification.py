"""What a forged sender could gain: octets of a reply over those of its query, of every kind.

usage: amplification.py

Asks a server over UDP, without EDNS and with it, and prints for each kind of query its octets,
those of the reply, and their ratio; "large" marks what `rate_limit` counts. Names are of usual
length; with shorter ones, or with longer ones in the records, the ratios are larger. README.md here
has some of these lines, and a test compares them.
"""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from test_server import Server, lbdns, option, query, wire  # noqa: E402

CONFIG = """nsid = "ns1"
[zones."example.com"]
ns = ["ns1.example.com.", "ns2.example.com."]
records = '''
ns1     300 A    192.0.2.53
ns2     300 A    198.51.100.53
@       300 MX   10 mail
@       300 TXT  "v=spf1 mx ip4:192.0.2.0/24 -all"
mail    300 A    192.0.2.25
www     300 A    192.0.2.80
*.w     300 TXT  "a wildcard"
alias   300 CNAME www
sub     300 NS   ns1.sub
sub     300 NS   ns2.sub
ns1.sub 300 A    192.0.2.54
ns2.sub 300 A    198.51.100.54
key     300 TXT  "KEY" "KEY"
full    300 TXT  "FULL" "FULL" "FULL" "FULL"
'''
[pools."api.example.com"]
backends = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
[pools."all.example.com"]
answers = 13
backends = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6",
            "192.0.2.7", "192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11", "192.0.2.12",
            "192.0.2.13"]
""".replace("KEY", "k" * 205).replace("FULL", "f" * 250)

KINDS = {  # what is asked -> name, type; with or without OPT, as `ask` is called
    "A": ("www.example.com", "A"),
    "A of a pool": ("api.example.com", "A"),
    "A of a pool by an anti-cache name": ("1596207957-api.example.com", "A"),
    "A of a pool, `answers = 13`": ("all.example.com", "A"),
    "AAAA of a pool without (NODATA)": ("api.example.com", "AAAA"),
    "a name that does not exist (NXDOMAIN)": ("nope.example.com", "A"),
    "CNAME and its target": ("alias.example.com", "A"),
    "TXT by a wildcard": ("x.w.example.com", "TXT"),
    "NS": ("example.com", "NS"),
    "SOA": ("example.com", "SOA"),
    "MX": ("example.com", "MX"),
    "TXT, SPF": ("example.com", "TXT"),
    "TXT, a DKIM key": ("key.example.com", "TXT"),
    "TXT of 1,000 octets": ("full.example.com", "TXT"),
    "ANY": ("example.com", "ANY"),
    "a delegation with two addresses": ("host.sub.example.com", "A"),
    "a zone of others (REFUSED)": ("www.example.net", "A"),
    "a transfer (REFUSED)": ("example.com", "AXFR")}
WITH_OPT = {  # the same of what only OPT can ask
    "A, NSID": option(wire.NSID),
    "A, a client's cookie": option(wire.COOKIE, b"8octets!"),
    "A, a client subnet": option(wire.ECS, b"\0\1\x18\0\xc0\0\2"),
    "a broken option (FORMERR)": option(wire.ECS, b"\0")}


def ask(server, packet):
    """Octets of a query and of its reply."""
    reply = server.exchange(packet)
    if reply is None:
        sys.exit(f"no reply to {packet.hex()}")
    return len(packet), len(reply)


def measure():
    """By kind of query: its octets and those of its reply, without EDNS and with it; or None."""
    with Server(CONFIG) as server:
        found = {kind: (ask(server, query(*words)), ask(server, query(*words, opt=True)))
                 for kind, words in KINDS.items()}
        found |= {kind: (None, ask(server, query("www.example.com", options=options)))
                  for kind, options in WITH_OPT.items()}
        found["version 1 of EDNS (BADVERS)"] = None, ask(
            server, query("www.example.com", opt_flags=1 << 16))
        found["half a query (FORMERR)"] = ask(server, query("www.example.com")[:20]), None
        found["an update (NOTIMP)"] = ask(server, query("www.example.com", flags=0x2800)), None
    return found


def show(sizes):
    """One cell: `33 -> 49, 1.5`, with a mark if `rate_limit` counts it."""
    if sizes is None:
        return "-"
    asked, got = sizes
    large = got > lbdns.LARGE_SIZE or got > lbdns.LARGE_FACTOR * asked
    text = f"{asked} -> {got}, {got / asked:.1f}"
    return f"{text}, large" if large else text


def main():
    """Measure and print."""
    if sys.argv[1:]:
        sys.exit(__doc__)
    print(f"{'':40}{'without EDNS':24}with EDNS")
    for kind, (plain, edns) in measure().items():
        print(f"{kind:40}{show(plain):24}{show(edns)}")


if __name__ == "__main__":
    main()
