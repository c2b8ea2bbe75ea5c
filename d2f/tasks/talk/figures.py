"""Figures that the answers about the models name, read where they are kept.

So a new training changes them without a change here. Knows no tensors.
"""

from __future__ import annotations

import json
from functools import cache

from d2f.catalogue.pairs import PAIRS
from d2f.places import ASSETS
from d2f.tasks.talk.spelling import in_words

PAIR = PAIRS["mini"]


@cache
def figures() -> dict[str, str]:
    """Names of figures, all with a leading ``fig_``, and their values in words or digits."""
    shape = json.loads((ASSETS / "models" / PAIR.d2f / "config.json").read_text(encoding="utf-8"))
    config = PAIR.config
    assert config.block_size and config.max_active_blocks
    return {
        "fig_millions": in_words(round(_parameters(shape) / 1e6)),
        "fig_layers": in_words(shape["num_hidden_layers"]),
        "fig_block": in_words(config.block_size),
        "fig_blocks": in_words(config.max_active_blocks),
        "fig_conf": f"{config.tau_conf:g}",
        "fig_sure": f"{100 * config.tau_conf:g}",
        "fig_add": f"{config.tau_add:g}",
        "fig_act": f"{config.tau_act:g}",
    }


def _parameters(shape: dict[str, int]) -> int:
    """Of a Llama without biases, with norms of its own and untied embeddings."""
    width, heads = shape["hidden_size"], shape["num_attention_heads"] * shape["head_dim"]
    keys = shape["num_key_value_heads"] * shape["head_dim"]
    layer = 2 * width * (heads + keys) + 3 * width * shape["intermediate_size"] + 2 * width
    return layer * shape["num_hidden_layers"] + (2 * shape["vocab_size"] + 1) * width
