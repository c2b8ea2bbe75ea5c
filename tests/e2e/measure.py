"""What the page costs: ``python -m pytest tests/e2e/measure.py -s``, on a quiet machine.

Main-thread milliseconds an update in a real headless Chromium while two lanes fill a canvas of 512
tokens each, live, 30 updates a second; and the measured tokens/s of both lanes of the embedded pair
while five visitors watch, against the same prompts without a page. Visitors have machines of their
own: their browsers get what the server and the models leave of this one (Linux's idle class), and
for comparison an equal share. Figures go to stdout, a JSON object a measurement. Not part of the
suite, whose machines are not quiet.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from conftest import CHROMIUM, FLAGS
from playwright.sync_api import Browser, Page
from races import header
from servers import free_port

import app.run
from app.apart import Apart, give_way, lanes_apart
from app.conversation import Conversation
from app.lanes import Host, Lane, Question, recorded_lane
from app.prompts import examples
from app.race import merge
from app.ui import build, launch_options
from d2f import ARConfig, BlockView, Commit, D2FConfig, StepEvent, Trace
from d2f.bench.machine import machine
from d2f.registry import PAIRS

TOKENS, UPDATES_A_SECOND, TOKENS_AN_UPDATE, BLOCK = 512, 30, 4, 32
VISITORS, ROUNDS = 5, 6


def synthetic(decoder: str) -> Lane:
    """A lane that decides 512 tokens live, four an update, 30 updates a second."""
    diffusion = decoder == "D2F"
    settings = {"max_new_tokens": TOKENS}
    config = D2FConfig(block_size=BLOCK, **settings) if diffusion else ARConfig(**settings)
    start = header(config, decoder)
    first = len(start.prompt_ids)
    events = []
    for step in range(TOKENS // TOKENS_AN_UPDATE):
        at = first + step * TOKENS_AN_UPDATE
        commits = tuple(Commit(at + i, 10 + i, 0.97, False) for i in range(TOKENS_AN_UPDATE))
        blocks = ()
        if diffusion:
            block = (at - first) // BLOCK
            begin = first + block * BLOCK
            blocks = (BlockView(block, begin, begin + BLOCK, 4, "fully_activated"),)
        last = step == TOKENS // TOKENS_AN_UPDATE - 1
        reason = "length" if last else None
        seconds = 1 / UPDATES_A_SECOND
        window = (at, min(at + BLOCK, first + TOKENS))
        events.append(StepEvent(step, seconds, window, commits, blocks, at, reason))
    lane = recorded_lane(decoder, Trace(start, tuple(events)), lambda i: f" word{i}")
    lane.source = paced(lane.source)
    return lane


def paced(events: Iterator[StepEvent]) -> Iterator[StepEvent]:
    for event in events:
        time.sleep(1 / UPDATES_A_SECOND / 2)  # the two lanes move in turns
        yield event


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[str]:
    """The page as it ships, without recorded races, which would play at first."""
    torch.set_num_threads(torch.get_num_interop_threads())
    demo = build("mini", Host(), tmp_path_factory.mktemp("traces"))
    _, url, _ = demo.launch(
        server_port=free_port(), prevent_thread_lock=True, quiet=True, **launch_options()
    )
    yield url
    demo.close(verbose=False)


def opened(browser: Browser, url: str, speed: str) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(120_000)
    page.goto(url)
    page.locator(".board .grid canvas").first.wait_for()
    page.locator(f"[name=speed][value='{speed}']").check()
    page.wait_for_timeout(1500)
    return page


def ask(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Run the race").click()


def finished(page: Page) -> None:
    page.locator(".board[data-state=finished]").wait_for()


def test_an_update_costs_the_main_thread_less_than_a_frame(
    url: str, browser: Browser, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(app.run, "pair_lanes", lambda *_: [synthetic("D2F"), synthetic("AR")])
    page = opened(browser, url, "1")
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable")

    def counters() -> dict[str, float]:
        found = cdp.send("Performance.getMetrics")["metrics"]
        return {each["name"]: each["value"] for each in found}

    page.evaluate(
        """() => { window.frames_ = 0; window.long_ = [];
        const count = () => { window.frames_++; requestAnimationFrame(count); }; count();
        new PerformanceObserver((list) => list.getEntries().forEach(
          (entry) => window.long_.push(entry.duration))).observe({ type: 'longtask' }); }"""
    )
    ask(page, "Measure.")
    page.locator(".board[data-state=racing]").wait_for()
    before, began, frames = counters(), time.monotonic(), page.evaluate("window.frames_")
    finished(page)
    after, seconds = counters(), time.monotonic() - began
    frames, long = page.evaluate("window.frames_") - frames, page.evaluate("window.long_")
    moves = 2 * TOKENS // TOKENS_AN_UPDATE
    spent = {name: 1000 * (after[name] - before[name]) for name in before if "Duration" in name}
    page.context.close()
    each = 1 / (seconds * UPDATES_A_SECOND)
    layout = spent["LayoutDuration"] + spent["RecalcStyleDuration"]
    told = {
        "machine": machine("cpu"),
        "events": moves,
        "seconds": seconds,
        "main_thread_ms_per_update": spent["TaskDuration"] * each,
        "script_ms_per_update": spent["ScriptDuration"] * each,
        "layout_ms_per_update": layout * each,
        "frames_per_second": frames / seconds,
        "longest_task_ms": max(long, default=0),
    }
    print(json.dumps(told, indent=1))
    assert told["main_thread_ms_per_update"] <= 16


@pytest.fixture(scope="module")
def lanes() -> Iterator[Callable[..., list[Lane]]]:
    """Lanes of the models' own process, as the page has them on a CPU."""
    apart = Apart()
    apart.start()
    make = lanes_apart(apart)
    alone(make, ["Warm up."])
    give_way()
    yield make
    apart.close()


