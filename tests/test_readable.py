"""Readable text of a run in the making."""

from dataclasses import replace

from races import header

from d2f.config import D2FConfig
from d2f.detokenizer import ReadableText
from d2f.events import Commit, StepEvent
from d2f.tokenizer import Tokenizer

HEADER = header(D2FConfig(), "tiny")


def test_readable_text_waits_for_gaps_stops_and_whole_characters(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("é x")
    assert tokenizer.token_text(ids[0]) == "\ufffd"
    readable = ReadableText(tokenizer, replace(HEADER, prompt_ids=(7,) * 5))

    def add(*positions: int) -> str:
        commits = tuple(Commit(5 + p, [*ids, tokenizer.end_id][p], 1.0) for p in positions)
        return readable.add(StepEvent(0, 0.1, (0, 9), commits))

    assert add(0) == ""
    assert add(2, len(ids)) == ""
    assert add(1) == "é" + tokenizer.decode(ids[2:3])
    assert "".join(add(p) for p in range(3, len(ids))) == tokenizer.decode(ids[3:])
    assert readable.rest("é x") == ""


def test_held_text_is_readable_with_the_first_step(tokenizer: Tokenizer) -> None:
    held = tuple(enumerate(tokenizer.encode("an answer")))
    about = replace(HEADER, prompt_ids=(7, 7), held=held)
    last = len(held) + 2
    readable = ReadableText(tokenizer, about)
    [dash] = tokenizer.encode("-")
    assert readable.add(StepEvent(0, 0.1, (0, 9), (Commit(last + 1, dash, 1.0),))) == "an answer"
    assert readable.add(StepEvent(1, 0.1, (0, 9), (Commit(last, dash, 1.0),))) == "--"
