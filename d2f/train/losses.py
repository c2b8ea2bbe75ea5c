"""Training losses, computed at the positions that bear one: the head never sees the others.

Distillation (arXiv 2508.09192, Eq. 3 and Algorithm 1): teacher and student read the same noisy
sequence, the teacher with every block in sight, the student block-causally.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from d2f.model import Transformer
from d2f.train.data import NO_LOSS, Batch


def target_logits(net: Transformer, batch: Batch, ends: Tensor) -> Tensor:
    """(N, V) logits for the N labelled positions under these visible ends (B, T)."""
    hidden = net(batch.ids, ends).flatten(0, 1)
    positions = (batch.labels != NO_LOSS).flatten().nonzero()[:, 0]
    return net.logits(hidden[positions - int(net.config.logit_shift)])


def targets(batch: Batch) -> Tensor:
    """(N,) labels in the order of :func:`target_logits`."""
    return batch.labels[batch.labels != NO_LOSS]


def data_loss(net: Transformer, batch: Batch) -> Tensor:
    """Mean cross-entropy of the labels."""
    return F.cross_entropy(target_logits(net, batch, batch.ends), targets(batch))


def divergence(teacher: Tensor, student: Tensor, direction: str) -> Tensor:
    """Mean KL divergence between two (N, V) logit tables.

    "forward" is KL(teacher || student), as the released code trains; "reverse" is
    KL(student || teacher), as the paper writes.
    """
    log_t, log_s = teacher.log_softmax(-1), student.log_softmax(-1)
    if direction == "forward":
        return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
    if direction == "reverse":
        return F.kl_div(log_t, log_s, reduction="batchmean", log_target=True)
    raise ValueError(f"direction must be 'forward' or 'reverse', got {direction!r}")


def distillation_loss(
    teacher: Transformer, student: Transformer, batch: Batch, share: float, direction: str
) -> Tensor:
    """``share`` of teacher divergence plus ``1 - share`` of cross-entropy on the data.

    The teacher sees the whole row (its full length), the student ``batch.ends``.
    """
    logits = target_logits(student, batch, batch.ends)
    loss = (1 - share) * F.cross_entropy(logits, targets(batch))
    if share:
        with torch.no_grad():
            full = batch.lengths[:, None].expand_as(batch.ends)
            soft = target_logits(teacher, batch, full)
        loss = loss + share * divergence(soft, logits, direction)
    return loss
