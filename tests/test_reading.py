"""Answers in any words: right forms are right, stated others wrong, all else is not told."""

from __future__ import annotations

import json
import re
import time
from itertools import islice

import pytest

from d2f.tasks import TASKS, Problem, draw
from d2f.tasks.problem import MAX_READ, Turn
from d2f.tasks.reading import read_code, read_grid, read_number
from d2f.tasks.reading.words import answer_of

# What says that the answer is @.
STATED = [
    "#### @",
    "So it is @.\n#### @.",
    "#### **@**",
    "#### $@",
    "#### \\$@",
    "#### €@",
    "#### @€",
    "#### £@.00",
    "#### @.0",
    "#### @.00",
    "#### 0@",
    "#### +@",
    "#### @ people",
    "#### @ more cupcakes",
    "#### @km",
    "#### @ cm",
    "**#### @**",
    "####@",
    "  #### @",
    "> #### @",
    "##### @",
    "#### @\u00a0",
    "#### @\u200b",
    "#### x = @",
    "#### Answer: @",
    "#### the answer is @",
    "#### @ = @",
    "#### 7 - 2 = @",
    "#### @ (in words: some)",
    "#### @, as asked",
    "#### @; done",
    "#### `@`",
    "#### '@'",
    '#### "@"',
    "#### (@)",
    "#### [@]",
    "#### {@}",
    "#### <b>@</b>",
    "#### $@$",
    "#### \\(@\\)",
    "#### @\n\nLet me know if you need more help!",
    "#### @\n\n*Note:* 50 - 2 = 48.",
    "So.\r\n#### @\r\n",
    "#### Step 1\nAdd.\n#### Step 2\nThe answer is @.",
    "#### Final answer\n@",
    "### Final Answer: @",
    "### Answer\n\n@",
    "## Answer\n**@**\n",
    "The answer is @.",
    "The answer is **@**.",
    "Thus, the answer is @!",
    "The correct answer is @.",
    "The answer is $\\mathbf{@}$.",
    "The answer is @ because she started with 50.",
    "The answer is @, since 50 - 2 = 48.",
    "The answer is 7 - 2 = @ people.",
    "The answer is that Tom has @ apples.",
    "The answer equals @",
    "The answer = @",
    "the answer is x = @",
    "So, her answer: @ cupcakes",
    "So the answer is\n\n@.",
    "The answer is:\n- **@**",
    "The answer is 99. Hmm, no. Let me redo it.\n\nThe answer is @.",
    "Answer: @",
    "ANSWER = @",
    "Answer - @",
    "Answer – @",
    "Answer — @",
    "Answer => @",
    "Answer -> @",
    "| Answer | @ |",
    "**Answer:** @",
    "**Answer**: @",
    "**Answer: @**",
    "Answer: Tom has @ apples left.",
    "Answer:\n\n$$@$$",
    "Final answer: @ apples",
    "Final answer is: **@ apples**.",
    "**Final Answer**\n\n@",
    "<answer>@</answer>",
    "<answer> @ apples </answer>",
    '{"answer": @}',
    '{"answer": "@", "why": "7 - 2"}',
    '{"steps": ["7 - 2"], "answer": @}',
    "Die Antwort ist @.",
    "答案是@。",
    "答案：@",
    "答えは@です。",
    "La respuesta es @.",
    "La réponse est @.",
    "Ответ: @",
    "답: @",
    "\\boxed{@}",
    "$\\boxed{@}$",
    "$$\\boxed{@}$$",
    "\\boxed @",
    "\\fbox{@}",
    "\\boxed{\\text{@ people}}",
    "\\boxed{@\\text{ cm}}",
    "\\boxed{x = @}",
    "\\boxed{\\textbf{@}}",
    "\\textbf{\\boxed{@}}",
    "\\[ x = \\boxed{@} \\]",
    "The answer is \\(\\boxed{@}\\).\n\nLet me know if anything is unclear.",
    "@",
    "@.",
    "**@**",
    "$@$",
    "$@.00$",
    "\\(@\\)",
    "\\[\n@\n\\]",
    "= @",
    "@ cupcakes",
    "**@ apples**",
    "So it is:\n@",
    "x = @",
    "x = @.",
    "$x = @$",
    "**x = @**",
    "∴ x = @",
    "Therefore, x = @.",
    "9x = 90\nx = 90/9\n**x = @**\n\nCheck: 9 * 10 + 3 = 93 ✓",
    "$$x = @$$\nIt holds: 93 = 93.",
    "<think>#### 99?</think>\n#### @",
    "<thinking>The answer is 99.</thinking>The answer is @.",
    "I think 99.</think>\n#### @",
    "[THINK]99[/THINK]@",
    "<|channel|>analysis<|message|>It is 99<|end|>"
    "<|start|>assistant<|channel|>final<|message|>The answer is @<|return|>",
    "#### @</s>",
    "<|im_start|>#### @<|im_end|>",
    "@<|eot_id|>",
]
# What can mean @ alone, but may be a step on the way: right, or not told.
IN_PASSING = [
    "7 - 2 = @",
    "So Tom has @ apples left.",
    "So 7 - 2 = @ apples.",
    "Tom has 7 - 2 = @ apples left. Hope that helps!",
    "7 - 2 = 5.\nTherefore, Rosa needs **@** more cupcakes.",
    "She needs @ more cupcakes.",
]


