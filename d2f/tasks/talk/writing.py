"""Writing tasks: what the data files hold, and acrostics, which are made letter by letter."""

from __future__ import annotations

import json
import random

from d2f.tasks.problem import Problem
from d2f.tasks.talk import grammar
from d2f.tasks.talk.conversation import Said, maker, phrased_with, problem

NAME = "talk-writing"
ACROSTICS = 0.05
_from_data = maker(NAME, "writing", 0.35)


def acrostic(name: str) -> str:
    """A line for each letter of a name; names have letters from A to Z only."""
    lines = {row["letter"]: row["line"] for row in grammar.table("letters")}
    return "\n".join(lines[letter] for letter in name.upper() if letter in lines)


def _acrostic(rng: random.Random, amount: float) -> Said:
    prompt, part, words, wording = phrased_with(rng, "acrostic", amount)
    expected = json.dumps({"acrostic": words["name"]})
    parts = (part, f"acrostic: {words['name']}")
    return Said(prompt, acrostic(words["name"]), expected, parts, wording=wording)


def make(rng: random.Random, difficulty: float) -> Problem:
    """A joke, a riddle, a haiku or another thing to write; at times an acrostic."""
    if rng.random() < ACROSTICS:
        return problem(NAME, [_acrostic(rng, difficulty)])
    return _from_data(rng, difficulty)
