"""The page for everyone: axe-core finds nothing of ours to mend, and the tour needs no pointer."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Site
from playwright.sync_api import BrowserContext, Page, expect
from races import d2f_trace, recorded
from steps import ask, expect_figures, expect_state, known

PHONE, LAPTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def violations(page: Page) -> list[str]:
    """What axe-core finds, a line a node."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html'][:140]} {node['failureSummary'][:200]}"
        for each in found
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_axe_finds_no_violation(context: BrowserContext, site: Site, theme: str, size: dict):
    page = context.new_page()
    page.set_viewport_size(size)
    page.goto(f"{site.url}?__theme={theme}")
    page.locator(".board .grid canvas").first.wait_for()
    expect(page.get_by_text("Loading...")).to_have_count(0)
    assert violations(page) == []
    site.prepare = recorded
    page.locator("[name=speed][value='4']").check()
    ask(page, "Count to four.")
    expect_state(page, "finished")
    for name in ("Settings", "Chats"):
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.get_by_role("dialog", name=name)).to_be_visible()
        assert violations(page) == []
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Benchmarks: speed against accuracy").click()
    expect(page.locator("#benchmarks .js-plotly-plot")).to_have_count(2)
    page.get_by_role("button", name="How it works").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []


def test_the_tour_is_walked_with_the_keyboard_and_shows_the_race_at_work(page: Page, site: Site):
    site.prepare = recorded
    page.locator("[name=speed][value='4']").check()
    ask(page, "Count to four.")
    expect_state(page, "finished")
    begin = page.get_by_role("button", name="How it works")
    begin.focus()
    page.keyboard.press("Enter")
    card = page.get_by_role("dialog", name="Masks")
    expect(card).to_contain_text("1 of 7")
    assert known(page, 0) == 0
    expect(page.locator(".toured")).to_have_class("grid toured")
    for title in ("Blocks", "KV cache", "One after the other", "Fewer forwards"):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("dialog", name=title)).to_be_visible()
    expect_figures(page, 0, d2f_trace())
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("dialog", name="One after the other")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".toured")).to_have_count(0)
    expect(begin).to_be_focused()


def test_the_tour_leaves_a_running_race_alone(page: Page, site: Site):
    page.locator("[name=speed][value='0.1']").check()
    site.prepare = recorded
    ask(page, "Count to four.")
    expect_state(page, "racing")
    page.get_by_role("button", name="How it works").click()
    expect(page.get_by_role("dialog", name="Masks")).to_be_visible()
    expect_state(page, "racing")
    page.get_by_role("button", name="End tour").click()
    expect_state(page, "racing")
