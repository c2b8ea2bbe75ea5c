"""Many visitors at once, as browsers come: through the queue's own HTTP protocol, on loopback.

Half of them close in mid-run. The server stays responsive, every other visitor gets a whole and
correct race, and nothing is left behind.
"""

import asyncio
import gc
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from folders import save_pair
from servers import free_port

import app.page.tell
from app.lanes.lane import Host, Lane, pair_lanes, warm_model
from app.page.layout import build, launch_options
from app.page.messages import SETTINGS
from app.race import Race
from d2f import D2FConfig, generate
from d2f.catalogue.pairs import PAIRS

VISITORS = 20
GRADIO_ON_PANDAS = "ignore:.*(no_silent_downcasting|copy keyword).* is deprecated"
pytestmark = pytest.mark.filterwarnings(GRADIO_ON_PANDAS)


@dataclass
class Site:
    """The running page: its address, the function that runs a race, and its form."""

    url: str
    run: int
    form: list[Any]
    prepare: Callable[..., list[Lane]] = pair_lanes

    def asked(self, prompt: str, session: str, **changes: Any) -> dict[str, Any]:
        """What a browser sends for a race."""
        settings = {name: getattr(PAIRS["tiny"].config, name) for name in SETTINGS} | changes
        question = {"run": "abc", "prompt": prompt, "pair": "tiny", "settings": settings}
        return {
            "data": self.form,
            "fn_index": self.run,
            "session_hash": session,
            "event_data": question | {"past": None},
        }


async def launch(traces: Path) -> tuple[gr.Blocks, str]:
    """The page's server, in threads of its own.

    Started from inside a loop: without a running one Gradio makes new ones, and closes none.
    """
    demo = build("tiny", Host(), traces)
    _, url, _ = demo.launch(
        server_port=free_port(), prevent_thread_lock=True, quiet=True, **launch_options()
    )
    return demo, url


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Iterator[Site]:
    config = D2FConfig(max_new_tokens=24, block_size=8, max_active_blocks=3)
    pair = save_pair(tmp_path_factory.mktemp("models"), tokenizer_folder, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setitem(PAIRS, "tiny", pair)
        demo, url = asyncio.run(launch(tmp_path_factory.mktemp("traces")))
        run = next(each for each in demo.fns.values() if each.api_name == "run")
        form = [None if b.stateful else getattr(b, "value", None) for b in run.inputs]
        site = Site(url, run._id, form)
        patch.setattr(app.page.tell, "pair_lanes", lambda *request: site.prepare(*request))
        yield site
        demo.close(verbose=False)
        warm_model.cache_clear()


@pytest.fixture
def site(served: Site) -> Iterator[Site]:
    yield served
    served.prepare = pair_lanes


async def visit(
    client: httpx.AsyncClient, site: Site, session: str, prompt: str, **changes: Any
) -> AsyncIterator[dict[str, Any]]:
    """Runs a race as a browser does, and yields the board's messages."""
    body = site.asked(prompt, session, **changes)
    # Each from an address of its own, as a proxy on this machine tells it.
    home = {"x-forwarded-for": f"9.9.{sum(session.encode()) % 256}.{len(session)}"}
    joined = await client.post(f"{site.url}gradio_api/queue/join", json=body, headers=home)
    joined.raise_for_status()
    address = f"{site.url}gradio_api/queue/data"
    async with client.stream("GET", address, params={"session_hash": session}) as stream:
        async for line in stream.aiter_lines():
            event = json.loads(line.removeprefix("data: ") or "{}")
            if event.get("msg") == "process_generating":
                board = event["output"]["data"][0]
                changes = [board] if isinstance(board, str) else [each[2] for each in board]
                for packed in changes:
                    for message in json.loads(packed)["messages"]:
                        yield message
            if event.get("msg") == "process_completed":
                assert event["success"], event
                return


async def answers(client: httpx.AsyncClient, site: Site, session: str, prompt: str) -> list[str]:
    """Both lanes' answers, from a visit that stays to the end."""
    messages = [each async for each in visit(client, site, session, prompt)]
    assert messages[-1]["kind"] == "end", messages[-1]
    return [lane["text"] for lane in messages[-1]["lanes"]]


async def leave(client: httpx.AsyncClient, site: Site, session: str, prompt: str) -> None:
    """A visit that closes its tab as soon as the race is on."""
    messages = visit(client, site, session, prompt)
    async for message in messages:
        if message["kind"] in ("start", "step"):
            break
    await messages.aclose()


def alone(prompt: str) -> list[str]:
    """What each lane answers to a prompt when nobody else is there."""
    texts = []
    for decoder in ("d2f", "ar"):
        name, settings = PAIRS["tiny"].lanes[decoder]
        model = warm_model(name, decoder, Host())
        ids = model.tokenizer.encode_chat([{"role": "user", "content": prompt}])
        texts.append(generate(model, ids, settings).text)
    return texts


def races_alive() -> int:
    gc.collect()
    return sum(type(each) is Race for each in gc.get_objects())


def threads() -> list[str]:
    """Threads by name, without those of the server's own pool, which grows to a bound."""
    return sorted(t.name for t in threading.enumerate() if not t.name.startswith("AnyIO"))


def eventually(holds: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.1)
    return False


async def crowd(site: Site, prompts: list[str]) -> tuple[list[list[str]], list[float]]:
    """Everybody at once, every second one leaving; and how long the page took to answer."""
    waits: list[float] = []
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=60)) as client:
        visits = [
            (leave if i % 2 else answers)(client, site, f"visitor{i}", prompt)
            for i, prompt in enumerate(prompts)
        ]
        everyone = asyncio.gather(*visits)
        while not everyone.done():
            began = time.monotonic()
            (await client.get(site.url)).raise_for_status()
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.2)
        return [told for told in everyone.result() if told is not None], waits


