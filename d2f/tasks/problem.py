"""Value types shared by every task: what a problem is, and how its answer is judged.

Knows nothing of any particular grammar, of tokenizers or of models.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from d2f.errors import InvalidInput

HELD_OUT = 8
MAX_READ = 50_000  # characters of an answer


@dataclass(frozen=True)
class Turn:
    """One exchange: what is asked, and the worked solution a model learns to write."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Problem:
    """A conversation of one or two turns and what its scorer needs for each of them.

    `key` is the canonical content of the first turn, free of names, objects and phrasing: two
    problems that differ only in dressing share it, so they fall into the same split. Where `parts`
    are given, these decide the split: it is held out with any of them.
    """

    task: str
    key: str
    turns: tuple[Turn, ...]
    expected: tuple[str, ...]
    parts: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        return self.turns[0].prompt

    @property
    def answer(self) -> str:
        return self.turns[0].answer

    def messages(self, turn: int = 0) -> list[dict[str, str]]:
        """The conversation up to what a turn asks, with right answers before it."""
        said = []
        for earlier in self.turns[:turn]:
            said.append({"role": "user", "content": earlier.prompt})
            said.append({"role": "assistant", "content": earlier.answer})
        return [*said, {"role": "user", "content": self.turns[turn].prompt}]


def unread(text: str, expected: str) -> None:
    """The reader of a task that has none."""


@dataclass(frozen=True)
class Task:
    """A named grammar with its scorer, and with a reader of answers in other forms than its own."""

    name: str
    title: str
    description: str
    make: Callable[[random.Random, float], Problem]
    judge: Callable[[str, str], bool]
    read: Callable[[str, str], bool | None] = unread

    def generate(self, rng: random.Random, difficulty: float | None = None) -> Problem:
        """Draws one problem; `difficulty` in [0, 1] shrinks steps and numbers (None = 1)."""
        if difficulty is not None and not 0.0 <= difficulty <= 1.0:
            raise InvalidInput(f"difficulty must be in [0, 1], got {difficulty!r}")
        return self.make(rng, 1.0 if difficulty is None else difficulty)

    def score(self, problem: Problem, text: str, turn: int = 0) -> bool:
        """Says whether `text` is a correct reply to the given turn, in the form of the task."""
        return self.judge(text, self._expected(problem, turn))

    def mark(self, problem: Problem, text: str, turn: int = 0) -> bool | None:
        """The same of a reply in any words; None where no final answer is sure."""
        expected = self._expected(problem, turn)
        return self.read(text, expected) if len(text) <= MAX_READ else None

    def _expected(self, problem: Problem, turn: int) -> str:
        if problem.task != self.name:
            raise InvalidInput(f"problem.task must be {self.name!r}, got {problem.task!r}")
        if not 0 <= turn < len(problem.turns):
            raise InvalidInput(f"turn must be in [0, {len(problem.turns)}), got {turn!r}")
        return problem.expected[turn]


def split_of_key(task: str, key: str) -> str:
    """The split of a canonical content, by a hash that is the same in every process."""
    digest = hashlib.blake2b(f"{task}:{key}".encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") % HELD_OUT == 0 else "train"


def ceiling(low: int, high: int, difficulty: float) -> int:
    """The largest number to use at this difficulty: `low` at 0, `high` at 1."""
    return low + round((high - low) * difficulty)


def final_answer(text: str) -> str | None:
    """What stands on the line of the last `####`, as in GSM8K; None without one."""
    _, mark, tail = text.rpartition("####")
    if not mark:
        return None
    return tail.strip().split("\n", 1)[0].strip()


def same_final_answer(text: str, expected: str) -> bool:
    """Judges worked solutions by their final answer alone."""
    return final_answer(text) == expected
