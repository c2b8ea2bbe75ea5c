"""Vanilla masked diffusion: low-confidence remasking over the whole canvas, no cache.

LLaDA (arXiv 2502.09992, section 2.4 and Algorithm 5): every step forwards prompt and canvas, both
ways visible, keeps the most confident predictions and masks the rest again. Runs to the end of the
canvas, as released, wherever the answer stops.
"""

import time
from collections.abc import Iterator, Sequence

import torch

from d2f.attention import send
from d2f.checkpoint import Model
from d2f.config import VanillaConfig
from d2f.decode.common import Predictor, check_prompt, new_generator, now, read
from d2f.errors import InvalidInput
from d2f.events import Commit, StepEvent
from d2f.sampling import choose, forbid


def decode_vanilla(
    model: Model, prompt_ids: Sequence[int], config: VanillaConfig
) -> Iterator[StepEvent]:
    """One event a forward, ``config.tokens_per_step`` commits each.

    Raises:
        ValueError: the model has no mask token or is causal, or the prompt cannot be decoded.
    """
    if model.config.mask_id is None or model.config.causal:
        raise InvalidInput(f"decoder 'vanilla' needs a diffusion model; {model.name!r} is not one")
    check_prompt(model, prompt_ids, config)
    return _steps(model, list(prompt_ids), config)


def _steps(model: Model, prompt_ids: list[int], config: VanillaConfig) -> Iterator[StepEvent]:
    started = now(model.device)
    mask_id = model.config.mask_id
    assert mask_id is not None
    canvas = prompt_ids + [mask_id] * config.max_new_tokens
    masked = list(range(len(prompt_ids), len(canvas)))
    size = config.block_size or config.max_new_tokens
    predictor = Predictor(model.net, model.config.logit_shift)
    generator = new_generator(model, config.seed)
    step = 0
    while masked:
        block = (masked[0] - len(prompt_ids)) // size
        block_end = len(prompt_ids) + (block + 1) * size
        open_positions = [position for position in masked if position < block_end]
        with torch.inference_mode():
            ids = send(torch.tensor([canvas]), model.device)
            logits = predictor.logits(model.net(ids, None), 0, open_positions)
            logits = forbid(logits, mask_id, model.tokenizer.vocab_size)
            tokens, confidence = choose(logits, config, generator)
            kept = confidence.topk(min(config.tokens_per_step, len(open_positions))).indices
            rows = sorted(read(kept, tokens[kept], confidence[kept]))
        commits = tuple(Commit(open_positions[int(i)], int(token), p) for i, token, p in rows)
        for commit in commits:
            canvas[commit.position] = commit.token_id
        decided = {commit.position for commit in commits}
        masked = [position for position in masked if position not in decided]
        reason = None if masked else _finish_reason(canvas[len(prompt_ids) :], model)
        seconds = time.perf_counter() - started
        yield StepEvent(step, seconds, (0, len(canvas)), commits, (), 0, reason)
        started = time.perf_counter()
        step += 1


def _finish_reason(answer: list[int], model: Model) -> str:
    return "stop" if set(answer) & set(model.tokenizer.stop_ids) else "length"
