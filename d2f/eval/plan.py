"""What a command line asks for, before any model is loaded and without the harness."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from d2f.bench.lanes import Entry, entries, swept
from d2f.catalogue.pairs import (
    PAIRS,
    PUBLISHED_PAIRS,
    catalogue_decoder,
    model_folder,
    model_name,
)
from d2f.catalogue.published import PUBLISHED
from d2f.checkpoints.config_json import model_config
from d2f.checkpoints.resolve import HUB_ID
from d2f.cli.options import given_diffusion
from d2f.config import CONFIGS, settings_of
from d2f.errors import InvalidInput
from d2f.eval import suites
from d2f.eval.protocol import PAPER, Preset, known_lanes, presets, repository
from d2f.model_files import read_json
from d2f.policy import KINDS
from d2f.shape import Diffusion, ModelConfig


def listed(texts: Sequence[str]) -> list[str]:
    """Values with commas or spaces between them."""
    return [each for text in texts for each in text.split(",") if each]


def limits(texts: Sequence[str]) -> dict[str, int]:
    """Problems a task by decoder; "" is for all others."""
    found = {}
    for text in texts:
        decoder, _, number = text.rpartition("=")
        if decoder and decoder not in CONFIGS:
            raise InvalidInput(f"--limit: no decoder {decoder!r}; there are {', '.join(CONFIGS)}")
        if not number.isdecimal() or int(number) < 1:
            raise InvalidInput(f"--limit must be an integer >= 1, got {number!r}")
        found[decoder] = int(number)
    return found


def local_data(texts: Sequence[str]) -> dict[str, Path]:
    """Files by task and split."""
    found = {}
    for text in texts:
        task, equals, file = text.partition("=")
        if not equals or not task:
            raise InvalidInput(f"--data must be TASK=FILE or TASK:SPLIT=FILE, got {text!r}")
        if not Path(file).is_file():
            raise InvalidInput(f"--data: there is no file {file!r}")
        found[task] = Path(file)
    return found


def with_decoders(sweeps: Sequence[str], decoders: Sequence[str]) -> Iterator[str]:
    """Sweeps with the decoders named that they are for: where none is, all that have the setting.

    Raises:
        InvalidInput: none has.
    """
    for text in sweeps:
        target = text.partition("=")[0]
        if "." in target:
            yield text
            continue
        having = [d for d in dict.fromkeys(decoders) if target in settings_of(CONFIGS[d])]
        if not having:
            raise InvalidInput(f"--sweep: no decoder of this run has a setting {target!r}")
        yield from (f"{decoder}.{text}" for decoder in having)


def lanes(args: argparse.Namespace, task: str, preset: Preset | None) -> list[Entry]:
    """The lanes of the command line for a task, before any model is loaded."""
    known = known_lanes(args.model, task, preset, own_config(args.model, given_diffusion(args)))
    asked = [text.partition("@") for text in listed(args.decoders)] or [(own_decoder(args), "", "")]
    names = [decoder for decoder, _, _ in asked]
    for name in names:
        if name not in CONFIGS:
            raise InvalidInput(f"no decoder {name!r}; there are {', '.join(CONFIGS)}")
    by_name = {entry.decoder: entry for entry in entries(known, names, settings=args.set)}
    base = [
        replace(by_name[decoder], model=model) if model else by_name[decoder]
        for decoder, _, model in asked
    ]
    every = list(dict.fromkeys([*base, *swept(base, list(with_decoders(args.sweep, names)))]))
    for entry in every:
        check_kind(entry, given_diffusion(args) if entry.model == args.model else Diffusion())
    return every


def own_decoder(args: argparse.Namespace) -> str:
    """The decoder that the model is made for."""
    found = catalogue_decoder(model_name(args.model), PAIRS | PUBLISHED_PAIRS)
    if found is None:
        own = own_config(args.model, given_diffusion(args))
        if own is None:
            raise InvalidInput(f"model {args.model!r} is in no pair of the catalogue: --decoders")
        found = "ar" if own.causal else "d2f"
    return found


def own_config(model: str, given: Diffusion) -> ModelConfig | None:
    """What a model's files tell; None: they are not here yet."""
    if model in PUBLISHED or (HUB_ID.fullmatch(model) and not Path(model).is_dir()):
        return None
    return model_config(read_json(model_folder(model) / "config.json"), given)


def check_kind(entry: Entry, given: Diffusion) -> None:
    """``InvalidInput`` for a model that the decoder cannot run."""
    needed, own = KINDS[entry.decoder].causal, own_config(entry.model, given)
    causal = PUBLISHED[entry.model].decoder == "ar" if entry.model in PUBLISHED else needed
    if (causal if own is None else own.causal) != needed:
        kind = "a causal" if needed else "a diffusion"
        raise InvalidInput(
            f"decoder {entry.decoder!r} needs {kind} model; {entry.model!r} is not one: "
            f"name another, as in --decoders {entry.decoder}@MODEL"
        )


def asked_tasks(args: argparse.Namespace) -> dict[str, tuple[str, Preset | None]]:
    """What the result calls each task, with the harness's name of it and the paper's preset."""
    names = listed(args.tasks)
    if args.protocol == PAPER:
        known = presets(args.model)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InvalidInput(f"the paper has no task {unknown[0]!r}; it has {', '.join(known)}")
        return {name: (known[name].task, known[name]) for name in names or known}
    if not names:
        if repository(args.model) is not None:
            raise InvalidInput("--tasks: name tasks of the harness, such as gsm8k")
        names = [suites.SUITE]
    return {each: (each, None) for name in names for each in suites.names(name) or [name]}
