"""Errors on the board, in a real Chromium: they stay until they are read, and nothing is silent."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, Site
from playwright.sync_api import Browser, Page, expect
from races import recorded
from steps import Slow, ask, board, expect_known, expect_ready, expect_state, status
from test_replay import fast, upload

import app.page.handlers
from app.page.messages import pack_messages
from app.page.tell import Told
from app.prompts import UNCHECKED

REFUSED = "This file cannot be opened"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.json"
    path.write_text("{}")
    return path


def result(page: Page) -> Any:
    """What stands beside the status."""
    return board(page).locator(".status-note")


def expect_refused(page: Page) -> None:
    expect(board(page).locator(".status-text")).to_contain_text(REFUSED)
    expect(board(page).locator(".status")).to_have_attribute("data-kind", "error")


def test_an_error_during_a_replay_outlives_its_end(page: Page, site: Site, bad: Path) -> None:
    site.prepare = recorded
    ask(page, "Count to four.")
    expect_state(page, "finished")
    page.get_by_role("button", name="Play").click()
    expect_state(page, "replaying")
    upload(page, bad)
    expect_refused(page)
    expect(result(page)).to_contain_text("D2F was 2.00 times as fast")
    expect_state(page, "finished")
    expect_refused(page)
    expect(result(page)).to_contain_text("D2F was 2.00 times as fast")
    fast(page)
    page.get_by_role("button", name="Play").click()
    expect_state(page, "finished")
    expect(board(page).locator(".status-text")).to_contain_text("D2F was 2.00 times as fast")


def test_an_error_during_a_race_outlives_its_end_and_not_the_next_race(
    page: Page, site: Site, bad: Path
) -> None:
    site.prepare = slow = Slow(0.1)
    ask(page, "Take your time.")
    expect_known(page, 0)
    upload(page, bad)
    expect_refused(page)
    expect_state(page, "racing")
    slow.seconds = 0
    expect_state(page, "finished")
    expect_refused(page)
    expect(result(page)).to_contain_text(UNCHECKED)
    ask(page, "Once more.")
    expect(board(page).locator(".status-text")).to_contain_text(UNCHECKED)
    expect(status(page)).not_to_contain_text(REFUSED)


def test_an_error_outlives_stop(page: Page, site: Site, bad: Path) -> None:
    site.prepare = slow = Slow(0.1)
    ask(page, "Take your time.")
    expect_known(page, 0)
    upload(page, bad)
    expect_refused(page)
    page.get_by_role("button", name="Stop").click()
    expect_state(page, "stopped")
    expect_refused(page)
    expect(result(page)).to_contain_text("Stopped.")
    slow.seconds = 0


def says(monkeypatch: pytest.MonkeyPatch, *packed: str) -> None:
    """Runs say this, and then fail outside of what tells their failures."""

    def tell(*_: Any) -> Iterator[Told]:
        yield from [Told([]) for _ in packed]
        raise RuntimeError("secret path")

    send(monkeypatch, tell, *packed)


def send(
    monkeypatch: pytest.MonkeyPatch, tell: Callable[..., Iterator[Told]], *packed: str
) -> None:
    """Runs are told so, and each batch of messages is sent as these texts in turn."""
    texts = iter(packed)
    monkeypatch.setattr(app.page.handlers, "tell", tell)
    monkeypatch.setattr(app.page.handlers, "pack_messages", lambda *_: next(texts))


WAITS = pack_messages("r", 0, [{"kind": "status", "text": "Loading the models."}])


def test_a_run_that_fails_outside_of_its_own_words_ends_on_the_board(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, WAITS)
    ask(page, "Please fail.")
    expect(status(page)).to_contain_text("Something went wrong on the server.")
    expect_ready(page)


@pytest.mark.parametrize(
    "broken",
    [
        '{"run": "r", "seq": 1, "messages": [NaN], "opening": false}',
        '{"run": "r", "seq": 1',
        '{"run": "r", "seq": 1, "messages": [{"kind": "dance"}], "opening": false}',
    ],
)
def test_a_message_that_cannot_be_read_ends_the_run_in_words(
    browser: Browser, site: Site, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = browser.new_context()  # one that may complain on its console
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(site.url)
    page.locator(".board .grid canvas").first.wait_for()

    def tell(*_: Any) -> Iterator[Told]:
        yield Told([])
        yield Told([])

    send(monkeypatch, tell, WAITS, broken)
    ask(page, "Please say something.")
    expect(status(page)).to_contain_text("The page cannot read what the server sent.")
    expect_ready(page)
    monkeypatch.undo()
    fast(page)
    ask(page, "And now do.")
    expect_state(page, "finished")
    context.close()


def test_a_run_of_which_nothing_is_heard_is_given_up(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(*_: Any) -> Iterator[Told]:
        yield Told([])

    send(monkeypatch, tell, WAITS)
    page.clock.install()
    ask(page, "Anyone there?")
    expect(status(page)).to_contain_text("Loading the models.")
    page.clock.run_for(29_000)
    expect(status(page)).to_contain_text("Loading the models.")
    page.clock.run_for(3_000)
    expect(status(page)).to_contain_text("The server has not been heard for half a minute.")
    expect_ready(page)
