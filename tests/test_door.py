"""One visitor against all others: what is let in, what waits, what stays, what is logged."""

import gc
import logging
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from reprlib import repr as shown
from threading import Event
from typing import Any
from uuid import uuid4

import gradio as gr
import httpx
import pytest
from sites import Site, running_site, told

from app.door.brief import Brief, cut
from app.door.door import MAX_BODY, MAX_FILE, Door
from app.door.sessions import state_bytes
from app.page.quota import Quota
from app.race import DEVICE

pytestmark = pytest.mark.filterwarnings("ignore:.*(no_silent_downcasting|copy keyword).* is depre")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), tokenizer_folder) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """A page that nobody else visits; what a test leaves in the queue is forgotten at its end."""
    yield running
    running.line.patience = 0.0
    until(lambda: not running.queue.event_ids_to_events)
    running.line.patience = 10.0


@pytest.fixture
def busy() -> Iterator[None]:
    """Runs wait in line as long as the test goes on."""
    over = Event()
    DEVICE.submit(over.wait, 60)
    yield
    over.set()


def until(true: Callable[[], Any], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def refused(response: httpx.Response, status: int, text: str) -> None:
    assert (response.status_code, response.json()) == (status, {"error": text, "detail": text})


# ---- the queue


def joined(site: Site, times: int, session: str | None = None) -> Counter[tuple[int, str]]:
    """How often joins that nobody listens to were answered so."""
    answers = (site.join("run", site.form("run"), session) for _ in range(times))
    return Counter((each.status_code, each.json().get("error", "")) for each in answers)


def is_panel(function: Any) -> bool:
    return all(isinstance(output, gr.Plot) for output in function.outputs)


@pytest.mark.usefixtures("busy")
def test_joins_that_nobody_listens_to_take_no_place_of_others(site: Site) -> None:
    text = (
        "8 requests from your address wait, and nobody listens to them, the limit. "
        "Try again when one of them has ended."
    )
    assert joined(site, 64) == {(200, ""): 8, (429, text): 56}
    other = site.visitor("127.0.0.2")
    with other.client:
        assert other.client.get("/").status_code == 200
        assert told(other.call("open", ["", None]).json()["data"][0]) == []
        panels = [fn for fn in site.demo.fns.values() if fn.outputs and is_panel(fn)]
        assert len(panels) == 3
        for panel in panels:
            assert other.call(panel.api_name, other.form(panel.api_name)).status_code == 200
        session = uuid4().hex
        assert other.join("run", other.form("run"), session).status_code == 200
        with other.client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as line:
            waits = next(each for each in line.iter_lines() if "Waiting: " in each)
    assert "Waiting: " in waits and "runs of other visitors before yours." in waits


@pytest.mark.usefixtures("busy")
def test_a_session_has_a_few_places(site: Site) -> None:
    text = (
        "8 requests of this session are under way or wait, the limit. "
        "Try again when one of them has ended."
    )
    assert joined(site, 20, "me") == {(200, ""): 8, (429, text): 12}
    bodies = [{"data": ["Hello", "mini-ar", 8, 0, 0], "session_hash": "me"}] * 2
    for body in bodies:
        refused(site.post("call/generate", body), 429, text)


@pytest.mark.usefixtures("busy")
def test_an_address_of_a_proxy_keeps_the_latest_joins(site: Site) -> None:
    proxy = site.visitor("127.0.0.1", **{"x-forwarded-for": "10.1.2.3"})
    with proxy.client:
        sessions = [f"visitor-{number}" for number in range(20)]
        for session in sessions:
            assert proxy.join("run", site.form("run"), session).status_code == 200
        waiting = {event.session_hash for event in site.queue.event_ids_to_events.values()}
    assert waiting >= set(sessions[-8:])
    until(lambda: len(site.queue.event_ids_to_events) == 8, 5)


@pytest.mark.usefixtures("busy")
def test_an_address_has_no_more_places_however_many_listen(site: Site) -> None:
    text = (
        "16 requests from your address are under way or wait, the limit. "
        "Try again when one of them has ended."
    )
    with ExitStack() as heard:
        for number in range(16):
            heard.enter_context(site.line.listening(f"heard-{number}"))
            joins = site.join("run", site.form("run"), f"heard-{number}")
            assert joins.status_code == 200
        refused(site.join("run", site.form("run")), 429, text)


@pytest.mark.usefixtures("busy")
def test_what_nobody_listens_to_is_forgotten_in_seconds(site: Site) -> None:
    site.line.patience = 0.5
    event = site.post("call/generate", {"data": ["Hello", "mini-ar", 8, 0, 0]}).json()["event_id"]
    assert joined(site, 3) == {(200, ""): 3}
    queue = site.queue
    assert len(queue.event_ids_to_events) == 4
    until(lambda: not queue.event_ids_to_events, 6)
    until(lambda: not queue.pending_messages_per_session)
    assert not queue.pending_event_ids_session and not site.demo.app.iterators
    gone = "There is no such event, or nobody listened in time."
    refused(site.client.get(f"/gradio_api/call/generate/{event}"), 404, gone)


def test_a_run_that_somebody_listens_to_goes_on_however_long(site: Site) -> None:
    site.line.patience = 0.2
    over, sent, session = Event(), [], uuid4().hex
    DEVICE.submit(over.wait, 60)
    assert site.join("run", site.form("run"), session).status_code == 200
    with site.client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream.iter_lines():
            sent.append(line)
            if line.count("Waiting: ") and len(sent) > 6:
                over.set()
    assert any('\\"kind\\":\\"end\\"' in line for line in sent)


# ---- requests

NAMES = {
    "empty": "",
    "long": "x" * 65,
    "very long": "x" * 500_000,
    "spaced": "a b",
    "a path": "../x",
    "number": 7,
    "list": ["x"],
    "é": "é",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("path", ["queue/join", "call/generate", "run/draw", "cancel"])
def test_a_session_has_a_name_like_one(site: Site, path: str, name: Any) -> None:
    body = {"data": [], "fn_index": site.function("draw")._id, "session_hash": name}
    text = f"session_hash must be 1 to 64 letters, digits, - or _, got {shown(name)}"
    refused(site.post(path, body), 400, text)
    assert name not in site.demo.app.state_holder.session_data if name.__hash__ else True


@pytest.mark.parametrize("path", ["queue/data", "queue/data?session_hash=", "heartbeat/a.b"])
def test_nobody_listens_without_a_name(site: Site, path: str) -> None:
    name = {"queue/data": None, "queue/data?session_hash=": "", "heartbeat/a.b": "a.b"}[path]
    text = f"session_hash must be 1 to 64 letters, digits, - or _, got {shown(name)}"
    refused(site.client.get(f"/gradio_api/{path}"), 400, text)


def test_nobody_listens_where_nothing_waits(site: Site) -> None:
    response = site.client.get("/gradio_api/queue/data?session_hash=nobody")
    refused(response, 404, "Nothing waits for this session, or nobody listened in time.")


BODIES: dict[str, tuple[str, Any, int, str]] = {
    "no index": ("queue/join", {}, 400, "fn_index must say which function is called."),
    "index": ("queue/join", {"fn_index": 999}, 404, "There is no function of fn_index 999 here."),
    "negative": ("queue/join", {"fn_index": -1}, 404, "There is no function of fn_index -1 here."),
    "text": ("queue/join", {"fn_index": "x"}, 404, "There is no function of fn_index 'x' here."),
    "true": ("run/x", {"fn_index": True}, 404, "There is no function of fn_index True here."),
    "endpoint": (
        "call/none",
        {},
        404,
        "There is no endpoint '/none' here. There are: /race, /generate.",
    ),
    "run": (
        "run/none",
        {},
        404,
        "There is no endpoint '/none' here. There are: /race, /generate.",
    ),
    "api": (
        "api/none",
        {},
        404,
        "There is no endpoint '/none' here. There are: /race, /generate.",
    ),
    "named": (
        "call/v2/none",
        {},
        404,
        "There is no endpoint '/none' here. There are: /race, /generate.",
    ),
    "no data": ("call/race", {"data": None}, 400, "data must be a list of values, got None"),
    "data": ("call/race", {"data": "x"}, 400, "data must be a list of values, got 'x'"),
    "event": (
        "cancel",
        {"event_id": "x" * 99},
        400,
        f"event_id must be 1 to 64 letters, digits, - or _, got {'x' * 99!r}",
    ),
    "fetched": (
        "call/race",
        {"data": [[{"path": "HTTP://x.org/a", "meta": {"_type": "gradio.FileData"}}]]},
        400,
        "A file must be uploaded, not fetched from 'HTTP://x.org/a'",
    ),
    "missing": (
        "call/v2/generate",
        {"model": "mini-ar"},
        400,
        "The value 'prompt' is missing. There are: prompt, model, max_new_tokens, temperature, "
        "seed.",
    ),
    "unknown": (
        "call/v2/race",
        {"prompt": "Hello", "modle": "x"},
        400,
        "There is no value 'modle' here. There are: prompt, pair, settings.",
    ),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_call_of_what_there_is_not_is_refused_in_words(
    site: Site, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, body, status, text = BODIES[case]
    session = {} if "v2" in path else {"session_hash": "me", "data": []}
    refused(site.post(path, session | body), status, text.replace("x" * 99, cut_repr("x" * 99)))
    assert not caplog.records


def cut_repr(text: str) -> str:
    return shown(text)[1:-1]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The body must be JSON."),
        (b"{", "The body must be JSON."),
        (b"[" * 100_000, "The body must be JSON: the JSON is nested too deeply."),
        (b"\xff\xfe", "The body must be JSON."),
        (b"1" * 5000, "The body must be JSON: a number in the JSON has more than 1,000 digits."),
        (b"[]", "The body must be a JSON object, got []"),
        (b"null", "The body must be a JSON object, got None"),
    ],
)
def test_a_body_is_a_json_object(site: Site, body: bytes, text: str) -> None:
    for path in ("queue/join", "call/generate", "run/draw", "reset"):
        refused(site.client.post(f"/gradio_api/{path}", content=body), 400, text)


def test_a_body_has_a_bound_whether_or_not_it_says_its_length(site: Site) -> None:
    text = "The body has at most 1,000,000 bytes here."
    body = {"session_hash": "x" * 5_000_000, "data": [], "fn_index": 0}
    refused(site.post("queue/join", body), 413, text)
    parts = (b"x" * 100_000 for _ in range(11))
    refused(site.client.post("/gradio_api/call/generate", content=parts), 413, text)
    assert len(site.join("draw", ["x" * (MAX_BODY - 1000)], "me").json()) == 1


def test_a_file_has_a_bound(site: Site) -> None:
    files = {"files": ("race.json", b"{}")}
    response = site.client.post("/gradio_api/upload?upload_id=" + "x" * 9000, files=files)
    assert response.status_code == 200 and len(response.json()) == 1
    for size, status in ((0, 200), (1, 413), (1_000_000, 413)):
        files = {"files": ("a.json", b"x" * (MAX_FILE + size))}
        assert site.client.post("/gradio_api/upload", files=files).status_code == status
    many = [("files", (f"{number}.json", b"x" * 1_000_000)) for number in range(7)]
    text = "The body has at most 6,065,536 bytes here."
    refused(site.client.post("/gradio_api/upload", files=many), 413, text)


def test_an_address_opens_a_few_files_an_hour(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = site.demo.app.middleware_stack
    while not isinstance(layer, Door):
        layer = layer.app
    monkeypatch.setattr(layer, "_uploads", Quota(2, 100, 3600))
    files = {"files": ("race.json", b"{}")}
    text = "Too many files were opened in the last hour. Try again later."
    for address in ("8.8.4.4", "8.8.8.8"):
        visitor = site.visitor("127.0.0.1", **{"x-forwarded-for": address})
        with visitor.client as client:
            for _ in range(2):
                assert client.post("/gradio_api/upload", files=files).status_code == 200
            refused(client.post("/gradio_api/upload", files=files), 429, text)


def test_an_address_and_headers_have_bounds(site: Site) -> None:
    refused(
        site.client.get("/?prompt=" + "x" * 49_200), 414, "An address has at most 49,152 bytes."
    )
    headers = {f"x-{number}": "y" * 8000 for number in range(5)}
    text = "The headers have at most 32,768 bytes together."
    refused(site.client.get("/", headers=headers), 431, text)
    longest = "%E6%98%AF" * 4000
    assert site.client.get(f"/?prompt={longest}").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "component_server"),
        ("POST", "process_recording"),
        ("POST", "vibe-edit"),
        ("POST", "stream/x"),
        ("GET", "deep_link?session_hash=me"),
        ("GET", "upload_progress?upload_id=x"),
    ],
)
def test_what_the_page_does_not_need_is_closed(site: Site, method: str, path: str) -> None:
    response = site.client.request(method, f"/gradio_api/{path}", json={})
    refused(response, 404, "There is no such address here.")


