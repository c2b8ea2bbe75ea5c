"""The talking tasks: what is held out, one answer a conversation, scorers not fooled."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from d2f.catalogue.pairs import PAIRS
from d2f.errors import InvalidInput
from d2f.tasks import TALK, TASKS, Problem, draw, split_of
from d2f.tasks.problem import split_of_key
from d2f.tasks.talk import grammar, noise, stories
from d2f.tasks.talk.figures import figures
from d2f.tasks.talk.grammar import fill, parse, slots_of, wordings
from d2f.tasks.talk.spelling import in_words

NAMES = sorted(TALK)
ROOT = Path(__file__).parents[1]
INTENTS = grammar.intents()
OPEN = [name for name, each in INTENTS.items() if each.answer and not each.follows]


def some(task: str, count: int, seed: int = 0, split: str = "train") -> list[Problem]:
    return list(islice(draw(task, split, seed), count))


# The first problems of each task of the mini suite, as they were before there was talk.
STREAMS = {
    "code-mini": "ba3b25d1ee87b0c5",
    "gsm-mini": "5f3fa02ed2d4dffa",
    "math-mini": "cac9d494877debdb",
    "sudoku-mini": "ba79f785db9a3c5c",
}


def digest(task: str) -> str:
    problems = some(task, 200, 5) + some(task, 50, 5, "test")
    texts = [(turn.prompt, turn.answer) for p in problems for turn in p.turns]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def test_the_mini_suite_has_not_moved() -> None:
    assert not TASKS.keys() & TALK.keys()
    assert {task: digest(task) for task in TASKS} == STREAMS


# --- what is held out


@pytest.mark.parametrize("task", NAMES)
def test_no_training_conversation_has_a_part_that_is_held_out(task: str) -> None:
    train = {part for p in some(task, 3_000, seed=1) for part in p.parts}
    assert {split_of_key(task, part) for part in train} == {"train"}
    for problem in some(task, 300, seed=2, split="test"):
        held = {part for part in problem.parts if split_of_key(task, part) == "test"}
        assert held and not held & train
        assert split_of(problem) == "test"


@pytest.mark.parametrize("task", NAMES)
def test_whole_phrasings_are_held_out(task: str) -> None:
    parts = {p for problem in some(task, 200, 3, "test") for p in problem.parts}
    phrasings = {p for p in parts if split_of_key(task, p) == "test"}
    assert len(phrasings) > 5


def test_no_two_phrasings_share_a_wording() -> None:
    """However they are dressed; so a held-out phrasing's words are never trained on."""
    owners: Counter[str] = Counter()
    for (name, _), texts in grammar.owned().items():
        if not INTENTS[name].follows:
            owners.update({noise.bare(text) for text in texts})
    assert len(owners) > 10_000
    assert max(owners.values()) == 1


@pytest.mark.parametrize("task", NAMES)
def test_the_test_stream_asks_nothing_the_training_stream_asks(task: str) -> None:
    def bare(problem: Problem) -> tuple[str, ...]:
        return tuple(noise.bare(turn.prompt) for turn in problem.turns)

    train = {bare(problem) for problem in some(task, 4_000, seed=1)}
    test = {bare(problem) for problem in some(task, 300, seed=2, split="test")}
    # A typo may turn one wording into another, rarely.
    assert len(test & train) <= len(test) // 100


def test_dress_is_stripped() -> None:
    assert noise.bare("Hey, can you tell me a joke please?") == noise.bare("tell me a joke")
    assert noise.bare("What's up?") == noise.bare("what is up")
    assert noise.bare("hi") == "hi"


# --- the content


@pytest.mark.parametrize("name", OPEN)
def test_every_intent_can_be_asked_in_many_ways(name: str) -> None:
    intent = INTENTS[name]
    texts = [text for each in intent.phrasings for text in wordings(each)]
    assert len(intent.phrasings) >= 5
    assert len(texts) >= (8 if "from" in intent.options else 20)


@pytest.mark.parametrize("name", [name for name, each in INTENTS.items() if each.answer])
def test_every_phrasing_says_what_the_answers_need(name: str) -> None:
    intent = INTENTS[name]
    if name.startswith("turn."):
        return
    known = set(figures()) | {s for row in grammar.source_rows(intent)[:1] for s in row}
    for earlier in intent.follows:
        known |= slots_of(INTENTS[earlier].answer)
    for phrasing in intent.phrasings:
        assert grammar.owned()[name, phrasing], f"{phrasing!r} has no words of its own"
        for answer in intent.answers.values():
            assert slots_of(answer) <= known | slots_of(phrasing), phrasing


@pytest.mark.parametrize("name", OPEN)
def test_phrasings_are_bare(name: str) -> None:
    for phrasing in INTENTS[name].phrasings:
        assert phrasing[-1] not in "?." or len(phrasing) < 40, phrasing
        assert not phrasing.startswith(("please ", "hey, ")), phrasing


