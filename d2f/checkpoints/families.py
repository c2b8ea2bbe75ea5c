"""Published kinds of diffusion models: whose layers they have, and how they are decoded.

A kind is told by the class that config.json names: of a few model types there are autoregressive
models and diffusion models alike. What no file of a checkpoint says comes from the catalogue or
from options, or the model is refused. Knows no files and no weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from d2f.shape import Diffusion

# Classes of transformers that see only what stands before a token. A checkpoint of any other class,
# such as a diffusion model's, would load all the same, and answer nonsense.
CAUSAL_CLASSES = {
    f"{family}{part}" for family in ("Llama", "Qwen2", "Qwen3") for part in ("ForCausalLM", "Model")
}


@dataclass(frozen=True)
class Family:
    """Diffusion models of one class.

    Attributes:
        classes: its names in ``architectures`` and ``auto_map``; the first names the family.
        kind: its ``model_type``.
        layers: the family of transformers whose layers it has.
        decoding: what all its checkpoints have in common.
        block_field: the field of config.json that holds the length of its blocks, if one does.
    """

    classes: tuple[str, ...]
    kind: str
    layers: str
    decoding: Diffusion
    block_field: str | None = "block_size"


FAMILIES = (
    Family(("DreamModel",), "Dream", "qwen2", Diffusion(logit_shift=True, grid="prompt"), None),
    # DreamReasoner calls itself Dream, and is of SDAR's make.
    Family(("DreamForCausalLM",), "Dream", "qwen3", Diffusion(logit_shift=False, grid="start")),
    Family(
        ("SDARForCausalLM", "SDARModel"),
        "sdar",
        "qwen3",
        Diffusion(logit_shift=False, grid="start"),
    ),
    Family(
        ("StableDiffcoderForCausalLM",),
        "llama",
        "llama",
        Diffusion(logit_shift=False, grid="start", block_size=4),
    ),
    Family(
        ("Fast_dLLM_QwenForCausalLM", "Fast_dLLM_QwenModel"),
        "Fast_dLLM_Qwen",
        "qwen2",
        Diffusion(logit_shift=True, grid="start"),
        "bd_size",
    ),
    # dllm's conversions: one class for models trained in blocks and over the whole canvas.
    *(
        Family(
            (f"A2D{name}LMHeadModel", f"A2D{name}Model"),
            f"a2d-{name.lower()}",
            name.lower(),
            Diffusion(logit_shift=False),
        )
        for name in ("Llama", "Qwen2", "Qwen3")
    ),
)


def family_of(kind: str, classes: Sequence[str]) -> Family | None:
    """The family of a ``model_type`` and the classes beside it; None: it is of none of these."""
    for family in FAMILIES:
        if set(family.classes) & set(classes):
            return family
    shared = ("llama", "qwen2", "qwen3")
    named = [each for each in FAMILIES if each.kind == kind and kind not in shared]
    return named[0] if named and not classes else None