@pytest.mark.parametrize("form", STATED)
def test_a_stated_number_is_right_or_wrong(form: str) -> None:
    for number in ("3", "13", "105"):
        text = form.replace("@", number)
        assert read_number(text, number) is True
        assert read_number(text, "4") is False


@pytest.mark.parametrize("form", IN_PASSING)
def test_a_number_in_passing_can_only_be_right(form: str) -> None:
    for number in ("3", "13", "105"):
        text = form.replace("@", number)
        assert read_number(text, number) is True
        assert read_number(text, "4") is None


SPELLED = {
    "3": ["３", "٣", "3/1", "3.000"],
    "-3": ["-3", "−3", "–3", "-3.0", "－３"],
    "1234": ["1234", "1,234", "1,234.00", "1{,}234", "1\\,234", "1,\\!234", "1'234"],
    "1234567": ["1,234,567", "1\u202f234\u202f567", "1\u00a0234\u00a0567", "1\u2009234\u2009567"],
    "3/4": ["3/4", "3 / 4", "3⁄4", "3∕4", "¾", "\\frac{3}{4}", "\\dfrac34", "0.75", ".75"],
    "-3/4": ["-3/4", "-\\frac{3}{4}", "-\\dfrac{3}{4}", "−0.75"],
    "13/12": ["13/12", "1 1/12", "1\\frac{1}{12}", "\\tfrac{13}{12}"],
    "1/2": ["½", "1/2", "0.5", "0.50"],
}


@pytest.mark.parametrize("number", SPELLED)
def test_a_number_may_be_spelled_in_many_ways(number: str) -> None:
    for spelled in SPELLED[number]:
        for form in ("#### {}", "The answer is {}.", "Answer: {}", "\\boxed{{{}}}", "x = {}"):
            assert read_number(form.format(spelled), number) is True, spelled
            assert read_number(form.format(spelled), "5/7") is False, spelled


WRONG = [
    "The answer is 3. Oh, I see: the answer is 4.",
    "5 - 2 = 3\n#### 4",
    "3 + 1: the answer is 4",
    "#### 13",
    "#### 33",
    "#### 30",
    "#### 3.5",
    "#### 0.3",
    "#### -3",
    "#### 3/4",
    "#### 1/3",
    "#### 3,000",
    "Answer: 3,100",
    "The answer is 4, not 3 as one might think",
    "<think>#### 3</think>#### 4",
    "\\boxed{3}\\boxed{4}",
]


@pytest.mark.parametrize("text", WRONG)
def test_another_final_number_is_wrong_whatever_came_before(text: str) -> None:
    assert read_number(text, "3") is False


