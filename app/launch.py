"""Starts the page and serves it until it is to end. What it starts with are parsed options."""

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import gradio as gr

from d2f.errors import InvalidInput

from .environment import bypass_proxies
from .lanes.folders import models_in
from .lanes.lane import Host, loaded_model
from .lanes.process import Apart, give_way, lanes_apart
from .lanes.proxy import borrowing, compute
from .lanes.zerogpu import duration, lent
from .page.layout import build, launch_options
from .race import DEVICE
from .recordings.store import Store, StoreError, open_store
from .tunnel import share_note


def launch(args: argparse.Namespace) -> None:
    """The page, until Ctrl+C or what ends a container."""
    if args.models_dir is not None:
        print(f"* From {args.models_dir}: {', '.join(models_in(args.models_dir))}")
    if args.host is not None:
        bypass_proxies(os.environ, args.host)  # Gradio asks the page whether it is there
    store = race_store(args.store)
    with computing_host(args) as host:
        serve(build(args.pair, host, store=store), args)


def race_store(place: str | None) -> Store | None:
    """Where Publish keeps races. A place that was asked for must open; the usual one may not.

    Raises:
        InvalidInput: it was asked for and does not open.
    """
    try:
        store = open_store(place, os.environ)
    except StoreError as error:
        if place is not None:
            raise InvalidInput(f"store {place}: {error}") from error
        print(f"* Publish is off: {error} Choose another place with --store.", flush=True)
        return None
    print(f"* Publish keeps races in {store.place}" if store else "* Publish is off.", flush=True)
    return store


@contextmanager
def computing_host(args: argparse.Namespace) -> Iterator[Host]:
    """Where the models compute, for as long as the context lasts."""
    host = Host(args.engine, args.models_dir, args.pairs, args.refused, args.tuner)
    apart = Apart()
    try:
        if args.lent:
            host = _lent_host(host, args.pair)
        elif args.engine.device == "cpu":  # which models and pages share
            # Now, since it takes seconds to load torch, and by the thread that starts another one
            # if it dies and that runs what is not raced apart: that one gives way to nobody.
            DEVICE.submit(apart.start).result()
            give_way()
            host = replace(host, elsewhere=lanes_apart(apart))
        yield host
    finally:
        DEVICE.closing.set()  # a race under way would hold up what is done at exit
        DEVICE.shutdown()
        apart.close()


def _lent_host(host: Host, pair: str) -> Host:
    import spaces

    chosen = host.pairs[pair]
    for decoder in chosen.racing:  # what is on the GPU now goes there again with every call
        loaded_model(chosen.lanes[decoder][0], host)
    return replace(host, elsewhere=borrowing(lent(spaces.GPU(duration=duration)(compute))))


def serve(page: gr.Blocks, args: argparse.Namespace) -> None:
    """Shows the page to visitors until the program is to end."""
    # What ends a container ends the page as Ctrl+C does: a store uploads what waits at exit.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):  # the end, as for Gradio once it waits for it
        try:
            _, local, public = page.launch(
                server_name=f"[{args.host}]" if ":" in (args.host or "") else args.host,
                server_port=args.port,
                share=args.share,
                auth=args.auth,
                mcp_server=args.mcp,
                prevent_thread_lock=True,
                **launch_options(),
            )
        except OSError as error:
            raise InvalidInput("no port is free: choose one with --port N") from error
        if args.share:
            print(share_note(local, public), flush=True)
        page.block_thread()
