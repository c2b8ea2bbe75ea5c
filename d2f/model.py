"""A network with its tokenizer and its programs: all that decoding needs, and no more.

Loading makes it and decoding takes it; neither knows the other.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from d2f.nn.compiled import Fixed
from d2f.nn.timing import Tuned
from d2f.nn.transformer import Transformer
from d2f.shape import ModelConfig
from d2f.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded network with its tokenizer; what every decoder takes.

    ``fixed``: the programs of a compiled model; None: every forward runs eagerly. ``threads``: with
    how many torch computes each step; None: as many as it has. ``tuned``: the timings by which
    this, dtype and packing were chosen, if they were.
    """

    name: str
    net: Transformer
    tokenizer: Tokenizer
    fixed: Fixed | None = None
    threads: int | None = None
    tuned: Tuned | None = None

    @property
    def config(self) -> ModelConfig:
        return self.net.config

    @property
    def device(self) -> torch.device:
        return self.net.embed_tokens.weight.device

    @property
    def dtype(self) -> str:
        return str(self.net.embed_tokens.weight.dtype).removeprefix("torch.")

    @property
    def mask_ids(self) -> set[int | None]:
        """The mask token, as the model and as its tokenizer know it."""
        return {self.config.mask_id, self.tokenizer.mask_id}

    @cached_property
    def forbidden(self) -> Tensor:
        """(vocab_size,) booleans: rows of the head that are no token, and the mask token.

        Some tokenizers do not know their model's mask token; some causal models' tokenizers have
        one.
        """
        never = torch.ones(self.config.vocab_size, dtype=torch.bool)
        known = self.tokenizer.ids - self.mask_ids
        never[[i for i in known if i < len(never)]] = False
        return never.to(self.device)

    def compiled(self, fuse: bool = False) -> "Model":
        """The same model decoding by programs made ahead: graphs on CUDA, elsewhere compiled ones.

        Args:
            fuse: compile what the graphs hold, too.
        """
        return replace(self, fixed=Fixed(self.net, fused=fuse or self.device.type != "cuda"))
