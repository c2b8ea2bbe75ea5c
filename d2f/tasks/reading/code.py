"""The asked function in any answer: fenced in any way or bare, behind prose, shell and tests.

All code of an answer is one program: of two definitions the later one counts, and helpers may stand
anywhere. Of it runs what the function needs; calls, tests and talk with a user do not.
"""

import ast
import builtins
import json
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import NamedTuple

from d2f.tasks.reading.words import answer_of
from d2f.tasks.sandbox import LOADED, RAISED, run_untrusted

# Modules of pure computation, which a function may import beside those that are there.
MODULES = {
    *("abc", "bisect", "collections.abc", "copy", "dataclasses", "decimal", "enum", "fractions"),
    *("heapq", "numbers", "operator", "random", "statistics", "textwrap", "typing", "unicodedata"),
}
_FENCE = re.compile(r"[^`~]*(`{3,}|~{3,})[^`]*")
_CLOSED = re.compile(r"(?<=[^\s`~])(?=(?:```|~~~)[^`~\n]*$)", re.MULTILINE)
_BEGINS = re.compile(r"([ \t]*)(?:(?:(?:async +)?def|class|from|import)\b|@\w)")
_QUOTED = re.compile(r"^[ \t]*> ?", re.MULTILINE)
DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
ASSIGNMENT = (ast.Assign, ast.AnnAssign)
BUILTIN = {"*", *dir(builtins)}


class Program(NamedTuple):
    """What the function needs; not ``whole`` if something was left out that may matter to it."""

    source: str
    modules: list[str]
    whole: bool


def read_code(text: str, expected: str) -> bool | None:
    """Whether the function of the text gives the expected results; None: it has none that runs."""
    tests = json.loads(expected)
    try:
        program = _program(_blocks(answer_of(text), tests["name"]), tests["name"])
    except (RecursionError, ValueError):  # nested too deeply, or a number too long, to be written
        return None
    if program is None:
        return None
    report = run_untrusted(program.source, tests["name"], tests["calls"], program.modules)
    # As text, so that True is not 1 and 2 is not 2.0.
    if json.dumps(report) == json.dumps(tests["results"]):
        return True
    differs = report == RAISED or (isinstance(report, list) and report != tests["results"])
    return False if differs and program.whole else None


# ---- where code is


def _blocks(text: str, name: str) -> list[str]:
    """The pieces of code of a text, in their order."""
    text = _CLOSED.sub("\n", text.replace("\u00a0", " "))
    fenced = list(_fenced(text))
    defines = re.compile(rf"\bdef\s+{name}\b|^\s*{name}\s*=", re.MULTILINE)
    return fenced if any(map(defines.search, fenced)) else list(_bare(text))


def _fenced(text: str) -> Iterator[str]:
    lines = iter(text.split("\n"))
    for line in lines:
        if fence := _FENCE.fullmatch(line):
            block = "\n".join(takewhile(partial(_goes_on, fence[1]), lines))
            yield textwrap.dedent(_QUOTED.sub("", block) if ">" in line else block)


def _goes_on(fence: str, line: str) -> bool:
    return not line.lstrip(" \t>").startswith(fence)


def _bare(text: str) -> Iterator[str]:
    """Each definition or import with the lines that are indented below it."""
    block: list[str] = []
    indent = ""
    for line in text.split("\n"):
        deeper = line.startswith((indent + " ", indent + "\t", indent + ")")) or not line.strip()
        if block and deeper:
            block.append(line)
            continue
        decorated = bool(block) and block[-1].lstrip().startswith("@")
        begins = _BEGINS.match(line)
        if block and not (begins and decorated):
            yield textwrap.dedent("\n".join(block))
            block = []
        if begins:
            block.append(line)
            indent = begins[1]
    yield textwrap.dedent("\n".join(block))


# ---- what of it runs


def _program(blocks: Sequence[str], name: str) -> Program | None:
    """What a function needs of all blocks; None where it is not there, or needs what is not."""
    statements: list[ast.stmt] = []
    for block in blocks:
        try:
            statements += ast.parse(block).body
        except (SyntaxError, ValueError, MemoryError):
            if re.search(rf"\bdef\s+{name}\b", block):
                return None  # the last word on it cannot be read
    statements += _unwrapped(statements, name)
    needed = _needed(statements, name)
    kept = [each for each in statements if _bound(each) & needed and not _asks(each, name)]
    modules = {module for each in kept for module in imported(each)}
    if not any(name in _bound(each) for each in kept) or modules - MODULES - LOADED:
        return None
    assigned = {name for each in kept if isinstance(each, ASSIGNMENT) for name in _bound(each)}
    unknown = needed - {name for each in kept for name in _bound(each)} - BUILTIN
    left_out = set(statements).difference(kept)
    whole = not unknown and not any(_names(each) & assigned for each in left_out)
    # Of types nothing runs: many a model uses those that it does not import.
    source = f"from __future__ import annotations\n{ast.unparse(ast.Module(kept, []))}"
    return Program(source, ["__future__", *sorted(modules)], whole)


def _unwrapped(statements: Sequence[ast.stmt], name: str) -> list[ast.stmt]:
    """A method of that name, as the function that is missing."""
    if any(name in _bound(each) for each in statements):
        return []
    for each in reversed(statements):
        if isinstance(each, ast.ClassDef) and any(name in _bound(inner) for inner in each.body):
            return list(ast.parse(f"{name} = {each.name}().{name}").body)
    return []


def _needed(statements: Sequence[ast.stmt], name: str) -> set[str]:
    """All names that a name leads to; "*" is one that any name may come from."""
    leads: defaultdict[str, set[str]] = defaultdict(set)
    for statement in statements:
        for bound in _bound(statement):
            leads[bound] |= _names(statement)
    needed: set[str] = set()
    more = {name, "*"}
    while more:
        needed |= more
        more = {each for known in more for each in leads[known]} - needed
    return needed


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a definition, an import or an assignment gives a meaning."""
    if isinstance(statement, DEFINITION):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(each.asname or each.name).partition(".")[0] for each in statement.names}
    if isinstance(statement, ASSIGNMENT):
        stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
        return {node.id for node in stored if isinstance(node.ctx, ast.Store)}
    return set()


def _names(statement: ast.stmt) -> set[str]:
    """The names that a statement takes from around it."""
    nodes = list(ast.walk(statement))
    named = {node.id for node in nodes if isinstance(node, ast.Name)}
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    if isinstance(statement, DEFINITION):
        stored = (node for node in nodes if isinstance(node, ast.Name))
        own |= {node.id for node in stored if isinstance(node.ctx, ast.Store)}
    shared = {each for node in nodes if isinstance(node, ast.Global) for each in node.names}
    return named - own | shared


def _asks(statement: ast.stmt, name: str) -> bool:
    """Whether an assignment is part of a talk or a test: it calls ``input`` or the function."""
    if not isinstance(statement, ASSIGNMENT):
        return False
    calls = (node.func for node in ast.walk(statement) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Name) and called.id in ("input", name) for called in calls)


def imported(statement: ast.AST) -> list[str]:
    """The modules that an import names."""
    if isinstance(statement, ast.Import):
        return [each.name for each in statement.names]
    if isinstance(statement, ast.ImportFrom):
        return ["." * statement.level + (statement.module or "")]
    return []
