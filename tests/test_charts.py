"""Charts of a race: the figures are those of its traces."""

from dataclasses import replace

import pytest
from races import ar_trace, d2f_trace

from app.page.charts import TITLES, benchmark, figures, point_label, points
from app.page.tell import SETTINGS, read_settings
from app.recordings.recording import RecordedLane, Recording
from d2f import Trace
from d2f.bench.report import read_results
from d2f.catalogue.pairs import PAIRS
from d2f.config import config_from_dict

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


def test_a_lanes_name_is_text_whatever_it_holds():
    lanes = race(d2f_trace(), ar_trace()).lanes
    named = [replace(lane, name='<a href="https://a.b">x</a>') for lane in lanes]
    for figure in figures(Recording("Count.", tuple(named))):
        assert "<a" not in figure.to_json().replace("\\u003c", "<")


def row(decoder: str, task: str, speed: float, accuracy: float, **config: float) -> dict:
    base = {"tau_conf": 0.9, "block_size": 16, "max_active_blocks": 3}
    return {
        "decoder": decoder,
        "task": task,
        "config": base | config,
        "tokens_per_second": speed,
        "accuracy": accuracy,
        "problems": 4,
        "tokens_per_forward": 2.0,
        "ms_per_forward": 10.0,
    }


def test_a_sweep_is_a_line_through_the_default_in_the_order_of_its_values():
    rows = [
        row("d2f", "all", 200, 0.8),
        row("ar", "all", 100, 0.9),
        row("d2f", "all", 150, 0.85, tau_conf=0.95),
        row("d2f", "all", 300, 0.5, tau_conf=0.5),
        row("d2f", "gsm-mini", 210, 0.7),
    ]
    together, apart = benchmark([{"results": rows}])
    assert [(s.name, list(s.x), list(s.y)) for s in together.data] == [
        ("D2F", [200], [0.8]),
        ("D2F, tau_conf", [300, 200, 150], [0.5, 0.8, 0.85]),
        ("AR", [100], [0.9]),
    ]
    assert [(s.name, list(s.x)) for s in apart.data] == [("D2F", [210])]
    assert "tau_conf 0.5" in together.data[1].text[0]
    assert [point_label(each) for each in points([{"results": rows}])] == [
        "tau_conf 0.9, block size 16, 3 active blocks: 200 tokens/s, 80.0% solved",
        "tau_conf 0.95, block size 16, 3 active blocks: 150 tokens/s, 85.0% solved",
        "tau_conf 0.5, block size 16, 3 active blocks: 300 tokens/s, 50.0% solved",
    ]


def test_the_committed_benchmarks_can_be_drawn_and_raced():
    results = read_results()
    together, apart = benchmark(results)
    rows = [each for result in results for each in result["results"]]
    assert {s.name for s in together.data} >= {"D2F", "AR", "vanilla diffusion"}
    assert sum(len(s.x) for s in apart.data) == len([r for r in rows if r["task"] != "all"])
    for each in points(results):
        config = config_from_dict("d2f", each["config"])
        read_settings(PAIRS["mini"], [getattr(config, name) for name in SETTINGS])
