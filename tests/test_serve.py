"""The service over real connections: OpenAI's protocol, one device, and work that stops."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from folders import save_models
from served import CHAT, CONFIGS, here, messages, small_model
from servers import serving
from tiny import Watched
from torch import Tensor

from d2f import ARConfig, D2FConfig, Model, StepEvent, Trace, generate, load_model
from d2f.catalogue.pairs import PUBLISHED_PAIRS
from d2f.config import config_to_dict
from d2f.events import event_from_dict
from d2f.nn.cache import KVCache
from d2f.nn.compiled import Fixed
from d2f.serve.__main__ import main
from d2f.serve.service import Options, _default, create_app, load_app
from d2f.serve.worker import Busy, Job, Worker
from d2f.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def served(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Iterator[tuple]:
    """A model, its settings, and a client of the service."""
    model, config = small_model(request.param, tokenizer), CONFIGS[request.param]
    app = create_app(model, config, Options(model.name, max_tokens=64))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield model, config, client


@pytest.fixture(scope="module")
def client(tokenizer: Tokenizer) -> Iterator[httpx.Client]:
    model = small_model("ar", tokenizer)
    app = create_app(model, CONFIGS["ar"], Options(model.name, max_tokens=64, key="secret"))
    headers = {"Authorization": "Bearer secret"}
    with serving(app) as url, httpx.Client(base_url=url, timeout=30, headers=headers) as client:
        yield client


def test_a_whole_answer_is_the_engines(served: tuple):
    model, config, client = served
    trace = here(model, config)
    answer = client.post("/chat/completions", json={"model": model.name, "messages": CHAT}).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": trace.text}
    assert choice["finish_reason"] == trace.finish_reason
    prompt = len(trace.header.prompt_ids)
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": trace.tokens,
        "total_tokens": prompt + trace.tokens,
    }
    assert (answer["object"], answer["model"]) == ("chat.completion", model.name)


def test_a_streamed_answer_grows_to_the_same(served: tuple):
    model, config, client = served
    trace = here(model, config)
    asked = {"model": model.name, "messages": CHAT, "stream": True}
    asked["stream_options"] = {"include_usage": True}
    response = client.post("/chat/completions", json=asked)
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, counts, done = [data for _, data in messages(response)]
    assert done is True
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(choice["delta"].get("content", "") for choice in choices) == trace.text
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1] == {"index": 0, "delta": {}, "finish_reason": trace.finish_reason}
    assert len(choices) > 4, "the text comes in pieces"
    assert counts["choices"] == [] and counts["usage"]["completion_tokens"] == trace.tokens
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_events_are_the_run_itself(served: tuple):
    model, config, client = served
    changed = {"max_new_tokens": 16, "temperature": 0.7, "seed": 3}
    asked = {"messages": CHAT, "decoder": None, "config": changed}
    told = messages(client.post("/events", json=asked))
    trace = here(model, type(config)(**config_to_dict(config) | changed))
    assert [kind for kind, _ in told] == ["header", *["step"] * trace.forwards, "end"]
    assert Trace.from_json(json.dumps(told[0][1])).header == trace.header
    steps = [event_from_dict(data["event"]) for kind, data in told if kind == "step"]
    assert [event.commits for event in steps] == [event.commits for event in trace.events]
    assert [event.blocks for event in steps] == [event.blocks for event in trace.events]
    texts = [tuple(pair) for kind, data in told if kind == "step" for pair in data["texts"]]
    ids = set(trace.canvas.values())
    assert sorted(texts) == [(i, model.tokenizer.token_text(i)) for i in sorted(ids)]
    assert told[-1][1] == {"text": trace.text}


def test_settings_reach_the_decoder(served: tuple):
    model, config, client = served
    asked = {"model": model.name, "messages": CHAT, "max_completion_tokens": 5, "seed": 7}
    asked |= {"temperature": 1, "top_p": 0.9, "top_k": 9, "n": 1, "stop": None, "user": "me"}
    asked |= {"presence_penalty": 0.0}
    changed = {"max_new_tokens": 5, "seed": 7, "temperature": 1.0, "top_p": 0.9, "top_k": 9}
    if isinstance(config, D2FConfig):
        asked["settings"] = {"tau_conf": 0.1, "max_active_blocks": None, "rule": "stability"}
        changed |= asked["settings"]
    trace = here(model, type(config)(**config_to_dict(config) | changed))
    parts = [{"type": "text", "text": "Cou"}, {"type": "text", "text": "nt."}]
    asked["messages"] = [{"role": "user", "content": parts}]
    answer = client.post("/chat/completions", json=asked).json()
    assert answer["choices"][0]["message"]["content"] == trace.text
    assert answer["usage"]["completion_tokens"] == trace.tokens <= 5


def test_the_model_is_listed(served: tuple):
    model, _, client = served
    (listed,) = client.get("/models").json()["data"]
    assert (listed["id"], listed["object"], listed["max_model_len"]) == (model.name, "model", 256)


BLOCKS = CONFIGS["d2f"]


@pytest.mark.parametrize(
    ("steps", "settings", "message"),
    [
        ("eager", {"block_size": 64, "max_active_blocks": None}, None),
        ("eager", {"block_size": 65}, "block_size must be at most 64, got 65"),
        ("captured", {"block_size": 4, "max_active_blocks": 3}, None),
        ("compiled", {"block_size": 8, "max_active_blocks": 2, "tau_conf": 0.4}, None),
        ("compiled", {"block_size": 4}, "block_size must be 8, for which .* is compiled, got 4"),
        ("compiled", {"max_active_blocks": 3}, "max_active_blocks must be 2, .* compiled, got 3"),
        ("compiled", {"max_active_blocks": None}, "max_active_blocks must be 2, .* got None"),
    ],
)
def test_blocks_are_bounded_and_those_compiled_for(
    steps: str,
    settings: dict[str, Any],
    message: str | None,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    model = small_model("d2f", tokenizer)
    if steps != "eager":
        model = replace(model, fixed=Fixed(model.net, fused=steps == "compiled"))
    app = create_app(model, BLOCKS, Options(model.name, max_tokens=64))
    asked = {"messages": CHAT, "config": {"max_new_tokens": 8} | settings}
    with serving(app) as url:
        response = httpx.post(f"{url}/events", json=asked, timeout=60)
    if message is None:
        assert messages(response)[-1][0] == "end"
    else:
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, next(iter(settings)))
        assert re.match(message, error["message"])


def test_a_default_of_wide_blocks_may_be_asked_for(tokenizer: Tokenizer):
    model = small_model("d2f", tokenizer)
    app = create_app(model, BLOCKS, Options(model.name, max_tokens=4))
    with serving(app) as url:
        for size, status in ((8, 200), (9, 400)):
            asked = {"messages": CHAT, "config": {"block_size": size}}
            assert httpx.post(f"{url}/events", json=asked, timeout=60).status_code == status


def test_published_models_are_served_with_their_settings(tokenizer: Tokenizer):
    model = small_model("d2f", tokenizer)
    for name, pair in PUBLISHED_PAIRS.items():
        # The grid is that of the model's own files.
        assert _default(replace(model, name=pair.d2f)) == replace(pair.config, grid="prompt"), name
    assert _default(replace(model, name="dream-7b-base")) == PUBLISHED_PAIRS["dream-base"].vanilla
    assert _default(model) == D2FConfig()
    assert _default(small_model("ar", tokenizer)) == ARConfig()


def test_a_key_is_asked_for(client: httpx.Client):
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": ""}):
        for path in ("/models", "/events", "/chat/completions"):
            method = "GET" if path == "/models" else "POST"
            response = client.request(method, path, headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
    assert client.get("/../health", headers={"Authorization": ""}).json() == {"status": "ok"}


# ---- one device: turns, limits, and work that stops


class Gated(Watched):
    """A network that computes as many forwards as it was given leave for."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.leave = threading.Semaphore(0)
        self.begun = 0

    def forward(
        self,
        ids: Tensor,
        visible_end: Tensor | None,
        cache: KVCache | None = None,
        start: int = 0,
        wanted: Tensor | None = None,
    ) -> Tensor:
        self.begun += 1
        assert self.leave.acquire(timeout=60)
        return super().forward(ids, visible_end, cache, start, wanted)


