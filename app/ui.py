"""Layout and wiring of the page; what happens on Run is in ``run``, what is drawn in ``static``."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from d2f.bench.report import read_results
from d2f.config import ARConfig, D2FConfig, settings_of
from d2f.errors import D2FError
from d2f.tasks import TASKS, Problem

from .api import add_endpoints
from .charts import TITLES, benchmark, figures, point_label, points
from .components import STATIC, RaceBoard
from .conversation import Conversation
from .gallery import TRACES, gallery
from .lanes import Host
from .link import from_link
from .prompts import MAX_CHARACTERS, examples, random_problem, recognise
from .quota import Quota
from .recording import Recording, RecordingError
from .run import SETTINGS, pack_now, read_settings, recall, retell, tell
from .store import UNKNOWN, Store, StoreError, publish, published
from .visitors import Visitor, Visitors, visitor

QUEUE_SIZE = 32
VISITORS = QUEUE_SIZE  # who waits for the device waits in our line, which says how long it is
SESSIONS = 500
PUBLISHED_AN_HOUR = 20  # by one visitor
PUBLISHED_TOGETHER = 200  # an hour, by all
PUBLIC = (
    "**Publish** stores the prompt, both answers, what was said before them, the measured times "
    "and the machine's name for whoever has the short link. This page cannot take them back."
)
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
Shown = tuple[list[dict[str, Any]], Recording]  # a race and the messages that replay it
NOTHING = ""  # what tells the board nothing; Gradio cannot skip a component of our own
LINK = "race="  # how a fragment that holds a race begins
READ_FRAGMENT = "(_, ...kept) => [location.hash.slice(1), ...kept]"


def build(pair: str, host: Host, traces: Path = TRACES, store: Store | None = None) -> gr.Blocks:
    """The page, its models yet unloaded; ``pair`` is the one chosen at first.

    Without a ``store`` nothing can be published.
    """
    known, recordings = examples(), _told_once(gallery(traces))
    with gr.Blocks(
        title="D2F race",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, 3600),
    ) as demo:
        visitors = Visitors()
        recording = gr.State(None)
        problem = gr.State(known[next(iter(known))][0])
        # The secret only names the store: what a browser hands back is checked, not trusted.
        conversation = gr.BrowserState(None, storage_key="d2f-conversation", secret="d2f")
        fragment = gr.Textbox(visible="hidden")
        # Clicked by the board's script when the address of the open page gets another link.
        opener = gr.Button("Open the address's link", visible="hidden", elem_id="opener")
        gr.HTML((STATIC / "header.html").read_text(encoding="utf-8"), elem_id="masthead")
        prompt, run, stop, fresh = _question(problem.value.prompt)
        follow, drop, talk = _talk()
        _examples(known, prompt, problem, follow)
        pair_box, settings = _settings(pair, host)
        board = RaceBoard()
        shown = [board, recording]
        _share(recording, visitors, shown, store)
        _gallery(recordings, visitors, shown)
        fresh.click(_draw, None, [prompt, problem, follow], **QUIET)
        asked = [problem, prompt, follow, drop, conversation, pair_box, *settings]

        # Not partials: Gradio looks for its request in the handler's own signature.
        def ran(request: gr.Request, *asked: Any) -> Iterator[tuple[Any, ...]]:
            yield from _race(visitors, visitor(request), host, False, known, *asked)

        def ran_again(request: gr.Request, *asked: Any) -> Iterator[tuple[Any, ...]]:
            yield from _race(visitors, visitor(request), host, True, known, *asked)

        told = [*shown, conversation]
        runs = ((run.click, ran, told), (prompt.submit, ran, told))
        for trigger, handler, outputs in (*runs, (talk[0].click, ran_again, [*told, prompt])):
            trigger(
                handler,
                asked,
                outputs,
                trigger_mode="multiple",
                concurrency_limit=VISITORS,
                **QUIET,
            )
        talk[1].click(
            _stopping(visitors, _edit),
            conversation,
            [prompt, conversation, follow, board],
            **QUIET,
        )
        talk[2].click(_stopping(visitors, _clear), None, [conversation, follow, board], **QUIET)
        talk[3].click(
            partial(_suggest, known), [problem, conversation], [prompt, follow, board], **QUIET
        )
        stop.click(_stopping(visitors, lambda stop: stop()), queue=False, **QUIET)

        # Not a partial: Gradio looks for its request in the handler's own signature.
        def opened(fragment: str, saved: Any, request: gr.Request) -> list[Any]:
            query = dict(request.query_params)
            return _open(recordings, pair, host, store, fragment, saved, query)

        demo.load(
            opened,
            [fragment, conversation],
            [*shown, follow, prompt, pair_box, *settings],
            js=READ_FRAGMENT,
            concurrency_limit=VISITORS,
            **QUIET,
        )
        opener.click(
            _stopping(visitors, _open_link),
            fragment,
            shown,
            js=READ_FRAGMENT,
            trigger_mode="always_last",  # of two links in a row, the later one stays
            concurrency_limit=VISITORS,
            **QUIET,
        )
        _charts(recording)
        _benchmarks(settings)
        add_endpoints(host, pair, visitors)
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
        "max_threads": 2 * QUEUE_SIZE + 16,
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


def _settings(chosen: str, host: Host) -> tuple[gr.Dropdown, list[gr.Number]]:
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
        with gr.Row():
            fields = [_field(name, getattr(host.pair(chosen).config, name)) for name in SETTINGS]
    box.input(partial(_defaults, host), box, fields, **QUIET)
    return box, fields


def _field(name: str, value: float | None) -> gr.Number:
    """A setting's box; those of the AR lane's decoder hold for both."""
    setting = settings_of(D2FConfig)[name]
    both = " Both lanes." if name in settings_of(ARConfig) else ""
    return gr.Number(value, label=setting.label, info=setting.text + both, min_width=260)


def _share(recording: gr.State, visitors: Visitors, shown: list[Any], store: Store | None) -> None:
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
        if store is not None:
            _publishing(store, recording, shown[0])
    save.click(_download, recording, shown[0], **QUIET)
    load.upload(_stopping(visitors, _open_file), load, shown, **QUIET)


def _publishing(store: Store, recording: gr.State, board: RaceBoard) -> None:
    """The button that publishes the race on the board, and what that makes public."""
    quota = Quota(PUBLISHED_AN_HOUR, PUBLISHED_TOGETHER, seconds=3600)

    # Not a partial: Gradio looks for its request in the handler's own signature.
    def publish_for(recording: Recording | None, request: gr.Request) -> str:
        return _publish(store, quota, visitor(request), recording)

    button = gr.Button("Publish", size="sm", scale=0, min_width=150, elem_id="publish")
    gr.Markdown(PUBLIC, elem_id="public")
    button.click(publish_for, recording, board, **QUIET)


def _charts(recording: gr.State) -> None:
    """Figures of the race on the board, drawn while they are looked at."""
    with gr.Accordion("Charts of this race", open=False, elem_id="charts") as panel:
        with gr.Row():
            plots = [gr.Plot(label=title, min_width=340) for title in TITLES]
    # Clicked by the board's script when a race ends while the panel is open. Asked here after every
    # race instead, the server would be at work while the next visitor's is measured.
    redraw = gr.Button("Draw the charts of this race", visible="hidden", elem_id="redraw")
    for looked_at in (panel.expand, redraw.click):
        looked_at(
            _figures,
            recording,
            plots,
            trigger_mode="always_last",  # of two races in a row, the later one's stay
            concurrency_limit=VISITORS,
            **QUIET,
        )


def _benchmarks(settings: list[gr.Number]) -> None:
    """Speed against accuracy of the committed benchmarks; a setting measured there can be raced."""
    results = read_results()
    measured = points(results)
    title = "Benchmarks: speed against accuracy"
    with gr.Accordion(title, open=False, elem_id="benchmarks") as panel:
        gr.Markdown(
            "Every point is a decoder at one setting, as committed in `assets/bench`; what it was "
            "measured at shows on hover. Points of one file were measured side by side in one run. "
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
    panel.expand(lambda: benchmark(results), None, plots, **QUIET)
    load.click(
        lambda index: [measured[index]["config"][name] for name in SETTINGS],
        load,
        settings,
        queue=False,
        **QUIET,
    )


def _figures(recording: Recording | None) -> list[Any]:
    return figures(recording) if recording else [None] * len(TITLES)


def _gallery(recordings: list[Shown], visitors: Visitors, shown: list[Any]) -> None:
    if not recordings:
        return
    with gr.Row(elem_id="gallery"):
        group = gr.Dataset(
            components=[gr.Textbox(visible=False)],
            samples=[[each.prompt] for _, each in recordings],
            sample_labels=[each.prompt for _, each in recordings],
            label="Recorded races",
            type="index",
        )
        show = _stopping(visitors, partial(_show_known, recordings))
        group.click(show, group, shown, queue=False, **QUIET)


# ---- what happens


def _stopping(visitors: Visitors, handle: Callable[..., Any]) -> Callable[..., Any]:
    """A handler that is given, before its inputs, what ends the visitor's run."""

    # Not a partial: Gradio looks for its request in the handler's own signature.
    def handled(request: gr.Request, *values: Any) -> Any:
        return handle(partial(visitors.stop, visitor(request).session), *values)

    return handled


