"""Layout and wiring of the page; what happens on Run is in ``run``, what is drawn in ``static``."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from app.components import STATIC, RaceBoard
from app.prompts import MAX_CHARACTERS, examples, random_problem
from app.race import Race
from app.run import SETTINGS, tell
from d2f.registry import PAIRS, Pair
from d2f.tasks import TASKS, Problem

QUEUE_SIZE = 32
VISITORS = 16
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


def build(pair: str, device: str, dtype: str) -> gr.Blocks:
    """The page, its models yet unloaded; ``pair`` is the one chosen at first."""
    known = examples()
    with gr.Blocks(title="D2F race", analytics_enabled=False, fill_width=True) as demo:
        race, problem = gr.State(None), gr.State(known[next(iter(known))][0])
        gr.HTML((STATIC / "header.html").read_text(encoding="utf-8"), elem_id="masthead")
        prompt, run, stop, fresh = _question(problem.value.prompt)
        fresh.click(
            _draw, None, [prompt, problem], show_progress="hidden", api_visibility="private"
        )
        _examples(known, prompt, problem)
        pair_box, settings = _settings(PAIRS[pair])
        board = RaceBoard()
        gr.on(
            [run.click, prompt.submit],
            partial(_race, device, dtype),
            [problem, prompt, pair_box, *settings],
            [board, race],
            show_progress="hidden",
            trigger_mode="once",
            concurrency_limit=VISITORS,
            api_visibility="private",
        )
        stop.click(_stop, race, queue=False, show_progress="hidden", api_visibility="private")
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
    }


def _theme() -> gr.themes.Base:
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
    mono = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace")
    return gr.themes.Base(
        primary_hue="slate", neutral_hue="slate", radius_size="lg", font=sans, font_mono=mono
    )


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


def _examples(known: dict[str, list[Problem]], prompt: gr.Textbox, problem: gr.State) -> None:
    """Example prompts by task; a click fills the box and remembers the problem's solution."""
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
                lambda index, problems=problems: (problems[index].prompt, problems[index]),
                group,
                [prompt, problem],
                queue=False,
                show_progress="hidden",
                api_visibility="private",
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
    box.input(_defaults, box, fields, show_progress="hidden", api_visibility="private")
    return box, fields


def _defaults(pair: str) -> list[Any]:
    return [getattr(PAIRS[pair].config, name) for name in SETTINGS]


def _draw() -> tuple[str, Problem]:
    problem = random_problem()
    return problem.prompt, problem


def _race(
    device: str, dtype: str, problem: Problem, prompt: str, pair: str, *settings: Any
) -> Iterator[tuple[str, Race | None]]:
    asked = problem if prompt.strip() == problem.prompt else None
    yield from tell(prompt, pair, settings, asked, device, dtype)


def _stop(race: Race | None) -> None:
    if race is not None:
        race.stop()