UNSURE = [
    "",
    "no idea",
    "I cannot tell.",
    "The answer is three.",
    "The answer is 3 or 4.",
    "The answer is 3 to 4.",
    "The answer is between 3 and 5",
    "The answer is not 3.",
    "The answer isn't 3.",
    "The answer is about 3.",
    "The answer is 3?",
    "Is the answer 3?",
    "I guess the answer is 3?",
    "If the answer is 3, then something",
    "My first answer was 3, but I doubt it",
    "The previous answer is 3.",
    "The answer is 3. Wait, that is wrong: it is 4.",
    "The answer is 3 more than 5",
    "The answer is half of 3",
    "The answer is the number of apples in 3 bags of 4.",
    "Answer:\nStep 3: go on",
    "Answer: Tom starts with 3 apples. He buys 2, so he has 5.",
    "Solution:\nSubtract 3 from both sides",
    "The total is 3. Then adding 4 makes 7.",
    "#### ",
    "#### 3 or 4",
    "#### ≈3",
    "#### 3%",
    "#### 3 percent",
    "#### 3 dozen",
    "#### 3 thousand",
    "#### 3k",
    "#### 3e5",
    "#### 3x",
    "#### 3^2",
    "#### 3²",
    "#### √3",
    "#### 3π",
    "#### 3rd",
    "#### 3 remainder 1",
    "#### 3:2",
    "#### 3,5",
    "#### 3 1",
    "#### 3-4",
    "#### 1-3",
    "#### 5 - 2",
    "#### 2*3",
    "#### 9/3",
    "#### 3 hours and 20 minutes",
    "#### twice 3",
    "#### Step 3",
    "#### 3. Add\nthen go on",
    "\\boxed{}",
    "\\boxed{A}",
    "x = 3 or x = 4",
    "x + 4 = 7",
    "Left over:\n* 3 apples\n* 5 pears",
    "Left over:\n- 5 pears\n- 4 apples",
    "x = 10\nNow take 7 away:\n10 - 7 = 3",
    "So 3x = 9",
    "Step 3: done",
    "1. Add\n2. Subtract\n3.",
    "Let me think about problem 3",
    "Maybe 3",
    "3?",
    "3 or 4",
    "- 3",
    "It is not 3.",
    "I don't know, 3 is a guess.",
    "Tom has 3 apples and 4 pears.",
    "So 7 - 4 = 3, but she needs 2 more.",
    "She gave 3 to each.",
    "<think>3",
    "<think>The answer is 3.",
]


@pytest.mark.parametrize("text", UNSURE)
def test_what_is_not_sure_is_not_told(text: str) -> None:
    assert read_number(text, "3") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 9/54", "1/6"),  # not in lowest terms
        ("#### 0.17", "1/6"),  # rounded
        ("#### 1.234", "1234"),  # a thousand, in some countries
        ("#### 63%", "63"),
        ("The answer was 5. Taking 1 away gives 4.", "4"),
        ("Answer: 5 - 2 = 3. Then 3 + 4 = 7.", "3"),
    ],
)
def test_a_spelling_that_may_mean_it_is_not_told(text: str, expected: str) -> None:
    assert read_number(text, expected) is None


SOLVED = "1234341221434321"
OTHER = "1243342121343412"
ROWS = [SOLVED[i : i + 4] for i in range(0, 16, 4)]
ORDINALS = ("First", "Second", "Third", "Fourth")
PUZZLE = "___4\n3_1_\n2143\n43__"
BARE = "\n".join(ROWS)


def lines(form: str) -> str:
    """Each row in a form: {0} is its digits, {1} to {4} each of them, {n} its number."""
    return "\n".join(form.format(row, *row, n=n) for n, row in enumerate(ROWS, 1))


