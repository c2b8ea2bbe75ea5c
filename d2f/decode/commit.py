"""Commit rules: which of a forward's wanted positions keep the token the model gives them.

Each is a function of the policy, the settings and the (N,) confidences of the wanted positions to
(N,) booleans, committed and forced, on the device and without waiting for it.
"""

import torch
from torch import Tensor

from d2f.config import D2FConfig, DecodeConfig, VanillaConfig
from d2f.events import FULLY_ACTIVATED
from d2f.nn.attention import send
from d2f.nn.sampling import select
from d2f.policy import BlockPipeline, Policy


def confident(
    policy: BlockPipeline, config: D2FConfig, confidence: Tensor
) -> tuple[Tensor, Tensor]:
    """D2F's: all above tau_conf; a fully activated block with none keeps its best, forced."""
    active = [block for block in policy.uncached if block.masked]
    rows = torch.tensor([row for row, block in enumerate(active) for _ in block.masked])
    force = torch.tensor([block.state == FULLY_ACTIVATED for block in active])
    device = confidence.device
    return select(confidence, send(rows, device), send(force, device), config.tau_conf)


def best(policy: Policy, config: VanillaConfig, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Vanilla diffusion's: the ``tokens_per_step`` most confident; the rest is masked again."""
    kept = confidence.topk(min(config.tokens_per_step, len(confidence))).indices
    none = torch.zeros_like(confidence, dtype=torch.bool)
    return none.index_fill(0, kept, True), none


def all_wanted(policy: Policy, config: DecodeConfig, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Autoregression's: whatever was wanted is decided."""
    none = torch.zeros_like(confidence, dtype=torch.bool)
    return ~none, none
