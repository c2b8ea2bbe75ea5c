"""Text that was cut at any place is whole again, or says where it is not."""

import pytest

from app.characters import divide, read, whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é 😀", "plain é 😀"),
        ("\ud83d\ude00", "😀"),
        ("a\ud83d", "a\ufffd"),
        ("\ud83d a", "\ufffd a"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d\ude00", "\ufffd😀"),
        ("\ud83d\udc80", "💀"),  # its second half looks like a byte that was kept
        (read(b"\xf0\x9f\x98\x80"), "😀"),
        (read(b"\xf0\x9f"), "\ufffd"),
        (read(b"a\xf0\x9fb"), "a\ufffdb"),
        (read(b"\xff\xfe"), "\ufffd\ufffd"),
        (read(b"\xed\xa0\xbd\xed\xb8\x80"), "😀"),  # surrogates written as characters
        (read(b"\xed\xa0\xbd"), "\ufffd"),
    ],
)
def test_halves_that_meet_are_one_character_and_others_are_marked(text: str, expected: str):
    assert whole(text) == expected
    whole(text).encode()


@pytest.mark.parametrize("text", ["é", "€", "😀", "a€b", "\ufffd"])
def test_a_character_may_be_cut_at_any_byte(text: str):
    data = text.encode()
    for cut in range(len(data) + 1):
        ready, begun = divide(read(data[:cut]))
        assert "\ufffd" not in ready or text == "\ufffd"
        assert ready + whole(begun + read(data[cut:])) == text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ("a", "")),
        ("a\ud83d", ("a", "\ud83d")),
        ("a\ude00", ("a\ufffd", "")),
        (read(b"a\xe2\x82"), ("a", "\udce2\udc82")),
        (read(b"a\x82"), ("a\ufffd", "")),
        (read(b"\xe2\x82\xac"), ("€", "")),
    ],
)
def test_only_what_the_next_piece_can_complete_waits_for_it(text: str, parts: tuple[str, str]):
    assert divide(text) == parts
