"""``python -m app.export race.json``: a recorded race as one HTML file that replays offline.

The file holds the board's own markup, style and scripts and the messages of the race; it loads
nothing and can reach nothing. Knows nothing of gradio's server.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from d2f.cli.options import Parser
from d2f.cli.output import check_output, write_output
from d2f.cli.program import program
from d2f.errors import InvalidInput
from d2f.text import decoded

from .page.components import board_markup, board_script, read_static
from .page.messages import pack_now
from .page.tell import retell
from .recordings.recording import Recording


def page(recording: Recording) -> str:
    """The whole HTML file. What models wrote stands in JSON without ``<``, never in markup."""
    parts = {
        "/*css*/": read_static("board.css"),
        "<!--board-->": board_markup(),
        "/*script*/": board_script(),
        # Last, so that no text of the race is taken for a marker.
        "<!--race-->": pack_now(retell(recording)),
    }
    html = read_static("export.html")
    for marker, text in parts.items():
        html = html.replace(marker, text, 1)
    return html


@program("app.export")
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("python -m app.export", str(__doc__), "")
    parser.add_argument("trace", type=Path, help="a race saved by the page's Download trace")
    parser.add_argument("-o", "--output", type=Path, help="default: the trace's name with .html")
    args = parser.parse_args(argv)
    output = args.output or args.trace.with_suffix(".html")
    check_output("--output", output)
    try:
        data = args.trace.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{args.trace} cannot be read: {error.strerror}") from error
    write_output("--output", output, page(Recording.from_json(decoded(data))))
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
