"""Forwards of fixed shape decode as eager ones do; a step reads the device once."""

import gc
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from threading import Barrier
from types import CodeType
from typing import Any
from weakref import ref

import pytest
import torch
from flash_standin import as_one_operation
from hypothesis import given, settings
from hypothesis import strategies as st
from tape import Tape
from tiny import network
from torch.utils._python_dispatch import TorchDispatchMode

from d2f import ARConfig, D2FConfig, DecodeConfig, Model, StepEvent, VanillaConfig, stream
from d2f.config import GRIDS
from d2f.decode import prepare, preparing
from d2f.errors import LoadError
from d2f.nn.compiled import WARM_UPS, Fixed, Graphs, Key, bucket, extent
from d2f.policy.pipelined import window_units
from d2f.tokenizer import Tokenizer

PROMPT = (40, 41, 42, 43, 44)
# What torch calls the most programs of one code object: of late, until 2.6, and in all.
LIMITS = ("recompile_limit", "cache_size_limit", "accumulated_recompile_limit")
# The compiler's own modules use what torch has deprecated.
compiling = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def stand_in() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d2f.nn.attention.flash_kernel", lambda: as_one_operation)
        yield


def eager_model(
    tokenizer: Tokenizer,
    config: DecodeConfig,
    *,
    seed: int = 0,
    attention: str = "sdpa",
    **net: Any,
) -> Model:
    causal = isinstance(config, ARConfig)
    shape = {"causal": causal, "mask_id": None if causal else 1, "logit_shift": True} | net
    model = Model("tiny", network(tokenizer.vocab_size, seed=seed, **shape), tokenizer)
    model.net.attention = attention
    return model


def padded(model: Model) -> Model:
    """The model at fixed shapes, uncompiled, as graphs would run it."""
    return Model(model.name, model.net, model.tokenizer, Fixed(model.net, capture=Tape))


def assert_same_run(one: list[StepEvent], other: list[StepEvent]) -> None:
    """Same steps, windows, tokens, blocks, end; confidences to rounding."""
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        assert (ours.window, ours.blocks, ours.cache_length, ours.finish_reason) == (
            theirs.window,
            theirs.blocks,
            theirs.cache_length,
            theirs.finish_reason,
        )
        assert [(c.position, c.token_id, c.forced) for c in ours.commits] == [
            (c.position, c.token_id, c.forced) for c in theirs.commits
        ]
        assert [c.confidence for c in ours.commits] == pytest.approx(
            [c.confidence for c in theirs.commits], abs=1e-5
        )


def test_buckets_are_few_and_waste_little() -> None:
    counts = range(1, 40)
    assert sorted({bucket(count) for count in counts}) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]
    assert all(count <= bucket(count) <= max(1.5 * count, count + 1) for count in counts)


def test_extents_double_up_to_the_whole_cache() -> None:
    assert [extent(end, 1100) for end in (1, 256, 257, 512, 513, 1024, 1025)] == [
        *(256, 256, 512, 512, 1024, 1024, 1100)
    ]


@settings(max_examples=60)
@given(
    prompt=st.lists(st.integers(2, 260), min_size=1, max_size=30),
    block_size=st.integers(1, 9),
    max_new_tokens=st.integers(1, 40),
    tau=st.sampled_from([(0.1, 0.95, 0.3), (0.5, 0.5, 0.6), (0.05, 1.0, 0.0), (1.0, 1.0, 0.9)]),
    cap=st.sampled_from([None, 1, 2, 3]),
    early_stop=st.booleans(),
    grid=st.sampled_from(GRIDS),
    shift=st.booleans(),
    attention=st.sampled_from(["sdpa", "sdpa", "sdpa", "flash"]),
    temperature=st.sampled_from([0.0, 0.0, 1.0]),
    seed=st.integers(0, 5),
)
def test_padding_changes_nothing_in_pipelined_decoding(
    prompt: list[int],
    block_size: int,
    max_new_tokens: int,
    tau: tuple[float, float, float],
    cap: int | None,
    early_stop: bool,
    grid: str,
    shift: bool,
    attention: str,
    temperature: float,
    seed: int,
    tokenizer: Tokenizer,
) -> None:
    config = D2FConfig(
        block_size=block_size,
        max_new_tokens=max_new_tokens,
        tau_add=tau[0],
        tau_act=tau[1],
        tau_conf=tau[2],
        max_active_blocks=cap,
        early_stop=early_stop,
        grid=grid,
        temperature=temperature,
        seed=seed,
    )
    model = eager_model(
        tokenizer, config, seed=seed, attention=attention, logit_shift=shift, grid=grid
    )
    events = list(stream(model, prompt, config))
    assert_same_run(list(stream(padded(model), prompt, config)), events)
    behind = [sum(b.end > e.window[0] for b in e.blocks) for e in events]
    assert max(behind) <= window_units(config)[1]


