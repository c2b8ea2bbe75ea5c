"""Decoding settings: one frozen, validated type per decoder, so that no field is ever ignored.

Each setting is declared once, with its limits and its words (:class:`Setting`): the command line,
the page, links and recordings read them there. Knows nothing of tensors or models. Names and
defaults follow the paper (arXiv 2508.09192, section 4.3 and Table 8).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, get_args

from d2f.errors import InvalidInput, shown


@dataclass(frozen=True)
class Setting:
    """What is known of one setting.

    Attributes:
        label: its name for people.
        text: what it does, in a sentence.
        rule: what its values must be, in words; ``holds`` says whether one is.
        most: the largest value that a race to be shared may have.
        choices: all its values, where these are a few words.
    """

    label: str
    text: str
    rule: str
    holds: Callable[[Any], bool]
    most: float = math.inf
    choices: tuple[str, ...] = ()


# Shared links leave out what has its default: a default that changes needs a new format there.
def _setting(default: Any, setting: Setting) -> Any:
    return field(default=default, metadata={"setting": setting})


def _plain(value: object) -> object:
    """A number, numpy's too, as one of Python's own; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def is_int(value: object) -> bool:
    """Whether it is an integer; ``True`` and ``False``, which Python counts as such, are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _count(
    default: int | None, label: str, text: str, *, least: int = 1, most: float = math.inf
) -> Any:
    """A whole number; one whose default is None may be left out."""

    def holds(value: Any) -> bool:
        return (value is None and default is None) or (is_int(value) and value >= least)

    return _setting(default, Setting(label, text, f"an integer >= {least}", holds, most))


def _number(
    default: float, label: str, text: str, *, low: float, high: float, open_low: bool = False
) -> Any:
    def holds(value: Any) -> bool:
        return _is_number(value) and (low < value if open_low else low <= value) and value <= high

    rule = f"in {'(' if open_low else '['}{low:g}, {high:g}]"
    return _setting(default, Setting(label, text, rule, holds))


def _flag(default: bool, label: str, text: str) -> Any:
    return _setting(default, Setting(label, text, "a bool", lambda value: isinstance(value, bool)))


def _choice(default: str, choices: tuple[str, ...], label: str, text: str) -> Any:

    def holds(value: Any) -> bool:
        return isinstance(value, str) and value in choices

    return _setting(
        default, Setting(label, text, f"one of {', '.join(choices)}", holds, choices=choices)
    )


MAX_TOKENS = 4096  # the longest answer that can be shared


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """A decoder's settings: those every decoder has.

    ``temperature=0`` is greedy; the seed then has no effect.
    """

    max_new_tokens: int = _count(
        512, "Max new tokens", "The longest answer, in tokens.", most=MAX_TOKENS
    )
    temperature: float = _number(
        0.0, "Temperature", "0 takes the likeliest token; more adds chance.", low=0, high=10
    )
    top_p: float = _number(
        1.0,
        "top_p",
        "Choose among the likeliest tokens of this total probability (1: all).",
        low=0,
        high=1,
        open_low=True,
    )
    top_k: int = _count(
        0, "top_k", "Choose among this many likeliest tokens (0: all).", least=0, most=2**31 - 1
    )
    seed: int = _count(
        0,
        "Seed",
        "Makes chance repeatable. No effect at temperature 0.",
        least=0,
        most=2**63 - 1,
    )

    def __post_init__(self) -> None:
        for name, setting in settings_of(type(self)).items():
            value = _plain(getattr(self, name))
            if not setting.holds(value):
                raise InvalidInput(f"{name} must be {setting.rule}, got {shown(value)}")
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True)
class ARConfig(DecodeConfig):
    """Autoregressive decoding over a KV cache: one token a forward, or several that were drafted.

    With ``prompt_lookup``, as many tokens as that are drafted for each forward: those behind the
    latest earlier place where the last ``lookup_ngram`` tokens stand, or fewer. The forward keeps
    the drafted ones that it would have chosen, and one more. Lossless: greedy, the same tokens.
    """

    prompt_lookup: int = _count(
        0,
        "Prompt lookup",
        "Tokens that the AR lane drafts a forward, from earlier text (0: none).",
        least=0,
        most=MAX_TOKENS,
    )
    lookup_ngram: int = _count(
        2,
        "Lookup n-gram",
        "How many of the last tokens, at most, must stand before what is drafted.",
        most=MAX_TOKENS,
    )


COMMIT_RULES = ("confidence", "entropy", "entropy-bound", "stability", "klass", "best")
_RULE = (
    "When a token is decided: confidence (it exceeds tau_conf), entropy (below max_entropy), "
    "entropy-bound (the surest, whose entropies add up to the bound), stability (the same token in "
    "consecutive forwards, above tau_conf), klass (hardly another distribution in consecutive "
    "forwards, above tau_conf), best (only what must be decided)."
)


def _rule(default: str) -> Any:
    return _choice(default, COMMIT_RULES, "Commit rule", _RULE)


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(DecodeConfig):
    """What all decoders of masked positions have: ``rule``, and the thresholds of each rule.

    A threshold counts under the rules that its text names. See :mod:`d2f.nn.certainty`.
    """

    rule: str = _rule("confidence")
    tau_conf: float = _number(
        0.9, "tau_conf", "A token is committed when its probability exceeds this.", low=0, high=1
    )
    max_entropy: float = _number(
        0.4,
        "Max entropy",
        "Rule entropy: a token is committed when its distribution has less, in nats.",
        low=0,
        high=20,
    )
    entropy_bound: float = _number(
        0.1,
        "Entropy bound",
        "Rule entropy-bound: what the entropies of a block's tokens may add up to, in nats.",
        low=0,
        high=1000,
    )
    max_kl: float = _number(
        0.01,
        "Max KL",
        "Rule klass: how far a distribution may be from the last forward's, in nats.",
        low=0,
        high=1000,
    )
    stable_steps: int = _count(
        1,
        "Stable steps",
        "Rules stability and klass: in how many forwards running nothing must have changed.",
        most=MAX_TOKENS,
    )


@dataclass(frozen=True, kw_only=True)
class VanillaConfig(DiffusionConfig):
    """LLaDA-style low-confidence remasking over the whole canvas, no cache.

    ``tokens_per_step`` tokens, the surest, are committed a forward, inside the leftmost unfinished
    block of ``block_size`` (None: the whole canvas is one block). LLaDA (arXiv 2502.09992), section
    2.4. Under another rule than "best", all that it holds sure are committed as well: with
    "confidence", Fast-dLLM's parallel decoding (arXiv 2505.22618).
    """

    rule: str = _rule("best")
    tokens_per_step: int = _count(
        1, "Tokens per step", "Tokens committed a forward, at least.", most=MAX_TOKENS
    )
    block_size: int | None = _count(None, "Block size", "Tokens a block.", most=MAX_TOKENS)


@dataclass(frozen=True, kw_only=True)
class FastPrefixConfig(VanillaConfig):
    """Fast-dLLM with its prefix cache (arXiv 2505.22618): vanilla diffusion over an inexact cache.

    Keys and values of all that stands before a block are kept from its first forward.
    """

    rule: str = _rule("confidence")
    block_size: int = _count(32, "Block size", "Tokens a block.", most=MAX_TOKENS)


@dataclass(frozen=True, kw_only=True)
class FastDualConfig(FastPrefixConfig):
    """Fast-dLLM with its dual cache: those of all that stands behind the block are kept as well."""


# Where the grid of blocks starts: at the prompt's end, and the prompt is one block, seen both ways
# (D2F); at position 0, and the prompt is in blocks as well; or at the prompt's length modulo the
# block's, so that a block ends with the prompt. What a checkpoint was trained on decides.
GRIDS = ("prompt", "start", "remainder")


@dataclass(frozen=True, kw_only=True)
class D2FConfig(DiffusionConfig):
    """Pipelined parallel decoding (arXiv 2508.09192, Algorithm 2).

    A block is appended when the last one's decoded ratio reaches ``tau_add``; it is fully
    activated when its predecessor's reaches ``tau_act``; a token commits when its confidence
    exceeds ``tau_conf``, unless another ``rule`` decides. ``max_active_blocks`` bounds the
    unfinished blocks in flight (None: unbounded, as released). ``early_stop=False`` decodes open
    blocks behind a stop token to their end, as released. ``grid`` is one of :data:`GRIDS`, the
    model's own.
    """

    block_size: int = _count(
        32, "Block size", "Tokens a block. D2F refines several blocks at once.", most=MAX_TOKENS
    )
    tau_add: float = _number(
        0.1,
        "tau_add",
        "A new block joins once this share of the last one is decided.",
        low=0,
        high=1,
        open_low=True,
    )
    tau_act: float = _number(
        0.95,
        "tau_act",
        "Past this share, the next block commits at least one token a step.",
        low=0,
        high=1,
        open_low=True,
    )
    max_active_blocks: int | None = _count(
        None,
        "Max active blocks",
        "Unfinished blocks in flight (none or empty: no limit).",
        most=MAX_TOKENS,
    )
    early_stop: bool = _flag(
        True, "Early stop", "End once everything before the first stop token is decided."
    )
    grid: str = _choice(
        "prompt",
        GRIDS,
        "Grid of blocks",
        "Where blocks start, as the model was trained: prompt (at its end), start (of the text), "
        "or remainder (such that a block ends with the prompt).",
    )


CONFIGS: dict[str, type[DecodeConfig]] = {
    "d2f": D2FConfig,
    "ar": ARConfig,
    "vanilla": VanillaConfig,
    "fast-dllm-prefix": FastPrefixConfig,
    "fast-dllm-dual": FastDualConfig,
}


def settings_of(kind: type[DecodeConfig]) -> dict[str, Setting]:
    """The settings of a config type by name, in the order of its fields."""
    return {field.name: field.metadata["setting"] for field in fields(kind)}


def value_kinds(kind: type[DecodeConfig], name: str) -> tuple[type, ...]:
    """The types a setting's value may have; ``NoneType`` among them where it may be left out."""
    [declared] = (field.type for field in fields(kind) if field.name == name)
    return tuple(get_args(declared) or (declared,))


def decoder_name(config: DecodeConfig) -> str:
    """The name of the decoder a config belongs to, one of :data:`CONFIGS`."""
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
    known = settings_of(CONFIGS[decoder])
    unknown = sorted(set(values) - known.keys())
    if unknown:
        raise InvalidInput(f"unknown {decoder} settings {unknown}; known: {sorted(known)}")
    return CONFIGS[decoder](**values)
