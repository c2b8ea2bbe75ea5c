"""What a visitor does and sees, for all browser tests."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from playwright.sync_api import Locator, Page, expect

from app.lanes.lane import Lane, pair_lanes
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
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    page.keyboard.press("Enter")


def expect_ready(page: Page) -> None:
    """The composer can send, and there is nothing to stop."""
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()


def answer(page: Page, index: int) -> str:
    """The lane's whole answer, as it is copied."""
    return lane(page, index).evaluate("node => node.lane.text")


def now(page: Page, index: int) -> Locator:
    """The prompt of the turn on the board."""
    return lane(page, index).locator(".now .said.user")


def ask_twice(page: Page) -> None:
    """A question and a follow-up, both answered."""
    ask(page, "First question.")
    expect_state(page, "finished")
    ask(page, "Second question.")
    expect(now(page, 0)).to_have_text("Second question.")
    expect_state(page, "finished")


def turn(page: Page, index: int, number: int) -> Locator:
    """An earlier or later turn of a chat, which is folded at first."""
    return lane(page, index).locator(f"details[data-turn='{number}']")


def unfold(page: Page, index: int, number: int) -> Locator:
    found = turn(page, index, number)
    found.locator("summary").click()
    expect(found).to_have_attribute("open", "")
    return found


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


def known(page: Page, index: int) -> int:
    """How many tokens the lane's grid shows as decided."""
    return lane(page, index).evaluate("node => node.lane.known")


def expect_known(page: Page, index: int, at_least: int = 1) -> None:
    page.wait_for_function(
        "([index, least]) => document.querySelector(`[data-lane='${index}']`).lane.known >= least",
        arg=[index, at_least],
    )


def cell_told(page: Page, index: int, position: int) -> str:
    """What the lane tells of a cell."""
    return lane(page, index).evaluate(
        "(node, at) => node.lane.describe(node.lane.cells[at])", position
    )


def cell_place(page: Page, index: int, position: int) -> dict[str, float]:
    """Where the middle of a cell is on its grid, in pixels."""
    return lane(page, index).evaluate(
        """(node, at) => {
          const { x, y, width, height } = node.lane.sheet.place(at);
          return { x: x + width / 2, y: y + height / 2 - node.lane.sheet.top };
        }""",
        position,
    )


def cell_colours(page: Page, index: int, position: int) -> dict[str, int]:
    """Counts of the colours at a cell's left edge on its canvas, where no text is."""
    return lane(page, index).evaluate(
        """(node, at) => {
          const { sheet } = node.lane, { x, y, height } = sheet.place(at);
          const [scale, wide, high] = [devicePixelRatio, 6, height - 10];
          const copy = new OffscreenCanvas(wide * scale, high * scale);
          const pen = copy.getContext('2d', { willReadFrequently: true });
          pen.drawImage(sheet.canvas, -(x + 2) * scale, -(y - sheet.top + 5) * scale);
          const { data } = pen.getImageData(0, 0, copy.width, copy.height), counts = {};
          for (let i = 0; i < data.length; i += 4) {
            const colour = data.slice(i, i + 4).join();
            counts[colour] = (counts[colour] ?? 0) + 1;
          }
          return counts;
        }""",
        position,
    )


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
