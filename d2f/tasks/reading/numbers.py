"""The final number of a worked solution in any words, or that none is sure.

A number is *stated* behind ``####``, in ``\\boxed``, behind a word such as "answer", or alone on
the last line. Of several statements the last counts. A plain last sentence can only confirm the
number that is expected: what differs there may be a step on the way.
"""

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from d2f.tasks.reading.words import answer_of

# ---- spellings of the same thing

_WIDE = {0xFEE0 + code: code for code in range(0x21, 0x7F)}
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63"), "-")
_SIGNS = {ord(sign): by for sign, by in zip("×⋅·∙÷∕⁄", "****///", strict=True)}
_RAISED = {ord(digit): f"^{n}" for n, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_VULGAR = {
    code: unicodedata.normalize("NFKC", chr(code)).replace("\u2044", "/")
    for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F))
}
_MIXED = re.compile("(?<=\\d)(?=[¼-¾⅐-⅞])")
_CHARACTERS = _WIDE | _DASHES | _SIGNS | _RAISED | _VULGAR | {0x3000: " ", 0x3002: ". "}
_SPELLINGS = [
    (re.compile(pattern, re.IGNORECASE), by)
    for pattern, by in (
        (r"(?<=\d)(?:[\u00a0\u2007\u2009\u202f']|,?\\[,!]|\{,\})(?=\d{3}(?!\d))", ","),
        (r"[^\S\n]", " "),
        (r"<answer>", "\nAnswer: "),
        (r"<br */?>", "\n"),
        (r"</?[a-z][^<>\n]{0,80}>", ""),
        # LaTeX
        (r"(?<=\d)(?=\\[dtc]?frac)", " "),
        (r"\\[dtc]?frac *\{ *(\d+) *\} *\{ *(\d+) *\}", r"\1/\2"),
        (r"\\[dtc]?frac *(\d) *(\d)", r"\1/\2"),
        (r"\^ *\{? *\\circ *\}?|°", " degrees"),
        (r"\\(?:times|cdot|ast)\b", "*"),
        (r"\\div\b", "/"),
        (r"\\%", "%"),
        (r"\\(?:text|math)?(?:bf|it|rm|tt|sf|normal)?(?:series)? *\{([^{}]*)\}", r" \1 "),
        (r"\\(?:mbox|emph|underline|operatorname|boldsymbol|bm) *\{([^{}]*)\}", r" \1 "),
        (r"\\(?:left|right|quad|qquad|displaystyle)\b|\\[,;:! ()\[\]]|\\?\$", " "),
        # Markdown
        (r"(?m:^) *[-+*•] +(?=[^\W\d]|\*\*)", ""),
        (r"(?<=\d)\*\*(?=\d)", "^"),
        (r"\*\*|__|`|(?<![\w)])[*_](?=\S)|(?<=\S)[*_](?![\w(])", ""),
    )
]

# ---- numbers

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_SPELLED = (
    rf"(?<![\w.^√])(?P<sign>[-+] ?)?(?P<whole>\d+ +(?=\d+ ?/ ?\d))?(?P<number>{_NUMBER})"
    r"(?: ?/ ?(?P<under>\d+))?"
)
_VALUE = re.compile(_SPELLED)
_LONGEST = 40  # characters of a number
# What makes another number of the one before it.
_GOES_ON = re.compile(
    r" ?[-+*/^] ?(?:\d|\(|[a-z]\b)| ?[.,:/^]\d| ?[%‰√π]|(?:[xyznabkip]|st|nd|rd|th)\b|e[-+]?\d"
    r"| ?x ?\d| *(?:dozen|hundred|thousand|million|billion|per ?cent|remainder|r ?\d)"
    r"| *(?:squared|cubed)\b",
    re.IGNORECASE,
)

# ---- statements

