"""The program of the page: ``python app.py``, ``python -m app``, and what a Space runs.

The order matters: the environment is put right before anything reads it, and options are checked
before gradio takes its seconds. The models' process imports the file that was run once more, and
must find nothing there that takes time.
"""

import os
import sys
from collections.abc import Sequence

from d2f.cli.program import program, starting


@program("app.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Serves the page until it is to end."""
    with starting():
        from .environment import made, prepare

        folder = prepare(os.environ)
        if os.environ.get("SPACES_ZERO_GPU"):
            import spaces  # noqa: F401  before torch, which it changes
        from .options import parse_args

        args = parse_args(argv, os.environ)
        from .launch import launch
    with made(folder):
        launch(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