def alone(make: Callable[..., list[Lane]], prompts: Sequence[str]) -> list[list[float]]:
    """Tokens/s of both lanes on each prompt, with no page."""
    pair, speeds = PAIRS["mini"], []
    for prompt in prompts:
        lanes = make(Question(pair, prompt, pair.config, Conversation("mini")), Host())
        for _ in merge(lanes):
            pass
        speeds.append([lane.trace.tokens_per_second for lane in lanes])
    return speeds


def watched(
    browser: Browser,
    url: str,
    make: Callable[..., list[Lane]],
    prompts: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
) -> list[list[float]]:
    """The same with five visitors at once, each watching a race of their own."""
    ran: list[list[Lane]] = []

    def prepare(*request: Any) -> list[Lane]:
        ran.append(make(*request))
        return ran[-1]

    monkeypatch.setattr(app.run, "pair_lanes", prepare)
    pages = [opened(browser, url, "1") for _ in range(VISITORS)]
    for page, prompt in zip(pages, prompts, strict=True):
        ask(page, prompt)
    for page in pages:
        finished(page)
        page.context.close()
    order = {lanes[0].chat[-1]["content"]: lanes for lanes in ran}
    return [[lane.trace.tokens_per_second for lane in order[prompt]] for prompt in prompts]


@pytest.mark.parametrize("share", ["what is left", "an equal share"])
def test_five_visitors_slow_no_lane_by_more_than_a_twentieth(
    url: str,
    browser: Browser,
    lanes: Callable[..., list[Lane]],
    share: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    theirs = tmp_path / "chromium"
    theirs.write_text(f'#!/bin/sh\nexec chrt --idle 0 "{CHROMIUM}" "$@"\n')
    theirs.chmod(0o755)
    program = theirs if share == "what is left" else CHROMIUM
    visitors = browser.browser_type.launch(executable_path=program, args=FLAGS)
    groups = examples().values()
    prompts = [problem.prompt for group in groups for problem in group][:VISITORS]
    rounds = [
        (alone(lanes, prompts), watched(visitors, url, lanes, prompts, monkeypatch))
        for _ in range(ROUNDS)
    ]
    visitors.close()
    told = {}
    for index, lane in enumerate(("d2f", "ar")):
        speeds = [median(each[index] for turn in rounds for each in turn[side]) for side in (0, 1)]
        change = speeds[1] / speeds[0] - 1
        told[lane] = {"alone": speeds[0], "five_visitors": speeds[1], "change": change}
    told = {"machine": machine("cpu"), "browsers_get": share, "tokens_per_second": told}
    print(json.dumps(told, indent=1))
    if share == "what is left":
        assert all(each["change"] >= -0.05 for each in told["tokens_per_second"].values())
