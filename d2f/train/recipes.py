"""One recipe per embedded model: shape, what it reads, objective, budget."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2f.errors import InvalidInput
from d2f.shape import ModelConfig

SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 672,
    "num_layers": 6,
    "num_heads": 8,
    "num_kv_heads": 4,
    "head_dim": 32,
    "max_length": 1024,
    "logit_shift": True,
}
DRILLS = "drills"
# Shares of examples by task. Of the problems, families with more to compute get more; talk's rows
# are short, so that its share of the tokens is smaller than that of the examples.
MIXTURES: dict[str, Mapping[str, float]] = {
    "mini": {
        "gsm-mini": 0.25,
        "math-mini": 0.38,
        "code-mini": 0.12,
        "sudoku-mini": 0.12,
        DRILLS: 0.13,
    },
    "talk": {
        "talk-talk": 0.18,
        "talk-itself": 0.05,
        "talk-facts": 0.12,
        "talk-advice": 0.04,
        "talk-fallback": 0.08,
        "talk-writing": 0.07,
        "talk-story": 0.05,
        "talk-sums": 0.10,
        "talk-code": 0.03,
        "talk-turns": 0.08,
        "gsm-mini": 0.05,
        "math-mini": 0.075,
        "code-mini": 0.025,
        "sudoku-mini": 0.025,
        DRILLS: 0.025,
    },
}
# Numbers a forward and its gradient are computed in; the weights themselves stay float32.
PRECISIONS = ("float32", "bfloat16")
OBJECTIVES = ("causal", "masked", "mixed", "blocks")
DIRECTIONS = ("forward", "reverse")
CHOICES = {
    "objective": OBJECTIVES,
    "mixture": tuple(MIXTURES),
    "precision": PRECISIONS,
    "direction": DIRECTIONS,
}
SHARES = ("causal_share", "teacher_share", "weight_decay")
COUNTS = ("tokens", "warmup", "batch_tokens", "block_size", "max_window", "vocab_size")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run trains, on how much at once, and how fast.

    The learning rate warms up over ``warmup`` tokens, stays, and falls linearly to zero over the
    last ``decay`` share of ``tokens``.
    """

    tokens: int
    learning_rate: float = 2e-3
    warmup: int = 100_000
    decay: float = 0.4
    batch_tokens: int = 2048
    weight_decay: float = 0.05
    precision: str = "float32"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if hasattr(self, name):
                require(getattr(self, name) in known, name, f"one of {sorted(known)}", self)
        for name in COUNTS:
            if hasattr(self, name):
                require(getattr(self, name) >= 1, name, "at least 1", self)
        for name in ("learning_rate", "decay"):
            require(0 < getattr(self, name) < math.inf, name, "a number above 0", self)
        for name in SHARES:
            if hasattr(self, name):
                require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", self)


@dataclass(frozen=True, kw_only=True)
class Recipe(Schedule):
    """How one embedded model is trained.

    ``init`` is a model folder or name whose weights are the start (None: random); its vocabulary
    grows to ``vocab_size`` over the texts of ``mixture``. ``causal_share`` of the examples are rows
    of next-token prediction, whatever the objective: they keep what the start has learnt of it.
    ``teacher_share`` weighs distillation against the labels of the data.
    """

    objective: str  # one of OBJECTIVES
    mixture: str = "mini"
    vocab_size: int = 1536
    causal_share: float = 0.0
    init: str | None = None
    teacher: str | None = None
    teacher_share: float = 0.0
    direction: str = "forward"
    block_size: int = 16
    max_window: int = 4


def require(holds: bool, name: str, rule: str, recipe: Schedule) -> None:
    """``InvalidInput`` for a setting whose rule does not hold."""
    if not holds:
        raise InvalidInput(f"{name} must be {rule}, got {getattr(recipe, name)!r}")


RECIPES: dict[str, Recipe] = {
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
TALK: dict[str, Any] = {
    "mixture": "talk",
    "vocab_size": 4096,
    "precision": "bfloat16",
    "batch_tokens": 2048,
    "warmup": 50_000,
    "block_size": 8,
}
RECIPES |= {
    "talk-ar": Recipe(
        objective="causal",
        tokens=5_000_000,
        init="mini-ar",
        learning_rate=1.5e-3,
        decay=0.6,
        seed=61,
        **TALK,
    ),
    "talk-d2f": Recipe(
        objective="blocks",
        tokens=8_000_000,
        init="mini-d2f",
        causal_share=0.1,
        learning_rate=1.2e-3,
        decay=0.6,
        seed=62,
        **TALK,
    ),
    "talk-dllm": Recipe(
        objective="mixed",
        tokens=2_000_000,
        init="talk-d2f",
        learning_rate=8e-4,
        decay=0.75,
        seed=63,
        **TALK,
    ),
}


def model_shape(recipe: Recipe, mask_id: int) -> ModelConfig:
    """The one shape all models of an edition share; causal models know no mask."""
    causal = recipe.objective == "causal"
    mask = None if causal else mask_id
    return ModelConfig(**SHAPE, vocab_size=recipe.vocab_size, causal=causal, mask_id=mask)
