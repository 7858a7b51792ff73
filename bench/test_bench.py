"""Tests of what stands in this folder: python3 -m unittest bench.test_bench (in the folder above).

CI runs them; they are no part of what `python3 -m unittest` runs.
"""
import collections
import contextlib
import importlib.util
import io
import itertools
import json
import math
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import time
import unittest
import unittest.mock
import xml.etree.ElementTree
from types import SimpleNamespace

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
        tiny = () if program in ("agent.py", "balance.py", "differential.py", "fleet.py",
                                 "fuzz.py", "lifecycle.py") else (
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
            self.assertEqual([path for path in pathlib.Path("/proc").glob("[0-9]*")
                              if str(folder).encode() in self.content(path / "environ")], [])
        return text

    @staticmethod
    def content(path):
        """A file's octets, if it is still there."""
        with contextlib.suppress(OSError):
            return path.read_bytes()
        return b""

    @needs("dnsperf")
    def test_compare(self):
        text = self.bench("compare.py", "--only", "lbdns,lbdns2,echo", "--starts", "1",
                          "--rate", "500")
        self.assertRegex(text, r"(?m)^machine: .*\n^cores: .*\n^versions: Python [\d.]+.*, "
                               r"lbdns [\d.]+, dnsperf [\d.]+")
        low = "q1k", "q5k", "q20k"
        for server, works in (("lbdns", ("fixed", "anti", "cookie", "mix", "nx", "tcp", *low)),
                              ("lbdns2", low),
                              ("echo", ("fixed", "anti", "cookie", "mix", "nx", *low))):
            for work in works:       # us/query, user, system, q/s, lost, ratio
                with self.subTest(server=server, work=work):
                    self.assertRegex(
                        text, rf"(?m)^{work} +{server}({self.NUMBER}){{5}}{self.MAYBE}$")
            with self.subTest(server=server):
                self.assertRegex(text, rf"(?m)^latency +{server}({self.NUMBER}){{4}}$")
                self.assertRegex(text, rf"(?m)^after the loads +{server}({self.NUMBER}){{3}}$")
        self.assertNotRegex(text, r"(?m)^tcp +echo|^anti +lbdns2|^note: ")

    @needs("dnsperf", "gdnsd")
    def test_compare_with_gdnsd(self):
        text = self.bench("compare.py", "--only", "lbdns,gdnsd", "--work", "anti", "--starts", "1")
        self.assertRegex(text, r"(?m)^load .* / gdnsd$")
        for server in ("lbdns", "gdnsd"):
            self.assertRegex(text, rf"(?m)^anti +{server}({self.NUMBER}){{5}}{self.MAYBE}$")
        self.assertNotRegex(text, r"(?m)^note: ")

    @needs("dnsperf")
    def test_scale(self):
        text = self.bench("scale.py", "--largest", "3", "--scenario-seconds", "1")
        sizes = {"workers": (1, 2), "pools": (1,), "names": (1,), "zones": (1,)}
        for policy in (*lbdns.POLICIES, "function"):
            sizes[policy] = (1, 3)
        for series, numbers in sizes.items():
            for size in numbers:     # us/query; ratio; q/s, lost, start, MiB before and after
                with self.subTest(series=series, size=size):
                    self.assertRegex(text, rf"(?m)^{series} +{size}{self.NUMBER}{self.MAYBE}"
                                           rf"({self.NUMBER}){{5}}$")
        for name in ("limits", "changes", "table", "quiet", "checks"):
            with self.subTest(name=name):    # lost, ms, shares of a core, start
                self.assertRegex(text, rf"(?m)^{name} +0({self.NUMBER}){{3}}({self.NUMBER} %){{2}}"
                                       rf"{self.NUMBER}$")
        self.assertRegex(text, rf"(?m)^clients +1,900{self.NUMBER}$")
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
        typed = re.findall(r"(?m)^\$ python3 bench/(\w+\.py)([^#>\n]*)",
                           "".join(text for kind, text in blocks if kind == "console"))
        self.assertEqual({program for program, _ in typed},
                         {"agent.py", "balance.py", "compare.py", "differential.py", "fleet.py",
                          "fuzz.py", "lifecycle.py", "reports.py", "scale.py"})
        for program, words in typed:
            with self.subTest(program=program, words=words):
                text = self.bench(program, "--lbdns", "/nowhere", *words.split(), code=2)
                self.assertTrue(text.startswith(f"{program}: there is no /nowhere"), text)
                names = re.findall(r"--(?:only|work|rows) (\S+)", words)
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
        # Another program, written apart from this one and not kept, gave these means of 8 seeds;
        # what one seed may be away from that are 4 standard deviations of a seed.
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

    def test_a_worse_rule_misses_the_targets(self):
        text = self.bench("balance.py", "--check", "--only", "S2,S17,E6")
        self.assertEqual(text, "7 of 7 targets are met\n")   # uncounted is not held to S17
        text = self.bench("balance.py", "--check", "--only", "S2,E6", "--policies",
                          "random,naive", code=1)
        self.assertRegex(text, r"(?m)^MISSED: random, S2: mean 1\.2\d, at most 1\.05; 1/s$")
        self.assertRegex(text, r"(?m)^MISSED: naive, E6: refused, % [\d.]+, at most 0; 10 times")
        self.assertRegex(text, r"(?m)^[01] of 6 targets are met$")

    # -- balance.py --trace: connections of one's own --

    @staticmethod
    def connections():
        """Lines of 20 minutes in which 5 connections a second begin; each lives for 60 s on
        average."""
        dice, start, lines = random.Random(3), 0.0, []
        while start < 1200:
            start += dice.expovariate(5)
            lines.append(f"{start},{dice.expovariate(1 / 60)}")
        return lines

    @classmethod
    def trace(cls, lines):
        """What balance.py makes of lines of a trace, and of those that are wrong."""
        balance = cls.balance()
        starts, lives, bad = balance.read_trace(lines, balance.Progress())
        return balance.trace_of(starts, lives), bad

    def use(self, **more):
        """What replays a trace, unless a test says otherwise."""
        return self.balance().Use(5, 3, 5.0, None, 0, 60)._replace(**more)

    def try_trace(self, text, *words, code=0):
        """What balance.py prints to both outputs about a trace on standard input."""
        done = subprocess.run(
            [*PYTHON, str(BENCH / "balance.py"), "--lbdns", str(SCRIPT), "--trace", "-", *words],
            input=text, capture_output=True, text=True, timeout=30 * PATIENCE)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout, done.stderr

    def test_a_trace_is_replayed_through_each_policy(self):
        balance, (trace, _) = self.balance(), self.trace(self.connections())
        for policy, mean, filled in (     # of the mean max/mean, of the newcomer's seconds
                ("random", (1.135, 1.20), (45, 500)),
                ("round-robin", (1.085, 1.135), (95, 500)),
                ("least-connections", (1.035, 1.07), (40, 94)),
                ("naive", (1.15, 1.26), (13, 25)),
                ("ideal", (1.005, 1.02), (5, 12.9))):
            with self.subTest(policy=policy):
                found = balance.replay(trace, self.use(), policy, 1)
                self.assertEqual(found, balance.replay(trace, self.use(), policy, 1))
                self.assertTrue(mean[0] < found.mean < min(mean[1], found.p99), found)
                self.assertTrue(filled[0] < found.filled < filled[1], found)
                self.assertEqual(found.refused, 0)
        refused = {policy: balance.replay(trace, self.use(limit=70), policy, 1).refused
                   for policy in ("least-connections", "naive", "ideal")}
        self.assertEqual(refused["ideal"], 0)
        self.assertLess(refused["least-connections"], 1)
        self.assertGreater(refused["naive"], 2 * refused["least-connections"] + 1)

    def test_where_connections_of_a_trace_are(self):
        # Servers see what backends held, and had opened, at the last report before each poll.
        balance, (trace, _), seen = self.balance(), self.trace(self.connections()), []

        class Spy(balance.Naive):
            def poll(self, now, rows):
                seen.append((now, rows))
                super().poll(now, rows)
        run = balance.Replay(trace, self.use(servers=2), Spy, 1)
        first, seen[:] = run.reports[:], []
        run.run()
        ends = dict(zip(trace.order, trace.ends, strict=False))
        for now, rows in random.Random(1).sample(seen, 50):
            for place, row in enumerate(rows):
                when = now - (now - first[place]) % 5
                took = [at for at, each in enumerate(run.places)
                        if each == place and trace.starts[at] < when]
                self.assertEqual(row, {"connections": sum(ends[at] >= when for at in took),
                                       "opened": len(took), "up": True})
        self.assertEqual(len({now for now, _ in seen}), len(seen))
        self.assertEqual(sum(each.opened for each in run.backends), run.begun)

    def test_clients_of_a_trace_share_answers(self):
        balance, (trace, _) = self.balance(), self.trace(self.connections())

        class Spy(balance.Ideal):
            asked = 0

            def pick(self, now, family=0):
                Spy.asked += 1
                return super().pick(now)
        means = []
        for cached, ttl, least, most in ((1, 60, 1, 1), (10, 60, 9, 11), (10, 0.0, 1, 1)):
            Spy.asked = 0
            run = balance.Replay(trace, self.use(cached=cached, ttl=ttl), Spy, 1).run()
            self.assertTrue(least <= run.begun / Spy.asked <= most, (cached, Spy.asked))
            means.append(sum(run.ratios) / len(run.ratios))
        self.assertTrue(means[1] > means[0] + 0.1 > means[2], means)

    def test_lines_of_a_trace(self):
        lines = ["\ufeffstart,life,more", "", "# a comment", "1790000010.5,2,x",
                 '"1790000000" ; 3', '"1790000000","3"', "2026-09-21T14:13:20Z,5",
                 "2026-09-21T16:13:21+02:00,1", "2026-09-21 14:13:22.25,",
                 "1790000003000,1", "soon,1", "nan,1", "1790000000,-1", "1790000000,long",
                 "1790000000,nan", ",1", "1790000000", "life"]
        with self.trace_file(lines) as (stdout, stderr):
            self.assertEqual(stdout, "")
            for wrong, count, number in (("no second column", 3, 5), ("no start", 3, 11),
                                         ("a start in milliseconds", 1, 10), ("no life", 2, 14),
                                         ("a negative life", 1, 13)):
                self.assertRegex(stderr, rf"(?m)^note: left out for {wrong}: {count}, the first is "
                                         rf"line {number}, '.*': .+\.$")
            self.assertEqual(stderr.count("\n"), 6, stderr)
        trace, _ = self.trace(lines[1:9])
        self.assertEqual(list(trace.starts), [0, 0, 1, 2.25, 10.5, math.inf])
        self.assertEqual(list(trace.ends), [2, 3, 5, 12.5, math.inf, math.inf])
        self.assertEqual([trace.about[key] for key in ("count", "last", "peak")], [5, 10.5, 3])

    @contextlib.contextmanager
    def trace_file(self, lines):
        """Both outputs about a trace in a file that is too short."""
        with folder_of() as folder:
            path = folder / "trace.csv"
            path.write_text("\n".join(lines))
            done = subprocess.run(
                [*PYTHON, str(BENCH / "balance.py"), "--trace", str(path)], capture_output=True,
                text=True, timeout=30 * PATIENCE)
            self.assertEqual(done.returncode, 2, done.stderr)
            yield done.stdout, done.stderr

    def test_a_trace_that_cannot_be_judged(self):
        lines = self.connections()
        for text, words, says in (
                ("", (), "there is no connection in it: write lines such as"),
                ("1,2\n" * 199, (), "too short to judge: 199 connections, and 10 backends take 2"),
                ("1,\n" * 200, (), "too short to judge: none of its connections has ended"),
                ("\n".join(lines[:1000]), (), "too short to judge: connections live "),
                ("\n".join(f"{at},0.1" for at in range(2000)), (), "nothing to balance: 0.1 conn"),
                ("\n".join([*lines, "1e9,1"]), (), "nothing to balance: 0.0")):
            with self.subTest(text=text[:40]):
                stdout, stderr = self.try_trace(text, *words, code=2)
                self.assertEqual(stdout, "")
                self.assertTrue(stderr.startswith(f"balance.py: -: {says}"), stderr)
                self.assertEqual(stderr.count("\n"), 1)
        for words, says in ((("--trace", "/nowhere"), "balance.py: /nowhere cannot be read: No su"),
                            (("--trace", "-", "--quick"), "balance.py: --only, --policies, --q"),
                            (("--backends", "1"), "--backends: 1 is not from 2 to 1000\n"),
                            (("--every", "nan"), "--every: nan is not from 0.1 to 3600\n"),
                            (("--limit", "x"), "--limit: invalid number value: 'x'\n")):
            self.assertIn(says, self.bench("balance.py", *words, code=2))

    def test_what_a_trace_says(self):
        example = self.bench("balance.py", "--example", "4000")
        self.assertEqual(example, self.bench("balance.py", "--example", "4000"))
        header, *lines = example.splitlines()
        random.Random(1).shuffle(lines)       # is sorted again
        words = "--backends", "3", "--limit", "60", "--seeds", "1"
        stdout, stderr = self.try_trace("\n".join([header, *lines, "1,-1"]), *words)
        self.assertRegex(stderr, r"^note: left out for a negative life: 1, .* line 4,002, '1,-1': ")
        self.assertRegex(stdout, r"\A4,000 connections in 24 h, which live [\d.]+ min on median")
        for policy in self.balance().REPLAYED:
            self.assertRegex(stdout, rf"(?m)^\| {policy} (\| [\d.]+ ){{2}}\| (> )?[\d,]+ "
                                     r"\| \d\.\d\d \|$")
        self.assertRegex(stdout, r"(?m)^Take least-connections\. Connections live .+\nNot random: ")

    def test_which_policy_fits(self):
        balance = self.balance()
        even, apart = (balance.Measured(*each) for each in (
            (1.004, 1.01, 60, 0), (1.2, 1.3, math.inf, 2)))
        near = even._replace(mean=1.03, filled=280)
        about = {"median": 41, "held": 1000, "peak": 1200}
        for three, each, says in (
                ((near, near, even), self.use(),
                 "Take random. Connections live 41 s on median; it needs no reports, its fullest "
                 "backend holds 3.0 % more than the mean (ideal: 0.1 %), and a newcomer is filled "
                 "after 280 s."),
                ((apart, near, even), self.use(),
                 "Take round-robin. Connections live 41 s on median; it needs no reports, its "
                 "fullest backend holds 3.0 % more than the mean (ideal: 0.1 %), and a newcomer is "
                 "filled after 280 s. Not random: its fullest backend holds 20 % more than the "
                 "mean, beside 0.4 %; a newcomer is not filled in the trace, beside 60 s; it has "
                 "2 % of the connections refused, beside 0 %."),
                ((near._replace(filled=301), apart, even), self.use(),
                 "Take least-connections. Connections live 41 s on median; its fullest backend "
                 "holds 0.4 % more than the mean (ideal: 0.1 %), and a newcomer is filled after "
                 "60 s. Not random: a newcomer is filled after 301 s, beside 60 s. "
                 "Not round-robin: "),
                ((near, near, apart), self.use(), "Take random. "),
                ((apart, apart, apart), self.use(every=30), "short"),
                ((apart, apart, apart), self.use(cached=10), "More is lost to caches, where 10 "),
                ((apart, apart, apart), self.use(backends=50), "20 connections on each backend")):
            table = dict(zip(balance.REPLAYED, [*three, even, even._replace(mean=1.001)],
                             strict=True))
            self.assertIn(says, " ".join(balance.advise(table, about, each)))
        table["ideal"] = apart
        self.assertIn("At the peak there are 1,200, and 5 backends hold 1,000: even ideal refuses "
                      "2 %.", balance.advise(table, about, self.use(limit=200)))

    def test_traces_from_the_logs_of_others(self):
        text = (BENCH / "README.md").read_text()
        recipes = re.findall(r"(?s)awk (?:-F, )?'[^']*'", text)
        flow = ("src=198.51.100.7 dst=192.0.2.1 sport={0} dport=443 src=192.0.2.1 dst=198.51.100.7 "
                "sport=443 dport={0}")
        lines = {
            "haproxy": [
                "Feb  6 12:12:56 localhost haproxy[14387]: 10.0.1.2:33313 [06/Feb/2009:12:12:"
                "51.443] fnt bck/srv1 0/0/5007 212 -- 0/0/0/0/3 0/0",
                "2009-12-31T12:14:15+00:00 localhost haproxy[14389]: 10.0.1.2:33317 [31/Dec/2009:"
                "12:14:14.655] http-in~ static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 "
                '{1wt.eu} {} "GET /index.html HTTP/1.1"',
                "Dec 31 12:14:15 localhost haproxy[14389]: Proxy http-in started."],
            "nginx": ["1790000041.500,41.250"],
            "conntrack": [
                "[1790000000.250000]\t    [NEW] tcp      6 120 SYN_SENT " + flow.format(1),
                "[1790000000.500000]\t [UPDATE] tcp      6 432000 ESTABLISHED " + flow.format(1)
                + " [ASSURED]",
                "[1790000001.000000]\t [UPDATE] tcp      6 432000 ESTABLISHED " + flow.format(2)
                + " [ASSURED]",
                "[1790000002.000000]\t [UPDATE] tcp      6 120 FIN_WAIT " + flow.format(1)
                + " [ASSURED]",
                "[1790000122.000000]\t[DESTROY] tcp      6 " + flow.format(1) + " [ASSURED]"],
            "ss": ["1790000000", "0      0      192.0.2.1:443 198.51.100.7:1", "1790000001",
                   "0      0      192.0.2.1:443 198.51.100.7:1",
                   "0      0      [2001:db8::1]:443 [2001:db8::7]:2", "1790000002",
                   "0      0      [2001:db8::1]:443 [2001:db8::7]:2"]}
        wanted = {"haproxy": ["2009-02-06T12:12:51.443,5.007", "2009-12-31T12:14:14.655,0.109"],
                  "nginx": ["1790000000.250,41.250"],
                  "conntrack": ["1790000000.500,1.500", "1790000001.000,"],
                  "ss": ["1790000000,2", "1790000001,"]}
        self.assertEqual(len(recipes), len(lines))
        for recipe, (name, log) in zip(recipes, lines.items(), strict=True):
            with self.subTest(name=name):
                printed = subprocess.run(["sh", "-c", recipe], input="\n".join([*log, ""]),
                                         capture_output=True, text=True, check=True).stdout
                self.assertEqual(printed.splitlines(), wanted[name])
                self.assertEqual(self.trace(printed.splitlines())[1], {})

    # -- fuzz.py and differential.py: damaged input --

    @contextlib.contextmanager
    def broken(self, old, new):
        """An lbdns with another text in its place."""
        with folder_of() as folder:
            text = SCRIPT.read_text()
            self.assertIn(old, text)
            (folder / "lbdns.py").write_text(text.replace(old, new, 1))
            (folder / "wire.py").write_text(pathlib.Path(test_server.wire.__file__).read_text())
            yield str(folder / "lbdns.py")

    def test_fuzz(self):
        text = self.bench("fuzz.py", "--seed", "1", "--seconds", "5")
        for target in ("packet", "tcp", "request", "report", "check", "printed", "table", "zone",
                       "config", "snapshot"):   # inputs, per second, outcomes
            with self.subTest(target=target):
                self.assertRegex(text, rf"(?m)^{target}({self.NUMBER}){{3}} +none$")

    def test_fuzz_finds_what_it_is_for_and_replays_it(self):
        for target, old, new, says in (
                ("packet", "if known.client is not None:", "if known.client == b'':", "the cache"),
                ("tcp", "if not all(replies):\n                return False",
                 "if not any(replies):\n                return False", "it hangs up on a good c"),
                ("report", "if not isinstance(entry, dict):", "if not entry:", "AttributeError: "),
                ("check", "max(0, len(self.data) - 3)", "len(self.data)", "judged by its pieces")):
            with self.subTest(target=target), self.broken(old, new) as script:
                text = self.bench("fuzz.py", "--lbdns", script, "--target", target, "--seed", "2",
                                  "--seconds", "60", code=1)
                self.assertIn(says, text)
                words = re.search(r"(?m)^replay: python3 bench/fuzz\.py (.*)$", text)[1].split()
                self.assertIn(says, self.bench("fuzz.py", "--lbdns", script, *words, code=1))
                self.bench("fuzz.py", *words)     # where nothing is broken, nothing is found

    def test_fuzz_says_what_it_does_not_know(self):
        self.assertRegex(self.bench("fuzz.py", "--target", "packets", "--seed", "1", code=2),
                         r"\Afuzz\.py: --target knows no 'packets', only packet, tcp, .*\.\n\Z")
        self.assertIn("hexadecimal digits", self.bench("fuzz.py", "--target", "tcp", "--replay",
                                                       "xyz", code=2))

    @needs("nsd", "knotd")
    def test_differential(self):
        text = self.bench("differential.py", "--damaged", "300", "--odd", "300")
        self.assertRegex(text, r"(?m)^[\d,]+ packets\n\n\| class \| NSD \| Knot \| why \|$")
        self.assertNotIn("UNKNOWN", text)
        report = (BENCH / "README.md").read_text()
        labels = re.findall(r"(?m)^\| (.+?) \| [\d,]+ \| [\d,]+ \| (.*) \|$", text)
        self.assertGreater(len(labels), 10)
        for label, reason in labels:
            self.assertRegex(report, rf"(?m)^\| {label} \| [\d,]+ \| [\d,]+ \| "
                                     rf"{re.escape(reason)} \|$")
        with self.broken("reply.rcode = wire.NXDOMAIN", "reply.rcode = wire.NOERROR") as script:
            text = self.bench("differential.py", "--lbdns", script, "--damaged", "0", "--odd",
                              "0", code=1)
        self.assertRegex(text, r"(?m)^UNKNOWN: \d+ of nsd, such as --replay [0-9a-f]+\n.*\n"
                               r"    rcode: lbdns 0, nsd 3$")

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


class LoadTest(unittest.TestCase):
    """The load at a steady rate counts what came of it; how quick, is for no test."""

    @staticmethod
    def load(server, *expect):
        """A load of 500 queries a second."""
        with unittest.mock.patch.object(sys, "path", [str(BENCH), *sys.path]):
            return importlib.import_module("load").Load(server.port, 500, expect=expect)

    def test_what_a_server_answers(self):
        with test_server.Server(test_server.LIVE) as server:
            for expect, right in ((sorted(test_server.ADDRESSES), True), (["1.2.3.5"], False)):
                with self.load(server, *expect) as load:
                    time.sleep(0.5)
                with self.subTest(right=right):
                    self.assertGreater(load.outcome.sent, 50)
                    self.assertEqual(load.outcome.lost, 0)
                    self.assertEqual(load.outcome.wrong, 0 if right else load.outcome.sent)
                    self.assertEqual(load.outcome.worst > 0, right)

    def test_a_server_that_was_away(self):
        with test_server.Server(test_server.LIVE) as server, self.load(server) as load:
            time.sleep(0.2)
            server.stop()
            time.sleep(0.5)
            outcome = load.stop()
            self.assertGreater(outcome.lost, 50)
            self.assertLess(outcome.lost, outcome.sent)
            self.assertGreater(outcome.gap, 300)

    def test_a_server_that_answers_another_question_twice(self):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            with self.load(SimpleNamespace(port=sock.getsockname()[1])) as load:
                asked, client = sock.recvfrom(512)
                reply = bytearray(asked + b"\xc0\x0c" + bytes(14))
                reply[2:12] = bytes.fromhex("84000001000100000000")
                sock.sendto(reply, client)   # good, and
                sock.sendto(reply, client)   # once more: bad
                asked, client = sock.recvfrom(512)
                reply[:2] = asked[:2]        # the name asked before
                sock.sendto(reply, client)
                time.sleep(0.2)
            self.assertEqual(load.outcome.wrong, 2)
            self.assertEqual(load.outcome.lost, load.outcome.sent - 2)

    def test_it_is_for_people_too(self):
        with test_server.Server(test_server.LIVE) as server:
            done = subprocess.run([*PYTHON, str(BENCH / "load.py"), str(server.port), "200",
                                   "--seconds", "0.3"], capture_output=True, text=True)
            self.assertRegex(done.stdout, r"^sent \d+, lost 0, wrong 0; answers took [\d.]+ ms at "
                             r"most, 99 % under \d+ ms; longest time without any reply: \d+ ms\n$")


class SoakTest(unittest.TestCase):
    """A few seconds of bad company: each kind of it has come, and what is lost is seen."""

    def soak(self, *words):
        """What bench/soak.py says: exit code, and numbers by what they count."""
        done = subprocess.run([*PYTHON, str(BENCH / "soak.py"), "--rate", "500", *words],
                              capture_output=True, text=True)
        return done, {what: int(number.replace(",", "")) for number, what in re.findall(
            r"(?m)^ *([\d,]+) ([a-z ]+)(?:$|:)", done.stdout)}

    def test_all_of_it_happens_and_costs_nothing(self):
        done, numbers = self.soak("--seconds", "6", "--kill", "2", "--reload", "1.5", "--restart",
                                  "2.4", "--break", "1.5")
        self.assertEqual(len(numbers), 10, done.stdout + done.stderr)
        self.assertTrue(all(numbers.values()), done.stdout)
        self.assertIn(": 0 lost, 0 answered wrongly; ", done.stdout)
        self.assertNotIn("lost\n", done.stdout)

    def test_it_fails_where_something_is_wrong(self):
        with unittest.mock.patch.object(sys, "path", [str(BENCH), *sys.path]):
            soak, load = map(importlib.import_module, ("soak", "load"))
        lost = load.Outcome(10_000_000, 11, 0, 1.0, 1, 1)
        for outcome, grown, says in (
                (lost, (0, 0), "queries were lost"),
                (lost._replace(lost=10), (0, 0), None),
                (lost._replace(lost=0, wrong=1), (0, 0), "answers were wrong"),
                (lost._replace(lost=0), (6, 0), "it grows"),
                (lost._replace(lost=0), (0, 1), "it grows")):
            company = SimpleNamespace(counts={}, failures=[], server=SimpleNamespace(
                log=lambda: ""))
            look = SimpleNamespace(looks=[], grown=lambda grown=grown: grown)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                self.assertEqual(soak.report(company, look, outcome), int(says is not None))
            self.assertEqual(re.findall("soak.py: (.*)", printed.getvalue()), [says] * bool(says))


class LifecycleTest(unittest.TestCase):
    """Hard moments in a tiny form: what does not depend on how busy the machine is."""

    def lifecycle(self, *words):
        """The exit code, and the cells of the table by the names of rows; no process is left."""
        with folder_of() as folder:
            done = subprocess.run(
                [*PYTHON, str(BENCH / "lifecycle.py"), "--lbdns", str(SCRIPT), "--rate", "500",
                 "--rounds", "1", "--packets", "300", *words], capture_output=True, text=True,
                env={**os.environ, "TMPDIR": str(folder)})
            self.assertEqual([path for path in pathlib.Path("/proc").glob("[0-9]*")
                              if str(folder).encode() in BenchTest.content(path / "environ")], [])
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")]
                for line in done.stdout.splitlines() if line.startswith("| ")]
        return done, {row[0]: row[1:] for row in rows[2:]}

    def test_what_lbdns_must(self):
        done, rows = self.lifecycle("--only", "lbdns", "--rows", "malformed,reload,replace,"
                                    "kept-restart,worker,broken,tcp,wildcard,stderr")
        timed = ("- CPU per packet, us", "- worst probe, ms", "- memory (PSS), MB")
        self.assertEqual(len(rows), 16, done.stdout + done.stderr)
        for title, cells in rows.items():
            with self.subTest(title, cells=cells):
                self.assertEqual(len(cells), 3)
                self.assertTrue(cells[2] == "ok" or title in timed, done.stdout)

    @needs("nsd", "nsd-control")
    def test_what_others_lose_is_seen(self):
        done, rows = self.lifecycle("--only", "nsd", "--rows", "restart,broken,wildcard")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)   # only lbdns is judged
        self.assertRegex(rows["stop + start: lost / gap"][0], r"^[1-9]\d* / \d+ ms$")
        self.assertEqual(rows["broken zone, reload"][0], "SERVFAIL, rc 0")
        self.assertEqual(rows["query to 127.0.0.2 on 0.0.0.0"][0], "lost")

    def test_it_fails_where_lbdns_misses_something(self):
        with unittest.mock.patch.object(sys, "path", [str(BENCH), *sys.path]):
            lifecycle = importlib.import_module("lifecycle")
        three = lifecycle.verdict(SimpleNamespace(lost=3, wrong=0), limit=2)
        results = {("worker", "lbdns"): [three], ("worker", "nsd"): [("0", True)],
                   ("wildcard", "lbdns"): [("ok", True)], ("wildcard", "nsd"): [("lost", False)]}
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            missed = lifecycle.report(results, ["lbdns", "nsd"], ["worker", "wildcard"])
        self.assertEqual(missed, ["kill -9 of one worker: lost"])
        self.assertEqual(printed.getvalue().count("MISSED"), 1)


