"""The text of an answer as a client gets it: as far as it is readable, up to a stop sequence.

Knows nothing of servers and of evaluations, which both use it.
"""

from bisect import bisect_left
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from d2f.detokenizer import ReadableText
from d2f.events import StepEvent, Trace, TraceHeader
from d2f.tokenizer import Tokenizer


@dataclass(frozen=True)
class Said:
    """What one step added to an answer.

    The last one alone has a ``reason``, "stop" or "length", and the answer's ``tokens``.
    """

    text: str
    reason: str | None = None
    tokens: int = 0


class UpToStop:
    """A text that comes in pieces and ends before the first of some stop sequences.

    The first is the one that is complete first, and of those the longest, so that the pieces'
    borders make no difference.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.met = False

    def add(self, text: str) -> str:
        """What ``text`` adds, less what may be the beginning of a stop sequence."""
        text = self._held + text
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.met = True
            return text[: min(ends)[1]]
        safe = len(text) - max((_begun(stop, text) for stop in self._stops), default=0)
        self._held = text[safe:]
        return text[:safe]

    def rest(self) -> str:
        """What was held back of a text that is over."""
        return "" if self.met else self._held


def _begun(stop: str, text: str) -> int:
    """How many characters at the end of ``text`` begin ``stop``."""
    lengths = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)


def spoken(
    source: Generator[StepEvent, None, None],
    header: TraceHeader,
    tokenizer: Tokenizer,
    stops: Sequence[str],
) -> Generator[Said, None, None]:
    """The answer of a run, which is closed as soon as a stop sequence is complete.

    ``tokens`` are those of the run, its stop token included; of an answer that a stop sequence
    ends, those whose text is at least partly in it.
    """
    readable, until = ReadableText(tokenizer, header), UpToStop(stops)
    events: list[StepEvent] = []
    kept = ""
    with closing(source):
        for event in source:
            events.append(event)
            text = until.add(readable.add(event))
            if event.finish_reason is None and not until.met:
                kept += text
                yield Said(text)
                continue
            trace = Trace(header, tuple(events))
            ids = trace.token_ids
            if not until.met:
                text += until.add(readable.rest(tokenizer.decode(ids))) + until.rest()
            if until.met:
                yield Said(text, "stop", _tokens_of(kept + text, ids, tokenizer))
            else:
                yield Said(text, event.finish_reason, trace.tokens)
            return


def _tokens_of(text: str, ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """The fewest of the tokens whose text begins with ``text``."""
    return bisect_left(
        range(len(ids)), True, key=lambda count: tokenizer.decode(ids[:count]).startswith(text)
    )
