"""What answers and scores add up to: rows as the benchmark has them, and more beside."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from d2f.bench.lanes import Entry
from d2f.bench.suite import ALL, Outcome, row
from d2f.eval.answers import Answer

# Answers by their length in tokens: up to 32, up to 64 and so on; the last are all that are longer.
LENGTHS = (32, 64, 128, 256, 512)
# AUP's: how fast accuracy that is lost takes weight, and how many points may be lost at most.
ALPHA, TOLERANCE = 3.0, 5.0


@dataclass(frozen=True)
class Marked:
    """An answer with the share of the score that it earned, in [0, 1]."""

    answer: Answer
    right: float


def outcome(entry: Entry, task: str, marked: Marked) -> Outcome:
    """A marked answer as the benchmark has it; what a loop repeats is no token of it."""
    one = marked.answer
    return Outcome(
        decoder=entry.decoder,
        config=entry.config,
        task=task,
        correct=marked.right,
        tokens=one.said,
        seconds=one.seconds,
        ttft=one.ttft,
        forwards=one.forwards,
    )


def lane_row(entry: Entry, model: str, task: str, marked: Sequence[Marked]) -> dict[str, Any]:
    """A lane over the problems of a task: the benchmark's row, latency, lengths and loops."""
    answers = [each.answer for each in marked]
    outcomes = [outcome(entry, task, each) for each in marked]
    return {
        **asdict(row(model, task, outcomes)),
        "problems": len({(each.task, each.problem) for each in answers}),
        "latency": fmean(each.seconds for each in answers),
        "length": fmean(each.tokens for each in answers),
        "looping": sum(each.looping for each in answers),
        "repeated_tokens": sum(each.repeated for each in answers),
        "prompts_cut": sum(each.cut > 0 for each in answers),
        "by_length": by_length(entry, model, task, marked),
    }


def by_length(
    entry: Entry, model: str, task: str, marked: Sequence[Marked]
) -> list[dict[str, Any]]:
    """Accuracy and speed of answers of about one length each, shortest first."""
    bounds = [*LENGTHS, math.inf]
    found = []
    for low, high in zip([0, *LENGTHS], bounds, strict=True):
        own = [each for each in marked if low < max(each.answer.tokens, 1) <= high]
        if own:
            added = asdict(row(model, task, [outcome(entry, task, each) for each in own]))
            kept = ("problems", "accuracy", "tokens_per_second", "tokens_per_forward")
            most = None if high == math.inf else high
            found.append({"above": low, "up_to": most, **{name: added[name] for name in kept}})
    return found


def aup(points: Sequence[tuple[float, float]], best: float) -> float:
    """Accuracy under parallelism, as d3LLM (arXiv 2601.07568) defines it.

    The area under accuracy over tokens a forward, where accuracy below the ``best`` of all methods
    takes weight exp(-3 (1 - accuracy / best)), from no parallelism on. Points whose accuracy is
    more than 5 points below that of the least parallel one do not count.

    Args:
        points: pairs of tokens a forward and accuracy in percent, of one method at any settings.
        best: the highest accuracy of all methods, in percent.
    """
    ordered = sorted(points)
    kept = [each for each in ordered if each[1] >= ordered[0][1] - TOLERANCE]
    worth = [y * min(math.exp(-ALPHA * (1 - y / best)), 1) if best else 0.0 for _, y in kept]
    area = kept[0][0] * kept[0][1]
    for i in range(1, len(kept)):
        area += (kept[i][0] - kept[i - 1][0]) * (worth[i] + worth[i - 1]) / 2
    return area


def aups(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """AUP of every decoder and model by task, over all its settings in the run."""
    best: dict[str, float] = {}
    curves: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for each in rows:
        percent = 100 * each["accuracy"]
        best[each["task"]] = max(percent, best.get(each["task"], 0.0))
        key = (each["decoder"], each["model"], each["task"])
        curves.setdefault(key, []).append((each["tokens_per_forward"], percent))
    return [
        {
            "decoder": decoder,
            "model": model,
            "task": task,
            "aup": aup(points, best[task]),
            "settings": len(points),
        }
        for (decoder, model, task), points in curves.items()
    ]


def pareto(rows: Sequence[Mapping[str, Any]], speed: str) -> list[int]:
    """Indexes of the rows that no other beats in both accuracy and ``speed``, fastest last."""
    order = sorted(range(len(rows)), key=lambda i: (-rows[i][speed], -rows[i]["accuracy"]))
    kept: list[int] = []
    for i in order:
        if not kept or rows[i]["accuracy"] > rows[kept[-1]]["accuracy"]:
            kept.append(i)
    return kept[::-1]


def together(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows a run is judged by: all tasks together, or those of its only task."""
    every = [each for each in rows if each["task"] == ALL]
    return every or list(rows)
