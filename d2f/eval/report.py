"""An evaluation in writing: the terminal's tables, and the page's, from its JSON alone."""

from dataclasses import astuple
from typing import Any

from d2f.bench.tables import Result, machine_line, markdown_table, number, text_table, told
from d2f.config import config_from_dict
from d2f.eval import paper
from d2f.eval.figures import pareto, together

COLUMNS = (
    "decoder",
    "task",
    "problems",
    "accuracy",
    "tokens/s",
    "latency s",
    "TTFT ms",
    "TPF",
    "AUP",
    "forwards",
    "length",
    "loops",
)
PAPER_COLUMNS = ("method", "task", "figures", "tokens/s", "latency s", "length", "score %")
SPEEDS = {"tokens_per_second": "tokens/s", "tokens_per_forward": "tokens a forward"}
MEASURED, PUBLISHED = "measured", "published"


def own_rows(result: Result, task: str) -> list[Result]:
    """The rows of one task, in the order of the lanes."""
    return [row for row in result["results"] if row["task"] == task]


def label(result: Result, row: Result) -> str:
    """What a row's lane is called in this run."""
    return told(row, own_rows(result, row["task"]))


def area(result: Result, row: Result) -> float:
    """The AUP of a row's decoder, over all its settings."""
    keys = ("decoder", "model", "task")
    found = (each["aup"] for each in result["aup"] if all(each[k] == row[k] for k in keys))
    return float(next(found))


def cells(result: Result, row: Result) -> tuple[str, ...]:
    """A row as text, in the order of ``COLUMNS``."""
    return (
        label(result, row),
        row["task"],
        str(row["problems"]),
        f"{row['accuracy']:.1%}",
        number(row["tokens_per_second"]),
        number(row["latency"]),
        number(1000 * row["ttft"]),
        number(row["tokens_per_forward"]),
        number(area(result, row)),
        f"{row['forwards']:,}",
        number(row["length"]),
        str(row["looping"]),
    )


def paper_rows(result: Result) -> list[tuple[str, ...]]:
    """The paper's table, each published figure above the one that was measured, if any was."""
    table = paper.PUBLISHED.get(result["repository"], {})
    rows: list[tuple[str, ...]] = []
    for task in paper.TASKS:
        # The first lane of each method; the others are a sweep's.
        own = {paper.method(_config(row)): row for row in reversed(own_rows(result, task))}
        for method in dict.fromkeys([*table, *reversed(own)] if table and own else []):
            if method in table:
                known = astuple(table[method][task])
                rows.append((method, task, PUBLISHED, *map("{:g}".format, known)))
            if method in own:
                rows.append((method, task, MEASURED, *_measured(own[method])))
    return rows


def _measured(row: Result) -> tuple[str, ...]:
    speed, latency, length = row["tokens_per_second"], row["latency"], row["length"]
    return (number(speed), number(latency), number(length), f"{100 * row['accuracy']:.1f}")


def _config(row: Result) -> Any:
    return config_from_dict(row["decoder"], row["config"])


def pareto_lines(result: Result) -> list[str]:
    """The points that no other lane beats, with the command that decodes like them."""
    rows = together(result["results"])
    return [
        f"Not beaten in accuracy and {words}: "
        + "; ".join(
            f"{label(result, rows[i])} ({rows[i]['accuracy']:.1%}, {number(rows[i][speed])})"
            for i in pareto(rows, speed)
        )
        for speed, words in SPEEDS.items()
        if len(rows) > 1
    ]


def headline(result: Result) -> str:
    """How the problems were put and scored."""
    scores = ", ".join(f"{task}: {metric}" for task, metric in result["metrics"].items())
    return f"{result['model']}, protocol {result['protocol']}; scores are {scores}"


def text_report(result: Result) -> str:
    """What a terminal shows."""
    parts = [
        f"{headline(result)}\n{machine_line(result)}",
        text_table(COLUMNS, [cells(result, row) for row in result["results"]]),
    ]
    published = paper_rows(result)
    if published:
        parts.append(text_table(PAPER_COLUMNS, published, left=3))
    return "\n\n".join(filter(None, [*parts, "\n".join(pareto_lines(result))]))


def markdown_report(result: Result) -> str:
    """The same for a page: all tasks together first, then task by task."""
    first = together(result["results"])
    apart = [row for row in result["results"] if row not in first]
    tables = [first, apart] if apart else [first]
    parts = [markdown_table(COLUMNS, [cells(result, row) for row in rows]) for rows in tables]
    lines = "\n".join(f"- {line}" for line in pareto_lines(result))
    return "\n\n".join([*parts[:1], lines, *parts[1:], f"Measured on {machine_line(result)}."])
