"""The page's layout: which components there are, where, and which handler answers which event.

Knows no models, no lanes and no races: :mod:`.handlers` does.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from d2f.bench.report import read_results
from d2f.config import ARConfig, D2FConfig, config_from_dict, settings_of
from d2f.tasks import TASKS, Problem

from ..door.door import MAX_FILE
from ..door.opening import doorway
from ..gallery import TRACES, gallery
from ..lanes.lane import Host
from ..prompts import MAX_CHARACTERS, examples
from ..recordings.store import Store
from .api import add_endpoints
from .blocks import ToldBlocks
from .charts import TITLES, benchmark, point_label, points
from .components import STATIC, RaceBoard, read_static
from .handlers import Page, Parts, pick
from .tell import SETTINGS

QUEUE_SIZE = 32
VISITORS = QUEUE_SIZE  # who waits for the device waits in our line, which says how long it is
SESSIONS = 500
PUBLIC = (
    "**Publish** stores the prompt, both answers, the conversation before them, the measured times "
    "and the machine's name for everyone who has the short link. This page cannot take them back."
)
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
READ_FRAGMENT = "(_, ...kept) => [location.hash.slice(1), ...kept]"


def build(pair: str, host: Host, traces: Path = TRACES, store: Store | None = None) -> gr.Blocks:
    """The page, its models yet unloaded; ``pair`` is the one chosen at first.

    Without a ``store`` nothing can be published.
    """
    known, recordings = examples(), gallery(traces)
    with ToldBlocks(
        title="D2F race",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, 3600),
    ) as demo:
        recording = gr.State(None)
        problem = gr.State(known[next(iter(known))][0])
        # The secret only names the store: what a browser hands back is checked, not trusted.
        conversation = gr.BrowserState(None, storage_key="d2f-conversation", secret="d2f")
        fragment = gr.Textbox(visible="hidden")
        # Clicked by the board's script when the address of the open page gets another link.
        opener = gr.Button("Open the address's link", visible="hidden", elem_id="opener")
        gr.HTML(read_static("header.html"), elem_id="masthead")
        prompt, *race_buttons = _question(problem.value.prompt)
        follow, drop, talk_buttons = _talk()
        groups = _examples(known, prompt)
        pair_box, settings = _settings(pair, host)
        board = RaceBoard()
        save, load, publish = _share(store is not None)
        shown_races = _gallery([each.prompt for each in recordings])
        panel, redraw, plots = _charts()
        parts = Parts(
            board=board,
            recording=recording,
            problem=problem,
            conversation=conversation,
            prompt=prompt,
            follow=follow,
            drop=drop,
            pair=pair_box,
            settings=settings,
            plots=plots,
        )
        page = Page(parts, pair, host, known, recordings, store)
        _wire_races(page, race_buttons, talk_buttons)
        _wire_form(page, race_buttons[2], groups, talk_buttons)
        _wire_recordings(page, save, load, publish, shown_races)
        for looked_at in (panel.expand, redraw.click):
            # Of two races in a row, the later one's figures stay.
            _on(looked_at, page.charts, {recording}, plots, trigger_mode="always_last")
        everything = [board, recording, follow, prompt, pair_box, *settings.values()]
        opened = [fragment, conversation]
        _on(demo.load, page.open, opened, everything, js=READ_FRAGMENT)
        shown = [board, recording]
        latest = {"js": READ_FRAGMENT, "trigger_mode": "always_last"}  # of two links, the later one
        _on(opener.click, page.open_link, fragment, shown, **latest)
        _benchmarks(settings)
        add_endpoints(host, pair, page.visitors)
    return demo.queue(api_open=False, max_size=QUEUE_SIZE)


def _on(
    event: Callable[..., Any], handler: Callable[..., Any], inputs: Any, outputs: Any, **more: Any
) -> None:
    """Has a handler answer an event at once, whoever waits: only runs queue."""
    event(handler, inputs, outputs, **({"queue": False} | more), **QUIET)


def _wire_races(page: Page, buttons: list[gr.Button], talk: list[gr.Button]) -> None:
    parts = page.parts
    run, stop, _ = buttons
    asked: set[Component] = {
        *(parts.problem, parts.prompt, parts.follow, parts.drop, parts.conversation, parts.pair),
        *parts.settings.values(),
    }
    told = [parts.board, parts.recording, parts.conversation]
    for event, handler, outputs in (
        (run.click, page.run, told),
        (parts.prompt.submit, page.run, told),
        (talk[0].click, page.regenerate, [*told, parts.prompt]),
    ):
        # Visitors wait in our own line, not in Gradio's.
        queued = {"queue": True, "concurrency_limit": VISITORS}
        _on(event, handler, asked, outputs, trigger_mode="multiple", **queued)
    _on(stop.click, page.stop, None, None)


def _wire_form(
    page: Page, fresh: gr.Button, groups: dict[str, gr.Dataset], talk: list[gr.Button]
) -> None:
    parts = page.parts
    problem = [parts.prompt, parts.problem, parts.follow]
    _on(fresh.click, page.draw, None, problem)
    for task, group in groups.items():
        _on(group.click, page.example(task), group, problem)
    _on(parts.pair.input, page.defaults, parts.pair, list(parts.settings.values()))
    talked = [parts.prompt, parts.conversation, parts.follow, parts.board]
    _on(talk[1].click, page.edit, {parts.conversation}, talked)
    _on(talk[2].click, page.clear, None, [parts.conversation, parts.follow, parts.board])
    known = {parts.problem, parts.conversation}
    _on(talk[3].click, page.suggest, known, [parts.prompt, parts.follow, parts.board])


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
    return {
        "theme": _theme(),
        "head": f"<style>{read_static('board.css')}</style>",
        "favicon_path": STATIC / "logo.svg",
        "footer_links": [],
        "show_error": False,
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": MAX_FILE,
        "state_session_capacity": SESSIONS,
        "max_threads": 2 * QUEUE_SIZE + 16,
        "app_kwargs": doorway(),
    }


def _theme() -> gr.themes.Base:
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
    mono = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace")
    return gr.themes.Base(
        primary_hue="slate", neutral_hue="slate", radius_size="lg", font=sans, font_mono=mono
    )


# ---- layout


def _question(first: str) -> tuple[gr.Textbox, gr.Button, gr.Button, gr.Button]:
    """The prompt; buttons that run, stop and draw a fresh problem."""
    with gr.Row(elem_id="question"):
        prompt = gr.Textbox(
            first,
            label="Prompt",
            info="Both models get the same prompt. Shift+Enter runs.",
            lines=3,
            max_lines=8,
            max_length=MAX_CHARACTERS + 1,
            elem_id="prompt",
        )
        with gr.Column(elem_id="buttons", scale=0, min_width=190):
            run = gr.Button("Run the race", variant="primary", elem_id="run")
            stop = gr.Button("Stop", elem_id="stop", interactive=False)
            fresh = gr.Button("New random problem", elem_id="random")
    return prompt, run, stop, fresh


def _talk() -> tuple[gr.Checkbox, gr.Checkbox, list[gr.Button]]:
    """Follow-ups: whether the next prompt goes on with the conversation, and what to do with it."""
    with gr.Row(elem_id="talk"):
        follow = gr.Checkbox(
            False,
            label="Follow up",
            info="Continue this conversation. Otherwise Run starts a new one.",
            elem_id="follow",
        )
        drop = gr.Checkbox(
            False,
            label="Drop oldest turns",
            info="When a long conversation no longer fits.",
            elem_id="drop",
        )
        names = ("Regenerate", "Edit last prompt", "Clear conversation", "Suggest a follow-up")
        buttons = [gr.Button(name, scale=0, min_width=150, size="sm") for name in names]
    return follow, drop, buttons


def _examples(known: dict[str, list[Problem]], prompt: gr.Textbox) -> dict[str, gr.Dataset]:
    """Example prompts by task; a click fills the box for a fresh start."""
    with gr.Row(elem_id="examples"):
        return {
            name: gr.Dataset(
                components=[prompt],
                samples=[[each.prompt] for each in problems],
                sample_labels=[each.prompt for each in problems],
                label=TASKS[name].title,
                type="index",
                min_width=230,
            )
            for name, problems in known.items()
        }


def _settings(chosen: str, host: Host) -> tuple[gr.Dropdown, dict[str, gr.Number | gr.Dropdown]]:
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        box = gr.Dropdown(
            [(each.title, each.name) for each in host.pairs.values()],
            value=chosen,
            label="Model pair",
            info="The diffusion model and the autoregressive baseline it races.",
        )
        if host.refused:
            lines = (f"- {title}: {why}" for title, why in host.refused.items())
            gr.Markdown("\n".join(["Known, but not able to run here:", *lines]), elem_id="refused")
        config = host.pair(chosen).config
        with gr.Row():
            return box, {name: _field(name, getattr(config, name)) for name in SETTINGS}


def _field(name: str, value: Any) -> gr.Number | gr.Dropdown:
    """A setting's box; those of the AR lane's decoder hold for both."""
    setting = settings_of(D2FConfig)[name]
    both = " Both lanes." if name in settings_of(ARConfig) else ""
    told: dict[str, Any] = {"label": setting.label, "info": setting.text + both, "min_width": 260}
    if setting.choices:
        return gr.Dropdown(list(setting.choices), value=value, **told)
    return gr.Number(value, **told)


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


def _benchmarks(settings: dict[str, gr.Number | gr.Dropdown]) -> None:
    """Speed against accuracy of the committed benchmarks; a setting measured there can be raced."""
    results = read_results()
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

    def take(index: int) -> list[Any]:
        # Measurements are older than some settings.
        config = config_from_dict("d2f", pick(measured, index)["config"])
        return [getattr(config, name) for name in SETTINGS]

    _on(load.click, take, load, list(settings.values()))
