"""Tests of what stands in this folder: python3 -m unittest bench.test_bench (in the folder above).

CI runs them; they are no part of what `python3 -m unittest` runs.
"""
import collections
import contextlib
import importlib.util
import itertools
import json
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import unittest
import unittest.mock
import xml.etree.ElementTree

import test_server
from test_server import PATIENCE, PYTHON, SCRIPT, folder_of, lbdns, needs

BENCH = pathlib.Path(__file__).resolve().parent


class BenchTest(unittest.TestCase):
    """The programs of bench/ in a tiny form: each line of their tables has its numbers. What the
    numbers are is not for tests: other things run beside them."""

    NUMBER = r" +[\d,.]+"
    MAYBE = r" +([\d,.]+|-)"      # a ratio to what cost less than the kernel counts

    def bench(self, program, *words, code=0, end_at=None):
        """What a program of bench/ printed; it leaves neither files nor processes behind. It is
        ended when it has printed `end_at`."""
        tiny = () if program in ("agent.py", "balance.py", "fleet.py") else (
            "--rounds", "1", "--seconds", "0.2")
        with folder_of() as folder, subprocess.Popen(
                [*PYTHON, str(BENCH / program), "--lbdns", str(SCRIPT), *tiny, *words],
                env={**os.environ, "TMPDIR": str(folder)}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            text = ""
            while end_at and end_at not in text and process.poll() is None:
                text += process.stdout.readline()
            if end_at:
                process.terminate()
            text += process.communicate(timeout=30 * PATIENCE)[0]
            self.assertEqual(process.returncode, code, text)
            self.assertEqual([path.name for path in folder.iterdir()], [])
            self.assertEqual([path for path in pathlib.Path("/proc").glob("[0-9]*/environ")
                              if str(folder).encode() in self.content(path)], [])
        return text

    @staticmethod
    def content(path):
        """A file's octets, if it is still there."""
        with contextlib.suppress(OSError):
            return path.read_bytes()
        return b""

    @needs("dnsperf")
    def test_compare(self):
        text = self.bench("compare.py", "--only", "lbdns,echo", "--starts", "1", "--rate", "500")
        self.assertRegex(text, r"(?m)^machine: .*\n^cores: .*\n^versions: Python [\d.]+.*, "
                               r"lbdns [\d.]+, dnsperf [\d.]+")
        for server, works in (("lbdns", ("fixed", "anti", "cookie", "mix", "nx", "tcp")),
                              ("echo", ("fixed", "anti", "cookie", "mix", "nx"))):
            for work in works:       # us/query, user, system, q/s, lost, ratio
                with self.subTest(server=server, work=work):
                    self.assertRegex(
                        text, rf"(?m)^{work} +{server}({self.NUMBER}){{5}}{self.MAYBE}$")
            with self.subTest(server=server):
                self.assertRegex(text, rf"(?m)^latency +{server}({self.NUMBER}){{4}}$")
                self.assertRegex(text, rf"(?m)^after the loads +{server}({self.NUMBER}){{3}}$")
        self.assertNotRegex(text, r"(?m)^tcp +echo|^note: ")

    @needs("dnsperf", "gdnsd")
    def test_compare_with_gdnsd(self):
        text = self.bench("compare.py", "--only", "lbdns,gdnsd", "--work", "anti", "--starts", "1")
        self.assertRegex(text, r"(?m)^load .* / gdnsd$")
        for server in ("lbdns", "gdnsd"):
            self.assertRegex(text, rf"(?m)^anti +{server}({self.NUMBER}){{5}}{self.MAYBE}$")
        self.assertNotRegex(text, r"(?m)^note: ")

    @needs("dnsperf")
    def test_scale(self):
        text = self.bench("scale.py", "--largest", "3")
        sizes = {"workers": (1, 2), "pools": (1,), "names": (1,)}
        for policy in lbdns.POLICIES:
            sizes[policy] = (1, 3)
        for series, numbers in sizes.items():
            for size in numbers:     # us/query; ratio; q/s, lost, RSS before and after
                with self.subTest(series=series, size=size):
                    self.assertRegex(text, rf"(?m)^{series} +{size}{self.NUMBER}{self.MAYBE}"
                                           rf"({self.NUMBER}){{4}}$")
        self.assertNotRegex(text, r"(?m)^note: ")

    def test_reports(self):
        text = self.bench("reports.py", "--backends", "20", "--forged", "500", "--stopped", "0.8")
        for load in ("quiet", "reports", "forged"):    # lost, ms, their growth, rates, dropped
            with self.subTest(load=load):
                self.assertRegex(text, rf"(?m)^{load} +0({self.NUMBER}){{3}} +-?[\d.]+{self.NUMBER}"
                                       rf"{self.NUMBER} % +0$")
        for turn in ("number 1", "number 2", "number 3", "ended"):
            with self.subTest(turn=turn):
                self.assertRegex(text, rf"(?m)^{turn}{self.NUMBER} +0 +0$")
        self.assertRegex(text, r"(?m)^agents killed +4\.20 +\d+ +24$")
        self.assertNotRegex(text, r"(?m)^note: ")

    @needs("dnsperf")
    def test_what_cannot_be_measured_is_one_sentence(self):
        for program, words, says in (
                ("compare.py", ("--only", "bind"), "compare.py: --only knows no 'bind', only "),
                ("compare.py", ("--work", "ani"), "compare.py: --work knows no 'ani', only fix"),
                ("scale.py", ("--only", "pool"), "scale.py: --only knows no 'pool', only work"),
                ("scale.py", ("--rounds", "0"), "scale.py: it takes at least one round"),
                ("scale.py", ("--lbdns", "/nowhere"), "scale.py: there is no /nowhere: --lbdns"),
                ("scale.py", ("--python", "/nowhere"), "scale.py: /nowhere is not installed: ")):
            with self.subTest(program=program, words=words):
                text = self.bench(program, *words, code=2)
                self.assertTrue(text.startswith(says) and text.count("\n") == 1, text)

    def test_without_dnsperf_the_programs_say_what_to_install(self):
        with folder_of() as folder:
            done = subprocess.run([*PYTHON, str(BENCH / "scale.py")], text=True, timeout=PATIENCE,
                                  env={**os.environ, "PATH": str(folder)},
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT)
        self.assertEqual((done.returncode, done.stdout),
                         (2, "scale.py: dnsperf is not installed: apt-get install dnsperf.\n"))

    @needs("dnsperf")
    def test_the_commands_of_the_reports_are_understood(self):
        blocks = test_server.WithFiles.BLOCK.findall((BENCH / "README.md").read_text())
        typed = re.findall(r"(?m)^\$ python3 bench/(\w+\.py)([^#\n]*)",
                           "".join(text for kind, text in blocks if kind == "console"))
        self.assertEqual({program for program, _ in typed},
                         {"agent.py", "balance.py", "compare.py", "fleet.py", "reports.py",
                          "scale.py"})
        for program, words in typed:
            with self.subTest(program=program, words=words):
                text = self.bench(program, "--lbdns", "/nowhere", *words.split(), code=2)
                self.assertTrue(text.startswith(f"{program}: there is no /nowhere"), text)
                names = re.findall(r"--(?:only|work) (\S+)", words)
                known = set(re.findall(r"[\w-]+", (BENCH / program).read_text()
                                       + self.bench(program, "--help")))
                self.assertLessEqual({name for each in names for name in each.split(",")}, known)

    def test_agent(self):
        text = self.bench("agent.py", "--connections", "20", "300", "--rounds", "1")
        for number in (20, 300):
            for lister in ("netlink", "proc"):
                with self.subTest(number=number, lister=lister):
                    self.assertRegex(
                        text, rf"(?m)^{number} +{lister} +{number}({self.NUMBER}){{2}}$")
        for words in (("--rounds", "0"), ("--connections", "0")):
            self.assertIn("agent.py: it takes at least one round, and one connection.\n",
                          self.bench("agent.py", *words, code=2))

    # -- balance.py: a simulation, so its numbers are for tests --

    @classmethod
    def figures(cls, policy, seed=1, **setting):
        """The figures of one run: means over time and the like."""
        balance = cls.balance()
        return balance.measure(balance.Setting(**setting), policy, seed)

    @staticmethod
    def balance():
        """bench/balance.py as a module; its policies are those of the lbdns.py under test."""
        if "balance" not in sys.modules:
            spec = importlib.util.spec_from_file_location("balance", BENCH / "balance.py")
            sys.modules["balance"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules["balance"])
        return sys.modules["balance"]

    def test_balance(self):
        text = self.bench("balance.py", "--only", "S2,E6", "--quick")
        for name in ("S2", "E6"):
            with self.subTest(name=name):
                self.assertRegex(
                    text, rf"(?m)^\| {name} \|[^|]*\|[^|]*(\| [\d.]+ / [\d.]+ ){{6}}\|$")
        again = [self.figures("least-connections", seed, tau=60, seconds=300) for seed in (1, 2, 1)]
        self.assertEqual(again[0], again[2])
        self.assertNotEqual(again[0], again[1])
        for words, says in ((("--only", "S0"), "balance.py: --only knows no 'S0', only S1,"),
                            (("--lbdns", "/nowhere"), "balance.py: there is no /nowhere: --lb")):
            said = self.bench("balance.py", *words, code=2)
            self.assertTrue(said.startswith(says) and said.count("\n") == 1, said)
        self.assertIn("--seeds: invalid numbers", self.bench("balance.py", "--seeds", "x", code=2))

    def test_the_simulated_world_is_as_theory_has_it(self):
        # Nobody controls anything: each of 10 has Poisson(120) connections of the total.
        def poisson(count):
            return math.exp(count * math.log(120) - 120 - math.lgamma(count + 1))
        below = list(itertools.accumulate(map(poisson, range(300))))
        largest = sum(1 - each**10 for each in below) / 120      # max of 10 / its mean
        expected = 1 + (largest - 1) * math.sqrt(0.9)            # beside the mean of those 10
        mean, _ = self.figures("random", tau=60, seconds=1500)
        self.assertAlmostEqual(mean, expected, delta=0.015)
        # Little's law, whatever the lifetimes and caches: connections = rate * lifetime.
        for more in ({}, {"lomax": True}, {"cache": "geo"}):
            with self.subTest(more=more):
                balance = self.balance()
                setting = balance.Setting(tau=30, rate=40, seconds=900, **more)
                run = balance.World(setting, balance.POLICIES["naive"], 1).run()
                total = sum(sum(moment.counts) for moment in run.history) / len(run.history)
                self.assertAlmostEqual(total / 1200, 1, delta=0.05)

    def test_the_simulated_backends_count_what_they_open(self):
        balance, seen = self.balance(), []

        class Spy(balance.LeastConnections):
            def row(self, row, said):
                seen.append(super().row(row, said).opened)
                return super().row(row, said)
        setting = balance.Setting(tau=60, rate=200, seconds=100)  # 1,200 each, and 2,000 come
        for more, least, most in (({}, 2900, 3500), ({"anew": 50}, 0, 1300)):
            balance.World(setting._replace(**more), Spy, 1).run()
            self.assertEqual([opened for opened in seen[-10:] if not least <= opened <= most], [])
        balance.World(setting._replace(silent=True), Spy, 1).run()
        self.assertEqual([opened is None for opened in seen[-10:]], [True] + [False] * 9)
        said = {"connections": 1, "opened": 2, "up": True}
        for policy, opened in (("least-connections", 2), ("uncounted", None)):
            server = balance.World(setting, balance.POLICIES[policy], 1).servers[0]
            self.assertEqual(server.row(server.config.backends[0], said).opened, opened)

    def test_the_simulation_agrees_with_another_one(self):
        # The other one is that from which the rule of least-connections came: mean of 8 seeds
        # there, and what one seed may be away from it: 4 standard deviations of a seed.
        for expected, away, policy, setting in (
                (1.402, 0.095, "naive", {"seconds": 600}),
                (1.006, 0.002, "ideal", {"seconds": 600}),
                (1.144, 0.046, "random", {"seconds": 600}),
                (1.884, 0.41, "naive", {"seconds": 600, "weights": "1:2:4"}),
                (1.539, 0.14, "naive", {"seconds": 600, "cache": "geo"}),
                (1.202, 0.10, "ideal", {"seconds": 600, "cache": "geo"}),
                (8.25, 4.2, "naive", {"seconds": 300, "event": "newcomer", "figures": "t90"}),
                (7.03, 1.6, "naive", {"seconds": 400, "event": "hole", "figures": "drawn"}),
                (40.4, 4.8, "naive", {"seconds": 300, "event": "tight", "figures": "refused"}),
                (1.120, 0.01, "ideal", {"seconds": 320, "event": "crash", "figures": "worst"})):
            with self.subTest(policy=policy, setting=setting):
                figure = self.figures(policy, tau=60, **setting)[0]
                self.assertAlmostEqual(figure, expected, delta=away)

    def test_the_simulation_drives_a_pool_as_a_worker_does(self):
        backends = [{"address": f"192.0.2.{at}", "weight": 1 + at,
                     "max_connections": 10 * at or None} for at in range(4)]
        server = self.balance().LeastConnections(
            backends, {"every": 5.0, "random": random.Random(1)})
        rows = [{"connections": count, "up": at != 3} for at, count in enumerate((90, 10, 9, 0))]
        server.poll(7.0, rows)
        self.assertEqual([(each.weight, each.max_connections, each.connections, each.state)
                          for each in server.pool.backends],
                         [(1, None, 90, "up"), (2, 10, 10, "up"), (3, 20, 9, "up"),
                          (4, 30, 0, "down")])
        credited = []
        server.pool.credit = credited.extend
        self.assertEqual(server.pick(7.1), 2)                    # not down, not full, the fewest
        self.assertEqual(credited, [server.pool.backends[2]])

    # -- fleet.py: real servers, backends and clients --

    def test_the_fleet_tells_its_figures_and_draws_them(self):
        with folder_of() as folder:
            picture = folder / "fleet.svg"
            text = self.bench("fleet.py", "--seconds", "1.5", "--rate", "40", "--most", "0.9",
                              "--plot", str(picture), code=1)
            svg = picture.read_bytes()
        self.assertRegex(text, r"(?m)^FAILED: settled max/mean of least-connections is [\d.]+, "
                               r"more than 0\.9\.$")
        self.assertRegex(text, r"(?m)^[\d,]+ queries answered, \d+ not within 1 s; 99 % within ")
        self.assertNotRegex(text, r"(?m)^note: ")
        labels = re.findall(r"(?m)^\| (.+?) (?:\| (?:[\d.,]+|-|never) ){2}\|$", text)
        self.assertEqual(len(labels), 14, text)
        report = (BENCH / "README.md").read_text()
        self.assertEqual([], [label for label in labels if f"| {label} |" not in report])
        self.assertEqual(svg.count(b"<path "), 18)     # 9 backends of 2 pools
        self.assertIn("one drained", xml.etree.ElementTree.fromstring(svg).itertext())

    def test_the_fleet_leaves_nothing_when_it_is_ended(self):
        self.bench("fleet.py", "--rate", "10", code=143, end_at="18 backends run")

    def test_the_fleet_says_what_it_cannot_do(self):
        for words, says in ((("--rate", "1e9"), r"it needs \d+ open files and may have \d+: "),
                            (("--seconds", "0"), "it takes more than no seconds")):
            text = self.bench("fleet.py", *words, code=2)
            self.assertRegex(text, rf"\Afleet\.py: {says}.*\n\Z")

    @staticmethod
    def fleet():
        """The module, a plan, and what is seen when the newcomer takes a second for each of its
        connections, gets every other client, and two answers come too late."""
        with unittest.mock.patch.object(sys, "path", [str(BENCH), *sys.path]):
            fleet = importlib.import_module("fleet")
        plan, seen = fleet.Plan(), fleet.Seen()
        for when in range(int(plan.end)):
            counts = [10] * fleet.BACKENDS + [max(0, min(10, when - int(plan.add)))]
            counts[fleet.VICTIM] *= when < plan.kill
            counts[fleet.DRAINED] -= 8 * (when >= plan.drain)
            seen.samples.append((when, {"random": counts}))
            seen.opened.append((when, "random", 0 if when % 2 else fleet.NEWCOMER))
        seen.answers += [(plan.kill + 5.5, "random", fleet.VICTIM), (plan.drain, "random", 0),
                         (plan.drain + 2.25, "random", fleet.DRAINED)]
        return fleet, plan, seen

    def test_what_the_figures_of_the_fleet_mean(self):
        fleet, plan, seen = self.fleet()
        found = fleet.figures(seen, plan, "random").values()
        self.assertEqual([round(each, 3) for each in found], [
            1, 1, 1, 1, 1,                # settled, and its four phases
            1.004, 1.127, 1.143,          # all the time; the worst is when the newcomer is empty
            5.5, 0, 4.364, 9, 2.25, 1])   # a share of 6/11 in 10 s, of 1/8 that is fair

    def test_what_the_fleet_must_not_do(self):
        fleet, plan, seen = self.fleet()
        table = {"least-connections": dict.fromkeys(fleet.figures(seen, plan, "random"), 1.0)}
        self.assertEqual(list(fleet.judge(table, seen, 1.0)), [])
        self.assertEqual(len(list(fleet.judge(table, seen, 0.99))), 1)
        table["least-connections"][fleet.SETTLED] = math.nan
        self.assertEqual(len(list(fleet.judge(table, seen, 1.0))), 1)
        table["random"], seen.unanswered, seen.wrong = (
            fleet.figures(seen, plan, "random"), 1, ["00"])
        self.assertEqual(list(fleet.judge(table, seen, 1.0))[1:], [
            "random: dead backend: seconds until its last answer 5.50, more than 5",
            "random: drained backend: seconds until its last answer 2.25, more than 1",
            "1 queries without an answer within 1 s", "1 answers are wrong, such as 00"])


if __name__ == "__main__":
    unittest.main()


class ExplainTest(unittest.TestCase):
    """What /explain.json says of the next answer is what 10,000 answers of a server show."""

    POOL = """
[pools."{name}.example.com"]
policy = "{policy}"
{more}
"""
    ROWS = [("10.0.0.1", 1), ("10.0.0.2", 2), ("10.0.0.3", 3), ("10.0.0.4", 0.5)]
    LIMIT = 16.27  # of chi-square with three degrees of freedom, at 0.001

    def test_probabilities(self):
        backends = ", ".join(f'{{address = "{address}", weight = {weight}}}'
                             for address, weight in self.ROWS)
        port = test_server.free_port()
        names = {"rnd": "random", "rr": "round-robin", "first": "failover", "hash": "hash"}
        pools = "".join(self.POOL.format(name=name, policy=policy, more=f"backends = [{backends}]")
                        for name, policy in names.items())
        pools += self.POOL.format(name="lc", policy="least-connections",
                                  more='source = { sqlite = "b.db" }')
        with test_server.Server(f'status = "127.0.0.1:{port}"\n{test_server.ZONE}{pools}',
                                workers=2) as server:
            test_server.Database(server.folder / "b.db").fill(
                *({"address": address, "weight": weight, "connections": int(1000 * weight)}
                  for address, weight in self.ROWS), pool="lc.example.com")
            server.wait_for("lc.example.com: .*10.0.0.4: absent -> up|lc.example.com: 4 backends")
            dice = random.Random(3)
            for name in (*names, "lc"):
                owner = f"{name}.example.com"
                found = json.loads(test_server.fetch(port, f"/explain.json?name={owner}")[2])
                packets = [test_server.query(owner, options=test_server.option(
                    8, b"\0\1\x18\0" + dice.randbytes(3))) for _ in range(10_000)]
                counts = collections.Counter(
                    test_server.Answer(reply).rdatas[0] for reply in server.ask_many(packets))
                with self.subTest(name, counts=counts, next=found["next"]):
                    self.assertAlmostEqual(sum(found["next"].values()), 1, 3)
                    self.assertLessEqual(set(counts), {each for each, share
                                                       in found["next"].items() if share})
                    chi = sum((counts[address] - 10_000 * share)**2 / (10_000 * share)
                              for address, share in found["next"].items() if share)
                    self.assertLess(chi, self.LIMIT)
