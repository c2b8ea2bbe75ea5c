"""Seeded problem grammars with scorers: small mirrors of the paper's four benchmark families.

GSM8K, MATH, HumanEval/MBPP and 4x4 Sudoku shrink to grammars that a model of a few million
parameters learns on a CPU. Training and test problems are disjoint by construction: a stable hash
of each problem's canonical content decides its split. Knows no tokenizer and no model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from d2f.errors import InvalidInput
from d2f.tasks import gsm, mathematics, programming, sudoku
from d2f.tasks.problem import Problem, Task, Turn, final_answer, split_of_key
from d2f.tasks.talk import TALK

__all__ = [
    "SPLITS",
    "TALK",
    "TASKS",
    "Problem",
    "Task",
    "Turn",
    "draw",
    "final_answer",
    "split_of",
]

SPLITS = ("train", "test")
TASKS: dict[str, Task] = {
    task.name: task for task in (gsm.TASK, mathematics.TASK, programming.TASK, sudoku.TASK)
}
PATIENCE = 1000


def split_of(problem: Problem) -> str:
    """The split a problem belongs to, from its canonical content; one in eight is held out.

    A problem of several parts is held out with any of them.
    """
    parts = problem.parts or (problem.key,)
    held_out = any(split_of_key(problem.task, part) == "test" for part in parts)
    return "test" if held_out else "train"


def draw(task: str, split: str, seed: int, difficulty: float | None = None) -> Iterator[Problem]:
    """An endless, reproducible stream of problems of one split.

    The test stream never repeats a problem's content; should a family run dry, it starts anew.
    Unknown tasks and splits raise ValueError.
    """
    known = TASKS | TALK
    if task not in known:
        raise InvalidInput(f"task must be one of {sorted(known)}, got {task!r}")
    if split not in SPLITS:
        raise InvalidInput(f"split must be one of {list(SPLITS)}, got {split!r}")
    rng = random.Random(f"{task}/{split}/{seed}")
    stream = _of_split(known[task], split, rng, difficulty)
    return _distinct(stream) if split == "test" else stream


def _of_split(
    task: Task, split: str, rng: random.Random, difficulty: float | None
) -> Iterator[Problem]:
    while True:
        problem = task.generate(rng, difficulty)
        if split_of(problem) == split:
            yield problem


def _distinct(stream: Iterator[Problem]) -> Iterator[Problem]:
    seen: set[str] = set()
    repeats = 0
    for problem in stream:
        if problem.key in seen and repeats < PATIENCE:
            repeats += 1
            continue
        if repeats == PATIENCE:
            seen.clear()
        repeats = 0
        seen.add(problem.key)
        yield problem