def _defaults(host: Host, pair: str) -> list[Any]:
    return [getattr(host.pair(pair).config, name) for name in SETTINGS]


def _draw() -> tuple[str, Problem, bool]:
    problem = random_problem()
    return problem.prompt, problem, False


def _race(
    visitors: Visitors,
    asking: Visitor,
    host: Host,
    retry: bool,
    known: dict[str, list[Problem]],
    problem: Problem,
    prompt: str,
    follow: bool,
    drop: bool,
    saved: Any,
    pair: str,
    *settings: Any,
) -> Iterator[tuple[Any, ...]]:
    """Runs a race, the visitor's only one: board, recording, conversation, prompt."""
    past = Conversation.from_dict(saved)
    if retry and past and past.turns:
        prompt, past = past.turns[-1].prompt, past.without_last()
    elif not follow:
        past = None
    asked = [*([turn.prompt for turn in past.turns] if past else ()), (prompt or "").strip()]
    found = recognise(asked, _problems(problem, known))
    box = [prompt] if retry else []
    try:
        with visitors.run(asking) as stop:
            for told in tell(prompt, pair, settings, found, host, past, drop, stop):
                conversation = told.conversation.to_dict() if told.conversation else gr.skip()
                yield told.packed, told.recording or gr.skip(), conversation, *box
                box = [gr.skip()] if retry else []
    except D2FError as error:
        yield _tell_error(str(error)), gr.skip(), gr.skip(), *box


