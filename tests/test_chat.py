"""What OpenAI-compatible servers and gateways stream, well and badly, from a real small server."""

import json
import threading
from typing import Any

import pytest
from asking import CHAT, CONFIG, answered, answered_by, lane_at, run
from races import d2f_trace, token_text
from servers import CUT, DONE, HANG, Part, Scripted, chunk, counts, message

import app.page.charts
import app.page.tell
from app.lanes.chat import FAR
from app.lanes.lane import Host, Lane, recorded_lane, remote_lane
from app.lanes.server import Server
from app.page.messages import pack_messages, pack_now, sound
from app.page.reducer import machine
from app.page.tell import tell
from app.recordings.link import from_link, to_link
from app.recordings.recording import Recording, record
from d2f import ARConfig
from d2f.catalogue.pairs import PAIRS

WORDS = ["Hello", " there", ",", " you", "?"]
TEXT = "Hello there, you?"
ENDED = chunk(reason="stop")
PLAIN = [*map(chunk, WORDS), ENDED]


def raw(text: bytes) -> bytes:
    """A chunk whose content is these bytes as they are."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"' + text + b'"}}]}\n\n'


def said(delta: Any, reason: Any = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason} | more
    return message({"choices": [choice]})


def escaped(*pieces: str) -> list[bytes]:
    """Chunks in JSON's escapes, which can hold half a character."""
    return [
        f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n".encode()
        for piece in pieces
    ]


# ---- pieces that are no text by themselves


@pytest.mark.parametrize(
    ("pieces", "text", "tokens"),
    [
        (escaped("a\ud83d", "\ude00b"), "a😀b", 3),
        (escaped("\ud83d", "\ude00"), "😀", 3),
        (escaped("a\ud83d", "b"), "a\ufffdb", 3),
        (escaped("a\ude00", "b"), "a\ufffdb", 3),
        (escaped("a\ud83d"), "a\ufffd", 2),
        (escaped("\ud83d", "\ud83d", "\ude00"), "\ufffd😀", 4),
        ([raw(b"ok \xf0\x9f"), raw(b" more")], "ok \ufffd more", 3),
        ([raw(b"ok \xf0\x9f"), raw(b"\x98\x80")], "ok 😀", 3),
        ([raw(bytes([byte])) for byte in "é😀€".encode()], "é😀€", 10),
        ([raw(b"\xed\xa0\xbd"), raw(b"\xed\xb8\x80")], "😀", 3),
        ([raw(b"\xff"), raw(b"\xfe!")], "\ufffd\ufffd!", 3),
    ],
)
def test_parts_of_a_character_are_joined_or_marked(pieces: list[bytes], text: str, tokens: int):
    lane = answered([*pieces, ENDED, DONE], ARConfig(max_new_tokens=16))
    assert (lane.failure, lane.trace.text, lane.trace.tokens) == ("", text, tokens)
    assert lane.answer == text
    recording = record("Count.", [lane])
    assert recording.lanes[0].trace.text == text
    assert Recording.from_json(recording.to_json()) == recording
    assert from_link(to_link(recording)).lanes[0].trace.text == text


def test_a_part_of_a_character_that_waited_is_told_when_the_answer_breaks_off():
    lane = answered([*escaped("one", " tw\ud83d"), CUT])
    assert lane.trace.text == "one tw\ufffd" and lane.trace.tokens == 2
    assert lane.failure.endswith("broke off in the middle of its answer.")


def test_thoughts_and_answer_do_not_share_a_character():
    thought = json.dumps({"choices": [{"delta": {"reasoning": "hm\ud83d"}}]})
    lane = answered([f"data: {thought}\n\n".encode(), *escaped("\ude00yes"), ENDED, DONE])
    assert lane.trace.text == "<think>\nhm\ufffd\n</think>\n\n\ufffdyes"
    assert lane.answer == "\ufffdyes"


