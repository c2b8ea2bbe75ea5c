"""The board: one custom component whose script draws what messages tell.

Model text reaches the page only inside ``value``, which no template mentions: Gradio's template
syntaxes would run script found in it. The scripts in ``static`` set it as text content.
"""

import re
from pathlib import Path
from string import Template

import gradio as gr

from .form import Form

STATIC = Path(__file__).parents[1] / "static"
# In the order in which they need each other. Those of the chat are not in an exported race.
BOARD = ("dom.js", "lane.js", "grid.js", "chart.js", "pipeline.js", "player.js")
CHAT = ("markdown.js", "chats.js", "thread.js", "form.js", "composer.js", "drawer.js", "chat.js")
LAST = ("receive.js", "tour.js")
SCRIPTS = (*BOARD, *CHAT, *LAST)
LANES = (
    {"name": "D2F", "decoder": "d2f", "model": "block diffusion", "title": "Mask grid"},
    {"name": "AR", "decoder": "ar", "model": "one token at a time", "title": "Token grid"},
)
# Lines of nothing but a comment: the scripts' types are a third of them, and no browser reads them.
COMMENTS = re.compile(r"^ *(//.*|/\*\*(?:[^*]|\*(?!/))*\*/)\n", re.MULTILINE)


def read_static(name: str) -> str:
    """A file of the page's own markup, style or scripts."""
    return (STATIC / name).read_text(encoding="utf-8")


def board_markup(chat: bool = False) -> str:
    """The board's HTML, both lanes made of one piece of markup; with all of the chat around it."""
    lane = Template(read_static("lane.html"))
    lanes = [
        lane.substitute(words, index=index, grid=words["title"].lower())
        for index, words in enumerate(LANES)
    ]
    parts = {name: read_static(f"{name}.html") if chat else "" for name in ("composer", "drawers")}
    bar = Template(read_static("bar.html")).substitute(chosen=read_static("choose.html") * chat)
    board = Template(read_static("board.html"))
    return board.substitute(parts, bar=bar, first=lanes[0], second=lanes[1])


def board_script(chat: bool = False) -> str:
    """The board's scripts as one, and those of the chat."""
    names = SCRIPTS if chat else (*BOARD, *LAST)
    return COMMENTS.sub("", "".join(read_static(name) for name in names))


class RaceBoard(gr.HTML):
    """The chat and its board; ``value`` is one packed JSON string of messages.

    Its script triggers ``ask`` with a question (:mod:`.asking`), ``halt``, ``draw`` for a fresh
    problem, and ``link`` with a race.
    """

    def __init__(self, form: Form) -> None:
        super().__init__(
            html_template=board_markup(chat=True),
            js_on_load=board_script(chat=True),
            apply_default_css=False,
            elem_id="board",
            form=form,
        )
