"""The chat in a real Chromium: turns, what can be done with them, and where they are kept."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from conftest import Site
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from races import d2f_trace, recorded
from steps import (
    Slow,
    answer,
    ask,
    ask_twice,
    board,
    expect_figures,
    expect_known,
    expect_ready,
    expect_state,
    known,
    lane,
    now,
    status,
    turn,
    unfold,
)

from app.lanes.lane import Lane
from app.race import DEVICE


def fast(page: Page) -> None:
    page.locator("[name=speed][value='4']").check()


def act(place: Locator, name: str) -> None:
    place.get_by_role("button", name=name).click()


def chats(page: Page) -> Locator:
    """The list of chats, which is opened."""
    page.get_by_role("button", name="Chats", exact=True).click()
    return page.get_by_role("dialog", name="Chats")


def told(site: Site, race: int) -> list[list[str]]:
    """What each lane of a race was told."""
    return [[message["content"] for message in each.chat] for each in site.ran[race]]


def expect_ran(page: Page, site: Site, races: int) -> None:
    """So many races have begun, the last of them on the board."""
    while len(site.ran) < races:
        page.wait_for_timeout(20)
    forwards = lane(page, 0).locator("[data-figure=forwards]")
    DEVICE.line_up(lambda: None).result(30)
    expect(forwards).to_have_attribute("data-value", str(site.ran[-1][0].trace.forwards))


@pytest.fixture
def talked(page: Page, site: Site) -> Page:
    """A page with a chat of two turns, the second one on the board."""
    fast(page)
    ask_twice(page)
    return page


def test_a_chat_goes_on_and_each_lane_remembers_its_own_answers(talked: Page, site: Site):
    for index, asked in enumerate(told(site, 1)):
        first = site.ran[0][index].trace
        assert asked == ["First question.", first.text, "Second question."]
        expect(turn(talked, index, 0)).not_to_have_attribute("open", "")
        expect(turn(talked, index, 0)).to_contain_text("First question.")
    first = site.ran[0][0].trace
    figures = unfold(talked, 0, 0).locator(".turn-figures")
    expect(figures).to_contain_text(f"{first.tokens_per_forward:.2f} tokens/forward")
    expect(turn(talked, 1, 0)).to_have_attribute("open", "")  # the same in both lanes


def test_a_chat_survives_a_reload_and_goes_on(talked: Page, site: Site):
    traces = [each.trace for each in site.ran[1]]
    talked.reload()
    expect(now(talked, 0)).to_have_text("Second question.")
    expect_state(talked, "finished")
    for index, trace in enumerate(traces):
        assert known(talked, index) == len(trace.canvas)
    assert len(site.ran) == 2, "nothing ran"
    fast(talked)
    ask(talked, "Third question.")
    expect(now(talked, 0)).to_have_text("Third question.")
    expect_state(talked, "finished")
    assert [asked[0::2] for asked in told(site, 2)] == [
        ["First question.", "Second question.", "Third question."]
    ] * 2


def test_an_earlier_turn_comes_back_to_the_board_and_is_replayed(talked: Page, site: Site):
    first = [each.trace for each in site.ran[0]]
    act(unfold(talked, 0, 0), "Show on the board")
    expect(now(talked, 0)).to_have_text("First question.")
    expect_state(talked, "finished")
    for index, trace in enumerate(first):
        assert known(talked, index) == len(trace.canvas)
    expect(lane(talked, 0).locator(".later details")).to_have_count(1)
    act(unfold(talked, 0, 1), "Replay")
    expect(now(talked, 0)).to_have_text("Second question.")
    expect_state(talked, "finished")
    expect(status(talked)).to_contain_text("not measured here")
    assert len(site.ran) == 2


def test_the_last_turn_is_asked_again_in_its_place(talked: Page, site: Site):
    act(lane(talked, 0).locator(".told"), "Ask again")
    expect_ran(talked, site, 3)
    expect_state(talked, "finished")
    assert told(site, 2)[0][0::2] == ["First question.", "Second question."]
    expect(lane(talked, 0).locator("details")).to_have_count(1)
    expect(chats(talked).get_by_role("listitem")).to_have_count(1)


def test_an_earlier_prompt_is_edited_into_a_chat_of_its_own(talked: Page, site: Site):
    act(unfold(talked, 0, 0), "Edit")
    prompt = talked.get_by_role("textbox", name="Prompt")
    expect(prompt).to_have_value("First question.")
    expect(prompt).to_be_focused()
    expect(talked.locator(".editing")).to_contain_text("Editing “First question.”")
    ask(talked, "Another first question.")
    expect(now(talked, 0)).to_have_text("Another first question.")
    expect_state(talked, "finished")
    assert told(site, 2) == [["Another first question."]] * 2
    rows = chats(talked).get_by_role("listitem")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("Another first question.")
    expect(rows.nth(1)).to_contain_text("2 turns")


def test_an_edit_can_be_given_up(talked: Page, site: Site):
    act(lane(talked, 0).locator(".told"), "Edit")
    expect(talked.get_by_role("textbox", name="Prompt")).to_have_value("Second question.")
    act(talked.locator(".editing"), "Cancel")
    expect(talked.get_by_role("textbox", name="Prompt")).to_have_value("")
    ask(talked, "Third question.")
    expect(now(talked, 0)).to_have_text("Third question.")
    expect_state(talked, "finished")
    assert told(site, 2)[0][0::2] == ["First question.", "Second question.", "Third question."]


def test_a_new_chat_begins_afresh_and_the_old_one_is_in_the_list(talked: Page, site: Site):
    talked.get_by_role("button", name="New chat").click()
    expect_state(talked, "idle")
    expect(lane(talked, 0).locator("details")).to_have_count(0)
    ask(talked, "Something else.")
    expect(now(talked, 0)).to_have_text("Something else.")
    expect_state(talked, "finished")
    assert told(site, 2) == [["Something else."]] * 2
    drawer = chats(talked)
    drawer.get_by_label("Search chats").fill("second FIRST")
    rows = drawer.get_by_role("listitem")
    expect(rows).to_have_count(1)
    rows.get_by_role("button", name="First question.").first.click()
    expect(now(talked, 0)).to_have_text("Second question.")
    expect_state(talked, "finished")
    expect(lane(talked, 0).locator("details")).to_have_count(1)


def test_a_chat_is_deleted_and_can_be_had_back(talked: Page, site: Site):
    drawer = chats(talked)
    drawer.get_by_role("button", name="Delete chat First question.").click()
    expect_state(talked, "idle")
    drawer.get_by_role("button", name="Undo").click()
    expect(drawer.get_by_role("listitem")).to_have_count(1)
    drawer.get_by_role("button", name="Delete chat First question.").click()
    drawer.get_by_role("button", name="Close chats").click()
    talked.reload()
    expect(chats(talked)).to_contain_text("No chats yet.")


def test_two_peoples_chats_never_mix(talked: Page, site: Site, browser: Browser):
    other = browser.new_context()
    theirs = other.new_page()
    theirs.goto(site.url)
    board(theirs).locator(".grid canvas").first.wait_for()
    fast(theirs)
    expect(chats(theirs)).to_contain_text("No chats yet.")
    theirs.keyboard.press("Escape")
    ask(theirs, "I am somebody else.")
    expect_state(theirs, "finished")
    assert told(site, 2) == [["I am somebody else."]] * 2
    ask(talked, "And I am still here.")
    expect(now(talked, 0)).to_have_text("And I am still here.")
    expect_state(talked, "finished")
    ask(theirs, "So am I.")
    expect(now(theirs, 0)).to_have_text("So am I.")
    expect_state(theirs, "finished")
    assert [told(site, race)[0][0::2] for race in (3, 4)] == [
        ["First question.", "Second question.", "And I am still here."],
        ["I am somebody else.", "So am I."],
    ]
    other.close()


def test_two_windows_keep_a_chat_each(talked: Page, visit: Callable[[], Page]):
    other = visit()
    other.get_by_role("button", name="New chat").click()
    fast(other)
    ask(other, "In the other window.")
    expect_state(other, "finished")
    ask(talked, "In this one.")
    expect(now(talked, 0)).to_have_text("In this one.")
    expect_state(talked, "finished")
    rows = chats(talked).get_by_role("listitem")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("3 turns")


def test_a_stopped_answer_is_no_part_of_the_chat(page: Page, site: Site):
    site.prepare = Slow()
    ask(page, "Never mind.")
    expect_known(page, 0, 4)
    page.get_by_role("button", name="Stop").click()
    expect_state(page, "stopped")
    site.prepare = recorded
    fast(page)
    ask(page, "Count to four.")
    expect(now(page, 0)).to_have_text("Count to four.")
    expect_state(page, "finished")
    expect(lane(page, 0).locator("details")).to_have_count(0)


def test_the_oldest_turns_go_when_a_chat_no_longer_fits_and_the_thread_says_so(
    page: Page, site: Site
):
    fast(page)
    question = "what is 5 + 5? " * 50
    ask(page, question)
    expect_state(page, "finished")
    ask(page, question)
    gone = lane(page, 0).locator(".gap")
    expect(gone).to_have_text("The oldest turn is left out: it no longer fits the models’ context.")
    expect_state(page, "finished")
    assert len(site.ran[-1][0].chat) == 1
    expect(turn(page, 0, 0)).to_contain_text("what is 5 + 5?")


def test_another_pair_of_models_begins_a_new_chat(talked: Page, site: Site):
    models = talked.get_by_label("Models")
    models.select_option("mini")
    expect_state(talked, "idle")
    models.select_option("tiny")
    ask(talked, "Do you know me?")
    expect(now(talked, 0)).to_have_text("Do you know me?")
    expect_state(talked, "finished")
    assert told(site, 2) == [["Do you know me?"]] * 2


DAMAGED = [
    "{",
    "null",
    '{"id": "x"}',
    json.dumps({"id": "x", "pair": "tiny", "at": 1, "turns": [{"prompt": "p", "answers": ["a"]}]}),
]


@pytest.mark.parametrize("kept", DAMAGED)
def test_what_is_no_chat_is_not_opened(page: Page, kept: str):
    page.evaluate(
        "(kept) => { localStorage['d2f-chat-x'] = kept; localStorage['d2f-open'] = 'x'; }", kept
    )
    page.reload()
    board(page).locator(".grid canvas").first.wait_for()
    expect(chats(page)).to_contain_text("No chats yet.")


def test_a_browser_without_storage_chats_as_long_as_the_page_is_open(
    context: BrowserContext, site: Site
):
    context.add_init_script(
        "Storage.prototype.setItem = Storage.prototype.getItem ="
        " () => { throw new DOMException('no', 'SecurityError'); };"
    )
    page = context.new_page()
    page.goto(site.url)
    board(page).locator(".grid canvas").first.wait_for()
    fast(page)
    ask_twice(page)
    assert told(site, 1)[0][0::2] == ["First question.", "Second question."]
    drawer = chats(page)
    expect(drawer.get_by_role("listitem")).to_have_count(1)
    expect(drawer).to_contain_text("This browser keeps nothing")


MARKDOWN = """Use **two** loops:

