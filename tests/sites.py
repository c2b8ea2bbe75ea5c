"""The whole page on the loopback, with the smallest real models, and a client of its HTTP."""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import httpx
import pytest
from folders import save_pair
from servers import free_port

from app.door.line import Line
from app.lanes.lane import Host, warm_model
from app.page.layout import build, launch_options
from app.page.messages import SETTINGS
from d2f import D2FConfig
from d2f.catalogue.pairs import PAIRS

# What the board's script sends when a race is asked for.
ASKED = {
    "run": "abc",
    "prompt": "Hello",
    "pair": "tiny",
    "settings": {name: getattr(PAIRS["mini"].config, name) for name in SETTINGS}
    | {"max_new_tokens": 24},
    "past": None,
}


@dataclass
class Site:
    """A running page; what it answers is read by a client of its own."""

    demo: gr.Blocks
    client: httpx.Client

    @property
    def queue(self) -> Any:
        """Gradio's queue."""
        return self.demo._queue

    @property
    def line(self) -> Line:
        """Its bounds."""
        return self.demo.app.state.line

    def visitor(self, address: str, **headers: str) -> "Site":
        """The same page, seen from another address of this machine."""
        transport = httpx.HTTPTransport(local_address=address)
        base = str(self.client.base_url)
        return Site(self.demo, httpx.Client(base_url=base, transport=transport, headers=headers))

    def function(self, name: str) -> Any:
        """One of the page's functions, by its handler's name."""
        return next(fn for fn in self.demo.fns.values() if fn.api_name == name)

    def body(self, name: str, data: list[Any], session: str | None = None) -> dict[str, Any]:
        index = self.function(name)._id
        body = {"data": data, "fn_index": index, "session_hash": session or uuid4().hex}
        return body | ({"event_data": ASKED} if name == "run" else {})

    def form(self, name: str) -> list[Any]:
        """What a browser sends with a form that nobody has touched."""
        blocks = self.function(name).inputs
        return [None if block.stateful else getattr(block, "value", None) for block in blocks]

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.client.post(f"/gradio_api/{path}", json=body, **more)

    def call(self, name: str, data: list[Any], query: str = "") -> httpx.Response:
        """What a function says that answers at once."""
        return self.post(f"run/{name}{query}", self.body(name, data))

    def join(self, name: str, data: list[Any], session: str | None = None) -> httpx.Response:
        return self.post("queue/join", self.body(name, data, session))

    def listen(self, session: str) -> list[dict[str, Any]]:
        """Everything the queue says to a session until its runs are over."""
        messages = []
        path = f"/gradio_api/queue/data?session_hash={session}"
        with self.client.stream("GET", path) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if line.startswith("data: "):
                    messages.append(json.loads(line.removeprefix("data: ")))
        return messages

    def queued(self, name: str, data: list[Any]) -> list[dict[str, Any]]:
        """What a function says that waits in the queue."""
        session = uuid4().hex
        assert self.join(name, data, session).status_code == 200
        return self.listen(session)

    def curl(self, name: str, data: list[Any]) -> list[tuple[str, Any]]:
        """Events and their data, as README's two requests of an endpoint get them."""
        event = self.post(f"call/{name}", {"data": data}).json()["event_id"]
        text = self.client.get(f"/gradio_api/call/{name}/{event}").text
        parts = [part.split("\n", 1) for part in text.strip().split("\n\n")]
        return [(k.removeprefix("event: "), json.loads(d.removeprefix("data: "))) for k, d in parts]


def told(packed: str) -> list[dict[str, Any]]:
    """The messages that a handler has for the board."""
    return json.loads(packed)["messages"]


async def _launched(folder: Path) -> tuple[gr.Blocks, str]:
    """Made inside a loop: without a running one Gradio makes a new one, and does not close it."""
    demo = build("tiny", Host(), folder / "traces")
    _, url, _ = demo.launch(
        server_port=free_port(), prevent_thread_lock=True, quiet=True, **launch_options()
    )
    return demo, url


@contextmanager
def running_site(folder: Path, tokenizer_folder: Path) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        config = D2FConfig(max_new_tokens=24, block_size=8, max_active_blocks=2)
        pair = save_pair(folder / "models", tokenizer_folder, config)
        patch.setitem(PAIRS, pair.name, pair)
        demo, url = asyncio.run(_launched(folder))
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield Site(demo, client)
        demo.close(verbose=False)
    warm_model.cache_clear()
