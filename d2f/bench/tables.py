"""Tables of measurements, for the terminal and for pages, and lines that say on what they ran."""

from collections.abc import Mapping, Sequence
from typing import Any

from d2f.policy import kind_of

Result = Mapping[str, Any]


def number(value: float) -> str:
    """Three digits or more, as a reader wants them: 3.14, 31.4, 314, 3,142."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def changed(row: Result, rows: Sequence[Result]) -> dict[str, Any]:
    """Settings in which a row differs from the first of its decoder: what a sweep changed."""
    first = next(each for each in rows if each["decoder"] == row["decoder"])
    return {name: v for name, v in row["config"].items() if v != first["config"][name]}


def told(row: Result, rows: Sequence[Result]) -> str:
    """What a lane is called: its decoder, and how it differs from the first lane of that one."""
    first = next(each for each in rows if each["decoder"] == row["decoder"])
    on = f"on {row['model']}" if row["model"] != first["model"] else ""
    changes = [f"{name}={value}" for name, value in changed(row, rows).items()]
    return " ".join(filter(None, [kind_of(row["decoder"]).label, on, *changes]))


def runs_line(result: Result) -> str:
    """How the models were run; per decoder where they differ. Old results do not say."""
    told = {
        decoder: ", ".join(f"{what} {kind}" for what, kind in run.items())
        for decoder, run in result.get("runs", {}).items()
    }
    if len(set(told.values())) > 1:
        return (
            "; ".join(f"{kind_of(decoder).label}: {text}" for decoder, text in told.items()) + "; "
        )
    return f"{next(iter(told.values()))}; " if told else ""


def machine_line(result: Result) -> str:
    machine, versions = result["machine"], result["versions"]
    bf16 = "native" if machine["bf16_native"] else "not native"
    software = ", ".join(f"{name} {release}" for name, release in versions.items())
    own = any("threads" in run for run in result.get("runs", {}).values())  # told with its lane
    threads = "" if own else f"torch threads: {machine['threads']}, "
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {threads}"
        f"device {machine['device']}, {result['dtype']} (bfloat16 {bf16}), {machine['platform']}; "
        f"{software}; {runs_line(result)}problems drawn with seed {result['seed']}"
    )


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Columns as wide as they need to be; those behind the first ``left`` stand right."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if index < left else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Columns behind the first ``left`` hold numbers, which stand right."""
    rule = ["---" if index < left else "---:" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
