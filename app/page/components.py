"""The board: one custom component whose script draws what messages tell.

Model text reaches the page only inside ``value``, which no template mentions: Gradio's template
syntaxes would run script found in it. The scripts in ``static`` set it as text content.
"""

import re
from pathlib import Path
from string import Template

import gradio as gr

STATIC = Path(__file__).parents[1] / "static"
SCRIPTS = (
    "dom.js",
    "lane.js",
    "grid.js",
    "chart.js",
    "pipeline.js",
    "player.js",
    "receive.js",
    "tour.js",
)
LANES = (
    {"name": "D2F", "decoder": "d2f", "model": "block diffusion", "title": "Mask grid"},
    {"name": "AR", "decoder": "ar", "model": "one token at a time", "title": "Token grid"},
)
# Lines of nothing but a comment: the scripts' types are a third of them, and no browser reads them.
COMMENTS = re.compile(r"^ *(//.*|/\*\*[\s\S]*?\*/)\n", re.MULTILINE)


def read_static(name: str) -> str:
    """A file of the page's own markup, style or scripts."""
    return (STATIC / name).read_text(encoding="utf-8")


def board_markup() -> str:
    """The board's HTML, both lanes made of one piece of markup."""
    lane = Template(read_static("lane.html"))
    lanes = [
        lane.substitute(words, index=index, grid=words["title"].lower())
        for index, words in enumerate(LANES)
    ]
    return Template(read_static("board.html")).substitute(first=lanes[0], second=lanes[1])


def board_script() -> str:
    """The board's scripts as one, in the order in which they need each other."""
    return COMMENTS.sub("", "".join(read_static(name) for name in SCRIPTS))


class RaceBoard(gr.HTML):
    """Two lanes, ratio and chart; ``value`` is one packed JSON string of messages."""

    def __init__(self) -> None:
        super().__init__(
            html_template=board_markup(),
            js_on_load=board_script(),
            apply_default_css=False,
            elem_id="board",
        )
