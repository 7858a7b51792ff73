"""Feed damaged input to all that reads what others write, and see that its promises hold.

    python3 bench/fuzz.py --seconds 60 --seed 1            all targets, a minute in all
    python3 bench/fuzz.py --target packet --replay HEX     what was found, once more

Input is damaged by chance: octets, words and lines of good input are cut off, doubled, moved, or
replaced by what means something elsewhere. With --seed the same seed does the same; what has an
outcome that was not seen before is damaged further. Without --seed, and where atheris is installed
(pip install atheris), coverage of lines and branches decides about that instead.

What is fuzzed, and what it promises, stands in fuzz_targets.py. A finding is: any exception but the
documented ones, a promise that does not hold, more than 50 ms of CPU time for one input, and memory
that goes on growing. It is made as short as it can be, and printed as the command that replays it;
the exit code is 1 then.
"""
import collections
import contextlib
import gc
import importlib
import itertools
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time
import traceback

from common import fail, parser, row

SLOW = 0.05          # seconds of CPU time for an input; guided runs have ten times as many
HANG = 5.0           # seconds of CPU time after which an input is interrupted
ROUND = 1000         # inputs until a target begins anew
CORPUS_MAX = 3000    # inputs that are damaged further
RECENT = 6000        # inputs, at most, that are fed once more at the end, for the memory they take
SHORTEN = 10.0       # seconds for making a finding shorter


# ---- 1. Damage -----------------------------------------------------------------------------------
# An accident happens to a bytearray, with dice, words that the target knows, and other inputs.

EDGES = (0, 1, 9, 10, 13, 32, 34, 44, 63, 64, 92, 0x7F, 0x80, 0xC0, 0xFF)
NUMBERS = (b"0", b"-1", b"1", b"1e400", b"-0.0", b"NaN", b"65536", b"4294967296", b"1" + b"0" * 400,
           b"9223372036854775807", b"9223372036854775808", b"1e-300", b"0x10", b"00", b"1_000")
WORD = re.compile(rb"[\w.+-]+")


def place(data, dice, most=64):
    """A slice of the octets, of at most so many."""
    start = dice.randrange(len(data) + 1)
    return slice(start, start + dice.randint(0, most))


def cut_off(data, dice, words, others):
    """Lose the end."""
    del data[dice.randrange(len(data) + 1):]


def lose(data, dice, words, others):
    """Lose a piece."""
    del data[place(data, dice, dice.choice((1, 2, 8, 64)))]


def write_noise(data, dice, words, others):
    """Insert any octets."""
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.randbytes(dice.randint(1, 8))


def write_edge(data, dice, words, others):
    """Write an octet that means something in many formats."""
    at = dice.randrange(len(data) + 1)
    data[at:at + 1] = bytes([dice.choice(EDGES)])


def flip_bit(data, dice, words, others):
    """Change a bit."""
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def swap_case(data, dice, words, others):
    """Change the case of a piece."""
    where = place(data, dice, 256)
    data[where] = data[where].swapcase()


def write_pointer(data, dice, words, others):
    """Write two octets as a number, often one that compresses names."""
    at = dice.randrange(len(data) + 1)
    data[at:at + 2] = bytes([dice.choice((0, 0, 0xC0, 0xC0, dice.randrange(256))),
                             dice.randrange(256)])


def double(data, dice, words, others):
    """Have a piece stand there several times."""
    piece = data[place(data, dice, dice.choice((2, 16, 256)))]
    at = dice.randrange(len(data) + 1)
    data[at:at] = piece * dice.choice((1, 1, 2, 20, 300))


def write_word(data, dice, words, others):
    """Insert a word that the target knows."""
    data[place(data, dice, 0)] = dice.choice(words)


def swap_word(data, dice, words, others):
    """Replace a word, or a number, by one that stands elsewhere, or that the target knows."""
    found = list(itertools.islice(WORD.finditer(data), 500))
    if found:
        here, there = dice.choice(found), dice.choice(found)
        data[slice(*here.span())] = dice.choice(
            (there.group(), dice.choice(words), dice.choice(NUMBERS)))


def swap_lines(data, dice, words, others):
    """Move a line to another place, or double it."""
    lines = bytes(data).split(b"\n")
    line = dice.choice(lines)
    if dice.random() < 0.5:
        lines.remove(line)
    lines.insert(dice.randrange(len(lines) + 1), line)
    data[:] = b"\n".join(lines)


def mix(data, dice, words, others):
    """Go on as another input does from some place on, or hold a piece of it."""
    other = dice.choice(others)
    if dice.random() < 0.5:
        at = dice.randrange(len(data) + 1)
        data[at:] = other[at if dice.random() < 0.5 else dice.randrange(len(other) + 1):]
    else:
        data[place(data, dice)] = other[place(other, dice)]


ACCIDENTS = (cut_off, lose, write_noise, write_edge, flip_bit, swap_case, write_pointer, double,
             write_word, swap_word, swap_lines, mix)


