"""The decoding policy on integers: every edge of every threshold, and what never happens."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2f.config import D2FConfig
from d2f.events import BLOCK_STATES, CACHED, COMPLETED, FULLY_ACTIVATED, SEMI_ACTIVATED
from d2f.policy.pipelined import BlockPipeline

PROMPT = 5


def pipeline(**settings: Any) -> BlockPipeline:
    """Prompt 0..4; by default three blocks of four: [5, 9), [9, 13), [13, 17)."""
    defaults = {"block_size": 4, "max_new_tokens": 12, "tau_add": 0.5, "tau_act": 0.75}
    return BlockPipeline(PROMPT, D2FConfig(**defaults | settings))


def step(blocks: BlockPipeline, *positions: int, stops: tuple[int, ...] = ()) -> int:
    """One whole step that commits ``positions``; returns how many rows became final."""
    blocks.grow()
    blocks.promote()
    rows = blocks.cache()
    blocks.record(positions, stops)
    return rows


def states(blocks: BlockPipeline) -> list[str]:
    return [block.state for block in blocks.blocks]


def spans(blocks: BlockPipeline) -> list[tuple[int, int]]:
    return [(block.start, block.end) for block in blocks.blocks]


def test_the_prompt_is_block_zero_and_born_completed() -> None:
    blocks = pipeline()
    assert spans(blocks) == [(0, PROMPT)]
    assert states(blocks) == [COMPLETED]
    assert blocks.blocks[0].decoded_ratio == 1.0
    assert blocks.window == (0, PROMPT)
    assert blocks.masked == []
    assert blocks.finish_reason is None


def test_the_first_step_forwards_prompt_and_first_block_and_finishes_the_prompts_rows() -> None:
    blocks = pipeline()
    blocks.grow()
    blocks.promote()
    assert spans(blocks) == [(0, 5), (5, 9)]
    assert states(blocks) == [COMPLETED, FULLY_ACTIVATED]
    assert blocks.window == (0, 9)
    assert blocks.masked == [5, 6, 7, 8]
    assert blocks.cache() == PROMPT
    assert states(blocks) == [CACHED, FULLY_ACTIVATED]
    assert blocks.window == (5, 9)
    assert blocks.cache() == 0


@pytest.mark.parametrize(
    ("grid", "prompt", "size", "prompt_blocks", "first"),
    [
        ("prompt", 7, 4, [(0, 7)], (7, 11)),
        # From position 0: the prompt's tail stands in the block that the answer begins in.
        ("start", 7, 4, [(0, 0), (0, 4)], (4, 8)),
        ("start", 8, 4, [(0, 0), (0, 4), (4, 8)], (8, 12)),
        ("start", 3, 4, [(0, 0)], (0, 4)),
        ("start", 1, 4, [(0, 0)], (0, 4)),
        ("start", 2, 1, [(0, 0), (0, 1), (1, 2)], (2, 3)),
        # A block ends with the prompt; the first one holds what is left over.
        ("remainder", 7, 4, [(0, 3), (3, 7)], (7, 11)),
        ("remainder", 8, 4, [(0, 0), (0, 4), (4, 8)], (8, 12)),
        ("remainder", 3, 4, [(0, 3)], (3, 7)),
        ("remainder", 1, 4, [(0, 1)], (1, 5)),
        ("remainder", 2, 1, [(0, 0), (0, 1), (1, 2)], (2, 3)),
    ],
)
def test_where_the_grid_starts(
    grid: str, prompt: int, size: int, prompt_blocks: list[tuple[int, int]], first: tuple[int, int]
) -> None:
    config = D2FConfig(block_size=size, max_new_tokens=4 * size, grid=grid)
    blocks = BlockPipeline(prompt, config)
    assert spans(blocks) == prompt_blocks
    assert states(blocks) == [COMPLETED] * len(prompt_blocks)
    plan = blocks.plan()
    assert plan.window == (0, first[1])
    assert plan.wanted == list(range(prompt, first[1]))
    ends = [end for start, end in (*prompt_blocks, first) for _ in range(start, end)]
    assert plan.ends == ends
    # Whole blocks of the prompt are cached, and no more.
    assert plan.final == blocks.cached == first[0]
    assert blocks.blocks[-1].state == FULLY_ACTIVATED
    (view,) = blocks.record([prompt], [])
    assert (view.index, view.start, view.end) == (1, prompt, first[1])
    assert view.num_masked == first[1] - prompt - 1


def test_ratios_count_generated_positions_only() -> None:
    """Three of four rows are the prompt's: the block is undecided all the same."""
    config = D2FConfig(block_size=4, max_new_tokens=9, tau_add=0.5, tau_act=1.0, grid="start")
    blocks = BlockPipeline(7, config)
    blocks.plan()
    assert (blocks.blocks[-1].start, blocks.blocks[-1].decoded_ratio) == (4, 0.0)
    blocks.record([7], [])
    assert blocks.blocks[-1].decoded_ratio == 1.0
    assert blocks.plan().window == (4, 12)
    # The row that the prompt's tail takes is no token of the answer: 1 + 4 + 4.
    assert [block.end for block in blocks.blocks[-2:]] == [8, 12]
    blocks.record([8, 9], [])
    assert blocks.plan().window == (8, 16)
    assert blocks.finish_reason is None