# ---- what stays


def load(site: Site, number: int) -> None:
    """A visitor comes, looks, and goes."""
    assert site.client.get("/").status_code == 200
    body = site.body("open", ["", None], f"visitor-{number}")
    assert site.post("run/open", body).status_code == 200


def test_a_thousand_visitors_leave_next_to_nothing(site: Site) -> None:
    """Their states are a few kB each, and there are no more of them than a number."""
    for number in range(20):
        load(site, number)
    gc.collect()
    tracemalloc.start()
    for number in range(20, 80):
        load(site, number)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] / 60
    tracemalloc.stop()
    assert grown < 3_000, f"{grown:.0f} bytes a visitor"
    sessions = site.demo.app.state_holder
    for number in range(1_000):
        sessions[f"made up {number}"]
    assert len(sessions.session_data) == len(sessions.time_last_used) == sessions.capacity == 500


def test_sessions_whose_page_is_open_stay_and_others_go(site: Site) -> None:
    sessions, recording = site.demo.app.state_holder, site.function("run").outputs[1]._id
    with site.line.present("me"):
        sessions["me"][recording] = {"some": "race"}
        for number in range(600):
            sessions[f"somebody else {number}"]
        assert sessions["me"][recording] == {"some": "race"}
    for number in range(600):
        sessions[f"again {number}"]
    assert "me" not in sessions