class PageTest(unittest.TestCase):
    """The picture of the README is small, and the page of 1,000 backends, too."""

    @needs("chromium", "chromedriver")
    def test_the_picture_and_the_figures(self):
        with folder_of() as folder:
            text = test_server.run(sys.executable, str(BENCH / "page.py"), "--rounds", "1",
                                   "--picture", str(folder / "status.png"), limit=120)
            self.assertRegex(text, r"(?s)render, ms +[\d.]+\n.*layout shift +0\n")
            self.assertLessEqual(int(re.search(r"octets +([\d,]+)", text)[1].replace(",", "")),
                                 200_000)
            self.assertLessEqual((folder / "status.png").stat().st_size, 150_000)
            self.assertLessEqual((BENCH / "status.png").stat().st_size, 150_000)


class AmplificationTest(unittest.TestCase):
    """What bench/README.md says that a forged sender gains is what a server answers."""

    def test_the_lines_of_the_reports(self):
        printed = test_server.run(sys.executable, str(BENCH / "amplification.py"))
        lines = [[cell.strip() for cell in (line[:40], line[40:64], line[64:])]
                 for line in printed.splitlines()]
        report = (BENCH / "README.md").read_text()
        rows = [row.strip("| ").split(" | ") for row in report.partition(
            "| asked for | without EDNS |")[2].partition("\n\n")[0].splitlines()[2:]]
        self.assertGreater(len(rows), 8)
        for row in rows:
            self.assertIn(row, lines)
        self.assertIn(f"prints {len(lines) - 1} kinds", report)