EDGES = [(size, decoded) for size in (1, 3, 5, 10, 16, 20, 32) for decoded in range(1, size + 1)]


@pytest.mark.parametrize(("size", "decoded"), EDGES)
def test_a_block_is_appended_exactly_at_tau_add(size: int, decoded: int) -> None:
    short, reached = (
        pipeline(block_size=size, max_new_tokens=2 * size, tau_add=decoded / size) for _ in range(2)
    )
    step(short, *range(PROMPT, PROMPT + decoded - 1))
    short.grow()
    assert len(short.blocks) == 2
    step(reached, *range(PROMPT, PROMPT + decoded))
    reached.grow()
    assert spans(reached)[2:] == [(PROMPT + size, PROMPT + 2 * size)]


@pytest.mark.parametrize(("size", "decoded"), EDGES)
def test_the_successor_is_fully_activated_exactly_at_tau_act(size: int, decoded: int) -> None:
    if size == 1:
        return  # its successor appears only once it is decoded
    short, reached = (
        pipeline(block_size=size, max_new_tokens=2 * size, tau_add=1e-9, tau_act=decoded / size)
        for _ in range(2)
    )
    for blocks, count in ((short, decoded - 1), (reached, decoded)):
        step(blocks, PROMPT)
        step(blocks, *range(PROMPT + 1, PROMPT + count))
        blocks.promote()
    assert short.blocks[2].state == (SEMI_ACTIVATED if decoded > 1 else FULLY_ACTIVATED)
    assert reached.blocks[2].state == FULLY_ACTIVATED


@pytest.mark.parametrize(
    ("size", "decoded", "tau", "reached"),
    [
        (10, 1, 0.1, True),  # 1 - 9 / 10 is less than 0.1
        (5, 1, 0.2, True),
        (10, 2, 0.3, False),
        (10, 3, 0.3, True),
        (20, 19, 0.95, True),
        (20, 18, 0.95, False),
        (32, 30, 0.95, False),
        (32, 31, 0.95, True),
        (32, 3, 0.1, False),
        (32, 4, 0.1, True),
    ],
)
def test_thresholds_as_written_in_decimals_are_met(
    size: int, decoded: int, tau: float, reached: bool
) -> None:
    blocks = pipeline(block_size=size, max_new_tokens=2 * size, tau_add=tau, tau_act=tau)
    step(blocks, *range(PROMPT, PROMPT + decoded))
    assert (blocks.blocks[1].decoded_ratio >= tau) is reached
    blocks.grow()
    blocks.promote()
    assert states(blocks)[2:] == ([FULLY_ACTIVATED] if reached else [])


def test_no_block_is_appended_while_the_last_one_is_all_masks() -> None:
    blocks = pipeline(tau_add=1e-9)
    step(blocks, 5, 6, 7, 8)
    step(blocks)
    step(blocks)
    assert len(blocks.blocks) == 3


def test_at_most_one_block_is_appended_a_step() -> None:
    blocks = pipeline(tau_add=1e-9, max_new_tokens=40)
    for count in range(2, 8):
        blocks.grow()
        assert len(blocks.blocks) == count
        blocks.record(blocks.masked, ())


def test_the_last_block_may_be_shorter_and_none_follows_it() -> None:
    blocks = pipeline(max_new_tokens=10)
    for _ in range(3):
        step(blocks, *range(PROMPT, PROMPT + 10))
        blocks.record(blocks.masked, ())
    assert spans(blocks) == [(0, 5), (5, 9), (9, 13), (13, 15)]
    blocks.grow()
    assert len(blocks.blocks) == 4
    assert blocks.finish_reason == "length"


def test_ratios_of_a_shorter_last_block_count_its_own_length() -> None:
    blocks = pipeline(max_new_tokens=6)
    step(blocks, 5, 6, 7, 8)
    step(blocks, 9)
    assert blocks.blocks[2].decoded_ratio == 0.5


