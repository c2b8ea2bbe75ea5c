"""Model folders with random weights, under the embedded models' names."""

from pathlib import Path
from shutil import copytree

from tiny import network

from d2f.checkpoint import save_model
from d2f.tokenizer import Tokenizer

CONTEXT = 768


def save_models(root: Path, tokenizer_folder: Path) -> Path:
    """``mini-ar``, ``mini-d2f`` and ``mini-dllm`` below ``root``, which is returned."""
    tokenizer = Tokenizer(tokenizer_folder)
    for name in ("mini-ar", "mini-d2f", "mini-dllm"):
        folder, causal = root / name, name == "mini-ar"
        copytree(tokenizer_folder, folder)
        net = network(
            tokenizer.vocab_size,
            causal=causal,
            mask_id=None if causal else tokenizer.mask_id,
            logit_shift=True,
            max_length=CONTEXT,
        )
        save_model(net, folder, [tokenizer.end_id, tokenizer.pad_id])
    return root
