"""Decoding settings as text: options of the command lines, made from the config types themselves.

A field added to a config becomes an option by itself. Knows no decoder, no model and no tensor.
"""

import argparse
from dataclasses import replace
from types import NoneType
from typing import Any, NoReturn

from d2f.config import (
    CONFIGS,
    GRIDS,
    D2FConfig,
    DecodeConfig,
    decoder_name,
    settings_of,
    value_kinds,
)
from d2f.errors import InvalidInput
from d2f.run_options import RunOptions
from d2f.shape import Diffusion

DTYPE_NAMES = ("bfloat16", "float16", "float32")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage; full option names only."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help tells the options)\n")


def positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def whole(text: str) -> int:
    """An argument that counts something, or nothing."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer >= 0, got {text!r}")
    return int(text)


def parse_setting(decoder: str, name: str, text: str) -> int | float | bool | str | None:
    """The value of a decoder's setting from what a person typed; ``ValueError`` says what is wrong.

    The config that takes the value checks its range.
    """
    known = settings_of(CONFIGS[decoder])
    if name not in known:
        raise InvalidInput(
            f"decoder {decoder!r} has no setting {name!r}; it has {', '.join(known)}"
        )
    kinds = value_kinds(CONFIGS[decoder], name)
    word = text.strip().lower()
    if word == "none" and NoneType in kinds:
        return None
    if str in kinds:
        return word
    if bool in kinds:
        if word in ("true", "false"):
            return word == "true"
        raise InvalidInput(f"{name} must be true or false, got {text!r}")
    try:
        return float(word) if float in kinds else int(word)
    except ValueError:
        rule = "a number" if float in kinds else "an integer"
        rule += " or none" if NoneType in kinds else ""
        raise InvalidInput(f"{name} must be {rule}, got {text!r}") from None


def apply_settings(config: DecodeConfig, settings: dict[str, str]) -> DecodeConfig:
    """The config with typed settings in place of its own."""
    decoder = decoder_name(config)
    values: dict[str, Any] = {k: parse_setting(decoder, k, v) for k, v in settings.items()}
    return replace(config, **values)


def add_setting_options(parser: argparse.ArgumentParser) -> None:
    """One option a config field, grouped by the decoders that have it; unset ones stay absent."""
    owners: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for decoder, kind in CONFIGS.items():
        for name, setting in settings_of(kind).items():
            owners.setdefault(name, []).append(decoder)
            texts.setdefault(name, setting.text)
    for decoders in dict.fromkeys(map(tuple, owners.values())):
        group = parser.add_argument_group(f"settings of decoder {', '.join(decoders)}")
        for name in (name for name, having in owners.items() if tuple(having) == decoders):
            option, text = f"--{name.replace('_', '-')}", texts[name]
            group.add_argument(option, metavar="X", default=argparse.SUPPRESS, help=text)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """How a model is run; no choice here changes what decoding means.

    Each may change a text all the same: by its rounding, compiled steps in half precision included.

    What cannot run on the machine is refused when the model is loaded.
    """
    add = parser.add_argument
    add("--device", default="cpu", help="torch device (default: %(default)s)")
    add(
        "--dtype",
        choices=DTYPE_NAMES,
        help="default: on a CPU the fastest, as timed at a model's first start, that keeps its "
        "accuracy; bfloat16 on a GPU and, for published models, on CPUs made for it",
    )
    add("--threads", type=positive, help="torch threads (default: the fastest number, as timed)")
    add("--recalibrate", action="store_true", help="time a model anew, where its times are kept")
    add(
        "--attention",
        choices=("auto", "sdpa", "flash", "flex"),
        default="auto",
        help="how to compute attention (default: flash on a GPU that has flash-attn, else sdpa)",
    )
    add(
        "--quantize",
        choices=("int8", "int4"),
        help="weights of 8 bits (needs torchao) or 4 (bitsandbytes): for memory, not for racing",
    )
    add(
        "--compile",
        action="store_true",
        help="make the steps ahead of the clock: on a GPU captured as CUDA graphs, in seconds; "
        "on a CPU compiled, in minutes",
    )
    add(
        "--fuse",
        action="store_true",
        help="on a GPU, have torch compile what the graphs hold, in minutes; implies --compile",
    )


def add_diffusion_options(parser: argparse.ArgumentParser, *, grid: bool) -> None:
    """How a diffusion model is decoded, where neither its files nor the catalogue say so.

    ``grid``: with its option, which elsewhere is a setting of decoder d2f.
    """
    group = parser.add_argument_group("a diffusion model whose files do not say how it decodes")
    group.add_argument("--mask-id", type=int, metavar="N", help="the id of its mask token")
    group.add_argument(
        "--logit-shift",
        choices=("true", "false"),
        help="whether position i is predicted from row i - 1",
    )
    if grid:
        group.add_argument("--grid", choices=GRIDS, help=settings_of(D2FConfig)["grid"].text)


def given_diffusion(args: argparse.Namespace) -> Diffusion:
    """What the command line was given of it."""
    shift = None if args.logit_shift is None else args.logit_shift == "true"
    return Diffusion(mask_id=args.mask_id, logit_shift=shift, grid=getattr(args, "grid", None))


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """``--set DECODER.SETTING=VALUE``, of programs that run several decoders."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="DECODER.SETTING=VALUE",
        help="override a setting of one decoder; may be repeated",
    )


def chosen_options(args: argparse.Namespace) -> RunOptions:
    """What the command line was given of these."""
    return RunOptions(
        device=args.device,
        dtype=args.dtype or "auto",
        attention=args.attention,
        quantize=args.quantize,
        compile=args.compile,
        fuse=args.fuse,
        threads=args.threads,
    )


def given_settings(args: argparse.Namespace) -> dict[str, str]:
    """The settings that were given on the command line, as text."""
    names = {name for kind in CONFIGS.values() for name in settings_of(kind)}
    return {name: text for name, text in vars(args).items() if name in names}
