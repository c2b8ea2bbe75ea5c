"""Model folders with random weights: the embedded models' names, or a pair of their own."""

from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

from tiny import network

from d2f import D2FConfig
from d2f.catalogue.pairs import Pair
from d2f.checkpoints.save import save_model
from d2f.tokenizer import Tokenizer

CONTEXT = 768


def save_folder(
    folder: Path, tokenizer_folder: Path, stop_ids: Sequence[int], **changes: Any
) -> None:
    """A random network's folder; ``changes`` are those of ``tiny.network``."""
    copytree(tokenizer_folder, folder)
    save_model(network(Tokenizer(tokenizer_folder).vocab_size, **changes), folder, list(stop_ids))


def save_models(root: Path, tokenizer_folder: Path) -> Path:
    """``mini-ar``, ``mini-d2f`` and ``mini-dllm`` below ``root``, which is returned."""
    tokenizer = Tokenizer(tokenizer_folder)
    stops = [tokenizer.end_id, tokenizer.pad_id]
    for name in ("mini-ar", "mini-d2f", "mini-dllm"):
        causal = name == "mini-ar"
        save_folder(
            root / name,
            tokenizer_folder,
            stops,
            causal=causal,
            mask_id=None if causal else tokenizer.mask_id,
            logit_shift=True,
            max_length=CONTEXT,
        )
    return root


def save_pair(root: Path, tokenizer_folder: Path, config: D2FConfig) -> Pair:
    """A pair ``tiny`` of models below ``root``, with a context of 512 tokens."""
    tokenizer = Tokenizer(tokenizer_folder)
    for name, changes in {
        "tiny-d2f": {"mask_id": tokenizer.mask_id},
        "tiny-ar": {"causal": True, "logit_shift": True},
    }.items():
        save_folder(root / name, tokenizer_folder, tokenizer.stop_ids, max_length=512, **changes)
    return Pair("tiny", "tiny", str(root / "tiny-d2f"), str(root / "tiny-ar"), config)
