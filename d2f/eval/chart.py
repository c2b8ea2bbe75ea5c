"""The trade-off drawn: accuracy over speed, as a page of its own that needs no network."""

from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from d2f.bench.tables import Result, number
from d2f.eval.figures import pareto, together
from d2f.eval.report import SPEEDS, area, headline, label
from d2f.policy import KINDS, kind_of

# Also told apart by their symbols; colours as on the page's lanes, then quiet.
COLOURS = ("#0072b2", "#d55e00", "#7d8a97", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "hexagon")


def tradeoff(result: Result) -> go.Figure:
    """Accuracy over tokens/s and over tokens a forward; points that no other beats are named."""
    figure = make_subplots(1, len(SPEEDS), shared_yaxes=True, horizontal_spacing=0.06)
    for column, (speed, words) in enumerate(SPEEDS.items(), 1):
        for trace in _points(result, speed, legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        figure.add_trace(_front(result, speed), row=1, col=column)
        figure.update_xaxes(title_text=words, rangemode="tozero", row=1, col=column)
    figure.update_yaxes(title_text="accuracy", tickformat=".0%", row=1, col=1)
    figure.update_layout(title_text=headline(result), template="plotly_white")
    return figure


def _points(result: Result, speed: str, legend: bool) -> list[go.Scatter]:
    """A series a decoder."""
    rows = together(result["results"])
    best, series = pareto(rows, speed), []
    for decoder in dict.fromkeys(row["decoder"] for row in rows):
        own = [i for i, row in enumerate(rows) if row["decoder"] == decoder]
        place = list(KINDS).index(decoder)
        series.append(
            go.Scatter(
                x=[rows[i][speed] for i in own],
                y=[rows[i]["accuracy"] for i in own],
                text=[escape(label(result, rows[i])) if i in best else "" for i in own],
                hovertext=[_hover(result, rows[i]) for i in own],
                hoverinfo="text",
                mode="markers+text",
                textposition="top center",
                marker={
                    "size": 10,
                    "color": COLOURS[place % len(COLOURS)],
                    "symbol": SYMBOLS[place % len(SYMBOLS)],
                },
                name=kind_of(decoder).label,
                legendgroup=decoder,
                showlegend=legend,
            )
        )
    return series


def _front(result: Result, speed: str) -> go.Scatter:
    rows = together(result["results"])
    best = pareto(rows, speed)
    return go.Scatter(
        x=[rows[i][speed] for i in best],
        y=[rows[i]["accuracy"] for i in best],
        mode="lines",
        line={"color": "#7d8a97", "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )


def _hover(result: Result, row: Result) -> str:
    settings = "<br>".join(f"{name}: {value}" for name, value in row["config"].items())
    return (
        f"<b>{escape(label(result, row))}</b><br>{row['accuracy']:.1%} of {row['problems']}, "
        f"{number(row['tokens_per_second'])} tokens/s, {number(row['tokens_per_forward'])} "
        f"tokens a forward, AUP {number(area(result, row))}<br>{settings}"
    )


def page(result: Result) -> str:
    """The chart as HTML with its script."""
    options: dict[str, Any] = {"include_plotlyjs": True, "full_html": True}
    return str(tradeoff(result).to_html(**options))
