"""Charts of a race: the figures are those of its traces."""

import pytest
from races import ar_trace, d2f_trace

from app.charts import TITLES, benchmark, figures
from app.recording import RecordedLane, Recording
from d2f import Trace
from d2f.bench.report import read_results

TEXTS = {0: "<end>", 1: "one", 2: " two", 3: " three", 4: " four", 5: "!"}


def race(*traces: Trace) -> Recording:
    lanes = [RecordedLane(t.header.decoder, t, TEXTS if t.events else {}) for t in traces]
    return Recording("Count.", tuple(lanes))


def test_every_title_has_its_figure_with_both_lanes():
    drawn = figures(race(d2f_trace(), ar_trace()))
    assert len(drawn) == len(TITLES)
    tokens, rolling, each, window, time, confidence = drawn
    assert list(tokens.data[0].x) == [0, 0.25, 0.5, 0.75]
    assert list(tokens.data[0].y) == [0, 1, 3, 6]
    assert list(rolling.data[0].y) == [4, 6, 8]
    assert list(each.data[0].y) == [2, 2, 2] and list(each.data[1].y) == [1] * 6
    assert list(window.data[0].y) == [8, 8] and list(window.data[1].y) == [2, 2]
    assert list(time.data[0].x) == [250, 250] and list(time.data[1].x) == [500, 1250]
    assert list(confidence.data[0].x) == [0.95] * 4 + [0.4, 0.95]


@pytest.mark.parametrize("trace", [Trace(ar_trace().header, ()), ar_trace()])
def test_a_run_cut_short_still_has_figures(trace: Trace):
    short = Trace(d2f_trace().header, d2f_trace().events[:1])
    texts = {1: "one", 3: " three"}
    lanes = (
        RecordedLane("D2F", short, texts),
        RecordedLane("AR", trace, TEXTS if trace.events else {}),
    )
    assert len(figures(Recording("Count.", lanes))) == len(TITLES)


def test_the_benchmark_shows_every_committed_point():
    results = read_results()
    figure = benchmark(results)
    rows = [row for result in results for row in result["results"]]
    shown = [
        (series.name, x, y)
        for series in figure.data
        for x, y in zip(series.x, series.y, strict=True)
    ]
    names = {"d2f": "D2F", "ar": "AR", "vanilla": "vanilla diffusion"}
    expected = [(names[r["decoder"]], r["tokens_per_second"], r["accuracy"]) for r in rows]
    assert sorted(shown) == sorted(expected) and len(shown) >= 3
    assert any("tau_conf" in text for text in figure.data[0].text)
