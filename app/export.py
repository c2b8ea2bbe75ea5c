"""``python -m app.export race.json``: a recorded race as one HTML file that replays offline.

The file holds the board's own markup, style and scripts and the messages of the race; it loads
nothing and can reach nothing. Knows nothing of gradio's server.
"""

import argparse
import sys
from pathlib import Path

from d2f.errors import D2FError
from d2f.text import decoded

from .page.components import board_markup, board_script, read_static
from .page.tell import pack_now, retell
from .recordings.recording import Recording


def page(recording: Recording) -> str:
    """The whole HTML file. What models wrote stands in JSON without ``<``, never in markup."""
    parts = {
        "/*css*/": read_static("board.css"),
        "<!--header-->": read_static("header.html"),
        "<!--board-->": board_markup(),
        "/*script*/": board_script(),
        # Last, so that no text of the race is taken for a marker.
        "<!--race-->": pack_now(retell(recording)),
    }
    html = read_static("export.html")
    for marker, text in parts.items():
        html = html.replace(marker, text, 1)
    return html


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m app.export", description=__doc__)
    parser.add_argument("trace", type=Path, help="a race saved by the page's Download trace")
    parser.add_argument("-o", "--output", type=Path, help="default: the trace's name with .html")
    args = parser.parse_args(argv)
    output = args.output or args.trace.with_suffix(".html")
    try:
        html = page(Recording.from_json(decoded(args.trace.read_bytes())))
        output.write_text(html, encoding="utf-8")
    except (OSError, D2FError) as error:
        sys.exit(f"error: {error}")
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
