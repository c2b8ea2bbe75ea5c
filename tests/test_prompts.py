"""Examples, checks on what a visitor types, and marks for answers."""

from itertools import islice

import pytest
from pages import page, question

from app.page.asking import read_asking
from app.page.handlers import _asked
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
from d2f.errors import InvalidInput
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


NOT_SURE = "The page found no final answer that it can be sure of."
NAMES = ("D2F", "AR")


@pytest.mark.parametrize(
    ("d2f", "ar", "sentence"),
    [
        ("right", "right", "Both answers are correct."),
        ("wrong", "wrong", "Both answers are wrong."),
        ("right", "wrong", "D2F is correct, AR is wrong."),
        ("wrong", "right", "D2F is wrong, AR is correct."),
        ("right", "unsure", f"D2F is correct, AR was not checked. {NOT_SURE}"),
        ("unsure", "right", f"D2F was not checked, AR is correct. {NOT_SURE}"),
        ("wrong", "unsure", f"D2F is wrong, AR was not checked. {NOT_SURE}"),
        ("unsure", "unsure", f"Neither answer was checked. {NOT_SURE}"),
    ],
)
def test_known_problems_are_judged(d2f: str, ar: str, sentence: str):
    (problem,) = islice(draw("math-mini", "test", 1), 1)
    answers = {
        "right": f"So the answer is **{problem.expected[0]}**.",
        "wrong": "So the answer is **9999**.",
        "unsure": "no idea",
    }
    assert verdict(Known(problem), NAMES, [answers[d2f], answers[ar]]) == sentence


@pytest.mark.parametrize("task", list(TASKS))
def test_a_lane_trained_on_the_tasks_is_held_to_their_form(task: str):
    problem = next(draw(task, "test", 1))
    fenced = "~~~\n" + "\n".join(" ".join(row) for row in problem.answer.split("\n")) + "\n~~~"
    loose = {
        "gsm-mini": f"The answer is {problem.expected[0]}.",
        "math-mini": f"The answer is {problem.expected[0]}.",
        "code-mini": f"~~~\n{problem.answer}\n~~~",
        "sudoku-mini": fenced,
    }[task]
    known, answers = Known(problem), [loose, loose]
    assert verdict(known, NAMES, answers) == "Both answers are correct."
    assert verdict(known, NAMES, answers, trained=["D2F"]) == "D2F is wrong, AR is correct."
    assert verdict(known, NAMES, answers, trained=NAMES) == "Both answers are wrong."
    own = [problem.answer] * 2
    assert verdict(known, NAMES, own, trained=["D2F"]) == "Both answers are correct."


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("The answer is 3.\n\nLet me know if", "is correct"),
        ("The answer is 3", "was not checked"),  # of 35?
        ("The answer is 4.\n\nWait, that", "was not checked"),
        ("The answer is 4.\n\nLet me know if", "was not checked"),
    ],
)
def test_half_an_answer_is_never_wrong(answer: str, told: str):
    problem = next(each for each in draw("gsm-mini", "test", 7) if each.expected[0] == "3")
    words = verdict(Known(problem), NAMES, [problem.answer, answer], ["D2F"], cut=["AR"])
    assert words.startswith(f"D2F is correct, AR {told}.") or words == "Both answers are correct."
    assert (words == "Both answers are correct.") is (told == "is correct")


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


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x85", "\u2028"])
def test_a_problem_is_known_whatever_ends_its_lines(end: str):
    own = page([])
    problem = next(draw("sudoku-mini", "test", 1))
    typed = "\ufeff" + problem.prompt.replace("\n", end) + end
    asked = _asked(read_asking(question(typed)))
    assert asked == [problem.prompt]
    assert recognise(asked, [problem]) == Known(problem)
    assert own._prefilled({"prompt": typed})["prompt"] == f"{problem.prompt}\n"


def test_an_address_fills_in_words_and_numbers():
    own = page([])
    filled = own._prefilled({"rule": "entropy", "max_entropy": "0.25", "max_active_blocks": ""})
    assert filled is not None
    asked = [filled["settings"][name] for name in ("rule", "max_entropy", "max_active_blocks")]
    assert asked == ["entropy", 0.25, None]
    with pytest.raises(InvalidInput, match="invalid setting: rule must be one of confidence, "):
        own._prefilled({"rule": "luck"})


def test_other_prompts_are_not_judged():
    assert verdict(None, ("D2F", "AR"), ("", "")) == UNCHECKED
