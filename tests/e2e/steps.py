"""What a visitor does and sees, for all browser tests."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from playwright.sync_api import Locator, Page, expect

from app.lanes import Lane, pair_lanes
from d2f import StepEvent, Trace

FIGURES = {
    "tps": "tokens_per_second",
    "tokens": "tokens",
    "forwards": "forwards",
    "tpf": "tokens_per_forward",
    "seconds": "seconds",
}


def board(page: Page) -> Locator:
    return page.locator(".board")


def status(page: Page) -> Locator:
    return board(page).get_by_role("status")


def lane(page: Page, index: int) -> Locator:
    return page.locator(f".lane[data-lane='{index}']")


def ask(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Run the race").click()


def expect_state(page: Page, state: str) -> None:
    expect(board(page)).to_have_attribute("data-state", state)


def figures(page: Page, index: int) -> dict[str, float]:
    return {
        metric: float(
            lane(page, index).locator(f"[data-figure={name}]").get_attribute("data-value")
        )
        for name, metric in FIGURES.items()
    }


def expect_figures(page: Page, index: int, trace: Trace) -> None:
    shown = figures(page, index)
    assert shown == {metric: trace.metrics[metric] for metric in FIGURES.values()}


class Slow:
    """Real lanes at a walking pace; tells how far they came and when they were closed."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds, self.steps = seconds, 0
        self.closed = [threading.Event(), threading.Event()]

    def __call__(self, *request: object) -> list[Lane]:
        lanes = pair_lanes(*request)
        for each, closed in zip(lanes, self.closed, strict=True):
            each.source = self._walk(each.source, closed)
        return lanes

    def _walk(self, source: Iterator[StepEvent], closed: threading.Event) -> Iterator[StepEvent]:
        try:
            for event in source:
                time.sleep(self.seconds)
                self.steps += 1
                yield replace(event, seconds=self.seconds)
        finally:
            closed.set()

    def wait_closed(self) -> bool:
        return all(closed.wait(10) for closed in self.closed)