def _problems(problem: Problem, known: dict[str, list[Problem]]) -> list[Problem]:
    return [problem, *(each for group in known.values() for each in group)]


def _edit(stop: Callable[[], None], saved: Any) -> tuple[Any, ...]:
    stop()
    past = Conversation.from_dict(saved)
    if not past or not past.turns:
        return gr.skip(), gr.skip(), gr.skip(), _tell_error("There is no prompt to edit yet.")
    rest = past.without_last()
    return past.turns[-1].prompt, rest.to_dict(), bool(rest.turns), pack_now(recall(rest))


def _clear(stop: Callable[[], None]) -> tuple[Any, ...]:
    stop()
    return {}, False, pack_now(recall(None))  # a browser keeps its old value on None


def _suggest(known: dict[str, list[Problem]], problem: Problem, saved: Any) -> tuple[Any, ...]:
    past = Conversation.from_dict(saved)
    asked = [turn.prompt for turn in past.turns] if past else []
    found = recognise(asked, _problems(problem, known)) if asked else None
    if found is None or found.follow_up is None:
        text = "No follow-up is known for this conversation: try another problem, or type your own."
        return gr.skip(), gr.skip(), _tell_error(text)
    return found.follow_up, True, NOTHING


def _tell_error(text: str) -> str:
    return pack_now([{"kind": "error", "text": text}])


# ---- recorded races


def _told_once(recordings: list[Recording]) -> list[Shown]:
    """The page's own races, told at its start: telling takes ten times as long as packing."""
    return [(retell(each, trusted=True), each) for each in recordings]


def _show_known(
    recordings: list[Shown], stop: Callable[[], None], index: int
) -> tuple[str, Recording]:
    stop()
    messages, recording = recordings[index]
    return pack_now(messages), recording


def _download(recording: Recording | None) -> str:
    if recording is None:
        return _tell_error("There is no finished race to download yet.")
    try:
        text = recording.to_json()
    except RecordingError as error:
        return _tell_error(str(error))
    return pack_now([{"kind": "file", "name": "d2f-race.json", "text": text}])


