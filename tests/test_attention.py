"""Visibility against a brute-force reading of the rule; attention against a naive softmax.

flash-attn needs a GPU: a stand-in with its documented semantics takes its place, so that all but
the kernel itself is tested.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flash_standin import flash_attn_with_kvcache
from hypothesis import given, settings
from hypothesis import strategies as st
from sight import block_causal_ends, causal_ends, full_ends
from tiny import network
from torch.nn.attention import flex_attention as flex
from torch.utils._python_dispatch import TorchDispatchMode

from d2f.errors import InvalidInput
from d2f.nn.attention import (
    BACKENDS,
    FlashSight,
    any_shape,
    attend,
    backend_name,
    bias,
    choose_backend,
    equal_runs,
    flash_kernel,
    flash_obstacle,
    flex_kernel,
    make_fixed_sight,
    make_sight,
    send,
    visible_mask,
)
from d2f.nn.cache import FixedRows

CPU = torch.device("cpu")


def block_of(position: int, prompt: int, size: int) -> int:
    """0 for the prompt, then 1, 2, ... counted by walking the grid."""
    index, end = 0, prompt
    while position >= end:
        index, end = index + 1, end + size
    return index


@settings(max_examples=80)
@given(
    prompt=st.integers(1, 12),
    size=st.integers(1, 9),
    length=st.integers(1, 30),
    data=st.data(),
)
def test_block_causal_rows_see_their_block_and_all_before(
    prompt: int, size: int, length: int, data: st.DataObject
) -> None:
    total = prompt + length
    start = data.draw(st.integers(0, total - 1))
    end = data.draw(st.integers(start + 1, total))
    ends = block_causal_ends(start, end, prompt, size, total)
    mask = visible_mask(ends, total, groups=1)[0, 0]
    for row in range(start, end):
        for key in range(total):
            visible = block_of(key, prompt, size) <= block_of(row, prompt, size)
            assert bool(mask[row - start, key]) is visible, (row, key)


def test_block_causal_ends_of_a_small_case_by_hand() -> None:
    ends = block_causal_ends(0, 10, origin=3, block_size=4, total=10)
    assert ends.tolist() == [3, 3, 3, 7, 7, 7, 7, 10, 10, 10]
    assert block_causal_ends(5, 8, 3, 4, 10).tolist() == [7, 7, 10]


@pytest.mark.parametrize("length", [1, 2, 7])
def test_causal_rows_see_themselves_and_all_before(length: int) -> None:
    mask = visible_mask(causal_ends(length), length, groups=1)[0, 0]
    assert mask.tolist() == [[key <= row for key in range(length)] for row in range(length)]


@pytest.mark.parametrize("length", [1, 2, 7])
def test_full_rows_see_everything(length: int) -> None:
    assert visible_mask(full_ends(length), length, groups=1)[0, 0].all()


def test_a_mask_repeats_its_rows_for_every_query_head_of_a_group() -> None:
    ends = torch.tensor([[1, 2], [2, 3]])
    mask = visible_mask(ends, num_keys=3, groups=2)
    one = [[True, False, False], [True, True, False]]
    two = [[True, True, False], [True, True, True]]
    assert mask.tolist() == [[one + one], [two + two]]


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """Softmax of dot products, one row and one head at a time."""
    batch, rows, heads, dim = q.shape
    groups = heads // k.shape[1]
    out = torch.zeros(batch, rows, heads, dim)
    for b in range(batch):
        for row in range(rows):
            for head in range(heads):
                keys = k[b, head // groups, : ends[row]]
                scores = [float(q[b, row, head] @ key) / math.sqrt(dim) for key in keys]
                top = max(scores)
                weights = [math.exp(score - top) for score in scores]
                for weight, value in zip(weights, v[b, head // groups], strict=False):
                    out[b, row, head] += weight / sum(weights) * value
    return out.reshape(batch, rows, heads * dim)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (4, 2), (6, 2), (3, 1)])
@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 6), (5, 5), (3, 8)])
@pytest.mark.parametrize("kind", ["none", "block"])
def test_attention_equals_a_naive_softmax(
    heads: int, kv_heads: int, rows: int, keys: int, kind: str
) -> None:
    generator = torch.Generator().manual_seed(heads * 100 + keys)
    q = torch.randn(2, rows, heads, 8, generator=generator)
    k, v = (torch.randn(2, kv_heads, keys, 8, generator=generator) for _ in range(2))
    ends, mask = [keys] * rows, None
    if kind == "block":
        ends = block_causal_ends(keys - rows, keys, 2, 2, keys).tolist()
        mask = visible_mask(torch.tensor(ends), keys, heads // kv_heads)
    torch.testing.assert_close(attend(q, k, v, mask), naive(q, k, v, ends), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def kernels() -> Iterator[None]:
    """The stand-in as flash-attn's kernel, and flex_attention without compiling it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d2f.nn.attention.flash_kernel", lambda: flash_attn_with_kvcache)
        patch.setattr("d2f.nn.attention.flex_kernel", lambda: flex.flex_attention)
        patch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
        yield


