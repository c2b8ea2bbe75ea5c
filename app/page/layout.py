"""The page's layout: which components there are, where, and which handler answers which event.

Knows no models, no lanes and no races: :mod:`.handlers` does.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from d2f.bench.report import read_results
from d2f.bench.tables import Result
from d2f.config import config_from_dict

from ..door.door import MAX_FILE
from ..door.opening import doorway
from ..gallery import TRACES, gallery
from ..lanes.lane import Host
from ..prompts import examples
from ..recordings.store import Store
from .api import add_endpoints
from .blocks import ToldBlocks
from .charts import TITLES, benchmark, point_label, points
from .components import STATIC, RaceBoard, read_static
from .form import form
from .handlers import Page, Parts, pick
from .messages import SETTINGS, Fill, pack_now

LIBRARIES = STATIC / "libraries"  # of other projects, with their licences
QUEUE_SIZE = 32
VISITORS = QUEUE_SIZE  # who waits for the device waits in our line, which says how long it is
SESSIONS = 500
PUBLIC = (
    "**Publish** stores the prompt, both answers, the conversation before them, the measured times "
    "and the machine's name for everyone who has the short link. This page cannot take them back."
)
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
READ_FRAGMENT = "() => [location.hash.slice(1)]"


def build(pair: str, host: Host, traces: Path = TRACES, store: Store | None = None) -> gr.Blocks:
    """The page, its models yet unloaded; ``pair`` is the one chosen at first.

    Without a ``store`` nothing can be published.
    """
    known, recordings, results = examples(), gallery(traces), read_results()
    with ToldBlocks(
        title="D2F race",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, 3600),
    ) as demo:
        recording = gr.State(None)
        problem = gr.State(known[next(iter(known))][0])
        fragment = gr.Textbox(visible="hidden")
        board = RaceBoard(form(pair, host, known, results))
        with gr.Column(elem_id="more"):
            save, load, publish = _share(store is not None)
            shown_races = _gallery([each.prompt for each in recordings])
            panel, redraw, plots = _charts()
        parts = Parts(board=board, recording=recording, problem=problem, plots=plots)
        page = Page(parts, pair, host, known, recordings, store)
        _wire_board(page)
        _wire_recordings(page, save, load, publish, shown_races)
        for looked_at in (panel.expand, redraw.click):
            # Of two races in a row, the later one's figures stay.
            _on(looked_at, page.charts, {recording}, plots, trigger_mode="always_last")
        _on(demo.load, page.open, fragment, [board, recording], js=READ_FRAGMENT)
        with gr.Column(elem_id="measured"):
            _benchmarks(board, results)
        add_endpoints(host, pair, page.visitors)
    return demo.queue(api_open=False, max_size=QUEUE_SIZE)


def _on(
    event: Callable[..., Any], handler: Callable[..., Any], inputs: Any, outputs: Any, **more: Any
) -> None:
    """Has a handler answer an event at once, whoever waits: only runs queue."""
    event(handler, inputs, outputs, **({"queue": False} | more), **QUIET)


def _wire_board(page: Page) -> None:
    """What the board's own script asks for."""
    parts = page.parts
    board, told = parts.board, [parts.board, parts.recording]
    # Visitors wait in our own line, not in Gradio's.
    queued = {"queue": True, "concurrency_limit": VISITORS, "trigger_mode": "multiple"}
    _on(board.ask, page.run, {parts.problem}, told, **queued)
    _on(board.halt, page.stop, None, None)
    _on(board.draw, page.draw, None, [board, parts.problem])
    # Each with its own link: what Gradio holds back may go out with an earlier one's data.
    _on(board.link, page.open_link, None, told, trigger_mode="multiple")


def _wire_recordings(
    page: Page,
    save: gr.Button,
    load: gr.UploadButton,
    publish: gr.Button | None,
    races: gr.Dataset | None,
) -> None:
    parts = page.parts
    shown = [parts.board, parts.recording]
    _on(save.click, page.download, {parts.recording}, parts.board)
    _on(load.upload, page.open_file, load, shown)
    if publish is not None:
        _on(publish.click, page.publish, {parts.recording}, parts.board)
    if races is not None:
        _on(races.click, page.show_recorded, races, shown)


