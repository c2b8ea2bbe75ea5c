"""The transformer equals transformers' own classes, and a cached window an uncached one."""

from typing import Any

import pytest
import torch
from sight import block_causal_ends, causal_ends, full_ends
from tiny import SHAPE, as_transformers, network
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from d2f.nn.transformer import RMSNorm, Transformer, rotary_tables, rotate
from d2f.shape import ModelConfig

VOCAB, LENGTH, PROMPT, BLOCK = 90, 37, 11, 8
ENDS = {
    "causal": causal_ends(LENGTH),
    "full": full_ends(LENGTH),
    "block-causal": block_causal_ends(0, LENGTH, PROMPT, BLOCK, LENGTH),
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, one kv head": {"num_kv_heads": 1},
    "llama, one kv head each": {"num_kv_heads": 4},
    "llama, wide heads": {"head_dim": 20, "norm_eps": 1e-5},
    "llama, tied": {"tied_head": True},
    "qwen2": {"qkv_bias": True},
    "qwen2, tied, large theta": {"qkv_bias": True, "tied_head": True, "rope_theta": 1e6},
    "qwen3": {"qk_norm": True},
    "qwen3, wide heads": {"qk_norm": True, "head_dim": 20, "num_kv_heads": 1},
    "qwen3, tied, one kv head each": {"qk_norm": True, "tied_head": True, "num_kv_heads": 4},
}


def token_ids(batch: int = 2, length: int = LENGTH) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))


def pairs(ends: Tensor) -> Tensor:
    """(T, T) visibility, spelled out for transformers."""
    rows, keys = ends.tolist(), range(len(ends))
    return torch.tensor([[key < end for key in keys] for end in rows])


