"""What a new user runs: ``python app.py`` as a process of its own, on the models that ship."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect
from servers import free_port

from app.prompts import examples

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 120


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment["D2F_STORE"] = str(tmp_path_factory.mktemp("published") / "races.sqlite")
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)], cwd=ROOT, env=environment
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def wait_for(address: str, process: subprocess.Popen) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, f"app.py ended with {process.returncode}"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"app.py did not answer within {START_SECONDS} s")


@pytest.mark.parametrize("task", ["gsm-mini", "sudoku-mini"])
def test_the_shipped_models_race_on_an_example(context: BrowserContext, url: str, task: str):
    page = context.new_page()
    page.goto(url)
    page.locator(".board .grid canvas").first.wait_for()
    page.locator("[name=speed][value='1']").check()
    problem = examples()[task][0]
    page.get_by_role("textbox", name="Prompt").fill(problem.prompt)
    page.keyboard.press("Enter")
    board = page.locator(".board")
    expect(page.locator(".lane[data-lane='0'] .said.user")).to_have_text(
        problem.prompt, timeout=60_000
    )
    expect(board).to_have_attribute("data-state", "finished", timeout=60_000)
    for lane in (0, 1):
        assert page.locator(f".lane[data-lane='{lane}'] .answer").text_content()
    shown = page.locator(".lane[data-lane='0'] [data-figure=tpf]").get_attribute("data-value")
    assert float(shown) > 1, "D2F decoded no more than a token a forward"
    expect(board.get_by_role("status")).to_contain_text("tokens per second")


def test_the_page_opens_on_a_recorded_race(context: BrowserContext, url: str):
    page = context.new_page()
    page.goto(url)
    status = page.locator(".board").get_by_role("status")
    expect(status).to_contain_text("A recorded race.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.locator("[name=speed][value='4']").check()
    expect(page.locator(".board")).to_have_attribute("data-state", "finished")
    expect(status).to_contain_text("not measured here")
    page.locator("#gallery button").nth(2).click()
    expect(status).to_contain_text("A recorded race.")