def test_states_are_small_and_have_a_bound_together(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, recording = site.demo.app.state_holder, site.function("run").outputs[1]._id
    monkeypatch.setattr("app.door.sessions.MAX_BYTES", 10_000)
    sessions["a"][recording] = "x" * 1_000_000
    assert state_bytes(sessions["a"]) < 10_000 and sessions["a"][recording] == "x" * 1_000_000
    for name in "bcd":
        sessions[name][recording] = [hash((name, n)) for n in range(1000)]
    sessions.sweep()
    assert sum(map(state_bytes, sessions.session_data.values())) <= 10_000
    assert "a" not in sessions


def test_what_was_typed_in_is_not_kept(site: Site) -> None:
    body = site.body("open_link", ["x" * 500_000], "typist")
    assert site.post("run/open_link", body).status_code == 200
    assert site.demo.app.state_holder["typist"].config_values == {}


# ---- the log


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, Kept]]:
    logger, kept = logging.getLogger("test.brief"), Kept()
    kept.addFilter(Brief(repeats=3, together=10, seconds=0.3))
    logger.addHandler(kept)
    logger.propagate = False
    yield logger, kept
    logger.removeHandler(kept)
    logger.propagate = True


def test_repeats_are_left_out_and_counted(log: tuple[logging.Logger, Kept]) -> None:
    logger, kept = log
    for number in range(60):
        logger.error("the same place, %d", number)
    logger.error("another place")
    assert kept.lines == [
        *(f"the same place, {number}" for number in range(3)),
        "another place (57 similar messages were left out before this one.)",
    ]
    time.sleep(0.35)
    for number in range(2):
        logger.error("after a while, %d", number)
    assert kept.lines[4:] == ["after a while, 0", "after a while, 1"]


