"""Decoding policies on integers: what each forward shows, what it decides, and when it ends.

A policy knows positions, never tensors, models or text. Every user of one repeats the same step:
:meth:`Policy.plan`, forward the plan's window, choose tokens for some of its wanted positions,
:meth:`Policy.record` them; until :attr:`Policy.finish_reason` is not None. The decoders do this
with a model; share links, recorded lanes and lanes of other engines do it without one.

A new decoder is a config type (:mod:`d2f.config`), a policy with its entry in :data:`KINDS`, and a
commit rule (:data:`d2f.decode.RULES`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from d2f.config import DecodeConfig, decoder_name
from d2f.errors import InvalidInput
from d2f.events import BlockView
from d2f.policy.one_by_one import OneByOne
from d2f.policy.pipelined import BlockPipeline, window_units
from d2f.policy.plan import NOTHING_HELD, Held, Plan
from d2f.policy.refreshing import DualCache, PrefixCache
from d2f.policy.remasking import Remasking

__all__ = [
    "KINDS",
    "BlockPipeline",
    "DualCache",
    "Held",
    "Kind",
    "OneByOne",
    "Plan",
    "Policy",
    "PrefixCache",
    "Remasking",
    "policy_of",
]


class Policy(Protocol):
    """The rules of one answer."""

    cached: int
    """Rows whose keys and values are final after the last plan's forward."""

    def plan(self) -> Plan:
        """The next forward. To be called once a step, while nothing has ended the answer."""

    def record(self, positions: Iterable[int], stops: Iterable[int]) -> tuple[BlockView, ...]:
        """Take in what the forward decided.

        Args:
            positions: the decided ones, of the plan's wanted positions.
            stops: those of them that hold a stop token.

        Returns:
            The blocks that were in the window, as they stand now.
        """

    @property
    def finish_reason(self) -> str | None:
        """ "stop" or "length" once nothing is left to decode, else None."""


@dataclass(frozen=True)
class Kind:
    """A kind of decoding.

    Attributes:
        label: its name for people.
        policy: makes the policy of an answer from the prompt's length, the settings and the held
            positions; raises ``InvalidInput`` if it cannot hold those.
        causal: it needs an autoregressive model; others need one with a mask token.
        units: rows a block and most blocks behind the prompt of its windows, which a compiled model
            pads to; None: its forwards hold whole canvases, and nothing in them is final.
        stale: what such a forward leaves in the cache is read all the same.
    """

    label: str
    policy: Callable[[int, Any, Held], Policy]
    causal: bool
    units: Callable[[Any], tuple[int, int]] | None
    stale: bool = False


KINDS: dict[str, Kind] = {
    "d2f": Kind("D2F", BlockPipeline, causal=False, units=window_units),
    "ar": Kind("AR", OneByOne, causal=True, units=lambda config: (1, 1 + config.prompt_lookup)),
    "vanilla": Kind("vanilla diffusion", Remasking, causal=False, units=None),
    "fast-dllm-prefix": Kind("Fast-dLLM, prefix cache", PrefixCache, False, None, stale=True),
    "fast-dllm-dual": Kind("Fast-dLLM, dual cache", DualCache, False, None, stale=True),
}


def kind_of(decoder: str) -> Kind:
    """The kind of decoding of that name.

    Raises:
        InvalidInput: there is none.
    """
    if decoder not in KINDS:
        raise InvalidInput(f"decoder must be one of {sorted(KINDS)}, got {decoder!r}")
    return KINDS[decoder]


def policy_of(prompt_length: int, config: DecodeConfig, held: Held = NOTHING_HELD) -> Policy:
    """A fresh policy for an answer to a prompt of that many tokens.

    Raises:
        InvalidInput: this kind of decoding cannot hold those positions.
    """
    return kind_of(decoder_name(config)).policy(prompt_length, config, held)
