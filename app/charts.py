"""Plotly figures: of a finished race from its traces, of committed benchmarks from their JSON.

Knows nothing of models or gradio.

Colours are those of the lanes on the page; every series also differs in dash or pattern.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go

from app.recording import RecordedLane, Recording
from d2f.bench.report import DECODERS
from d2f.events import Trace

COLOURS = ("#0072b2", "#d55e00")
DASHES = ("solid", "dash")
PATTERNS = ("", "/")
QUIET = "#7d8a97"  # legible on light and dark alike
WINDOW = 8


TITLES = (
    "Tokens over time",
    f"Tokens/s over the last {WINDOW} forwards",
    "Tokens decided by each forward",
    "Blocks in flight and rows in a forward",
    "Where the time went",
    "Confidence of the tokens",
)


def figures(recording: Recording) -> list[go.Figure]:
    """One figure a title of ``TITLES``, in that order."""
    lanes = recording.lanes
    return [
        _figure(lanes, _tokens, "seconds", "tokens"),
        _figure(lanes, _rolling, "seconds", "tokens/s"),
        _figure(lanes, _per_forward, "forward", "tokens"),
        _window_figure(lanes),
        _time_figure(lanes),
        _confidence_figure(lanes),
    ]


Series = tuple[Sequence[float], Sequence[float]]


SYMBOLS = {"d2f": "circle", "ar": "diamond", "vanilla": "square"}
SHADES = {"d2f": COLOURS[0], "ar": COLOURS[1], "vanilla": QUIET}


def benchmark(results: Sequence[dict[str, Any]]) -> go.Figure:
    """Speed against accuracy: a point a decoder, task and setting of the given benchmark runs."""
    figure = _empty("tokens/s", "problems solved")
    rows = [row for result in results for row in result["results"]]
    for decoder in SYMBOLS:
        points = [row for row in rows if row["decoder"] == decoder]
        figure.add_scatter(
            x=[row["tokens_per_second"] for row in points],
            y=[row["accuracy"] for row in points],
            name=DECODERS[decoder],
            mode="markers",
            text=[_told(row) for row in points],
            hovertemplate="%{text}<extra></extra>",
            marker={"symbol": SYMBOLS[decoder], "color": SHADES[decoder], "size": 12},
        )
    figure.update_layout(height=380)
    figure.update_xaxes(type="log")
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    return figure


def _told(row: dict[str, Any]) -> str:
    """One measured point in words; the settings are those of its decoder."""
    settings = ", ".join(f"{name} {value}" for name, value in row["config"].items())
    return (
        f"<b>{DECODERS[row['decoder']]}, {row['task']}</b><br>"
        f"{row['tokens_per_second']:.0f} tokens/s, {row['accuracy']:.1%} of {row['problems']}<br>"
        f"{row['tokens_per_forward']:.2f} tokens a forward of {row['ms_per_forward']:.1f} ms<br>"
        f"{settings}"
    )


def _times(trace: Trace) -> list[float]:
    """Seconds at the end of every forward."""
    return list(accumulate(event.seconds for event in trace.events))


def _readable(trace: Trace) -> list[int]:
    """Tokens of the answer that stand without a gap, after every forward."""
    canvas, counts = set(), []
    start, tokens = len(trace.header.prompt_ids), 0
    for event in trace.events:
        canvas.update(commit.position for commit in event.commits)
        while tokens < trace.tokens and start + tokens in canvas:
            tokens += 1
        counts.append(tokens)
    return counts


def _tokens(trace: Trace) -> Series:
    return [0.0, *_times(trace)], [0, *_readable(trace)]


def _rolling(trace: Trace) -> Series:
    times, tokens = _tokens(trace)
    pairs = [(max(0, n - WINDOW), n) for n in range(1, len(times))]
    speeds = [(tokens[n] - tokens[m]) / (times[n] - times[m] or 1e-9) for m, n in pairs]
    return times[1:], speeds


def _per_forward(trace: Trace) -> Series:
    return range(1, trace.forwards + 1), [len(event.commits) for event in trace.events]


def _figure(
    lanes: Sequence[RecordedLane], series: Callable[[Trace], Series], across: str, up: str
) -> go.Figure:
    figure = _empty(across, up)
    for i, lane in enumerate(lanes):
        x, y = series(lane.trace)
        line = {"color": COLOURS[i], "dash": DASHES[i], "width": 2.5}
        figure.add_scatter(x=list(x), y=list(y), name=lane.name, mode="lines", line=line)
    return figure


def _window_figure(lanes: Sequence[RecordedLane]) -> go.Figure:
    figure = _empty("forward", "count")
    for i, lane in enumerate(lanes):
        steps = list(range(1, lane.trace.forwards + 1))
        rows = [event.window[1] - event.window[0] for event in lane.trace.events]
        # The first forward holds the prompt, which would dwarf what follows.
        line = {"color": COLOURS[i], "dash": DASHES[i], "width": 2.5}
        figure.add_scatter(x=steps[1:], y=rows[1:], name=f"{lane.name}: rows", line=line)
        blocks = [len(event.blocks) for event in lane.trace.events]
        if any(blocks):
            line = {"color": COLOURS[i], "dash": "dot", "width": 2.5}
            figure.add_scatter(x=steps[1:], y=blocks[1:], name=f"{lane.name}: blocks", line=line)
    return figure


def _time_figure(lanes: Sequence[RecordedLane]) -> go.Figure:
    figure = _empty("milliseconds", "")
    figure.update_layout(barmode="stack")
    traces = [lane.trace for lane in lanes]
    names = [lane.name for lane in lanes]
    first = [1000 * t.events[0].seconds if t.events else 0.0 for t in traces]
    rest = [1000 * t.seconds - f for t, f in zip(traces, first, strict=True)]
    parts = (("first forward, with the prompt", first, "x", 0.45), ("later forwards", rest, "", 1))
    for name, values, pattern, opacity in parts:
        marker = {"color": COLOURS[: len(lanes)], "pattern": {"shape": pattern}, "opacity": opacity}
        figure.add_bar(x=values, y=names, name=name, orientation="h", marker=marker)
    return figure


def _confidence_figure(lanes: Sequence[RecordedLane]) -> go.Figure:
    figure = _empty("confidence", "share of tokens")
    for i, lane in enumerate(lanes):
        values = [c.confidence for event in lane.trace.events for c in event.commits]
        marker = {"color": COLOURS[i], "pattern": {"shape": PATTERNS[i]}}
        figure.add_histogram(
            x=values,
            name=lane.name,
            histnorm="probability",
            xbins={"start": 0, "end": 1.0001, "size": 0.05},
            marker=marker,
        )
    figure.update_xaxes(range=[0, 1.02])
    return figure


def _empty(across: str, up: str) -> go.Figure:
    axis = {"gridcolor": "rgba(125,138,151,.25)", "zeroline": False}
    figure = go.Figure()
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "color": QUIET, "size": 13},
        margin={"l": 56, "r": 12, "t": 64, "b": 44},
        height=320,
        legend={"orientation": "h", "y": 1.18, "x": 0},
        xaxis={**axis, "title": across},
        yaxis={**axis, "title": up, "rangemode": "tozero"},
    )
    return figure