def random_qkv(
    rows: int, keys: int, heads: int, kv_heads: int, seed: int, batch: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, rows, heads, 16, generator=generator)
    k, v = (torch.randn(batch, kv_heads, keys, 16, generator=generator) for _ in range(2))
    return q, k, v


def by_backend(
    qkv: tuple[torch.Tensor, torch.Tensor, torch.Tensor], ends: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    q, k, v = qkv
    groups = q.shape[2] // k.shape[1]
    window = (q.shape[0], q.shape[1])
    return {
        backend: attend(
            q, k, v, make_sight(backend, ends, window, k.shape[2], groups, torch.device("cpu"))
        )
        for backend in BACKENDS
    }


def assert_all_agree(outputs: dict[str, torch.Tensor]) -> None:
    for backend in ("flash", "flex"):
        torch.testing.assert_close(outputs[backend], outputs["sdpa"], rtol=0, atol=1e-5)


@settings(max_examples=60)
@given(
    prompt=st.integers(1, 40),
    size=st.integers(1, 9) | st.just(16),
    finished=st.integers(0, 3),
    in_flight=st.integers(1, 4),
    short=st.integers(0, 8),
    prefill=st.booleans(),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 2), (3, 1)]),
    seed=st.integers(0, 99),
)
def test_backends_agree_on_windows_of_pipelined_decoding(
    kernels: None,
    prompt: int,
    size: int,
    finished: int,
    in_flight: int,
    short: int,
    prefill: bool,
    heads: tuple[int, int],
    seed: int,
) -> None:
    """Prefill with blocks behind it, finished blocks, several active ones, a shorter last one."""
    end = prompt + (finished + in_flight) * size - min(short, size - 1)
    start = 0 if prefill else prompt + finished * size
    ends = block_causal_ends(start, end, prompt, size, end)
    assert_all_agree(by_backend(random_qkv(end - start, end, *heads, seed), ends))


@pytest.mark.parametrize("rows", [1, 2, 5, 130])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("visibility", ["causal", "full", "none", "last"])
def test_backends_agree_on_autoregressive_and_full_windows(
    kernels: None, rows: int, batch: int, visibility: str
) -> None:
    keys = rows + 7 if visibility == "last" else rows
    ends = {
        "causal": causal_ends(rows),
        "full": full_ends(rows),
        "none": None,
        # One row a time later: the window of autoregressive decoding, and of speculation.
        "last": torch.arange(keys - rows + 1, keys + 1),
    }[visibility]
    assert_all_agree(by_backend(random_qkv(rows, keys, 4, 2, rows, batch), ends))


@settings(max_examples=40)
@given(
    start=st.integers(1, 30),
    size=st.integers(1, 6),
    blocks=st.integers(1, 4),
    short=st.integers(0, 5),
    heads=st.sampled_from([(4, 4), (4, 2)]),
)
def test_backends_agree_on_windows_of_fixed_shape(
    kernels: None, start: int, size: int, blocks: int, short: int, heads: tuple[int, int]
) -> None:
    """Padded blocks, and keys beyond the window: what real rows see is what they always see."""
    real = blocks * size - min(short, size - 1)
    rows, keys = (blocks + 1) * size, start + (blocks + 1) * size + 20
    ends = torch.full((rows,), start + real)
    ends[:real] = block_causal_ends(start, start + real, start, size, start + real)
    q, k, v = random_qkv(rows, keys, *heads, seed=start)
    groups = heads[0] // heads[1]
    outputs = {
        backend: attend(q, k, v, make_fixed_sight(backend, ends, size, keys, groups))
        for backend in BACKENDS
    }
    assert_all_agree(outputs)
    exact = by_backend((q[:, :real], k[:, :, : start + real], v[:, :, : start + real]), ends[:real])
    torch.testing.assert_close(outputs["sdpa"][:, :real], exact["sdpa"], rtol=0, atol=1e-5)


