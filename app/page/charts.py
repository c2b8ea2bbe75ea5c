"""Plotly figures: of a finished race from its traces, of committed benchmarks from their JSON.

Knows nothing of models or gradio.

Colours are those of the lanes on the page; every series also differs in dash or pattern.
"""

import html
import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import plotly.graph_objects as go

from d2f.bench.suite import ALL
from d2f.bench.tables import Result, changed
from d2f.events import CLIENT, Trace
from d2f.policy import KINDS, kind_of

from ..recordings.recording import RecordedLane, Recording

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


# By decoder, in the order of their kinds; what comes behind the lanes' two is quiet.
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "hexagon")
LINES = {"tau_conf": "solid", "block_size": "dash", "max_active_blocks": "dot"}


def benchmark(results: Sequence[Result]) -> list[go.Figure]:
    """Speed against accuracy: all tasks together with every setting swept, then task by task."""
    together, apart = _plane(), _plane()
    for result in results:
        rows = result["results"]
        for decoder in dict.fromkeys(row["decoder"] for row in rows):
            own = [row for row in rows if row["decoder"] == decoder]
            for setting, points in _settings_swept([r for r in own if r["task"] == ALL]).items():
                _add_points(together, decoder, setting, points)
            _add_points(apart, decoder, "", [row for row in own if row["task"] != ALL])
    return [together, apart]


def points(results: Sequence[Result]) -> list[Result]:
    """The D2F rows of all tasks together: each a setting that can be raced."""
    rows = [row for result in results for row in result["results"]]
    found = {str(r["config"]): r for r in rows if (r["decoder"], r["task"]) == ("d2f", ALL)}
    return list(found.values())


def point_label(row: Result) -> str:
    """A setting with what it was worth, in one line."""
    config = row["config"]
    return (
        f"tau_conf {config['tau_conf']}, block size {config['block_size']}, "
        f"{config['max_active_blocks'] or 'any number of'} active blocks: "
        f"{row['tokens_per_second']:.0f} tokens/s, {row['accuracy']:.1%} solved"
    )


def _settings_swept(rows: Sequence[Result]) -> dict[str, list[Result]]:
    """Rows by the setting they change, each series with the unchanged first row in its place."""
    series: dict[str, list[Result]] = {}
    for row in rows:
        series.setdefault(", ".join(changed(row, rows)), []).append(row)
    for setting in filter(None, series):
        series[setting].append(rows[0])
        series[setting].sort(key=lambda row: row["config"][setting] or math.inf)
    return series


def _add_points(figure: go.Figure, decoder: str, setting: str, rows: Sequence[Result]) -> None:
    if not rows:
        return
    number = list(KINDS).index(decoder)
    colour = COLOURS[number] if number < len(COLOURS) else QUIET
    symbol = SYMBOLS[number % len(SYMBOLS)]
    figure.add_scatter(
        x=[row["tokens_per_second"] for row in rows],
        y=[row["accuracy"] for row in rows],
        name=f"{kind_of(decoder).label}, {setting}" if setting else kind_of(decoder).label,
        mode="lines+markers" if setting else "markers",
        text=[_told(row) for row in rows],
        hovertemplate="%{text}<extra></extra>",
        line={"color": colour, "width": 1.5, "dash": LINES.get(setting, "solid")},
        marker={"symbol": symbol, "color": colour, "size": 7 if setting else 12},
    )


def _plane() -> go.Figure:
    figure = _empty("tokens/s", "problems solved")
    figure.update_layout(height=380)
    figure.update_xaxes(type="log")
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    return figure


def _told(row: Result) -> str:
    """One measured point in words; the settings are those of its decoder."""
    settings = ", ".join(f"{name} {value}" for name, value in row["config"].items())
    return (
        f"<b>{kind_of(row['decoder']).label}, {row['task']}</b><br>"
        f"{row['tokens_per_second']:.0f} tokens/s, {row['accuracy']:.1%} of {row['problems']}<br>"
        f"{row['tokens_per_forward']:.2f} tokens a forward of {row['ms_per_forward']:.1f} ms<br>"
        f"{settings}"
    )


def _name(lane: RecordedLane) -> str:
    """A lane's name as plain text; plotly would make links of the markup in a stranger's."""
    return html.escape(lane.name, quote=False)


def _times(trace: Trace) -> list[float]:
    """Seconds at the end of every forward."""
    return list(accumulate(event.seconds for event in trace.events))


def _readable(trace: Trace) -> list[int]:
    """Tokens of the answer that stand without a gap, after every forward."""
    canvas: set[int] = set()
    counts: list[int] = []
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
        figure.add_scatter(x=list(x), y=list(y), name=_name(lane), mode="lines", line=line)
    return figure


def _window_figure(lanes: Sequence[RecordedLane]) -> go.Figure:
    figure = _empty("forward", "count")
    for i, lane in enumerate(lanes):
        steps = list(range(1, lane.trace.forwards + 1))
        rows = [event.window[1] - event.window[0] for event in lane.trace.events]
        # The first forward holds the prompt, which would dwarf what follows.
        line = {"color": COLOURS[i], "dash": DASHES[i], "width": 2.5}
        figure.add_scatter(x=steps[1:], y=rows[1:], name=f"{_name(lane)}: rows", line=line)
        blocks = [len(event.blocks) for event in lane.trace.events]
        if any(blocks):
            line = {"color": COLOURS[i], "dash": "dot", "width": 2.5}
            figure.add_scatter(x=steps[1:], y=blocks[1:], name=f"{_name(lane)}: blocks", line=line)
    return figure


def _time_figure(lanes: Sequence[RecordedLane]) -> go.Figure:
    figure = _empty("milliseconds", "")
    figure.update_layout(barmode="stack")
    traces = [lane.trace for lane in lanes]
    names = [_name(lane) for lane in lanes]
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
        if lane.trace.header.clock == CLIENT:  # no confidences are known
            continue
        values = [c.confidence for event in lane.trace.events for c in event.commits]
        marker = {"color": COLOURS[i], "pattern": {"shape": PATTERNS[i]}}
        figure.add_histogram(
            x=values,
            name=_name(lane),
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