def test_of_twenty_visitors_half_leave_and_the_others_get_their_races(site: Site):
    prompts = [f"Solve x + {i} = 20." for i in range(VISITORS)]
    expected = [alone(prompt) for prompt in prompts[::2]]
    asyncio.run(crowd(site, prompts[:2]))  # first-use costs and threads
    before = threads()
    told, waits = asyncio.run(crowd(site, prompts))
    assert len(told) == VISITORS // 2
    plain = [[text.isprintable() for text in texts] for texts in expected]
    for got, want, readable in zip(told, expected, plain, strict=True):
        # Random weights write control characters, which a record replaces.
        assert [len(text) for text in got] == [len(text) for text in want]
        for lane in (0, 1):
            assert not readable[lane] or got[lane] == want[lane]
    assert max(waits) < 5, "the server answers while it computes"
    assert eventually(lambda: races_alive() == 0), "races were left behind"
    assert eventually(lambda: threads() == before), "threads were left behind"


def test_a_visitors_second_run_ends_the_first(site: Site):
    async def twice() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(timeout=60) as client:
            first = visit(client, site, "hasty", "Count up.", max_new_tokens=400)
            while (await anext(first))["kind"] not in ("start", "step"):
                pass
            body = site.asked("Hello", "hasty")
            await client.post(f"{site.url}gradio_api/queue/join", json=body)
            return [message async for message in first]

    kinds = [message["kind"] for message in asyncio.run(twice())]
    assert "stopped" in kinds and eventually(lambda: races_alive() == 0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_new_tokens": 10**9}, "max_new_tokens"),
        ({"block_size": -4}, "block_size"),
        ({"tau_conf": 7.0}, "tau_conf"),
        ({"temperature": float("1e300")}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"max_active_blocks": 0}, "max_active_blocks"),
    ],
)
def test_values_that_no_slider_sends_are_refused(site: Site, changes: dict, told: str):
    assert told in asyncio.run(_error(site, "Hello", **changes))


def test_a_prompt_longer_than_the_box_takes_is_refused(site: Site):
    assert "characters" in asyncio.run(_error(site, "x" * 100_000))


async def _error(site: Site, prompt: str, **changes: Any) -> str:
    async with httpx.AsyncClient(timeout=60) as client:
        messages = [each async for each in visit(client, site, "stranger", prompt, **changes)]
    assert messages[-1]["kind"] == "error", messages[-1]
    return messages[-1]["text"]


def test_a_decoder_that_fails_in_mid_run_is_told_and_the_next_run_works(site: Site):
    def failing(*request: object) -> list[Lane]:
        lanes = pair_lanes(*request)
        source = lanes[0].source

        def fail() -> Iterator[Any]:
            yield next(source)
            raise RuntimeError("out of memory")

        return [replace(lanes[0], source=fail()), lanes[1]]

    site.prepare = failing
    text = asyncio.run(_error(site, "Hello"))
    assert re.fullmatch(
        r"Something went wrong on the server. Its log has details under \w{6}\.", text
    )
    site.prepare = pair_lanes

    async def again() -> list[str]:
        async with httpx.AsyncClient(timeout=60) as client:
            return await answers(client, site, "stranger", "Hello")

    assert [len(text) for text in asyncio.run(again())] == [len(text) for text in alone("Hello")]
