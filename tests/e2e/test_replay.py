"""Recorded races in a real Chromium: replay, links, files, and conversations that last."""

import json
from pathlib import Path

import pytest
from conftest import Site
from playwright.sync_api import BrowserContext, Page, expect
from races import WORDS, ar_trace, d2f_trace
from steps import Slow, ask, board, expect_figures, expect_state, figures, lane, status

from app import export
from app.lanes import Lane, recorded_lane
from app.recording import record
from d2f import Trace


def fast(page: Page) -> None:
    page.locator("[name=speed][value='4']").check()


def recorded(*_: object) -> list[Lane]:
    return [
        recorded_lane("D2F", d2f_trace(), WORDS.__getitem__),
        recorded_lane("AR", ar_trace(), WORDS.__getitem__),
    ]


@pytest.fixture
def raced(page: Page, site: Site) -> Page:
    """A page on which a small race has finished."""
    site.prepare = recorded
    fast(page)
    ask(page, "Count to four.")
    expect_state(page, "finished")
    return page


def part(trace: Trace, steps: int) -> Trace:
    return Trace(trace.header, trace.events[:steps])


def test_a_finished_race_can_be_stepped_through_both_ways(raced: Page):
    back, forth = (
        raced.get_by_role("button", name=f"One step {way}") for way in ("back", "forward")
    )
    back.click()
    expect_state(raced, "paused")
    expect_figures(raced, 0, d2f_trace())
    expect_figures(raced, 1, part(ar_trace(), 5))
    for _ in range(3):
        back.click()
    expect_figures(raced, 0, part(d2f_trace(), 2))
    expect(lane(raced, 0).locator(".answer")).to_have_text("one two three")
    assert lane(raced, 0).locator(".cell.known").count() == 4
    forth.click()
    expect_figures(raced, 0, d2f_trace())
    expect_figures(raced, 1, part(ar_trace(), 3))


def test_the_scrubber_answers_to_the_keyboard_and_the_race_plays_again(raced: Page):
    scrub = raced.get_by_role("slider", name="Time")
    scrub.focus()
    raced.keyboard.press("Home")
    expect(scrub).to_have_attribute("aria-valuetext", "0.000 of 1.500 s")
    assert board(raced).locator(".grid .cell.known").count() == 0
    raced.keyboard.press("ArrowRight")
    expect_figures(raced, 0, part(d2f_trace(), 1))
    raced.locator("[name=speed][value='1']").check()
    scrub.focus()
    raced.keyboard.press("Space")
    expect_state(raced, "replaying")
    expect_state(raced, "finished")
    expect_figures(raced, 0, d2f_trace())
    expect_figures(raced, 1, ar_trace())
    expect(status(raced)).to_contain_text("2.00 times as fast")
    raced.locator("[name=speed][value='0.1']").check()
    raced.get_by_role("button", name="Play").click()
    expect_state(raced, "replaying")
    raced.get_by_role("button", name="Pause").click()
    expect_state(raced, "paused")
    expect(raced.get_by_role("button", name="Run the race")).to_be_enabled()


def test_a_cell_tells_what_it_holds_to_pointer_and_keyboard(raced: Page):
    told = lane(raced, 0).locator(".inspect")
    lane(raced, 0).locator(".cell").nth(3).hover()
    expect(told).to_have_text(
        "“ four” · position 4, block 1 · step 3 · confidence 40.0 % · forced, the best of its block"
    )
    lane(raced, 0).locator(".grid").focus()
    raced.keyboard.press("ArrowDown")
    raced.keyboard.press("ArrowRight")
    expect(told).to_have_text("End of answer · position 6, block 2 · step 2 · confidence 95.0 %")
    raced.keyboard.press("ArrowRight")
    expect(told).to_have_text("Mask · position 7, block 2")


def test_a_link_replays_the_race_without_running_anything(
    page: Page, context: BrowserContext, site: Site
):
    ask(page, "Count to four.")
    expect_state(page, "finished")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    expect(status(page)).to_contain_text("on the clipboard")
    link = page.evaluate("navigator.clipboard.readText()")
    assert "#race=" in link
    other = context.new_page()
    other.goto(link)
    fast(other)
    expect_state(other, "finished")
    assert len(site.ran) == 1
    for index, kept in enumerate(record("", site.ran[0]).lanes):
        assert figures(other, index) == pytest.approx(figures(page, index), rel=0.02)
        assert lane(other, index).locator(".answer").text_content() == kept.trace.text
        expect(lane(other, index).locator(".said.user")).to_have_text("Count to four.")


def test_a_damaged_link_is_refused_and_changes_nothing(page: Page, context: BrowserContext):
    other = context.new_page()
    other.goto(page.url.split("#")[0] + "#race=AAAA")
    expect(status(other)).to_contain_text("This link cannot be opened")
    assert board(other).locator(".grid .cell.known").count() == 0
    other.evaluate("location.hash = '#race=BBBB'")
    expect(status(other)).to_contain_text("This link cannot be opened")


