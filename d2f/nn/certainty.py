"""Commit rules: which positions a forward is sure enough of, and how sure of each.

A rule is a function of the settings, of what a forward says of its N wanted positions and of their
blocks, to (N,) booleans, sure, and (N,) numbers to rank positions by, larger for surer. Tensors in,
tensors out; no host synchronisation. What must commit though nothing is sure is the decoder's part
(:mod:`d2f.decode.commit`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d2f.config import DecodeConfig, DiffusionConfig
from d2f.nn.attention import send


@dataclass(frozen=True)
class Said:
    """What a forward says of N wanted positions.

    Attributes:
        logits: (N, V) in float32; ids that can never be chosen are at minus infinity.
        tokens: (N,) ids that were chosen.
        confidence: (N,) the model's own probabilities of these.
        steady: (N,) for how many forwards running each was like the one before it; zeros under a
            rule that compares none.
    """

    logits: Tensor
    tokens: Tensor
    confidence: Tensor
    steady: Tensor

    def at(self, rows: Tensor) -> "Said":
        """What it says of (M,) of them."""
        own = (self.logits, self.tokens, self.confidence, self.steady)
        return Said(*(each[rows] for each in own))


@dataclass(frozen=True)
class Blocks:
    """``rows`` (N,): the block of each position, 0 .. W - 1. ``force`` (W,): it must commit."""

    rows: Tensor
    force: Tensor

    @property
    def own(self) -> Tensor:
        """(W, N) whether the position is the block's."""
        return self.rows[None] == torch.arange(len(self.force), device=self.rows.device)[:, None]


Judged = tuple[Tensor, Tensor]
Rule = Callable[[DiffusionConfig, Said, Blocks], Judged]


def by_confidence(config: DiffusionConfig, said: Said, blocks: Blocks) -> Judged:
    """D2F's own (arXiv 2508.09192, section 4.3): above ``tau_conf``, strictly."""
    return said.confidence > config.tau_conf, said.confidence


def by_entropy(config: DiffusionConfig, said: Said, blocks: Blocks) -> Judged:
    """d3LLM's (arXiv 2601.07568): less entropy than ``max_entropy``."""
    spread = entropy(said.logits)
    return spread < config.max_entropy, -spread


def by_entropy_bound(config: DiffusionConfig, said: Said, blocks: Blocks) -> Judged:
    """EB-Sampler's set (arXiv 2505.24857, section 4): the surest of a block, as many as the bound.

    What is decided together may err together by at most the sum of the entropies less the largest,
    which in a block that must commit is to stay within ``entropy_bound``. Others commit nothing
    that they need not: there the whole sum is.
    """
    spread, own = entropy(said.logits), blocks.own
    ascending, order = spread.expand(own.shape).masked_fill(~own, torch.inf).sort(dim=-1)
    before = ascending.cumsum(-1) - ascending
    total = torch.where(blocks.force[:, None], before, before + ascending)
    # The first of all alone is no set: sure only if it is by itself.
    total[:, 0] = ascending[:, 0]
    within = ascending.isfinite() & (total <= config.entropy_bound)
    sure = torch.zeros_like(own).scatter(-1, order, within)
    return (sure & own).any(0), -spread


def by_steadiness(config: DiffusionConfig, said: Said, blocks: Blocks) -> Judged:
    """Rules stability and klass: above ``tau_conf`` and steady for ``stable_steps`` forwards."""
    steady = said.steady >= config.stable_steps
    return steady & (said.confidence > config.tau_conf), said.confidence


def never(config: DiffusionConfig, said: Said, blocks: Blocks) -> Judged:
    """Rule best: nothing is sure, so that only what must be decided is."""
    return torch.zeros_like(said.confidence, dtype=torch.bool), said.confidence


RULES: dict[str, Rule] = {
    "confidence": by_confidence,
    "entropy": by_entropy,
    "entropy-bound": by_entropy_bound,
    "stability": by_steadiness,
    "klass": by_steadiness,
    "best": never,
}


def judge(config: DiffusionConfig, said: Said, blocks: Blocks) -> Judged:
    """What the settings' rule says."""
    return RULES[config.rule](config, said, blocks)


def entropy(logits: Tensor) -> Tensor:
    """(N,) in nats, of (N, V) logits."""
    nats: Tensor = torch.special.entr(logits.softmax(-1)).sum(-1)
    return nats


def divergence(logits: Tensor, earlier: Tensor) -> Tensor:
    """(N,) KL divergence in nats of (N, V) logits' distributions from those of earlier ones."""
    ratio = logits.log_softmax(-1) - earlier.log_softmax(-1)
    shares = logits.softmax(-1)
    return torch.where(shares > 0, shares * ratio, 0).sum(-1)


def same_token(config: DiffusionConfig, now: Said, earlier: Said) -> Tensor:
    """(N,) whether both forwards choose the same token."""
    return now.tokens == earlier.tokens


def same_distribution(config: DiffusionConfig, now: Said, earlier: Said) -> Tensor:
    """(N,) whether the distribution moved by less than ``max_kl``: KLASS (arXiv 2511.05664)."""
    return divergence(now.logits, earlier.logits) < config.max_kl


SAME = {"stability": same_token, "klass": same_distribution}


class Memory:
    """What the last forward of a run said, for rules that compare forwards."""

    def __init__(self, config: DecodeConfig) -> None:
        self._config = config
        self._rows: dict[int, int] = {}
        self._last: Said | None = None

    def said(
        self, positions: Sequence[int], logits: Tensor, tokens: Tensor, confidence: Tensor
    ) -> Said:
        """What this forward says of the positions, and in how many running it was the same."""
        now = Said(logits, tokens, confidence, torch.zeros_like(tokens))
        config = self._config
        if not isinstance(config, DiffusionConfig) or config.rule not in SAME:
            return now
        if self._last is not None:
            rows = [self._rows.get(position, -1) for position in positions]
            index = send(torch.tensor(rows), tokens.device)
            earlier = self._last.at(index)
            same = SAME[config.rule](config, now, earlier) & (index >= 0)
            now = replace(now, steady=torch.where(same, earlier.steady + 1, 0))
        self._rows = {position: row for row, position in enumerate(positions)}
        self._last = now
        return now
