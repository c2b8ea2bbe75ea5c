"""Server-sent events from bytes that are cut anywhere."""

import pytest

from app.lanes.server import RemoteError
from app.lanes.sse import EventParser


def events(*parts: bytes) -> list[tuple[str, str]]:
    parser = EventParser()
    told = [event for part in parts for event in parser.feed(part)]
    return [*told, *parser.end()]


TWO = [("", "one"), ("step", "two\nlines \u2028")]
STREAM = "data: one\n\n: a comment\nevent: step\nid: 3\nretry: 10\ndata:two\ndata: lines \u2028\n\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_events_are_the_same_whatever_ends_a_line_and_wherever_bytes_are_cut(end: str, mark: str):
    data = (mark + STREAM.replace("\n", end)).encode()
    assert events(data) == TWO
    assert events(*(bytes([byte]) for byte in data)) == TWO
    for cut in range(len(data)):
        assert events(data[:cut], data[cut:]) == TWO


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_an_event_is_told_with_the_bytes_that_end_it(end: bytes):
    parser = EventParser()
    assert list(parser.feed(b"data: one")) == []
    assert list(parser.feed(end)) == [("", "one")]
    assert list(parser.feed(b"data: two" + end)) == [("", "two")]


@pytest.mark.parametrize("rest", [b"", b"\n", b"\r", b"\r\n"])
def test_the_last_event_needs_no_blank_line(rest: bytes):
    assert events(b"data: one\n\ndata: two" + rest) == [("", "one"), ("", "two")]


def test_an_event_without_data_is_none_and_leaves_no_kind_behind():
    assert events(b"event: ping\n\ndata: one\n\n") == [("", "one")]
    assert events(b"data:\n\n") == [("", "")]


def test_objects_without_blank_lines_between_them_are_events():
    sent = b'data: {"a": 1}\ndata: {"b": {}}\ndata: [DONE]\n'
    assert events(sent) == [("", '{"a": 1}'), ("", '{"b": {}}'), ("", "[DONE]")]
    assert events(b'data: {"a":\ndata: {"b": 1},\ndata: "c": 2}\n\n') == [
        ("", '{"a":\n{"b": 1},\n"c": 2}')
    ]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (b"data: " + b"a" * 1_048_576, "sent a line longer than 1,048,576 bytes."),
        (b"data: " + b"a" * 600_000 + b"\n", "sent an event longer than 1,048,576 characters."),
        (b"data\n" * 600_000, "sent an event longer than 1,048,576 characters."),
    ],
)
def test_a_stream_cannot_fill_the_memory(part: bytes, message: str):
    with pytest.raises(RemoteError, match=message):
        events(part, part)
