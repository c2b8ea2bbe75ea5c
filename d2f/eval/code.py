"""The metric by which the harness runs generated code, in this package's sandbox.

The harness asks the ``evaluate`` package for a metric called ``code_eval``, a download that runs
code in the asking process. :class:`CodeEval` stands in its place: the same figures, each program in
a process of its own with limits.
"""

import ast
import math
import secrets
import warnings
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from d2f.errors import InvalidInput
from d2f.tasks.reading.code import MODULES, imported
from d2f.tasks.sandbox import LOADED, MAX_SOURCE, run_untrusted

NAME = "code_eval"
# What solutions and tests of the public benchmarks import beside these.
MORE = {"array", "calendar", "cmath", "datetime", "hashlib", "time", "types"}


class CodeEval:
    """``code_eval`` as the harness calls it."""

    def load(self, path: str, *args: Any, **kwargs: Any) -> "CodeEval":
        """What ``evaluate.load`` gives; no other metric is to be had."""
        if path != NAME:
            raise InvalidInput(f"metric {path!r} would be downloaded and run: it is not supported")
        return self

    def compute(
        self,
        *,
        references: Sequence[str],
        predictions: Sequence[Sequence[str]],
        k: Sequence[int] = (1, 10, 100),
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, bool]]]]]:
        """pass@k over problems, each with its test and its candidate programs; and the verdicts."""
        verdicts = [
            [passes(candidate, test) for candidate in candidates]
            for candidates, test in zip(predictions, references, strict=True)
        ]
        enough = min(map(len, verdicts), default=0)
        scores = {
            f"pass@{size}": fmean(pass_at(len(own), sum(own), size) for own in verdicts)
            for size in k
            if size <= enough
        }
        told = {
            problem: [(n, {"passed": passed}) for n, passed in enumerate(own)]
            for problem, own in enumerate(verdicts)
        }
        return scores, told


def passes(candidate: str, test: str) -> bool:
    """Whether a program runs to the end of its test, in the sandbox.

    Raises:
        InvalidInput: the test is longer than the sandbox takes.
    """
    # The program cannot know the word that only its end tells.
    word = secrets.token_hex(8)
    ending = f"\n{test}\n\ndef passed_{word}():\n    return {word!r}\n"
    if len(ending) > MAX_SOURCE:
        raise InvalidInput(
            f"a test of {len(test):,} characters is longer than the sandbox takes: {MAX_SOURCE:,}"
        )
    source = candidate + ending
    modules = _modules(source) & (MODULES | MORE | LOADED)
    return run_untrusted(source, f"passed_{word}", [[]], sorted(modules)) == [word]


def _modules(source: str) -> set[str]:
    """What a program imports, anywhere; of one that cannot be read, nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a stranger's style
        try:
            return {name for node in ast.walk(ast.parse(source)) for name in imported(node)}
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return set()


def pass_at(count: int, right: int, size: int) -> float:
    """The chance that of ``size`` of the answers drawn at random one is right."""
    return 1 - math.comb(count - right, size) / math.comb(count, size)