@settings(max_examples=10)
@given(
    prompt=st.lists(st.integers(2, 260), min_size=1, max_size=40),
    length=st.integers(1, 30),
    attention=st.sampled_from(["sdpa", "flash"]),
    temperature=st.sampled_from([0.0, 0.8]),
    seed=st.integers(0, 5),
)
def test_padding_changes_nothing_in_autoregressive_decoding(
    prompt: list[int],
    length: int,
    attention: str,
    temperature: float,
    seed: int,
    tokenizer: Tokenizer,
) -> None:
    config = ARConfig(max_new_tokens=length, temperature=temperature, top_p=0.9, seed=seed)
    model = eager_model(tokenizer, config, seed=seed, attention=attention)
    events = list(stream(model, prompt, config))
    assert_same_run(list(stream(padded(model), prompt, config)), events)


def test_flash_decodes_as_sdpa_does(tokenizer: Tokenizer) -> None:
    """The whole decoder over the stand-in: prefill, blocks in flight, a shorter last block."""
    config = D2FConfig(block_size=4, max_new_tokens=30, tau_conf=0.4)
    runs = [
        list(stream(eager_model(tokenizer, config, attention=backend), PROMPT, config))
        for backend in ("sdpa", "flash")
    ]
    assert_same_run(*runs)
    assert max(len(event.blocks) for event in runs[0]) > 2


@pytest.mark.parametrize("attention", ["sdpa", "flash"])
@pytest.mark.parametrize("sizes", [(8, 4), (4, 8), (6, 2, 3, 6)])
def test_other_block_sizes_in_turn_decode_as_eager_ones_do(
    attention: str, sizes: tuple[int, ...], tokenizer: Tokenizer
) -> None:
    """Windows of the same rows, whose programs have another size of blocks built in."""
    configs = [D2FConfig(block_size=size, max_new_tokens=24, tau_conf=0.4) for size in sizes]
    model = eager_model(tokenizer, configs[0], attention=attention)
    fixed = padded(model)
    for config in configs:
        events = list(stream(model, PROMPT, config))
        assert_same_run(list(stream(fixed, PROMPT, config)), events)
        prepare(fixed, len(PROMPT), config)
        assert_same_run(list(stream(fixed, PROMPT, config)), events)


def test_a_block_longer_than_any_answer_takes_no_room_of_its_own(tokenizer: Tokenizer) -> None:
    config = D2FConfig(block_size=10**9, max_new_tokens=12, tau_conf=0.4)
    model = eager_model(tokenizer, config)
    fixed = padded(model)
    prepare(fixed, len(PROMPT), config)
    assert_same_run(list(stream(fixed, PROMPT, config)), list(stream(model, PROMPT, config)))
    with fixed.fixed.workspace(17, 12, 1) as space:
        # The context of 128, and the row before a window.
        assert space.states.shape[1] == 129


@pytest.mark.parametrize(("attention", "made"), [("sdpa", [5, 5, 5, 5]), ("flash", [3, 6, 9, 9])])
def test_what_was_made_stays_and_a_run_finds_all_it_prepared(
    attention: str, made: list[int], tokenizer: Tokenizer
) -> None:
    """Under sdpa a program serves blocks of any size: up to 24 rows there are five."""
    model = padded(eager_model(tokenizer, D2FConfig(), attention=attention))
    assert model.fixed is not None and model.fixed.bound == (attention == "flash")
    counts, spaces = [], set()
    for size in (8, 7, 6, 7):
        config = D2FConfig(block_size=size, max_new_tokens=3 * size, tau_conf=0.4)
        prepare(model, len(PROMPT), config)
        with model.fixed.workspace(len(PROMPT) + 3 * size, size, 3) as space:
            programs = dict(space._programs)
        counts.append(len(programs))
        for _ in stream(model, PROMPT, config):
            pass
        assert space._programs == programs
        spaces.add(space)
    assert counts == made
    assert len(spaces) == 1


def test_preparing_tells_how_far_it_is_and_keeps_what_it_made(tokenizer: Tokenizer) -> None:
    config = D2FConfig(block_size=8, max_new_tokens=24)
    model = padded(eager_model(tokenizer, config))
    assert list(islice(preparing(model, len(PROMPT), config), 3)) == [(1, 5), (2, 5), (3, 5)]
    assert list(preparing(model, len(PROMPT), config)) == [(1, 2), (2, 2)]
    assert list(preparing(model, len(PROMPT), config)) == []


