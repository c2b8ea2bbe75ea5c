"""D2F: pipelined parallel decoding over an exact KV cache (arXiv 2508.09192, Algorithm 2)."""

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from d2f.attention import block_causal_ends, send
from d2f.blocks import BlockPipeline
from d2f.checkpoint import Model
from d2f.config import D2FConfig
from d2f.decode.common import check_prompt, new_generator, now, read
from d2f.decode.windows import open_windows
from d2f.errors import InvalidInput
from d2f.events import FULLY_ACTIVATED, Commit, StepEvent
from d2f.sampling import choose, forbid, select


def decode_d2f(model: Model, prompt_ids: Sequence[int], config: D2FConfig) -> Iterator[StepEvent]:
    """One event a forward; every step commits at least one token.

    Raises:
        ValueError: the model has no mask token or is causal, or the prompt cannot be decoded.
    """
    if model.config.mask_id is None or model.config.causal:
        raise InvalidInput(f"decoder 'd2f' needs a diffusion model; {model.name!r} is not one")
    check_prompt(model, prompt_ids, config)
    return _steps(model, list(prompt_ids), config)


def _steps(model: Model, prompt_ids: list[int], config: D2FConfig) -> Iterator[StepEvent]:
    started = now(model.device)
    mask_id = model.config.mask_id
    assert mask_id is not None
    pipeline = BlockPipeline(len(prompt_ids), config)
    canvas = prompt_ids + [mask_id] * config.max_new_tokens
    generator = new_generator(model, config.seed)
    step, reason = 0, None
    size, blocks, shift = config.block_size, most_blocks(config), model.config.logit_shift
    with open_windows(model, len(canvas), size, blocks, shift) as windows:
        while reason is None:
            pipeline.grow()
            pipeline.promote()
            window, in_flight = pipeline.window, pipeline.uncached
            masked = pipeline.masked
            with torch.inference_mode():
                ends = block_causal_ends(*window, pipeline.prompt_length, size, window[1])
                logits = windows.logits(canvas[slice(*window)], ends, masked)
                windows.advance(pipeline.cache())
                logits = forbid(logits, mask_id, model.tokenizer.vocab_size)
                tokens, confidence = choose(logits, config, generator)
                commits = _commit(pipeline, masked, tokens, confidence, config.tau_conf)
            for commit in commits:
                canvas[commit.position] = commit.token_id
            stops = [c.position for c in commits if c.token_id in model.tokenizer.stop_ids]
            pipeline.record([c.position for c in commits], stops)
            reason = pipeline.finish_reason
            # Reading the commits waited for the device.
            seconds = time.perf_counter() - started
            views = tuple(block.view() for block in in_flight if block.index)
            yield StepEvent(step, seconds, window, commits, views, windows.cache.length, reason)
            started = time.perf_counter()
            step += 1


def most_blocks(config: D2FConfig) -> int:
    """Blocks behind the prompt that one window can hold.

    All that were active can complete in one step, and be forwarded once more with a new block.
    """
    total = -(-config.max_new_tokens // config.block_size)
    cap = config.max_active_blocks
    return total if cap is None else min(total, cap + 1)


def _commit(
    pipeline: BlockPipeline,
    masked: list[int],
    tokens: Tensor,
    confidence: Tensor,
    tau_conf: float,
) -> tuple[Commit, ...]:
    """Decide on the device, then copy once to the host: the step's only synchronisation."""
    active = [block for block in pipeline.blocks if block.masked]
    rows = [row for row, block in enumerate(active) for _ in block.masked]
    force = [block.state == FULLY_ACTIVATED for block in active]
    device = tokens.device
    commit, forced = select(
        confidence, send(torch.tensor(rows), device), send(torch.tensor(force), device), tau_conf
    )
    return tuple(
        Commit(position, int(token), value, bool(is_forced))
        for position, (token, value, chosen, is_forced) in zip(
            masked, read(tokens, confidence, commit, forced), strict=True
        )
        if chosen
    )
