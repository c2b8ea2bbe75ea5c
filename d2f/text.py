"""What a file and a prompt may hold: one rule for all text from outside. Knows no tokenizer."""

import codecs
import re
import unicodedata

from d2f.errors import InvalidInput

_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# The longer marks first: that of UTF-32 begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def decoded(data: bytes) -> str:
    """The text of a file, as any editor saves it: UTF-8, or another UTF by the mark it begins with.

    The mark is no part of the text.

    Raises:
        InvalidInput: the bytes are no such text.
    """
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise InvalidInput(f"it is no text in {name}: save it as UTF-8") from error


def new_lines(text: str) -> str:
    """The text with ``"\\n"`` at every line's end and without a byte order mark at its start."""
    return _LINE_END.sub("\n", text.removeprefix("\ufeff"))


def plain_text(text: str) -> str:
    """A prompt with lines as :func:`new_lines` has them.

    Raises:
        InvalidInput: it holds another control character, or half of a character (a surrogate).
    """
    text = new_lines(text)
    for character in text:
        if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cs"):
            code = f"U+{ord(character):04X}"
            raise InvalidInput(f"the text holds the control character {code}; remove it")
    return text