def test_words_of_an_error_may_be_cut_as_well():
    told = json.dumps({"error": {"message": "no \ud83d room\ud83d\ude00"}})
    lane = answered([f"data: {told}\n\n".encode()])
    assert lane.failure.endswith("reported an error: “no \ufffd room😀”.")
    lane = answered([b'data: {"error": "no \xf0\x9f room"}\n\n'])
    assert lane.failure.endswith("reported an error: “no \ufffd room”.")


# ---- what is no business of a reader of text


@pytest.mark.parametrize(
    "extra",
    [
        message({"usage": {"completion_tokens": 6}}),
        message({"choices": None, "usage": {"completion_tokens": 6}}),
        message({"choices": [], "prompt_filter_results": [{}]}),
        message({"choices": [None]}),
        message({"choices": [{"index": 0}]}),
        message({"choices": [{"delta": None}]}),
        message({"choices": [{"delta": {"role": "assistant", "content": None}}]}),
        said({"content": ""}, ""),
        said({"content": []}, None),
        said({}, "null"),
        message({"error": None, "choices": []}),
        message({"error_code": 0, "object": "ping"}),
        message(None),
        message([1]),
        message("ping"),
        b"data:\n\n",
        b"data: \n\n",
        b"data: keep-alive\n\n",
        b": still working\n\n",
        b"event: ping\n\n",
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b"event: ping\ndata: {no json}\n\n",
        b'event: status\ndata: {"choices": [{"delta": {"content": "loading"}}]}\n\n',
        b"id: 7\nretry: 1000\n\n",
        message({"usage": []}),
        message({"usage": [1]}),
        message({"usage": {"completion_tokens": None}}),
        message({"usage": {"completion_tokens": "many"}}),
        message({"usage": {"completion_tokens": 10**30}}),
    ],
)
def test_chunks_without_text_are_skipped_wherever_they_stand(extra: bytes):
    for script in ([extra, *PLAIN], [*PLAIN[:2], extra, *PLAIN[2:]], [*PLAIN, extra]):
        lane = answered([*script, DONE])
        assert (lane.failure, lane.trace.text, lane.trace.tokens) == ("", TEXT, 6)
        assert lane.trace.finish_reason == "stop"


