"""Published checkpoints: where they lie on the Hugging Face hub, pinned, and what they take.

Values only: knows no tensors, opens no file, asks no network. Sizes are computed from the shape of
each architecture, never measured. Revisions are commits where one is known, else a branch. The
presets are those of the D2F paper (arXiv 2508.09192, Table 8).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from d2f.config import D2FConfig
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
    benchmark, and ``partner`` is the autoregressive model it races.
    """

    name: str
    repo: Repo
    shape: Shape
    chat: str
    decoder: str
    diffusion: Diffusion = Diffusion()
    adapter: Adapter | None = None
    presets: Mapping[str, D2FConfig] = field(default_factory=dict)
    partner: str | None = None

    @property
    def repos(self) -> tuple[Repo, ...]:
        """All that has to be downloaded."""
        return (self.repo,) if self.adapter is None else (self.repo, self.adapter.repo)

    def download(self, repo: Repo) -> int:
        """About how many bytes one of its repositories takes, computed."""
        if self.adapter is not None and repo == self.adapter.repo:
            return ADAPTER_BYTES * self.shape.lora_parameters(self.adapter.rank)
        return CHECKPOINT_BYTES * self.shape.parameters


LLADA = Shape(
    vocab_size=126464,
    hidden_size=4096,
    intermediate_size=12288,
    num_layers=32,
    num_heads=32,
    num_kv_heads=32,
    head_dim=128,
)
LLAMA_3 = Shape(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
)
QWEN_7B = Shape(
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    head_dim=128,
    qkv_bias=True,
)

LLADA_PRESETS = {
    "gsm8k": D2FConfig(max_new_tokens=512, block_size=64, tau_add=0.7),
    "mbpp": D2FConfig(max_new_tokens=512, block_size=32, tau_add=0.9),
    "math": D2FConfig(max_new_tokens=512, block_size=32, tau_add=0.1),
    "humaneval": D2FConfig(max_new_tokens=512, block_size=32, tau_add=0.1),
}
DREAM_PRESETS = {
    "gsm8k": D2FConfig(max_new_tokens=256, block_size=32, tau_add=0.1),
    # Asked for 256, the released loop decodes whole blocks only: five of 48.
    "mbpp": D2FConfig(max_new_tokens=240, block_size=48, tau_add=0.1),
    "math": D2FConfig(max_new_tokens=256, block_size=64, tau_add=0.1),
    "humaneval": D2FConfig(max_new_tokens=256, block_size=32, tau_add=0.9, tau_conf=0.95),
}


def _llada(name: str, adapter: Adapter | None) -> Published:
    return Published(
        name=name,
        repo=Repo("GSAI-ML/LLaDA-8B-Instruct", "08b83a6feb34df1a6011b80c3c00c7563e963b07", "MIT"),
        shape=LLADA,
        chat="Llama 3's format",
        decoder="d2f" if adapter else "vanilla",
        adapter=adapter,
        presets=LLADA_PRESETS if adapter else {},
        partner="llama-3-8b-instruct",
    )


def _dream(name: str, repo: Repo, partner: str, adapter: Adapter | None) -> Published:
    return Published(
        name=name,
        repo=repo,
        shape=QWEN_7B,
        chat="ChatML",
        decoder="d2f" if adapter else "vanilla",
        adapter=adapter,
        presets=DREAM_PRESETS if adapter else {},
        partner=partner,
    )


def _qwen(name: str, repo: Repo) -> Published:
    return Published(
        name=name,
        repo=repo,
        shape=QWEN_7B,
        chat="ChatML",
        decoder="ar",
    )


def _lora(name: str, licence: str) -> Adapter:
    # No commit of these repositories is known to us: their branch may move.
    return Adapter(repo=Repo(f"SJTU-Deng-Lab/{name}", "main", licence))


_DREAM_BASE = Repo(
    "Dream-org/Dream-v0-Base-7B", "6572adb5535263e4d1a337b56942ba48b6dee2a9", "Apache-2.0"
)
_DREAM_INSTRUCT = Repo(
    "Dream-org/Dream-v0-Instruct-7B", "05334cb9faaf763692dcf9d8737c642be2b2a6ae", "Apache-2.0"
)
_UNKNOWN = "see its model card"
_MODELS = [
    _llada("d2f-llada-8b-instruct", _lora("D2F_LLaDA_Instruct_8B_Lora", _UNKNOWN)),
    _llada("llada-8b-instruct", None),
    Published(
        name="llama-3-8b-instruct",
        repo=Repo(
            "meta-llama/Meta-Llama-3-8B-Instruct",
            "8afb486c1db24fe5011ec46dfbe5b5dccdb575c2",
            "Llama 3 Community",
            gated=True,
        ),
        shape=LLAMA_3,
        chat="Llama 3's format",
        decoder="ar",
    ),
    _dream(
        "d2f-dream-7b-base", _DREAM_BASE, "qwen2.5-7b", _lora("D2F_Dream_Base_7B_Lora", _UNKNOWN)
    ),
    _dream("dream-7b-base", _DREAM_BASE, "qwen2.5-7b", None),
    _qwen(
        "qwen2.5-7b",
        Repo("Qwen/Qwen2.5-7B", "d149729398750b98c0af14eb82c78cfe92750796", "Apache-2.0"),
    ),
    # The paper has no table of settings for Dream-Instruct: those of Dream-Base stand in.
    _dream(
        "d2f-dream-7b-instruct",
        _DREAM_INSTRUCT,
        "qwen2.5-7b-instruct",
        _lora("D2F_Dream_Instruct_7B_Lora", "Apache-2.0"),
    ),
    _dream("dream-7b-instruct", _DREAM_INSTRUCT, "qwen2.5-7b-instruct", None),
    _qwen(
        "qwen2.5-7b-instruct",
        Repo("Qwen/Qwen2.5-7B-Instruct", "a09a35458c702b33eeacc393d103063234e8bc28", "Apache-2.0"),
    ),
]
PUBLISHED: dict[str, Published] = {model.name: model for model in _MODELS}
