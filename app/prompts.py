"""Prompts of the page: examples from the held-out split, checks on input, marks for answers.

Knows the task grammars of ``d2f.tasks``; knows nothing of models, lanes or screens.
"""

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from d2f.errors import InvalidInput
from d2f.tasks import TASKS, Problem, draw
from d2f.text import plain_text

MAX_CHARACTERS = 4000
EXAMPLE_SEED = 7
EXAMPLES_PER_TASK = 3
UNCHECKED = "Answers not checked: not a problem the page knows."
BOTH = {
    True: "Both answers are correct.",
    False: "Both answers are wrong.",
    None: "Neither answer was checked.",
}
ONE = {True: "is correct", False: "is wrong", None: "was not checked"}
UNSURE = "The page found no final answer that it can be sure of."


def examples() -> dict[str, list[Problem]]:
    """A few held-out problems a task, the same at every start."""
    return {
        name: list(islice(draw(name, "test", EXAMPLE_SEED), EXAMPLES_PER_TASK)) for name in TASKS
    }


def random_problem() -> Problem:
    """A fresh held-out problem of any task."""
    task = random.choice(sorted(TASKS))
    return next(draw(task, "test", random.randrange(2**32)))


def check_prompt(prompt: str | None) -> str:
    """The prompt, stripped; ``ValueError`` for what no model should be asked."""
    text = plain_text(prompt or "").strip()
    if not text:
        raise InvalidInput("The prompt is empty. Type a question or pick an example.")
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(
            f"The prompt has {len(text):,} characters; at most {MAX_CHARACTERS:,} are accepted."
        )
    return text


@dataclass(frozen=True)
class Known:
    """A turn of a problem, which can be judged."""

    problem: Problem
    turn: int = 0

    @property
    def follow_up(self) -> str | None:
        """What the problem asks next, if anything."""
        later = self.problem.turns[self.turn + 1 :]
        return later[0].prompt if later else None


def recognise(asked: Sequence[str], problems: Iterable[Problem]) -> Known | None:
    """The problem whose first turns are these prompts, word for word; None without one."""
    for problem in problems:
        if [turn.prompt for turn in problem.turns[: len(asked)]] == list(asked):
            return Known(problem, len(asked) - 1)
    return None


def verdict(
    known: Known | None,
    names: Sequence[str],
    answers: Sequence[str],
    trained: Collection[str] = (),
    cut: Collection[str] = (),
) -> str:
    """Whether each lane solved the problem, in a sentence or two.

    A lane of those ``trained`` on the tasks is held to their form of answers, as in benchmarks. The
    others are read in any words: right, wrong, or not checked. ``cut`` names those that ended at
    the limit of tokens.
    """
    if known is None:
        return UNCHECKED
    marks = [
        _mark(known, answer, name in trained, name in cut)
        for name, answer in zip(names, answers, strict=True)
    ]
    if len(set(marks)) == 1:
        told = BOTH[marks[0]]
    else:
        told = ", ".join(f"{n} {ONE[m]}" for n, m in zip(names, marks, strict=True)) + "."
    return f"{told} {UNSURE}" if None in marks else told


def _mark(known: Known, answer: str, trained: bool, cut: bool) -> bool | None:
    task, problem = TASKS[known.problem.task], known.problem
    if trained:
        return task.score(problem, answer, known.turn)
    if not cut:
        return task.mark(problem, answer, known.turn)
    # The last word may be a half one, and the last number one on the way.
    last = answer.split()[-1:]
    return task.mark(problem, answer.rstrip().removesuffix("".join(last)), known.turn) or None