TABLE = lines("| {1} | {2} | {3} | {4} |")
LISTS = [list(map(int, row)) for row in ROWS]
GRIDS = {
    "house form": BARE,
    "CRLF": BARE.replace("\n", "\r\n"),
    "spaces": lines("{1} {2} {3} {4}"),
    "tabs": lines("{1}\t{2}\t{3}\t{4}"),
    "commas": lines("{1}, {2}, {3}, {4}"),
    "and": lines("Row {n}: {1}, {2}, {3} and {4}"),
    "indented": lines("    {1} {2} {3} {4}"),
    "double spaced": lines("{0}\n"),
    "full width": "\n".join("".join(chr(ord(c) + 0xFEE0) for c in row) for row in ROWS),
    "keycaps": "\n".join("".join(f"{c}\ufe0f\u20e3" for c in row) for row in ROWS),
    "emphasised": lines("**{1}** {2} **{3}** {4}"),
    "emphasised rows": lines("*{0}*"),
    "quoted": lines("> {1} {2} {3} {4}"),
    "fence": f"```\n{BARE}\n```",
    "named fence": f"```text\n{BARE}\n```\nDone.",
    "table": TABLE,
    "first row as a table's head": TABLE.replace("\n", "\n|---|---|---|---|\n", 1),
    "table with an empty head": f"| | | | |\n|-|-|-|-|\n{TABLE}",
    "table with letters": f"| A | B | C | D |\n|---|---|---|---|\n{TABLE}",
    "table with numbers": f"| 1 | 2 | 3 | 4 |\n|---|---|---|---|\n{TABLE}",
    "table with names": "| | C1 | C2 | C3 | C4 |\n|-|-|-|-|-|\n"
    + lines("| R{n} | {1} | {2} | {3} | {4} |"),
    "table with numbers both ways": "| | 1 | 2 | 3 | 4 |\n|-|-|-|-|-|\n"
    + lines("| {n} | {1} | {2} | {3} | {4} |"),
    "table with rows": lines("| Row {n} | {1} | {2} | {3} | {4} |"),
    "HTML table": "<table><tr>"
    + "</tr><tr>".join("".join(f"<td>{c}</td>" for c in row) for row in ROWS)
    + "</tr></table>",
    "HTML lines": "<br>".join(ROWS),
    "box": "┌─────┬─────┐\n│ 1 2 │ 3 4 │\n│ 3 4 │ 1 2 │\n├─────┼─────┤\n"
    "│ 2 1 │ 4 3 │\n│ 4 3 │ 2 1 │\n└─────┴─────┘",
    "box of characters": "+---+---+\n" + "\n+---+---+\n".join(f"|{r[:2]} |{r[2:]} |" for r in ROWS),
    "bands": "12 34\n34 12\n\n21 43\n43 21",
    "bands with lines": "1 2 | 3 4\n3 4 | 1 2\n----+----\n2 1 | 4 3\n4 3 | 2 1",
    "labels": lines("Row {n}: {0}"),
    "bold labels": lines("**Row {n}:** {1} {2} {3} {4}"),
    "labels in a list": lines("- Row {n}: {1} {2} {3} {4}"),
    "labels with words": lines("Row {n} (from the top): {1} {2} {3} {4}"),
    "short labels": lines("R{n}: {1} {2} {3} {4}"),
    "labels with a sign": lines("R{n} = {1} {2} {3} {4}"),
    "labels on one line": lines("Row {n}: {1} {2} {3} {4}").replace("\n", ", "),
    "ordinals": "\n".join(f"{n} row: {r}" for n, r in zip(ORDINALS, ROWS, strict=True)),
    "sentences": "\n".join(f"The {n} row is {r}." for n, r in zip(ORDINALS, ROWS, strict=True)),
    "list": lines("- {1} {2} {3} {4}"),
    "numbered": lines("{n}. {1} {2} {3} {4}"),
    "numbered otherwise": lines("{n}) {0}"),
    "remarks": lines("{0}   (a row)"),
    "comments": lines("{1} {2} {3} {4}  # row {n}"),
    "one line": SOLVED,
    "one line with spaces": " ".join(ROWS),
    "one line with a label": f"Solution: {' '.join(ROWS)}",
    "slashes": "/".join(ROWS),
    "JSON": json.dumps(LISTS),
    "JSON in lines": "[\n" + ",\n".join(map(str, LISTS)) + "\n]",
    "JSON in many lines": json.dumps(LISTS, indent=2),
    "JSON with a name": json.dumps({"solution": LISTS}),
    "strings": json.dumps(ROWS),
    "matrix": "\\begin{bmatrix}\n" + " \\\\\n".join(map(" & ".join, ROWS)) + "\n\\end{bmatrix}",
    "puzzle first": f"{PUZZLE}\n\nSolution:\n{BARE}",
    "puzzle just above": f"{PUZZLE}\n\n{BARE}",
    "puzzle with points": f"{PUZZLE.replace('_', '.')}\n\n{BARE}",
    "puzzle with zeros": f"{PUZZLE.replace('_', '0')}\n\n{BARE}",
    "puzzle in a fence": f"```\n{PUZZLE}\n```\n```\n{BARE}\n```",
    "puzzle as a table": f"| | | | 4 |\n| 3 | | 1 | |\n| 2 | 1 | 4 | 3 |\n\nis\n{TABLE}",
    "one row first": f"The first row must be\n{ROWS[0]}\nso:\n{BARE}",
    "one row just above": f"The first row must be\n{ROWS[0]}\n\n{BARE}",
    "columns behind": f"{BARE}\n\nColumns:\nColumn 1: 1 3 2 4\nColumn 2: 2 4 1 3\n"
    "Column 3: 3 1 4 2\nColumn 4: 4 2 3 1",
    "words behind": f"{BARE}\nThis satisfies all 4 rows.",
    "another attempt first": f"1234\n3412\n2143\n1111\n\nThat breaks a column, so:\n\n{BARE}",
    "thinking first": f"<think>\n4321\n1234\n3412\n2143\n</think>\n{BARE}",
}


@pytest.mark.parametrize("layout", GRIDS)
def test_a_grid_is_read_in_any_layout(layout: str) -> None:
    assert read_grid(GRIDS[layout], SOLVED) is True
    assert read_grid(GRIDS[layout], OTHER) is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "1234",
        "Row 1: 1234",
        "1234\n3412",
        "1\n2\n3\n4",
        "The first row is 1234. The rest is easy.",
        "Use the digits 1234 in rows, columns and boxes.\n1234",
        PUZZLE,
        "\n".join(ROWS[:3]) + "\n43__",
        f"<think>{BARE}",
    ],
)
def test_less_than_a_grid_is_not_told(text: str) -> None:
    assert read_grid(text, SOLVED) is None


