"""``d2f COMMAND``, and the same as ``python -m d2f COMMAND``: one name for all programs."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from d2f.cli.program import BAD_INPUT, program, starting
from d2f.errors import InvalidInput

# Module and what it does. Each has a main(arguments) that returns an exit status.
COMMANDS = {
    "race": ("", "open the page: D2F against an autoregressive model, side by side"),
    "generate": ("d2f.cli.generate", "answer one prompt on the terminal"),
    "bench": ("d2f.bench.__main__", "measure speed and accuracy of the decoders"),
    "eval": ("d2f.eval.__main__", "score decoders by the lm-evaluation-harness"),
    "train": ("d2f.train.__main__", "train an embedded model"),
    "distil": ("d2f.train.distil", "make a D2F adapter of a diffusion model"),
    "serve": ("d2f.serve.__main__", "serve a model to OpenAI-compatible clients"),
    "models": ("d2f.cli.models", "list the models that can run here, or download one"),
}
# The page is the folder app of a checkout, and a package of its own once installed.
PAGES = ("d2f_race.__main__", "app.__main__")
USAGE = "usage: d2f COMMAND [options]\n\n" + "\n".join(
    [*(f"  {name:9} {text}" for name, (_, text) in COMMANDS.items()), "", "d2f COMMAND --help"]
)


def page() -> str:
    """The module that opens the page."""
    return next(name for name in PAGES if find_spec(name.partition(".")[0]) is not None)


@program("d2f")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; ``InvalidInput`` for one that is unknown."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else BAD_INPUT
    command, *rest = arguments
    if command not in COMMANDS:
        raise InvalidInput(f"no command {command!r}; there are {', '.join(COMMANDS)}")
    with starting():
        module = import_module(COMMANDS[command][0] or page())
    return int(module.main(rest))


if __name__ == "__main__":
    sys.exit(main())
