"""From logits to decisions: which token, how confident, and which positions commit.

Tensors in, tensors out; no host synchronisation. Knows nothing of blocks beyond a row number each.
"""

import torch
from torch import Tensor

from d2f.config import DecodeConfig

CANDIDATES = 5  # of an inspected run, a position


def forbid(logits: Tensor, forbidden: Tensor) -> tuple[Tensor, Tensor]:
    """Logits where the ids that (V,) ``forbidden`` names cannot be chosen.

    Returns:
        (N, V) logits in float32, and (N,) whether those of all other ids are finite: an infinite
        one is a number too large for the dtype, and a NaN what came of such numbers.
    """
    logits = logits.float().masked_fill_(forbidden, 0)
    least, most = logits.aminmax(dim=-1)
    return logits.masked_fill_(forbidden, -torch.inf), (most - least).isfinite()


def choose(
    logits: Tensor, settings: DecodeConfig, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """(N,) token ids and (N,) confidences from (N, V) float32 logits.

    Confidence is the model's own probability of the chosen token, before temperature, top-k and
    top-p: sharper sampling must not pass for more certainty. (The released code takes it after.)
    """
    probabilities = logits.softmax(-1)
    if settings.temperature == 0:
        confidence, tokens = probabilities.max(-1)
        return tokens, confidence
    shaped = truncate(logits / settings.temperature, settings.top_k, settings.top_p)
    # torch.multinomial's own draw, without its check of the probabilities on the host.
    noise = torch.empty_like(shaped).exponential_(1, generator=generator)
    tokens = (shaped.softmax(-1) / noise).argmax(-1, keepdim=True)
    return tokens[:, 0], probabilities.gather(-1, tokens)[:, 0]


def likeliest(logits: Tensor) -> tuple[Tensor, ...]:
    """The best tokens of (N, V) logits: (N,) ids, best first, then as many (N,) probabilities."""
    best = logits.softmax(-1).topk(min(CANDIDATES, logits.shape[-1]), dim=-1)
    return (*best.indices.unbind(-1), *best.values.unbind(-1))


def truncate(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Keep the ``top_k`` best (0: all), then the smallest set of probability >= ``top_p``."""
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return logits


def select(sure: Tensor, score: Tensor, rows: Tensor, force: Tensor) -> tuple[Tensor, Tensor]:
    """Which masked positions commit (paper section 4.3): those that are sure.

    A fully activated block with none commits its single best, so that no step is idle.

    Args:
        sure: (N,) of the masked positions, booleans.
        score: (N,) what the best one has most of.
        rows: (N,) the block each belongs to, 0 .. W - 1.
        force: (W,) True for fully activated blocks.

    Returns:
        (N,) commit and (N,) forced, booleans.
    """
    per_block = torch.zeros(force.shape[0], dtype=torch.long, device=rows.device)
    some = per_block.index_add(0, rows, sure.long()) > 0
    own = rows[None] == torch.arange(force.shape[0], device=rows.device)[:, None]  # (W, N)
    best = score[None].masked_fill(~own, -torch.inf).argmax(-1)  # (W,) first of equals
    is_best = best[rows] == torch.arange(rows.shape[0], device=rows.device)
    forced = is_best & (force & ~some)[rows]
    return sure | forced, forced
