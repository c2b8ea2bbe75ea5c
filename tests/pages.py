"""A page's handlers without the page, for tests that call them one by one."""

from typing import Any

import gradio as gr

from app.lanes.lane import Host
from app.page.charts import TITLES
from app.page.components import RaceBoard
from app.page.form import form
from app.page.handlers import Page, Parts
from app.page.messages import SETTINGS
from app.prompts import random_problem
from app.recordings.recording import Recording
from app.recordings.store import Store


def page(recordings: list[Recording], host: Host | None = None, store: Store | None = None) -> Page:
    """Handlers of a page on which the pair "mini" was chosen at first."""
    host = host or Host()
    parts = Parts(
        board=RaceBoard(form("mini", host, {}, [])),
        recording=gr.State(),
        problem=gr.State(),
        plots=[gr.Plot() for _ in TITLES],
    )
    return Page(parts, "mini", host, {}, recordings, store)


def sent(data: Any) -> gr.EventData:
    """What the board's script sends with an event."""
    return gr.EventData(None, data)


def question(prompt: str, **changes: Any) -> dict[str, Any]:
    """What it asks with the first settings of the pair "mini", or with others of its values."""
    config = Host().pair("mini").config
    settings = {name: getattr(config, name) for name in SETTINGS}
    asked = {"run": "abc", "prompt": prompt, "pair": "mini", "settings": settings, "past": None}
    return asked | changes


def known(page: Page) -> dict[Any, Any]:
    """What the server kept of the visitor: the last problem drawn."""
    return {page.parts.problem: random_problem()}
