"""A server under test: its config in a folder of its own, its cores, its start, its cost, its end.

All is read from /proc, so this is for Linux. A server is ended with all that it started, and
nothing else is: it runs in a session of its own.
"""
import collections
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")   # what /proc/PID/stat counts CPU time in: usually 10 ms
PATIENCE = 30                     # seconds that a server may take to give its first answer


class NoAnswer(Exception):
    """A server does not start; the text is a sentence for the user."""


def packet(ident, name, edns=False):
    """A query's octets (RFC 1035 4.1) for A; with `edns`, an OPT that allows 1232 octets."""
    header = b"".join(number.to_bytes(2, "big") for number in (ident, 0, 1, 0, 0, edns))
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return header + labels + b"\0\0\1\0\1" + (b"\0\0\x29\x04\xd0" + bytes(6) if edns else b"")


def free_port():
    """A port of loopback that is free for UDP and TCP; for servers that do not take 0."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]


def fill(text, **words):
    """Replace each {word}; other braces, of which configs are full, stay."""
    for word, value in words.items():
        text = text.replace("{" + word + "}", str(value))
    return text


def tree(pid):
    """A process and its descendants."""
    pids = [pid]
    for parent in pids:
        for children in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids += map(int, children.read_text().split())
    return pids


def cpu_of(pids, name=""):
    """Microseconds of CPU that processes have used so far: user, system. With a name, only those
    that have it."""
    used = [0, 0]
    for pid in pids:
        with contextlib.suppress(OSError):
            head, _, stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")
            if name in ("", head.partition("(")[2]):
                used = [so_far + int(ticks)
                        for so_far, ticks in zip(used, stat.split()[11:13], strict=True)]
    return [1e6 * ticks / TICK for ticks in used]


def memory_of(pids):
    """MiB resident, summed over processes: RSS, and PSS, which has shared pages once."""
    total = collections.Counter()
    for pid in pids:
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            for key, size in re.findall(r"^(Rss|Pss): +(\d+) kB", text, re.M):
                total[key] += int(size) / 1024
    return total["Rss"], total["Pss"]


class Server:
    """A server that runs: started on its cores with its config in a folder of its own.

    `files` are texts by path, `words` the command line; {port} and {folder} are filled in.
    """

    def __init__(self, name, words, files, parent, cores, port=None, popen=subprocess.Popen,
                 wait=True):
        """Start it by `popen` and, if `wait`, wait for its first answer; `start_time`
        is how long that took."""
        self.name, self.port, self.cores, self.popen = name, port or free_port(), cores, popen
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
        for path, text in files.items():
            self.write(path, text)
        self.words = [fill(str(word), port=self.port, folder=self.folder) for word in words]
        began = time.perf_counter()
        self.launch()
        try:
            self.start_time = self.first_answer() - began if wait else 0.0
        except BaseException:
            self.stop()
            raise

    def write(self, path, text):
        """Write a file of its config."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(fill(text, port=self.port, folder=self.folder))

    def launch(self):
        """Start the process, also again, when it has ended."""
        own = os.sched_getaffinity(0)
        with open(self.folder / "log", "ab") as log:
            os.sched_setaffinity(0, self.cores)   # inherited
            self.process = self.popen(self.words, cwd=self.folder, stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log, env=dict(os.environ),
                                      start_new_session=True)
            os.sched_setaffinity(0, own)

    def __enter__(self):
        """It has been started already."""
        return self

    def __exit__(self, *exc):
        """End it."""
        self.stop()

    def stop(self):
        """End it, and at the end whatever is left of the session that it began."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def first_answer(self):
        """The time of its first answer without an error."""
        limit = time.perf_counter() + PATIENCE
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", self.port))
            client.settimeout(0.2)
            while time.perf_counter() < limit and self.process.poll() is None:
                with contextlib.suppress(ConnectionRefusedError, TimeoutError):
                    client.send(packet(4711, "api.example.com"))
                    if client.recv(4096)[3] & 15 == 0:
                        return time.perf_counter()
                time.sleep(0.0005)
        said = (self.folder / "log").read_text(errors="replace").strip().split("\n")[-1]
        raise NoAnswer(f"{self.name} gives no answer; the last line of its log: {said or 'none'}")

    def cpu(self, name=""):
        """Microseconds of CPU that its processes have used so far: user, system. With a name, only
        those that have it."""
        return cpu_of(tree(self.process.pid), name)

    def memory(self):
        """What `memory_of` says of its processes."""
        return memory_of(tree(self.process.pid))
