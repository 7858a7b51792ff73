"""The servers that compare.py sets beside lbdns: the command line and the config of each.

All have the same zone on one port of loopback, one thread or process that answers, no limit of
rates and no log of queries. {port}, {folder} and {python} are filled in when a server is started.
All but pdns and echo answer cookies.
"""
import dataclasses

ZONE = """\
$TTL 60
@ SOA ns1 hostmaster 1 7200 1800 259200 60
@ NS ns1
ns1 A 127.0.0.1
www 300 A 192.0.2.80
"""
ONE_ADDRESS = ZONE + "api A 1.2.3.4\n* A 1.2.3.4\n"
LUA_POOL = """LUA A "pickrandom({'1.2.3.4','8.8.4.4','8.8.8.8'})"\n"""
GDNSD = """
options => { listen => [ 127.0.0.1 ], dns_port => {port}, udp_threads => 1, tcp_threads => 1,
             run_dir => {folder}/run, state_dir => {folder}/state }
plugins => { weighted => { api => {
    multi => false, a => [ 1.2.3.4, 1 ], b => [ 8.8.4.4, 1 ], c => [ 8.8.8.8, 1 ] } } }
"""
KNOT = """
server:
    listen: 127.0.0.1@{port}
    rundir: "{folder}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{folder}"
template:
  - id: default
    global-module: mod-cookies
zone:
  - domain: example.com
    file: "{folder}/zone"
"""
NSD = """
server:
    ip-address: 127.0.0.1@{port}
    server-count: 1
    username: ""
    rrl-ratelimit: 0
    minimal-responses: yes
    answer-cookie: yes
    database: ""
    pidfile: ""
    xfrdfile: ""
    xfrdir: "{folder}"
    zonelistfile: "{folder}/zone.list"
remote-control:
    control-enable: no
zone:
    name: example.com
    zonefile: "{folder}/zone"
"""
NAMED = """
options {
    directory "{folder}"; pid-file none; session-keyfile none; lock-file none;
    listen-on port {port} { 127.0.0.1; }; listen-on-v6 { none; };
    recursion no; dnssec-validation no; minimal-responses yes;
};
controls { };
zone "example.com" { type primary; file "zone"; };
"""
PDNS = """
launch=bind
bind-config={folder}/zones
local-address=127.0.0.1
local-port={port}
enable-lua-records=yes
socket-dir={folder}
receiver-threads=1
distributor-threads=1
"""
PDNS_ZONES = 'zone "example.com" { type master; file "{folder}/zone"; };'
ECHO = """
import socket
with socket.socket(type=socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind(("127.0.0.1", {port}))
    while True:
        query, client = sock.recvfrom(4096)
        sock.sendto(query[:2] + b"\\x84\\0" + query[4:], client)
"""


@dataclasses.dataclass
class Peer:
    """How to run a server: its command line, and the files of its config by path."""
    words: list[str]
    files: dict[str, str]


PEERS = {
    "gdnsd": Peer(["gdnsd", "-c", "{folder}", "start"], {
        "config": GDNSD, "run/.keep": "", "state/.keep": "",
        "zones/example.com": ZONE + "api DYNA weighted!api\n* DYNA weighted!api\n"}),
    "knot": Peer(["knotd", "-c", "{folder}/config"], {"config": KNOT, "zone": ONE_ADDRESS}),
    "nsd": Peer(["nsd", "-d", "-c", "{folder}/config"], {"config": NSD, "zone": ONE_ADDRESS}),
    "named": Peer(["named", "-g", "-n", "1", "-c", "{folder}/config"],
                  {"config": NAMED, "zone": ONE_ADDRESS}),
    "pdns": Peer(["pdns_server", "--config-dir={folder}"], {
        "pdns.conf": PDNS, "zones": PDNS_ZONES,
        "zone": f"{ZONE}api {LUA_POOL}* {LUA_POOL}"}),
    "echo": Peer(["{python}", "echo.py"], {"echo.py": ECHO}),
}
