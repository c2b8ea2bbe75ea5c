"""The task grammars: splits, reproducibility, true arithmetic, scorers that are not fooled."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pytest

from d2f.tasks import TASKS, Problem, draw, final_answer, split_of
from d2f.tasks.programming import FENCE
from d2f.tasks.sandbox import call_untrusted

NAMES = sorted(TASKS)
ROOT = Path(__file__).parents[1]


def some(task: str, count: int, seed: int = 0, split: str = "train") -> list[Problem]:
    return list(islice(draw(task, split, seed), count))


def test_names() -> None:
    assert NAMES == ["code-mini", "gsm-mini", "math-mini", "sudoku-mini"]


@pytest.mark.parametrize("task", NAMES)
def test_splits_are_disjoint(task: str) -> None:
    train = {p.key for p in some(task, 19_000, seed=1)}
    test = some(task, 1_000, seed=2, split="test")
    assert train.isdisjoint(p.key for p in test)
    assert {split_of(p) for p in test} == {"test"}
    assert len({p.key for p in test}) == 1_000


@pytest.mark.parametrize("task", NAMES)
def test_one_in_eight_contents_is_held_out(task: str) -> None:
    rng = random.Random(3)
    problems = {p.key: p for p in (TASKS[task].generate(rng) for _ in range(4_000))}
    held_out = sum(split_of(p) == "test" for p in problems.values())
    assert 0.10 < held_out / len(problems) < 0.15


@pytest.mark.parametrize("task", NAMES)
def test_a_seed_fixes_the_stream(task: str) -> None:
    assert some(task, 200, seed=5) == some(task, 200, seed=5)
    assert some(task, 200, seed=5) != some(task, 200, seed=6)


def test_streams_do_not_depend_on_the_process() -> None:
    code = (
        "from itertools import islice; from d2f.tasks import TASKS, draw\n"
        "print([p.prompt for t in sorted(TASKS) for p in islice(draw(t, 'test', 9), 20)])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert (
        runs[0] == runs[1] == str([p.prompt for t in NAMES for p in some(t, 20, 9, "test")]) + "\n"
    )


DRAWS = {"gsm-mini": 40_000, "math-mini": 50_000, "code-mini": 12_000, "sudoku-mini": 5_000}


@pytest.mark.parametrize("task", NAMES)
def test_same_conversation_same_answer(task: str) -> None:
    rng = random.Random(4)
    answers: dict[tuple[str, ...], str] = {}
    for _ in range(DRAWS[task]):
        problem = TASKS[task].generate(rng)
        prompts: tuple[str, ...] = ()
        for turn in problem.turns:
            prompts += (turn.prompt,)
            assert answers.setdefault(prompts, turn.answer) == turn.answer


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("task", NAMES)
def test_difficulty_scales_every_grammar(task: str, difficulty: float) -> None:
    problems = list(islice(draw(task, "train", 0, difficulty), 300))
    assert len({p.key for p in problems}) > 100


def test_easy_word_problems_are_short() -> None:
    easy = list(islice(draw("gsm-mini", "train", 0, 0.0), 200))
    assert max(len(p.key.split()) for p in easy) <= 3
    assert max(len(p.key.split()) for p in some("gsm-mini", 500)) == 6


@pytest.mark.parametrize("task", ["gsm-mini", "math-mini", "sudoku-mini"])
def test_own_answers_score_and_corrupted_ones_do_not(task: str) -> None:
    for problem in some(task, 2_000, split="test"):
        for i, turn in enumerate(problem.turns):
            assert TASKS[task].score(problem, turn.answer, i)
            last = turn.answer[-1]
            wrong = turn.answer[:-1] + str((int(last) + 1) % 10)
            assert not TASKS[task].score(problem, wrong, i)


def test_own_code_scores_and_corrupted_code_does_not() -> None:
    task = TASKS["code-mini"]
    problems = some("code-mini", 10, split="test")
    problems += [p for p in some("code-mini", 60) if len(p.turns) > 1][:4]
    for problem in problems:
        for i, turn in enumerate(problem.turns):
            assert task.score(problem, turn.answer, i)
        assert not task.score(problem, problem.answer.replace("return ", "return not not not "))


def test_all_code_agrees_with_its_references() -> None:
    for problem in some("code-mini", 2_000):
        for turn, expected in zip(problem.turns, problem.expected, strict=True):
            tests = json.loads(expected)
            space: dict[str, object] = {}
            exec(turn.answer, space)
            function = space[tests["name"]]
            assert callable(function)
            assert len(tests["calls"]) >= 4
            assert [function(*args) for args in tests["calls"]] == tests["results"]


def test_hidden_tests_catch_wrong_constants() -> None:
    caught = total = 0
    for problem in some("code-mini", 600):
        tests = json.loads(problem.expected[0])
        head, body = problem.answer.split("\n", 1)
        for match in re.finditer(r"\b\d+\b", body):
            wrong = body[: match.start()] + str(int(match[0]) + 1) + body[match.end() :]
            space: dict[str, object] = {}
            exec(f"{head}\n{wrong}", space)
            function = space[tests["name"]]
            assert callable(function)
            total += 1
            caught += [function(*args) for args in tests["calls"]] != tests["results"]
    assert caught / total > 0.8  # the rest change nothing, as `x % 7 > -1` would


def follow_ups(task: str) -> float:
    return sum(len(p.turns) > 1 for p in some(task, 2_000)) / 2_000


def test_follow_ups_are_frequent() -> None:
    assert 0.25 < follow_ups("gsm-mini") < 0.36
    assert 0.15 < follow_ups("math-mini") < 0.26
    assert 0.12 < follow_ups("code-mini") < 0.25
    assert follow_ups("sudoku-mini") == 0


SUM = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)(?![\d/])")
RESULTS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: Fraction(a, b),
}


def sums(answer: str) -> Iterator[tuple[int, str, int, int]]:
    for a, sign, b, result in SUM.findall(answer):
        yield int(a), sign, int(b), int(result)


def test_word_problems_calculate_truly_and_stay_small() -> None:
    for problem in some("gsm-mini", 3_000):
        for turn in problem.turns:
            found = list(sums(turn.answer))
            assert found
            assert turn.answer.count("=") == len(found)
            for a, sign, b, result in found:
                assert RESULTS[sign](a, b) == result
                assert 1 <= result <= 99
            assert str(found[-1][3]) == final_answer(turn.answer)


def test_word_problems_have_two_to_six_steps() -> None:
    steps = {len(p.key.split()) for p in some("gsm-mini", 3_000)}
    assert steps == {2, 3, 4, 5, 6}


def test_word_problems_name_everyone_who_is_asked_about() -> None:
    for problem in some("gsm-mini", 2_000):
        *story, question = re.split(r"(?<=[.?]) ", problem.prompt)
        for name in set(re.findall(r"\b[A-Z][a-z]+\b", question)) - {"How"}:
            assert any(name in sentence for sentence in story), problem.prompt


def test_exercises_calculate_truly() -> None:
    for problem in some("math-mini", 5_000):
        for turn in problem.turns:
            for a, sign, b, result in sums(turn.answer):
                if f"/{a} {sign}" not in turn.answer:
                    assert RESULTS[sign](a, b) == result, turn.answer


def test_equations_hold_for_their_solutions() -> None:
    solved = 0
    for problem in some("math-mini", 3_000):
        if "x" not in problem.key or "=" not in problem.key:
            continue
        left, right = re.sub(r"(\d)([x(])", r"\1 * \2", problem.key).split("=")
        x = int(problem.expected[0])
        assert eval(left, {"x": x}) == eval(right, {"x": x})
        solved += 1
    assert solved > 500


def test_expressions_have_their_values() -> None:
    checked = 0
    for problem in some("math-mini", 3_000):
        if re.fullmatch(r"[-+*/^() \d]+", problem.key):
            exact = re.sub(r"(\d+)/(\d+)", r"Fraction(\1, \2)", problem.key).replace("^", "**")
            assert eval(exact, {"Fraction": Fraction}) == Fraction(problem.expected[0])
            checked += 1
    assert checked > 500


def solutions(cells: list[str]) -> int:
    """Counts solutions by trying every digit in the first empty cell."""
    if "_" not in cells:
        return 1
    at = cells.index("_")
    row, column = divmod(at, 4)
    peers = {
        cells[4 * r + c]
        for r in range(4)
        for c in range(4)
        if r == row or c == column or (r // 2, c // 2) == (row // 2, column // 2)
    }
    return sum(solutions([*cells[:at], d, *cells[at + 1 :]]) for d in "1234" if d not in peers)


def test_sudokus_have_one_solution_and_six_to_ten_givens() -> None:
    for problem in some("sudoku-mini", 400):
        puzzle = problem.prompt.split("\n", 1)[1].replace("\n", "")
        solution = problem.answer.replace("\n", "")
        assert len(puzzle) == 16 and 6 <= 16 - puzzle.count("_") <= 10
        assert solutions(list(puzzle)) == 1
        assert all(given in ("_", digit) for given, digit in zip(puzzle, solution, strict=True))
        for group in range(4):
            box = 8 * (group // 2) + 2 * (group % 2)
            assert set(solution[4 * group : 4 * group + 4]) == set("1234")
            assert set(solution[group::4]) == set("1234")
            assert set(solution[box : box + 2] + solution[box + 4 : box + 6]) == set("1234")


def test_sudoku_takes_the_first_four_rows() -> None:
    (problem,) = some("sudoku-mini", 1)
    score = TASKS["sudoku-mini"].score
    assert score(problem, f"Here it is:\n{problem.answer}\n1234\n")
    assert not score(problem, f"1234\n{problem.answer}")
    assert not score(problem, problem.answer[:-5])


def test_final_answer_is_the_last_one() -> None:
    assert final_answer("#### 3\nso\n#### 17\n") == "17"
    assert final_answer("17") is None
    (problem,) = some("gsm-mini", 1)
    assert not TASKS["gsm-mini"].score(problem, problem.expected[0])
    assert TASKS["gsm-mini"].score(problem, f"#### {problem.expected[0]}")
    assert not TASKS["gsm-mini"].score(problem, f"#### {problem.expected[0]}0")


def code_problem(prompt_part: str) -> Problem:
    return next(p for p in draw("code-mini", "train", 0) if prompt_part in p.prompt)


def test_fenced_code_is_tolerated() -> None:
    (problem,) = some("code-mini", 1)
    assert TASKS["code-mini"].score(problem, f"Sure:\n```python\n{problem.answer}\n```\nDone.")
    assert FENCE.search("```\nx\n```").group(1) == "x\n"  # type: ignore[union-attr]


HOSTILE = {
    "loops": "def f(x):\n    while True:\n        pass",
    "sleeps": "def f(x):\n    import time\n    time.sleep(60)",
    "exits": "import sys\ndef f(x):\n    sys.exit(0)",
    "exits on import": "import os\nos._exit(0)",
    "allocates": "def f(x):\n    return len(bytearray(1 << 34))",
    "grows": "def f(x):\n    a = [x]\n    while True:\n        a += a",
    "forks": "import os\ndef f(x):\n    while True:\n        os.fork()",
    "forks after catching": (
        "import os\ndef f(x):\n    while True:\n        try:\n            os.fork()\n"
        "        except BaseException:\n            pass"
    ),
    "prints": "print('[2]')\ndef f(x):\n    print('[2]', flush=True)\n    raise SystemExit(0)",
    "reads files": "def f(x):\n    return open('/etc/passwd').read()",
    "runs commands": "import os\ndef f(x):\n    return os.system('true')",
    "kills its parent": "import os\ndef f(x):\n    os.kill(os.getppid(), 15)\n    return 1",
    "imports": "import socket\ndef f(x):\n    return 1",
    "recurses": "def f(x):\n    return f(x)",
    "returns an object": "def f(x):\n    return object()",
    "returns too much": "def f(x):\n    return 'a' * 1_000_000",
    "lacks the function": "def g(x):\n    return 1",
    "is no code": "I cannot do that.",
    "holds a null byte": "def f(x):\n    return '\0'",
    "holds a surrogate": "def f(x):\n    return '\ud800'",
    "is too long": "#" * 30_000,
}


# What would leave a file; {} is an outer folder, or "" for the program's own.
LEAVING = {
    "mkfifo": "os.mkfifo('{}left')",
    "mkfifo of the module below": "__import__('posix').mkfifo('{}left')",
    "mkfifo in a folder": "os.mkfifo('left', dir_fd=os.open('{}.', 0))",
    "mkfifo of a set": "[f for f in os.supports_dir_fd if f.__name__ == 'mkfifo'][0]('{}left')",
    "mkfifo of a module made anew": (
        "i = sys.modules['_imp']; m = i.create_builtin("
        "sys.modules['_frozen_importlib'].ModuleSpec('posix', None)); "
        "i.exec_builtin(m); m.mkfifo('{}left')"
    ),
    "mknod": "os.mknod('{}left')",
    "mknod of a fifo": "os.mknod('{}left', 0o10644)",
    "mkdir": "os.mkdir('{}left')",
    "makedirs": "os.makedirs('{}left/a/b')",
    "open": "open('{}left', 'w')",
    "os.open": "os.open('{}left', os.O_CREAT | os.O_WRONLY)",
    "link": "os.link('/proc/self/cmdline', '{}left')",
    "symlink": "os.symlink('/etc/passwd', '{}left')",
    "rename": "os.rename('.', '{}left')",
    "chmod": "os.chmod('.', 0)",
    "chdir": "os.chdir('..')",
}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which the user called nobody may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize("what", sorted(LEAVING))
def test_code_leaves_nothing_behind(
    what: str, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    for place in ("", f"{open_folder}/"):
        tried = LEAVING[what].format(place)
        source = f"import os, sys\ndef f(x):\n    {tried}\n    return 1"
        assert call_untrusted(source, "f", [[1]]) is None
        assert list(open_folder.iterdir()) == []
    assert call_untrusted("def f(x):\n    return x", "f", [[1]]) == [1]


def make_nested(folder: Path) -> None:
    (folder / "a/b/c").mkdir(parents=True)
    (folder / "a/b/c/file").touch()
    os.mkfifo(folder / "a/b/fifo")


def make_closed(folder: Path) -> None:
    make_nested(folder)
    (folder / "a/b/c/file").chmod(0)
    for closed in ("a/b/c", "a/b", "a", "."):
        (folder / closed).chmod(0)


@pytest.mark.parametrize("make", [make_nested, make_closed])
def test_a_folder_goes_whatever_is_in_it(make: Callable[[Path], None], tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        make(Path(folder))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_hostile_code_gets_nothing(what: str) -> None:
    start = time.monotonic()
    assert call_untrusted(HOSTILE[what], "f", [[1]]) is None
    assert time.monotonic() - start < 10


def test_a_forged_report_needs_the_right_values() -> None:
    (problem,) = some("code-mini", 1)
    name, calls = (json.loads(problem.expected[0])[key] for key in ("name", "calls"))
    forger = (
        f"import os\ndef {name}(x):\n    for fd in range(64):\n        try:\n"
        f"            os.write(fd, b'{[0] * len(calls)}')\n        except OSError:\n"
        "            pass\n    os._exit(0)"
    )
    assert call_untrusted(forger, name, calls) == [0] * len(calls)
    assert not TASKS["code-mini"].score(problem, forger)


def test_plain_code_runs_and_arguments_are_fresh() -> None:
    source = "def f(xs):\n    xs.append(1)\n    print('noise')\n    return xs"
    assert call_untrusted(source, "f", [[[5]], [[]]]) == [[5, 1], [1]]


def test_truth_is_not_one() -> None:
    problem = code_problem("whether")
    wrong = problem.answer.replace("return ", "return 0 + (") + ")"
    assert not TASKS["code-mini"].score(problem, wrong)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="task .*'gsm8k'"):
        draw("gsm8k", "train", 0)
    with pytest.raises(ValueError, match="split .*'dev'"):
        draw("gsm-mini", "dev", 0)
    with pytest.raises(ValueError, match="difficulty .* 1.5"):
        TASKS["gsm-mini"].generate(random.Random(0), 1.5)
    (problem,) = some("gsm-mini", 1)
    with pytest.raises(ValueError, match="turn .* 7"):
        TASKS["gsm-mini"].score(problem, "", 7)
    with pytest.raises(ValueError, match="problem.task .*'gsm-mini'"):
        TASKS["math-mini"].score(problem, "")
