"""Asymmetric distillation of a model into an adapter of its own (arXiv 2508.09192, section 4.2).

Teacher and student are the same weights, with the adapter off and on, and read the same noisy
answer: the teacher sees all of it, the student each block and what lies before it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from d2f.nn.transformer import Transformer
from d2f.train.data import NO_LOSS, Batch
from d2f.train.losses import divergence, target_states

CHUNK = 512  # labelled positions whose logits exist at once


def alignment_loss(
    net: Transformer,
    batch: Batch,
    teacher: Callable[[], AbstractContextManager[None]],
    *,
    share: float,
    direction: str,
    recompute: bool = False,
) -> Tensor:
    """``share`` of divergence from the teacher and ``1 - share`` of cross-entropy on the data.

    The mean over labelled positions of weight times loss, as the released code has it. Logits are
    made in chunks, and once more for the gradient, so that a vocabulary of 150,000 costs little.

    Args:
        teacher: makes ``net`` the teacher inside its context.
        recompute: keep only each layer's input, and compute the layer again for its gradient.
    """
    labelled = batch.labels != NO_LOSS
    labels, weights = batch.labels[labelled], batch.weights[labelled]
    states = target_states(net, batch, recompute=recompute)
    with torch.no_grad(), teacher():
        wise = target_states(net, batch, foresight=True) if share else states.detach()
    total = states.new_zeros(())
    for first in range(0, len(labels), CHUNK):
        part = slice(first, first + CHUNK)
        total = total + checkpoint(
            _weighted,
            *(net, states[part], wise[part], labels[part], weights[part], share, direction),
            use_reentrant=False,
        )
    return total / len(labels)


def _weighted(
    net: Transformer,
    states: Tensor,
    wise: Tensor,
    labels: Tensor,
    weights: Tensor,
    share: float,
    direction: str,
) -> Tensor:
    """The weighted sum of a chunk's losses."""
    logits = net.logits(states).float()
    loss = (1 - share) * F.cross_entropy(logits, labels, reduction="none")
    if share:
        loss = loss + share * divergence(net.logits(wise).float().detach(), logits, direction)
    return (loss * weights).sum()