def test_blocks_are_batch_rows_on_one_row_of_keys() -> None:
    """Prompt of 5, three blocks of 4, a last one of 2: no row of the cache is read twice over."""
    ends = block_causal_ends(0, 19, 5, 4, 19)
    sight = make_sight("flash", ends, (1, 19), 19, 1, CPU)
    assert isinstance(sight, FlashSight)
    assert [
        (part.groups, part.size, part.lengths.tolist(), part.source.tolist(), part.causal)
        for part in sight.parts
    ] == [(1, 5, [5], [0], False), (3, 4, [9, 13, 17], [0, 0, 0], False), (1, 2, [19], [0], False)]


@pytest.mark.parametrize(
    ("ends", "runs"),
    [
        ([7], [(1, [7], False)]),
        ([1, 2, 3], [(3, [3], True)]),
        ([3, 3, 3], [(3, [3], False)]),
        ([4, 6, 8], [(1, [4, 6, 8], False)]),
        ([2, 2, 4, 4, 5], [(2, [2, 4], False), (1, [5], False)]),
    ],
)
def test_visible_ends_as_runs(ends: list[int], runs: list[tuple[int, list[int], bool]]) -> None:
    assert list(equal_runs(ends)) == runs


def test_flash_needs_one_row_of_ends() -> None:
    with pytest.raises(ValueError, match=r"one row of visible ends.*got shape \(2, 3\)"):
        make_sight("flash", torch.ones(2, 3, dtype=torch.long), (2, 3), 3, 1, CPU)


def test_sdpa_builds_no_mask_where_every_row_sees_all() -> None:
    assert make_sight("sdpa", None, (1, 4), 9, 2, CPU) is None


def test_on_a_cpu_attention_is_sdpa() -> None:
    assert choose_backend("auto", "cpu", torch.bfloat16, 64) == "sdpa"
    assert choose_backend("flex", "cpu", torch.float32, 64) == "flex"
    assert [backend_name(name) for name in ("sdpa", "flex")] == ["sdpa", "flex"]
    with pytest.raises(ValueError, match="attention 'flash' needs a CUDA GPU, got device 'cpu'"):
        choose_backend("flash", "cpu", torch.bfloat16, 64)
    with pytest.raises(ValueError, match="attention must be one of .*, got 'eager'"):
        choose_backend("eager", "cpu", torch.bfloat16, 64)


