"""The board: one custom component whose script draws what messages tell.

Model text reaches the page only inside ``value``, which no template mentions: Gradio's template
syntaxes would run script found in it. ``static/board.js`` sets it as text content.
"""

from pathlib import Path

import gradio as gr

STATIC = Path(__file__).parent / "static"


class RaceBoard(gr.HTML):
    """Two lanes, ratio and chart; ``value`` is one packed JSON string of messages."""

    def __init__(self) -> None:
        super().__init__(
            html_template=(STATIC / "board.html").read_text(encoding="utf-8"),
            js_on_load=(STATIC / "board.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id="board",
        )
