"""The AR baseline: prefill once, then one token a forward over the same KV cache as D2F."""

from collections.abc import Iterator, Sequence

import torch

from d2f.attention import causal_ends
from d2f.checkpoint import Model
from d2f.config import ARConfig
from d2f.decode.common import check_prompt, new_generator, now
from d2f.events import Commit, StepEvent
from d2f.sampling import choose, forbid


def decode_ar(model: Model, prompt_ids: Sequence[int], config: ARConfig) -> Iterator[StepEvent]:
    """One event a token; the first one's forward is the prefill.

    Raises:
        ValueError: the model is not causal, or the prompt cannot be decoded.
    """
    if not model.config.causal:
        raise ValueError(f"decoder 'ar' needs a causal model; {model.name!r} is not one")
    check_prompt(model, prompt_ids, config)
    return _steps(model, list(prompt_ids), config)


def _steps(model: Model, prompt_ids: list[int], config: ARConfig) -> Iterator[StepEvent]:
    started = now(model.device)
    cache = model.net.new_cache(len(prompt_ids) + config.max_new_tokens)
    generator = new_generator(model, config.seed)
    position, reason, pending = len(prompt_ids), None, prompt_ids
    for step in range(config.max_new_tokens):
        start = cache.length
        with torch.inference_mode():
            ids = torch.tensor([pending], device=model.device)
            # A single row sees every key: no mask to build.
            ends = causal_ends(len(pending), model.device) if start == 0 else None
            hidden = model.net(ids, ends, cache, start)
            cache.advance(len(pending))
            logits = model.net.logits(hidden[0, -1:])
            logits = forbid(logits, model.tokenizer.mask_id, model.tokenizer.vocab_size)
            tokens, confidence = choose(logits, config, generator)
            token, probability = int(tokens), float(confidence)
        if token in model.tokenizer.stop_ids:
            reason = "stop"
        elif step + 1 == config.max_new_tokens:
            reason = "length"
        commits = (Commit(position + step, token, probability),)
        window = (start, start + len(pending))
        seconds = now(model.device) - started
        yield StepEvent(step, seconds, window, commits, (), cache.length, reason)
        started = now(model.device)
        if reason is not None:
            return
        pending = [token]