NO_EVENT = "sent something that is not an event of its protocol."


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (said({"content": 5}), NO_EVENT),
        (
            said({"content": [{"type": "text", "text": 5}]}),
            "sent something that is not an event of its protocol.",
        ),
        (said({"reasoning": True}), NO_EVENT),
        (message({"choices": "text"}), NO_EVENT),
        (said("text"), NO_EVENT),
        (
            b'data: {"choices": [{"delta": {"content": "a\n\n',
            "sent something that is not an event of its protocol.",
        ),
        (b"data: " + b'{"a":' * 50_000 + b"\n\n", NO_EVENT),
        (said({}, "tool_calls"), "ended its answer for another reason: “tool_calls”."),
        (said({}, "SAFETY"), "ended its answer for another reason: “SAFETY”."),
    ],
)
def test_what_should_hold_text_and_is_broken_is_an_error(broken: bytes, reason: str):
    lane = answered([chunk("one"), broken, DONE])
    assert lane.failure.endswith(reason) and lane.trace.text == "one"


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ([message({"object": "error", "message": "out of memory", "code": 500})], "out of memory"),
        ([message({"type": "error", "error": {"message": "Overloaded"}})], "Overloaded"),
        ([message({"error": "queue full"})], "queue full"),
        ([message({"error": True, "message": "queue full"})], "queue full"),
        ([message({"error": {"error": {"message": "engine died"}}})], "engine died"),
        ([message({"error_code": 50002, "text": "network error"})], "network error"),
        ([b'event: error\ndata: {"message": "engine died"}\n\n'], "engine died"),
        ([b"event: error\ndata: engine died\n\n"], "engine died"),
        ([said({}, "error", error={"message": "engine died"})], "engine died"),
        ([message([{"error": {"message": "queue full"}}])], "queue full"),
        ([message({"error": [{"msg": "queue full"}]})], "queue full"),
    ],
)
def test_errors_of_any_shape_keep_their_words(script: list[bytes], failure: str):
    lane = answered([chunk("one"), *script, DONE])
    assert lane.failure.endswith(f"reported an error: “{failure}”.")
    assert lane.trace.text == "one"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        *((each, "stop") for each in ("stop", "STOP", "eos", "eos_token", "EOS_TOKEN", "end_turn")),
        *((each, "stop") for each in ("stop_sequence", "stop-sequence", "COMPLETE", " stop ")),
        *((each, "stop") for each in ("FINISH_REASON_STOP", {"type": "stop", "matched": 2})),
        *((each, "length") for each in ("length", "max_tokens", "MAX_TOKENS", "model_length")),
        *((each, "length") for each in ("incomplete", {"type": "length", "length": 5})),
    ],
)
def test_reasons_of_gateways_are_ours_in_any_case(told: Any, reason: str):
    lane = answered([*PLAIN[:-1], said({}, told), DONE])
    assert (lane.failure, lane.trace.finish_reason) == ("", reason)
    assert (lane.trace.text, lane.trace.tokens) == (TEXT, 6 if reason == "stop" else 5)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ([b.replace(b"\n", b"\r") for b in [*PLAIN, DONE]], TEXT),
        ([*PLAIN[:-1], ENDED.rstrip(b"\n")], TEXT),
        ([b"\xef\xbb\xbf" + PLAIN[0], *PLAIN[1:], DONE], TEXT),
        ([b[:-1] for b in [*PLAIN, DONE]], TEXT),
        (
            [
                b'event: completion\ndata: {"object": "chat.completion.chunk", "choices": '
                b'[{"delta": {"content": "Hello"}, "finish_reason": "stop"}]}\n\n'
            ],
            "Hello",
        ),
        ([*PLAIN[:-1], said({}, "stop", message={"content": TEXT}), DONE], TEXT),
        ([message({"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]})], TEXT),
        ([message({"choices": [{"text": TEXT, "finish_reason": "stop"}]}), DONE], TEXT),
        ([said({"content": [{"type": "text", "text": TEXT}]}, "stop"), DONE], TEXT),
        (
            [said({"content": ["Hello", {"text": " there"}, {"type": "image_url"}]}, "stop")],
            "Hello there",
        ),
        ([said({"content": None, "refusal": "I cannot."}, "stop"), DONE], "I cannot."),
        ([*PLAIN, b"data:[DONE] \n\n"], TEXT),
        ([*PLAIN, b"event: done\ndata: [DONE]\n\n"], TEXT),
    ],
    ids="cr unended bom lines kind both message text parts mixed refusal done done-kind".split(),
)
def test_other_ways_to_say_the_same_are_read(script: list[bytes], text: str):
    lane = answered(script)
    assert (lane.failure, lane.trace.text, lane.trace.finish_reason) == ("", text, "stop")


@pytest.mark.parametrize("rest", [[], [counts(4)]])
@pytest.mark.parametrize("end", [HANG, CUT])
def test_a_whole_answer_does_not_wait_for_a_connection_to_end_well(
    rest: list[Part], end: Part, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.lanes.remote.GRACE", 0.2)
    lane = answered([*PLAIN, *rest, end])
    assert (lane.failure, lane.trace.text, lane.trace.finish_reason) == ("", TEXT, "stop")
    assert lane.trace.tokens == (4 if rest else 6) and lane.seconds < 0.2


@pytest.mark.parametrize("end", [HANG, CUT])
def test_text_behind_a_reason_to_end_is_waited_for(end: Part, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.lanes.remote.GRACE", 0.2)
    with Scripted([chunk("one", "stop"), 0.05, chunk(" two"), 0.4, end]) as server:
        asked = Server(server.url, "llama", timeout=0.8)
        with lane_at(asked) as lane:
            assert run(lane).failure
    assert lane.trace.text == "one two"


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "Text/Event-Stream"])
def test_a_stream_may_be_called_what_it_likes(kind: str):
    with Scripted([*PLAIN, DONE], kind=kind) as server:
        assert answered_by(server).trace.text == TEXT


def test_an_error_in_place_of_a_stream_keeps_its_words():
    said_ = b'{"error": {"message": "the model is loading"}}'
    with Scripted([said_], kind="application/json; charset=utf-8") as server:
        lane = answered_by(server)
    assert lane.failure.endswith("did not answer with a stream of events: “the model is loading”.")


# ---- tokens are those the server counts


@pytest.mark.parametrize("reason", ["stop", "length"])
@pytest.mark.parametrize("tokens", [1, 2, 7, 19, 20, 21, 40])
@pytest.mark.parametrize("limit", [8, 64])
def test_every_figure_is_by_the_servers_own_count(reason: str, tokens: int, limit: int):
    letters = "abcdefghijklmnopqrst"
    script = [0.05, *map(chunk, letters), chunk(reason=reason), counts(tokens), DONE]
    lane = answered(script, ARConfig(max_new_tokens=limit))
    trace = lane.trace
    assert (lane.failure, trace.text, trace.finish_reason) == ("", letters, reason)
    assert trace.tokens == trace.forwards == tokens and trace.tokens_per_forward == 1
    assert trace.seconds == pytest.approx(lane.seconds) and trace.seconds > 0.05
    assert trace.tokens_per_second == pytest.approx(tokens / lane.seconds)
    recording = record("Count.", [lane])
    assert Recording.from_json(recording.to_json()).lanes[0].trace.metrics == trace.metrics
    assert app.page.charts.figures(recording)[0].data[0].y[-1] == tokens
    assert trace.header.counted
    assert "tokens are those it counted" in machine(trace.header)
    if reason == "stop" or tokens >= limit:
        linked = from_link(to_link(recording)).lanes[0].trace
        assert (linked.tokens, linked.forwards, linked.text) == (tokens, tokens, letters)
        assert linked.seconds == pytest.approx(trace.seconds, rel=0.05)
    shown = [lane.token_text(i) for i in trace.token_ids if i not in trace.header.stop_ids]
    assert tokens == 1 and reason == "stop" or "".join(shown) == letters


def test_times_of_pieces_add_up_in_their_token():
    script = [0.1, chunk("a"), chunk("b"), 0.1, chunk("c"), chunk("d"), ENDED, counts(3), DONE]
    lane = answered(script)
    assert [lane.token_text(i) for i in lane.trace.token_ids] == ["ab", "cd", "<stop>"]
    first, second, stop = (event.seconds for event in lane.trace.events)
    assert first >= 0.1 and second >= 0.09 and stop < 0.09
    assert lane.trace.ttft == first


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ([message({"usage": {"completion_tokens": "3"}})], 3),
        ([message({"choices": [], "x_groq": {"usage": {"completion_tokens": 3}}})], 3),
        ([said({}, None, usage={"completion_tokens": 3})], 3),
        ([chunk(choices=[], usage={"completion_tokens": n}) for n in (1, 2, 3)], 3),
        ([counts(3), message({"usage": None}), counts(0)], 3),
        ([counts(0)], 6),
        ([message({"usage": {"prompt_tokens": 3}})], 6),
    ],
)
def test_the_count_is_found_where_servers_put_it(told: list[bytes], tokens: int):
    for script in ([*PLAIN, *told, DONE], [*PLAIN[:-1], *told, ENDED, DONE]):
        assert answered(script).trace.tokens == tokens


