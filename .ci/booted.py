"""Install lbdns as the README says, and try it, inside the system that .ci/booted has booted.

Prints a line for each step, and the journal where one fails; the exit code is 1 then. The commands
and units are those of README.md; config, zone and pools are its example's.
"""
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "bench"))
sys.dont_write_bytecode = True
from load import Load  # noqa: E402, beside the other programs of bench/

UNITS = pathlib.Path("/etc/systemd/system")
CONFIG = pathlib.Path("/etc/lbdns/lbdns.toml")
TABLE = pathlib.Path("/var/lib/lbdns/backends.db")
README = (HERE / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
PATIENCE = 15          # seconds after which waiting has failed
BUFFER = 4 << 20       # octets that a UDP socket has to have for restarts without loss
POOLS = f"""
[pools."table.example.com"]
source = {{ sqlite = "{TABLE}", every = 0.2 }}
"""
SECRET_POOL = """
[pools."secret.example.com"]
source = { every = 0.2, command = ["sh", "-c", \
  'grep -qx password=secret "$PGSERVICEFILE" && echo ADDRESS || exit 1'] }
"""
AGENT_POOL = """
[pools."agent.example.com"]
source = { reports = true }
"""
# What a server does in the sandbox; the agent has a unit of its own, and the commands have none.
CLASSES = """
LiveServer LiveLogs LivePipelines LiveBatches LiveSources LiveCommandSources LiveReports LiveHealth
LiveNotifications LiveReloads LiveWorkers LiveCounts LiveExplain FaultPackets
FaultTcpLimits FaultTcpRoom FaultSourceAtStart FaultRunCommand FaultChildren FaultEndings
FaultMishaps""".split()
# What has to differ from lbdns.service, for it runs tests that run many servers.
SUITE = """
[Service]
Type=oneshot
Restart=no
NotifyAccess=none
WatchdogSec=0
FileDescriptorStoreMax=0
WorkingDirectory=/test/lbdns
Environment=PYTHONDONTWRITEBYTECODE=1 LBDNS_PROCESSES=5
ExecStart=
ExecStart=/usr/bin/python3 -m unittest -v {words}
ExecReload=
StandardOutput=file:/test/suite
StandardError=file:/test/suite
TimeoutStartSec=200
MemoryMax=4G
TasksMax=4096
OOMScoreAdjust=0
"""


# ---- What the steps use ------------------------------------------------------------------------

def run(command, code=0):
    """What a command of the shell prints; None for a code means any."""
    done = subprocess.run(["bash", "-euc", command], cwd=HERE, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=250)
    if code is not None and done.returncode != code:
        raise AssertionError(f"{command.strip()}: code {done.returncode}: {done.stdout.strip()}")
    return done.stdout.strip()


def until(condition, what):
    """Wait until a condition holds; returns the milliseconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + PATIENCE, f"waited in vain: {what}"
        time.sleep(0.005)
    return round(1000 * (time.monotonic() - begun))


def typed(word, then=""):
    """Run the block of commands of the README that has a word, and a line more."""
    [block] = [text for kind, text in BLOCKS if kind == "console" and word in text]
    run(block + then)


def write_units(*names):
    """Install files that stand at the end of lbdns.service, by the README's function."""
    for name in names:
        typed("part()", f"part {name}")


def show(key, unit="lbdns"):
    """What systemd says of a unit."""
    return run(f"systemctl show --value -p {key} {unit}")


def dig(*words):
    """The data that dig shows, line by line."""
    return run(f"dig @127.0.0.1 +short +tries=1 +time=2 {' '.join(words)}", code=None).split("\n")


def configure(backend="192.0.2.1", listen="[::]:53"):
    """The example's config, with one backend in its pool, and a pool with a table."""
    text = run("python3 lbdns.py example")
    text = re.sub(r'(?m)^listen = .*$', f'listen = ["{listen}"]', text)
    text = re.sub(r'(?m)^workers = .*$', "workers = 2", text)
    CONFIG.write_text(re.sub(r'(?m)^backends = .*$', f'backends = ["{backend}"]', text) + POOLS)


def serves():
    """Whether the pool has an answer, right now."""
    return re.match("[0-9.]+$", dig("api.example.com")[0]) is not None


def lossless():
    """Whether the unit may ask for a buffer that holds what comes during a restart."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 * BUFFER


def under_load(rate, action, *expect, times=1, strict=True):
    """Do something several times while queries come in; none may be lost."""
    done = []
    for _ in range(times):
        with Load(53, rate, expect=expect or ["192.0.2.1"]) as load:
            time.sleep(0.5)
            action()
            until(serves, "an answer")
            time.sleep(0.5)
        done.append(load.outcome)
    lost, sent = sum(each.lost for each in done), sum(each.sent for each in done)
    figure = (f"lost {lost:,} of {sent:,}; slowest answer {max(each.worst for each in done)} ms, "
              f"longest silence {max(each.gap for each in done)} ms")
    assert not sum(each.wrong for each in done), f"{figure}; wrong answers: {done}"
    assert lost == 0 or not strict, figure
    return figure if strict else f"{figure} (net.core.rmem_max is below 4 MiB)"


def processes():
    """The processes of the unit."""
    group = show("ControlGroup")   # "" where it has none
    file = pathlib.Path(f"/sys/fs/cgroup/{group}/cgroup.procs")
    return file.read_text().split() if group and file.exists() else []


def alive():
    """Whether any process is called after lbdns."""
    return any(file.read_text().startswith("lbdns")
               for file in pathlib.Path("/proc").glob("[0-9]*/comm"))


def said_by(unit):
    """What a unit has said since the system was booted."""
    return run(f"journalctl --no-pager -o cat -u {unit}")


def is_bound(port):
    """Whether anybody has a port, over UDP or TCP."""
    for kind in socket.SOCK_DGRAM, socket.SOCK_STREAM:
        with socket.socket(socket.AF_INET6, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            try:
                sock.bind(("::", port))
            except OSError:
                return True
    return False


def exposure(unit="lbdns"):
    """What systemd-analyze makes of a unit."""
    said = run(f"systemd-analyze security --no-pager {unit}")
    return float(re.search(rf"exposure level for {unit}.service: ([\d.]+)", said)[1])


# ---- The steps, in this order ------------------------------------------------------------------

def install():
    """README: install, enable, start"""
    pathlib.Path("/usr/local/bin/sudo").write_text('#!/bin/sh\nexec "$@"\n')
    run("chmod 755 /usr/local/bin/sudo")
    begun = time.monotonic()
    typed("python3 lbdns.py bundle")
    typed("enable --now lbdns &&")
    took = time.monotonic() - begun
    assert show("ActiveState") == "active"
    return f"{took:.1f} s"


def answers():
    """dig over UDP, TCP, IPv6"""
    said = [dig("api.example.com"), dig("+tcp api.example.com")]
    if pathlib.Path("/proc/net/if_inet6").exists():
        said.append(run("dig @::1 +short api.example.com", code=None).split("\n"))
    assert {each[0] for each in said} <= {"192.0.2.1", "192.0.2.2"}, said
    assert run("journalctl -u lbdns -o cat").count("UDP in batches of 32"), "no recvmmsg"
    return f"{said[0][0]}; in batches, under the system call filter"


def confinement():
    """systemctl show; systemd-analyze security"""
    found = {key: show(key) for key in ("WatchdogUSec", "NRestarts", "RestartUSec",
                                        "FileDescriptorStoreMax", "NoNewPrivileges")}
    assert found == {"WatchdogUSec": "10s", "NRestarts": "0", "RestartUSec": "100ms",
                     "FileDescriptorStoreMax": "512", "NoNewPrivileges": "yes"}, found
    assert exposure() <= 1.4, exposure()
    user = run(f"stat -c %u /proc/{show('MainPID')}")
    assert int(user) > 60000, f"user {user}"
    return f"watchdog 10 s, exposure {exposure()}, user {user}"


def reload_good():
    """reload of another config, 5,000/s"""
    configure()
    run("systemctl reload lbdns")
    until(lambda: dig("api.example.com") == ["192.0.2.1"], "the new config")

    def both():
        configure("192.0.2.2")
        run("systemctl reload lbdns")
        until(lambda: dig("api.example.com") == ["192.0.2.2"], "the new config")
        configure("192.0.2.1")
        run("systemctl reload lbdns")
        until(lambda: dig("api.example.com") == ["192.0.2.1"], "the old config")
    return under_load(5000, both, "192.0.2.1", "192.0.2.2")


def reload_bad():
    """reload of a bad config, 5,000/s"""
    def refused():
        CONFIG.write_text("listen = 7\n")
        said = run("systemctl reload lbdns", code=1)
        assert "failed" in said, said
        assert show("ActiveState") == "active"
    figure = under_load(5000, refused)
    configure()
    run("systemctl reload lbdns")
    return f"refused; {figure}"


def restarts():
    """systemctl restart, 5 times, 5,000/s"""
    return under_load(5000, lambda: run("systemctl restart lbdns"), times=5, strict=lossless())


def restarts_fast():
    """systemctl restart, twice, 20,000/s"""
    return under_load(20000, lambda: run("systemctl restart lbdns"), times=2, strict=lossless())


def remembers():
    """restart with a broken table: its states stay"""
    import sqlite3
    with contextlib.closing(sqlite3.connect(TABLE, isolation_level=None)) as table:
        for address, state in (("192.0.2.7", "up"), ("192.0.2.8", "down")):
            table.execute("INSERT INTO backends (pool, address, state) VALUES (?, ?, ?)",
                          ("table.example.com", address, state))

    def known():
        return {dig("table.example.com")[0] for _ in range(20)} == {"192.0.2.7"}
    until(known, "the table")
    kept = TABLE.read_bytes()
    TABLE.write_bytes(b"no table\n" * 1000)
    try:
        run("systemctl restart lbdns")
        assert known(), f"after the restart: {dig('table.example.com')}"
    finally:
        TABLE.write_bytes(kept)
    return "20 of 20 answers as before"


def upgrade():
    """README: upgrade, 5,000/s"""
    program = HERE / "lbdns.py"
    text = program.read_text()
    program.write_text(re.sub('(?m)^VERSION = ".*"', 'VERSION = "47.11"', text, count=1))
    try:
        figure = under_load(5000, strict=lossless(), action=lambda: typed(
            "python3 lbdns.py bundle", "systemctl restart lbdns"))
    finally:
        program.write_text(text)
    assert "lbdns 47.11" in run("journalctl -u lbdns -o cat"), "the old program runs on"
    return figure


def killed():
    """kill -9 of the main process, 5,000/s"""
    before = show("NRestarts")

    def kill():
        main = show("MainPID")
        assert main != "0", "it does not run"   # 0 would be this process
        os.kill(int(main), signal.SIGKILL)
        until(lambda: show("MainPID") not in ("0", main) and show("ActiveState") == "active",
              "another main process")
    figure = under_load(5000, kill, strict=lossless())
    assert int(show("NRestarts")) == int(before) + 1, show("NRestarts")
    return figure


def usr2():
    """SIGUSR2, 5,000/s"""
    main = show("MainPID")
    figure = under_load(5000, lambda: run("systemctl kill --kill-whom=main -s USR2 lbdns; sleep 2"))
    assert show("MainPID") == main and show("ActiveState") == "active", "another main process"
    return f"same pid; {figure}"


def stop():
    """stop: no process, no socket is left"""
    begun = time.monotonic()
    run("systemctl stop lbdns")
    took = time.monotonic() - begun
    assert not processes() and not alive(), processes()
    assert not is_bound(53), "port 53 is held"
    assert show("Result") == "success", show("Result")
    return f"{1000 * took:.0f} ms"


def high_port():
    """port 9000 without the capability"""
    write_units("lbdns.service.d/socket.conf")
    file = UNITS / "lbdns.service.d/socket.conf"
    file.write_text(file.read_text().replace("Sockets=lbdns.socket\n", ""))
    configure(listen="[::]:9000")
    run("systemctl daemon-reload && systemctl restart lbdns")
    said = dig("-p 9000 api.example.com")
    assert said == ["192.0.2.1"], said
    assert exposure() <= 1.1, exposure()
    run("systemctl stop lbdns")
    return f"exposure {exposure()}"


def activation():
    """README: socket unit; a query starts lbdns"""
    write_units("lbdns.socket", "lbdns.service.d/socket.conf")
    configure()
    run("systemctl daemon-reload; systemctl stop lbdns; systemctl enable --now lbdns.socket; "
        "systemctl start lbdns")
    assert serves() and exposure() <= 1.1, exposure()
    run("systemctl stop lbdns")
    assert is_bound(53), "systemd has let port 53 go"
    took = until(serves, "an answer of what a query starts")
    capabilities = run(f"grep CapPrm /proc/{show('MainPID')}/status").split()[1]
    assert int(capabilities, 16) == 0, capabilities
    return f"first answer after {took} ms, no capability, exposure {exposure()}"


def activated_restarts():
    """socket unit: restart, 3 times, 5,000/s"""
    return under_load(5000, lambda: run("systemctl restart lbdns"), times=3)


def activated_restarts_fast():
    """socket unit: restart, twice, 20,000/s"""
    return under_load(20000, lambda: run("systemctl restart lbdns"), times=2)


def activated_bad():
    """socket unit: bad config, then mended"""
    CONFIG.write_text("listen = 7\n")
    run("systemctl restart lbdns", code=1)
    until(lambda: dig("api.example.com") and run("systemctl is-active lbdns.socket", None)
          == "failed", "systemd to give up")
    assert not is_bound(53), "port 53 is held"
    time.sleep(10)   # TriggerLimitIntervalSec=
    configure()
    run("systemctl start lbdns")
    until(serves, "an answer")
    return "closed after three starts; mended by one more"


def suite():
    """tests of the suite in the unit's sandbox"""
    unit = UNITS / "lbdns-suite.service"
    unit.write_text((HERE / "lbdns.service").read_text())
    (UNITS / "lbdns-suite.service.d").mkdir()
    (UNITS / "lbdns-suite.service.d/suite.conf").write_text(
        SUITE.format(words=" ".join(f"-k test_server.{name}." for name in CLASSES)))
    run("systemctl daemon-reload")
    begun = time.monotonic()
    run("systemctl start lbdns-suite", code=None)
    text = pathlib.Path("/test/suite").read_text()
    ended = re.search(r"(?m)^Ran (\d+) tests.*\n\n(OK.*)", text)
    assert ended, text.partition("\n=====")[2] or text
    assert "ok\n" in text
    return f"{ended[1]} tests, {ended[2]}; {time.monotonic() - begun:.0f} s"


def passwords():
    """README: a command reads a password of the unit's"""
    def ask(address):
        """Answer with an address, which a command prints that finds the password in the file."""
        configure()
        CONFIG.write_text(CONFIG.read_text() + SECRET_POOL.replace("ADDRESS", address))

    def answered(address):
        until(lambda: dig("secret.example.com") == [address], address)
    write_units("lbdns.service.d/passwords.conf")
    ask("192.0.2.3")
    secret = re.findall("(?m)^#/etc/lbdns/pg_service.conf: ?(.*\n)",
                        (HERE / "lbdns.service").read_text())
    file = pathlib.Path("/etc/lbdns/pg_service.conf")
    file.write_text("".join(secret))
    file.chmod(0o600)
    run("systemctl daemon-reload && systemctl restart lbdns")
    answered("192.0.2.3")
    ask("192.0.2.4")
    run("systemctl reload lbdns")
    answered("192.0.2.4")
    shown = [pid for pid in processes()
             if b"=secret" in pathlib.Path(f"/proc/{pid}/environ").read_bytes()]
    assert processes() and not shown, f"in the environment of {shown}"
    assert "exit code 1" not in said_by("lbdns")
    file.write_text(file.read_text().replace("=secret", "=changed"))
    run("systemctl restart lbdns")
    until(lambda: "exit code 1" in said_by("lbdns"), "the new password")
    file.unlink()
    run("systemctl restart lbdns", code=1)
    assert show("ActiveState") == "failed", "it is tried again"
    (UNITS / "lbdns.service.d/passwords.conf").unlink()
    configure()
    run("systemctl daemon-reload && systemctl restart lbdns")
    return "also after a reload; in no environment; another holds from a restart"


def agent():
    """README: the agent's unit reports, stops, drains"""
    run("python3 -c 'print(\"7\" * 64)' >reports.key")
    run(re.search("(?m)^# +(groupadd .+)", (HERE / "lbdns.service").read_text())[1])
    write_units("lbdns.service.d/reports.conf", "lbdns-agent.service.d/agent.conf")
    configure()
    CONFIG.write_text(f'reports = ["[::]:9053"]\nreports_key = "reports.key"\n'
                      f'{CONFIG.read_text()}{AGENT_POOL}')
    run("systemctl daemon-reload && systemctl restart lbdns && systemctl reload lbdns")
    pathlib.Path("/etc/lbdns/agent").write_text("AGENT=agent.example.com 443 --to 127.0.0.1\n")
    with socket.create_server(("127.0.0.1", 443)):
        run(f"install -m 644 lbdns.service {UNITS}/lbdns-agent.service; systemctl daemon-reload; "
            "systemctl enable --now lbdns-agent")
        took = until(lambda: dig("agent.example.com") == ["127.0.0.1"], "a report")
        user = run(f"stat -c %u /proc/{show('MainPID', 'lbdns-agent')}")
        for drain, undrain in (("touch /etc/lbdns/drain", "rm /etc/lbdns/drain"),
                               ("systemctl stop lbdns-agent", "")):
            drains = said_by("lbdns").count("127.0.0.1: up -> drain, says agents")
            run(drain)
            until(lambda drains=drains: said_by("lbdns").count(
                "127.0.0.1: up -> drain, says agents") > drains, f"a drain by {drain}")
            if undrain:
                run(undrain)
                until(lambda: "127.0.0.1: drain -> up" in said_by("lbdns"), "its end")
    said = said_by("lbdns-agent")
    assert show("Result", "lbdns-agent") == "success", said
    assert show("WatchdogUSec", "lbdns-agent") in ("0", "infinity"), "an agent does not feed it"
    assert "agent: reports agent.example.com (port 443)" in said and "netlink" not in said, said
    assert int(user) > 60000 and exposure("lbdns-agent") <= 1.1, user
    configure()
    run("systemctl restart lbdns")
    return f"heard after {took} ms; exposure {exposure('lbdns-agent')}, user {user}"


def uninstall():
    """README: uninstall"""
    typed("disable --now")
    left = [each.name for each in UNITS.glob("lbdns*") if not each.name.startswith("lbdns-suite")]
    assert not left, left
    assert not is_bound(53) and not alive()
    return "nothing left"


STEPS = (install, answers, confinement, reload_good, reload_bad, restarts, restarts_fast, remembers,
         upgrade, killed, usr2, passwords, agent, stop, high_port, activation, activated_restarts,
         activated_restarts_fast, activated_bad, suite, uninstall)


def main():
    """Take the steps that are named, or all; returns the exit code."""
    failed = []
    for step in STEPS:
        if sys.argv[1:] and step.__name__ not in sys.argv[1:]:
            continue
        begun = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            said = step()
        except Exception as bad:
            failed.append(step.__doc__)
            said = f"FAILED: {bad}"
            if not isinstance(bad, AssertionError):
                traceback.print_exc()
            said += "\n" + run(f"journalctl --no-pager -o short -u lbdns -u lbdns.socket "
                               f"-u lbdns-agent --since '{begun}' | tail -n 15", code=None)
            if CONFIG.exists():
                configure()   # for the next step
                run("systemctl restart lbdns", code=None)
        print(f"{step.__doc__:48} {said}", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all good")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
