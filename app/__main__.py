"""The program of the page: ``python app.py``, ``python -m app``, and what a Space runs.

The order matters: the environment is put right before anything reads it, options are checked
before gradio takes its seconds, and nothing but this program imports what it does. The models'
process imports the file that was run once more, and must find nothing heavy there.
"""

import os
import sys
from collections.abc import Sequence

from d2f.cli.program import program

from .environment import prepare, private_folder, quiet_end


@program("app.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Serves the page until it is to end; the exit status."""
    with private_folder() as folder:
        with quiet_end(folder):
            prepare(os.environ, folder)
            if os.environ.get("SPACES_ZERO_GPU"):
                import spaces  # noqa: F401  before torch, which it changes
            from .options import parse_args

            args = parse_args(argv, os.environ)
            from .launch import launch
        launch(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
