"""Messages have one form: Python's types, the board's and the documentation's are the same."""

import json
import math
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from races import d2f_trace, recorded
from typing_extensions import NotRequired, is_typeddict

import app.page.messages
import app.page.tell
from app.lanes.lane import Host
from app.page.components import STATIC
from app.page.messages import BlockState, LaneEnd, LaneStart, Link, Message, Metrics, Pack, sound
from app.page.tell import SETTINGS, retell, tell
from d2f.catalogue.pairs import PAIRS
from d2f.events import BLOCK_STATES

KINDS = get_args(Message)
NUMBERS = {float: (float, int)}  # JSON knows one kind
TYPES = [each for each in vars(app.page.messages).values() if is_typeddict(each)]
SCRIPT = (STATIC / "messages.js").read_text(encoding="utf-8")
DOCS = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")


def kind_of(message: type) -> str:
    (kind,) = get_args(get_type_hints(message)["kind"])
    return kind


def fields(message: type) -> dict[str, Any]:
    """Each field's type; of one that may be missing, in brackets."""
    hints = get_type_hints(message, include_extras=True)
    return {
        f"[{name}]" if get_origin(hint) is NotRequired else name: hint
        for name, hint in hints.items()
    }


def script_type(hint: Any) -> str:
    """A Python type as the scripts write it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        return script_type(args[0])
    if origin is Literal:
        return "|".join(f"'{value}'" for value in args)
    if origin is UnionType or str(origin) == "typing.Union":
        return "|".join(map(script_type, args))
    if origin is list:
        return f"{script_type(args[0])}[]"
    if origin is dict:
        return f"Record<{', '.join(map(script_type, args))}>"
    if origin is tuple:
        return f"[{', '.join(map(script_type, args))}]"
    plain = {int: "number", float: "number", str: "string", bool: "boolean", NoneType: "null"}
    return plain.get(hint) or hint.__name__


ALIASES = dict(
    (name, text) for text, name in re.findall(r"/\*\* @typedef \{(.*?)\} (\w+).*?\*/", SCRIPT)
)


def expanded(text: str) -> str:
    """Aliases of the scripts in full, but for the union of all messages."""
    for name in ("CommitRow", "TextRow", "BlockRow", "BlockState", "Message"):
        text = re.sub(rf"\b{name}\b", lambda _, name=name: ALIASES[name], text)
    return text


def test_the_script_has_every_type_with_its_fields() -> None:
    objects = re.findall(r"@typedef \{object\} (\w+)\n(.*?)\*/", SCRIPT, re.DOTALL)
    told = {
        name: {
            field: expanded(text)
            for text, field in re.findall(r"@property \{(.*?)\} (\[?\w+\]?)", body)
        }
        for name, body in objects
    }
    assert told == {
        each.__name__: {name: script_type(hint) for name, hint in fields(each).items()}
        for each in TYPES
    }


def test_the_script_has_every_message() -> None:
    assert ALIASES["Message"] == "|".join(each.__name__ for each in KINDS)


def test_the_board_takes_every_kind() -> None:
    script = (STATIC / "receive.js").read_text(encoding="utf-8")
    table = script[script.index("const KINDS = {") : script.index("\n};")]
    keys = re.findall(r"^  (\w+)(?=[:,])", table, re.MULTILINE)
    assert sorted(keys) == sorted(map(kind_of, KINDS))


def rows(title: str) -> dict[str, list[str]]:
    """The first table of documentation under a header row: fields by the first cell."""
    table = DOCS[DOCS.index(f"| {title} | fields |") :].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[2:]]
    return {row[1].replace("`", ""): row[2].replace("`", "").split(", ") for row in cells}


def test_the_documentation_has_every_message_with_its_fields() -> None:
    assert rows("kind") == {
        kind_of(each): [name for name in fields(each) if name != "kind"] or [""] for each in KINDS
    }
    assert rows("part") == {
        "a lane of start": list(fields(LaneStart)),
        "a lane of end": list(fields(LaneEnd)),
        "link": list(fields(Link)),
    }


def test_names_of_states_and_figures_are_the_engines() -> None:
    assert get_args(BlockState) == BLOCK_STATES
    assert list(fields(Metrics)) == list(d2f_trace().metrics)


def assert_of(value: Any, hint: Any) -> None:
    """A value is of a type, to its last field."""
    origin, args = get_origin(hint), get_args(hint)
    if is_typeddict(hint):
        assert hint.__required_keys__ <= value.keys() <= set(get_type_hints(hint)), (hint, value)
        for name, each in value.items():
            assert_of(each, get_type_hints(hint)[name])
    elif origin is Literal:
        assert value in args
    elif origin is UnionType or str(origin) == "typing.Union":
        if all(map(is_typeddict, args)):
            (hint,) = [each for each in args if kind_of(each) == value["kind"]]
            assert_of(value, hint)
        else:
            assert any(
                value is None if each is NoneType else type(value) in NUMBERS.get(each, (each,))
                for each in args
            )
    elif origin is list:
        assert type(value) is list
        for each in value:
            assert_of(each, args[0])
    elif origin is dict:
        for key, each in value.items():
            assert_of(key, args[0])
            assert_of(each, args[1])
    elif origin is tuple:
        assert len(value) == len(args)
        for each, part in zip(value, args, strict=True):
            assert_of(each, part)
    else:
        assert type(value) is hint or (hint is float and type(value) is int), (hint, value)


def test_what_a_run_tells_is_of_these_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.page.tell, "pair_lanes", recorded)
    settings = [getattr(PAIRS["mini"].config, name) for name in SETTINGS]
    told = list(tell("Count.", "mini", settings, None, Host()))
    failed = list(tell("", "mini", settings, None, Host()))
    messages = [message for each in (*told, *failed) for message in each.messages]
    messages += retell(told[-1].recording)
    kinds = {message["kind"] for message in messages}
    assert kinds >= {"start", "step", "end", "error"}
    for message in messages:
        assert_of(message, Message)
    pack = json.loads(app.page.messages.pack_messages("run", 3, messages))
    assert_of(pack, Pack)
    assert (pack["run"], pack["seq"], pack["opening"]) == ("run", 3, False)
    assert pack["messages"] == sound(messages)


def test_a_sound_value_is_whole_and_finite() -> None:
    assert sound({"a": [("\ud83d", 1.5, None, True)]}) == {"a": [["\ufffd", 1.5, None, True]]}
    for number in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="finite numbers only"):
            sound({"a": [{"b": (0, number)}]})
