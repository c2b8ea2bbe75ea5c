"""Python classics asked for plainly: some eighty functions, judged by hidden tests.

The functions, what visitors call them and their tests lie in ``data/code.txt``.
"""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from d2f.tasks.problem import Problem
from d2f.tasks.talk import grammar, noise
from d2f.tasks.talk.conversation import LONGEST, Said, follow, problem
from d2f.tasks.talk.grammar import fill, lines_of

NAME = "talk-code"
ASKS = ("code.verb", "code.noun")


@dataclass
class Classic:
    """A function: what it is called by visitors, its source, and calls with their results."""

    name: str
    called: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    calls: list[list[object]] = field(default_factory=list)
    results: list[object] = field(default_factory=list)

    @property
    def source(self) -> str:
        return "\n".join(self.lines)

    @property
    def expected(self) -> str:
        """The hidden tests, as the scorer of code-mini takes them."""
        return json.dumps({"name": self.name, "calls": self.calls, "results": self.results})


@cache
def classics() -> tuple[Classic, ...]:
    """All functions, in the order of the file."""
    found: list[Classic] = []
    for line in lines_of("code.txt"):
        if line.startswith("== "):
            found.append(Classic(line[3:]))
        elif line.startswith("|"):
            found[-1].lines.append(line[1:])
        elif line.startswith("? "):
            call, _, result = line[2:].rpartition(" == ")
            found[-1].calls.append(list(_arguments(call)))
            found[-1].results.append(ast.literal_eval(result))
        else:
            kind, _, names = line.partition(": ")
            found[-1].called[kind] = tuple(names.split(" ~ "))
    return tuple(found)


def _arguments(call: str) -> Iterator[object]:
    tree = ast.parse(call, mode="eval").body
    assert isinstance(tree, ast.Call), call
    return (ast.literal_eval(argument) for argument in tree.args)


def opening(rng: random.Random, amount: float) -> Said:
    """A wish for one of the functions."""
    classic = rng.choice(classics())
    name = rng.choice(ASKS)
    kind = name.removeprefix("code.")
    called = rng.choice(classic.called[kind])
    phrasing = rng.choice(grammar.intents()[name].phrasings)
    text = fill(rng.choice(grammar.owned()[name, phrasing]), {kind: called})
    parts = (f"{name}/{phrasing}", f"{phrasing}/{called}")
    return Said(noise.dress(text, rng, (), amount), classic.source, classic.expected, parts)


def make(rng: random.Random, difficulty: float) -> Problem:
    """A function, and at times another turn."""
    said = [opening(rng, difficulty)]
    while len(said) < LONGEST and rng.random() < 0.15:
        said.append(follow(rng, said, difficulty))
    return problem(NAME, said)
