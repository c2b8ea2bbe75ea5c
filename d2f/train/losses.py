"""Training losses, computed at the positions that bear one: the head never sees the others.

Distillation (arXiv 2508.09192, Eq. 3 and Algorithm 1): teacher and student read the same noisy
sequence, the teacher with every block of a window in sight, the student block-causally.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from d2f.errors import InvalidInput
from d2f.nn.transformer import Transformer
from d2f.train.data import NO_LOSS, Batch

SHORT = 128  # tokens a row


def sight(batch: Batch, *, foresight: bool) -> Tensor:
    """(B, T, T) mask, True where a row may look; with foresight, to the end of its window."""
    keys = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    first, block_end, window_end = batch.windows[..., None].unbind(2)
    last = window_end if foresight else block_end
    return (keys < batch.ends[..., None]) | ((keys >= first) & (keys < last))


def positions(batch: Batch) -> Tensor:
    """(B, T) positions: a window begins where the context it sees ends; padding stands at 0."""
    index = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    first, window_end = batch.windows[..., 0], batch.windows[..., 2]
    own = torch.where(window_end > 0, batch.ends + index - first, index)
    return torch.where(index < batch.lengths[:, None], own, 0)


def kernel(batch: Batch) -> AbstractContextManager[None]:
    """How attention is computed: on a CPU, torch's own kernel loses on short rows.

    With rows of some 60 tokens its gradient takes a third of a step (4,000 tokens/s without it,
    3,000 with it, on a core with AMX); with rows of some 300, plain products are the slower ones.
    """
    short = batch.ids.device.type == "cpu" and batch.ids.shape[1] <= SHORT
    return sdpa_kernel(SDPBackend.MATH) if short else nullcontext()


def hidden_states(
    net: Transformer, batch: Batch, *, foresight: bool = False, recompute: bool = False
) -> Tensor:
    """(B, T, hidden_size): the network's layers under a batch's sight and positions.

    ``recompute``: for the gradient, layers are computed again from their inputs, which alone are
    kept.
    """
    groups = net.config.num_heads // net.config.num_kv_heads
    mask = sight(batch, foresight=foresight).repeat(1, groups, 1)[:, None]
    x = net.embed_tokens(batch.ids)
    where = positions(batch)
    cos, sin = (table[where] for table in net.rotary(0, net.config.max_length, x.dtype))
    with kernel(batch):
        for layer in net.layers:
            if recompute:
                # Computed again outside of this context, it enters one of its own.
                x = checkpoint(
                    layer,
                    *(x, (cos, sin), mask, None, 0),
                    use_reentrant=False,
                    context_fn=lambda: (nullcontext(), kernel(batch)),
                )
            else:
                x = layer(x, (cos, sin), mask, None, 0)
    out: Tensor = net.norm(x)
    return out


def target_logits(net: Transformer, batch: Batch, *, foresight: bool = False) -> Tensor:
    """(N, V) logits for the N labelled positions."""
    return net.logits(target_states(net, batch, foresight=foresight))


def target_states(
    net: Transformer, batch: Batch, *, foresight: bool = False, recompute: bool = False
) -> Tensor:
    """(N, hidden_size) states that the N labelled positions are predicted from.

    With logit shift a position is predicted from the one before it: for the first of a window,
    the last one of its context.
    """
    hidden = hidden_states(net, batch, foresight=foresight, recompute=recompute)
    row, source = (batch.labels != NO_LOSS).nonzero().unbind(1)
    if net.config.logit_shift:
        window = batch.windows[row, source]
        opens = (window[:, 2] > 0) & (window[:, 0] == source)
        source = torch.where(opens, batch.ends[row, source], source) - 1
    return hidden[row, source]


def targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """(N,) labels in the order of :func:`target_logits`, and their shares of the loss."""
    labelled = batch.labels != NO_LOSS
    weights = batch.weights[labelled]
    return batch.labels[labelled], weights / weights.sum()


def data_loss(net: Transformer, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy of the labels."""
    return cross_entropy(target_logits(net, batch), batch)


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    labels, shares = targets(batch)
    return (F.cross_entropy(logits, labels, reduction="none") * shares).sum()


def divergence(teacher: Tensor, student: Tensor, direction: str) -> Tensor:
    """(N,) KL divergences between the rows of two (N, V) logit tables.

    "forward" is KL(teacher || student), as the released code trains; "reverse" is
    KL(student || teacher), as the paper writes.
    """
    log_t, log_s = teacher.log_softmax(-1), student.log_softmax(-1)
    if direction == "forward":
        return F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(-1)
    if direction == "reverse":
        return F.kl_div(log_t, log_s, reduction="none", log_target=True).sum(-1)
    raise InvalidInput(f"direction must be 'forward' or 'reverse', got {direction!r}")


def distillation_loss(
    teacher: Transformer, student: Transformer, batch: Batch, share: float, direction: str
) -> Tensor:
    """``share`` of teacher divergence plus ``1 - share`` of cross-entropy on the data.

    The teacher sees each window whole, the student up to the end of the block.
    """
    logits = target_logits(student, batch)
    loss = (1 - share) * cross_entropy(logits, batch)
    if share:
        with torch.no_grad():
            soft = target_logits(teacher, batch, foresight=True)
        _, shares = targets(batch)
        loss = loss + share * (divergence(soft, logits, direction) * shares).sum()
    return loss
