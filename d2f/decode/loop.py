"""The one loop over a model: a policy says what to forward, a commit rule what to keep.

Knows no decoder. Each step waits for the device once, where the decisions are read.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from d2f.config import D2FConfig, DecodeConfig, VanillaConfig, decoder_name
from d2f.decode.common import check_finite, check_prompt, new_generator, now, read, token_ids
from d2f.decode.held import held_positions, held_tokens, keep_going
from d2f.decode.windows import open_windows
from d2f.errors import InvalidInput
from d2f.events import Commit, Guess, StepEvent
from d2f.model import Model
from d2f.nn.certainty import Memory, Said
from d2f.nn.sampling import choose, forbid, likeliest
from d2f.nn.threads import computing_with
from d2f.policy import Held, Policy, kind_of, policy_of

# From policy, settings and what a forward says of the N wanted positions, which of these commit,
# and which of them were forced: (N,) booleans on the device.
CommitRule = Callable[[Any, Any, Said], tuple[Tensor, Tensor]]
# From policy, settings, canvas and stop ids: has the next forward check tokens, put on the canvas.
Draft = Callable[[Any, Any, list[int], Sequence[int]], None]


def decode(
    model: Model,
    prompt_ids: Sequence[int],
    config: DecodeConfig,
    rule: CommitRule,
    draft: Draft | None = None,
    hold: Mapping[int, int] | None = None,
    inspect: bool = False,
) -> Iterator[StepEvent]:
    """One event a forward, lazily; the input is checked at once.

    Raises:
        InvalidInput: the model is of another kind, or prompt or held tokens cannot be decoded.
        ComputeError: in a step, whose event is not given: the model computed no numbers.
    """
    decoder = decoder_name(config)
    causal = kind_of(decoder).causal
    if model.config.causal != causal or (not causal and model.config.mask_id is None):
        needed = "a causal" if causal else "a diffusion"
        raise InvalidInput(f"decoder {decoder!r} needs {needed} model; {model.name!r} is not one")
    check_grid(model, config)
    ids = token_ids(prompt_ids)
    check_prompt(model, ids, config)
    given = held_tokens(model, config, hold)
    held = held_positions(model, len(ids), given)
    policy = policy_of(len(ids), config, held)
    # A causal model never reads what is undecided.
    canvas = ids + [model.config.mask_id or 0] * config.max_new_tokens
    for place, token_id in given:
        canvas[len(ids) + place] = token_id
    return _steps(model, canvas, policy, config, rule, draft, held, inspect)


def check_grid(model: Model, config: DecodeConfig) -> None:
    """``InvalidInput`` for blocks that start elsewhere than those the model was trained on."""
    own = model.config.grid
    if isinstance(config, D2FConfig) and config.grid != own:
        raise InvalidInput(
            f"grid must be {own!r}, as model {model.name!r} was trained, got {config.grid!r}"
        )
    if isinstance(config, VanillaConfig) and own != "prompt":
        raise InvalidInput(
            f"model {model.name!r} was trained with blocks that see none behind them, and decoder "
            "'vanilla' shows every token all others: decode it with 'd2f'"
        )


def _steps(
    model: Model,
    canvas: list[int],
    policy: Policy,
    config: DecodeConfig,
    rule: CommitRule,
    draft: Draft | None,
    held: Held,
    inspect: bool,
) -> Iterator[StepEvent]:
    started = now(model.device)
    generator = new_generator(model, config.seed)
    memory = Memory(config)
    with open_windows(model, len(canvas), config) as windows:
        for step in count():
            if draft is not None:
                draft(policy, config, canvas, model.tokenizer.stop_ids)
            plan = policy.plan()
            with computing_with(model.threads), torch.inference_mode():
                windows.begin(plan.window[0])
                logits = windows.logits(canvas[slice(*plan.window)], plan)
                logits, finite = forbid(logits, model.forbidden)
                logits = keep_going(logits, plan.wanted, held, model.tokenizer.stop_ids)
                tokens, confidence = choose(logits, config, generator)
                confidence = confidence.where(finite, torch.nan)
                said = memory.said(plan.wanted, logits, tokens, confidence)
                commit, forced = rule(policy, config, said)
                rows = read(
                    tokens, confidence, commit, forced, *(likeliest(logits) if inspect else ())
                )
            # On the host, where the confidences are now: a check on the device would wait again.
            check_finite([row[1] for row in rows], model.dtype)
            commits = commits_of(plan.wanted, rows)
            for each in commits:
                canvas[each.position] = each.token_id
            stops = [c.position for c in commits if c.token_id in model.tokenizer.stop_ids]
            blocks = policy.record([c.position for c in commits], stops)
            reason = policy.finish_reason
            # Reading the decisions waited for the device.
            seconds = time.perf_counter() - started
            yield StepEvent(
                step,
                seconds,
                plan.window,
                commits,
                blocks,
                policy.cached,
                reason,
                # Behind a wrong draft no guess is the model's.
                guesses_of(plan.wanted, rows) if inspect and not plan.drafted else (),
                plan.drafted,
            )
            started = time.perf_counter()
            if reason is not None:
                return


Rows = Sequence[Sequence[float]]
"""Of each wanted position: token, confidence, whether it commits, whether it was forced; and in an
inspected run ids and probabilities of the likeliest tokens."""


def commits_of(wanted: Sequence[int], rows: Rows) -> tuple[Commit, ...]:
    """What a step decided."""
    return tuple(
        Commit(position, int(token), value, bool(forced), pairs(likely))
        for position, (token, value, chosen, forced, *likely) in zip(wanted, rows, strict=True)
        if chosen
    )


def pairs(likely: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Ids with their probabilities, from all ids followed by all probabilities."""
    half = len(likely) // 2
    return tuple(zip(map(int, likely[:half]), likely[half:], strict=True))


def guesses_of(wanted: Sequence[int], rows: Rows) -> tuple[Guess, ...]:
    """What a step would have decided for the positions it left undecided."""
    return tuple(
        Guess(position, int(token), value)
        for position, (token, value, chosen, *_) in zip(wanted, rows, strict=True)
        if not chosen
    )
