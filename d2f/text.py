"""What a prompt may hold: one rule for all that comes from outside. Knows no tokenizer."""

import re
import unicodedata

from d2f.errors import InvalidInput

LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")


def plain_text(text: str) -> str:
    """The text with ``"\\n"`` at every line's end and without a byte order mark at its start.

    Raises:
        InvalidInput: it holds another control character, or half of a character (a surrogate).
    """
    text = LINE_END.sub("\n", text.removeprefix("\ufeff"))
    for character in text:
        if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cs"):
            code = f"U+{ord(character):04X}"
            raise InvalidInput(f"the text holds the control character {code}; remove it")
    return text
