"""The AR baseline: prefill once, then one token a forward over the same KV cache as D2F."""

import time
from collections.abc import Iterator, Sequence

import torch

from d2f.attention import causal_ends
from d2f.checkpoint import Model
from d2f.config import ARConfig
from d2f.decode.common import check_prompt, new_generator, now, read
from d2f.decode.windows import open_windows
from d2f.errors import InvalidInput
from d2f.events import Commit, StepEvent
from d2f.sampling import choose, forbid


def decode_ar(model: Model, prompt_ids: Sequence[int], config: ARConfig) -> Iterator[StepEvent]:
    """One event a token; the first one's forward is the prefill.

    Raises:
        ValueError: the model is not causal, or the prompt cannot be decoded.
    """
    if not model.config.causal:
        raise InvalidInput(f"decoder 'ar' needs a causal model; {model.name!r} is not one")
    check_prompt(model, prompt_ids, config)
    return _steps(model, list(prompt_ids), config)


def _steps(model: Model, prompt_ids: list[int], config: ARConfig) -> Iterator[StepEvent]:
    started = now(model.device)
    generator = new_generator(model, config.seed)
    position, reason, pending = len(prompt_ids), None, prompt_ids
    length = len(prompt_ids) + config.max_new_tokens
    with open_windows(model, length, size=1, blocks=1, shift=True) as windows:
        for step in range(config.max_new_tokens):
            start = windows.cache.length
            end = start + len(pending)
            with torch.inference_mode():
                # A single row sees every key: no mask to build.
                ends = causal_ends(len(pending)) if start == 0 else None
                logits = windows.logits(pending, ends, [end])
                windows.advance(len(pending))
                logits = forbid(logits, model.tokenizer.mask_id, model.tokenizer.vocab_size)
                [[token, probability]] = read(*choose(logits, config, generator))
            if token in model.tokenizer.stop_ids:
                reason = "stop"
            elif step + 1 == config.max_new_tokens:
                reason = "length"
            commits = (Commit(position + step, int(token), probability),)
            # The read waited for the device.
            seconds = time.perf_counter() - started
            yield StepEvent(step, seconds, (start, end), commits, (), end, reason)
            started = time.perf_counter()
            if reason is not None:
                return
            pending = [int(token)]