def test_an_answer_shorter_than_a_block_is_one_short_block() -> None:
    blocks = pipeline(max_new_tokens=2)
    step(blocks, 5)
    blocks.grow()
    assert spans(blocks) == [(0, 5), (5, 7)]
    step(blocks, 6)
    assert blocks.finish_reason == "length"


def test_promotion_is_for_good_and_walks_down_the_chain() -> None:
    blocks = pipeline(tau_add=0.25)
    step(blocks, 5)
    step(blocks, 9)
    step(blocks)
    assert states(blocks) == [CACHED, FULLY_ACTIVATED, SEMI_ACTIVATED, SEMI_ACTIVATED]
    # Blocks 1 and 2 reach tau_act at once: both successors are promoted by the next step.
    step(blocks, 6, 7, 10, 11)
    assert states(blocks) == [CACHED, FULLY_ACTIVATED, SEMI_ACTIVATED, SEMI_ACTIVATED]
    blocks.promote()
    assert states(blocks) == [CACHED] + [FULLY_ACTIVATED] * 3
    step(blocks)
    assert states(blocks) == [CACHED] + [FULLY_ACTIVATED] * 3


def test_a_decoded_block_promotes_its_successor_though_its_predecessor_lags() -> None:
    blocks = pipeline(tau_add=0.25)
    step(blocks, 5)
    step(blocks, 9, 10, 11)
    blocks.grow()
    blocks.promote()
    assert states(blocks)[1:] == [FULLY_ACTIVATED, SEMI_ACTIVATED, FULLY_ACTIVATED]


def test_a_completed_block_behind_an_unfinished_one_is_not_cached() -> None:
    blocks = pipeline(tau_add=0.25)
    step(blocks, 5)
    step(blocks, 9, 10, 11, 12)
    assert states(blocks) == [CACHED, FULLY_ACTIVATED, COMPLETED]
    assert blocks.cache() == 0
    assert blocks.window == (5, 13)
    assert blocks.masked == [6, 7, 8]
    # The first block completes: both become final together, after one more forward.
    assert step(blocks, 6, 7, 8) == 0
    assert states(blocks) == [CACHED, COMPLETED, COMPLETED, FULLY_ACTIVATED]
    assert blocks.window == (5, 17)
    assert blocks.cache() == 8
    assert states(blocks) == [CACHED, CACHED, CACHED, FULLY_ACTIVATED]
    assert blocks.window == (13, 17)


def test_a_completed_block_is_never_promoted_back() -> None:
    blocks = pipeline(tau_add=0.25)
    step(blocks, 5)
    step(blocks, 9, 10, 11, 12)
    step(blocks, 6, 7)
    blocks.promote()
    assert blocks.blocks[2].state == COMPLETED


@pytest.mark.parametrize(("cap", "expected"), [(1, 1), (2, 2), (3, 3), (4, 4), (None, 5)])
def test_the_window_is_capped(cap: int | None, expected: int) -> None:
    blocks = pipeline(tau_add=0.25, max_new_tokens=20, max_active_blocks=cap)
    for start in (5, 9, 13, 17, 21):
        step(blocks, start)
    assert len(blocks.blocks) - 1 == expected


def test_the_cap_counts_blocks_from_the_first_unfinished_one_on() -> None:
    blocks = pipeline(tau_add=0.25, max_active_blocks=2)
    step(blocks, 5)
    step(blocks, 9, 10, 11, 12)
    # Block 2 is completed, but it stays in the window behind block 1.
    step(blocks)
    assert len(blocks.blocks) == 3
    step(blocks, 6, 7, 8)
    # Now all are completed: they still ride in the window once, and make room at the same time.
    blocks.grow()
    assert len(blocks.blocks) == 4
    assert blocks.window == (5, 17)


@pytest.mark.parametrize("early_stop", [True, False])
def test_nothing_is_appended_once_a_stop_token_is_on_the_canvas(early_stop: bool) -> None:
    blocks = pipeline(early_stop=early_stop)
    step(blocks, 6, 7, 8, stops=(7,))
    step(blocks)
    assert spans(blocks) == [(0, 5), (5, 9)]
    step(blocks, 5)
    assert blocks.finish_reason == "stop"


def test_early_stop_drops_the_blocks_behind_the_stop_token() -> None:
    blocks = pipeline(tau_add=0.25)
    step(blocks, 5)
    step(blocks, 9)
    step(blocks, 13)
    blocks.record((10,), (10,))
    assert spans(blocks) == [(0, 5), (5, 9), (9, 13)]
    assert blocks.finish_reason is None
    blocks.record((6,), (6,))
    assert spans(blocks) == [(0, 5), (5, 9)]
    assert blocks.finish_reason == "stop"


