"""What is known of a published model: where it lies on the hub, how it decodes, what it takes.

Values only: knows no tensors, opens no file, asks no network. Sizes are computed from the shape of
each architecture, never measured. Revisions are commits where one is known, else a branch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from d2f.config import DecodeConfig
from d2f.shape import Diffusion, Shape

# Checkpoints below are published in bfloat16; of the adapters float32 is the most they can be.
CHECKPOINT_BYTES, ADAPTER_BYTES = 2, 4


@dataclass(frozen=True)
class Repo:
    """A repository on the hub at one revision; ``gated`` ones ask to accept their licence."""

    id: str
    revision: str
    licence: str
    gated: bool = False


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA adapter that a model is published with."""

    repo: Repo
    rank: int = 32


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published model: a checkpoint, with its D2F adapter if it has one.

    ``decoder`` is the one it is made for, and ``diffusion`` how it is decoded where its own files
    do not say so; what they say too is checked when it is loaded. ``presets`` are settings by
    benchmark or by whose they are, ``partner`` is the autoregressive model it races, ``note`` says
    who measured what of it, and ``thinks`` that it thinks aloud before it answers.
    """

    name: str
    repo: Repo
    shape: Shape
    chat: str
    decoder: str
    diffusion: Diffusion = Diffusion()
    adapter: Adapter | None = None
    presets: Mapping[str, DecodeConfig] = field(default_factory=dict)
    partner: str | None = None
    note: str = ""
    thinks: bool = False

    @property
    def repos(self) -> tuple[Repo, ...]:
        """All that has to be downloaded."""
        return (self.repo,) if self.adapter is None else (self.repo, self.adapter.repo)

    def download(self, repo: Repo) -> int:
        """About how many bytes one of its repositories takes, computed."""
        if self.adapter is not None and repo == self.adapter.repo:
            return ADAPTER_BYTES * self.shape.lora_parameters(self.adapter.rank)
        return CHECKPOINT_BYTES * self.shape.parameters