def test_a_grid_behind_the_right_one_makes_it_unsure() -> None:
    assert read_grid(f"{BARE}\nNot this:\n4321\n1234\n3412\n2143", SOLVED) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a\r\nb", "a\nb"),
        ("<think>x</think>a", "a"),
        ("a<think>x</think>b", "ab"),
        ("x</think>a", "a"),
        ("a<think>x", "a"),
        ("<think>x<think>y</think>a</think>b", "b"),
        ("<Reasoning>x</Reasoning>a", "a"),
        ("<seed:think>x</seed:think>a", "a"),
        ("◁think▷x◁/think▷a", "a"),
        ("<|channel|>analysis<|message|>x", ""),
        ("a \u00adb\u200bc", "a bc"),
    ],
)
def test_thinking_is_no_part_of_an_answer(text: str, answer: str) -> None:
    assert answer_of(text) == answer


def first(task: str) -> Problem:
    return next(draw(task, "test", 7))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_own_answers_are_read_as_they_are_judged(task: str) -> None:
    for problem in islice(draw(task, "test", 3), 4 if task == "code-mini" else 300):
        for turn, each in enumerate(problem.turns):
            assert TASKS[task].mark(problem, each.answer, turn) is True


@pytest.mark.parametrize("task", sorted(TASKS))
def test_an_answer_without_end_is_not_read(task: str) -> None:
    problem = first(task)
    assert TASKS[task].mark(problem, problem.answer.ljust(MAX_READ)) is True
    assert TASKS[task].mark(problem, problem.answer.ljust(MAX_READ + 1)) is None


NONSENSE = [
    *("<think>", "####", "\\boxed{", "answer ", "answer is ", "answer: 3 ", "3 ", "#### 3\n", "*_"),
    *("\\frac", "\\frac{3", "1, ", "|", "(", "=3", "1(a", "a~~~", "a```", "x", "3-", "1 < ", "- "),
    *("1" * 5000 + " ", "1" * MAX_READ, "\ud800", "\\text{", "row 1", "def f(", "a=b\n", "```\n"),
]


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_long_nonsense_is_read_soon(text: str) -> None:
    """No reader takes much more than linear time, whatever a server sends."""
    long = (text * MAX_READ)[:MAX_READ]
    start = time.process_time()
    assert read_number(long, "4") is not True
    assert read_grid(long, SOLVED) is not True
    assert read_code(long, first("code-mini").expected[0]) is None
    assert time.process_time() - start < 5


def test_a_long_chain_of_names_is_followed_soon() -> None:
    problem = first("code-mini")
    chain = "\n".join(f"a{n}=a{n + 1}" for n in range(3000))
    name = json.loads(problem.expected[0])["name"]
    start = time.process_time()
    assert read_code(f"{chain}\n{name} = a0", problem.expected[0]) is None
    assert time.process_time() - start < 5


# ---- the judges of benchmarks


def in_house_form(task: str, text: str, expected: str) -> bool:
    """The rule by which all committed scores were counted."""
    if task == "sudoku-mini":
        rows = [line.strip() for line in text.split("\n")]
        return "".join([row for row in rows if re.match(r"^[1-4]{4}$", row)][:4]) == expected
    line = text[text.rfind("####") + 4 :].strip().split("\n")[0]
    return "####" in text and line.strip() == expected


@pytest.mark.parametrize("task", ["gsm-mini", "math-mini"])
def test_the_judge_of_numbers_knows_its_own_form_alone(task: str) -> None:
    problem = first(task)
    expected = problem.expected[0]
    judged = []
    for form in (*STATED, *IN_PASSING, *UNSURE, *WRONG):
        text = form.replace("@", expected)
        judged.append(TASKS[task].score(problem, text))
        assert judged[-1] is in_house_form(task, text, expected), text
    assert sum(judged) == 11


def test_the_judge_of_grids_knows_its_own_form_alone() -> None:
    problem = Problem("sudoku-mini", PUZZLE, (Turn(PUZZLE, BARE),), (SOLVED,))
    judged = []
    for text in GRIDS.values():
        judged.append(TASKS["sudoku-mini"].score(problem, text))
        assert judged[-1] is in_house_form("sudoku-mini", text, SOLVED), text
    assert sum(judged) == 7