@pytest.fixture
def gated(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Gated, httpx.Client, Callable[[], bool]]]:
    """A service for one run and one that waits: network, client, whether a run was cancelled."""
    small = small_model("ar", tokenizer)
    net = Gated(small.config)
    net.load_state_dict(small.net.state_dict())
    model = Model("gated", net.eval().requires_grad_(False), tokenizer)
    cancelled, cancel = threading.Event(), Job.cancel

    def watched(job: Job) -> None:
        cancel(job)
        cancelled.set()

    monkeypatch.setattr(Job, "cancel", watched)
    app = create_app(model, ARConfig(max_new_tokens=64), Options("gated", queue=1))
    with serving(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield net, client, cancelled.is_set
        net.leave.release(10_000)


def within(seconds: float, done: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not done() and time.monotonic() < until:
        time.sleep(0.01)
    return done()


def one_more(client: httpx.Client) -> None:
    """A run of a single step, which must wait for the run before it to end."""
    asked = {"messages": CHAT, "config": {"max_new_tokens": 1}}
    assert client.post("/events", json=asked).status_code == 200


@pytest.mark.parametrize("path", ["events", "chat/completions"])
def test_closing_a_stream_stops_the_work_within_one_step(gated: tuple, path: str):
    net, client, cancelled = gated
    asked = {"messages": CHAT}
    asked |= {"model": "gated", "stream": True} if path != "events" else {}
    net.leave.release(3)
    with client.stream("POST", f"/{path}", json=asked) as response:
        assert response.status_code == 200
        assert within(20, lambda: net.begun == 4), "three steps, and one under way"
    assert within(20, cancelled)
    net.leave.release(2)  # the step under way, and the next run's only one
    one_more(client)
    assert net.begun == 5


def test_giving_up_on_a_whole_answer_stops_the_work_as_well(gated: tuple):
    net, client, cancelled = gated
    with pytest.raises(httpx.ReadTimeout):
        body = {"model": "gated", "messages": CHAT}
        client.post("/chat/completions", json=body, timeout=httpx.Timeout(20, read=0.5))
    assert within(20, cancelled)
    net.leave.release(2)
    one_more(client)
    assert net.begun == 2


def test_a_full_queue_answers_503_and_a_place_that_is_left_is_free(gated: tuple):
    net, client, cancelled = gated
    asked = {"messages": CHAT, "config": {"max_new_tokens": 2}}
    with client.stream("POST", "/events", json=asked) as first:
        assert within(20, lambda: net.begun == 1)
        with client.stream("POST", "/events", json=asked) as second:
            parts = second.iter_raw()
            assert next(parts).startswith(b"event: header")
            response = client.post("/events", json=asked)
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
            assert response.json()["error"]["code"] == "overloaded"
        assert within(20, cancelled)
        with client.stream("POST", "/events", json=asked) as third:
            assert third.status_code == 200
            net.leave.release(4)
            assert b"event: end" in first.read()
            assert b"event: end" in third.read()
    assert net.begun == 4, "the second run never began"


def test_a_worker_hands_over_events_and_says_when_it_is_idle():
    def source(steps: int) -> Generator[StepEvent, None, None]:
        for step in range(steps):
            time.sleep(0.03)
            yield StepEvent(step, 0.03, (0, 1), ())

    async def use() -> None:
        worker = Worker(queue=1)
        first, second = worker.start(source(2)), worker.start(source(1))
        with pytest.raises(Busy):
            worker.start(source(1))
        told = [event async for event in first.events(0.01)]
        assert [event.step for event in told if event] == [0, 1] and None in told
        second.cancel()
        assert [event async for event in second.events(1) if event] in ([], [*source(1)])
        await asyncio.to_thread(worker.close)

    asyncio.run(use())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queue": -1}, "queue"),
        ({"max_tokens": 0}, "max"),
        ({"key": "sk\n"}, "the API key"),
        ({"key": "“sk”"}, "the API key"),
    ],
)
def test_limits_that_cannot_be_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Options("mini-d2f", **changes)


