"""Tokens' own texts, and what they say in their places: joined, they are the whole text."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace

import httpx
import pytest
from bytepieces import write_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from served import CHAT, CONFIGS, messages
from servers import serving
from tiny import network

from app.lanes.lane import Lane, live_lane, own_texts, recorded_lane, remote_lane
from app.lanes.remote import EventsReader, Server
from app.page.reducer import LaneBoard
from app.recordings.link import from_link, to_link
from app.recordings.recording import Recording, record, replay_lane
from d2f import ARConfig, Model, Trace, TraceHeader
from d2f.detokenizer import TokenTexts
from d2f.errors import InvalidInput
from d2f.events import Commit, StepEvent, event_to_dict
from d2f.serve.service import Options, create_app
from d2f.tokenizer import Tokenizer

START, END = 5, 4  # of the answer; the byte-level tokenizer's
SPECIAL = re.compile(r"<\|\w+\|>")
SAYS = "The answer is 5. hello world é 🙂 你好, hello\n"


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("sentencepiece")
    write_tokenizer(folder)
    return Tokenizer(folder)


@pytest.fixture(params=["byte level", "sentencepiece"])
def either(request: pytest.FixtureRequest, tokenizer: Tokenizer, pieces: Tokenizer) -> Tokenizer:
    return tokenizer if request.param == "byte level" else pieces


def step(*placed: tuple[int, int], number: int = 0, reason: str | None = None) -> StepEvent:
    commits = tuple(Commit(position, token, 0.9) for position, token in placed)
    return StepEvent(number, 0.5, (0, START + 1), commits, (), 0, reason)


def test_a_tokens_own_text_keeps_its_space(pieces: Tokenizer) -> None:
    ids = pieces.encode("The answer is 5. hello world")
    assert [pieces.token_text(i) for i in ids] == [
        *(" The", " answer", " is", " ", "5", ".", " hello", " world")
    ]
    assert pieces.token_text(ids[0], first=True) == "The"
    assert pieces.token_text(pieces.end_id) == "</s>"
    assert pieces.decode(ids) == "The answer is 5. hello world"


def test_bytes_of_a_token(tokenizer: Tokenizer, pieces: Tokenizer) -> None:
    assert [pieces.token_bytes(i) for i in pieces.encode("é")[1:]] == [b"\xc3", b"\xa9"]
    assert pieces.token_bytes(pieces.encode(" hello")[-1]) is None
    assert b"".join(tokenizer.token_bytes(i) or b"" for i in tokenizer.encode("é🙂")) == (
        "é🙂".encode()
    )
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("a1 +")] == [None] * 3


def test_an_emoji_grows_out_of_its_bytes_in_order(pieces: Tokenizer) -> None:
    space, *parts = pieces.encode("🙂")
    texts = TokenTexts(pieces, START)
    assert texts.add(step((START, space))) == {START: ""}
    told = [texts.add(step((START + 1 + n, part))) for n, part in enumerate(parts)]
    one, two, three, four = range(START + 1, START + 5)
    assert told == [
        {one: "\ufffd"},
        {one: "", two: "\ufffd"},
        {two: "", three: "\ufffd"},
        {three: "", four: "🙂"},
    ]


def test_an_emoji_grows_out_of_its_bytes_in_any_order(pieces: Tokenizer) -> None:
    parts = pieces.encode("🙂")[1:]
    texts, said = TokenTexts(pieces, START), {}
    for n in (3, 0, 2, 1):
        said |= texts.add(step((START + n, parts[n])))
    assert said == {START: "", START + 1: "", START + 2: "", START + 3: "🙂"}


def check_joined(tokenizer: Tokenizer, ids: Sequence[int], seed: int) -> None:
    """In any order of commits and sizes of steps, what stands before the first gap is its text."""
    rng, texts = random.Random(seed), TokenTexts(tokenizer, START)
    order = rng.sample(range(len(ids)), len(ids))
    said: dict[int, str] = {}
    while order:
        now = [order.pop() for _ in range(min(len(order), rng.randrange(1, 4)))]
        told = texts.add(step(*((START + n, ids[n]) for n in now)))
        assert {START + n for n in now} <= told.keys()
        said |= told
    assert "".join(said[START + n] for n in range(len(ids))) == tokenizer.decode(ids)


@pytest.mark.parametrize("seed", range(20))
def test_joined_the_texts_are_the_whole_text(seed: int, either: Tokenizer) -> None:
    check_joined(either, either.encode(SAYS), seed)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="|\u2581<")), seed=st.integers()
)
def test_joined_the_texts_are_any_text(text: str, seed: int, tokenizer: Tokenizer) -> None:
    check_joined(tokenizer, tokenizer.encode(text), seed)


def run_lane(tokenizer: Tokenizer, text: str, order: Sequence[int] | None = None) -> Lane:
    """A lane that has said a text, one token a step, and then the end."""
    ids = [*tokenizer.encode(text), tokenizer.end_id]
    config = ARConfig(max_new_tokens=len(ids))
    header = TraceHeader(config, "m", "cpu", "float32", (9,) * START, (tokenizer.end_id,), {})
    last = len(ids) - 1
    events = [
        StepEvent(
            n,
            0.5,
            (START + n - 1 if n else 0, START + n),
            (Commit(START + n, token, 0.9),),
            (),
            START + n,
            "stop" if n == last else None,
        )
        for n, token in enumerate(ids)
    ]
    lane = recorded_lane(
        "AR", Trace(header, tuple(events), tokenizer.decode(ids)), tokenizer.token_text
    )
    lane.placed = lambda: TokenTexts(tokenizer, START).add
    while lane.advance():
        pass
    return lane


def cells_of(lane: Lane) -> list[tuple[int, str]]:
    """What the board's cells say in the end."""
    board = LaneBoard(0, lane.name, lane.header, lane.texts())
    cells: dict[int, str] = {}
    for event in lane.events:
        delta = board.step(event)
        cells.update({position: text for position, text, _, _ in delta["commits"]})
        for position, text in delta.get("texts", []):
            assert position in cells
            cells[position] = text
    return sorted(cells.items())