_HOUSE = re.compile(r"^[ >*_]*#{4,}(.*)$", re.MULTILINE)
_BOXED = re.compile(r"\\f?box(?:ed)? *(?:\{([^{}\n]*)\}|([^\s{]+))")
_ANSWER = re.compile(
    r"\b(?:answer|ans|antwort|r[ée]ponse|respuesta|resposta|risposta|ответ)\b|答案|答え|答|정답|답",
    re.IGNORECASE,
)
_COPULA = re.compile(
    r"[^\n.!?:=]{0,80}?"
    r"(?:\b(?:is|are|was|be|equals|es|est|ist|è|é)\b|是|は|为|為|=>?|->|[→:|]|-(?= )|$)"
    r"[\s:>|\"'“”#=]*(?:(?:equal to|exactly|simply|just)\b)?",
    re.IGNORECASE | re.MULTILINE,
)
_END = re.compile(r"[.!?](?=[\s\"'”)\]}*|]|$)|\n|$")
_CUT = re.compile(
    r",(?!\d)|[;(]|\b(?:since|because|as|where|when|so|which|after|with)\b", re.IGNORECASE
)
# What makes a sentence no statement of the number in it.
_UNSURE = re.compile(
    r"\b(?:not|no|never|cannot|than|twice|half|double|triple|between|either|or|if|let|unless|least"
    r"|most|about|around|approximately|roughly|almost|nearly|maybe|perhaps|might|may|could"
    r"|probably|guess|suppose|assum\w+|whether|wrong|incorrect)\b|n['’]t\b|[≈~±?]",
    re.IGNORECASE,
)
_EARLIER = re.compile(
    r"\b(?:previous|earlier|original|old|first|last|given|your) *$", re.IGNORECASE
)
_COUNTED = (
    r"(?:step|part|case|question|problem|line|row|number|no\.|figure|equation|option|method|way"
    r"|chapter|page|example|choice|version|phase|round|solution|check)"
)
_HEADING = re.compile(rf" *(?:{_COUNTED}\b|\d+[.)] +[^\W\d])", re.IGNORECASE)
_LABEL = re.compile(rf"\b{_COUNTED} *#? *\d", re.IGNORECASE)
_LISTED = re.compile(r"^[ #>]*\d+[.)] +", re.MULTILINE)
# What a plain sentence about a step on the way holds.
_ON_THE_WAY = re.compile(
    r"\b(?:add|subtract|multiply|divide|from|by|both|each|every|per|starts?|begins?|had|first|but)\b",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|correction|mistake|oops|sorry|scratch that|re-?check|re-?calculate|hmm"
    r"|incorrect|wrong|try again|second thought)\b",
    re.IGNORECASE,
)
_NAMED = r"(?:[a-z][a-z ,]{0,40}= ?)?"
_DIRECT = re.compile(_NAMED + _SPELLED, re.IGNORECASE)
_ALONE = re.compile(rf"{_NAMED}{_SPELLED}(?:[ -]?[^\W\d][\w'’-]*){{0,3}} ?\.?", re.IGNORECASE)
_SOLVED = re.compile(
    rf"^[^\w\n]*(?:(?:so|thus|hence|therefore),? +)?(\b[a-z] ?= ?{_SPELLED})[^\w\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
_BULLET = re.compile(r" *(?:[*•+-]|\d+[.)]) ")
_TERM = re.compile(r"\d *[a-z]\b|[a-z] *[-+*/^]|[-+*/^] *[a-z]\b", re.IGNORECASE)
_SENTENCE = 400  # characters of one, at most
_DECORATION = " \t>*_#|\"'“”‘’`{}[]()=:$€£¥₹→∴"


class Value(NamedTuple):
    """A number as it is written; of a decimal fraction, the value of its last place.

    ``sure`` is false where the spelling may mean something else, or is no last form of a number.
    """

    number: Fraction
    place: Fraction = Fraction(0)
    sure: bool = True


class Stated(NamedTuple):
    """A statement of the final answer: where it ends, and its value, None where it is not sure.

    A ``loose`` one counts only where no other number comes later.
    """

    end: int
    value: Value | None
    loose: bool = False


def read_number(text: str, expected: str) -> bool | None:
    """Whether the final number of the text is the expected one; None: no number is sure."""
    text, right = _plain(answer_of(text)), Fraction(expected)
    stated = max(_statements(text), key=lambda each: each.end, default=None)
    if stated is None:
        return _confirmed(text, right)
    rest = text[stated.end :]
    if stated.value is None or _TAKEN_BACK.search(rest):
        return None
    later = {value.number for value in _values(rest)}
    if stated.loose and later - {stated.value.number}:
        return None
    same = _same(stated.value, right)
    return None if same is False and right in later else same


def _plain(text: str) -> str:
    text = _MIXED.sub(" ", text).translate(_CHARACTERS)
    for pattern, by in _SPELLINGS:
        text = pattern.sub(by, text)
    return text


def _values(text: str) -> list[Value]:
    return [_value(found, text) for found in _VALUE.finditer(text)]


def _value(found: re.Match[str], text: str) -> Value:
    if len(found[0]) > _LONGEST:
        return Value(Fraction(0), sure=False)
    digits, under = found["number"].replace(",", ""), int(found["under"] or 1)
    number = Fraction(digits) / (under or 1)
    reduced = number.denominator == under or "." in digits
    sign = found["sign"] or ""
    number = (number + int(found["whole"] or 0)) * (-1 if "-" in sign else 1)
    places = len(digits.partition(".")[2])
    place = Fraction(1, 10**places) if places else Fraction(0)
    dash = sign.endswith(" ")  # or a minus
    sure = bool(under) and reduced and not dash and not _GOES_ON.match(text, found.end())
    return Value(number, place, sure)


def _same(value: Value, right: Fraction) -> bool | None:
    """Whether a value is the right one; None for one that is rounded or may be read otherwise."""
    if value.number == right:
        return True
    point_for_thousands = value.place == Fraction(1, 1000) and value.number * 1000 == right
    near = abs(value.number - right) < value.place and right.denominator > 1
    return None if near or point_for_thousands else False


def _statements(text: str) -> Iterator[Stated]:
    for found in _HOUSE.finditer(text):
        if not _HEADING.match(found[1].strip(_DECORATION)):
            yield from _stated(found[1], found.end())
    for found in _BOXED.finditer(text):
        yield from _stated(found[1] or found[2] or "", found.end())
    for found in _ANSWER.finditer(text):
        yield from _answered(text, found)
    for found in _SOLVED.finditer(text):
        yield from _stated(found[1], found.end())
    yield from _alone(text)


def _stated(segment: str, end: int, loose: bool = False) -> Iterator[Stated]:
    """What a segment says, if it holds a number."""
    head = _CUT.split(segment.strip(_DECORATION))[0]
    left, _, right = head.rpartition("=")
    if _TERM.search(left):
        return  # an equation that is not solved yet
    head = right.rpartition(": ")[2] if _VALUE.search(right.rpartition(": ")[2]) else right
    values = _values(head)
    if not values:
        return
    sure = len(values) == 1 and values[0].sure and not _UNSURE.search(head)
    yield Stated(end, values[0] if sure else None, loose)


def _answered(text: str, cue: re.Match[str]) -> Iterator[Stated]:
    """What a sentence with the word "answer" says."""
    before = re.split(r"[.!?\n]", text[max(0, cue.start() - 80) : cue.start()])[-1]
    link = _COPULA.match(text, cue.end())
    if link is None or _UNSURE.search(before) or _EARLIER.search(before):
        return
    end = _END.search(text, link.end(), link.end() + _SENTENCE)
    assert end is not None
    segment = text[link.end() : end.start()].strip(_DECORATION)
    direct = _DIRECT.match(segment)
    below = "\n" in link[0]
    if below and not direct or _HEADING.match(segment):
        return
    if end[0] == "?":
        yield Stated(end.end(), None)
        return
    loose = below or not direct or bool(re.search(r"\d.*=", segment))
    yield from _stated(segment, end.end(), loose)


def _alone(text: str) -> Iterator[Stated]:
    """What the last line says, if it is a number and its unit, or ``x = 3``."""
    lines = text.rstrip().splitlines() or [""]
    line = lines[-1].strip(_DECORATION)
    if not _ALONE.fullmatch(line) or _UNSURE.search(line) or _HEADING.match(line):
        return
    if len(lines) > 1 and _BULLET.match(lines[-1]):
        return
    listed = len(lines) > 1 and re.fullmatch(r"\d+[.)]", line)
    (value, *more) = _values(line)
    yield Stated(len(text), value if value.sure and not more and not listed else None)


def _confirmed(text: str, right: Fraction) -> bool | None:
    """True where the last sentence with a number can mean the expected one alone."""
    sentences = re.split(r"(?<=[.!?])\s|\n", _LISTED.sub("", text))
    told = next((each for each in reversed(sentences) if _VALUE.search(each)), "")
    doubts = (_UNSURE, _LABEL, _ON_THE_WAY, _ANSWER)
    if any(doubt.search(told) for doubt in doubts) or _TAKEN_BACK.search(text):
        return None
    values = set(_values(told.rpartition("=")[2]))
    if len(values) != 1:
        return None
    (value,) = values
    return True if value.sure and _same(value, right) else None
