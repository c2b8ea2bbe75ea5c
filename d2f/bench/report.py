"""Benchmark results in writing: the terminal's table, and those of README and docs.

``python -m d2f.bench.report`` rewrites the pages of :data:`PARTS` between their markers from
committed JSON, computed memory needs included; ``--check`` compares only, so no figure there can
drift from its source. Loads no model and measures nothing.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from d2f.bench.suite import ALL
from d2f.bench.tables import Result, machine_line, markdown_table, number, text_table, told
from d2f.catalogue.pairs import published_needs
from d2f.catalogue.sizes import needs_table
from d2f.cli.options import Parser
from d2f.cli.program import program
from d2f.errors import InvalidInput
from d2f.eval.report import markdown_report as markdown_evaluation
from d2f.places import ASSETS
from d2f.policy import kind_of
from d2f.shape import not_for_racing
from d2f.strict_json import from_json

ROOT = Path(__file__).resolve().parents[2]
RESULT = ASSETS / "bench" / "mini.json"
ABLATION = ASSETS / "eval" / "ablation.json"
NOT_YET = "Not measured yet."

COLUMNS = (
    "decoder",
    "task",
    "problems",
    "accuracy",
    "tokens/s",
    "TTFT ms",
    "TPF",
    "ms/forward",
    "forwards",
    "tokens",
)


def cells(row: Result) -> tuple[str, ...]:
    """A row of the results as text, in the order of ``COLUMNS``."""
    return (
        kind_of(row["decoder"]).label,
        row["task"],
        str(row["problems"]),
        f"{row['accuracy']:.1%}",
        number(row["tokens_per_second"]),
        number(1000 * row["ttft"]),
        number(row["tokens_per_forward"]),
        number(row["ms_per_forward"]),
        f"{row['forwards']:,}",
        f"{row['tokens']:,}",
    )


def ratio_lines(result: Result) -> list[str]:
    """Each ratio with both absolutes, and with what the answers were worth."""
    together = [row for row in result["results"] if row["task"] == ALL]
    rows = {row["decoder"]: row for row in reversed(together)}  # the first of each
    warning = not_for_racing(run["weights"] for run in result.get("runs", {}).values())
    lines = [
        f"D2F makes {number(result['ratios'][f'd2f_vs_{other}'])} times the tokens/s of "
        f"{kind_of(other).label}: {number(rows['d2f']['tokens_per_second'])} against "
        f"{number(rows[other]['tokens_per_second'])}, with {rows['d2f']['accuracy']:.1%} against "
        f"{rows[other]['accuracy']:.1%} of the problems solved "
        f"({rows['d2f']['problems']} and {rows[other]['problems']} problems)."
        for other in reversed(rows)
        if f"d2f_vs_{other}" in result["ratios"]
    ]
    return [*lines, warning] if lines and warning else lines


def text_report(result: Result) -> str:
    """The table a terminal shows."""
    rows = result["results"]
    table = text_table(COLUMNS, [(told(row, rows), *cells(row)[1:]) for row in rows])
    return "\n".join([machine_line(result), "", table, "", *ratio_lines(result)])


def markdown_report(result: Result | None) -> str:
    """All results, task by task; None: nothing was measured yet."""
    if result is None:
        return NOT_YET
    together = [cells(row) for row in result["results"] if row["task"] == ALL]
    apart = [cells(row) for row in result["results"] if row["task"] != ALL]
    ratios = "\n".join(f"- {line}" for line in ratio_lines(result))
    return "\n\n".join(
        (
            "All tasks together:",
            markdown_table(COLUMNS, together),
            ratios,
            "Task by task:",
            markdown_table(COLUMNS, apart),
            f"Measured on {machine_line(result)}. TTFT is the median time to the first token, TPF "
            "tokens per forward. Tokens count up to and including the first stop token; seconds "
            "are those inside the decoder.",
        )
    )


def read_result() -> Result | None:
    return from_json(RESULT.read_text()) if RESULT.is_file() else None


def read_results() -> list[Result]:
    """Every committed benchmark run: the headline one and those at other settings."""
    return [from_json(path.read_text()) for path in sorted(RESULT.parent.glob("*.json"))]


def summary(result: Result | None) -> str:
    """The README's rows: all tasks together, and the ratios."""
    if result is None:
        return NOT_YET
    kept = (0, 2, 3, 4, 6, 7)
    rows = [cells(row) for row in result["results"] if row["task"] == ALL]
    table = [[row[i] for i in kept] for row in (COLUMNS, *rows)]
    machine = result["machine"]
    lines = [
        markdown_table(table[0], table[1:], left=1),
        "",
        *(f"- {line}" for line in ratio_lines(result)),
        f"- Measured on {machine['cpu']}, {machine['cores']} cores, {result['dtype']}.",
    ]
    return "\n".join(lines)


def ablation() -> str:
    """All decoders on the embedded models, from the committed evaluation."""
    if not ABLATION.is_file():
        return NOT_YET
    return markdown_evaluation(from_json(ABLATION.read_text()))


# The generated parts of each page, by the words of their markers.
PARTS: dict[str, dict[str, Callable[[Result | None], str]]] = {
    "README.md": {"summary": summary},
    "docs/results.md": {"bench": markdown_report, "ablation": lambda result: ablation()},
    "docs/published-models.md": {"needs": lambda result: needs_table(published_needs())},
}


def rendered(page: str, text: str, result: Result | None) -> str:
    """The ``text`` of a page of :data:`PARTS` with the parts between its markers written anew.

    Raises:
        InvalidInput: the markers are not there.
    """
    for word, write in PARTS[page].items():
        first, last = f"<!-- {word}:begin -->", f"<!-- {word}:end -->"
        before, begin, rest = text.partition(first)
        _, end, after = rest.partition(last)
        if not begin or not end:
            raise InvalidInput(f"{page} must hold the markers {first} and {last}, in this order")
        text = f"{before}{begin}\n{write(result)}\n{end}{after}"
    return text


@program("d2f.bench.report")
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("python -m d2f.bench.report", __doc__, "")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    args = parser.parse_args(argv)
    result, stale = read_result(), []
    for page in PARTS:
        old = (ROOT / page).read_text(encoding="utf-8")
        new = rendered(page, old, result)
        if old != new:
            stale.append(page)
            if not args.check:
                (ROOT / page).write_text(new, encoding="utf-8")
    if args.check and stale:
        print(f"stale: {', '.join(stale)}; run python -m d2f.bench.report", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
