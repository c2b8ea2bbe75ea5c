"""The board: one custom component whose script draws what messages tell.

Model text reaches the page only inside ``value``, which no template mentions: Gradio's template
syntaxes would run script found in it. The scripts in ``static`` set it as text content.
"""

from pathlib import Path

import gradio as gr

STATIC = Path(__file__).parents[1] / "static"
SCRIPTS = ("lane.js", "grid.js", "chart.js", "pipeline.js", "player.js", "tour.js")

def board_script() -> str:
    """The board's scripts as one, in the order in which they need each other."""
    return "".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)

class RaceBoard(gr.HTML):
    """Two lanes, ratio and chart; ``value`` is one packed JSON string of messages."""

    def __init__(self) -> None:
        super().__init__(
            html_template=board_markup(),
            js_on_load=board_script(),
            apply_default_css=False,
            elem_id="board",
        )
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component
