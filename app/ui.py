"""Layout and wiring of the page; what happens on Run is in ``run``, what is drawn in ``static``."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app.api import add_endpoints
from app.charts import TITLES, benchmark, figures
from app.components import STATIC, RaceBoard
from app.conversation import Conversation
from app.gallery import TRACES, gallery
from app.link import from_link
from app.prompts import MAX_CHARACTERS, examples, random_problem, recognise
from app.race import Race
from app.recording import Recording, RecordingError
from app.run import SETTINGS, pack_now, read_settings, recall, retell, tell
from d2f.bench.report import read_results
from d2f.registry import PAIRS, Pair
from d2f.tasks import TASKS, Problem

QUEUE_SIZE = 32
VISITORS = 16
SESSIONS = 500
EXPLAINED = {
    "max_new_tokens": ("Max new tokens", "The longest answer, in tokens. Both lanes."),
    "block_size": ("Block size", "Tokens a block. D2F refines several blocks at once."),
    "tau_add": ("tau_add", "A new block joins once this share of the last one is decided."),
    "tau_act": (
        "tau_act",
        "Past this share, the next block commits at least one token a step.",
    ),
    "tau_conf": ("tau_conf", "A token is committed when its probability exceeds this."),
    "max_active_blocks": ("Max active blocks", "Unfinished blocks in flight. Empty: no limit."),
    "temperature": ("Temperature", "0 takes the likeliest token; more adds chance. Both lanes."),
    "seed": ("Seed", "Makes chance repeatable. No effect at temperature 0."),
}
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
NOTHING = ""  # what tells the board nothing; Gradio cannot skip a component of our own
READ_FRAGMENT = "(_, ...kept) => [location.hash.slice(1), ...kept]"


def build(pair: str, device: str, dtype: str, traces: Path = TRACES) -> gr.Blocks:
    """The page, its models yet unloaded; ``pair`` is the one chosen at first."""
    known, recordings = examples(), gallery(traces)
    with gr.Blocks(
        title="D2F race",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, 3600),
    ) as demo:
        race, recording = gr.State(None), gr.State(None)
        problem = gr.State(known[next(iter(known))][0])
        # The secret only names the store: what a browser hands back is checked, not trusted.
        conversation = gr.BrowserState(None, storage_key="d2f-conversation", secret="d2f")
        fragment = gr.Textbox(visible="hidden")
        gr.HTML((STATIC / "header.html").read_text(encoding="utf-8"), elem_id="masthead")
        prompt, run, stop, fresh = _question(problem.value.prompt)
        follow, drop, talk = _talk()
        _examples(known, prompt, problem, follow)
        pair_box, settings = _settings(PAIRS[pair])
        board = RaceBoard()
        shown = [board, recording]
        changes = [*_share(recording, race, shown), *_gallery(recordings, race, shown)]
        fresh.click(_draw, None, [prompt, problem, follow], **QUIET)
        asked = [race, problem, prompt, follow, drop, conversation, pair_box, *settings]
        for trigger, retry in ((run.click, False), (prompt.submit, False), (talk[0].click, True)):
            change = trigger(
                partial(_race, device, dtype, retry, known),
                asked,
                [*shown, race, conversation, *([prompt] if retry else [])],
                trigger_mode="multiple",
                concurrency_limit=VISITORS,
                **QUIET,
            )
            changes.append(change)
        talk[1].click(_edit, [race, conversation], [prompt, conversation, follow, board], **QUIET)
        talk[2].click(_clear, race, [conversation, follow, board], **QUIET)
        talk[3].click(
            partial(_suggest, known), [problem, conversation], [prompt, follow, board], **QUIET
        )
        stop.click(_stop, race, queue=False, **QUIET)

        # Not a partial: Gradio looks for its request in the handler's own signature.
        def opened(fragment: str, saved: Any, request: gr.Request) -> list[Any]:
            return _open(recordings, pair, fragment, saved, dict(request.query_params))

        change = demo.load(
            opened,
            [fragment, conversation],
            [*shown, follow, prompt, pair_box, *settings],
            js=READ_FRAGMENT,
            concurrency_limit=VISITORS,
            **QUIET,
        )
        _charts(recording, [*changes, change])
        _benchmarks()
        add_endpoints(device, dtype)
    return demo.queue(api_open=False, max_size=QUEUE_SIZE)


def launch_options() -> dict[str, Any]:
    """Looks and locks of the page, for ``Blocks.launch``."""
    return {
        "theme": _theme(),
        "head": f"<style>{(STATIC / 'board.css').read_text(encoding='utf-8')}</style>",
        "favicon_path": STATIC / "logo.svg",
        "footer_links": [],
        "show_error": False,
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": "3mb",
        "state_session_capacity": SESSIONS,
    }


def _theme() -> gr.themes.Base:
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
    mono = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace")
    return gr.themes.Base(
        primary_hue="slate", neutral_hue="slate", radius_size="lg", font=sans, font_mono=mono
    )


# ---- layout


def _question(first: str) -> tuple[gr.Textbox, gr.Button, gr.Button, gr.Button]:
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
            info="On the conversation so far. Else Run starts afresh.",
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


def _examples(
    known: dict[str, list[Problem]], prompt: gr.Textbox, problem: gr.State, follow: gr.Checkbox
) -> None:
    """Example prompts by task; a click fills the box for a fresh start."""
    with gr.Row(elem_id="examples"):
        for name, problems in known.items():
            group = gr.Dataset(
                components=[prompt],
                samples=[[each.prompt] for each in problems],
                sample_labels=[each.prompt for each in problems],
                label=TASKS[name].title,
                type="index",
                min_width=230,
            )
            group.click(
                lambda index, problems=problems: (problems[index].prompt, problems[index], False),
                group,
                [prompt, problem, follow],
                queue=False,
                **QUIET,
            )


def _settings(pair: Pair) -> tuple[gr.Dropdown, list[gr.Number]]:
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        box = gr.Dropdown(
            [(each.title, each.name) for each in PAIRS.values()],
            value=pair.name,
            label="Model pair",
            info="The diffusion model and the autoregressive baseline it races.",
        )
        with gr.Row():
            fields = [
                gr.Number(getattr(pair.config, name), label=label, info=info, min_width=260)
                for name, (label, info) in EXPLAINED.items()
            ]
    box.input(_defaults, box, fields, **QUIET)
    return box, fields


def _share(recording: gr.State, race: gr.State, shown: list[Any]) -> list[Any]:
    """What to do with the race on the board; the link is copied by the board's own script."""
    with gr.Row(elem_id="share"):
        gr.Button("Copy link", size="sm", scale=0, min_width=150, elem_id="copy-link")
        save = gr.Button("Download trace", size="sm", scale=0, min_width=150, elem_id="save")
        load = gr.UploadButton(
            "Open trace",
            file_types=[".json"],
            size="sm",
            scale=0,
            min_width=150,
            elem_id="open",
        )
    save.click(_download, recording, shown[0], **QUIET)
    return [load.upload(_open_file, [race, load], shown, **QUIET)]


