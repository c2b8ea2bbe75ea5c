"""Decoders: each a generator from a prompt to one event a forward, all in one dict."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from d2f.checkpoint import Model
from d2f.config import DecodeConfig, decoder_name
from d2f.decode.autoregressive import decode_ar
from d2f.decode.common import trace_header
from d2f.decode.pipelined import decode_d2f
from d2f.decode.vanilla import decode_vanilla
from d2f.events import StepEvent, Trace

DECODERS: dict[str, Callable[[Model, Sequence[int], Any], Iterator[StepEvent]]] = {
    "d2f": decode_d2f,
    "ar": decode_ar,
    "vanilla": decode_vanilla,
}

__all__ = ["DECODERS", "generate", "stream", "trace_header"]


def stream(model: Model, prompt_ids: Sequence[int], config: DecodeConfig) -> Iterator[StepEvent]:
    """Decode lazily, one event a forward; the config's type names the decoder.

    Input is checked at once; nothing is computed before the first ``next``. ``close()`` cancels.
    """
    return DECODERS[decoder_name(config)](model, prompt_ids, config)


def generate(model: Model, prompt_ids: Sequence[int], config: DecodeConfig) -> Trace:
    """Decode to the end; ``token_ids``, ``text`` and every metric are properties of the Trace."""
    header = trace_header(model, prompt_ids, config)
    trace = Trace(header, tuple(stream(model, prompt_ids, config)))
    return trace.with_text(model.tokenizer.decode(trace.token_ids))
