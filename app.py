"""Entry point of the page, on a laptop and on a Hugging Face Space: ``python app.py --help``."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from d2f.errors import InvalidInput

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve a busy machine
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

LENT = bool(os.environ.get("SPACES_ZERO_GPU"))  # a GPU for one call at a time
if LENT:
    import spaces  # before torch, which it changes

import torch  # noqa: E402

from app.apart import Apart, give_way, lanes_apart  # noqa: E402
from app.elsewhere import borrowing, compute  # noqa: E402
from app.lanes import Host, loaded_model, models_in  # noqa: E402
from app.race import DEVICE  # noqa: E402
from app.remote import Server  # noqa: E402
from app.rivals import add_options, chosen_runners, rival_pair  # noqa: E402
from app.share import share_note  # noqa: E402
from app.store import Store, StoreError, open_store  # noqa: E402
from app.ui import build, launch_options  # noqa: E402
from app.zero import duration, lent  # noqa: E402
from d2f.catalogue.pairs import (  # noqa: E402
    PAIRS,
    PUBLISHED_PAIRS,
    RACING,
    READY,
    Pair,
    against,
    pair_state,
)
from d2f.cli.options import add_engine_options  # noqa: E402
from d2f.engine import Engine, chosen_engine  # noqa: E402
from d2f.machine import default_dtype  # noqa: E402
from d2f.models import found_here  # noqa: E402
from d2f.nn.quantize import check_quantization  # noqa: E402


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Race a D2F model against its AR baseline.")
    parser.add_argument("--host", default=None, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=None, help="port (default: first free, 7860-)")
    parser.add_argument("--share", action="store_true", help="open a public Gradio link")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for this login")
    parser.add_argument("--mcp", action="store_true", help="serve the API as MCP tools as well")
    parser.add_argument(
        "--pair",
        default=os.environ.get("D2F_PAIR", "mini"),
        choices=sorted(PAIRS | PUBLISHED_PAIRS),
        help="models to race at first; see python -m d2f.models (default: D2F_PAIR, else mini)",
    )
    parser.add_argument(
        "--models-dir", type=Path, metavar="PATH", help="folder of models that go before others"
    )
    parser.add_argument(
        "--store",
        metavar="PLACE",
        default=os.environ.get("D2F_STORE"),
        help="where Publish keeps races: a SQLite file, hf://datasets/OWNER/NAME (token: HF_TOKEN) "
        "or none (default: D2F_STORE, else a file in the user's cache folder)",
    )
    add_engine_options(parser)
    parser.set_defaults(device="cuda" if torch.cuda.is_available() else "cpu")
    add_options(parser)
    args = parser.parse_args(argv)
    if args.pair not in PAIRS | PUBLISHED_PAIRS:  # of a default, argparse checks nothing
        parser.error(
            f"D2F_PAIR must be one of {sorted(PAIRS | PUBLISHED_PAIRS)}, got {args.pair!r}"
        )
    if args.auth is not None and not all(args.auth.partition(":")):
        parser.error("--auth must be USER:PASSWORD")
    if args.models_dir is not None and not models_in(args.models_dir):
        parser.error(f"--models-dir: no model of the catalogue has a folder in {args.models_dir}")
    if LENT and args.compile:
        parser.error("--compile: what is compiled is lost with the lent GPU after every call")
    try:
        runners = chosen_runners(args, os.environ)
        if args.quantize:
            check_quantization(args.quantize)
            if args.ar_transformers:
                raise InvalidInput("--quantize is not for --ar-transformers")
        chosen = (PAIRS | PUBLISHED_PAIRS)[args.pair]
        chosen = against(chosen, args.ar) if args.ar else chosen
        here = [d for d in RACING if not isinstance(runners.get(d), Server)]
        dtype = default_dtype(args.device, embedded=args.pair in PAIRS)
        args.engine = chosen_engine(args, dtype)
        args.pairs, args.refused = racing_pairs(chosen, here, args.engine, args.models_dir)
    except (ValueError, RuntimeError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")  # what to do, not buried under the usage
    pair = rival_pair(chosen, runners) if runners else chosen
    args.pairs[pair.name], args.pair = pair, pair.name
    return args


def racing_pairs(
    chosen: Pair, decoders: Sequence[str], engine: Engine, models_dir: Path | None
) -> tuple[dict[str, Pair], dict[str, str]]:
    """The pairs that can run here, and of the others by title why not.

    Args:
        decoders: the lanes of ``chosen`` that run here.

    Raises:
        ValueError: ``chosen`` cannot.
    """
    if LENT:  # the GPU cannot be asked before it is lent
        return dict(PAIRS), {}
    here, how = found_here(engine.device, models_dir), (engine.quantize, engine.dtype)
    asked = pair_state(chosen, here, *how, decoders)
    if asked.kind != READY:
        raise InvalidInput(f"--pair {chosen.name}: {asked.text}")
    states = {name: pair_state(pair, here, *how) for name, pair in PUBLISHED_PAIRS.items()}
    ready = {name: p for name, p in PUBLISHED_PAIRS.items() if states[name].kind == READY}
    others = {name: p for name, p in PUBLISHED_PAIRS.items() if name not in ready}
    return PAIRS | ready, {p.title: states[name].text for name, p in others.items()}


def race_store(place: str | None) -> Store | None:
    """Where Publish keeps races. A place that was asked for must open; the usual one may not."""
    try:
        store = open_store(place, os.environ)
    except StoreError as error:
        if place is not None:
            sys.exit(f"error: store {place}: {error}")
        print(f"* Publish is off: {error} Another place: --store.", flush=True)
        return None
    print(f"* Publish keeps races in {store.place}" if store else "* Publish is off.", flush=True)
    return store


args = parse_args(None if __name__ == "__main__" else [])
if args.models_dir is not None:
    print(f"* From {args.models_dir}: {', '.join(models_in(args.models_dir))}")
host = Host(args.engine, args.models_dir, args.pairs, args.refused)
if LENT:
    for decoder in RACING:  # what is on the GPU now goes there again with every call
        loaded_model(args.pairs[args.pair].lanes[decoder][0], host)
    host = replace(host, elsewhere=borrowing(lent(spaces.GPU(duration=duration)(compute))))
elif args.engine.device == "cpu":  # which models and pages share
    apart = Apart()
    if __name__ == "__main__":
        # Now, since it takes seconds to load torch, and by the thread that starts another one if it
        # dies and that runs what is not raced apart: that one gives way to nobody.
        DEVICE.submit(apart.start).result()
        give_way()
    host = replace(host, elsewhere=lanes_apart(apart))
demo = build(args.pair, host, store=race_store(args.store))

if __name__ == "__main__":
    # What ends a container ends the page as Ctrl+C does: a store uploads what waits at exit.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _, local, public = demo.launch(
        server_name=args.host,
        server_port=args.port,
        share=args.share,
        auth=tuple(args.auth.split(":", 1)) if args.auth else None,
        mcp_server=args.mcp,
        prevent_thread_lock=args.share,
        **launch_options(),
    )
    if args.share:
        print(share_note(local, public), flush=True)
        demo.block_thread()
    DEVICE.closing.set()  # a race under way would hold up what is done at exit