def _charts(recording: gr.State, changes: list[Any]) -> None:
    """Figures of the race on the board, drawn while they are looked at."""
    looking = gr.State(False)
    with gr.Accordion("Charts of this race", open=False, elem_id="charts") as panel:
        with gr.Row():
            plots = [gr.Plot(label=title, min_width=340) for title in TITLES]
    panel.expand(lambda race: (True, *_figures(race)), recording, [looking, *plots], **QUIET)
    panel.collapse(lambda: False, None, looking, queue=False, **QUIET)
    for change in changes:
        change.then(
            lambda race, open: _figures(race) if open else [gr.skip()] * len(TITLES),
            [recording, looking],
            plots,
            **QUIET,
        )


def _benchmarks() -> None:
    """Speed against accuracy of the committed benchmark, drawn when it is first looked at."""
    title = "Benchmarks: speed against accuracy"
    with gr.Accordion(title, open=False, elem_id="benchmarks") as panel:
        gr.Markdown(
            "Every point is a decoder on one task, or on all together, as committed in "
            "`assets/bench`; its settings show on hover. Headline figures and the machine they "
            "were measured on are in the README."
        )
        plot = gr.Plot(show_label=False)
    panel.expand(lambda: benchmark(read_results()), None, plot, **QUIET)


def _figures(recording: Recording | None) -> list[Any]:
    return figures(recording) if recording else [None] * len(TITLES)


def _gallery(recordings: list[Recording], race: gr.State, shown: list[Any]) -> list[Any]:
    if not recordings:
        return []
    with gr.Row(elem_id="gallery"):
        group = gr.Dataset(
            components=[gr.Textbox(visible=False)],
            samples=[[each.prompt] for each in recordings],
            sample_labels=[each.prompt for each in recordings],
            label="Recorded races",
            type="index",
        )
        show = group.click(
            partial(_show_known, recordings), [race, group], shown, queue=False, **QUIET
        )
    return [show]


# ---- what happens


def _defaults(pair: str) -> list[Any]:
    return [getattr(PAIRS[pair].config, name) for name in SETTINGS]


def _draw() -> tuple[str, Problem, bool]:
    problem = random_problem()
    return problem.prompt, problem, False


