"""JSON in and out holds finite numbers only, and one module sees to it."""

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from races import ar_trace, recorded

from app.page.messages import pack_messages
from app.race import merge
from app.recordings.recording import Recording, record
from app.recordings.refusals import RecordingError
from d2f.errors import InvalidInput
from d2f.events import Trace, event_from_dict, event_to_dict
from d2f.strict_json import NoJson, from_json, to_json

ROOT = Path(__file__).parents[1]
NOT_FINITE = [float("nan"), float("inf"), float("-inf")]
# A recording's reader is stricter still; what rivals send is theirs, and only what is used of it is
# checked. The tasks keep what they expect as JSON of their own.
OWN = {
    "dumps": {"d2f/strict_json.py"},
    "loads": {
        "d2f/strict_json.py",
        "app/lanes/chat.py",
        "app/lanes/refusal.py",
    },
}


@pytest.mark.parametrize("name", OWN)
def test_json_is_written_and_read_in_one_place(name: str) -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for folder in ("d2f", "app")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in (name, name[:-1])
        if isinstance(node.value, ast.Name) and node.value.id == "json"
    }
    assert {user for user in users if not user.startswith("d2f/tasks/")} == OWN[name]


@pytest.mark.parametrize("value", [*NOT_FINITE, [0, {"a": NOT_FINITE[0]}]])
def test_what_is_not_finite_is_not_written(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack_messages("run", 0, [{"kind": "step", "value": value}])


def test_writing_is_compact_or_in_lines() -> None:
    assert to_json({"a": [1, "é"]}) == '{"a":[1,"\\u00e9"]}'
    assert to_json({"a": [1, "é"]}, ascii=False) == '{"a":[1,"é"]}'
    assert to_json({"a": 1}, indent=1) == '{\n "a": 1\n}'


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ('{"a": NaN}', InvalidInput, "JSON holds finite numbers only, got NaN"),
        ("[Infinity]", InvalidInput, "JSON holds finite numbers only, got Infinity"),
        ("-Infinity", InvalidInput, "JSON holds finite numbers only, got -Infinity"),
        ("[1e999]", InvalidInput, "JSON holds finite numbers only, got 1e999"),
        (b"-1e999", InvalidInput, "JSON holds finite numbers only, got -1e999"),
        ("1" * 400 + ".0", InvalidInput, f"JSON holds finite numbers only, got {'1' * 20}…"),
        ("[" * 100_000, InvalidInput, "the JSON is nested too deeply"),
        ("", NoJson, "it is no JSON: Expecting value: line 1 column 1 (char 0)"),
        ("{", NoJson, "it is no JSON: Expecting property name enclosed in double quotes"),
        ("1" * 5000, InvalidInput, "a number in the JSON has more than 1,000 digits"),
        (b"\xff\xfe{", NoJson, "it is no JSON: "),
    ],
)
def test_what_is_not_finite_or_no_json_is_refused(
    text: str | bytes, error: type[Exception], said: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        from_json(text)
    assert type(raised.value) is error and str(raised.value).startswith(said)


@pytest.mark.parametrize("text", ["1e308", "-0.0", '{"a":[1,2.5,null,true,"NaN"]}'])
def test_what_is_finite_is_read_as_it_is(text: str) -> None:
    assert to_json(from_json(text)) == to_json(json.loads(text))


@pytest.mark.parametrize("field", ["seconds", "confidence"])
@pytest.mark.parametrize("value", [*NOT_FINITE, -0.001, 1e300, 10**400, "1", None, True])
def test_a_step_of_no_time_or_certainty_there_is_is_refused(field: str, value: Any) -> None:
    data = event_to_dict(ar_trace().events[1])
    if field == "seconds":
        data["seconds"] = value
    else:
        data["commits"][0][2] = value
    with pytest.raises(InvalidInput, match=f"{field} must be a number in "):
        event_from_dict(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_traces_and_recordings_hold_none_either(number: str) -> None:
    trace = ar_trace()
    text = trace.to_json().replace('"seconds":0.25', f'"seconds":{number}', 1)
    assert number in text
    with pytest.raises(InvalidInput, match=f"finite numbers only, got {number}"):
        Trace.from_json(text)
    lanes = recorded()
    list(merge(lanes))
    race = record("Count.", lanes)
    text = race.to_json().replace('"seconds":', f'"seconds":{number},"was":', 1)
    with pytest.raises(RecordingError, match="number"):
        Recording.from_json(text)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_trace_that_holds_one_is_not_written(value: float) -> None:
    trace = ar_trace()
    events = (replace(trace.events[0], seconds=value), *trace.events[1:])
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(trace, events=events).to_json()
