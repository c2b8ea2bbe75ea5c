"""A page's handlers without the page, for tests that call them one by one."""

from typing import Any

import gradio as gr

from app.lanes.lane import Host
from app.page.charts import TITLES
from app.page.components import RaceBoard
from app.page.handlers import Page, Parts
from app.page.tell import SETTINGS
from app.prompts import random_problem
from app.recordings.recording import Recording
from app.recordings.store import Store


def page(recordings: list[Recording], host: Host | None = None, store: Store | None = None) -> Page:
    """Handlers of a page on which the pair "mini" was chosen at first."""
    parts = Parts(
        board=RaceBoard(),
        recording=gr.State(),
        problem=gr.State(),
        conversation=gr.BrowserState(),
        prompt=gr.Textbox(),
        follow=gr.Checkbox(),
        drop=gr.Checkbox(),
        pair=gr.Dropdown(),
        settings={name: gr.Number() for name in SETTINGS},
        plots=[gr.Plot() for _ in TITLES],
    )
    return Page(parts, "mini", host or Host(), {}, recordings, store)


def asked(page: Page, prompt: str, **settings: Any) -> dict[Any, Any]:
    """What a browser sends when a race is run."""
    parts = page.parts
    config = page.host.pair(page.pair).config
    boxes = {box: settings.get(n, getattr(config, n)) for n, box in parts.settings.items()}
    form = {parts.prompt: prompt, parts.problem: random_problem(), parts.pair: page.pair}
    flags = {parts.follow: False, parts.drop: False, parts.conversation: None}
    return form | flags | boxes