def test_without_a_count_an_answer_has_no_more_tokens_than_were_asked_for():
    lane = answered([*map(chunk, "abcdefghijkl"), ENDED, DONE])
    assert (lane.trace.tokens, lane.trace.text) == (8, "abcdefghijkl")
    assert lane.trace.header.config == CONFIG
    assert lane.trace.finish_reason == "stop"
    assert "forwards are the pieces it streamed" in machine(lane.trace.header)


def test_a_server_without_end_is_cut_off_far_beyond_what_was_asked_for():
    config = ARConfig(max_new_tokens=2)
    lane = answered([*[chunk("a")] * (2 * FAR + 50), chunk("end", "stop"), DONE], config)
    assert lane.trace.text == "a" * 2 * FAR
    assert (lane.trace.tokens, lane.trace.finish_reason) == (2, "length")


def test_an_answer_that_breaks_off_beyond_what_was_asked_for_can_be_kept():
    lane = answered([*map(chunk, "abcdefghijkl"), CUT])
    assert (lane.trace.tokens, lane.trace.text) == (8, "abcdefghijkl")
    recording = record("Count.", [lane])
    assert Recording.from_json(recording.to_json()) == recording


def told_by(script: list[Part], monkeypatch: pytest.MonkeyPatch) -> list[app.page.tell.Told]:
    """A race on the page against a server with this script."""
    with Scripted(script) as server:

        def lanes(*request: object) -> list[Lane]:
            local = recorded_lane("D2F", d2f_trace(), token_text)
            return [local, remote_lane("AR", Server(server.url, "llama"), CHAT, CONFIG)]

        monkeypatch.setattr(app.page.tell, "pair_lanes", lanes)
        settings = [getattr(PAIRS["mini"].config, name) for name in app.page.tell.SETTINGS]
        return list(tell("Count.", "mini", settings, None, Host()))


