"""What a trained model is worth, and the card that ships in its folder.

``training.json`` keeps the facts: every stage of training (settings, tokens, wall time, machine,
loss curve) and the accuracy per held-out task. ``README.md`` is rendered from it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from d2f.catalogue.pairs import PAIRS
from d2f.config import DecodeConfig, VanillaConfig, config_to_dict, decoder_name
from d2f.decode import generate
from d2f.machine import machine, versions
from d2f.model import Model
from d2f.strict_json import from_json, to_json
from d2f.tasks import TALK, TASKS, draw
from d2f.train.recipes import DRILLS, MIXTURES, Recipe

SEED = 7
CURVE_POINTS = 60
CANVAS = 192
# The decoder that each objective trains for.
DECODERS = {"causal": "ar", "masked": "vanilla", "mixed": "vanilla", "blocks": "d2f"}
# What a model has read, by the mixture of its last stage.
KNOWS = {
    "mini": "It knows the grammars of `d2f.tasks` and nothing else.",
    "talk": "It knows the content of `d2f.tasks` and nothing else: about two hundred things to "
    "talk about, facts, short stories and other small texts, sums, sudokus and Python functions. "
    "It is no general chatbot. Every sentence it has read was written for this repository and is "
    "under its licence, Apache-2.0; none was taken from another project. Tests compare the facts "
    "with countryinfo (MIT), pycountry (LGPL-2.1), periodictable (public domain) and inflect "
    "(MIT), none of which is a source of training text.",
}


@dataclass(frozen=True)
class Score:
    """Accuracy over ``problems`` held-out problems of a task, greedy, and what decoding took."""

    task: str
    problems: int
    accuracy: float
    tokens_per_forward: float


def evaluate(
    model: Model, recipe: Recipe, config: DecodeConfig, problems: int, seed: int = SEED
) -> list[Score]:
    """Scores on the first turns of a held-out stream, for each task of the recipe's mixture."""
    scores = []
    known = TASKS | TALK
    for task in (name for name in MIXTURES[recipe.mixture] if name != DRILLS):
        correct = tokens = forwards = 0
        stream = islice(draw(task, "test", seed), problems)
        for problem in tqdm(stream, desc=task, total=problems, leave=False):
            trace = generate(model, model.tokenizer.encode_chat(problem.messages()), config)
            correct += known[task].score(problem, trace.text)
            tokens, forwards = tokens + trace.tokens, forwards + trace.forwards
        scores.append(Score(task, problems, correct / problems, tokens / forwards))
    return scores


def evaluation_config(recipe: Recipe) -> DecodeConfig:
    """Settings of the embedded pair for what a model was trained to do.

    Vanilla decoding gets a canvas as long as the longest answers: on 512 tokens a problem takes
    half a minute.
    """
    config = PAIRS["mini"].lanes[DECODERS[recipe.objective]][1]
    return replace(config, max_new_tokens=CANVAS) if isinstance(config, VanillaConfig) else config


def stage(recipe: dict[str, Any], tokens: int, seconds: float, log: Path) -> dict[str, Any]:
    """One stage of training as the card tells it; the loss curve thinned to some sixty points."""
    # Names, not paths: a card is read on other machines.
    origin = {key: Path(recipe[key]).name for key in ("init", "teacher") if recipe[key]}
    entries = [from_json(line) for line in log.read_text().splitlines()] if log.is_file() else []
    every = max(1, len(entries) // CURVE_POINTS)
    return {
        "recipe": recipe | origin,
        "tokens": tokens,
        "hours": round(seconds / 3600, 2),
        "machine": machine(),
        "versions": versions(),
        "curve": [[entry["tokens"], entry["loss"]] for entry in entries[::every]],
    }


def mean_stage(count: int) -> dict[str, Any]:
    """The stage in which the weights after the last ``count`` stages were averaged."""
    told = {"machine": machine(), "versions": versions()}
    return {"recipe": {"mean_of_stages": count}, "tokens": 0, "hours": 0.0, **told, "curve": []}


def write_card(
    folder: Path, stages: Sequence[dict[str, Any]], config: DecodeConfig, scores: Sequence[Score]
) -> None:
    """Write ``training.json`` and the ``README.md`` rendered from it."""
    facts = {
        "model": folder.name,
        "stages": list(stages),
        "evaluation": {
            "decoder": decoder_name(config),
            "config": config_to_dict(config),
            "seed": SEED,
            "scores": [asdict(score) for score in scores],
        },
    }
    (folder / "training.json").write_text(to_json(facts) + "\n")
    (folder / "README.md").write_text(render(facts))


def earlier_stages(folder: Path) -> list[dict[str, Any]]:
    """The stages a model folder already tells of."""
    path = folder / "training.json"
    return from_json(path.read_text())["stages"] if path.is_file() else []


def render(facts: dict[str, Any]) -> str:
    """The card, as Markdown."""
    evaluation = facts["evaluation"]
    tokens = sum(stage["tokens"] for stage in facts["stages"])
    hours = sum(stage["hours"] for stage in facts["stages"])
    read = [part["recipe"].get("mixture") for part in facts["stages"]]
    knows = KNOWS[next(filter(None, reversed(read)), "mini")]
    lines = [
        "---",
        "license: apache-2.0",
        "pipeline_tag: text-generation",
        "---",
        f"# {facts['model']}",
        "",
        f"An embedded model of this repository, trained by `python -m d2f train {facts['model']}`",
        f"on {tokens:,} tokens in {hours:.2f} hours of computing. {knows}",
        "",
        "| held-out task | problems | accuracy | tokens per forward |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {s['task']} | {s['problems']} | {100 * s['accuracy']:.1f} % "
        f"| {s['tokens_per_forward']:.2f} |"
        for s in evaluation["scores"]
    ]
    settings = ", ".join(f"{k}={v}" for k, v in evaluation["config"].items())
    lines += [
        "",
        f"Decoder `{evaluation['decoder']}`, greedy, problem seed {evaluation['seed']}: "
        f"{settings}.",
        "",
        "## Training",
        "",
    ]
    for number, part in enumerate(facts["stages"], 1):
        if "mean_of_stages" in part["recipe"]:
            count = part["recipe"]["mean_of_stages"]
            lines.append(f"{number}. The mean of the weights after the {count} stages before.")
            continue
        recipe = ", ".join(f"{k}={v}" for k, v in part["recipe"].items())
        where, precision = part["machine"], part["recipe"].get("precision", "float32")
        lines += [
            f"{number}. {part['tokens']:,} tokens in {part['hours']} h on {where['cpu']}, "
            f"{where['threads']} threads, {precision}, torch {part['versions']['torch']}. "
            f"Last logged loss {part['curve'][-1][1] if part['curve'] else 'unknown'}. "
            f"Settings: {recipe}.",
        ]
    return "\n".join(lines) + "\n"
