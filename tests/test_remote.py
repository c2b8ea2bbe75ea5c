"""Lanes on other machines: a real HTTP server that speaks OpenAI's protocol, well and badly."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from dataclasses import replace

import pytest
from asking import CHAT, CONFIG, answered, lane_at, run
from races import d2f_trace, token_text
from servers import CUT, DONE, HANG, Scripted, chunk, counts, free_port, message, serving
from tiny import network

import app.page.tell
from app.lanes.lane import Host, Lane, pair_lanes, recorded_lane, remote_lane, warm_model
from app.lanes.remote import ChatReader, Server
from app.lanes.runners import rival_pair
from app.page.reducer import machine
from app.page.tell import tell
from app.race import DONE as OVER
from app.race import STOPPED, Device, Race, here, merge
from app.recordings.link import from_link, to_link
from app.recordings.recording import Recording, record
from d2f import ARConfig, D2FConfig, Model, StepEvent, generate
from d2f.catalogue.pairs import PAIRS
from d2f.serve.service import Options, create_app
from d2f.tokenizer import Tokenizer

ANSWER = [chunk(""), chunk("one"), chunk(" two"), chunk("one"), chunk(reason="stop"), DONE]
HALVES = ("\ud83d", "\ude00")  # of one character
FAST = {"interval": 0.0, "heartbeat": 0.01}


def test_a_streamed_answer_is_a_run_like_any_other():
    with Scripted(ANSWER) as server:
        asked = Server(server.url, "llama", key="secret")
        with lane_at(asked) as lane:
            trace = run(lane).trace
    assert [e.commits[0].position for e in trace.events] == [1, 2, 3, 4]
    assert [e.window for e in trace.events] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert trace.token_ids == (2, 3, 2, 1)
    assert [lane.token_text(i) for i in trace.token_ids] == ["one", " two", "one", "<stop>"]
    assert (trace.text, trace.finish_reason, trace.tokens) == ("one twoone", "stop", 4)
    assert trace.header.decoder == "ar"
    assert trace.header.model == f"llama, client-timed at {asked.host}"
    assert lane.failure == ""
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "llama",
        "messages": CHAT,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 8,
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 0,
    }


def test_files_and_links_tell_the_run():
    lane = answered(ANSWER)
    recording = record("Count.", [lane])
    assert Recording.from_json(recording.to_json()) == recording
    (linked,), (kept,) = from_link(to_link(recording)).lanes, recording.lanes
    assert linked.trace.text == kept.trace.text
    assert linked.trace.header.model == kept.trace.header.model
    assert linked.trace.header.clock == "client"
    assert linked.trace.header.host == kept.trace.header.host
    assert [e.window for e in linked.trace.events] == [e.window for e in kept.trace.events]
    assert linked.trace.finish_reason == "stop"


def test_tokens_are_those_the_server_counts():
    pieces = [chunk("one two"), chunk(" three"), chunk(reason="stop"), counts(5), DONE]
    trace = answered(pieces).trace
    assert (trace.tokens, trace.text, trace.finish_reason) == (5, "one two three", "stop")
    assert [e.seconds for e in trace.events[-2:]] == [0, 0]
    # None: a piece is a token, and so is the stop.
    assert answered(ANSWER).trace.tokens == 4


@pytest.mark.parametrize(
    ("script", "tokens", "text"),
    [
        ([chunk("a"), chunk("b"), chunk("c"), DONE], 3, "abc"),
        ([chunk("a"), chunk("b"), chunk("c"), chunk("d"), DONE], 3, "abcd"),
        ([chunk("a b"), chunk("c", "length"), counts(3), DONE], 3, "a bc"),
        ([chunk("a", "length"), counts(9), DONE], 9, "a"),
        ([chunk("a", "length"), DONE], 1, "a"),
    ],
)
def test_an_answer_may_be_cut_at_its_longest(script: list, tokens: int, text: str):
    trace = answered(script, ARConfig(max_new_tokens=3)).trace
    assert (trace.tokens, trace.text, trace.finish_reason) == (tokens, text, "length")
    assert [e.finish_reason for e in trace.events[:-1]] == [None] * (trace.forwards - 1)


def test_thoughts_and_any_character_are_text_of_the_answer():
    thought = {"index": 0, "delta": {"reasoning_content": "hm\u2028"}, "finish_reason": None}
    parts = message({"choices": [thought]}) + chunk("é\x85", "stop")
    halves = [parts[:30], parts[30:31], parts[31:]]
    trace = answered([b": hello\r\n\r\n", *halves, b"data: [DONE]\r\n\r\n"]).trace
    assert trace.text == "<think>\nhm\u2028\n</think>\n\né\x85"


def test_seconds_are_those_between_arrivals_whatever_is_computed_here():
    pieces = [0.2, chunk("a"), 0.1, chunk("b"), 0.1, chunk("c"), 0.1, chunk(reason="stop"), DONE]
    began = time.perf_counter()
    with Scripted(pieces) as server, lane_at(Server(server.url, "llama")) as lane:
        wait([lane.feed._task])
        arrived = time.perf_counter() - began
        time.sleep(0.5)  # a lane that computes here
        run(lane)
    assert 0.5 <= lane.seconds <= arrived
    assert 0.2 <= lane.trace.ttft <= arrived - 0.3


@pytest.mark.parametrize(
    ("script", "status", "kind", "message_", "tokens"),
    [
        (
            [b'{"error": {"message": "Incorrect key\\n<b>provided</b>."}}'],
            401,
            "application/json",
            "refused the API key (401): “Incorrect key <b>provided</b>”.",
            0,
        ),
        (
            [b'{"error": {"message": "no such model"}}'],
            404,
            "application/json",
            "does not know the model “llama” or the address asked for (404): “no such model”.",
            0,
        ),
        ([b"{}"], 503, "application/json", "is busy (503).", 0),
        ([b"oops"], 500, "text/plain", "answered with HTTP status 500.", 0),
        ([b"<html>"], 200, "text/html", "did not answer with a stream of events.", 0),
        (
            [chunk("one"), CUT],
            200,
            "text/event-stream",
            "broke off in the middle of its answer.",
            1,
        ),
        ([chunk("one")], 200, "text/event-stream", "broke off in the middle of its answer.", 1),
        (
            [chunk("one"), DONE],
            200,
            "text/event-stream",
            "broke off in the middle of its answer.",
            1,
        ),
        (
            [chunk("one"), message({"error": {"message": "out of memory"}})],
            200,
            "text/event-stream",
            "reported an error: “out of memory”.",
            1,
        ),
        (
            [chunk("one"), b"data: {]\n\n"],
            200,
            "text/event-stream",
            "sent something that is not an event of its protocol.",
            1,
        ),
        (
            [message({"choices": {"0": "a"}})],
            200,
            "text/event-stream",
            "sent something that is not an event of its protocol.",
            0,
        ),
        (
            [chunk("one"), chunk(reason="content_filter"), DONE],
            200,
            "text/event-stream",
            "ended its answer for another reason: “content_filter”.",
            1,
        ),
        ([chunk("one"), HANG], 200, "text/event-stream", "sent nothing for 0.3 seconds.", 1),
        (
            [b"data: " + b"a" * 1_100_000],
            200,
            "text/event-stream",
            "sent a line longer than 1,048,576 bytes.",
            0,
        ),
    ],
    ids="key model busy status html cut closed done error json shape reason silent long".split(),
)
def test_a_server_that_fails_ends_its_lane_with_a_reason(
    script: list, status: int, kind: str, message_: str, tokens: int
):
    with Scripted(script, status, kind) as server:
        asked = Server(server.url, "llama", timeout=0.3)
        with lane_at(asked) as lane:
            trace = run(lane).trace
    assert lane.failure == f"The server at {asked.host} {message_}"
    assert lane.clock == lane.seconds
    (clock,) = app.page.tell._clocks([lane])
    assert clock == {"kind": "clock", "lane": 0, "time": lane.seconds, "over": True}
    assert (trace.tokens, trace.finish_reason) == (tokens, None)


@pytest.mark.parametrize("protocol", ["chat", "events"])
def test_a_dead_server_leaves_the_other_lane_unharmed(protocol):
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}/v1", "llama", protocol)

    def prepare() -> list[Lane]:
        local = recorded_lane("D2F", d2f_trace(), token_text)
        return [local, remote_lane("AR", server, CHAT, CONFIG)]

    with Device() as device:
        race = Race(here(prepare), device)
        moved = [item for batch in race.batches(**FAST) for item in batch]
    assert [event for _, event in moved] == list(d2f_trace().events)
    assert race.phase == OVER
    assert race.lanes[1].failure == f"The server at 127.0.0.1:{port} cannot be reached."


def test_the_page_tells_why_a_lane_broke_off(monkeypatch: pytest.MonkeyPatch):
    script = [chunk("one"), CUT]
    with Scripted(script) as server:
        asked = Server(server.url, "llama")

        def lanes(*request: object) -> list[Lane]:
            local = recorded_lane("D2F", d2f_trace(), token_text)
            return [local, remote_lane("AR", asked, CHAT, CONFIG)]

        monkeypatch.setattr(app.page.tell, "pair_lanes", lanes)
        settings = [getattr(PAIRS["mini"].config, name) for name in app.page.tell.SETTINGS]
        told = list(tell("Count.", "mini", settings, None, Host()))
    end = told[-1].messages[-1]
    assert end["kind"] == "end"
    clocks = [m for t in told for m in t.messages if m["kind"] == "clock"]
    assert {m["lane"] for m in clocks} == {1}
    assert end["lanes"][0]["text"] == "one two three four!"
    assert end["lanes"][1]["metrics"]["finish_reason"] is None
    assert end["summary"] == (
        "AR did not finish, so speeds are not compared. AR broke off: "
        f"The server at {asked.host} broke off in the middle of its answer."
    )
    recording = told[-1].recording
    broken = Recording(recording.prompt, recording.lanes[1:], recording.verdict)
    linked = from_link(to_link(broken))
    assert linked.verdict == recording.verdict and linked.lanes[0].trace.text == "one"
    assert Recording.from_json(recording.to_json()) == recording


def test_what_was_measured_where_is_told_lane_by_lane():
    header = d2f_trace().header
    remote = ChatReader(Server("http://gpu:8000/v1", "llama"), CHAT, CONFIG).header
    here = "Measured on this machine (cpu (x86_64), float32)"
    assert machine(header, header) == machine(header)
    assert machine(header, remote) == (
        f"{here}; each lane's clock ran only while it computed. llama, client-timed at gpu:8000: "
        "seconds are those between arrivals, the network included; forwards are the pieces it "
        "streamed."
    )
    there = replace(header, device="cuda (H100)", host="gpu:8000")
    assert "on another machine (cuda (H100), at gpu:8000" in machine(there)


@pytest.mark.parametrize("kinds", [("int4", "int4"), ("int8", "int4"), ("bfloat16", "int8")])
def test_a_ratio_of_quantised_lanes_says_that_it_is_none_of_the_decoders(kinds: tuple[str, str]):
    header = d2f_trace().header
    lanes = [replace(header, versions=header.versions | {"weights": kind}) for kind in kinds]
    named = " and ".join(sorted({kind for kind in kinds if kind.startswith("int")}))
    assert machine(*lanes).endswith(
        f" Weights of {named} are for memory, not for racing: they make narrow and wide steps "
        "faster or slower by different amounts, so this ratio says nothing about the decoders."
    )
    assert "racing" not in machine(*(replace(lane, versions={}) for lane in lanes))


class Working:
    """A lane here of so many steps, each a little work."""

    def __init__(self, count: int, seconds: float) -> None:
        self.count, self.seconds = count, seconds
        header = d2f_trace().header
        self.lane = Lane("D2F", header, self.steps(), token_text, lambda ids: "")

    def steps(self) -> Iterator[StepEvent]:
        for step in range(self.count):
            time.sleep(self.seconds)
            yield StepEvent(step, self.seconds, (0, 1), ())


def test_a_lane_here_does_not_wait_for_a_slow_server():
    over = threading.Event()

    def steps() -> Iterator[StepEvent]:
        yield from Working(20, 0.001).steps()
        over.set()

    with Scripted([over, *ANSWER]) as server, lane_at(Server(server.url, "llama")) as lane:
        local = Lane("D2F", d2f_trace().header, steps(), token_text, str)
        order = [index for index, _ in merge([local, lane])]
    assert order == [0] * 20 + [1] * 4


def test_events_that_have_come_are_merged_by_their_own_time():
    script = [chunk("a"), 0.1, chunk("b"), 0.1, chunk("c"), chunk(reason="stop"), DONE]
    with Scripted(script) as server, lane_at(Server(server.url, "llama")) as lane:
        wait([lane.feed._task])
        local = Working(3, 0.06)
        order = [index for index, _ in merge([local.lane, lane])]
    again = [recorded_lane("D2F", local.lane.trace, str), recorded_lane("AR", lane.trace, str)]
    assert order == [index for index, _ in merge(again)]
    assert sorted(order) == [0] * 3 + [1] * 4


def test_stop_does_not_wait_for_a_silent_server():
    with Scripted([chunk("one"), HANG]) as server, Device() as device:
        asked = Server(server.url, "llama", timeout=60)
        race = Race(here(lambda: [remote_lane("AR", asked, CHAT, CONFIG)]), device)
        batches = race.batches(**FAST)
        while not next(batches):
            pass
        began = time.monotonic()
        race.stop()
        for _ in batches:
            pass
        assert race.phase == STOPPED
        assert server.gone.wait(2), "the server learns that nobody waits"
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("server", "message_"),
    [
        (lambda: Server("ftp://host/v1", "llama"), "must begin with http"),
        (lambda: Server("host:8000", "llama"), "must begin with http"),
        (lambda: Server("http://host:port", "llama"), "must be a URL"),
        (lambda: Server("http://host/v1"), "needs the name of a model"),
        (lambda: Server("http://host/v1", "mod\udcff"), "holds characters of no text: 'mod"),
    ],
)
def test_an_address_that_cannot_be_is_refused(server, message_: str):
    with pytest.raises(ValueError, match=message_):
        server()


def test_a_key_shows_nowhere():
    server = Server("http://user:word@host:8000/v1", "llama", key="secret")
    reader = ChatReader(server, CHAT, CONFIG)
    assert "secret" not in repr(server) and server.host == "host:8000"
    assert "secret" not in repr(reader.header) and "word" not in repr(reader.header)


# ---- d2f.serve as a lane


@pytest.fixture(scope="module", params=["d2f", "ar"])
def served(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Iterator[tuple]:
    """A model, its settings, and the address where it is served."""
    causal = request.param == "ar"
    changes = {"causal": True} if causal else {"mask_id": tokenizer.mask_id}
    net = network(tokenizer.vocab_size, max_length=256, logit_shift=True, **changes)
    model = Model(f"small-{request.param}", net, tokenizer)
    config = ARConfig(max_new_tokens=24)
    if not causal:
        config = D2FConfig(max_new_tokens=24, block_size=8, max_active_blocks=2, tau_conf=0.5)
    with serving(create_app(model, config, Options(model.name))) as url:
        yield model, config, url


def untimed(events: Sequence[StepEvent]) -> list[StepEvent]:
    return [replace(event, seconds=0.0) for event in events]


def test_a_served_run_equals_the_run_here(served: tuple):
    model, config, url = served
    here = generate(model, model.tokenizer.encode_chat(CHAT), config)
    server = Server(url, protocol="events")
    with lane_at(server, config) as lane:
        trace = run(lane).trace
    assert lane.failure == ""
    assert untimed(trace.events) == untimed(here.events)
    assert all(event.seconds > 0 for event in trace.events)
    assert (trace.text, trace.tokens, trace.finish_reason) == (
        here.text,
        here.tokens,
        here.finish_reason,
    )
    assert trace.header == replace(here.header, host=server.host)
    assert {i: lane.token_text(i) for i in trace.canvas.values()} == {
        i: model.tokenizer.token_text(i) for i in trace.canvas.values()
    }
    recording = record("Count.", [lane])
    assert Recording.from_json(recording.to_json()) == recording
    linked = from_link(to_link(recording)).lanes[0].trace
    assert linked.text == recording.lanes[0].trace.text
    assert linked.header.host == trace.header.host


def test_the_service_is_an_openai_compatible_server_too(served: tuple):
    model, config, url = served
    here = generate(model, model.tokenizer.encode_chat(CHAT), config)
    asked = ARConfig(max_new_tokens=config.max_new_tokens)
    with lane_at(Server(url, model.name), asked) as lane:
        trace = run(lane).trace
    assert lane.failure == ""
    assert (trace.text, trace.tokens, trace.finish_reason) == (
        here.text,
        here.tokens,
        here.finish_reason,
    )


def test_two_machines_can_race(served: tuple, tokenizer: Tokenizer):
    model, config, url = served
    with Scripted(ANSWER) as rival:
        servers = [Server(url, protocol="events"), Server(rival.url, "llama")]
        lanes = [
            remote_lane("D2F", servers[0], CHAT, config),
            remote_lane("AR", servers[1], CHAT, CONFIG),
        ]
        moved = list(merge(lanes))
        for lane in lanes:
            lane.close()
    assert [lane.failure for lane in lanes] == ["", ""]
    assert sum(index == 1 for index, _ in moved) == 4


def test_a_refusal_of_the_service_is_told(served: tuple):
    model, config, url = served
    server = Server(url, protocol="events")
    with lane_at(server, replace(config, max_new_tokens=300)) as lane:
        run(lane)
    assert lane.failure.startswith(
        f"The server at {server.host} answered with HTTP status 400: “the prompt's "
    )
    with Scripted([message({"event": {}, "texts": []})]) as odd:
        with lane_at(Server(odd.url, protocol="events"), config) as lane:
            assert run(lane).failure.endswith("broke off in the middle of its answer.")


def test_events_that_are_not_of_the_run_are_refused(served: tuple):
    model, config, url = served
    header = replace(generate(model, [5], config), events=()).to_json()
    step = {"step": 0, "seconds": 0.1, "window": [0, 1], "blocks": [], "cache_length": 0}
    step |= {"finish_reason": None, "commits": [[5000, 7, 0.5, 0]]}
    told = json.dumps({"event": step, "texts": [[7, "x"]]})
    script = f"event: header\ndata: {header}\n\nevent: step\ndata: {told}\n\n".encode()
    with Scripted([script]) as odd, lane_at(Server(odd.url, protocol="events"), config) as lane:
        assert run(lane).failure.endswith("sent something that is not an event of its protocol.")


def test_a_service_may_cut_a_character_between_two_tokens(served: tuple):
    model, config, url = served
    header = replace(generate(model, [5], config), events=()).to_json()
    start = len(json.loads(header)["header"]["prompt_ids"])

    def step(number: int, reason: str | None) -> bytes:
        event = {"step": number, "seconds": 0.1, "window": [0, 1], "blocks": [], "cache_length": 0}
        event |= {"finish_reason": reason, "commits": [[start + number, number, 0.5, 0]]}
        told = json.dumps({"event": event, "texts": [[number, HALVES[number]]]})
        return f"event: step\ndata: {told}\n\n".encode()

    head = f"event: header\ndata: {header}\n\nevent: ping\ndata:\n\n".encode()
    steps = [step(0, None), step(1, "stop")]
    for end, text in (
        ([f"event: end\ndata: {json.dumps({'text': HALVES[0]})}\n\n".encode()], "\ufffd"),
        ([], "😀"),
    ):
        with Scripted([head, *steps, *end]) as odd:
            with lane_at(Server(odd.url, protocol="events"), config) as lane:
                run(lane)
        assert lane.trace.text == text
        assert [lane.token_text(i) for i in lane.trace.token_ids] == ["\ufffd", "\ufffd"]
        assert bool(lane.failure) == (not end)
        recording = record("Count.", [lane])
        assert recording.lanes[0].trace.text == text


@pytest.mark.parametrize("text", [None, 5, ["a"]])
def test_a_token_whose_text_is_none_is_refused(served: tuple, text: object):
    model, config, url = served
    header = replace(generate(model, [5], config), events=()).to_json()
    told = json.dumps({"event": {}, "texts": [[1, text]]})
    script = f"event: header\ndata: {header}\n\nevent: step\ndata: {told}\n\n".encode()
    with Scripted([script]) as odd, lane_at(Server(odd.url, protocol="events"), config) as lane:
        assert run(lane).failure.endswith("sent something that is not an event of its protocol.")


def test_a_pair_races_with_one_lane_elsewhere(
    tmp_path, tokenizer_folder, monkeypatch: pytest.MonkeyPatch
):
    from folders import save_models

    from app.conversation import Conversation
    from app.lanes.lane import Question

    root = save_models(tmp_path, tokenizer_folder)
    small = replace(PAIRS["mini"], d2f=str(root / "mini-d2f"), ar=str(root / "mini-ar"))
    config = D2FConfig(max_new_tokens=16, block_size=8)
    with Scripted(ANSWER) as server:
        pair = rival_pair(small, {"ar": Server(server.url, "llama")})
        question = Question(pair, "Count.", config, Conversation(pair.name))
        lanes = pair_lanes(question, Host())
        list(merge(lanes))
        for lane in lanes:
            lane.close()
    warm_model.cache_clear()
    assert [lane.name for lane in lanes] == ["D2F", "AR"]
    assert [lane.trace.tokens for lane in lanes] == [16, 4] or lanes[0].trace.finish_reason
    assert server.asked[0][2]["messages"] == CHAT
    assert server.asked[0][2]["max_tokens"] == 16


def test_a_closed_lane_leaves_no_thread():
    before = threading.active_count()
    with Scripted([HANG]) as server:
        for _ in range(3):
            with lane_at(Server(server.url, "llama")):
                pass
    assert threading.active_count() <= before + 3, "the server's own may still be ending"


def test_a_service_that_does_not_begin_ends_its_own_lane_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.lanes.lane.BEGIN", 0.1)
    with Scripted([HANG]) as server:
        slow = remote_lane("AR", Server(server.url, protocol="events"), CHAT, CONFIG)
        lanes = [recorded_lane("D2F", d2f_trace(), token_text), slow]
        moved = [index for index, _ in merge(lanes)]
        assert moved == [0, 0, 0] and lanes[0].finished
        assert "did not begin in 0.1 seconds" in slow.failure
        slow.close()


def test_a_slow_server_uses_up_the_budget_alone():
    with Scripted([chunk("one"), HANG]) as server, Device() as device:
        asked = Server(server.url, "llama")

        def lanes() -> list[Lane]:
            local = recorded_lane("D2F", d2f_trace(), token_text)
            return [local, remote_lane("AR", asked, CHAT, CONFIG)]

        race = Race(here(lanes), device, budget=1.0)
        moved = [index for batch in race.batches(0.0, 0.01) for index, _ in batch]
        assert moved.count(0) == 3 and race.phase == OVER and race.lanes[0].finished
        assert "after 1 s, the longest" in race.lanes[1].failure
