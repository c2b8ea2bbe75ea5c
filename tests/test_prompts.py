"""Examples, checks on what a visitor types, and marks for answers."""

from itertools import islice

import pytest

from app.prompts import (
    EXAMPLES_PER_TASK,
    UNCHECKED,
    Known,
    check_prompt,
    examples,
    random_problem,
    recognise,
    verdict,
)
from d2f.tasks import TASKS, draw, split_of


def test_examples_are_held_out_a_few_a_task_and_always_the_same():
    known = examples()
    assert list(known) == list(TASKS)
    assert {len(problems) for problems in known.values()} == {EXAMPLES_PER_TASK}
    assert all(split_of(problem) == "test" for group in known.values() for problem in group)
    assert known == examples()


def test_a_random_problem_is_held_out():
    assert split_of(random_problem()) == "test"


def test_a_good_prompt_is_stripped_and_keeps_lines_tabs_and_scripts():
    assert check_prompt("  one\n\ttwo «ünï» 數獨 ${x} <b> \n") == "one\n\ttwo «ünï» 數獨 ${x} <b>"
    assert check_prompt("a" * 4000) == "a" * 4000


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("a" * 4001, "4,001 characters; at most 4,000"),
        ("a\x00b", r"U\+0000"),
        ("a\x1b[31m", r"U\+001B"),
        ("a\x86b", r"U\+0086"),
        ("a\ud800b", r"U\+D800"),
    ],
)
def test_a_bad_prompt_is_refused(prompt: str, message: str):
    with pytest.raises(ValueError, match=message):
        check_prompt(prompt)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_line_ends_of_other_systems_are_line_ends(end: str) -> None:
    assert (
        check_prompt(f"\ufeff Solve it.{end}Show the steps.{end}") == "Solve it.\nShow the steps."
    )


@pytest.mark.parametrize(
    ("right", "sentence"),
    [
        ((True, True), "Both answers are correct."),
        ((False, False), "Both answers are wrong."),
        ((True, False), "D2F is correct, AR is wrong."),
        ((False, True), "D2F is wrong, AR is correct."),
    ],
)
def test_known_problems_are_judged(right: tuple[bool, bool], sentence: str):
    (problem,) = islice(draw("math-mini", "test", 1), 1)
    answers = [problem.answer if good else "no idea" for good in right]
    assert verdict(Known(problem), ("D2F", "AR"), answers) == sentence


def test_a_typed_prompt_is_recognised_and_so_is_its_follow_up():
    problems = [p for p in islice(draw("gsm-mini", "test", 1), 60) if len(p.turns) == 2]
    first, second = (turn.prompt for turn in problems[3].turns)
    assert recognise([first], problems) == Known(problems[3], 0)
    assert recognise([first], problems).follow_up == second
    known = recognise([first, second], problems)
    assert known == Known(problems[3], 1) and known.follow_up is None
    answers = [problems[3].turns[1].answer, problems[3].turns[0].answer]
    assert verdict(known, ("D2F", "AR"), answers) == "D2F is correct, AR is wrong."
    for asked in ([second], [first, first], [first, second, first], ["hello"]):
        assert recognise(asked, problems) is None


def test_other_prompts_are_not_judged():
    assert verdict(None, ("D2F", "AR"), ("", "")) == UNCHECKED
