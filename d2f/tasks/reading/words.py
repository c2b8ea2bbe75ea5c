"""What every reader does first: the text without the thinking that came before it."""

import re

from d2f.text import new_lines

_NAMES = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)"
_THINKING = re.compile(rf"(?:<|\[|◁)(?P<closes>/?){_NAMES}(?:>|\]|▷)", re.IGNORECASE)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)\s*<\|message\|>")
_SPECIAL = re.compile(r"<\|[^|<>\n]{1,40}\|>")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufe0e\ufe0f\ufeff]")


def answer_of(text: str) -> str:
    """The answer without what the model thought, its lines ended by ``"\\n"``.

    Thinking that never ends leaves no answer.
    """
    text = _INVISIBLE.sub("", new_lines(text))
    channels = _CHANNEL.split(text)
    if len(channels) > 1:
        text = channels[-1] if channels[-2].lower() == "final" else ""
    return _SPECIAL.sub("", _without_thinking(text))


def _without_thinking(text: str) -> str:
    kept: list[str] = []
    start, inside = 0, False
    for mark in _THINKING.finditer(text):
        if not mark["closes"]:
            if not inside:
                kept.append(text[start : mark.start()])
            inside = True
            continue
        if not inside:
            kept.clear()  # what opened it stood in the prompt
        start, inside = mark.end(), False
    return "".join(kept if inside else [*kept, text[start:]])
