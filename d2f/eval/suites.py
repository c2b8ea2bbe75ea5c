"""The embedded models' own suites as tasks of the harness. Knows no harness."""

from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any

from d2f.tasks import TASKS, draw

SUITE = "mini"
# Held-out problems of a task, unless a limit asks for more.
SIZE = 200


def names(asked: str) -> list[str]:
    """The tasks of an embedded suite's name, or of a task of it; none of another."""
    if asked == SUITE:
        return list(TASKS)
    return [asked] if asked in TASKS else []


def config(task: str, seed: int, size: int) -> dict[str, Any]:
    """A task as the harness takes it: the first ``size`` problems of its test stream."""
    return {
        "task": task,
        "custom_dataset": partial(_dataset, task=task, seed=seed, size=size),
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{expected}}",
        "process_results": partial(_verdict, task),
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": {"until": []},
        "num_fewshot": 0,
        "unsafe_code": runs_code(task),
        "metadata": {"version": 1.0},
    }


def runs_code(task: str) -> bool:
    """Whether an embedded task runs what is answered."""
    return task == "code-mini"


def _dataset(task: str, seed: int, size: int, **about: Any) -> dict[str, Any]:
    from datasets import Dataset

    problems = islice(draw(task, "test", seed), size)
    rows = [{"prompt": each.prompt, "expected": each.expected[0]} for each in problems]
    return {"test": Dataset.from_list(rows)}


def _verdict(task: str, doc: Mapping[str, str], results: list[str]) -> dict[str, float]:
    return {"acc": float(TASKS[task].judge(results[0], doc["expected"]))}
