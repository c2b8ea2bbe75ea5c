"""A conversation: what each lane is told, what is kept, and what a browser may hand back."""

import json
from typing import Any

import pytest

from app.conversation import MAX_ANSWER, MAX_TURNS, Conversation, spoken

TALK = Conversation("mini").with_turn("one?", ["1", "uno"]).with_turn("two?", ["2", "dos"])


def test_each_lane_is_told_its_own_answers():
    assert TALK.messages(1, "three?") == [
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "uno"},
        {"role": "user", "content": "two?"},
        {"role": "assistant", "content": "dos"},
        {"role": "user", "content": "three?"},
    ]


def test_turns_can_be_taken_back_and_dropped():
    assert [turn.prompt for turn in TALK.latest(1).turns] == ["two?"]
    assert TALK.latest(2) == TALK and TALK.latest(0).turns == ()


def test_a_browser_keeps_it_as_json():
    assert Conversation.from_dict(json.loads(json.dumps(TALK.to_dict()))) == TALK


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {"pair": "mini"},
        {"pair": "mini", "turns": [{"prompt": "a", "answers": ["b"]}]},
        {"pair": "mini", "turns": [{"prompt": "a", "answers": ["b", 3]}]},
        {"pair": "mini", "turns": [{"prompt": "a", "answers": ["b", "x" * (MAX_ANSWER + 1)]}]},
        {"pair": "mini", "turns": [{"prompt": "bell \x07", "answers": ["b", "c"]}]},
        {"pair": "mini", "turns": [{"prompt": 5, "answers": ["b", "c"]}]},
        {"pair": "mini", "turns": 5},
    ],
)
def test_what_is_no_conversation_is_none(data: Any):
    assert Conversation.from_dict(data) is None


def test_a_long_conversation_is_cut():
    data = {"pair": "mini", "turns": [{"prompt": "a", "answers": ["b", "c"]}] * 1000}
    assert len(Conversation.from_dict(data).turns) == MAX_TURNS


def test_a_browser_may_hand_back_half_a_character():
    told = TALK.to_dict()
    told["turns"][0]["answers"] = ["1\ud83d", "\ud83d\ude00"]
    told["pair"] = "mini\ud83d"
    read = Conversation.from_dict(told)
    assert read.turns[0].answers == ("1\ufffd", "😀") and read.pair == "mini\ufffd"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes.", "Yes."),
        ("  Yes.\n", "  Yes.\n"),
        ("<think>a\nb</think>\n\nYes.", "Yes."),
        ("\n<think>\n\n</think>\n\nYes.", "Yes."),
        ("<think>a</think><think>b</think>Yes.", "Yes."),
        ("<Thinking>a</Thinking> Yes.", "Yes."),
        ("<thought>a</thought>Yes.", "Yes."),
        ("<reasoning>a</reasoning>Yes.", "Yes."),
        ("[THINK]a[/THINK]Yes.", "Yes."),
        ("a\n</think>\nYes.", "Yes."),
        ("<think>never ended", ""),
        ("Write <think>a</think> in a prompt.", "Write <think>a</think> in a prompt."),
        ("<think>a</think>Write <think>b</think>.", "Write <think>b</think>."),
        ("<thinker>a</thinker>Yes.", "<thinker>a</thinker>Yes."),
    ],
)
def test_what_is_said_leaves_out_what_was_thought_before(text: str, answer: str):
    assert spoken(text) == answer