- one over rows
- one over `columns`

```python
for row in rows:
    print("<b>not bold</b>")
```

| a | b |
| - | - |
| 1 | 2 |

<img src=x onerror="alert('html')"> <script>alert('script')</script>
[click](javascript:alert('link')) ![pixel](https://example.com/pixel.png)
<a href="https://example.com" onclick="alert('a')">a</a> [a site](https://example.com/page)
<style>.board { display: none }</style><iframe src="https://example.com"></iframe>
<svg onload="alert('svg')"><foreignObject></svg> ${alert('dollar')} {{x}} &lt;b&gt;
"""


def saying(text: str) -> Callable[..., list[Lane]]:
    """Lanes whose whole answers are this text."""
    return lambda *asked: [
        replace(each, decode=lambda ids: text, token_text=lambda token: "w ")
        for each in recorded(*asked)
    ]


def test_an_answer_is_read_as_markdown_and_hostile_text_stays_text(page: Page, site: Site):
    site.prepare = saying(MARKDOWN)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    fast(page)
    ask(page, "How do I print a table?")
    expect_state(page, "finished")
    shown = lane(page, 0).locator(".answer")
    expect(shown.locator("li")).to_have_text(["one over rows", "one over columns"])
    expect(shown.locator("strong")).to_have_text("two")
    expect(shown.locator("td")).to_have_text(["1", "2"])
    expect(shown.locator("pre")).to_have_text('for row in rows:\n    print("<b>not bold</b>")\n')
    tags = shown.evaluate(
        "node => [...new Set([...node.querySelectorAll('*')].map((each) => each.localName))].sort()"
    )
    assert tags == sorted(
        "a br button code div li p pre span strong table tbody td th thead tr ul".split()
    )
    for text in (
        "<img src=x",
        "<script>alert('script')",
        "<style>.board",
        "<iframe",
        "<svg onload",
    ):
        expect(shown).to_contain_text(text)
    links = shown.locator("a")
    expect(links).to_have_count(2)  # the picture's address is not loaded, only told
    for link in links.all():
        assert link.get_attribute("href").startswith("https://example.com/")
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    act(shown, "Copy code")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == 'for row in rows:\n    print("<b>not bold</b>")\n'
    assert answer(page, 0) == MARKDOWN
    ask(page, "Again.")
    expect(now(page, 0)).to_have_text("Again.")
    expect_state(page, "finished")
    expect(unfold(page, 1, 0).locator(".markdown li")).to_have_count(2)


def test_code_without_marks_is_shown_as_it_is(page: Page, site: Site):
    code = "def __init__(self):\n    return a * b * c_1_2"
    site.prepare = saying(code)
    fast(page)
    ask(page, "Write code.")
    expect_state(page, "finished")
    assert lane(page, 0).locator(".answer").text_content() == code


def test_a_prompt_from_right_to_left_is_shown_so(page: Page, site: Site):
    site.prepare = recorded
    fast(page)
    ask(page, "כמה זה שתיים ועוד שתיים?")
    expect_state(page, "finished")
    assert now(page, 0).evaluate("node => getComputedStyle(node).direction") == "rtl"


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["laptop", "phone"])
def test_the_race_and_the_composer_are_on_one_screen(page: Page, site: Site, size: tuple[int, int]):
    width, height = size
    page.set_viewport_size({"width": width, "height": height})
    site.prepare = recorded
    fast(page)
    ask(page, "Count to four.")
    expect_state(page, "finished")
    for seen in (".ratio", ".lane .grid", ".lane .answer", ".composer .send"):
        box = page.locator(seen).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= height, seen
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, seen
    assert page.evaluate("scrollY") == 0
    button = page.locator(".composer .send").bounding_box()
    assert min(button["width"], button["height"]) >= (44 if width < 500 else 40)


def test_on_a_phone_the_lanes_are_swiped_with_both_speeds_in_sight(page: Page, site: Site):
    page.set_viewport_size({"width": 390, "height": 844})
    site.prepare = recorded
    fast(page)
    ask(page, "Count to four.")
    expect_state(page, "finished")
    tabs = page.get_by_role("group", name="Lane in sight").get_by_role("button")
    expect(tabs).to_have_text(["D2F 8.0 tokens/s", "AR 4.0 tokens/s"])
    expect(lane(page, 0)).to_be_in_viewport(ratio=0.9)
    tabs.nth(1).click()
    expect(lane(page, 1)).to_be_in_viewport(ratio=0.9)
    expect(tabs.nth(1)).to_have_attribute("aria-pressed", "true")
    page.locator(".arena").evaluate("node => node.scrollTo(0, 0)")
    expect(tabs.nth(0)).to_have_attribute("aria-pressed", "true")
    columns = lane(page, 0).evaluate("node => node.lane.sheet.wide")
    assert columns >= 30, "a cell has room for a word"


def test_at_twice_the_size_nothing_is_lost(page: Page, site: Site):
    page.set_viewport_size({"width": 640, "height": 400})
    site.prepare = recorded
    fast(page)
    ask(page, "Count to four.")
    expect_state(page, "finished")
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    expect(page.get_by_role("textbox", name="Prompt")).to_be_in_viewport()
    for seen in (".lane .grid", ".lane .answer", ".transport .play"):
        place = page.locator(seen).first
        place.scroll_into_view_if_needed()
        expect(place).to_be_in_viewport()


def test_settings_say_what_they_did_in_this_race(page: Page, site: Site):
    site.prepare = recorded
    fast(page)
    ask(page, "Count to four.")
    expect_state(page, "finished")
    expect_figures(page, 0, d2f_trace())
    page.get_by_role("button", name="Settings", exact=True).click()
    effects = page.get_by_role("dialog", name="Settings").locator(".effect")
    texts = [text for text in effects.all_text_contents() if text]
    config = d2f_trace().header.config
    assert texts == [
        "In this race, at 8: the answer ended after 6 tokens.",
        "In this race, at 4: 2 blocks of 4 tokens, 3 forwards.",
        f"In this race, at {config.tau_add:g}: 1 of 2 blocks began before the one ahead was done.",
        f"In this race, at {config.tau_act:g}: 1 token had to be forced in blocks without a sure "
        "one.",
        f"In this race, at {config.tau_conf:g}: 5 of 6 tokens were kept because the model was sure "
        "of them.",
        f"In this race, at {config.max_active_blocks or 'none'}: at most 2 in flight, 1.3 on "
        "average.",
        "In this race, at 0: always the likeliest token.",
        "In this race, at 0: no chance, so no effect.",
    ]


def test_a_preset_sets_what_was_measured(page: Page, site: Site):
    page.get_by_label("Models").select_option("mini")
    page.get_by_role("button", name="Settings", exact=True).click()
    drawer = page.get_by_role("dialog", name="Settings")
    drawer.get_by_role("button", name="More careful").click()
    expect(drawer.get_by_label("tau_conf")).to_have_value("0.995")
    drawer.get_by_role("button", name="As shipped").click()
    expect(drawer.get_by_label("tau_conf")).to_have_value("0.98")


def test_a_word_that_is_being_composed_is_not_sent(page: Page, site: Site):
    prompt = page.get_by_role("textbox", name="Prompt")
    prompt.fill("にほん")
    prompt.dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    expect(prompt).to_have_value("にほん")
    expect_ready(page)
    assert site.ran == []