@pytest.mark.parametrize(
    ("dtype", "head_dim", "capability", "obstacle"),
    [
        (torch.bfloat16, 128, (8, 0), None),
        (torch.float16, 64, (9, 0), None),
        (torch.float32, 128, (9, 0), "needs float16 or bfloat16, got float32"),
        (torch.bfloat16, 100, (9, 0), "multiple of 8 up to 256, got 100"),
        (torch.bfloat16, 512, (9, 0), "multiple of 8 up to 256, got 512"),
        (torch.bfloat16, 128, (7, 5), "CUDA capability 8.0 or more, got 7.5"),
    ],
)
def test_what_keeps_flash_from_running(
    dtype: torch.dtype,
    head_dim: int,
    capability: tuple[int, int],
    obstacle: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("d2f.nn.attention.find_spec", lambda name: name == "flash_attn" or None)
    monkeypatch.setattr("d2f.nn.attention.flash_kernel", lambda: flash_attn_with_kvcache)
    found = flash_obstacle(torch.device("cuda"), dtype, head_dim)
    assert found is obstacle if obstacle is None else obstacle in str(found)
    chosen = choose_backend("auto", "cuda", dtype, head_dim)
    assert chosen == ("flash" if obstacle is None else "sdpa")


def test_auto_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only flash_attn counts; the kernels package, which fetches from the hub, has to be asked."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("d2f.nn.attention.find_spec", lambda name: name == "kernels" or None)
    assert choose_backend("auto", "cuda", torch.bfloat16, 128) == "sdpa"


def test_flash_without_a_package_says_which() -> None:
    flash_kernel.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d2f.nn.attention.find_spec", lambda name: None)
        with pytest.raises(ValueError, match="needs the flash_attn or the kernels package"):
            flash_kernel()


@pytest.mark.parametrize(
    ("release", "asked"),
    [("2.6.0+cu124", 3), ("2.9.1", 3), ("2.10.0", 4), ("2.13.0.dev20260301", 4), ("3.0.0", 4)],
)
def test_the_kernel_of_the_hub_is_the_one_built_for_the_torch_at_hand(
    release: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[tuple[str, int]] = []

    def get_kernel(repository: str, *, version: int) -> SimpleNamespace:
        got.append((repository, version))
        return SimpleNamespace(flash_attn_with_kvcache=flash_attn_with_kvcache)

    monkeypatch.setitem(sys.modules, "kernels", SimpleNamespace(get_kernel=get_kernel))
    monkeypatch.setattr("d2f.nn.attention.find_spec", lambda name: name == "kernels" or None)
    monkeypatch.setattr("d2f.nn.attention.version", lambda name: "0.17.2")
    monkeypatch.setattr(torch, "__version__", release)
    flash_kernel.cache_clear()
    assert flash_kernel() is flash_attn_with_kvcache
    assert got == [("kernels-community/flash-attn2", asked)]
    assert f"flash-attn2 version {asked}, kernels 0.17.2" in backend_name("flash")
    flash_kernel.cache_clear()


@pytest.mark.parametrize("error", [RuntimeError, FileNotFoundError, ImportError, ValueError])
def test_a_kernel_that_does_not_load_is_told_in_words(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_kernel(repository: str, *, version: int) -> None:
        raise error("no build variant for this GPU")

    monkeypatch.setitem(sys.modules, "kernels", SimpleNamespace(get_kernel=get_kernel))
    monkeypatch.setattr("d2f.nn.attention.find_spec", lambda name: name == "kernels" or None)
    flash_kernel.cache_clear()
    with pytest.raises(InvalidInput, match=r"does not load \(no build variant for this GPU\); use"):
        flash_kernel()


def test_sending_to_the_host_is_no_copy() -> None:
    values = torch.arange(3)
    assert send(values, CPU) is values


@pytest.mark.slow
# The compiler's own modules use what torch has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_flex_attention_compiled_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself, as torch's CPU backend makes it; a second window needs no second one."""
    monkeypatch.setattr("d2f.nn.attention.flex_kernel", flex_kernel)
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", False)
    for start, end in ((0, 37), (21, 53)):
        ends = block_causal_ends(start, end, 5, 16, end)
        q, k, v = random_qkv(end - start, end, 4, 2, start)
        got = attend(q, k, v, make_sight("flex", ends, (1, end - start), end, 2, CPU))
        want = attend(q, k, v, make_sight("sdpa", ends, (1, end - start), end, 2, CPU))
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_forwards_of_any_shape_on_a_gpu_do_without_cudnn() -> None:
    """The switches are torch's and there without a GPU; which of them it heeds, none tells here."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with any_shape(CPU):
        assert torch.backends.cuda.cudnn_sdp_enabled() == before
    with any_shape(torch.device("cuda")):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keys", [1, 15, 16, 17, 333])
def test_a_bias_lies_in_memory_as_kernels_want_it(keys: int, dtype: torch.dtype) -> None:
    ends = torch.tensor([1, max(1, keys // 2), keys])
    mask = visible_mask(ends, keys, 2)
    found = bias(mask, dtype)
    assert found.shape == mask.shape and found.dtype == dtype
    assert found.equal(torch.where(mask, 0.0, -torch.inf).to(dtype))
    assert found.stride(-1) == 1 and all(step % 16 == 0 for step in found.stride()[:-1])


class Names(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_forward_makes_one_bias_however_many_layers_read_it(fixed: bool, layers: int) -> None:
    net = network(64, num_layers=layers)
    ids, ends = torch.ones(1, 6, dtype=torch.long), torch.tensor([5, 5, 5, 8, 8, 8])
    cache = net.new_cache(16)
    cache.length = 2
    with Names() as seen, torch.inference_mode():
        if fixed:
            net.fixed(ids, ends, FixedRows(cache, torch.arange(2, 8), 16), 3)
        else:
            net(ids, ends, cache, 2)
    # One tensor of a mask is filled; sdpa converts none, and pads none.
    assert seen.counts["masked_fill_"] == 1
    assert seen.counts["where"] == seen.counts["constant_pad_nd"] == 0