def test_a_folder_loads_with_the_settings_of_its_name(tmp_path: Path, tokenizer_folder: Path):
    folder = save_models(tmp_path, tokenizer_folder) / "mini-ar"
    with serving(load_app(Options(str(folder), max_tokens=3))) as url:
        told = messages(httpx.post(f"{url}/events", json={"messages": CHAT}, timeout=60))
    header = Trace.from_json(json.dumps(told[0][1])).header
    assert (header.decoder, header.model, header.config.max_new_tokens) == ("ar", "mini-ar", 3)


def test_a_model_without_a_template_completes_prompts(tmp_path: Path, tokenizer_folder: Path):
    folder = save_models(tmp_path, tokenizer_folder) / "mini-ar"
    (folder / "chat_template.jinja").unlink()
    app = load_app(Options(str(folder), max_tokens=3))
    expected = generate(
        model := load_model(folder), model.tokenizer.encode("Hi"), ARConfig(max_new_tokens=3)
    )
    with serving(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        told = client.post("/completions", json={"model": "mini-ar", "prompt": "Hi"}).json()
        assert told["choices"][0]["text"] == expected.text
        chat = client.post("/chat/completions", json={"model": "mini-ar", "messages": CHAT})
    error = chat.json()["error"]
    assert (chat.status_code, error["param"]) == (400, "messages")
    assert error["message"].startswith("this tokenizer has no chat template")


def test_the_command_line_says_what_is_wrong_in_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["--model", "nowhere"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("d2f serve: no model 'nowhere'") and said.count("\n") == 1
