"""Published layouts, loaded, compute what the original models compute."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from originals import Llada, dream_json, llada_json, llada_state, rounded, write_folder
from peft import LoraConfig, get_peft_model
from sight import block_causal_ends, causal_ends, full_ends
from tiny import as_transformers, network
from torch import Tensor, nn
from transformers import PreTrainedModel

from d2f import D2FConfig, Model, load_model, stream
from d2f.checkpoints.save import split
from d2f.checkpoints.weight_names import LAYOUTS
from d2f.nn.transformer import Transformer
from d2f.tokenizer import Tokenizer

VOCAB, LENGTH, PROMPT, BLOCK = 640, 37, 11, 8
ENDS = {
    "causal": causal_ends(LENGTH),
    "full": full_ends(LENGTH),
    "block-causal": block_causal_ends(0, LENGTH, PROMPT, BLOCK, LENGTH),
}
LLADA: dict[str, Any] = {"num_kv_heads": 4, "norm_eps": 1e-5, "rope_theta": 500_000.0}
DREAM: dict[str, Any] = {"qkv_bias": True, "logit_shift": True, "rope_theta": 1e6}
SHAPES: dict[str, dict[str, Any]] = {
    "llada": LLADA,
    "llada, grouped heads": LLADA | {"num_kv_heads": 2},
    "llada, tied": LLADA | {"tied_head": True},
    "dream": DREAM,
}
Loaded = tuple[Model, Transformer]


@pytest.fixture
def original(tmp_path: Path, tokenizer_folder: Path) -> Callable[..., Loaded]:
    """A random network written as its original would be, and loaded."""

    def load(shape: str, sharpness: float = 1.0, adapter: Path | None = None, **how: Any) -> Loaded:
        mask = Tokenizer(tokenizer_folder).mask_id
        net = rounded(network(VOCAB, sharpness=sharpness, mask_id=mask, **SHAPES[shape]))
        if shape == "dream":
            state, raw = dict(as_transformers(net).state_dict()), dream_json(net)
        else:
            state, raw = llada_state(net), llada_json(net)
        folder = write_folder(tmp_path / "original", state, raw, tokenizer_folder)
        return load_model(folder, adapter=adapter, **how), net

    return load


def token_ids(batch: int = 1) -> Tensor:
    return torch.randint(5, VOCAB, (batch, LENGTH), generator=torch.Generator().manual_seed(1))


def visible(ends: Tensor) -> Tensor:
    """(T, T) visibility, spelled out."""
    return torch.tensor([[key < end for key in range(len(ends))] for end in ends.tolist()])


def theirs(reference: PreTrainedModel, ids: Tensor, ends: Tensor) -> Tensor:
    with torch.inference_mode():
        mask = visible(ends)[None, None]
        return reference(input_ids=ids, attention_mask=mask, use_cache=False).logits


@pytest.mark.parametrize("shape", SHAPES)
def test_the_config_is_read_and_every_weight_finds_its_place(
    shape: str, original: Callable[..., Loaded]
) -> None:
    model, net = original(shape)
    exact = net.config
    assert model.config.rope_in_float32 == (shape != "dream")
    assert model.config.logit_shift == (shape == "dream")
    assert not model.config.causal
    assert model.config.mask_id == exact.mask_id
    assert model.config.rope_theta == exact.rope_theta
    assert model.tokenizer.stop_ids == (4,)
    for key, value in net.state_dict().items():
        assert torch.equal(model.net.state_dict()[key], value), key


@pytest.mark.parametrize("visibility", ENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_transformers(
    visibility: str, shape: str, original: Callable[..., Loaded]
) -> None:
    model, net = original(shape)
    ids, ends = token_ids(batch=2), ENDS[visibility]
    with torch.inference_mode():
        ours = model.net.logits(model.net(ids, ends))
    reference = theirs(as_transformers(net), ids, ends)
    assert reference.std() > 0.5
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("visibility", ["causal", "block-causal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_cached_logits_equal_transformers_without_a_cache(
    visibility: str, shape: str, original: Callable[..., Loaded]
) -> None:
    """Windows with undecided tokens behind what becomes final; causally, token by token too."""
    model, net = original(shape)
    ids, ends = token_ids(), ENDS[visibility]
    reference = theirs(as_transformers(net), ids, ends)
    windows = [(0, 19, 11), (11, 27, 8), (19, 35, 8), (27, 37, 10)]
    if visibility == "causal":
        windows = [(0, 11, 11), *((i, i + 1, 1) for i in range(11, LENGTH))]
    cache = model.net.new_cache(LENGTH)
    for start, end, final in windows:
        window = ids[:, start:end].clone()
        window[:, final:] = 5
        with torch.inference_mode():
            hidden = model.net(window, ends[start:end], cache, start)
            ours = model.net.logits(hidden[:, :final])
        cache.advance(final)
        torch.testing.assert_close(ours, reference[:, start : start + final], rtol=0, atol=1e-5)
    assert cache.length == LENGTH


@pytest.mark.parametrize("shape", ["llada", "dream"])
def test_decoding_equals_the_slow_algorithm_on_transformers_class(
    shape: str, original: Callable[..., Loaded]
) -> None:
    """Every confidence, the first position of each block at every border of the cache included."""
    model, net = original(shape, sharpness=5.0)
    prompt = [7, 100, 31, 8, 222, 9, 41]
    config = D2FConfig(max_new_tokens=44, block_size=8, tau_add=0.2, tau_act=0.6, tau_conf=0.4)
    run = oracle.decode(
        as_transformers(net),
        prompt,
        logit_shift=shape == "dream",
        mask_id=model.config.mask_id,
        stop_ids=set(model.tokenizer.stop_ids),
        vocab_size=model.tokenizer.vocab_size,
        early_stop=True,
        **{
            name: getattr(config, name)
            for name in ("block_size", "max_new_tokens", "tau_add", "tau_act", "tau_conf")
        },
    )
    assert run.margin > 1e-4
    firsts = set()
    events = list(stream(model, prompt, config))
    for event, step in zip(events, run.steps, strict=True):
        assert event.cache_length == step["cache_length"]
        for commit in event.commits:
            token, confidence, forced = step["committed"][commit.position]
            assert (commit.token_id, commit.forced) == (token, forced)
            assert abs(commit.confidence - confidence) < 1e-5
            if (commit.position - len(prompt)) % config.block_size == 0:
                firsts.add(commit.position)
        assert len(event.commits) == len(step["committed"])
    last = max(position for event in events for position in [event.window[1]])
    assert firsts == set(range(len(prompt), last, config.block_size)) and len(firsts) > 2


def test_llada_rotates_in_float32_whatever_the_model_is_in(
    original: Callable[..., Loaded],
) -> None:
    """In bfloat16 the original's logits, not those of a rotation in bfloat16."""
    model, net = original("llada", dtype="bfloat16")
    exact = Llada(net).to(torch.bfloat16)
    ids, ends = token_ids(), ENDS["block-causal"]
    with torch.inference_mode():
        expected = exact(ids, visible(ends)).float()
        ours = model.net.logits(model.net(ids, ends)).float()
        rough = as_transformers(net)
        for parameter in rough.parameters():
            parameter.data = parameter.data.bfloat16()
        other = theirs(rough, ids, ends).float()
    assert (ours - expected).abs().mean() < 0.2 * (other - expected).abs().mean()


