"""Problems in the files' formats of GSM8K and HumanEval, written for these tests."""

import gzip
import json
from pathlib import Path
from typing import Any

GSM8K = [
    {
        "question": "A shelf holds 4 boxes of 6 pens. Ana takes 5 pens. How many are left?",
        "answer": "There are 4 * 6 = <<4*6=24>>24 pens.\n24 - 5 = <<24-5=19>>19\n#### 19",
    },
    {
        "question": "A tram ticket costs $3. What do 2 friends pay for 5 rides each?",
        "answer": "They ride 2 * 5 = <<2*5=10>>10 times and pay 10 * 3 = <<10*3=30>>30.\n#### 30",
    },
    {
        "question": "Leo reads 1,200 pages in 8 days, as many each day. How many a day?",
        "answer": "1,200 / 8 = <<1200/8=150>>150\n#### 150",
    },
]
HUMANEVAL = [
    {
        "task_id": "Own/0",
        "prompt": "from typing import List\n\n\ndef evens(numbers: List[int]) -> List[int]:\n"
        '    """Keep the even numbers, in their order.\n    >>> evens([1, 2, 4])\n    [2, 4]\n'
        '    """\n',
        "entry_point": "evens",
        "canonical_solution": "    return [n for n in numbers if n % 2 == 0]\n",
        "test": "\n\ndef check(candidate):\n    assert candidate([1, 2, 4]) == [2, 4]\n"
        "    assert candidate([]) == []\n",
    },
    {
        "task_id": "Own/1",
        "prompt": 'def digest(text: str):\n    """The md5 digest of a text, if any."""\n',
        "entry_point": "digest",
        "canonical_solution": "    import hashlib\n"
        "    return hashlib.md5(text.encode()).hexdigest() if text else None\n",
        "test": "\n\nMETADATA = {'author': 'own'}\n\n\ndef check(candidate):\n"
        "    assert candidate('a') == '0cc175b9c0f1b6a831c399e269772661'\n"
        "    assert candidate('') is None\n",
    },
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as JSON lines, packed where the name says so."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
