"""Which of a forward's wanted positions keep the token that the model gives them, by decoder.

Each is a function of the policy, the settings and what the forward says of the wanted positions to
(N,) booleans, committed and forced, on the device and without waiting for it. What is sure enough,
the settings' rule says (:mod:`d2f.nn.certainty`).
"""

import torch
from torch import Tensor

from d2f.config import D2FConfig, DecodeConfig, VanillaConfig
from d2f.events import FULLY_ACTIVATED
from d2f.nn.attention import send
from d2f.nn.certainty import Blocks, Said, judge
from d2f.nn.sampling import select
from d2f.policy import BlockPipeline, OneByOne, Policy


def confident(policy: BlockPipeline, config: D2FConfig, said: Said) -> tuple[Tensor, Tensor]:
    """D2F's: all that are sure; a fully activated block with none keeps its best, forced."""
    active = [block for block in policy.uncached if block.masked]
    rows = torch.tensor([row for row, block in enumerate(active) for _ in block.masked])
    force = torch.tensor([block.state == FULLY_ACTIVATED for block in active])
    device = said.tokens.device
    blocks = Blocks(send(rows, device), send(force, device))
    return select(*judge(config, said, blocks), blocks.rows, blocks.force)


def best(policy: Policy, config: VanillaConfig, said: Said) -> tuple[Tensor, Tensor]:
    """Vanilla diffusion's: the ``tokens_per_step`` best and all that are sure; the rest is masked.

    Forced are those of them that a rule, if there is one, does not hold sure.
    """
    nowhere = torch.zeros_like(said.tokens)
    sure, score = judge(config, said, Blocks(nowhere, torch.ones_like(nowhere[:1]).bool()))
    kept = score.topk(min(config.tokens_per_step, len(score))).indices
    none = torch.zeros_like(sure)
    commit = none.index_fill(0, kept, True) | sure
    return commit, none if config.rule == "best" else commit & ~sure


def all_wanted(policy: OneByOne, config: DecodeConfig, said: Said) -> tuple[Tensor, Tensor]:
    """Autoregression's: what was wanted is decided, up to the first that a wrong draft precedes."""
    none = torch.zeros_like(said.tokens, dtype=torch.bool)
    if not policy.drafts:
        return ~none, none
    drafts = send(torch.tensor(policy.drafts), said.tokens.device)
    right = (said.tokens[:-1] == drafts).cumprod(0).bool()
    return torch.cat((~none[:1], right)), none