def test_a_stop_token_on_a_blocks_first_position_keeps_that_block() -> None:
    blocks = pipeline(tau_add=0.25)
    step(blocks, 5)
    step(blocks, 9, stops=(9,))
    assert spans(blocks) == [(0, 5), (5, 9), (9, 13)]
    step(blocks, 6, 7)
    assert blocks.finish_reason is None
    step(blocks, 8)
    assert blocks.finish_reason == "stop"


def test_the_first_stop_token_is_the_leftmost_not_the_earliest() -> None:
    blocks = pipeline()
    step(blocks, 8, stops=(8,))
    assert blocks.first_stop == 8
    step(blocks, 6, stops=(6,))
    assert blocks.first_stop == 6
    step(blocks, 7, stops=(7,))
    assert blocks.first_stop == 6
    assert blocks.finish_reason is None
    step(blocks, 5)
    assert blocks.finish_reason == "stop"


def test_without_early_stop_open_blocks_are_decoded_to_their_end() -> None:
    blocks = pipeline(tau_add=0.25, early_stop=False)
    step(blocks, 5)
    step(blocks, 9)
    step(blocks, 6, stops=(6,))
    assert spans(blocks) == [(0, 5), (5, 9), (9, 13), (13, 17)]
    assert blocks.finish_reason is None
    step(blocks, *range(7, 9), *range(10, 13), *range(13, 16))
    assert blocks.finish_reason is None
    step(blocks, 16)
    assert blocks.finish_reason == "stop"


def test_an_answer_is_not_finished_while_a_block_may_still_be_appended() -> None:
    blocks = pipeline(max_new_tokens=8)
    step(blocks, 5, 6, 7, 8)
    assert blocks.masked == []
    assert blocks.finish_reason is None
    step(blocks, 9, 10, 11, 12)
    assert blocks.finish_reason == "length"


def test_a_view_tells_what_the_page_draws() -> None:
    blocks = pipeline(max_new_tokens=6)
    step(blocks, 5, 6, 7)
    step(blocks, 9)
    views = [block.view() for block in blocks.uncached]
    assert [(v.index, v.start, v.end, v.num_masked, v.state) for v in views] == [
        (1, 5, 9, 1, FULLY_ACTIVATED),
        (2, 9, 11, 1, FULLY_ACTIVATED),
    ]


@settings(max_examples=200)
@given(
    prompt=st.integers(1, 9),
    size=st.integers(1, 7),
    length=st.integers(1, 40),
    tau_add=st.floats(0, 1, exclude_min=True),
    tau_act=st.floats(0, 1, exclude_min=True),
    cap=st.none() | st.integers(1, 4),
    early_stop=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_every_run_ends_and_nothing_ever_moves_back(
    prompt: int,
    size: int,
    length: int,
    tau_add: float,
    tau_act: float,
    cap: int | None,
    early_stop: bool,
    random: Any,
) -> None:
    """Any commits whatever, one position of the first unfinished block at least."""
    config = D2FConfig(
        block_size=size,
        max_new_tokens=length,
        tau_add=tau_add,
        tau_act=tau_act,
        max_active_blocks=cap,
        early_stop=early_stop,
    )
    blocks = BlockPipeline(prompt, config)
    final, rank = 0, {}
    for _ in range(length):
        assert blocks.finish_reason is None
        before = len(blocks.blocks)
        blocks.grow()
        blocks.promote()
        assert len(blocks.blocks) - before in (0, 1)
        unfinished = [block for block in blocks.blocks if block.masked]
        assert unfinished[0].state == FULLY_ACTIVATED
        if cap is not None:
            assert blocks.blocks[-1].index - unfinished[0].index + 1 <= cap
        start, end = blocks.window
        assert start == final
        assert end == blocks.blocks[-1].end <= prompt + length
        final += blocks.cache()
        assert final <= unfinished[0].start
        share = random.random()
        chosen = {unfinished[0].masked[0]} | {p for p in blocks.masked if random.random() < share}
        blocks.record(chosen, [p for p in chosen if random.random() < 0.05])
        for block in blocks.blocks:
            now = BLOCK_STATES.index(block.state)
            assert now >= rank.get(block.index, 0)
            rank[block.index] = now
            assert (not block.masked) == (block.state in (COMPLETED, CACHED))
        ends = [block.end for block in blocks.blocks]
        assert [block.start for block in blocks.blocks] == [0, *ends[:-1]]
        if blocks.finish_reason is not None:
            break
    assert blocks.finish_reason == ("length" if blocks.first_stop is None else "stop")
    if blocks.first_stop is None:
        assert blocks.blocks[-1].end == prompt + length
        assert len(blocks.blocks) - 1 == -(-length // size)
