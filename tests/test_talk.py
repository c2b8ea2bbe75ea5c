"""The talking tasks: what is held out, one answer a conversation, scorers not fooled."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from d2f.catalogue.pairs import PAIRS
from d2f.errors import InvalidInput
from d2f.tasks import TALK, TASKS, Problem, draw, split_of
from d2f.tasks.problem import split_of_key
from d2f.tasks.talk import classics, conversation, grammar, noise, stories, sums, writing
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
    slotted = any(slots_of(each) for each in intent.phrasings)
    assert len(texts) >= (8 if slotted else 20)


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


# Judged by the last line, by form and by running: other answers may be right as well.
LENIENT = ("talk-sums", "talk-story", "talk-code", "talk-turns")


@pytest.mark.parametrize("task", NAMES)
def test_own_answers_score_and_others_do_not(task: str) -> None:
    score = TALK[task].score
    problems = some(task, 8 if task == "talk-code" else 400, 7, "test")
    for problem, other in zip(problems, problems[1:], strict=False):
        for i, turn in enumerate(problem.turns):
            assert score(problem, turn.answer, i), turn
            assert not score(problem, turn.answer + " And so on.", i)
            assert "####" in turn.answer or not score(problem, turn.answer[1:], i)
            assert not score(problem, "", i)
        if task not in LENIENT and other.answer != problem.answer:
            assert not score(problem, other.answer)


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


def test_stories_have_fifty_to_a_hundred_and_ten_words() -> None:
    lists = grammar.lists()
    heroes = [words[0] for name, words in lists.items() if name.startswith("hero.")]
    for hero in heroes:
        for thing in lists["thing2"]:
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


# --- writing


# Syllables that the rule below does not find.
SYLLABLES = {
    "the": 1, "being": 2, "idea": 3, "poem": 2, "quiet": 2, "lion": 2, "violin": 3, "piano": 3,
    "radio": 3, "aeroplane": 3, "something": 2, "someone": 2, "hundred": 2, "whole": 1,
    "bicycle": 3, "everything": 3, "goes": 1, "shoes": 1, "villages": 3, "every": 2, "evening": 2,
    "submarine": 3, "telephone": 3, "satellite": 3, "camera": 3, "strawberry": 3, "raspberry": 3,
    "blueberry": 3, "library": 3, "one": 1, "once": 1, "hour": 1, "flower": 2, "sneezes": 2,
    "dinosaur": 3, "leaves": 1, "waves": 1, "comes": 1, "smokes": 1, "times": 1, "takes": 1,
    "crocodile": 3, "holiday": 3, "itself": 2, "moves": 1, "house": 1, "stopped": 1,
}  # fmt: skip


def syllables(text: str) -> int:
    """Groups of vowels, without a silent e at the end."""
    total = 0
    for word in re.findall(r"[a-z']+", text.lower()):
        groups = len(re.findall(r"[aeiouy]+", word))
        if re.search(r"[^aeiouy]e$|[^aeiouydt]ed$", word) and not re.search(r"[^aeiouy]le$", word):
            groups -= 1
        elif re.search(r"[^aeiouy]es$", word) and not re.search(r"(s|x|z|ch|sh|c|g)es$", word):
            groups -= 1
        total += SYLLABLES.get(word, max(groups, 1))
    return total


@pytest.mark.parametrize("row", grammar.table("haiku"), ids=lambda row: row["l1"])
def test_haiku_have_five_seven_and_five_syllables(row: grammar.Row) -> None:
    assert [syllables(row[line]) for line in ("l1", "l2", "l3")] == [5, 7, 5]


@pytest.mark.parametrize(("kind", "count"), [("one", 1), ("two", 2), ("three", 3)])
def test_haiku_of_any_word_have_five_seven_and_five_syllables(kind: str, count: int) -> None:
    for word in grammar.lists()[kind]:
        assert syllables(word) == count, word
        lines = fill(INTENTS[f"haiku.{kind}"].answer, {kind: word}).split("\n")
        assert [syllables(line) for line in lines] == [5, 7, 5]


def test_rhymes_end_in_their_words() -> None:
    for row in grammar.table("rhymes"):
        ends = {row[line].rstrip(".,?").split()[-1] for line in ("l1", "l2")}
        assert ends == {row["word"], row["other"]}
        assert not {row["word"], row["other"]} & set(row["more"].split())


def test_sentences_hold_their_word_once() -> None:
    for row in grammar.table("sentences"):
        assert row["word"] in row["sentence"]
    words = [row["word"] for row in grammar.table("sentences")]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(("name", "count"), [("jokes", 80), ("riddles", 60), ("howtos", 60)])
def test_there_is_enough_of_everything(name: str, count: int) -> None:
    rows = grammar.table(name)
    assert len({tuple(row.values()) for row in rows}) == len(rows) >= count


def test_acrostics_spell_their_name() -> None:
    for name in grammar.lists()["name"]:
        lines = writing.acrostic(name).split("\n")
        assert "".join(line[0] for line in lines) == name.upper()


# --- sums


SUM = re.compile(r"(-?\d+) ([-+*/]) (\d+) = (-?\d+)")


def test_sums_calculate_truly_and_end_in_their_answer() -> None:
    for problem in some("talk-sums", 3_000):
        for turn, expected in zip(problem.turns, problem.expected, strict=True):
            if "####" not in turn.answer:
                continue
            for left, sign, right, result in SUM.findall(turn.answer):
                if f"/{left} {sign}" in turn.answer or f"{left}/" in turn.answer:
                    continue  # a sum of fractions
                assert eval(f"{left}{sign}{right}") == int(result), turn.answer
            wanted = json.loads(expected)["sum"]
            assert turn.answer.endswith(f"#### {wanted}")


def test_sums_ask_nothing_that_the_mini_suite_holds_out() -> None:
    asked = set()
    for problem in some("talk-sums", 2_000) + some("talk-sums", 200, split="test"):
        phrasing, key = problem.parts[:2]
        mini = "math-mini" if phrasing.startswith("calc.") else "gsm-mini"
        assert split_of_key(mini, key) == "train"
        asked.add(mini)
    assert asked == {"math-mini", "gsm-mini"}


@pytest.mark.parametrize("family", sums.families(), ids=lambda family: family.name)
def test_every_word_problem_can_be_asked(family: sums.Family) -> None:
    assert len(family.phrasings) >= 3
    assert family.lines
    shown = [name for name in family.sums if name != family.hidden]
    assert all(any(f"{{{name}}}" in line for line in family.lines) for name in shown)


def test_the_shop_of_red_and_blue_pens() -> None:
    """Two numbers and a "twice" make three sums, in the order told."""
    family = next(each for each in sums.families() if each.name == "twice.kinds.less")
    values = {"a": 7, "k": 2, "d": 5, "b": 14, "c": 21, "e": 16}
    words = {"item": "pens"}
    assert [sums._line(line, family, values, words) for line in family.lines] == [
        "The second kind: 2 * 7 = 14.",
        "All together: 7 + 14 = 21.",
        "Left: 21 - 5 = 16.",
    ]


@pytest.mark.parametrize(
    ("steps", "lines"),
    [
        (sums.times_steps(17, 23)[-1], "340 + 51 = 391"),
        (sums.times_steps(6, 7), ["6 * 7 = 42"]),
        (sums.plus_steps(345, 278), ["345 + 200 = 545", "545 + 78 = 623"]),
        (sums.minus_steps(345, 278), ["345 - 200 = 145", "145 - 78 = 67"]),
        (sums.over_steps(144, 12), (["12 * 12 = 144, so 144 / 12 = 12"], "12")),
        (sums.over_steps(17, 5), (["5 * 3 = 15", "17 - 15 = 2"], "3 remainder 2")),
        (sums.percent_steps(15, 80)[-1], "15% of 80 is 8 + 4 = 12"),
        (sums.percent_steps(7, 200)[-1], "7% of 200 is 7 * 2 = 14"),
    ],
)
def test_steps(steps: object, lines: object) -> None:
    assert steps == lines


# --- code


@pytest.mark.parametrize("classic", classics.classics(), ids=lambda classic: classic.name)
def test_classics_pass_their_hidden_tests(
    classic: classics.Classic, capsys: pytest.CaptureFixture[str]
) -> None:
    space: dict[str, object] = {}
    exec(classic.source, space)
    function = space[classic.name]
    assert callable(function)
    calls = json.loads(json.dumps(classic.calls))
    assert json.dumps([function(*call) for call in calls]) == json.dumps(classic.results)
    assert len(calls) >= 3 or not calls[0]
    assert set(classic.called) == {"verb", "noun"}


def test_nothing_is_called_by_two_names() -> None:
    called = [
        name for each in classics.classics() for kind in each.called.values() for name in kind
    ]
    assert len(called) == len(set(called))
    assert len(classics.classics()) >= 80


def test_classics_are_judged_by_running_them() -> None:
    problem = next(p for p in draw("talk-code", "train", 0) if "is_prime" in p.answer)
    task = TALK["talk-code"]
    assert task.score(problem, problem.answer)
    assert not task.score(problem, problem.answer.replace("n < 2", "n < 1"))


# --- turns


def seeded(name: str, /, **slots: str) -> conversation.Said:
    """A first turn with these words."""
    intent = INTENTS[name]
    rows = intent.rows if "from" in intent.options else ()
    fitting = [r for r in rows if all(grammar.first(r[k]) == v for k, v in slots.items())]
    row = fitting[0] if fitting else None
    words = {key: grammar.first(cell) for key, cell in (row or {}).items()} | slots
    answer = fill(intent.answer, words)
    return conversation.Said("", answer, "", (), intent=intent, row=row, slots=words)


def follow_ups(first: conversation.Said) -> set[str]:
    """All that can be answered right after."""
    rng = random.Random(0)
    return {conversation.follow(rng, [first], 0.0).answer for _ in range(2_000)}


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (seeded("capital", country="France"), "The capital of Spain is Madrid."),
        (seeded("capital", country="France"), "The capital of France is Paris."),
        (
            seeded("capital", country="France"),
            "France lies in Europe, and people pay there with the euro.",
        ),
        (seeded("name.tell", name="Ada"), "Your name is Ada. You told me so yourself."),
        (seeded("howto", doing="say no"), "Long reasons invite long debates."),
        (
            seeded("howto", doing="say no"),
            "Thank them, say no in one clear sentence, and give no long reasons.",
        ),
        (
            seeded("riddle", topic="time"),
            "The answer is a clock. Shall I ask you another one?",
        ),
        (
            seeded("riddle", topic="time"),
            "Yes, it is a clock! Well done. Would you like another one?",
        ),
        (
            seeded("riddle", topic="time"),
            "It has a bed and never sleeps, a mouth and never eats. What is it?",
        ),
        (seeded("capital", country="France"), INTENTS["thanks"].answer),
    ],
)
def test_what_follows(first: conversation.Said, answer: str) -> None:
    assert answer in follow_ups(first)


def test_a_name_is_remembered_over_a_turn() -> None:
    rng = random.Random(1)
    name, joke = seeded("name.tell", name="Ada"), seeded("joke.about", topic="cats")
    later = {conversation.follow(rng, [name, joke], 0.0).answer for _ in range(2_000)}
    assert "Your name is Ada. You told me so yourself." in later
    assert INTENTS["name.ask.unknown"].answer not in later


def test_what_was_told_is_never_denied() -> None:
    rng = random.Random(1)
    for told, denied in (("name.tell", "name.ask.unknown"), ("colour.tell", "colour.ask.unknown")):
        assert INTENTS[denied].barred == (told,)
        first = conversation.ask(rng, INTENTS[told], 0.0)
        denial = conversation.ask(rng, INTENTS[denied], 0.0)
        assert conversation._barred([first], denial)
        assert not conversation._barred([denial], first)


def test_a_story_goes_on() -> None:
    rng = random.Random(2)
    first = conversation.Said("", "", "", (), slots={"hero": "fox", "thing2": "lamp"})
    later = {stories.following(rng, first, 0.0).answer for _ in range(300)}
    assert stories.brief({"hero": "fox", "thing2": "lamp"}) in later
    assert stories.story({"hero": "fox", "thing2": "boat"}) in later
    assert any("The next day the fox showed everything" in answer for answer in later)


def test_sums_go_on_from_the_last_result() -> None:
    rng = random.Random(3)
    expected = json.dumps({"sum": "12", "goes_on": True})
    first = conversation.Said("", "", expected, ())
    later = [sums.following(rng, first, 0.0) for _ in range(200)]
    assert "Before: 12.\nNow: 12 + 5 = 17.\n#### 17" in {each.answer for each in later if each}