def damage(octets, dice, words, others, most):
    """Return an input after some accidents; `most` is the number of octets that it may have."""
    data = bytearray(octets)
    for _ in range(dice.choice((1, 1, 2, 2, 4))):
        dice.choice(ACCIDENTS)(data, dice, words, others)
    return bytes(data[:most])


# ---- 2. A run: inputs in, findings out -----------------------------------------------------------

class Hang(Exception):
    """An input took HANG seconds of CPU time and was interrupted."""


class Run:
    """Feeds inputs to a target, which begins anew after each ROUND, and judges what comes of them.

    begun       when it all began, by time.monotonic()
    executions  inputs so far
    outcomes    what a target returned, and how often
    since       inputs since the target began anew; the last one may be what it fails at
    found       what was printed of a finding; "" = there is none
    """
    def __init__(self, make, options, patience):
        self.make, self.options, self.patience = make, options, patience
        self.target, self.since, self.found = make(), [], ""
        self.executions, self.outcomes = 0, collections.Counter()
        self.recent = collections.deque(maxlen=RECENT)
        self.begun = time.monotonic()

    @property
    def elapsed(self):
        """Seconds since it began."""
        return time.monotonic() - self.begun

    def feed(self, octets):
        """Feed an input; returns whether its outcome is new. After a finding, nothing is fed."""
        if len(self.since) >= ROUND:
            self.target, self.since = self.make(), []
        self.since.append(octets)
        self.recent.append(octets)
        self.executions += 1
        try:
            outcome, seconds = time_feed(self.target, octets)
            if seconds > self.patience:  # maybe somebody else's: what counts is the best of four
                seconds = min(time_feed(self.target, octets)[1] for _ in range(3))
            if seconds > self.patience:
                self.report([octets], f"takes {1000 * seconds:.0f} ms of CPU time")
                return False
        except Exception as bad:  # whatever it is, it is what this program looks for
            self.report(self.shorten(), "".join(traceback.format_exception(bad)))
            return False
        self.outcomes[outcome] += 1
        return self.outcomes[outcome] == 1

    def shorten(self):
        """Return the fewest and shortest inputs that make a new target fail, as far as they are
        found soon."""
        inputs, size, limit = [], 1, time.monotonic() + SHORTEN
        attempts = itertools.takewhile(lambda _: time.monotonic() < limit, itertools.count())
        while size < 2 * len(self.since) and not inputs:
            inputs = self.since[-size:] if self.fails(self.since[-size:]) else []
            size *= 2
        inputs = drop_parts(inputs or list(self.since), self.fails, attempts)
        for at, octets in enumerate(inputs):
            def fails(shorter, at=at):
                """Say whether it still fails with an input that is shorter."""
                return self.fails([*inputs[:at], bytes(shorter), *inputs[at + 1:]])
            inputs[at] = bytes(drop_parts(octets, fails, attempts))
        return inputs

    def fails(self, inputs):
        """Say whether a new target fails at some inputs."""
        target = self.make()
        try:
            for octets in inputs:
                time_feed(target, octets)
        except Exception:
            return True
        return False

    def report(self, inputs, says):
        """Print what was found, and the command that shows it again."""
        replay = ",".join(octets.hex() or "-" for octets in inputs)
        self.found = (f"FOUND in {self.make.name}: {says.rstrip()}\nreplay: python3 bench/fuzz.py "
                      f"--target {self.make.name} --replay {replay}")
        print(self.found, flush=True)

    def weigh(self):
        """See what memory the newest inputs take: the second half of them must not take more of it
        than the first has. Limits of tables are small here, so that both reach them."""
        inputs, target = list(self.recent)[-max(2, self.executions // 4):], self.make()
        counts = []
        for half in inputs[:len(inputs) // 2], inputs[len(inputs) // 2:]:
            for octets in half:
                target.feed(octets)
            target.forget()
            gc.collect()
            counts.append(sys.getallocatedblocks())
        growth = counts[1] - counts[0]
        if growth > 1000 + len(inputs) / 4:
            self.report(inputs[-1:], f"{growth} blocks of memory more after {len(inputs) // 2} "
                                     "other inputs, of which this is the last one")

    def finish(self):
        """Look at the memory, and print the line of the table."""
        elapsed = self.elapsed
        if not self.found:
            self.weigh()
        row(self.make.name, self.executions, self.executions / max(elapsed, 0.001),
            len(self.outcomes), "yes" if self.found else "none")


def time_feed(target, octets):
    """Feed an input. Returns the outcome, and the seconds of CPU time that it took."""
    signal.setitimer(signal.ITIMER_PROF, HANG)
    try:
        begun = time.process_time()
        return target.feed(octets), time.process_time() - begun
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def drop_parts(whole, fails, attempts):
    """Return what is left of a sequence when all parts are dropped without which it still fails."""
    size = len(whole) // 2
    while size:
        at = 0
        while at < len(whole):
            shorter = whole[:at] + whole[at + size:]
            if next(attempts, None) is None:
                return whole
            if fails(shorter):
                whole = shorter
            else:
                at += size
        size //= 2
    return whole


def interrupt(*_):
    """End an input that hangs."""
    raise Hang(f"after {HANG:g} s of CPU time")


# ---- 3. Two ways to choose inputs ----------------------------------------------------------------

def fuzz_seeded(run, dice):
    """Damage good inputs, and those whose outcome was new."""
    corpus = run.target.seeds()
    seeds, words = len(corpus), run.target.words
    for octets in list(corpus):
        if not run.found:
            run.feed(octets)
    while run.elapsed < run.options.share and not run.found:
        octets = damage(dice.choice(corpus), dice, words, corpus, run.make.size)
        if run.feed(octets):
            if len(corpus) >= CORPUS_MAX:
                del corpus[dice.randrange(seeds, len(corpus))]
            corpus.append(octets)
    run.finish()


def fuzz_guided(run, dice, atheris):
    """Let atheris choose, in a process of its own, which its library ends. Half of what it tries
    are its own changes, half are accidents as above."""
    corpus = run.target.seeds()
    words = run.target.words

    def change(octets, most, seed):
        """Return a changed input."""
        own = random.Random(seed)
        if own.random() < 0.5:
            return atheris.Mutate(octets, most)
        return damage(octets, own, words, corpus, most)

    def feed(octets):
        """Feed an input, and end when it is time."""
        run.feed(octets)
        if run.found or run.elapsed > run.options.share:
            run.finish()
            os._exit(bool(run.found))

    with tempfile.TemporaryDirectory(prefix="lbdns-fuzz-") as folder:
        for number, octets in enumerate(corpus):
            (pathlib.Path(folder) / str(number)).write_bytes(octets)
        child = os.fork()
        if not child:
            tempfile.tempdir = folder   # os._exit leaves behind what targets have there
            os.dup2(os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT), 2)
            atheris.Setup(["fuzz", f"-max_len={run.make.size}", f"-seed={dice.randrange(2**31)}",
                           "-timeout=3600", "-rss_limit_mb=0", f"-artifact_prefix={folder}/",
                           folder],
                          feed, custom_mutator=change)
            atheris.Fuzz()
            os._exit(3)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        log = (pathlib.Path(folder) / "log").read_text(errors="replace")
        covered = re.findall(r"cov: (\d+) ft: (\d+)", log)
        if code not in (0, 1):
            fail(f"atheris ended with {code}: {log[-500:]}")
        if covered:
            print(f"{'':17} {covered[-1][0]} places of the code and {covered[-1][1]} ways through "
                  "them", flush=True)
        run.found = "see above" if code else ""


def replay(make, text):
    """Feed inputs that were printed; what they fail at is raised."""
    target = make()
    try:
        inputs = [bytes.fromhex(each.strip("-")) for each in text.split(",")]
    except ValueError:
        fail("--replay takes what was printed: hexadecimal digits, with commas between inputs.")
    for octets in inputs:
        outcome, seconds = time_feed(target, octets)
        print(f"{len(octets)} octets, {1000 * seconds:.1f} ms: {outcome}")


# ---- 4. The command line -------------------------------------------------------------------------

def find_lbdns(options):
    """Have lbdns found where the options say, and test_wire beside this folder."""
    if not options.lbdns.is_file():
        fail(f"there is no {options.lbdns}: --lbdns FILE.")
    sys.path[:0] = [str(options.lbdns.resolve().parent),
                    str(pathlib.Path(__file__).resolve().parent.parent)]


def load_targets(options):
    """Import what is fuzzed. Returns the targets by name, and atheris where it guides."""
    atheris = None
    if options.seed is None and options.replay is None:
        with contextlib.suppress(ImportError):
            atheris = importlib.import_module("atheris")
    instrument = contextlib.nullcontext()
    if atheris:
        instrument = atheris.instrument_imports(include=["lbdns", "wire"])
    with instrument:
        targets = importlib.import_module("fuzz_targets")
    return {each.name: each for each in targets.TARGETS}, atheris


def main():
    """Run what the command line asks for. Returns the exit code."""
    args = parser(__doc__, rounds=False)
    args.add_argument("--seconds", type=float, default=60, help="all in all (%(default)s)")
    args.add_argument("--seed", type=int, help="choose by it alone, the same each time")
    args.add_argument("--target", default="all", metavar="NAME,...", help="what is fuzzed (all)")
    args.add_argument("--replay", metavar="HEX,...", help="feed this to the one target")
    options = args.parse_args()
    find_lbdns(options)
    targets, atheris = load_targets(options)
    names = [*targets] if options.target == "all" else options.target.split(",")
    for name in names:
        if name not in targets:
            fail(f"--target knows no {name!r}, only {', '.join(targets)}.")
    signal.signal(signal.SIGPROF, interrupt)
    if options.replay is not None:
        replay(targets[names[0]], options.replay)
        return 0
    options.share = options.seconds / len(names)
    found = False
    row("target", "inputs", "per s", "outcomes", "findings")
    for name in names:
        run = Run(targets[name], options, SLOW * (10 if atheris else 1))
        dice = random.Random(f"{options.seed} {name}")
        if atheris:
            fuzz_guided(run, dice, atheris)
        else:
            fuzz_seeded(run, dice)
        found = found or bool(run.found)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
