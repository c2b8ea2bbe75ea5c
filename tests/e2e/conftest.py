"""One server and one real Chromium for all browser tests; every page is watched.

The models are the smallest real ones, with random weights: the page, the decoders, the tokenizer
and Gradio are the shipped ones.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import pytest
from folders import save_pair
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Route,
    expect,
    sync_playwright,
)
from servers import free_port

import app.page.tell
from app.lanes.lane import Host, Lane, pair_lanes
from app.page.layout import build, launch_options
from app.recordings.store import SqliteStore
from d2f import D2FConfig
from d2f.catalogue.pairs import PAIRS

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
GRADIO_ON_PANDAS = ".*(no_silent_downcasting|copy keyword).* is deprecated"
LOCAL = "http://127.0.0.1:"
PATIENCE = 30_000  # milliseconds; on a busy machine a page paints a few times a second


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Last: while the browser is open its loop runs in this thread, and asyncio.run refuses.
    items.sort(key=lambda item: Path(__file__).parent in item.path.parents)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{GRADIO_ON_PANDAS}"))
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))


@dataclass
class Site:
    """The running page; ``ran`` holds the lanes of every race, ``prepare`` makes the next ones."""

    url: str = ""
    ran: list[list[Lane]] = field(default_factory=list)
    prepare: Callable[..., list[Lane]] = pair_lanes

    def pair_lanes(self, *request: object) -> list[Lane]:
        self.ran.append(self.prepare(*request))
        return self.ran[-1]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Iterator[Site]:
    site = Site()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        config = D2FConfig(max_new_tokens=96, block_size=16, max_active_blocks=3)
        pair = save_pair(tmp_path_factory.mktemp("models"), tokenizer_folder, config)
        patch.setitem(PAIRS, pair.name, pair)
        patch.setattr(app.page.tell, "pair_lanes", site.pair_lanes)
        store = SqliteStore(tmp_path_factory.mktemp("published") / "races.sqlite")
        demo = build("tiny", Host(), tmp_path_factory.mktemp("traces"), store)
        # Looking for a free port itself, Gradio leaves a socket open on every one that is taken.
        _, site.url, _ = demo.launch(
            server_port=free_port(), prevent_thread_lock=True, quiet=True, **launch_options()
        )
        yield site
        demo.close(verbose=False)


@pytest.fixture
def site(server: Site) -> Iterator[Site]:
    yield server
    server.prepare = pair_lanes
    server.ran.clear()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor's browser that may reach this machine only; complaints fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    left, complaints = [], []

    def guard(route: Route) -> None:
        if route.request.url.startswith((LOCAL, "data:", "blob:")):
            route.continue_()
        else:
            left.append(route.request.url)
            route.abort()

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    context.route("**/*", guard)
    context.on("console", listen)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    yield context
    context.close()
    assert left == [], "requests left this machine"
    assert complaints == [], "the console is not clean"


@pytest.fixture
def visit(context: BrowserContext, site: Site) -> Callable[[], Page]:
    """Opens the page as it is when it is ready for its visitor, playing in real time."""

    def visit() -> Page:
        page = context.new_page()
        page.goto(site.url)
        page.locator(".board .grid canvas").first.wait_for()
        page.locator("[name=speed][value='1']").check()
        return page

    return visit


@pytest.fixture
def page(visit: Callable[[], Page]) -> Page:
    return visit()