def launch_options() -> dict[str, Any]:
    """Looks and locks of the page, for ``Blocks.launch``."""
    files = StaticFiles(directory=LIBRARIES)
    return {
        "theme": _theme(),
        "head": f"<style>{read_static('board.css')}{read_static('chat.css')}</style>",
        "favicon_path": STATIC / "logo.svg",
        "footer_links": [],
        "show_error": False,
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": MAX_FILE,
        "state_session_capacity": SESSIONS,
        "max_threads": 2 * QUEUE_SIZE + 16,
        "app_kwargs": doorway() | {"routes": [Mount("/libraries", files)]},
    }


def _theme() -> gr.themes.Base:
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
    mono = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace")
    return gr.themes.Base(
        primary_hue="slate", neutral_hue="slate", radius_size="lg", font=sans, font_mono=mono
    )


# ---- layout


def _share(publishing: bool) -> tuple[gr.Button, gr.UploadButton, gr.Button | None]:
    """What to do with the race on the board; the link is copied by the board's own script."""
    small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 150}
    with gr.Row(elem_id="share"):
        gr.Button("Copy link", elem_id="copy-link", **small)
        save = gr.Button("Download trace", elem_id="save", **small)
        # Of any name: phones and mail programs put endings of their own behind ".json".
        load = gr.UploadButton("Open trace", elem_id="open", **small)
        if not publishing:
            return save, load, None
        publish = gr.Button("Publish", elem_id="publish", **small)
        gr.Markdown(PUBLIC, elem_id="public")
        return save, load, publish


def _gallery(prompts: list[str]) -> gr.Dataset | None:
    """Recorded races by their prompts."""
    if not prompts:
        return None
    with gr.Row(elem_id="gallery"):
        return gr.Dataset(
            components=[gr.Textbox(visible=False)],
            samples=[[prompt] for prompt in prompts],
            sample_labels=prompts,
            label="Recorded races",
            type="index",
        )


def _charts() -> tuple[gr.Accordion, gr.Button, list[gr.Plot]]:
    """Figures of the race on the board, drawn while they are looked at."""
    with gr.Accordion("Charts of this race", open=False, elem_id="charts") as panel:
        with gr.Row():
            plots = [gr.Plot(label=title, min_width=340) for title in TITLES]
    # Clicked by the board's script when a race ends while the panel is open. Asked here after every
    # race instead, the server would be at work while the next visitor's is measured.
    redraw = gr.Button("Draw the charts of this race", visible="hidden", elem_id="redraw")
    return panel, redraw, plots


def _benchmarks(board: RaceBoard, results: list[Result]) -> None:
    """Speed against accuracy of the committed benchmarks; a setting measured there can be raced."""
    measured = points(results)
    title = "Benchmarks: speed against accuracy"
    with gr.Accordion(title, open=False, elem_id="benchmarks") as panel:
        gr.Markdown(
            "Every point is a decoder at one setting, as committed in `assets/bench`. Hover over a "
            "point to read its setting. Points of one file were measured side by side in one run. "
            "Headline figures and the machine are in the README."
        )
        with gr.Row():
            plots = [
                gr.Plot(label=label, min_width=340)
                for label in ("All tasks together", "Task by task")
            ]
        load = gr.Dataset(
            components=[gr.Textbox(visible=False)],
            samples=[[point_label(row)] for row in measured],
            sample_labels=[point_label(row) for row in measured],
            label="Load a measured setting into the race",
            samples_per_page=max(1, len(measured)),
            type="index",
        )
    drawn = benchmark(results)
    _on(panel.expand, lambda: drawn, None, plots)

    def take(index: int) -> str:
        # Measurements are older than some settings.
        config = config_from_dict("d2f", pick(measured, index)["config"])
        filled: Fill = {"kind": "fill", "settings": {n: getattr(config, n) for n in SETTINGS}}
        return pack_now([filled])

    _on(load.click, take, load, board)
