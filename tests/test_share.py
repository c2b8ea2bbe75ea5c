"""A public link that cannot be had: the page runs on, and one sentence says what to do."""

import asyncio
import socket
import urllib.request

import gradio as gr
import pytest
from gradio import networking

from app.tunnel import share_note


async def shared() -> tuple[gr.Blocks, str, str | None]:
    """A page launched as ``app.py --share`` does. Gradio leaks a loop where none is running."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with gr.Blocks(analytics_enabled=False) as demo:
        pass
    _, local, public = demo.launch(server_port=port, share=True, prevent_thread_lock=True)
    return demo, local, public


def test_without_a_tunnel_the_page_runs_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def unreachable(**request: object) -> str:
        raise RuntimeError("Could not get share link from Gradio API Server.")

    monkeypatch.setattr(networking, "setup_tunnel", unreachable)
    demo, local, public = asyncio.run(shared())
    try:
        assert public is None
        assert "Could not create share link" in capsys.readouterr().out
        with urllib.request.urlopen(local, timeout=10) as answer:
            assert answer.status == 200
        note = share_note(local, public)
        assert note.startswith("* There is no public link")
        assert local in note and "--host 0.0.0.0" in note and "\n" not in note
    finally:
        demo.close(verbose=False)


def test_a_tunnel_is_named():
    note = share_note("http://127.0.0.1:7860/", "https://abc.gradio.live")
    assert "at https://abc.gradio.live while" in note and "127.0.0.1" not in note