def _open_file(stop: Callable[[], None], path: str | None) -> tuple[Any, Any]:
    if path is None:
        return NOTHING, gr.skip()
    content = Path(path).read_bytes().decode("utf-8", "replace")
    return _take_board(stop, Recording.from_json, content)


def _open_link(stop: Callable[[], None], fragment: str) -> tuple[Any, Any]:
    """The link that the address of the open page was given."""
    if not fragment.startswith(LINK):
        return NOTHING, gr.skip()
    return _take_board(stop, from_link, fragment.removeprefix(LINK))


def _take_board(
    stop: Callable[[], None], read: Callable[[str], Recording], text: str
) -> tuple[Any, Any]:
    """A race in place of what is on the board, a running one too; refused, it changes nothing."""
    try:
        recording = read(text)
        messages = retell(recording)
    except RecordingError as error:
        return _tell_error(str(error)), gr.skip()
    stop()
    return pack_now(messages), recording


def _publish(store: Store, quota: Quota, asking: Visitor, recording: Recording | None) -> str:
    if recording is None:
        return _tell_error("There is no finished race to publish yet.")
    # A reload makes a new session, but no new address. One behind a proxy has only the session.
    if not quota.take(asking.address or asking.session):
        return _tell_error("Too many races were published in the last hour. Try again later.")
    try:
        race_id = publish(store, recording)
    except D2FError as error:
        return _tell_error(str(error))
    return pack_now([{"kind": "published", "id": race_id, "prompt": recording.prompt}])


def _linked(store: Store | None, fragment: str, query: dict[str, str]) -> Recording | None:
    """The race that the address holds or names; ``ValueError`` if it does not open."""
    if fragment.startswith(LINK):
        return from_link(fragment.removeprefix(LINK))
    if "race" not in query:
        return None
    if store is None:
        raise StoreError(UNKNOWN)
    return published(store, query["race"])


def _told_link(store: Store | None, fragment: str, query: dict[str, str]) -> tuple[list[Any], Any]:
    """Messages for the race of the address and the race itself, or why it does not open."""
    try:
        linked = _linked(store, fragment, query)
        return (retell(linked), linked) if linked is not None else ([], gr.skip())
    except D2FError as error:
        return [{"kind": "error", "text": str(error)}], gr.skip()


def _open(
    recordings: list[Shown],
    pair: str,
    host: Host,
    store: Store | None,
    fragment: str,
    saved: Any,
    query: dict[str, str],
) -> list[Any]:
    """What a visitor sees first: a linked race, their conversation, or a recorded race."""
    (messages, recording), follow = _told_link(store, fragment, query), gr.skip()
    past = Conversation.from_dict(saved)
    filled, wrong = _prefilled(pair, host, query)
    if messages:
        pass  # a link goes before everything else
    elif wrong:
        messages = [{"kind": "error", "text": f"The address asks for what cannot be: {wrong}"}]
    elif past and past.turns and past.pair in host.pairs and not _asks(query):
        messages, follow = recall(past), True
        if past.pair != pair:
            filled = [gr.skip(), past.pair, *_defaults(host, past.pair)]
    elif recordings:
        messages, recording = recordings[0]
    return [pack_now(messages, opening=True), recording, follow, *filled]


def _prefilled(pair: str, host: Host, query: dict[str, str]) -> tuple[list[Any], str]:
    """Values of prompt, pair and settings asked for by the address, and what is wrong with them."""
    untouched = [gr.skip()] * (2 + len(SETTINGS))
    try:
        name = query.get("pair", pair)
        chosen = host.pair(name)
        values = [_number(query[n]) if n in query else getattr(chosen.config, n) for n in SETTINGS]
        read_settings(chosen, values)
    except D2FError as error:
        return untouched, str(error)
    if not _asks(query):
        return untouched, ""
    prompt = query["prompt"][:MAX_CHARACTERS] if "prompt" in query else gr.skip()
    return [prompt, chosen.name, *values], ""


def _asks(query: dict[str, str]) -> bool:
    """Whether an address asks for a fresh start with values of its own."""
    return not query.keys().isdisjoint(("prompt", "pair", *SETTINGS))


def _number(text: str) -> float | None:
    return float(text) if text else None
