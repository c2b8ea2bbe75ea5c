"""Tokens of an answer that are given before it is decoded: for infilling, and to ask "what if?".

A place counts the answer's tokens from 0. Decoded tokens see held ones as far as their blocks let
them: in the same block both ways, and in earlier blocks.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from d2f.config import DecodeConfig, is_int
from d2f.errors import InvalidInput, shown
from d2f.model import Model
from d2f.policy import Held

HeldTokens = tuple[tuple[int, int], ...]


def held_tokens(model: Model, config: DecodeConfig, hold: Mapping[int, int] | None) -> HeldTokens:
    """Pairs of place and token id, ascending.

    Raises:
        InvalidInput: a place lies outside the answer, an id is none of the model's, or nothing is
            left to decode.
    """
    hold = {} if hold is None else hold
    for place, token_id in hold.items():
        if not is_int(place) or not 0 <= place < config.max_new_tokens:
            raise InvalidInput(
                f"hold must name places from 0 to max_new_tokens - 1 = {config.max_new_tokens - 1},"
                f" got {shown(place)}"
            )
        known = is_int(token_id) and token_id in model.tokenizer.ids
        if not known or token_id in model.mask_ids:
            raise InvalidInput(
                f"hold must give token ids of the model, got {shown(token_id)} at {place}"
            )
    stops = [place for place, token_id in hold.items() if token_id in model.tokenizer.stop_ids]
    if all(place in hold for place in range(min(stops, default=config.max_new_tokens))):
        raise InvalidInput("hold must leave a place to decode before the answer's end")
    return tuple(sorted(hold.items()))


def held_positions(model: Model, prompt_length: int, held: HeldTokens) -> Held:
    """What a policy has to know of them."""
    stops = [place for place, token_id in held if token_id in model.tokenizer.stop_ids]
    return Held(
        frozenset(prompt_length + place for place, _ in held),
        frozenset(prompt_length + place for place in stops),
    )


def keep_going(
    logits: Tensor, wanted: Sequence[int], held: Held, stop_ids: Sequence[int]
) -> Tensor:
    """(N, V) logits where no position before the last held one can end the answer."""
    before = bisect_left(wanted, max(held.positions, default=0))
    if before:
        known = [token_id for token_id in stop_ids if token_id < logits.shape[-1]]
        logits[:before, known] = -torch.inf
    return logits
