"""Muon: momentum whose update is orthogonalised, for the weight matrices of hidden layers.

Keller Jordan et al. 2024, with the update scaled to AdamW's typical size (arXiv 2502.16982), so
that both share one learning rate. torch.optim.Muon computes in bfloat16, which a CPU without native
bfloat16 emulates some ten times slower; this is the same iteration in the precision asked for.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5, precision: torch.dtype = torch.float32) -> Tensor:
    """Newton-Schulz: all singular values of ``matrix`` moved to about one (0.7 to 1.2)."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = (x / x.norm().clamp(min=1e-7)).to(precision)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """For 2-D parameters only; embeddings, heads and norms belong to AdamW."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                momentum = state["momentum_buffer"]
                momentum.mul_(group["momentum"]).add_(parameter.grad)
                ahead = parameter.grad.add(momentum, alpha=group["momentum"])  # Nesterov
                scale = group["lr"] * 0.2 * max(parameter.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                direction = orthogonalise(ahead, precision=self.precision)
                parameter.add_(direction, alpha=-scale)
