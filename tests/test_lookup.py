"""Prompt lookup: drafts cost no token of the answer its place, and save forwards."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import as_transformers, network
from transformers import GenerationConfig

from app.lanes.lane import Lane, own_texts
from app.page.messages import DRAFTED
from app.page.reducer import LaneBoard
from app.recordings.link import from_link, to_link
from app.recordings.recording import Recording, record
from app.recordings.refusals import RecordingError
from d2f import ARConfig, Model, Trace, generate, load_model, stream
from d2f.decode import trace_header
from d2f.decode.commit import all_wanted
from d2f.decode.lookup import drafted
from d2f.errors import InvalidInput
from d2f.events import Commit, StepEvent
from d2f.nn.certainty import Said
from d2f.policy import OneByOne
from d2f.tasks import TASKS, draw
from d2f.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("known", "count", "ngram", "expected"),
    [
        ([1, 2, 3, 4, 1, 2], 2, 2, [3, 4]),
        ([1, 2, 3, 4, 1, 2], 9, 2, [3, 4, 1, 2]),
        # The longest end that stood before, where it stood last.
        ([7, 2, 8, 1, 2, 3, 5, 2, 6, 1, 2], 1, 2, [3]),
        ([7, 2, 8, 1, 2, 3, 5, 2, 6, 1, 2], 1, 1, [6]),
        ([1, 2, 3, 1, 2, 4, 1, 2], 1, 2, [4]),
        # A shorter end where the longer one is new.
        ([5, 2, 9, 3, 2], 1, 2, [9]),
        # What repeats at once is its own draft.
        ([4, 4, 4], 3, 2, [4]),
        ([1, 2, 3], 3, 2, []),
        ([1], 3, 2, []),
        ([1, 1], 0, 2, []),
        # A stop token ends the draft and is none.
        ([1, 2, 3, 0, 5, 1, 2], 4, 2, [3]),
        ([2, 0, 5, 2], 4, 2, []),
    ],
)
def test_what_stood_behind_the_last_tokens_is_drafted(
    known: list[int], count: int, ngram: int, expected: list[int]
) -> None:
    assert drafted(known, count, ngram, stop_ids=(0,)) == expected


def test_a_forward_decides_up_to_the_first_position_that_a_wrong_draft_precedes() -> None:
    policy = OneByOne(3, ARConfig(max_new_tokens=9, prompt_lookup=3))
    for chosen, count in (([5, 6, 7, 8], 4), ([5, 6, 9, 8], 3), ([4, 6, 7, 8], 1)):
        policy.drafts = [5, 6, 7]
        tokens = torch.tensor(chosen)
        zeros = torch.zeros(4)
        said = Said(zeros, tokens, zeros, zeros)
        commit, forced = all_wanted(policy, ARConfig(), said)
        assert commit.tolist() == [True] * count + [False] * (4 - count)
        assert not forced.any()


def test_right_drafts_stay_cached_and_the_others_are_forwarded_again() -> None:
    policy = OneByOne(3, ARConfig(max_new_tokens=9, prompt_lookup=3))
    plan = policy.plan()
    assert (plan.window, plan.wanted, plan.ends, plan.final) == ((0, 3), [3], [1, 2, 3], 3)
    policy.record([3], [])
    policy.draft([5, 6, 7])
    plan = policy.plan()
    assert (plan.window, plan.wanted) == ((3, 7), [4, 5, 6, 7])
    assert (plan.ends, plan.final, plan.drafted) == ([4, 5, 6, 7], 1, 3)
    policy.record([4, 5], [])
    assert (policy.cached, policy.end, policy.room) == (5, 6, 3)
    plan = policy.plan()
    assert (plan.window, plan.wanted, plan.ends, plan.final) == ((5, 6), [6], None, 1)
    policy.record([6], [])
    # The forward decides one more than is drafted, and the answer ends at 12.
    policy.record([7, 8, 9], [])
    assert policy.room == 1
    policy.record([10, 11], [])
    assert policy.finish_reason == "length"


@pytest.fixture(scope="module")
def model(tokenizer_folder: Path) -> Model:
    """One that repeats itself, and never stops."""
    tokenizer = Tokenizer(tokenizer_folder, ())
    net = network(tokenizer.vocab_size, causal=True, logit_shift=True, seed=4)
    return Model("tiny", net, tokenizer)


@settings(max_examples=40)
@given(
    prompt=st.lists(st.integers(2, 6), min_size=1, max_size=20),
    length=st.integers(1, 40),
    count=st.integers(1, 12),
    ngram=st.integers(1, 4),
    seed=st.sampled_from([0, 4, 7, 11]),
    held=st.lists(st.integers(40, 44), max_size=3),
)
def test_greedy_tokens_are_those_without_drafts(
    prompt: list[int],
    length: int,
    count: int,
    ngram: int,
    held: list[int],
    seed: int,
    tokenizer: Tokenizer,
) -> None:
    net = network(tokenizer.vocab_size, causal=True, logit_shift=True, seed=seed)
    model = Model("tiny", net, tokenizer)
    hold = dict(enumerate(held[: length - 1]))
    plain = generate(model, prompt, ARConfig(max_new_tokens=length), hold=hold)
    config = ARConfig(max_new_tokens=length, prompt_lookup=count, lookup_ngram=ngram)
    trace = generate(model, prompt, config, hold=hold)
    assert (trace.token_ids, trace.finish_reason) == (plain.token_ids, plain.finish_reason)
    assert trace.forwards <= plain.forwards
    drafts = sum(event.drafted for event in trace.events)
    assert drafts - trace.rejected == plain.forwards - trace.forwards
    for event in trace.events:
        first, last = event.window
        assert 0 <= event.rejected <= event.drafted < last - first


@pytest.mark.parametrize("task", TASKS)
def test_the_embedded_model_answers_as_without_drafts(task: str) -> None:
    model = load_model("mini-ar")
    for problem in islice(draw(task, "test", 14), 4):
        ids = model.tokenizer.encode_chat([{"role": "user", "content": problem.prompt}])
        config = ARConfig(max_new_tokens=160)
        plain = generate(model, ids, config)
        trace = generate(model, ids, replace(config, prompt_lookup=8))
        assert (trace.token_ids, trace.text) == (plain.token_ids, plain.text)
        confidence = [
            [c.confidence for e in each.events for c in e.commits] for each in (trace, plain)
        ]
        assert confidence[0] == pytest.approx(confidence[1], abs=1e-4)
    assert trace.tokens_per_forward > 1


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_transformers_prompt_lookup_gives_the_same_tokens(model: Model) -> None:
    other = as_transformers(model.net)
    never = model.forbidden.nonzero()[:, 0].tolist()
    settings = GenerationConfig(
        max_new_tokens=40,
        prompt_lookup_num_tokens=5,
        max_matching_ngram_size=2,
        pad_token_id=0,
        suppress_tokens=never,
    )
    for prompt in ([2, 3, 4, 2, 3], [9] * 7, [30, 31, 32, 33]):
        ids = torch.tensor([prompt])
        told = other.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        config = ARConfig(max_new_tokens=40, prompt_lookup=5)
        assert list(generate(model, prompt, config).token_ids) == told[0, len(prompt) :].tolist()


def test_sampling_has_the_same_distribution(model: Model) -> None:
    """Pairs of tokens among four, counted in 500 runs each way."""
    prompt = [2, 3, 4, 2, 3]
    base = ARConfig(max_new_tokens=2, temperature=1.0, top_k=2)
    counts = []
    for config in (base, replace(base, prompt_lookup=3)):
        told: dict[tuple[int, ...], int] = {}
        for seed in range(500):
            ids = generate(model, prompt, replace(config, seed=seed)).token_ids
            told[ids] = told.get(ids, 0) + 1
        counts.append(told)
    plain, drafts = counts
    for ids in plain.keys() | drafts.keys():
        both = plain.get(ids, 0), drafts.get(ids, 0)
        assert abs(both[0] - both[1]) < 4.5 * (sum(both) + 1) ** 0.5


def lane_of(model: Model, config: ARConfig) -> Lane:
    prompt = [2, 3, 4, 2, 3]
    lane = Lane(
        name="AR",
        header=trace_header(model, prompt, config),
        source=stream(model, prompt, config),
        token_text=model.tokenizer.token_text,
        decode=model.tokenizer.decode,
    )
    while lane.advance() is not None:
        pass
    return lane


def test_a_run_with_drafts_is_kept_linked_and_drawn(model: Model) -> None:
    lane = lane_of(model, ARConfig(max_new_tokens=40, prompt_lookup=4))
    recording = record("Again?", [lane], "")
    trace = recording.lanes[0].trace
    assert (sum(e.drafted for e in trace.events), trace.rejected, trace.forwards) == (44, 40, 36)
    assert Recording.from_json(recording.to_json()) == recording
    assert Trace.from_json(trace.to_json()) == trace
    linked = from_link(to_link(recording)).lanes[0].trace
    assert linked.header.config == trace.header.config
    assert [(e.window, e.drafted, len(e.commits)) for e in linked.events] == [
        (e.window, e.drafted, len(e.commits)) for e in trace.events
    ]
    board = LaneBoard(0, "AR", trace.header, own_texts(recording.lanes[0].texts.__getitem__))
    steps = [board.step(event) for event in trace.events]
    assert steps[-1]["rejected"] == trace.rejected
    flagged = [sum(bool(row[3] & DRAFTED) for row in step["commits"]) for step in steps]
    assert flagged == [e.drafted - e.rejected for e in trace.events]


@pytest.mark.parametrize("drafts", [-1, 1, 99])
def test_a_recording_cannot_have_more_drafts_than_its_window(model: Model, drafts: int) -> None:
    recording = record("Again?", [lane_of(model, ARConfig(max_new_tokens=3))], "")
    data = json.loads(recording.to_json())
    data["lanes"][0]["trace"]["events"][1]["drafted"] = drafts
    with pytest.raises(RecordingError, match="a draft is out of range in step 1"):
        Recording.from_json(json.dumps(data))


def test_a_link_cannot_skip_a_draft_or_draft_more_than_is_set(model: Model) -> None:
    config = ARConfig(max_new_tokens=4, prompt_lookup=2)
    header = replace(trace_header(model, [2, 3], config), stop_ids=())
    texts = {7: "a"}

    def kept(*events: StepEvent) -> str:
        lane = record("Again?", [lane_of(model, config)], "").lanes[0]
        trace = Trace(header, events, "a" * sum(len(e.commits) for e in events))
        return to_link(Recording("Again?", (replace(lane, trace=trace, texts=texts, placed={}),)))

    def commits(*positions: int) -> tuple[Commit, ...]:
        return tuple(Commit(p, 7, 0.5) for p in positions)

    first = StepEvent(0, 0.01, (0, 4), commits(2, 3), (), 3, None, (), 2)
    last = StepEvent(1, 0.01, (3, 5), commits(4, 5), (), 5, "length", (), 1)
    assert from_link(kept(first, last)).lanes[0].trace.events[1].drafted == 1
    for wrong in (
        replace(first, commits=commits(2, 4)),
        replace(first, drafted=3, window=(0, 5)),
    ):
        with pytest.raises(RecordingError, match="draft"):
            kept(wrong)


def test_transformers_own_lane_refuses_what_it_does_not_do() -> None:
    from app.lanes.transformers import generate_steps

    with pytest.raises(InvalidInput, match="has no prompt lookup here: set prompt_lookup to 0"):
        generate_steps(None, [1], ARConfig(prompt_lookup=1))  # type: ignore[arg-type]
