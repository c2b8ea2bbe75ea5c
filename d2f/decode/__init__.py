"""Decoders: each a generator from a prompt to one event a forward, all in one dict."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from d2f.checkpoint import Model
from d2f.config import D2FConfig, DecodeConfig, VanillaConfig, decoder_name
from d2f.decode.autoregressive import decode_ar
from d2f.decode.common import trace_header
from d2f.decode.pipelined import decode_d2f, most_blocks
from d2f.decode.vanilla import decode_vanilla
from d2f.events import StepEvent, Trace

DECODERS: dict[str, Callable[[Model, Sequence[int], Any], Iterator[StepEvent]]] = {
    "d2f": decode_d2f,
    "ar": decode_ar,
    "vanilla": decode_vanilla,
}

__all__ = ["DECODERS", "generate", "prepare", "stream", "trace_header"]


def stream(model: Model, prompt_ids: Sequence[int], config: DecodeConfig) -> Iterator[StepEvent]:
    """Decode lazily, one event a forward; the config's type names the decoder.

    Input is checked at once; nothing is computed before the first ``next``. ``close()`` cancels.
    """
    return DECODERS[decoder_name(config)](model, prompt_ids, config)


def prepare(model: Model, prompt_length: int, config: DecodeConfig) -> None:
    """Compile what decoding a prompt up to this long may need, ahead of any clock.

    Takes seconds to minutes at the first call of a compiled model, and nothing for an eager one.
    """
    if model.fixed is None or isinstance(config, VanillaConfig):
        return
    size, blocks = 1, 1
    if isinstance(config, D2FConfig):
        size, blocks = config.block_size, most_blocks(config)
    model.fixed.prepare(prompt_length + config.max_new_tokens, size, blocks)


def generate(model: Model, prompt_ids: Sequence[int], config: DecodeConfig) -> Trace:
    """Decode to the end; ``token_ids``, ``text`` and every metric are properties of the Trace."""
    header = trace_header(model, prompt_ids, config)
    trace = Trace(header, tuple(stream(model, prompt_ids, config)))
    return trace.with_text(model.tokenizer.decode(trace.token_ids))
