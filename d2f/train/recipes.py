"""One recipe per embedded model: shape, objective, budget."""

import math
from dataclasses import dataclass
from typing import Any

from d2f.errors import InvalidInput
from d2f.shape import ModelConfig
from d2f.train.vocabulary import VOCAB_SIZE

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "intermediate_size": 672,
    "num_layers": 6,
    "num_heads": 8,
    "num_kv_heads": 4,
    "head_dim": 32,
    "max_length": 1024,
    "logit_shift": True,
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained.

    ``init`` is a model folder or name whose weights are the start (None: random). The learning
    rate warms up over ``warmup`` tokens, stays, and falls linearly to zero over the last ``decay``
    share of ``tokens``. ``teacher_share`` weighs distillation against the data's labels.
    """

    objective: str  # "causal", "masked", "mixed" or "blocks"
    tokens: int
    init: str | None = None
    teacher: str | None = None
    teacher_share: float = 0.0
    direction: str = "forward"
    learning_rate: float = 2e-3
    warmup: int = 100_000
    decay: float = 0.4
    batch_tokens: int = 2048
    weight_decay: float = 0.05
    block_size: int = 16
    max_window: int = 4
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("tokens", "warmup", "batch_tokens", "block_size", "max_window"):
            require(getattr(self, name) >= 1, name, "at least 1", self)
        for name in ("learning_rate", "decay"):
            require(0 < getattr(self, name) < math.inf, name, "a number above 0", self)
        for name in ("teacher_share", "weight_decay"):
            require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", self)


def require(holds: bool, name: str, rule: str, recipe: Recipe) -> None:
    """``InvalidInput`` for a setting whose rule does not hold."""
    if not holds:
        raise InvalidInput(f"{name} must be {rule}, got {getattr(recipe, name)!r}")


RECIPES = {
    "mini-ar": Recipe(objective="causal", tokens=10_000_000),
    "mini-dllm": Recipe(objective="mixed", tokens=10_000_000, init="mini-ar", learning_rate=1.2e-3),
    "mini-d2f": Recipe(
        objective="blocks",
        tokens=10_000_000,
        init="mini-dllm",
        teacher="mini-dllm",
        teacher_share=0.5,
        learning_rate=1e-3,
        block_size=8,
    ),
}


def model_shape(recipe: Recipe, mask_id: int) -> ModelConfig:
    """The one shape all three share; causal models know no mask."""
    causal = recipe.objective == "causal"
    return ModelConfig(**SHAPE, causal=causal, mask_id=None if causal else mask_id)
