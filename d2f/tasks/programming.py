"""Small Python functions from a description, after HumanEval and MBPP.

Each family composes named parts (filters, maps, reductions, text and integer operations). A part
carries its wording, its code and, apart from that code, a reference function; hidden tests come
from the references alone. Knows nothing of splits, tokenizers or models.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from math import prod
from typing import Any, NamedTuple

from d2f.tasks.problem import Problem, Task, Turn, ceiling, split_of_key
from d2f.tasks.reading import read_code
from d2f.tasks.sandbox import call_untrusted

NAME = "code-mini"
FENCE = re.compile(r"```[a-z0-9]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
ASKS = (
    "Write a Python function `{}` that {}.",
    "Define a Python function `{}` that {}.",
    "In Python, write `{}`, a function that {}.",
)


class Function(NamedTuple):
    """A described function: name, parameters, wording, body, reference and test arguments."""

    name: str
    parameters: str
    wording: str
    body: list[str]
    reference: Callable[..., Any]
    calls: list[list[Any]]

    @property
    def source(self) -> str:
        return "\n    ".join([f"def {self.name}({self.parameters}):", *self.body])

    @property
    def expected(self) -> str:
        results = [self.reference(*args) for args in self.calls]
        return json.dumps({"name": self.name, "calls": self.calls, "results": results})


class Part(NamedTuple):
    """One named piece: `phrase` for the prompt, `code` for the answer, `run` for the tests."""

    name: str
    phrase: str
    code: str
    run: Callable[..., Any]
    constants: tuple[int, ...] = ()


def _filter(rng: random.Random, d: float) -> Part:
    """A condition on n; the phrase is filled with the noun (numbers or digits)."""
    k, m = rng.randint(1, ceiling(10, 50, d)), rng.randint(3, ceiling(5, 12, d))
    kind = rng.randrange(12)
    if kind < 3:
        return Part(f"over_{k}", f"the {{}} greater than {k}", f"n > {k}", lambda n: n > k, (k,))
    if kind < 5:
        return Part(f"under_{k}", f"the {{}} less than {k}", f"n < {k}", lambda n: n < k, (k,))
    if kind < 8:
        phrase, code = f"the {{}} divisible by {m}", f"n % {m} == 0"
        return Part(f"multiples_of_{m}", phrase, code, lambda n: n % m == 0, (m,))
    return rng.choice(PLAIN_FILTERS)


PLAIN_FILTERS = (
    Part("even", "the even {}", "n % 2 == 0", lambda n: not n & 1),
    Part("odd", "the odd {}", "n % 2 == 1", lambda n: bool(n & 1)),
    Part("positive", "the positive {}", "n > 0", lambda n: n > 0),
    Part("negative", "the negative {}", "n < 0", lambda n: n < 0),
)
ALL = Part("all", "all {}", "", lambda n: True)


def _map(rng: random.Random, d: float) -> Part:
    """What happens to each number n; the phrase is filled with the numbers meant."""
    k = rng.randint(2, ceiling(5, 30, d))
    factor, m = rng.randint(3, 9), rng.randint(3, ceiling(5, 12, d))
    return rng.choice(
        (
            Part("plus", f"adds {k} to {{}}", f"n + {k}", lambda n: n + k, (k,)),
            Part("minus", f"subtracts {k} from {{}}", f"n - {k}", lambda n: n - k, (k,)),
            Part(
                "times",
                f"multiplies {{}} by {factor}",
                f"n * {factor}",
                lambda n: n * factor,
                (factor,),
            ),
            Part("mod", f"reduces {{}} modulo {m}", f"n % {m}", lambda n: n % m, (m,)),
            Part("squares", "squares {}", "n * n", lambda n: n**2),
            DOUBLE,
            Part("negated", "negates {}", "-n", lambda n: 0 - n),
            Part("abs", "takes the absolute value of {}", "abs(n)", lambda n: max(n, 0 - n)),
        )
    )


DOUBLE = Part("doubled", "doubles {}", "2 * n", lambda n: n + n)
SAME = Part("", "{}", "n", lambda n: n)


class Reduction(NamedTuple):
    """How values are gathered: start, one line per value, what is returned."""

    name: str
    alone: str
    after: str
    start: str
    lines: tuple[str, ...]
    result: str
    run: Callable[[list[int]], Any]


REDUCTIONS = (
    Reduction(
        "sum",
        "returns the sum of {}",
        "returns their sum",
        "total = 0",
        ("total += {}",),
        "total",
        sum,
    ),
    Reduction(
        "sum",
        "returns the sum of {}",
        "returns their sum",
        "total = 0",
        ("total += {}",),
        "total",
        sum,
    ),
    Reduction(
        "product",
        "returns the product of {}",
        "returns their product",
        "total = 1",
        ("total *= {}",),
        "total",
        prod,
    ),
    Reduction("count", "counts {}", "counts them", "count = 0", ("count += 1",), "count", len),
    Reduction(
        "list",
        "returns a list of {}",
        "returns them as a list",
        "result = []",
        ("result.append({})",),
        "result",
        list,
    ),
    Reduction(
        "sorted",
        "returns a sorted list of {}",
        "returns them as a sorted list",
        "result = []",
        ("result.append({})",),
        "sorted(result)",
        sorted,
    ),
    Reduction(
        "reversed",
        "returns a list of {} in reverse order",
        "returns them as a list in reverse order",
        "result = []",
        ("result.append({})",),
        "result[::-1]",
        lambda values: list(reversed(values)),
    ),
    Reduction(
        "max",
        "returns the largest of {}, or None",
        "returns the largest result, or None",
        "best = None",
        ("if best is None or {} > best:", "    best = {}"),
        "best",
        lambda values: max(values, default=None),
    ),
    Reduction(
        "min",
        "returns the smallest of {}, or None",
        "returns the smallest result, or None",
        "best = None",
        ("if best is None or {} < best:", "    best = {}"),
        "best",
        lambda values: min(values, default=None),
    ),
)
NUMERIC = ("sum", "product", "count")


class Source(NamedTuple):
    """Where the numbers come from."""

    parameter: str
    prefix: str
    noun: str
    suffix: str
    loop: tuple[str, ...]
    run: Callable[[Any], Iterable[int]]


LIST = Source("numbers", "", "numbers", "", ("for n in numbers:",), lambda numbers: numbers)
RANGE = Source(
    "limit",
    "range_",
    "numbers",
    " from 1 to limit",
    ("for n in range(1, limit + 1):",),
    lambda limit: range(1, limit + 1),
)
DIGITS = Source(
    "number",
    "digits_",
    "digits",
    " of number",
    ("for digit in str(number):", "    n = int(digit)"),
    lambda number: [int(digit) for digit in str(number)],
)
LISTS: tuple[list[int], ...] = (
    [],
    [0],
    [1],
    [-1],
    [5, 2, 8, 1, 9, 4, 7, 3, 6],
    [-7, 12, -4, 0, 3, 12, 25, -30, 18, 60],
)


def _calls(source: Source, constants: tuple[int, ...]) -> list[list[Any]]:
    """Fixed arguments and some around the constants, where off-by-one mistakes show."""
    if source is RANGE:
        return [[0], [1], [10], [17], *([k + 1] for k in constants)]
    if source is DIGITS:
        return [[0], [7], [1234567890], [999], [8642], [13579]]
    edges = [value for k in constants for value in (k + 1, k, k - 1, 2 * k, -k)]
    return [[values] for values in (*LISTS, edges or [1, -1, 2, -2, 6])]


def _gather(rng: random.Random, d: float) -> tuple[Source, Part, Part, Reduction]:
    source = rng.choice((LIST, LIST, LIST, LIST, RANGE, DIGITS))
    reduction = rng.choice(REDUCTIONS)
    mapping = SAME if rng.random() < 0.3 else _map(rng, d)
    chosen = ALL if rng.random() < 0.12 and reduction.name != "count" else _filter(rng, d)
    if chosen is not ALL and (source is DIGITS or source is RANGE and not chosen.constants):
        chosen = _digit_filter(rng) if source is DIGITS else rng.choice(PLAIN_FILTERS[:2])
    if reduction.name == "count":
        mapping = SAME
    if source is not LIST and mapping.name == "abs":
        mapping = DOUBLE
    return source, chosen, mapping, reduction


def _digit_filter(rng: random.Random) -> Part:
    k, m = rng.randint(1, 8), rng.randint(2, 5)
    return rng.choice(
        (
            PLAIN_FILTERS[0],
            PLAIN_FILTERS[1],
            Part(f"over_{k}", f"the {{}} greater than {k}", f"n > {k}", lambda n: n > k),
            Part(f"under_{k}", f"the {{}} less than {k}", f"n < {k}", lambda n: n < k),
            Part(
                f"multiples_of_{m}",
                f"the {{}} divisible by {m}",
                f"n % {m} == 0",
                lambda n: n % m == 0,
            ),
        )
    )


def _map_name(mapping: Part) -> str:
    return "_".join([mapping.name, *map(str, mapping.constants)])


def _gathering(source: Source, chosen: Part, mapping: Part, reduction: Reduction) -> Function:
    """A loop over numbers: filter, map, reduce."""
    steps = [chosen.name] if chosen is not ALL else []
    steps += [_map_name(mapping)] if mapping is not SAME else []
    name = source.prefix + "_".join([reduction.name, *(steps or ["all"])])
    who = chosen.phrase.format(source.noun) + source.suffix
    if mapping is SAME:
        wording = reduction.alone.format(who)
    else:
        wording = f"{mapping.phrase.format(who)} and {reduction.after}"

    def reference(argument: Any) -> Any:
        numbers = source.run(argument)
        return reduction.run([mapping.run(n) for n in numbers if chosen.run(n)])

    body = _gathering_body(source, chosen, mapping, reduction)
    calls = _calls(source, chosen.constants + mapping.constants)
    return Function(name, source.parameter, wording, body, reference, calls)


def _gathering_body(source: Source, chosen: Part, mapping: Part, reduction: Reduction) -> list[str]:
    body, indent = [reduction.start, *source.loop], "    "
    if chosen is not ALL:
        body.append(f"{indent}if {chosen.code}:")
        indent += "    "
    value = mapping.code
    if len(reduction.lines) > 1 and mapping is not SAME:
        body.append(f"{indent}value = {value}")
        value = "value"
    body += [indent + line.format(value) for line in reduction.lines]
    return [*body, f"return {reduction.result}"]


def _gathering_turns(rng: random.Random, d: float) -> tuple[Function, tuple[str, Function] | None]:
    source, chosen, mapping, reduction = _gather(rng, d)
    function = _gathering(source, chosen, mapping, reduction)
    if rng.random() >= 0.22:
        return function, None
    if reduction.name in NUMERIC and rng.random() < 0.6:
        k = rng.randint(2, 20)
        body = [*function.body[:-1], f"return {reduction.result} + {k}"]
        more = function._replace(body=body, reference=lambda x: function.reference(x) + k)
        return function, (f"Now also add {k} to the result.", more)
    other = rng.choice([part for part in PLAIN_FILTERS[:2] if part.name != chosen.name])
    again = _gathering(source, other, mapping, reduction)
    who = other.phrase.format(source.noun)
    return function, (f"Now write `{again.name}` in the same way for {who}.", again)


class Op(NamedTuple):
    """One step on a variable: the phrase says `it`, the code reassigns, `run` is the reference."""

    name: str
    phrase: str
    code: str
    run: Callable[[Any], Any]


def _text_op(rng: random.Random, d: float) -> Op:
    k = rng.randint(2, ceiling(4, 9, d))
    a, b = rng.sample("aeiorstlnmdcp", 2)
    mark = rng.choice("!?.-*#")
    return rng.choice(
        (
            Op(f"first_{k}", f"keeps its first {k} characters", f"text[:{k}]", lambda t: t[0:k]),
            Op(f"skip_{k}", f"drops its first {k} characters", f"text[{k}:]", lambda t: t[k:]),
            Op(f"last_{k}", f"keeps its last {k} characters", f"text[-{k}:]", lambda t: t[-k:]),
            Op(f"cut_{k}", f"drops its last {k} characters", f"text[:-{k}]", lambda t: t[:-k]),
            Op(f"times_{k}", f"repeats it {k} times", f"text * {k}", lambda t: k * t),
            Op("reverse", "reverses it", "text[::-1]", lambda t: "".join(reversed(t))),
            Op("upper", "puts it in upper case", "text.upper()", str.upper),
            Op("lower", "puts it in lower case", "text.lower()", str.lower),
            Op("strip", "strips spaces at both ends", "text.strip()", str.strip),
            Op(
                f"no_{a}",
                f'removes every "{a}"',
                f'text.replace("{a}", "")',
                lambda t: "".join(c for c in t if c != a),
            ),
            Op(
                f"{a}_to_{b}",
                f'replaces every "{a}" by "{b}"',
                f'text.replace("{a}", "{b}")',
                lambda t: "".join(b if c == a else c for c in t),
            ),
            Op(
                f"add_{MARKS[mark]}",
                f'adds "{mark}" at the end',
                f'text + "{mark}"',
                lambda t: f"{t}{mark}",
            ),
            Op(
                f"join_{MARKS[mark]}",
                f'joins its words with "{mark}"',
                f'"{mark}".join(text.split())',
                lambda t: mark.join(t.split()),
            ),
        )
    )


MARKS = {"!": "bang", "?": "question", ".": "dot", "-": "dash", "*": "star", "#": "hash"}


def _text_result(rng: random.Random) -> Op:
    c = rng.choice("aeiorstlnmdcp")
    return rng.choice(
        (
            Op("", "returns the result", "text", lambda t: t),
            Op("", "returns the result", "text", lambda t: t),
            Op("length", "returns its length", "len(text)", len),
            Op("words", "returns how many words it has", "len(text.split())", _word_count),
            Op(
                f"count_{c}",
                f'counts how often "{c}" occurs',
                f'text.count("{c}")',
                lambda t: sum(x == c for x in t),
            ),
            Op(
                f"has_{c}",
                f'returns whether it contains "{c}"',
                f'"{c}" in text',
                lambda t: any(x == c for x in t),
            ),
        )
    )


def _word_count(text: str) -> int:
    return len(text.split())


def _number_op(rng: random.Random, d: float) -> Op:
    k, small = rng.randint(2, ceiling(9, 50, d)), rng.randint(2, ceiling(5, 12, d))
    return rng.choice(
        (
            Op(f"plus_{k}", f"adds {k}", f"x + {k}", lambda x: x + k),
            Op(f"minus_{k}", f"subtracts {k}", f"x - {k}", lambda x: x - k),
            Op(f"times_{small}", f"multiplies it by {small}", f"x * {small}", lambda x: small * x),
            Op(f"mod_{small}", f"takes it modulo {small}", f"x % {small}", lambda x: x % small),
            Op(
                f"div_{small}",
                f"divides it by {small} rounding down",
                f"x // {small}",
                lambda x: (x - x % small) // small,
            ),
            Op("square", "squares it", "x * x", lambda x: x**2),
            Op("negate", "negates it", "-x", lambda x: 0 - x),
            Op("abs", "takes its absolute value", "abs(x)", lambda x: max(x, 0 - x)),
            Op(
                f"at_least_{k}",
                f"raises it to at least {k}",
                f"max(x, {k})",
                lambda x: x if x > k else k,
            ),
            Op(
                f"at_most_{k}",
                f"limits it to at most {k}",
                f"min(x, {k})",
                lambda x: x if x < k else k,
            ),
        )
    )


def _number_result(rng: random.Random, d: float) -> Op:
    k = rng.randint(1, ceiling(9, 50, d))
    return rng.choice(
        (
            Op("", "returns the result", "x", lambda x: x),
            Op("", "returns the result", "x", lambda x: x),
            Op("", "returns the result", "x", lambda x: x),
            Op("is_even", "returns whether it is even", "x % 2 == 0", lambda x: not x & 1),
            Op("is_odd", "returns whether it is odd", "x % 2 == 1", lambda x: bool(x & 1)),
            Op(f"over_{k}", f"returns whether it is over {k}", f"x > {k}", lambda x: x > k),
            Op(f"under_{k}", f"returns whether it is under {k}", f"x < {k}", lambda x: x < k),
        )
    )


TEXTS: list[list[Any]] = [
    [text]
    for text in (
        "",
        "a",
        "Hello World",
        "  red tomatoes and corn ",
        "Small models dream in parallel",
        "abcdefghijklmnop",
        "ROTOR CLIP 1234 second",
    )
]
# Every whole number up to the largest constant, so that no comparison can be off by one.
NUMBERS: list[list[Any]] = [[x] for x in range(-9, 53)]


def _pipeline(parameter: str, first: str, ops: list[Op], calls: list[list[Any]]) -> Function:
    """Several steps in a row on one variable; the last one gives the result."""
    *steps, last = ops
    name = "_".join(op.name for op in ops if op.name)
    phrases = [op.phrase for op in ops]
    wording = f"takes {first}, " + ", ".join(phrases[:-1]) + f" and {phrases[-1]}"
    body = [f"{parameter} = {op.code}" for op in steps] + [f"return {last.code}"]

    def reference(value: Any) -> Any:
        for op in ops:
            value = op.run(value)
        return value

    return Function(name, parameter, wording, body, reference, calls)


def _distinct_ops(
    make_op: Callable[[random.Random, float], Op], rng: random.Random, d: float, count: int
) -> list[Op]:
    """Ops of different kinds, told by the first word of their names."""
    ops: dict[str, Op] = {}
    while len(ops) < count:
        op = make_op(rng, d)
        ops.setdefault(op.name.split("_")[0], op)
    return list(ops.values())


def _text_turns(rng: random.Random, d: float) -> tuple[Function, tuple[str, Function] | None]:
    ops = _distinct_ops(_text_op, rng, d, rng.randint(2, ceiling(2, 4, d)))
    taken, last = ops.pop(), _text_result(rng)
    extra: Op | None = taken
    if len(ops) == 1 and not last.name or rng.random() < 0.5:
        ops, extra = [*ops, taken], None
    function = _pipeline("text", "a text", [*ops, last], TEXTS)
    if extra is None or last.name or rng.random() < 0.3:
        return function, None
    body = [*function.body[:-1], f"text = {extra.code}", "return text"]
    more = function._replace(body=body, reference=lambda t: extra.run(function.reference(t)))
    return function, (f"Now it also {extra.phrase} before it returns.", more)


def _number_turns(rng: random.Random, d: float) -> tuple[Function, tuple[str, Function] | None]:
    ops = _distinct_ops(_number_op, rng, d, rng.randint(2, ceiling(2, 4, d)))
    last = _number_result(rng, d)
    function = _pipeline("x", "a number x", [*ops, last], NUMBERS)
    if last.name or rng.random() < 0.7:
        return function, None
    k = rng.randint(2, 20)
    body = [*function.body[:-1], f"return x + {k}"]
    more = function._replace(body=body, reference=lambda x: function.reference(x) + k)
    return function, (f"Now also add {k} to the result.", more)


def _condition(rng: random.Random, d: float) -> Part:
    k, m = rng.randint(0, ceiling(9, 50, d)), rng.randint(3, 9)
    return rng.choice(
        (
            Part(f"over_{k}", f"x is greater than {k}", f"x > {k}", lambda x: x > k),
            Part(f"under_{k}", f"x is less than {k}", f"x < {k}", lambda x: x < k),
            Part(f"div_{m}", f"x is divisible by {m}", f"x % {m} == 0", lambda x: x % m == 0),
            Part("even", "x is even", "x % 2 == 0", lambda x: not x & 1),
            Part("odd", "x is odd", "x % 2 == 1", lambda x: bool(x & 1)),
            Part("negative", "x is negative", "x < 0", lambda x: x < 0),
        )
    )


def _branch(rng: random.Random, d: float) -> Part:
    k, small = rng.randint(1, ceiling(9, 30, d)), rng.randint(2, 9)
    return rng.choice(
        (
            Part(f"plus_{k}", f"x plus {k}", f"x + {k}", lambda x: x + k),
            Part(f"minus_{k}", f"x minus {k}", f"x - {k}", lambda x: x - k),
            Part(f"times_{small}", f"x times {small}", f"x * {small}", lambda x: small * x),
            Part("square", "x squared", "x * x", lambda x: x**2),
            Part("minus_x", "minus x", "-x", lambda x: 0 - x),
            Part("x", "x itself", "x", lambda x: x),
            Part(f"{k}", f"{k}", f"{k}", lambda x: k),
        )
    )


def _choice(test: Part, yes: Part, no: Part) -> Function:
    wording = f"returns {yes.phrase} if {test.phrase} and {no.phrase} otherwise"
    body = [f"if {test.code}:", f"    return {yes.code}", "else:", f"    return {no.code}"]

    def reference(x: int) -> int:
        chosen: int = yes.run(x) if test.run(x) else no.run(x)
        return chosen

    name = f"if_{test.name}_{yes.name}_else_{no.name}"
    return Function(name, "x", wording, body, reference, NUMBERS)


def _choice_turns(rng: random.Random, d: float) -> tuple[Function, tuple[str, Function] | None]:
    test, yes, no = _condition(rng, d), _branch(rng, d), _branch(rng, d)
    while no.code == yes.code:
        no = _branch(rng, d)
    function = _choice(test, yes, no)
    if rng.random() < 0.8:
        return function, None
    swapped = _choice(test, no, yes)
    return function, (f"Now swap the two results and call it `{swapped.name}`.", swapped)


FAMILIES = (_gathering_turns, _text_turns, _number_turns, _choice_turns)
ODDS = (46, 20, 16, 18)


def make(rng: random.Random, difficulty: float) -> Problem:
    """A described function of one of the families; about a fifth with a follow-up."""
    function, follow_up = rng.choices(FAMILIES, ODDS)[0](rng, difficulty)
    if follow_up and _crosses(function, follow_up[1]):
        follow_up = None
    signature = f"{function.name}({function.parameters})"
    prompt = rng.choice(ASKS).format(signature, function.wording)
    turns, expected = [Turn(prompt, function.source)], [function.expected]
    if follow_up:
        turns.append(Turn(follow_up[0], follow_up[1].source))
        expected.append(follow_up[1].expected)
    return Problem(NAME, function.wording, tuple(turns), tuple(expected))


def _crosses(function: Function, other: Function) -> bool:
    """Whether a follow-up would show a function that belongs to the other split."""
    return split_of_key(NAME, function.wording) != split_of_key(NAME, other.wording)


def judge(text: str, expected: str) -> bool:
    """Runs the code of the text, fenced or bare, on the hidden tests in a sandbox."""
    fenced = FENCE.search(text)
    tests = json.loads(expected)
    results = call_untrusted(fenced.group(1) if fenced else text, tests["name"], tests["calls"])
    # As text, so that True is not 1 and 2 is not 2.0.
    return results is not None and json.dumps(results) == json.dumps(tests["results"])


TASK = Task(
    name=NAME,
    title="Python functions",
    description="Small functions over numbers and text, checked by running hidden tests.",
    make=make,
    judge=judge,
    read=read_code,
)