def test_the_board_shows_the_run_as_it_was_counted(monkeypatch: pytest.MonkeyPatch):
    told = told_by([*map(chunk, "abcdefghijkl"), ENDED, counts(4), DONE], monkeypatch)
    end = told[-1].messages[-1]
    local, remote = end["lanes"]
    assert local.keys() == {"metrics", "text"}
    assert remote["metrics"]["tokens"] == 4 and remote["text"] == "abcdefghijkl"
    assert [row[1] for step in remote["steps"] for row in step["commits"]] == [
        "abcd", "efgh", "ijkl", "<stop>",
    ]  # fmt: skip
    assert remote["steps"][-1]["tokens"] == remote["steps"][-1]["forwards"] == 4
    assert remote["steps"][-1]["time"] == pytest.approx(remote["metrics"]["seconds"])
    assert remote["start"]["capacity"] == 8
    assert "tokens are those it counted" in end["note"]


def test_no_message_of_the_page_holds_half_a_character(monkeypatch: pytest.MonkeyPatch):
    told = told_by([*escaped("a\ud83d", "b\ude00", "\ud83d", "\ude00"), ENDED, DONE], monkeypatch)
    for each in told:
        packed = pack_messages("run", 0, each.messages)
        packed.encode()
        assert json.loads(packed)["messages"] == sound(each.messages)
    assert told[-1].messages[-1]["lanes"][1]["text"] == "a\ufffdb\ufffd😀"
    packed = pack_now([{"kind": "error", "text": "\ud83d"}])
    assert json.loads(packed)["messages"][0]["text"] == "\ufffd"


# ---- thoughts


@pytest.mark.parametrize(
    ("deltas", "text"),
    [
        (
            [{"reasoning_content": "Let", "content": None}, {"reasoning_content": " me"},
             {"content": "Yes"}, {"content": ".", "reasoning_content": None}],
            "<think>\nLet me\n</think>\n\nYes.",
        ),
        ([{"reasoning": "Let me", "content": "Yes."}], "<think>\nLet me\n</think>\n\nYes."),
        (
            [{"reasoning": "Let me", "reasoning_content": "Let me"}, {"content": "Yes."}],
            "<think>\nLet me\n</think>\n\nYes.",
        ),
        (
            [{"reasoning": "Let me",
              "reasoning_details": [{"type": "reasoning.text", "text": "Let me"}]},
             {"content": "Yes."}],
            "<think>\nLet me\n</think>\n\nYes.",
        ),
        (
            [{"reasoning_details": [{"type": "reasoning.summary", "summary": "Let me"},
                                    {"type": "reasoning.encrypted", "data": "x"}]},
             {"content": "Yes."}],
            "<think>\nLet me\n</think>\n\nYes.",
        ),
        (
            [{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Let me"}]},
                          {"type": "text", "text": "Yes."}]}],
            "<think>\nLet me\n</think>\n\nYes.",
        ),
        (
            [{"content": "Yes"}, {"reasoning": "Let me"}, {"content": "."}],
            "Yes\n\n<think>\nLet me\n</think>\n\n.",
        ),
        ([{"reasoning": "use </think>"}, {"content": "Yes."}],
         "<think>\nuse </think>\n</think>\n\nYes."),
        ([{"content": "<think>Let"}, {"content": " me</thi"}, {"content": "nk>\n\nYes."}],
         "<think>Let me</think>\n\nYes."),
        ([{"content": "Let me\n</think>\n"}, {"content": "Yes."}], "Let me\n</think>\nYes."),
    ],
)  # fmt: skip
def test_thoughts_are_shown_apart_and_are_no_part_of_the_answer(deltas: list[dict], text: str):
    lane = answered([*map(said, deltas), ENDED, DONE])
    assert (lane.failure, lane.trace.text, lane.answer) == ("", text, "Yes.")
    shown = [lane.token_text(i) for i in lane.trace.token_ids if i not in lane.header.stop_ids]
    assert "".join(shown) == text