def _race(
    device: str,
    dtype: str,
    retry: bool,
    known: dict[str, list[Problem]],
    running: Race | None,
    problem: Problem,
    prompt: str,
    follow: bool,
    drop: bool,
    saved: Any,
    pair: str,
    *settings: Any,
) -> Iterator[tuple[Any, ...]]:
    """Runs a race, the visitor's only one: board, recording, race, conversation, prompt."""
    _stop(running)
    past = Conversation.from_dict(saved)
    if retry and past and past.turns:
        prompt, past = past.turns[-1].prompt, past.without_last()
    elif not follow:
        past = None
    asked = [*([turn.prompt for turn in past.turns] if past else ()), prompt.strip()]
    found = recognise(asked, _problems(problem, known))
    box = [prompt] if retry else []
    for told in tell(prompt, pair, settings, found, device, dtype, past, drop):
        conversation = told.conversation.to_dict() if told.conversation else gr.skip()
        kept = told.recording or gr.skip()
        yield told.packed, kept, told.race, conversation, *box
        box = [gr.skip()] if retry else []


def _problems(problem: Problem, known: dict[str, list[Problem]]) -> list[Problem]:
    return [problem, *(each for group in known.values() for each in group)]


def _edit(running: Race | None, saved: Any) -> tuple[Any, ...]:
    _stop(running)
    past = Conversation.from_dict(saved)
    if not past or not past.turns:
        return gr.skip(), gr.skip(), gr.skip(), _tell_error("There is no prompt to edit yet.")
    rest = past.without_last()
    return past.turns[-1].prompt, rest.to_dict(), bool(rest.turns), pack_now(recall(rest))


def _clear(running: Race | None) -> tuple[Any, ...]:
    _stop(running)
    return {}, False, pack_now(recall(None))  # a browser keeps its old value on None


def _suggest(known: dict[str, list[Problem]], problem: Problem, saved: Any) -> tuple[Any, ...]:
    past = Conversation.from_dict(saved)
    asked = [turn.prompt for turn in past.turns] if past else []
    found = recognise(asked, _problems(problem, known)) if asked else None
    if found is None or found.follow_up is None:
        text = "No follow-up is known for this conversation: try another problem, or type your own."
        return gr.skip(), gr.skip(), _tell_error(text)
    return found.follow_up, True, NOTHING


def _stop(race: Race | None) -> None:
    if race is not None:
        race.stop()


def _tell_error(text: str) -> str:
    return pack_now([{"kind": "error", "text": text}])


# ---- recorded races


def _show_known(
    recordings: list[Recording], running: Race | None, index: int
) -> tuple[str, Recording]:
    _stop(running)
    return pack_now(retell(recordings[index], trusted=True)), recordings[index]


def _download(recording: Recording | None) -> str:
    if recording is None:
        return _tell_error("There is no finished race to download yet.")
    try:
        text = recording.to_json()
    except RecordingError as error:
        return _tell_error(str(error))
    return pack_now([{"kind": "file", "name": "d2f-race.json", "text": text}])


def _open_file(running: Race | None, path: str | None) -> tuple[Any, Any]:
    if path is None:
        return NOTHING, gr.skip()
    try:
        recording = Recording.from_json(Path(path).read_bytes().decode("utf-8", "replace"))
        messages = retell(recording)
    except RecordingError as error:
        return _tell_error(str(error)), gr.skip()
    _stop(running)
    return pack_now(messages), recording


def _open(
    recordings: list[Recording], pair: str, fragment: str, saved: Any, query: dict[str, str]
) -> list[Any]:
    """What a visitor sees first: a linked race, their conversation, or a recorded race."""
    messages, recording, follow = [], gr.skip(), gr.skip()
    past = Conversation.from_dict(saved)
    filled, wrong = _prefilled(pair, query)
    if fragment.startswith("race="):
        try:
            linked = from_link(fragment.removeprefix("race="))
            messages, recording = retell(linked), linked
        except RecordingError as error:
            messages = [{"kind": "error", "text": str(error)}]
    elif wrong:
        messages = [{"kind": "error", "text": f"The address asks for what cannot be: {wrong}"}]
    elif past and past.turns:
        messages, follow = recall(past), True
    elif recordings:
        messages, recording = retell(recordings[0], trusted=True), recordings[0]
    return [pack_now(messages, opening=True), recording, follow, *filled]


def _prefilled(pair: str, query: dict[str, str]) -> tuple[list[Any], str]:
    """Values of prompt, pair and settings asked for by the address, and what is wrong with them."""
    untouched = [gr.skip()] * (2 + len(SETTINGS))
    try:
        name = query.get("pair", pair)
        if name not in PAIRS:
            raise ValueError(f"pair must be one of {sorted(PAIRS)}, got {name!r}")
        chosen = PAIRS[name]
        values = [_number(query[n]) if n in query else getattr(chosen.config, n) for n in SETTINGS]
        read_settings(chosen, values)
    except ValueError as error:
        return untouched, str(error)
    if not {"prompt", "pair", *SETTINGS} & set(query):
        return untouched, ""
    prompt = query["prompt"][:MAX_CHARACTERS] if "prompt" in query else gr.skip()
    return [prompt, chosen.name, *values], ""


def _number(text: str) -> float | None:
    return float(text) if text else None