@needs("git")
class ReleaseTest(unittest.TestCase):
    """.ci/release makes the same files of the same commit, or refuses and writes nothing."""

    FILES = "lbdns.py", "wire.py", "lbdns.service", "CHANGELOG.md", ".ci/release"
    VERSION = test_server.lbdns.VERSION

    def setUp(self):
        """A repository with what a release is made of, and a changelog that is ready for it."""
        self.folder = self.enterContext(folder_of())
        self.tree = self.folder / "tree"
        (self.tree / ".ci").mkdir(parents=True)
        for name in self.FILES:
            (self.tree / name).write_bytes((BENCH.parent / name).read_bytes())
        (self.tree / "CHANGELOG.md").write_text(
            f"# Changes\n\n## {self.VERSION} - 2026-11-26\n- All.\n\n## 0.0.1 - 2026-01-01\n")
        self.git("init", "-q")
        self.commit()

    def git(self, *words):
        """Run git, whatever is configured for the user."""
        subprocess.run(["git", "-c", "user.name=lbdns", "-c", "user.email=lbdns@example.com",
                        "-C", self.tree, *words], check=True, stdin=subprocess.DEVNULL,
                       env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})

    def commit(self):
        """Commit all that there is."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "All")

    def release(self, name="out", *more):
        """Run it for a folder. Returns its exit code, what it says, and {file: octets}."""
        out = self.folder / name
        done = subprocess.run(["bash", self.tree / ".ci/release", out, *more], text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, cwd=self.folder)
        files = {each.name: each.read_bytes() for each in out.iterdir()} if out.exists() else {}
        return done.returncode, done.stdout, files

    def change(self, name, old, new):
        """Replace a text in a file."""
        text = (self.tree / name).read_text()
        self.assertIn(old, text)
        (self.tree / name).write_text(text.replace(old, new, 1))

    def refused(self, *says):
        """It fails with all of these in what it says, and has written nothing."""
        code, text, files = self.release()
        self.assertEqual((code, files), (1, {}), text)
        for each in (".ci/release: ", *says):
            self.assertIn(each, text)

    def test_a_release(self):
        code, text, files = self.release()
        self.assertEqual((code, files.keys()), (0, {"lbdns.py", "lbdns.service", "SHA256SUMS"}),
                         text)
        self.assertIn(f"lbdns {self.VERSION} in ", text)
        self.assertNotIn(b"import wire\n", files["lbdns.py"])
        self.assertEqual(files["lbdns.service"], (self.tree / "lbdns.service").read_bytes())
        said = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=self.folder / "out", text=True,
                              capture_output=True)
        self.assertEqual(said.stdout, "lbdns.py: OK\nlbdns.service: OK\n")
        self.assertEqual(self.release("again")[2], files)
        self.assertEqual(self.release("out")[2], files)   # where one is already

    def test_a_tree_that_is_not_as_committed(self):
        (self.tree / "lbdns.service").write_text("[Unit]\n")
        (self.tree / "notes").write_text("")
        self.refused("differ from the commit", "M lbdns.service", "?? notes")

    def test_a_version_without_its_date(self):
        for heading in (f"## {self.VERSION}", "## Unreleased", "## 0.0.2 - 2026-11-26",
                        f"## {self.VERSION}0 - 2026-11-26", f"## {self.VERSION} - soon"):
            with self.subTest(heading):
                (self.tree / "CHANGELOG.md").write_text(f"# Changes\n\n{heading}\n- All.\n")
                self.commit()
                self.refused(f"begins with '{heading}'", f"'## {self.VERSION} - YYYY-MM-DD'")

    def test_a_file_that_does_not_run(self):
        ends = "if __name__ == '__main__':\n    raise SystemExit(3)\n"
        for name, old, new, says in (
                ("wire.py", "\nclass Malformed", f"\n{ends}\n\nclass Malformed", "does not start"),
                ("lbdns.py", 'words[0] == "example":', 'words[0] == "sample":', "own example"),
                ("lbdns.py", "if not start:  # this", "if False:  # this", "to itself")):
            with self.subTest(says):
                self.change(name, old, new)
                self.commit()
                self.refused(says)
                self.change(name, new, old)

    def test_words_and_folders_that_make_no_sense(self):
        self.assertEqual(self.release("out", "more")[:2],
                         (1, ".ci/release: takes one folder at most, not 2\n"))
        (self.tree / ".git").rename(self.folder / "elsewhere")
        code, text, files = self.release()
        self.assertEqual((code, files), (1, {}), text)
        self.assertIn("run this in a clone", text)


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
            server.wait_for("lc.example.com: .*10.0.0.4: new, up|lc.example.com: 4 backends")
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


if __name__ == "__main__":
    unittest.main()