def upload(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open trace").click()
    chooser.value.set_files(path)


def test_a_trace_goes_to_a_file_and_comes_back_the_same(raced: Page, tmp_path: Path, site: Site):
    with raced.expect_download() as download:
        raced.get_by_role("button", name="Download trace").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    raced.reload()
    expect(status(raced)).to_contain_text("still here")
    fast(raced)
    upload(raced, path)
    expect_state(raced, "finished")
    expect_figures(raced, 0, d2f_trace())
    expect_figures(raced, 1, ar_trace())
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"lanes": [17]}))
    upload(raced, path)
    expect(status(raced)).to_contain_text("This file cannot be opened")
    expect_figures(raced, 0, d2f_trace())


def test_an_exported_race_replays_offline(context: BrowserContext):
    lanes = recorded()
    for each in lanes:
        while each.advance():
            pass
    alone = context.new_page()
    alone.set_content(export.page(record("Count to four.", lanes, "Both answers are correct.")))
    fast(alone)
    expect_state(alone, "finished")
    expect_figures(alone, 0, d2f_trace())
    expect_figures(alone, 1, ar_trace())
    expect(status(alone)).to_contain_text("Both answers are correct.")
    alone.get_by_role("button", name="One step back").click()
    expect_figures(alone, 1, part(ar_trace(), 5))


def test_an_address_fills_the_form_without_running(page: Page, context: BrowserContext, site: Site):
    other = context.new_page()
    other.goto(page.url + "?prompt=What is 2 %2B 2?&tau_conf=0.5&pair=tiny")
    expect(other.get_by_label("Prompt")).to_have_value("What is 2 + 2?")
    other.get_by_role("button", name="Settings").click()
    expect(other.get_by_label("tau_conf")).to_have_value("0.5")
    assert site.ran == []
    other.goto(page.url + "?tau_conf=7")
    expect(status(other)).to_contain_text("tau_conf must be in [0, 1], got 7")


def test_a_conversation_goes_on_survives_a_reload_and_can_be_taken_back(page: Page, site: Site):
    ask(page, "First question.")
    expect_state(page, "finished")
    page.get_by_label("Follow up").check()
    ask(page, "Second question.")
    expect(lane(page, 0).locator(".said")).to_have_count(3)
    expect_state(page, "finished")
    first, second = site.ran
    for index in (0, 1):
        answers = [run[index].trace.text for run in site.ran]
        assert [m["content"] for m in second[index].chat] == [
            "First question.",
            answers[0],
            "Second question.",
        ]
        said = lane(page, index).locator(".said")
        assert said.all_text_contents() == ["First question.", answers[0], "Second question."]
    page.reload()
    expect(status(page)).to_contain_text("Your conversation is still here")
    assert lane(page, 0).locator(".said").count() == 4
    expect(page.get_by_label("Follow up")).to_be_checked()
    page.get_by_role("button", name="Edit last prompt").click()
    expect(page.get_by_label("Prompt")).to_have_value("Second question.")
    expect(lane(page, 0).locator(".said")).to_have_count(2)
    page.get_by_role("button", name="Regenerate").click()
    expect(lane(page, 0).locator(".said")).to_have_count(1)
    expect_state(page, "finished")
    assert [m["content"] for m in site.ran[2][0].chat] == ["First question."]
    page.get_by_role("button", name="Clear conversation").click()
    expect(lane(page, 0).locator(".said")).to_have_count(0)
    page.goto(site.url + "?prompt=loaded")
    expect(page.get_by_label("Prompt")).to_have_value("loaded")  # the page's first answer is there
    expect(status(page)).not_to_contain_text("still here")


def test_a_conversation_too_long_is_refused_until_old_turns_may_go(page: Page, site: Site):
    page.get_by_label("Follow up").check()
    question = "what is 5 + 5? " * 50
    ask(page, question)
    expect_state(page, "finished")
    ask(page, question)
    expect(status(page)).to_contain_text("exceed the model's context of 512 tokens")
    page.get_by_label("Drop oldest turns").check()
    ask(page, question)
    expect(status(page)).to_contain_text("times as fast")
    assert len(site.ran[-1][0].chat) == 1


@pytest.mark.parametrize("button", ["Download trace", "Suggest a follow-up", "Copy link"])
def test_buttons_in_mid_run_leave_the_run_alone(page: Page, site: Site, button: str):
    fast(page)
    ask(page, "First question.")
    expect_state(page, "finished")
    site.prepare = Slow()
    ask(page, "Second question.")
    expect(lane(page, 0).locator(".grid .cell.known").nth(3)).to_be_visible()
    context = page.context
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name=button).click()
    before = lane(page, 1).locator(".grid .cell.known").count()
    expect(lane(page, 1).locator(".grid .cell.known")).not_to_have_count(before)
    expect_state(page, "finished")
    for index, kept in enumerate(record("", site.ran[1]).lanes):
        assert lane(page, index).locator(".answer").text_content() == kept.trace.text


@pytest.mark.parametrize("button", ["Clear conversation", "Edit last prompt"])
def test_taking_the_board_in_mid_run_ends_the_run(page: Page, site: Site, button: str):
    fast(page)
    ask(page, "First question.")
    expect_state(page, "finished")
    site.prepare = slow = Slow()
    ask(page, "Second question.")
    expect(lane(page, 0).locator(".grid .cell.known").nth(3)).to_be_visible()
    page.get_by_role("button", name=button).click()
    expect_state(page, "idle")
    assert slow.wait_closed()
    assert board(page).locator(".grid .cell.known").count() == 0
    expect(page.get_by_role("button", name="Run the race")).to_be_enabled()
