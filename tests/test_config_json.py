"""``config.json`` of LLaDA and Dream: what is read, and what is refused."""

from typing import Any

import pytest
from originals import dream_json, llada_json
from tiny import network

from d2f.checkpoints.config_json import DREAM_CONTEXT, model_config

NET = network(90, mask_id=7)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({}, "rope_in_float32", True),
        ({"rope_full_precision": ...}, "rope_in_float32", True),
        ({"rope_full_precision": False}, "rope_in_float32", False),
        ({"n_kv_heads": None}, "num_kv_heads", 4),
        ({"n_kv_heads": None, "multi_query_attention": True}, "num_kv_heads", 1),
        ({"embedding_size": 128}, "vocab_size", 128),
        ({"embedding_size": None}, "vocab_size", 90),
        ({"include_qkv_bias": True}, "qkv_bias", True),
        ({"weight_tying": True}, "tied_head", True),
        ({}, "logit_shift", False),
        ({}, "causal", False),
        ({}, "mask_id", 7),
        ({}, "max_length", 128),
    ],
)
def test_llada(changes: dict[str, Any], field: str, value: object) -> None:
    raw = {k: v for k, v in llada_json(NET, **changes).items() if v is not ...}
    assert getattr(model_config(raw), field) == value


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({}, "qkv_bias", True),
        ({}, "rope_in_float32", False),
        ({}, "logit_shift", True),
        ({}, "causal", False),
        ({}, "mask_id", 7),
        ({}, "max_length", 128),
        ({"max_position_embeddings": 131072}, "max_length", DREAM_CONTEXT),
    ],
)
def test_dream(changes: dict[str, Any], field: str, value: object) -> None:
    assert getattr(model_config(dream_json(NET, **changes)), field) == value


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (llada_json(NET, alibi=True), "alibi must be False, got True"),
        (llada_json(NET, block_type="sequential"), "block_type must be 'llama', got 'sequential'"),
        (llada_json(NET, activation_type="gelu"), "activation_type must be 'silu', got 'gelu'"),
        (llada_json(NET, layer_norm_type="default"), "layer_norm_type must be 'rms'"),
        (llada_json(NET, attention_layer_norm=True), "attention_layer_norm must be False"),
        (llada_json(NET, include_bias=True), "include_bias must be False"),
        (llada_json(NET, scale_logits=True), "scale_logits must be False"),
        (llada_json(NET, input_emb_norm=True), "input_emb_norm must be False"),
        (llada_json(NET, rope=False), "rope must be True"),
        (llada_json(NET, clip_qkv=8.0), "clip_qkv must be None"),
        (llada_json(NET, rope_theta=None), "names no rope_theta"),
        (llada_json(NET, mlp_hidden_size=None), "names no mlp_hidden_size"),
        (llada_json(NET, mask_token_id=None), "names no mask_token_id"),
        (llada_json(NET, embedding_size=None, vocab_size=None), "names no embedding_size"),
        (dream_json(NET, hidden_act="gelu"), "hidden_act must be 'silu', got 'gelu'"),
        (dream_json(NET, use_sliding_window=True), "use_sliding_window must be False"),
        (dream_json(NET, use_mrope=True), "use_mrope must be False"),
        (
            dream_json(NET, rope_scaling={"type": "linear", "factor": 2.0}),
            "rope_type must be 'default', 'llama3' or 'yarn', got 'linear'",
        ),
        (dream_json(NET, rms_norm_eps=None), "names no rms_norm_eps"),
    ],
)
def test_what_is_not_covered_is_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_config(raw)
