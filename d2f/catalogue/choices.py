"""The pairs by what this machine can do with them: for ``d2f models``, and for the page's picker.

Knows no tensors. Speeds are expected, never measured: a lane that decodes one token a forward reads
all its weights for each, so that the memory's bandwidth bounds it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from d2f.catalogue.pairs import MEMORY, PAIRS, PUBLISHED_PAIRS, READY, Here, Pair, pair_state
from d2f.catalogue.published import PUBLISHED
from d2f.shape import BYTES

RUNS, DOWNLOADS, TOO_LARGE = GROUPS = (
    "Ready to run here",
    "Fit here, and need a download",
    "Need more memory than is free here",
)


@dataclass(frozen=True)
class Choice:
    """A pair as something to choose: ``text`` says what it takes, and what to expect or to do.

    ``expected``: tokens a second of its AR lane; None: it is embedded, or its device does not tell.
    """

    pair: Pair
    group: str
    text: str
    expected: float | None = None


def expected_speed(model: str, dtype: str, bandwidth: float) -> float:
    """Tokens a second of a published model that decodes one a forward, at batch 1.

    Args:
        bandwidth: bytes a second of the memory that holds the weights.
    """
    return bandwidth / (PUBLISHED[model].shape.step_weights * BYTES[dtype])


def choices(
    here: Here,
    bandwidth: float | None = None,
    dtype: str = "bfloat16",
    pairs: Iterable[Pair] | None = None,
) -> list[Choice]:
    """All pairs of the catalogue, those that can run here at once first.

    Args:
        bandwidth: of the device's memory; None: unknown, and no speed is told.
    """
    every = (PAIRS | PUBLISHED_PAIRS).values() if pairs is None else pairs
    found = [_choice(pair, here, bandwidth, dtype) for pair in every]
    return sorted(found, key=lambda choice: GROUPS.index(choice.group))


def _choice(pair: Pair, here: Here, bandwidth: float | None, dtype: str) -> Choice:
    state = pair_state(pair, here, dtype=dtype)
    if state.kind == MEMORY:
        return Choice(pair, TOO_LARGE, state.text)
    group = RUNS if state.kind == READY else DOWNLOADS
    if pair.ar not in PUBLISHED:
        return Choice(pair, group, state.text)
    place = "the CPU" if here.device.startswith("cpu") else "the GPU"
    text = f"{'ready' if group == RUNS else 'runs here'} on {place}"
    expected = None if bandwidth is None else expected_speed(pair.ar, dtype, bandwidth)
    if expected is not None:
        text += f", AR at about {expected:.2g} tokens/s expected from its memory bandwidth"
    return Choice(pair, group, text if group == RUNS else f"{text}; {state.text}", expected)