def test_what_cannot_be_captured_is_told_in_words(tokenizer: Tokenizer) -> None:
    def failing(step: object) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    config = ARConfig(max_new_tokens=4)
    eager = eager_model(tokenizer, config)
    model = replace(eager, fixed=Fixed(eager.net, capture=lambda: failing))
    with pytest.raises(LoadError, match="the steps cannot be captured: CUDA error: out of memory"):
        prepare(model, len(PROMPT), config)


@compiling
def test_ever_new_block_sizes_never_meet_the_limit_of_torch(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts by code object, and reaching it would end a served model for good."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    config = D2FConfig(max_new_tokens=48, max_active_blocks=1)
    eager = eager_model(tokenizer, config, num_layers=1)
    model = eager.compiled()
    limits = {name: 1 for name in LIMITS if hasattr(torch._dynamo.config, name)}
    assert limits
    codes: list[ref[CodeType]] = []
    with torch._dynamo.config.patch(limits):
        for size in (8, 12, 16, 24):
            run = replace(config, block_size=size)
            assert_same_run(list(stream(model, PROMPT, run)), list(stream(eager, PROMPT, run)))
    with model.fixed.workspace(1, 1, 1) as space:
        bodies = [program.function.func for program in space._programs.values()]
        codes += [ref(body._torchdynamo_orig_callable.__code__) for body in bodies]
    # The compiler keeps the last one.
    del model, space, bodies
    gc.collect()
    assert len(codes) >= 4 and sum(code() is not None for code in codes) <= 1


def test_a_block_at_the_end_of_the_context_is_padded_beyond_it(tokenizer: Tokenizer) -> None:
    config = D2FConfig(block_size=8, max_new_tokens=123, tau_conf=0.4)
    model = eager_model(tokenizer, config)
    assert len(PROMPT) + config.max_new_tokens == model.config.max_length
    events = list(stream(model, PROMPT, config))
    assert_same_run(list(stream(padded(model), PROMPT, config)), events)


def test_runs_at_once_do_not_share_a_workspace_and_later_runs_reuse_one(
    tokenizer: Tokenizer,
) -> None:
    config = D2FConfig(block_size=4, max_new_tokens=24, tau_conf=0.5)
    model = eager_model(tokenizer, config)
    alone = {p: list(stream(model, p, config)) for p in (PROMPT, PROMPT[::-1])}
    model = padded(model)
    model.net.caches.clear()
    together = {p: stream(model, p, config) for p in alone}
    pairs = list(zip(*together.values(), strict=False))
    for number, prompt in enumerate(alone):
        assert_same_run([pair[number] for pair in pairs], alone[prompt][: len(pairs)])
    assert len(model.net.caches) == 2
    for run in together.values():
        run.close()
    for prompt, events in alone.items():
        assert_same_run(list(stream(model, prompt, config)), events)
    assert len(model.net.caches) == 2


def test_a_run_longer_than_most_replaces_the_workspace(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2f.nn.compiled.TOKENS", 32)
    fixed = Fixed(eager_model(tokenizer, ARConfig()).net)
    with fixed.workspace(length=20, size=4, blocks=2) as small:
        assert small.fits(47, 32) and not small.fits(48, 32) and not small.fits(32, 33)
    with fixed.workspace(length=32, size=4, blocks=8) as same:
        assert same is small
    with fixed.workspace(length=48, size=4, blocks=2) as large:
        assert large is not small
        # The next bucket, 48, and the row of the padding, in rows that kernels like.
        assert large.cache.capacity == 64
    with fixed.workspace(length=20, size=4, blocks=2) as again:
        assert again is large
    with fixed.workspace(length=128, size=4, blocks=2) as whole:
        assert whole.cache.capacity == 144


@pytest.mark.parametrize("attention", ["sdpa", "flash"])
def test_two_threads_decode_at_once_as_each_does_alone(
    attention: str, tokenizer: Tokenizer
) -> None:
    config = D2FConfig(block_size=4, max_new_tokens=24, tau_conf=0.5)
    eager = eager_model(tokenizer, config, attention=attention)
    prompts = (PROMPT, PROMPT[::-1])
    alone = [list(stream(eager, prompt, config)) for prompt in prompts]
    model, start = padded(eager), Barrier(2)

    def run(prompt: Sequence[int]) -> list[StepEvent]:
        start.wait()
        return [event for _ in range(3) for event in stream(model, prompt, config)]

    with ThreadPoolExecutor(2) as threads:
        for together, once in zip(threads.map(run, prompts), alone, strict=True):
            assert_same_run(together, once * 3)


@pytest.mark.parametrize("reads", ["start", "rows"])
def test_the_tape_goes_wrong_where_a_graph_would(reads: str) -> None:
    """A step that reads on the host what it was given repeats what it read at first."""
    given, out, tape = torch.tensor([1, 2]), torch.zeros(2, dtype=torch.long), Tape()
    steps = {
        "start": lambda: out.copy_(given + int(given[0])),
        "rows": lambda: out.copy_(given.index_select(0, torch.arange(2)) + given[:1]),
    }
    with torch.inference_mode():
        repeat = tape(steps[reads])
        given.copy_(torch.tensor([5, 7]))
        repeat()
    assert out.tolist() == ([6, 8] if reads == "start" else [10, 12])


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: values or shapes that depend on data."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")
    # It reads within, where no mode sees it: whether its probabilities are proper.
    WAITS += ("multinomial",)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        self.count += by_mask or name.startswith(self.WAITS)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """``tolist``, ``numpy`` and ``cpu`` read without an operator: they count too."""
    counter = Reads()

    def counted(original: Callable[..., Any], *args: Any) -> Any:
        counter.count += 1
        return original(*args)

    for name in ("tolist", "numpy", "cpu"):
        original = getattr(torch.Tensor, name)
        wrapper = partial(counted, original)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *args, call=wrapper: call(self, *args))
    return counter