def test_an_answer_that_is_all_thought_says_nothing():
    lane = answered([said({"reasoning": "Let me"}), chunk(reason="length"), DONE])
    assert (lane.trace.text, lane.answer) == ("<think>\nLet me", "")


def test_verdict_and_next_turn_know_the_answer_alone(monkeypatch: pytest.MonkeyPatch):
    script = [said({"reasoning": "is it 7?"}), chunk("one two three four!"), ENDED, DONE]
    judged: list[Any] = []
    monkeypatch.setattr(app.page.tell, "verdict", lambda *asked: judged.append(asked[2]) or "")
    told = told_by(script, monkeypatch)
    assert judged == [["one two three four!"] * 2]
    local, remote = told[-1].messages[-1]["lanes"]
    assert "spoken" not in local and local["text"] == "one two three four!"
    assert remote["spoken"] == "one two three four!"
    assert told[-1].recording.lanes[1].trace.text.startswith("<think>\nis it 7?\n</think>\n\n")


# ---- servers that say what they want


def strict(*known: str) -> Any:
    """Refuses the first field that is not known, as pydantic does."""

    def refuse(body: dict[str, Any]) -> tuple[int, Any] | None:
        for name in body:
            if name not in ("model", "messages", "stream", *known):
                return 422, {"detail": [{"loc": ["body", name], "msg": "Extra inputs"}]}
        return None

    return refuse


def newer(body: dict[str, Any]) -> tuple[int, Any] | None:
    """As OpenAI's newer models: another name for the limit, and no temperature but 1."""
    if "max_tokens" in body:
        text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        return 400, {"error": {"message": f"{text}'max_completion_tokens'.", "param": "max_tokens"}}
    if body.get("temperature") == 0:
        text = "Unsupported value: 'temperature' does not support 0 with this model."
        return 400, {
            "error": {"message": text, "param": "temperature", "code": "unsupported_value"}
        }
    return None


def in_words(status: int, *texts: str) -> Any:
    """Refuses in words alone, in turn, for as long as a field of the text is there."""

    def refuse(body: dict[str, Any]) -> tuple[int, Any] | None:
        wrong = next((text for name, text in zip(texts[::2], texts[1::2], strict=True)
                      if name in body), None)  # fmt: skip
        return (status, wrong) if wrong else None

    return refuse


