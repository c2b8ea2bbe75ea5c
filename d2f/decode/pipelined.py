"""D2F: pipelined parallel decoding over an exact KV cache (arXiv 2508.09192, Algorithm 2)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from d2f.attention import block_causal_ends
from d2f.blocks import BlockPipeline
from d2f.cache import KVCache
from d2f.checkpoint import Model
from d2f.config import D2FConfig
from d2f.decode.common import Predictor, check_prompt, new_generator, now
from d2f.events import FULLY_ACTIVATED, Commit, StepEvent
from d2f.sampling import choose, forbid, select


def decode_d2f(model: Model, prompt_ids: Sequence[int], config: D2FConfig) -> Iterator[StepEvent]:
    """One event a forward; every step commits at least one token.

    Raises:
        ValueError: the model has no mask token or is causal, or the prompt cannot be decoded.
    """
    if model.config.mask_id is None or model.config.causal:
        raise ValueError(f"decoder 'd2f' needs a diffusion model; {model.name!r} is not one")
    check_prompt(model, prompt_ids, config)
    return _steps(model, list(prompt_ids), config)


def _steps(model: Model, prompt_ids: list[int], config: D2FConfig) -> Iterator[StepEvent]:
    started = now(model.device)
    mask_id = model.config.mask_id
    assert mask_id is not None
    pipeline = BlockPipeline(len(prompt_ids), config)
    canvas = prompt_ids + [mask_id] * config.max_new_tokens
    cache = model.net.new_cache(len(canvas))
    predictor = Predictor(model.net)
    generator = new_generator(model, config.seed)
    step, reason = 0, None
    while reason is None:
        pipeline.grow()
        pipeline.promote()
        window, in_flight = pipeline.window, pipeline.uncached
        masked = pipeline.masked
        with torch.inference_mode():
            hidden = _forward(model, canvas, pipeline, cache)
            logits = predictor.logits(hidden, window[0], masked)
            rows = pipeline.cache()
            predictor.keep(hidden, rows)
            cache.advance(rows)
            logits = forbid(logits, mask_id, model.tokenizer.vocab_size)
            tokens, confidence = choose(logits, config, generator)
            commits = _commit(pipeline, masked, tokens, confidence, config.tau_conf)
        for commit in commits:
            canvas[commit.position] = commit.token_id
        stops = [c.position for c in commits if c.token_id in model.tokenizer.stop_ids]
        pipeline.record([c.position for c in commits], stops)
        reason = pipeline.finish_reason
        seconds = now(model.device) - started
        blocks = tuple(block.view() for block in in_flight if block.index)
        yield StepEvent(step, seconds, window, commits, blocks, cache.length, reason)
        started = now(model.device)
        step += 1


def _forward(model: Model, canvas: list[int], pipeline: BlockPipeline, cache: KVCache) -> Tensor:
    """(1, T, hidden_size) states of the window; its K/V rows are written, none is final yet."""
    start, end = pipeline.window
    device = model.device
    ids = torch.tensor([canvas[start:end]], device=device)
    size = pipeline.config.block_size
    ends = block_causal_ends(start, end, pipeline.prompt_length, size, end, device)
    return model.net(ids, ends, cache, start)


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
        confidence,
        torch.tensor(rows, device=device),
        torch.tensor(force, device=device),
        tau_conf,
    )
    table = torch.stack((tokens.double(), confidence.double(), commit.double(), forced.double()))
    return tuple(
        Commit(position, int(token), value, bool(is_forced))
        for position, (token, value, chosen, is_forced) in zip(
            masked, table.T.tolist(), strict=True
        )
        if chosen
    )
