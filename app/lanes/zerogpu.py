"""Runs on a GPU that is lent for one call, as on Hugging Face's ZeroGPU.

Knows nothing of the package that lends the GPU but its kind of error, which is Gradio's.
"""

from collections.abc import Callable

import gradio as gr

from d2f.errors import InvalidInput

from .lane import Asked, Host, Stopped
from .proxy import Steps

SETUP_SECONDS = 20  # for weights on their way to the GPU, and the models' warm-up
SECONDS_PER_TOKEN = 0.1  # for all lanes together: two times what an 8 B model takes
LONGEST = 120


def duration(asked: Asked, host: Host) -> int:
    """Seconds of the GPU to ask for; asking for less than needed ends a run too early."""
    return min(LONGEST, SETUP_SECONDS + round(SECONDS_PER_TOKEN * asked.config.max_new_tokens))


def lent(compute: Callable[[Asked, Host], Steps]) -> Callable[[Asked, Host, Stopped], Steps]:
    """``compute`` where the GPU is; why there is none, or no time left, is told to the visitor.

    Whether to stop cannot be asked there: closing the call ends it.
    """

    def steps(asked: Asked, host: Host, _: Stopped) -> Steps:
        try:
            yield from compute(asked, host)
        except gr.Error as error:
            raise InvalidInput(error.message) from error

    return steps
