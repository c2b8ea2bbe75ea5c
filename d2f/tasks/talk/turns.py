"""Conversations of two or three turns that any family may open."""

from __future__ import annotations

import random

from d2f.tasks.problem import Problem
from d2f.tasks.talk import classics, conversation, stories, sums
from d2f.tasks.talk.conversation import LONGEST, Said, follow, problem

NAME = "talk-turns"
# Families by how often they open, of twenty.
OPENERS = (
    ("talk", 5),
    ("facts", 4),
    ("writing", 4),
    ("stories", 2),
    ("sums", 1),
    ("itself", 1),
    ("advice", 1),
    ("fallback", 1),
    ("code", 1),
    ("turns", 1),
)


def _opening(rng: random.Random, family: str, amount: float) -> Said:
    made = {"stories": stories.opening, "sums": sums.opening, "code": classics.opening}
    if family in made:
        return made[family](rng, amount)
    return conversation.opening(rng, family, amount)


def _next(rng: random.Random, family: str, said: list[Said], amount: float) -> Said:
    """What goes on with a story or a sum where the family can, else what fits."""
    more: Said | None = None
    if len(said) == 1 and rng.random() < 0.6:
        if family == "stories":
            more = stories.following(rng, said[-1], amount)
        elif family == "sums":
            more = sums.following(rng, said[-1], amount)
    return more or follow(rng, said, amount)


def make(rng: random.Random, difficulty: float) -> Problem:
    """A conversation of two turns, or three."""
    families, weights = zip(*OPENERS, strict=True)
    family = rng.choices(families, weights)[0]
    said = [_opening(rng, family, difficulty)]
    while len(said) < LONGEST - (rng.random() < 0.5):
        said.append(_next(rng, family, said, difficulty))
    return problem(NAME, said)
