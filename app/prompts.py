"""Prompts of the page: examples from the held-out split, checks on input, marks for answers.

Knows the task grammars of ``d2f.tasks``; knows nothing of models, lanes or screens.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from d2f.errors import InvalidInput
from d2f.tasks import TASKS, Problem, draw
from d2f.text import plain_text

MAX_CHARACTERS = 4000
EXAMPLE_SEED = 7
EXAMPLES_PER_TASK = 3
UNCHECKED = "Answers not checked: not a problem the page knows."


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


def verdict(known: Known | None, names: Sequence[str], answers: Sequence[str]) -> str:
    """Whether each lane solved the problem, in one sentence."""
    if known is None:
        return UNCHECKED
    task, problem = TASKS[known.problem.task], known.problem
    marks = [task.score(problem, answer, known.turn) for answer in answers]
    if all(marks):
        return "Both answers are correct."
    if not any(marks):
        return "Both answers are wrong."
    words = ("wrong", "correct")
    return ", ".join(f"{n} is {words[m]}" for n, m in zip(names, marks, strict=True)) + "."
