"""The page's command line: its options, what of it can run here, and one line on what cannot.

Knows nothing of gradio.
"""

import argparse
import errno
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS, READY, Pair, against, pair_state
from d2f.cli.models import found_here
from d2f.cli.options import Parser, add_engine_options, chosen_options
from d2f.cli.program import calibrations
from d2f.errors import InvalidInput
from d2f.machine import default_dtype
from d2f.memory import find_device
from d2f.nn.quantize import check_quantization
from d2f.run_options import RunOptions
from d2f.tuning import Tuner

from .environment import bare
from .lanes.folders import models_in
from .lanes.remote import Server
from .lanes.rivals import rivals
from .lanes.runners import Runner, add_options, chosen_runners, rival_pair

DESCRIPTION = "Race a D2F model against its AR baseline, on a page in the browser."
EXAMPLES = """\
examples:
  python app.py
  python app.py --host 0.0.0.0 --port 8080 --auth me:secret
  python app.py --pair llada --quantize int8

Exit status: 0 ended, 2 bad input, 130 interrupted before the page opened."""
KNOWN = PAIRS | PUBLISHED_PAIRS
LOCAL = "127.0.0.1"


def parse_args(argv: Sequence[str] | None, environment: Mapping[str, str]) -> argparse.Namespace:
    """What was asked for; ``engine``, ``pairs`` and ``refused`` follow from it.

    Raises:
        D2FError: it cannot be had here.
    """
    args = _parser(environment).parse_args(argv)
    args.lent = bool(environment.get("SPACES_ZERO_GPU"))  # a GPU for one call at a time
    _check(args)
    _choose(args, chosen_runners(args, environment))
    return args


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = Parser("app.py", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add(
        "--host",
        type=bare,
        default=environment.get("GRADIO_SERVER_NAME"),
        help=f"address to listen on (default: {LOCAL})",
    )
    add(
        "--port",
        type=_port,
        default=environment.get("GRADIO_SERVER_PORT"),
        help="port (default: first free, 7860-)",
    )
    add("--share", action="store_true", help="open a public Gradio link")
    add("--auth", type=_login, metavar="USER:PASSWORD", help="ask visitors for this login")
    add("--mcp", action="store_true", help="serve the API as MCP tools as well")
    add(
        "--pair",
        type=_pair,
        default=environment.get("D2F_PAIR", "mini"),
        metavar="NAME",
        help="models to race at first; see python -m d2f models (default: D2F_PAIR, else mini)",
    )
    add("--models-dir", type=Path, metavar="PATH", help="folder whose models take precedence")
    add(
        "--store",
        metavar="PLACE",
        default=environment.get("D2F_STORE"),
        help="where Publish keeps races: a SQLite file, hf://datasets/OWNER/NAME (token: HF_TOKEN) "
        "or none (default: D2F_STORE, else a file in the user's cache folder)",
    )
    add_engine_options(parser)
    parser.set_defaults(device="cuda" if torch.cuda.is_available() else "cpu")
    add_options(parser)
    return parser


# Types of options. What they raise, argparse tells with the option's name before it.


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(
            f"must be 1 to 65535, got {text!r}; so must the variable GRADIO_SERVER_PORT"
        )
    return int(text)


def _login(text: str) -> tuple[str, str]:
    user, _, password = text.partition(":")
    if not user or not password:
        raise argparse.ArgumentTypeError("must be USER:PASSWORD")
    return user, password


def _pair(text: str) -> str:
    if text not in KNOWN:
        raise argparse.ArgumentTypeError(
            f"must be one of {sorted(KNOWN)}, got {text!r}; so must the variable D2F_PAIR"
        )
    return text


# What the options ask of this machine.


def _check(args: argparse.Namespace) -> None:
    """``InvalidInput`` where options cannot be met, in the order in which they are cheap to try."""
    check_address(args.host or LOCAL, args.port)
    if args.models_dir is not None:
        if not args.models_dir.is_dir():
            raise InvalidInput(f"--models-dir: there is no folder {args.models_dir}")
        if not models_in(args.models_dir):
            raise InvalidInput(
                f"--models-dir: no model of the catalogue has a folder in {args.models_dir}"
            )
    if args.lent and (args.compile or args.fuse):
        raise InvalidInput("--compile: what is compiled is lost with the lent GPU after every call")
    if not args.lent:
        find_device(args.device)
    if args.quantize:
        check_quantization(args.quantize)
        if args.ar_transformers:
            raise InvalidInput("--quantize is not for --ar-transformers")


def check_address(host: str, port: int | None) -> None:
    """``InvalidInput`` unless a server may listen there; None: on some port.

    Also on this machine's own address, where Gradio looks whether the port is free.
    """
    for each in (host, LOCAL):
        try:
            family, kind, _, _, address = socket.getaddrinfo(
                each, port or 0, type=socket.SOCK_STREAM
            )[0]
            with socket.socket(family, kind) as probe:
                if os.name == "posix":  # Windows would share a port that is taken
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            raise InvalidInput(_refusal(error, each, port)) from error
        except UnicodeError as error:
            raise InvalidInput(f"--host: {host!r} is no address of this machine") from error


def _refusal(error: OSError, host: str, port: int | None) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken: choose another with --port N"
    if error.errno == errno.EACCES:
        return f"port {port} needs administrator rights: choose one above 1023 with --port N"
    return f"--host: {host!r} is no address of this machine ({error.strerror})"


def _choose(args: argparse.Namespace, runners: Mapping[str, Runner]) -> None:
    """Sets the engine and the pairs that can race, with the one that was asked for by its name."""
    chosen = against(KNOWN[args.pair], args.ar) if args.ar else KNOWN[args.pair]
    here = [d for d in chosen.racing if not isinstance(runners.get(d), Server)]
    args.engine = chosen_options(args)
    args.tuner = Tuner(calibrations(), args.recalibrate)
    if args.lent:  # the GPU cannot be asked before it is lent
        args.pairs, args.refused = with_rivals(PAIRS), {}
    else:
        args.pairs, args.refused = racing_pairs(chosen, here, args.engine, args.models_dir)
    pair = rival_pair(chosen, runners) if runners else chosen
    args.pairs[pair.name], args.pair = pair, pair.name


def with_rivals(pairs: Mapping[str, Pair]) -> dict[str, Pair]:
    """The pairs, each followed by those that race its other lanes."""
    return {each.name: each for pair in pairs.values() for each in (pair, *rivals(pair))}


def racing_pairs(
    chosen: Pair, decoders: Sequence[str], engine: RunOptions, models_dir: Path | None
) -> tuple[dict[str, Pair], dict[str, str]]:
    """The pairs that can run here, and of the others by title why not.

    Args:
        decoders: the lanes of ``chosen`` that run here.

    Raises:
        InvalidInput: ``chosen`` cannot.
    """
    dtype = engine.dtype
    if dtype == "auto":
        dtype = default_dtype(engine.device, embedded=chosen.name in PAIRS)
    here, how = found_here(engine.device, models_dir), (engine.quantize, dtype)
    asked = pair_state(chosen, here, *how, decoders)
    if asked.kind != READY:
        raise InvalidInput(f"--pair {chosen.name}: {asked.text}")
    states = {name: pair_state(pair, here, *how) for name, pair in PUBLISHED_PAIRS.items()}
    ready = {name: p for name, p in PUBLISHED_PAIRS.items() if states[name].kind == READY}
    others = {name: p for name, p in PUBLISHED_PAIRS.items() if name not in ready}
    more = rivals(chosen) if chosen.name in ready else ()
    offered = {p.name: p for p in more if pair_state(p, here, *how, p.racing).kind == READY}
    return with_rivals(PAIRS) | ready | offered, {
        p.title: states[name].text for name, p in others.items()
    }
