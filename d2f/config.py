"""Decoding settings: one frozen, validated type per decoder, so that no field is ever ignored.

Knows nothing of tensors or models. Names and defaults follow the paper (arXiv 2508.09192,
section 4.3 and Table 8); ``DESIGN`` words: tau_add, tau_act, tau_conf.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from d2f.errors import InvalidInput


def _require(ok: bool, name: str, value: object, rule: str) -> None:
    if not ok:
        raise InvalidInput(f"{name} must be {rule}, got {value!r}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_count(name: str, value: object, least: int = 1) -> None:
    _require(_is_int(value) and value >= least, name, value, f"an integer >= {least}")


def _require_number(name: str, value: object, low: float, high: float, *, open_low: bool) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    inside = number and (low < value if open_low else low <= value) and value <= high
    _require(inside, name, value, f"in {'(' if open_low else '['}{low:g}, {high:g}]")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Fields every decoder shares. ``temperature=0`` is greedy; the seed then has no effect."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        _require_count("max_new_tokens", self.max_new_tokens)
        _require_number("temperature", self.temperature, 0, 10, open_low=False)
        _require_number("top_p", self.top_p, 0, 1, open_low=True)
        _require_count("top_k", self.top_k, least=0)
        _require_count("seed", self.seed, least=0)


@dataclass(frozen=True, kw_only=True)
class ARConfig(Sampling):
    """Autoregressive decoding: one token a forward over a KV cache."""


@dataclass(frozen=True, kw_only=True)
class VanillaConfig(Sampling):
    """LLaDA-style low-confidence remasking over the whole canvas, no cache.

    ``tokens_per_step`` tokens are committed a forward, inside the leftmost unfinished block of
    ``block_size`` (None: the whole canvas is one block). LLaDA (arXiv 2502.09992), section 2.4.
    """

    tokens_per_step: int = 1
    block_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_count("tokens_per_step", self.tokens_per_step)
        if self.block_size is not None:
            _require_count("block_size", self.block_size)


@dataclass(frozen=True, kw_only=True)
class D2FConfig(Sampling):
    """Pipelined parallel decoding (arXiv 2508.09192, Algorithm 2).

    A block is appended when the last one's decoded ratio reaches ``tau_add``; it is fully
    activated when its predecessor's reaches ``tau_act``; a token commits when its confidence
    exceeds ``tau_conf``. ``max_active_blocks`` bounds the unfinished blocks in flight (None:
    unbounded, as released). ``early_stop=False`` decodes open blocks behind a stop token to their
    end, as released.
    """

    block_size: int = 32
    tau_add: float = 0.1
    tau_act: float = 0.95
    tau_conf: float = 0.9
    max_active_blocks: int | None = None
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_count("block_size", self.block_size)
        _require_number("tau_add", self.tau_add, 0, 1, open_low=True)
        _require_number("tau_act", self.tau_act, 0, 1, open_low=True)
        _require_number("tau_conf", self.tau_conf, 0, 1, open_low=False)
        if self.max_active_blocks is not None:
            _require_count("max_active_blocks", self.max_active_blocks)
        _require(isinstance(self.early_stop, bool), "early_stop", self.early_stop, "a bool")


DecodeConfig = ARConfig | VanillaConfig | D2FConfig
CONFIGS: dict[str, type[DecodeConfig]] = {
    "d2f": D2FConfig,
    "ar": ARConfig,
    "vanilla": VanillaConfig,
}


def decoder_name(config: DecodeConfig) -> str:
    """The name of the decoder a config belongs to: ``"d2f"``, ``"ar"`` or ``"vanilla"``."""
    for name, kind in CONFIGS.items():
        if type(config) is kind:
            return name
    raise InvalidInput(f"config must be one of {sorted(CONFIGS)}, got {type(config).__name__}")


def config_to_dict(config: DecodeConfig) -> dict[str, Any]:
    """Plain JSON values, in field order."""
    return asdict(config)


def config_from_dict(decoder: str, values: dict[str, Any]) -> DecodeConfig:
    """Inverse of :func:`config_to_dict`; an unknown decoder or field raises ``ValueError``."""
    if decoder not in CONFIGS:
        raise InvalidInput(f"decoder must be one of {sorted(CONFIGS)}, got {decoder!r}")
    known = {field.name for field in fields(CONFIGS[decoder])}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InvalidInput(f"unknown {decoder} settings {unknown}; known: {sorted(known)}")
    return CONFIGS[decoder](**values)