TARGETS = {
    "dream": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "llada": ["q_proj", "k_proj", "v_proj", "attn_out"],
    # The name means the head as well.
    "llada, feed-forward": ["ff_proj", "ff_out"],
}


def with_adapter(reference: nn.Module, folder: Path, targets: list[str]) -> nn.Module:
    """Save a random adapter of ``reference``; returns the unmerged model."""
    with warnings.catch_warnings():
        # peft reads an attribute that transformers is about to drop.
        warnings.simplefilter("ignore", FutureWarning)
        config = LoraConfig(r=4, lora_alpha=4, target_modules=targets)
        wrapped = get_peft_model(reference, config)
    generator = torch.Generator().manual_seed(9)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.15, generator=generator)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return wrapped.eval()


@pytest.mark.parametrize("targets", TARGETS)
def test_a_merged_adapter_equals_pefts_unmerged_model(
    targets: str, original: Callable[..., Loaded], tmp_path: Path
) -> None:
    shape = targets.split(",")[0]
    ids, ends = token_ids(), ENDS["block-causal"]
    _, net = original(shape)
    base: nn.Module = as_transformers(net) if shape == "dream" else Llada(net)
    unmerged = with_adapter(base, tmp_path / "lora", TARGETS[targets])
    merged = original(shape, adapter=tmp_path / "lora")[0].net
    with torch.inference_mode():
        ours, bare = merged.logits(merged(ids, ends)), net.logits(net(ids, ends))
        if shape == "dream":
            expected = theirs(unmerged, ids, ends)
        else:
            expected = unmerged(ids, visible(ends))
    assert (expected - bare).abs().max() > 0.1
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_loaded_is_written_under_its_original_names(
    shape: str, original: Callable[..., Loaded]
) -> None:
    model, net = original(shape)
    kind = "Dream" if shape == "dream" else "llada"
    state = split(model.net, LAYOUTS[kind])
    expected = dict(as_transformers(net).state_dict()) if shape == "dream" else llada_state(net)
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(state[key], value), key