@pytest.mark.parametrize(
    ("refuse", "asked", "told"),
    [
        (
            newer,
            {"max_completion_tokens": 8, "seed": 0, "top_p": 1.0,
             "stream_options": {"include_usage": True}},
            "with max_completion_tokens, at its own temperature",
        ),
        (
            strict("max_tokens", "temperature", "top_p"),
            {"max_tokens": 8, "temperature": 0.0, "top_p": 1.0},
            "without stream_options, without seed",
        ),
        (
            strict("max_completion_tokens"),
            {"max_completion_tokens": 8},
            "without stream_options, with max_completion_tokens, at its own temperature, "
            "without top_p, without seed",
        ),
        (
            in_words(422, "seed", "unknown field `seed`, expected one of `model`, `temperature`"),
            {"max_tokens": 8, "temperature": 0.0, "top_p": 1.0,
             "stream_options": {"include_usage": True}},
            "without seed",
        ),
        (
            in_words(400, "top_p", "`temperature` and `top_p` cannot both be specified."),
            {"max_tokens": 8, "temperature": 0.0, "seed": 0,
             "stream_options": {"include_usage": True}},
            "without top_p",
        ),
    ],
)  # fmt: skip
def test_a_server_that_names_a_field_is_asked_again_and_it_is_told(
    refuse: Any, asked: dict[str, Any], told: str
):
    with Scripted([*PLAIN, DONE], refuse=refuse) as server:
        lane = answered_by(server)
        host = Server(server.url, "llama").host
    assert (lane.failure, lane.trace.text, lane.trace.tokens) == ("", TEXT, 6)
    *_, (_, _, body) = server.asked
    assert body == {"model": "llama", "messages": CHAT, "stream": True, **asked}
    header = lane.trace.header
    assert header.model == f"llama, client-timed at {host}, asked {told}"
    assert header.model in machine(header)
    assert record("Count.", [lane]).lanes[0].trace.header.model == header.model


def test_only_the_last_request_is_on_the_clock():
    def slow(body: dict[str, Any]) -> tuple[int, Any] | None:
        if "seed" not in body:
            return None
        threading.Event().wait(0.3)
        return 400, {"error": {"param": "seed", "message": "no"}}

    with Scripted([*PLAIN, DONE], refuse=slow) as server:
        assert answered_by(server).trace.seconds < 0.3


@pytest.mark.parametrize(
    ("status", "said_", "failure", "requests"),
    [
        (400, {"error": {"param": "messages", "message": "drop the seed"}}, "drop the seed", 1),
        (400, {"error": {"message": "max_tokens is too big: 8"}}, "max_tokens is too big: 8", 1),
        (400, {"message": {"detail": [{"loc": ["body", "model"], "msg": "Unknown"}]}},
         "model: Unknown", 1),
        (422, {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "Bad role"},
                          {"loc": ["body", "n"], "msg": "Missing"}]},
         "messages.0.role: Bad role; n: Missing", 1),
        (422, {"detail": "Not today."}, "Not today", 1),
        (400, [{"error": {"code": 400, "message": "Invalid JSON payload."}}],
         "Invalid JSON payload", 1),
        (400, {"errors": [{"message": "No account"}], "success": False}, "No account", 1),
        (422, "unknown variant `assistant`", "unknown variant `assistant`", 1),
        (400, {"error": {"param": "seed", "message": "never"}}, "never", 2),
    ],
)  # fmt: skip
def test_a_refusal_that_names_no_such_field_is_told_in_its_words(
    status: int, said_: Any, failure: str, requests: int
):
    with Scripted([*PLAIN, DONE], refuse=lambda body: (status, said_)) as server:
        lane = answered_by(server)
    assert lane.failure.endswith(f"answered with HTTP status {status}: “{failure}”.")
    assert len(server.asked) == requests


def test_a_service_of_events_is_never_asked_for_another_run():
    refused = 400, {"error": {"param": "seed", "message": "no seed"}}
    with Scripted([], refuse=lambda body: refused) as server:
        lane = remote_lane("AR", Server(server.url, protocol="events"), CHAT, CONFIG)
        assert lane.advance() is None
        lane.close()
    assert lane.failure.endswith("answered with HTTP status 400: “no seed”.")
    assert len(server.asked) == 1


def test_a_long_name_leaves_room_for_what_was_changed():
    with Scripted([*PLAIN, DONE], refuse=newer) as server:
        asked = Server(server.url, "models/" + "x" * 300)
        lane = remote_lane("AR", asked, CHAT, CONFIG)
        while lane.advance():
            pass
        lane.close()
    model = record("Count.", [lane]).lanes[0].trace.header.model
    assert len(model) == 200 and model.startswith("models/xxx") and "…, client-timed" in model
    assert model.endswith("at its own temperature")
