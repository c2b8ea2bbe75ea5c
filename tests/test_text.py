"""Text from outside: how a file's bytes are read, and what a prompt may hold."""

import pytest

from d2f.errors import InvalidInput
from d2f.text import decoded, plain_text

SAID = '{"prompt": "3 Äpfel, 數獨\u2028 🍎"}\r\n'


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", b"\xef\xbb\xbf"),
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-32-le", b"\xff\xfe\x00\x00"),
        ("utf-32-be", b"\x00\x00\xfe\xff"),
    ],
)
def test_a_file_is_read_by_its_mark_which_is_no_part_of_it(encoding: str, mark: bytes) -> None:
    assert decoded(mark + SAID.encode(encoding)) == SAID
    assert decoded(mark) == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9", "it is no text in UTF-8: save it as UTF-8"),
        (b"\xef\xbb\xbf\xff", "it is no text in UTF-8: save it as UTF-8"),
        (b"\xff\xfea", "it is no text in UTF-16: save it as UTF-8"),
        (b"\xff\xfe\x00\xd8", "it is no text in UTF-16: save it as UTF-8"),
        (b"\xff\xd8\xff\xe0JFIF", "it is no text in UTF-8: save it as UTF-8"),
    ],
)
def test_bytes_that_are_no_text_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decoded(data)
    assert str(refused.value) == message


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_every_end_of_a_line_is_a_newline(end: str) -> None:
    assert plain_text(f"a{end}b{end}{end}\tc") == "a\nb\n\n\tc"


def test_a_mark_goes_from_the_start_alone() -> None:
    assert plain_text("\ufeffa\ufeffb") == "a\ufeffb"


@pytest.mark.parametrize(
    "code", [0x00, 0x07, 0x08, 0x0E, 0x1B, 0x1F, 0x7F, 0x80, 0x9F, 0xD800, 0xDFFF]
)
def test_other_control_characters_are_named(code: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        plain_text(f"a{chr(code)}b")
    assert str(refused.value) == f"the text holds the control character U+{code:04X}; remove it"