def test_the_counter_sees_what_reads(reads: Reads) -> None:
    x = torch.arange(3)
    actions: list[Callable[[], object]] = [
        lambda: x.tolist(),
        lambda: int(x[0]),
        lambda: x[x > 1],
        lambda: x.nonzero(),
        lambda: bool((x > 1).any()),
        lambda: torch.ones(2).multinomial(1),
    ]
    with reads:
        for number, action in enumerate(actions, start=1):
            action()
            assert reads.count >= number
        before = reads.count
        x[torch.tensor([0, 1])] + x.cumsum(0).argmax()
        assert reads.count == before


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "flash"])
@pytest.mark.parametrize(
    "config",
    [
        D2FConfig(block_size=4, max_new_tokens=30, tau_conf=0.4),
        D2FConfig(block_size=4, max_new_tokens=30, temperature=1.0, top_k=9, top_p=0.9),
        ARConfig(max_new_tokens=12),
        ARConfig(max_new_tokens=12, temperature=1.0, top_p=0.9),
        VanillaConfig(max_new_tokens=12, block_size=4),
    ],
    ids=lambda config: f"{type(config).__name__}, temperature {config.temperature}",
)
def test_a_step_reads_the_device_once(
    config: DecodeConfig,
    attention: str,
    fixed: bool,
    reads: Reads,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = eager_model(tokenizer, config)
    # The stand-in reads its lengths; the kernel does not.
    if attention == "flash":
        monkeypatch.setattr(
            "d2f.nn.attention.flash_kernel", lambda: lambda q, *rest, **options: torch.zeros_like(q)
        )
        model.net.attention = "flash"
    source = stream(padded(model) if fixed else model, PROMPT, config)
    counts = []
    with reads:
        for event in source:
            # Eager flash reads visible ends where they are made, on the host: that is no wait. At
            # fixed shapes only the prompt is forwarded eagerly.
            eager = not fixed or event.step == 0 or isinstance(config, VanillaConfig)
            on_host = attention == "flash" and eager
            counts.append(reads.count - on_host)
            reads.count = 0
    assert len(counts) > 3
    assert set(counts) == {1}


def test_preparing_makes_all_that_a_run_needs(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = D2FConfig(block_size=4, max_new_tokens=60, tau_conf=0.4)
    model = padded(eager_model(tokenizer, config))
    monkeypatch.setattr("d2f.nn.compiled.EXTENT", 16)
    prepare(model, len(PROMPT), config)
    with model.fixed.workspace(len(PROMPT) + 60, 4, window_units(config)[1]) as space:
        made = set(space._programs)
        assert {key.reach for key in made} == {16, 32, 64, 128}
        # Nothing for windows that end beyond what would be read.
        assert {key.rows for key in made if key.reach == 16} == {1, 8, 12, 16}
        assert {key.rows for key in made if key.reach == 32} == {1, 8, 12, 16, 24, 32}
        assert {key.rows for key in made if key.reach == 128} == {1, 8, 12, 16, 24, 32, 48, 64}
        assert space.has(Key(24, 32, 0)) and not space.has(Key(24, 16, 0))
    for _ in stream(model, PROMPT, config):
        pass
    assert set(space._programs) == made


def test_preparing_again_runs_nothing_and_no_row_looks_beyond_its_reach(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = D2FConfig(block_size=4, max_new_tokens=60)
    model = padded(eager_model(tokenizer, config))
    assert model.fixed is not None
    body, seen = model.fixed.body, []

    def watched(net: Any, cache: Any, states: Any, reach: int, size: int, table: Any) -> None:
        seen.append((reach, int(table[2].max())))
        body(net, cache, states, reach, size, table)

    monkeypatch.setattr("d2f.nn.compiled.EXTENT", 16)
    model.fixed.body = watched
    prepare(model, len(PROMPT), config)
    assert seen and all(end <= reach for reach, end in seen)
    seen.clear()
    prepare(model, len(PROMPT), config)
    assert seen == []


def test_preparing_an_eager_model_is_nothing(tokenizer: Tokenizer) -> None:
    config = ARConfig(max_new_tokens=4)
    model = eager_model(tokenizer, config)
    prepare(model, len(PROMPT), config)
    assert model.net.windows == []


class Recorder:
    """Stands for torch's CUDA graphs and streams: tells what was asked of them, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.open = 0
        for name in ("Stream", "current_stream", "CUDAGraph"):
            monkeypatch.setattr(torch.cuda, name, lambda: self)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
        for name in ("device", "stream"):
            monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())

    def wait_stream(self, other: object) -> None:
        self.told.append("wait")

    def capture_begin(self, *, pool: str, capture_error_mode: str) -> None:
        assert (pool, capture_error_mode, gc.isenabled()) == ("pool", "thread_local", False)
        self.open += 1
        assert self.open == 1, "two captures at once"
        self.told.append("begin")

    def capture_end(self) -> None:
        self.open -= 1
        self.told.append("end")

    def replay(self) -> None:
        self.told.append("replay")


def test_a_graph_is_warmed_up_captured_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    replay = Graphs(torch.device("cuda"))(lambda: recorder.told.append("step"))
    replay()
    warm_ups = ["step"] * WARM_UPS
    assert recorder.told == ["wait", *warm_ups, "begin", "step", "end", "wait", "replay"]
    assert gc.isenabled()


def test_a_capture_that_fails_is_ended_and_bars_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)

    def step() -> None:
        if recorder.open:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        Graphs(torch.device("cuda"))(step)
    assert recorder.told == ["wait", "begin", "end"] and gc.isenabled()
    Graphs(torch.device("cuda"))(lambda: None)


def test_threads_capture_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)

    def step() -> None:
        time.sleep(0.005)
        assert not recorder.open or recorder.told[-1] == "begin"

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: Graphs(torch.device("cuda"))(step), range(8)))
    assert recorder.told.count("begin") == 8 and gc.isenabled()


@compiling
@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "flash"])
def test_compiled_decoding_gives_the_same_tokens(attention: str, tokenizer: Tokenizer) -> None:
    """torch.compile with its default backend, inductor; several windows, padding, a cache."""
    configs: list[DecodeConfig] = [
        D2FConfig(block_size=4, max_new_tokens=14, tau_conf=0.5, max_active_blocks=1),
        ARConfig(max_new_tokens=8),
    ]
    for config in configs:
        model = eager_model(tokenizer, config, attention=attention, qk_norm=True)
        events = list(stream(model, PROMPT, config))
        assert_same_run(list(stream(model.compiled(), PROMPT, config)), events)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@compiling
@pytest.mark.parametrize("config", [D2FConfig(max_new_tokens=60), ARConfig(max_new_tokens=30)])
def test_captured_graphs_give_the_same_tokens_and_wait_once_a_step(
    config: DecodeConfig, tokenizer: Tokenizer
) -> None:
    model = eager_model(tokenizer, config)
    model.net.to("cuda")
    events = list(stream(model, PROMPT, config))
    graphs = model.compiled()
    prepare(graphs, len(PROMPT), config)
    assert_same_run(list(stream(graphs, PROMPT, config)), events)
    source = stream(graphs, PROMPT, config)
    next(source)
    # Steps wait in one and the same line, of which Python tells once unless it is told otherwise.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            steps = sum(1 for _ in source)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [each for each in caught if "synchronizing CUDA operation" in str(each.message)]
    assert len(waits) == steps