@pytest.mark.parametrize("visibility", ENDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_logits_equal_transformers(visibility: str, shape: str, implementation: str) -> None:
    net = network(VOCAB, sharpness=1, **SHAPES[shape])
    reference = as_transformers(net)
    reference.set_attn_implementation(implementation)
    ends, ids = ENDS[visibility], token_ids()
    mask = pairs(ends)[None, None]
    if implementation == "eager":
        # It adds its mask to the scores: a boolean one would silently be wrong.
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    with torch.inference_mode():
        ours = net.logits(net(ids, ends))
        theirs = reference(input_ids=ids, attention_mask=mask, use_cache=False).logits
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", ["llama", "qwen2", "qwen3"])
def test_bfloat16_logits_equal_transformers_to_its_own_rounding(shape: str) -> None:
    """Same order of casts in norms and rotations: no further off than transformers itself."""
    net = network(VOCAB, sharpness=1, **SHAPES[shape])
    reference = as_transformers(net)
    ids, ends = token_ids(), ENDS["block-causal"]
    mask = pairs(ends)[None, None]
    with torch.inference_mode():
        exact = net.logits(net(ids, ends))
        # Only weights: transformers keeps its rotary frequencies in float32 when it loads.
        for parameter in reference.parameters():
            parameter.data = parameter.data.bfloat16()
        ours = net.to(torch.bfloat16).logits(net(ids, ends)).float()
        theirs = reference(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    assert (ours - theirs).abs().mean() < 0.1 * (theirs - exact).abs().mean()


def test_no_visible_ends_means_every_row_sees_all() -> None:
    net = network(VOCAB)
    ids = token_ids()
    torch.testing.assert_close(net(ids, None), net(ids, ENDS["full"]), rtol=0, atol=1e-5)


def test_each_row_of_a_batch_may_have_its_own_visibility() -> None:
    net = network(VOCAB)
    ids = token_ids(batch=3)
    together = net(ids, torch.stack(list(ENDS.values())))
    for row, ends in enumerate(ENDS.values()):
        alone = net(ids[row : row + 1], ends)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


def test_what_a_row_cannot_see_does_not_reach_it() -> None:
    net = network(VOCAB)
    ids = token_ids(batch=1)
    other = ids.clone()
    other[0, PROMPT + BLOCK :] = (ids[0, PROMPT + BLOCK :] + 1) % VOCAB
    ends = ENDS["block-causal"]
    ours, changed = net(ids, ends)[0], net(other, ends)[0]
    seen = PROMPT + BLOCK
    torch.testing.assert_close(changed[:seen], ours[:seen], rtol=0, atol=1e-5)
    assert ((changed[seen:] - ours[seen:]).abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("shape", ["llama", "llama, one kv head", "qwen2", "qwen3"])
def test_cached_windows_equal_the_uncached_forward(shape: str) -> None:
    """Windows written over and over, with garbage behind them, then made final."""
    net = network(VOCAB, **SHAPES[shape])
    ids = token_ids(batch=1)
    whole = net(ids, ENDS["block-causal"])
    cache = net.new_cache(LENGTH)
    for start, end, final in [(0, 19, 11), (11, 27, 0), (11, 35, 16), (27, 37, 8), (35, 37, 2)]:
        ends = block_causal_ends(start, end, PROMPT, BLOCK, LENGTH)
        # What will not become final is still undecided: any tokens stand there.
        window = ids[:, start:end].clone()
        window[:, final:] = (window[:, final:] + 5) % VOCAB
        hidden = net(window, ends, cache, start)
        torch.testing.assert_close(
            hidden[:, :final], whole[:, start : start + final], rtol=0, atol=1e-5
        )
        cache.advance(final)
    assert cache.length == LENGTH
    fresh = net.new_cache(LENGTH)
    net(ids, ENDS["block-causal"], fresh)
    for ours, exact in zip(cache.keys + cache.values, fresh.keys + fresh.values, strict=True):
        torch.testing.assert_close(ours, exact, rtol=0, atol=1e-5)


def test_one_token_at_a_time_equals_the_causal_forward() -> None:
    net = network(VOCAB)
    ids = token_ids(batch=1)
    whole = net(ids, ENDS["causal"])
    cache = net.new_cache(LENGTH)
    rows = []
    for position in range(LENGTH):
        rows.append(net(ids[:, position : position + 1], None, cache, position))
        cache.advance(1)
    torch.testing.assert_close(torch.cat(rows, dim=1), whole, rtol=0, atol=1e-5)


def test_a_position_beyond_the_context_is_refused() -> None:
    net = network(VOCAB, max_length=12)
    net(token_ids(1, 12), None)
    with pytest.raises(ValueError, match="position 13 is beyond the context of 12 tokens"):
        net(token_ids(1, 13), None)
    cache = net.new_cache(20)
    cache.advance(10)
    with pytest.raises(ValueError, match="position 13 is beyond the context of 12 tokens"):
        net(token_ids(1, 3), None, cache, 10)


def test_a_window_beyond_the_cache_is_refused() -> None:
    net = network(VOCAB)
    with pytest.raises(ValueError, match="window ends at 5, cache capacity is 4"):
        net(token_ids(1, 5), None, net.new_cache(4))


def test_a_new_cache_fits_the_model() -> None:
    net = network(VOCAB, num_kv_heads=2).to(torch.bfloat16)
    cache = net.new_cache(9)
    assert [tuple(k.shape) for k in cache.keys + cache.values] == [(1, 2, 9, 12)] * 4
    assert cache.keys[0].dtype == torch.bfloat16


def test_query_heads_must_divide_among_the_kv_heads() -> None:
    with pytest.raises(ValueError, match="num_heads must be a multiple of num_kv_heads.*4 and 3"):
        ModelConfig(vocab_size=9, **SHAPE | {"num_kv_heads": 3})


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0, 1_000_000.0])
def test_rotary_tables_equal_transformers_to_the_last_bit(theta: float) -> None:
    net = network(VOCAB, rope_theta=theta, head_dim=64, max_length=2048)
    rotary = LlamaRotaryEmbedding(as_transformers(net).config)
    cos, sin = rotary(torch.zeros(1), torch.arange(2048)[None])
    ours = rotary_tables(net.config)
    assert torch.equal(ours[0], cos[0])
    assert torch.equal(ours[1], sin[0])


def test_a_rotation_keeps_lengths_and_depends_only_on_distance() -> None:
    net = network(VOCAB)
    q, k = torch.randn(2, 1, 1, 1, 12, generator=torch.Generator().manual_seed(2))
    at = [rotate(q, *net.rotary(p, p + 1, torch.float32)) for p in (0, 3, 50)]
    for rotated in at:
        torch.testing.assert_close(rotated.norm(), q.norm())
    near = at[1].flatten() @ rotate(k, *net.rotary(10, 11, torch.float32)).flatten()
    far = at[2].flatten() @ rotate(k, *net.rotary(57, 58, torch.float32)).flatten()
    torch.testing.assert_close(near, far)
    assert torch.equal(at[0], q)


@pytest.mark.parametrize("in_float32", [True, False])
def test_rotation_runs_in_the_dtype_the_switch_says(in_float32: bool) -> None:
    net = network(VOCAB, rope_in_float32=in_float32)
    cos, sin = net.rotary(5, 9, torch.bfloat16)
    dtype = torch.float32 if in_float32 else torch.bfloat16
    assert cos.dtype == sin.dtype == dtype
    x = torch.randn(1, 4, 2, 12, generator=torch.Generator().manual_seed(3)).bfloat16()
    assert rotate(x, cos, sin).dtype == torch.bfloat16


def test_a_cast_of_the_model_does_not_reach_the_angles() -> None:
    net = network(VOCAB)
    before = net.rotary(100, 128, torch.float32)[0]
    net.to(torch.bfloat16)
    assert torch.equal(net.rotary(100, 128, torch.float32)[0], before)


def test_tables_first_asked_for_in_inference_mode_serve_training_too() -> None:
    net = Transformer(network(VOCAB).config)
    with torch.inference_mode():
        net(token_ids(), None)
    net.logits(net(token_ids(), None)).sum().backward()
    assert net.embed_tokens.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_equals_transformers_to_the_last_bit(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    ours, theirs = RMSNorm(48, 1e-6), LlamaRMSNorm(48, 1e-6)
    ours.weight.data.uniform_(0.5, 1.5, generator=generator)
    theirs.weight.data.copy_(ours.weight.data)
    x = (3 * torch.randn(5, 48, generator=generator)).to(dtype)
    assert torch.equal(ours.to(dtype)(x), theirs.to(dtype)(x))


def test_a_tied_head_is_the_embedding() -> None:
    net = network(VOCAB, tied_head=True)
    assert net.lm_head.weight is net.embed_tokens.weight
    assert network(VOCAB).lm_head.weight is not network(VOCAB).embed_tokens.weight