def board_text(lane: Lane) -> str:
    """What the board says in the end, the stop token left out."""
    stops = {
        c.position - len(lane.header.prompt_ids)
        for event in lane.events
        for c in event.commits
        if c.token_id in lane.header.stop_ids
    }
    return "".join(text for position, text in cells_of(lane) if position not in stops)


def test_the_board_says_the_whole_text(either: Tokenizer) -> None:
    lane = run_lane(either, SAYS)
    assert board_text(lane) == SAYS == lane.trace.text


def test_recordings_and_links_keep_texts_in_their_places(either: Tokenizer) -> None:
    kept = record("hi", [run_lane(either, SAYS)])
    assert kept.lanes[0].placed
    for read in (Recording.from_json(kept.to_json()), from_link(to_link(kept))):
        again = replay_lane(read.lanes[0])
        while again.advance():
            pass
        assert board_text(again) == SAYS
    assert Recording.from_json(kept.to_json()) == kept


def test_a_recording_without_such_texts_is_written_as_before(tokenizer: Tokenizer) -> None:
    kept = record("hi", [run_lane(tokenizer, "2 + 3")])
    assert kept.lanes[0].placed == {}
    assert "placed" not in kept.to_json()


@pytest.mark.parametrize("placed", [{"5": 1}, [[5]], [[5, 1]], [[99, "x"]], [["5", "x"]], 7])
def test_texts_in_places_that_are_none_are_refused(placed: object, pieces: Tokenizer) -> None:
    raw = json.loads(record("hi", [run_lane(pieces, "hello")]).to_json())
    raw["lanes"][0]["placed"] = placed
    with pytest.raises(ValueError, match="This file cannot be opened"):
        Recording.from_json(json.dumps(raw))


def test_a_live_lane_and_the_service_place_texts(either: Tokenizer) -> None:
    """A random model says bytes as they come."""
    net = network(either.vocab_size, causal=True, logit_shift=True, max_length=512)
    model = Model("small-ar", net, either)
    settings = {"max_new_tokens": 60, "temperature": 2.0, "seed": 5}
    lane = live_lane("AR", model, CHAT, replace(CONFIGS["ar"], **settings))
    while lane.advance():
        pass
    told = board_text(lane)
    config = replace(CONFIGS["ar"], **settings)
    with serving(create_app(model, CONFIGS["ar"], Options(model.name))) as url:
        asked = {"messages": CHAT, "config": settings}
        events = messages(httpx.post(f"{url}/events", json=asked, timeout=30))
        far = remote_lane("AR", Server(url, model.name, "events"), CHAT, config)
        while far.advance():
            pass
        far.close()
    assert (cells_of(far), far.trace.text) == (cells_of(lane), lane.trace.text)
    texts: dict[int, str] = {}
    said: dict[int, str] = {}
    for data in (data for kind, data in events if kind == "step"):
        texts |= dict(data["texts"])
        commits = data["event"]["commits"]
        said |= {position: texts[token] for position, token, *_ in commits}
        assert {p for p, _ in data.get("placed", [])} <= said.keys()
        said |= dict(data.get("placed", []))
    assert said == {position + len(lane.header.prompt_ids): t for position, t in cells_of(lane)}
    assert any(data.get("placed") for _, data in events)
    if either.end_id == END:  # byte level, which reads damage as it is shown here
        assert SPECIAL.sub("", told) == lane.trace.text


def reader_of(pieces: Tokenizer, *steps: StepEvent) -> EventsReader:
    """What a service told of a run."""
    reader = EventsReader(Server("http://127.0.0.1:1", "m", "events"), CHAT, ARConfig())
    texts = TokenTexts(pieces, 1)
    for event in steps:
        told = {
            "event": event_to_dict(event),
            "texts": [[c.token_id, pieces.token_text(c.token_id)] for c in event.commits],
            "placed": list(texts.add(event).items()),
        }
        list(reader.read(0.0, "step", json.dumps(told)))
    return reader


def test_an_answer_that_broke_off_reads_as_its_tokens_in_their_places(pieces: Tokenizer) -> None:
    ids = pieces.encode("The é🙂")
    steps = [step((1 + n, token), number=n) for n, token in enumerate(ids)]
    reader = reader_of(pieces, *steps)
    assert [reader.answer(ids[:n]) for n in (0, 1, len(ids))] == ["", "The", "The é🙂"]
    assert reader.placed_texts(steps[0]) == {1: "The"}
    assert reader.placed_texts(steps[-1])[len(ids)] == "🙂"


def test_a_service_that_places_texts_nowhere_is_refused(pieces: Tokenizer) -> None:
    reader = reader_of(pieces)
    told = {"event": event_to_dict(step((1, 3))), "texts": [[3, "a"]], "placed": [[2, "b"]]}
    with pytest.raises(InvalidInput, match="not a position of this run"):
        list(reader.read(0.0, "step", json.dumps(told)))


def test_own_texts_may_be_placed_otherwise() -> None:
    read = own_texts(str, {7: "seven"})
    assert read(step((6, 1), (7, 2))) == {6: "1", 7: "seven"}
