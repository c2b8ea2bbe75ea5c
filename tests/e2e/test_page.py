"""The page in a real Chromium, from prompt to finish, and everything that can go wrong."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from asking import CONFIG
from conftest import Site
from playwright.sync_api import BrowserContext, Page, expect
from races import STOP, ar_trace, d2f_trace, recorded
from servers import DONE, Scripted, chunk, counts
from steps import (
    Slow,
    answer,
    ask,
    cell_colours,
    cell_told,
    expect_figures,
    expect_known,
    expect_ready,
    expect_state,
    figures,
    known,
    lane,
    status,
    unfold,
)

from app.lanes.lane import Host, Lane, Question, pair_lanes, recorded_lane, remote_lane
from app.lanes.server import Server
from app.prompts import UNCHECKED, UNSURE, examples
from app.race import DEVICE
from app.recordings.recording import record
from d2f import Trace
from d2f.catalogue.pairs import PAIRS
from d2f.detokenizer import TokenTexts

HOSTILE = (
    "<img src=x onerror=\"alert('img')\">",
    "${alert('dollar')}",
    "{{x}}{{#each value}}",
    "<script>alert('script')</script>",
    "`${'tick'}` </div></template>",
)


def test_a_race_from_prompt_to_finish(page: Page, site: Site):
    ask(page, "Solve for x: x / 3 + 15 = 33 please")
    expect_state(page, "finished")
    traces = [each.trace for each in site.ran[0]]
    # Random weights write control characters, which a record replaces.
    answers = [kept.trace.text for kept in record("", site.ran[0]).lanes]
    for index, trace in enumerate(traces):
        expect_figures(page, index, trace)
        assert answer(page, index) == answers[index]
        assert known(page, index) == len(trace.canvas)
    first, second = (trace.tokens_per_second for trace in traces)
    assert float(page.locator(".ratio").get_attribute("data-value")) == first / second
    expect(page.locator(".ratio")).to_have_text(f"{first / second:.2f}×")
    expect(status(page)).to_contain_text(f"{first:.0f}")
    expect(status(page)).to_contain_text(f"{second:.0f}")
    expect(status(page)).to_contain_text(UNCHECKED)
    expect(status(page)).to_contain_text("float32")
    expect_ready(page)


def test_a_recorded_race_shows_states_forced_tokens_and_the_stop(page: Page, site: Site):
    site.prepare = recorded
    ask(page, "Count to four.")
    expect_state(page, "finished")
    expect(page.locator(".ratio")).to_have_text("2.00×")
    states = lane(page, 0).evaluate("node => node.lane.rows")
    assert states == ["completed", "semi_activated"]
    told = [cell_told(page, 0, position) for position in range(8)]
    assert [position for position in range(8) if "forced" in told[position]] == [3]
    assert [position for position in range(8) if told[position].startswith("End of")] == [5]
    for index in (0, 1):
        expect(lane(page, index).locator(".answer")).to_have_text("one two three four!")


def test_a_rival_that_cuts_its_stream_otherwise_is_shown_as_its_server_counts(
    page: Page, site: Site
):
    def piece(**delta: str) -> bytes:
        return f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode()

    def prepare(question: Question, host: Host) -> list[Lane]:
        chats = [question.conversation.messages(index, question.prompt) for index in range(2)]
        local = recorded_lane("D2F", d2f_trace(), lambda token: f"t{token}")
        remote = remote_lane("AR", Server(server.url, "llama"), chats[1], CONFIG)
        return [replace(local, chat=chats[0]), remote]

    letters = "abcdefghijklmnopqrstuvwxyz" * 2
    pieces = [piece(reasoning="hm"), *map(chunk, letters), piece(content="\ud83d")]
    end = [piece(content="\ude00"), 0.5, chunk(reason="stop"), counts(11), DONE]
    with Scripted([0.05, *pieces, *end]) as server:
        site.prepare = prepare
        ask(page, "Count to four.")
        # While it comes: a cell a piece, though only eight tokens were asked for.
        page.wait_for_function("document.querySelectorAll('.lane')[1].lane.known >= 55")
        expect_state(page, "finished")
        text = f"<think>\nhm\n</think>\n\n{letters}😀"
        trace = site.ran[0][1].trace
        assert (trace.tokens, trace.text) == (11, text)
        expect_figures(page, 1, trace)
        assert known(page, 1) == 11
        assert answer(page, 1) == text
        ask(page, "And five?")
        expect(unfold(page, 1, 0).locator(".said.model")).to_have_text(f"{letters}😀")
        expect_state(page, "finished")
    assert server.asked[1][2]["messages"][1]["content"] == f"{letters}😀"


def test_the_grid_draws_masks_tokens_and_forced_tokens_apart(page: Page, site: Site):
    page.locator("[name=speed][value='0.1']").check()
    site.prepare = recorded
    ask(page, "Count to four.")
    expect_known(page, 0, 2)
    page.get_by_role("button", name="Stop").click()
    expect_state(page, "stopped")
    now, mask = cell_colours(page, 0, 0), cell_colours(page, 0, 1)
    assert len(now) == 1, "an accent all over"
    assert len(mask) > 1 and now.keys().isdisjoint(mask), "dots on a ground"
    site.prepare = recorded
    page.locator("[name=speed][value='4']").check()
    ask(page, "Count to four.")
    expect_state(page, "finished")
    kept, forced = cell_colours(page, 0, 0), cell_colours(page, 0, 3)
    assert len(kept) == 1 and now.keys().isdisjoint(kept), "a tint all over"
    assert len(forced) > 1 and kept.keys() < forced.keys(), "stripes of it"
    assert cell_colours(page, 0, 7).keys() == {"0,0,0,0"}, "nothing behind the end"


def test_out_of_order_tokens_stand_in_their_places(page: Page, site: Site):
    page.locator("[name=speed][value='0.1']").check()
    site.prepare = recorded
    ask(page, "Count to four.")
    answer = lane(page, 0).locator(".answer")
    expect(answer).to_have_text("one three")
    classes = [span.get_attribute("class") for span in answer.locator("span").all()]
    assert classes == ["word", "hole", "word", "hole"]
    page.get_by_role("button", name="Stop").click()
    expect_state(page, "stopped")
    expect_figures(page, 0, Trace(d2f_trace().header, d2f_trace().events[:1]))


def test_stop_in_mid_run_keeps_the_partial_answer_and_frees_the_device(page: Page, site: Site):
    site.prepare = slow = Slow()
    ask(page, "Tell me more.")
    expect_known(page, 0, 4)
    page.get_by_role("button", name="Stop").click()
    expect(status(page)).to_contain_text("Stopped")
    assert slow.wait_closed()
    before = slow.steps, known(page, 0), known(page, 1)
    assert min(before) >= 2
    time.sleep(0.3)
    assert (slow.steps, known(page, 0), known(page, 1)) == before
    for index, each in enumerate(site.ran[0]):
        shown = figures(page, index)
        forwards = int(shown["forwards"])
        expect_figures(page, index, Trace(each.header, tuple(each.events[:forwards])))
    site.prepare = pair_lanes
    ask(page, "Again, please.")
    expect_state(page, "finished")


def test_a_closed_tab_ends_the_work(context: BrowserContext, visit: Callable, site: Site):
    site.prepare = slow = Slow()
    page = visit()
    ask(page, "I will leave soon.")
    expect_known(page, 0)
    page.close()
    assert slow.wait_closed()
    site.prepare = pair_lanes
    other = visit()
    ask(other, "Is it free again?")
    expect_state(other, "finished")


def test_a_second_visitor_waits_may_leave_and_gets_a_turn(visit: Callable, site: Site):
    site.prepare = Slow()
    first, second = visit(), visit()
    ask(first, "I was here first.")
    expect_known(first, 0)
    ask(second, "And I come second.")
    expect(status(second)).to_contain_text("1 run of other visitors before yours")
    second.get_by_role("button", name="Stop").click()
    expect(status(second)).to_contain_text("Stopped")
    ask(second, "I have thought it over.")
    expect(status(second)).to_contain_text("1 run of other visitors before yours")
    assert len(site.ran) == 1
    site.prepare = pair_lanes
    first.get_by_role("button", name="Stop").click()
    expect_state(second, "finished")


def test_hostile_text_is_shown_as_text(page: Page, site: Site):
    words = dict(enumerate(HOSTILE, start=1)) | {STOP: "<end>"}

    def hostile(name: str, trace: Trace) -> Lane:
        return recorded_lane(name, trace.with_text("".join(HOSTILE)), words.__getitem__)

    site.prepare = lambda *_: [hostile("D2F", d2f_trace()), hostile("AR", ar_trace())]
    ask(page, " ".join(HOSTILE))
    expect_state(page, "finished")
    for index in (0, 1):
        assert answer(page, index) == "".join(HOSTILE)
        assert cell_told(page, index, 0).startswith(f"“{HOSTILE[0]}”")
    assert page.locator(".arena img, .arena script").count() == 0


class Bytes:
    """A tokenizer whose tokens 1 to 5 are the bytes of its text."""

    text = "🙂!"

    def token_text(self, token: int, *, first: bool = False) -> str:
        return "<end>" if token == STOP else "\ufffd"

    def token_bytes(self, token: int) -> bytes | None:
        return None if token == STOP else self.text.encode()[token - 1 : token]


def test_a_character_of_several_tokens_is_shown_when_it_is_whole(page: Page, site: Site):
    """Each part has its cell, and the last of them holds the character."""

    def in_bytes(name: str, trace: Trace) -> Lane:
        start = len(trace.header.prompt_ids)
        lane = recorded_lane(name, trace.with_text(Bytes.text), Bytes().token_text)
        return replace(lane, placed=lambda: TokenTexts(Bytes(), start).add)

    site.prepare = lambda *_: [in_bytes("D2F", d2f_trace()), in_bytes("AR", ar_trace())]
    ask(page, "Smile.")
    expect_state(page, "finished")
    for index in (0, 1):
        told = [cell_told(page, index, cell).partition(" · ")[0] for cell in range(5)]
        assert told == ["“”", "“”", "“”", "“🙂”", "“!”"]
        assert answer(page, index) == Bytes.text


def set_setting(page: Page, label: str, value: str) -> None:
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_label(label).fill(value)
    page.keyboard.press("Escape")


BAD_PROMPTS = {
    "a" * 4001: "4,001 characters; at most 4,000",
    "bell \x07": "control character U+0007",
    "what is <|mask|>?": "must not contain the special token '<|mask|>'",
    "what is 5 + 5? " * 260: "exceed the model's context of 512 tokens",
}


def test_a_bad_prompt_gets_a_message_and_changes_nothing_else(page: Page):
    before = page.locator(".arena").inner_text()
    for prompt, message in BAD_PROMPTS.items():
        ask(page, prompt)
        expect(status(page)).to_contain_text(message)
        assert page.locator(".arena").inner_text() == before
        expect_ready(page)
        expect(page.get_by_role("textbox", name="Prompt")).to_have_value(prompt)
    page.get_by_role("textbox", name="Prompt").fill("  \n ")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.keyboard.press("Enter")
    expect_ready(page)


def test_a_bad_setting_gets_a_message_in_the_one_place(page: Page, site: Site):
    ask(page, "First a good run.")
    expect_state(page, "finished")
    before = page.locator(".arena").inner_text()
    set_setting(page, "tau_conf", "2")
    ask(page, "Then a bad setting.")
    expect(status(page)).to_have_text(re.compile(r"tau_conf must be in \[0, 1\], got 2"))
    assert page.locator(".arena").inner_text() == before
    assert len(site.ran) == 1
    set_setting(page, "tau_conf", "0.5")
    ask(page, "And a good one again.")
    expect(page.locator(".board .status-text")).to_contain_text("times as fast")
    assert site.ran[1][0].header.config.tau_conf == 0.5


def test_a_checkpoint_that_does_not_load_gets_a_message(
    page: Page, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(PAIRS, "tiny", replace(PAIRS["tiny"], d2f="nowhere"))
    ask(page, "Anyone there?")
    expect(status(page)).to_contain_text("The model 'nowhere' does not load")


def test_a_failure_in_a_decoder_is_told_without_a_trace(page: Page, site: Site):
    def failing(*request: object) -> list[Lane]:
        lanes = pair_lanes(*request)
        lanes[0].source = (1 / 0 for _ in "x")
        return lanes

    site.prepare = failing
    ask(page, "Please fail.")
    expect(status(page)).to_contain_text(
        "Something went wrong on the server. Its log has details under"
    )
    site.prepare = pair_lanes
    ask(page, "And now do not.")
    expect_state(page, "finished")


def test_suggestions_are_asked_and_answers_are_judged(page: Page, site: Site):
    chips = page.get_by_role("group", name="Suggestions").get_by_role("button")
    problem = [each for row in zip(*examples().values(), strict=True) for each in row][4]
    chips.filter(has_text=problem.prompt).click()
    expect_state(page, "finished")
    expect(status(page)).to_contain_text(UNSURE)  # untrained models write none
    expect(chips).to_have_text([turn.prompt for turn in problem.turns[1:]])
    page.get_by_role("button", name="New chat").click()
    expect(status(page)).not_to_contain_text(UNSURE)
    chips.filter(has_text="A random problem").click()
    expect_state(page, "finished")
    expect(status(page)).to_contain_text(UNSURE)
    assert len(site.ran) == 2
    assert len({run[0].chat[-1]["content"] for run in site.ran}) == 2


def test_open_charts_follow_the_races_and_closed_ones_ask_for_nothing(page: Page, site: Site):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    def race(prompt: str) -> list[int]:
        before = len(site.ran)
        ask(page, prompt)
        while len(site.ran) == before:
            page.wait_for_timeout(20)
        DEVICE.line_up(lambda: None).result(30)
        forwards = [each.trace.forwards for each in site.ran[-1]]
        for index, each in enumerate(forwards):
            shown = lane(page, index).locator("[data-figure=forwards]")
            expect(shown).to_have_attribute("data-value", str(each))
        expect_state(page, "finished")
        return forwards

    def expect_drawn(forwards: list[int]) -> None:
        page.wait_for_function(
            """(forwards) => {
              const figure = document.querySelectorAll('#charts .js-plotly-plot')[2];
              return figure && String(figure.data.map((bars) => bars.x.length)) === forwards;
            }""",
            arg=",".join(map(str, forwards)),
        )

    site.prepare = recorded
    page.locator("[name=speed][value='4']").check()
    first = race("Count to four.")
    panel = page.get_by_role("button", name="Charts of this race")
    panel.click()
    expect_drawn(first)
    site.prepare = pair_lanes
    second = race("Count to three.")
    assert second != first
    expect_drawn(second)
    panel.click()
    asked.clear()
    site.prepare = recorded
    assert race("Count again.") == first
    joined = [url for url in asked if "/queue/join" in url]
    assert len(joined) == 1, "the race itself, and nothing after it"


def test_the_keyboard_runs_and_stops(page: Page, site: Site):
    site.prepare = Slow()
    prompt = page.get_by_role("textbox", name="Prompt")
    prompt.fill("By keyboard,")
    low = prompt.bounding_box()["height"]
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("on two lines.")
    assert prompt.bounding_box()["height"] > low
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect_known(page, 0)
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    expect(prompt).to_have_value("")
    assert prompt.bounding_box()["height"] == low
    expect(lane(page, 0).locator(".said.user")).to_have_text("By keyboard,\non two lines.")
    page.keyboard.press("Enter")
    expect_state(page, "stopped")
    expect(prompt).to_be_focused()


def test_nothing_is_wider_than_the_page_and_nothing_jumps(page: Page):
    for width in (320, 390, 768, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        before = page.locator(".legend").bounding_box()
        ask(page, f"Mind a width of {width} pixels.")
        # On a busy machine the race may be over before anyone looks whether it is on.
        said = lane(page, 0).locator(".said.user")
        expect(said).to_have_text(f"Mind a width of {width} pixels.")
        expect_state(page, "finished")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width >= 390:
            assert page.locator(".legend").bounding_box() == before


def test_reduced_motion_shows_the_result_without_playing(page: Page):
    page.emulate_media(reduced_motion="reduce")
    page.locator("[name=speed][value='0.1']").check()
    began = time.monotonic()
    ask(page, "No motion, please.")
    expect_state(page, "finished")
    assert time.monotonic() - began < 5