def test_tracebacks_of_one_kind_are_repeats_and_others_are_not(
    log: tuple[logging.Logger, Kept],
) -> None:
    logger, kept = log

    def fail(error: Exception) -> None:
        try:
            raise error
        except Exception:
            logger.exception("failed")

    for number in range(9):
        fail(KeyError(number))
    fail(IndexError("x"))
    assert [line.splitlines()[-1] for line in kept.lines] == [
        *(f"KeyError: {number}" for number in range(3)),
        "IndexError: x",
    ]
    assert kept.lines[-1].startswith("failed (6 similar messages were left out before this one.)")


def test_all_records_together_have_a_bound(log: tuple[logging.Logger, Kept]) -> None:
    logger, kept = log
    for number in range(30):
        exec(f"\n{number * chr(10)}logger.error('a place of its own')", {"logger": logger})
    assert len(kept.lines) == 10


def test_long_records_are_cut(log: tuple[logging.Logger, Kept]) -> None:
    logger, kept = log
    logger.error("x" * 5_000_000)
    try:
        raise ValueError("y" * 5_000_000)
    except ValueError:
        logger.exception("failed")
    assert kept.lines[0] == f"{'x' * 500} … 4,999,000 characters left out … {'x' * 500}"
    assert kept.lines[1].startswith("failed\nTraceback") and len(kept.lines[1]) < 10_100
    assert cut("abcdef", 6) == "abcdef" and cut("abcdefg", 6) == "abc … 1 characters left out … efg"


def test_the_page_logs_a_failure_that_repeats_a_few_times(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("secret path" * 100_000)

    monkeypatch.setattr("app.page.handlers.visitor", failing)
    (brief,) = {f for f in logging.lastResort.filters if isinstance(f, Brief)}
    caplog.handler.addFilter(brief)
    answers = {site.call("stop", []).text for _ in range(30)}
    caplog.handler.removeFilter(brief)
    assert len(answers) == 1 and "Something went wrong on the server." in answers.pop()
    assert len(caplog.text) < 40_000 and caplog.text.count("Traceback") == 3
