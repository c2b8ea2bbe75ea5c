"""Functions in answers of any form: found, run and marked; what is no function is not told."""

from __future__ import annotations

import json
import textwrap

import pytest

from d2f.tasks import draw
from d2f.tasks.programming import FENCE, TASK
from d2f.tasks.reading import read_code
from d2f.tasks.sandbox import call_untrusted

PROBLEM = next(draw("code-mini", "test", 7))
CODE, EXPECTED = PROBLEM.answer, PROBLEM.expected[0]
NAME = json.loads(EXPECTED)["name"]
HEAD, BODY = CODE.split("\n", 1)
TYPED = f"def {NAME}(x: List[int]) -> Optional[int]:\n{BODY}"
METHOD = textwrap.indent(CODE.replace("(x", "(self, x", 1), "    ")
OTHER = f"def {NAME}(x):\n    return 12345"
REAL = CODE.replace(NAME, "real", 1)
WRAPPER = f"def {NAME}(x):\n    return real(x)"
USE = f"result = {NAME}(1, 2, 3)\nprint(result)"
SESSION = f">>> {NAME}(3)\n4"


def fenced(code: str, name: str = "python", fence: str = "```") -> str:
    return f"{fence}{name}\n{code}\n{fence}"


# In each the function is CODE's, which stands for what is right.
FORMS = {
    "house form": CODE,
    "CRLF": CODE.replace("\n", "\r\n"),
    "tabs": CODE.replace("    ", "\t"),
    "no-break spaces": CODE.replace("    ", "\u00a0\u00a0\u00a0 "),
    "fence": f"Here it is:\n{fenced(CODE)}\nIt works.",
    "short name": fenced(CODE, "py"),
    "capital name": fenced(CODE, "Python"),
    "name with more": fenced(CODE, 'python title="x.py"'),
    "name in braces": fenced(CODE, "{.python}"),
    "no name": fenced(CODE, ""),
    "tildes": fenced(CODE, "python", "~~~"),
    "four ticks": fenced(CODE, "python", "````"),
    "fence behind words": f"Here: {fenced(CODE)}",
    "words behind the fence": f"```python\n{CODE}``` done",
    "no end": f"```python\n{CODE}",
    "in a list": "1. Code:\n" + textwrap.indent(fenced(CODE), "   "),
    "a list's first line": "- " + textwrap.indent(fenced(CODE), "  ").lstrip(),
    "quoted": textwrap.indent(fenced(CODE), "> "),
    "shell first": f"{fenced('python x.py', 'bash')}\n{fenced(CODE)}",
    "use behind": f"{fenced(CODE)}\nUse:\n{fenced(USE)}",
    "session behind": f"{fenced(CODE)}\n{fenced(SESSION, '')}",
    "wrong first": f"{fenced(OTHER)}\nThat is wrong. Better:\n{fenced(CODE)}",
    "a helper apart": f"{fenced(REAL)}\n{fenced(WRAPPER)}",
    "behind words": f"Here is the function:\n{CODE}",
    "before words": f"{CODE}\n\nThis function works well.\nIt is fast.",
    "between words": f"First,\nfrom the start: no\nclass.\n\n{CODE}\n\nimport it if you like",
    "indented": f"Here:\n\n{textwrap.indent(CODE, '    ')}\n\nDone.",
    "decorated": f"Here:\n\nfrom functools import lru_cache\n\n@lru_cache\n{CODE}\nDone.",
    "thinking first": f"<think>{fenced('def wrong(): pass')}</think>\n{fenced(CODE)}",
    "docstring": fenced(f'{HEAD}\n    """Does it."""\n{BODY}'),
    "comment": f"{HEAD}  # the function\n{BODY}",
    "main": fenced(f"{CODE}\n\nif __name__ == '__main__':\n    print(1)"),
    "print": fenced(f"{CODE}\n\nprint('test')"),
    "input": fenced(f"{CODE}\n\nx = int(input())\nprint({NAME}(x))"),
    "a test that fails": fenced(f"{CODE}\n\nassert {NAME}(1) == 99999"),
    "unittest": fenced(
        f"import unittest\n{CODE}\n\nclass T(unittest.TestCase):\n    def test(self):\n"
        f"        self.assertEqual({NAME}(1), 2)\n\nunittest.main()"
    ),
    "types": fenced(f"from typing import List, Optional\n{TYPED}"),
    "types not imported": TYPED,
    "types of another name": fenced(f"import typing as t\n{TYPED.replace('List', 't.List')}"),
    "annotations": fenced(f"from __future__ import annotations\n{TYPED}"),
    "modules": fenced(f"from collections import Counter\nimport math, re, itertools\n{CODE}"),
    "abstract collections": fenced(f"from collections.abc import Iterable\n{CODE}"),
    "module in use": fenced(
        f"import operator\n{REAL}\ndef {NAME}(x):\n    return real(operator.pos(x))"
    ),
    "a module that is not used": fenced(f"import numpy as np\n{CODE}"),
    "wraps": fenced(
        "from functools import wraps\ndef same(f):\n    @wraps(f)\n    def g(*a):\n"
        f"        return f(*a)\n    return g\n\n@same\n{CODE}"
    ),
    "lambda": fenced(f"{REAL}\n{NAME} = lambda x: real(x)"),
    "constant": fenced(f"ONE = 1\n{REAL}\ndef {NAME}(x):\n    return real(x * ONE)"),
    "class": fenced(f"class Solution:\n{METHOD}"),
    "class in use": fenced(f"class Solution:\n{METHOD}\n\nprint(Solution().{NAME}(1))"),
    "class with types": fenced(f"from typing import *\nclass Solution:\n{METHOD}"),
    "static method": fenced(f"class Solution:\n    @staticmethod\n{textwrap.indent(CODE, '    ')}"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_function_is_found_in_any_form(form: str) -> None:
    assert read_code(FORMS[form], EXPECTED) is True


WRONG = {
    "another value": OTHER,
    "nothing": f"def {NAME}(x):\n    pass",
    "an error": f"def {NAME}(x):\n    raise ValueError",
    "fenced": f"Here:\n{fenced(OTHER)}\nIt works.",
    "last": f"{fenced(CODE)}\nBetter:\n{fenced(OTHER)}",
    "method": f"class Solution:\n    def {NAME}(self, x):\n        return 7",
    "with a test": fenced(f"{OTHER}\n\nprint({NAME}(1))"),
    "with types": f"from typing import List\ndef {NAME}(x: List[int]):\n    return [7]",
    "right one in thinking": f"<think>{fenced(CODE)}</think>{fenced(OTHER)}",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_function_that_gives_something_else_is_wrong(what: str) -> None:
    assert read_code(WRONG[what], EXPECTED) is False


UNTOLD = {
    "empty": "",
    "words": "I cannot.",
    "thinking alone": f"<think>{CODE}",
    "another name": CODE.replace(NAME, "solve", 1),
    "another language": fenced(f"function {NAME}(x) {{ return 1 }}", "javascript"),
    "a call alone": fenced(f"{NAME}(3)"),
    "cut off": f"```python\n{CODE[:-9]}(",
    "cut off the second time": f"{fenced(CODE)}\nBetter:\n```python\ndef {NAME}(x:\n    retu",
    "a foreign module": f"import numpy as np\ndef {NAME}(x):\n    return np.array([1])",
    "a name from nowhere": f"def {NAME}(x):\n    return nowhere",
    "a table filled elsewhere": (
        f"primes = []\nfor i in range(9):\n    primes.append(i)\ndef {NAME}(x):\n    return primes"
    ),
    "endless": f"def {NAME}(x):\n    while True: pass",
    "a file": f"def {NAME}(x):\n    return open('/etc/passwd').read()",
    "no JSON": f"def {NAME}(x):\n    return {{1}}",
    "coroutine": f"async def {NAME}(x):\n    return 1",
    "1 for True": f"{REAL}\ndef {NAME}(x):\n    return int(real(x))",
    "brackets": f"def {NAME}(x):\n    return {'(' * 500}1{')' * 500}",
    "signs": f"def {NAME}(x):\n    return {'-' * 900}1",
    "too many signs": f"def {NAME}(x):\n    return {'-' * 20_000}1",
    "a long number": f"def {NAME}(x):\n    return 0x{'f' * 9000}",
    "half a character": f"def {NAME}(x):\n    return '\ud800'",
    "a null": f"def {NAME}(x):\n    return '\0'",
}


@pytest.mark.parametrize("what", UNTOLD)
def test_what_cannot_be_run_for_sure_is_not_told(what: str) -> None:
    assert read_code(UNTOLD[what], EXPECTED) is None


@pytest.mark.parametrize("form", [*FORMS, *WRONG])
def test_the_judge_of_benchmarks_knows_the_first_fence_or_all_alone(form: str) -> None:
    """The rule by which all committed scores were counted."""
    text = (FORMS | WRONG)[form]
    found = FENCE.search(text)
    tests = json.loads(EXPECTED)
    results = call_untrusted(found[1] if found else text, NAME, tests["calls"])
    assert TASK.score(PROBLEM, text) is (json.dumps(results) == json.dumps(tests["results"]))
    assert FENCE.pattern == r"```[a-z0-9]*[ \t]*\n(.*?)(?:```|\Z)"
