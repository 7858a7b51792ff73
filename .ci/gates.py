#!/usr/bin/env python3
"""Print figures about the sources, and fail on the rules for them: python3 .ci/gates.py

A code line is not blank, comment or docstring. Tokens are those of Python's tokenizer in code
lines. What explains are comments and docstrings, by lines; a comment beside code is half a line.
"""
import ast
import io
import pathlib
import re
import subprocess
import sys
import tokenize

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS, FUNCTION, BRANCHES, NESTING = 100, 45, 14, 4  # the most of each, in wire.py and lbdns.py
README = 450           # lines of README.md at most
# The modules that part I of lbdns.py may name: none of them touches files, network, clock or dice.
PURE = {"bisect", "contextlib", "functools", "hashlib", "heapq", "ipaddress", "itertools", "math",
        "struct", "types", "wire"}
DEF = ast.FunctionDef, ast.AsyncFunctionDef
BRANCH = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.BoolOp, ast.comprehension)
BLOCK = ast.If, ast.For, ast.While, ast.Try, ast.With
PART = re.compile(r"^# ==== ([IVX]+) ", re.MULTILINE)
IMPORTED = "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path(sys.argv[1], run_name='x')"


class Source:
    """A file of Python: its tree, which lines are code, and how many tokens each of these has."""

    def __init__(self, name):
        self.name, self.text = name, (ROOT / name).read_text(encoding="utf-8")
        self.tree, self.tokens, comments = ast.parse(self.text), {}, set()
        self.functions = [node for node in ast.walk(self.tree) if isinstance(node, DEF)]
        documented = [node.body[0] for node in ast.walk(self.tree)
                      if isinstance(node, (ast.Module, ast.ClassDef, *DEF))
                      and ast.get_docstring(node, clean=False) is not None]
        docs = {line for node in documented for line in range(node.lineno, node.end_lineno + 1)}
        self.code = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                comments.add(token.start[0])
            elif token.string.strip() and token.start[0] not in docs:
                self.code |= {*range(token.start[0], token.end[0] + 1)}
                self.tokens[token.start[0]] = self.tokens.get(token.start[0], 0) + 1
        beside = len(comments & self.code)
        self.explained = (len(docs) + len(comments) - beside / 2) / len(self.code)

    def count(self, first=0, last=10**9):
        """Tokens from one line up to another."""
        return sum(number for line, number in self.tokens.items() if first <= line < last)

    def most(self, measure):
        """The largest figure of a function, and the function's name."""
        return max((measure(each), each.name) for each in self.functions)

    def lines(self, function):
        """Code lines of a function."""
        return sum(line in self.code for line in range(function.lineno, function.end_lineno + 1))

    def imports(self):
        """{name that the file has for it: module}, whether or not it is imported at the top."""
        return {(name.asname or name.name).split(".")[0]: getattr(node, "module", name.name)
                for node in ast.walk(self.tree) if isinstance(node, (ast.Import, ast.ImportFrom))
                for name in node.names}

    def parts(self):
        """{"I": (its first line, the one behind its last)} and so on."""
        starts = [(each[1], self.text.count("\n", 0, each.start()) + 1)
                  for each in PART.finditer(self.text)]
        ends = [line for _, line in starts[1:]] + [10**9]
        return {name: (line, end) for (name, line), end in zip(starts, ends, strict=True)}


def branches(function):
    """The ways through a function: 1, and one more for each branch."""
    return 1 + sum(isinstance(node, BRANCH) for node in ast.walk(function))


def nesting(node, level=0):
    """The deepest block inside a node; functions in it have figures of their own."""
    return max([level, *(nesting(each, level + isinstance(each, BLOCK))
                         for each in ast.iter_child_nodes(node)
                         if not isinstance(each, (*DEF, ast.ClassDef, ast.Lambda)))])


def show(source):
    """Print the figures of a file."""
    print(f"{source.name}: {source.text.count(chr(10)):,} lines, {len(source.code):,} of code, "
          f"{source.count():,} tokens, {source.count() / len(source.code):.1f} a code line, "
          f"{source.explained:.2f} lines of explanation for each of code")


def broken(source):
    """Yield which rules a file breaks that runs in production."""
    figures = (("columns", COLUMNS, (max(map(len, source.text.splitlines())), "the longest line")),
               ("code lines", FUNCTION, source.most(source.lines)),
               ("branches", BRANCHES, source.most(branches)),
               ("blocks in blocks", NESTING, source.most(nesting)))
    print("    " + ", ".join(f"{found} {unit} in {name}" for unit, _, (found, name) in figures))
    for unit, most, (found, name) in figures:
        if found > most:
            yield f"{source.name}: {name} has {found} {unit}, at most {most} are right"
    for module in sorted(set(source.imports().values())):
        if module.split(".")[0] not in {*sys.stdlib_module_names, "wire"}:
            yield f"{source.name} imports {module}, which is not in the standard library"
    if subprocess.run([sys.executable, "-E", "-s", "-S", "-c", IMPORTED, source.name],
                      cwd=ROOT, stdin=subprocess.DEVNULL).returncode:
        yield f"{source.name} cannot be imported with nothing but the standard library"


def main():
    """Print all figures; return an exit code."""
    wire, lbdns, *tests = map(Source, ("wire.py", "lbdns.py", "test_wire.py", "test_server.py"))
    problems = []
    for source in (wire, lbdns):
        show(source)
        problems += broken(source)
    for source in tests:
        show(source)
    sizes = {name: lbdns.count(*lines) for name, lines in lbdns.parts().items()}
    print("parts of lbdns.py, in tokens: "
          + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    print("wire.py and parts I and II, which is what a packet of a stranger reaches: "
          f"{wire.count() + sizes['I'] + sizes['II']:,} tokens")
    first, last = lbdns.parts()["I"]
    named = {node.id for node in ast.walk(lbdns.tree)
             if isinstance(node, ast.Name) and first <= node.lineno < last}
    for name, module in sorted(lbdns.imports().items()):
        if name in named and module.split(".")[0] not in PURE | {"typing", "collections"}:
            problems.append(f"part I of lbdns.py names {name}: it may touch nothing")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").count("\n")
    if readme > README:
        problems.append(f"README.md has {readme:,} lines, {README} at most")
    print("\n".join(f"BROKEN: {each}" for each in problems) or "all rules hold")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