@pytest.mark.parametrize("task", NAMES)
def test_same_conversation_same_answer(task: str) -> None:
    answers: dict[tuple[str, ...], str] = {}
    rng = random.Random(4)
    for _ in range(3_000):
        problem = TALK[task].generate(rng)
        said: tuple[str, ...] = ()
        for turn in problem.turns:
            said += (turn.prompt,)
            assert answers.setdefault(said, turn.answer) == turn.answer, said


@pytest.mark.parametrize("task", NAMES)
def test_a_seed_fixes_the_stream(task: str) -> None:
    assert some(task, 100, seed=5) == some(task, 100, seed=5) != some(task, 100, seed=6)


@pytest.mark.parametrize("task", NAMES)
def test_easy_ones_are_tidy(task: str) -> None:
    for problem in islice(draw(task, "train", 0, 0.0), 200):
        assert problem.prompt[0] == problem.prompt[0].upper()


# --- the scorers


@pytest.mark.parametrize("task", NAMES)
def test_own_answers_score_and_others_do_not(task: str) -> None:
    score = TALK[task].score
    problems = some(task, 400, 7, "test")
    for problem, other in zip(problems, problems[1:], strict=False):
        for i, turn in enumerate(problem.turns):
            assert score(problem, turn.answer, i), turn
            assert not score(problem, turn.answer + " And so on.", i)
            assert not score(problem, turn.answer[1:], i)
            assert not score(problem, "", i)
        if other.answer != problem.answer:
            assert not score(problem, other.answer) or task == "talk-story"


def test_a_reading_holds_the_intent_and_the_words() -> None:
    (reading,) = parse("The capital of France is Paris.") - {
        each for each in parse("The capital of France is Paris.") if each.asked
    }
    assert reading == ("capital", "", (("capital", "Paris"), ("country", "France")))
    assert not parse("The capital of France is Berlin.")
    named = parse("Nice to meet you, Ada! What would you like to talk about?")
    assert {each.slots for each in named} == {(("name", "Ada"),)}
    assert not parse("Nice to meet you! What would you like to talk about?")


def test_stories_hold_the_visitors_words_and_keep_their_form() -> None:
    slots = {"hero": "robot", "adj": "shy", "thing2": "lamp"}
    text = stories.story(slots)
    assert text.startswith("Once upon a time, a shy robot lived in a big city.")
    assert text.endswith("The robot was a little less shy from then on. The end.")
    assert stories.judge_story(text, "hero", slots)
    assert not stories.judge_story(text, "hero", slots | {"thing2": "boat"})
    assert not stories.judge_story(text.replace("warm light", "cold light"), "hero", slots)
    assert not stories.judge_story(text.removesuffix(" The end."), "hero", slots)


@pytest.mark.parametrize("hero", grammar.lists()["hero"])
def test_stories_have_forty_to_ninety_words(hero: str) -> None:
    for thing in grammar.lists()["thing2"]:
        words = stories.story({"hero": hero, "thing2": thing, "adj": "shy"}).split()
        assert 50 <= len(words) <= 110


# --- figures


def test_figures_are_those_of_the_registry() -> None:
    pair = PAIRS["mini"]
    config = json.loads((ROOT / "assets/models" / pair.d2f / "config.json").read_text())
    assert figures()["fig_block"] == in_words(pair.config.block_size)
    assert figures()["fig_conf"] == str(pair.config.tau_conf)
    assert figures()["fig_layers"] == in_words(config["num_hidden_layers"])
    size = (ROOT / "assets/models" / pair.d2f / "model.safetensors").stat().st_size
    assert figures()["fig_millions"] == in_words(round(size / 2 / 1e6))  # two bytes a parameter


def test_answers_about_itself_name_no_figure_of_their_own() -> None:
    for intent in INTENTS.values():
        if intent.family == "itself":
            for answer in intent.answers.values():
                bare = answer.replace("D2F", "")
                assert not any(c.isdigit() for c in grammar.SLOT.sub("", bare)), answer


def test_numbers_in_words() -> None:
    assert in_words(0) == "zero"
    assert in_words(42) == "forty-two"
    assert in_words(115) == "one hundred and fifteen"
    assert in_words(1001) == "one thousand and one"
    assert in_words(12345) == "twelve thousand three hundred and forty-five"
    for row in grammar.table("numbers"):
        assert in_words(int(row["digits"])) == row["words"]


# --- the reader


def test_a_choice_of_one_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\[\.\.\.\] is wanted .*'\(the\)'"):
        wordings("what is (the) time")


def test_wordings_are_all_ways() -> None:
    assert wordings("(tell|give) me [one more] joke") == [
        "tell me joke",
        "tell me one more joke",
        "give me joke",
        "give me one more joke",
    ]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{A animal}!", "An owl!"),
        ("see {a animal}", "see an owl"),
        ("{Animal} {animal}", "Owl owl"),
    ],
)
def test_slots_are_filled(text: str, filled: str) -> None:
    assert fill(text, {"animal": "owl"}) == filled


@pytest.mark.parametrize(
    ("word", "phrase"),
    [
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("one-eyed fox", "a one-eyed fox"),
        ("honest man", "an honest man"),
        ("hen", "a hen"),
        ("apple", "an apple"),
    ],
)
def test_articles(word: str, phrase: str) -> None:
    assert grammar.article(word) == phrase
