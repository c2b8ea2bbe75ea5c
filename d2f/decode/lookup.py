"""Prompt lookup: tokens drafted from earlier text, for a forward to check several at once.

What repeats, names and numbers of the question or lines of a program, is guessed without a model.
After arXiv 2304.04487 and transformers' ``prompt_lookup_num_tokens``. Lossless: each position is
chosen as ever, from all tokens before it, and a draft is kept where it is what was chosen.
"""

from collections.abc import Sequence
from itertools import takewhile

from d2f.config import ARConfig
from d2f.policy import OneByOne


def look_up(policy: OneByOne, config: ARConfig, canvas: list[int], stop_ids: Sequence[int]) -> None:
    """Draft tokens for the next forward, on the canvas and in the policy."""
    drafts = drafted(canvas[: policy.end], policy.room, config.lookup_ngram, stop_ids)
    canvas[policy.end : policy.end + len(drafts)] = drafts
    policy.draft(drafts)


def drafted(known: Sequence[int], count: int, ngram: int, stop_ids: Sequence[int]) -> list[int]:
    """Up to ``count`` tokens that stood behind the last ones before; none if they are new.

    The longest repeated end counts, of up to ``ngram`` tokens, where it stood last. A stop token is
    never drafted: what is behind it would be another text's.
    """
    if count < 1:
        return []
    for size in range(min(ngram, len(known) - 1), 0, -1):
        tail = known[-size:]
        for end in range(len(known) - 1, size - 1, -1):
            if known[end - 1] == tail[-1] and known[end - size : end] == tail:
                found = known[end : end + count]
                return list(takewhile(lambda token: token not in stop_ids, found))
    return []
