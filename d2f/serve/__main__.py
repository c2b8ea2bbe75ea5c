"""``python -m d2f serve``: starts the service. For several machines or GPUs see ``replicas``."""

from d2f.cli.program import calibrations, program, starting

with starting():
    import argparse
    import errno
    import os
    import socket
    import sys
    from collections.abc import Sequence
    from contextlib import suppress
    from dataclasses import asdict

    import uvicorn
    from fastapi import FastAPI

    from d2f.cli.options import (
        Parser,
        add_diffusion_options,
        add_engine_options,
        chosen_options,
        given_diffusion,
    )
    from d2f.errors import InvalidInput
    from d2f.serve.service import Options, load_app
    from d2f.tuning import Tuner

DESCRIPTION = """\
Serve one model over HTTP: OpenAI's /v1/chat/completions, /v1/completions and /v1/models, and
/v1/events, the run itself as a stream of events. Runs are decoded one after the other. A key in the
environment variable D2F_API_KEY must be sent by every client."""
EXAMPLES = """\
examples:
  python -m d2f serve --model mini-d2f
  python -m d2f serve --model ./my-model --device cuda --host 0.0.0.0 --port 8000"""
SHUTDOWN = 5  # seconds that open connections have to end


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("python -m d2f serve", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "--model",
        required=True,
        help="a name of the catalogue (python -m d2f models), a model folder, or an id of the "
        "Hugging Face hub",
    )
    parser.add_argument("--adapter", help="a PEFT LoRA adapter to merge: a folder or a hub id")
    add_engine_options(parser)
    add_diffusion_options(parser, grid=True)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: 8000)")
    parser.add_argument(
        "--queue", type=int, default=16, help="runs that may wait, before 503 (default: 16)"
    )
    parser.add_argument(
        "--max-tokens", type=int, default=2048, help="longest answer served (default: 2048)"
    )
    return parser.parse_args(argv)


def listening(host: str, port: int) -> socket.socket:
    """A socket that has the address; ``InvalidInput`` says why it cannot be had."""
    if not 0 <= port < 65536:
        raise InvalidInput(f"--port must be 0 to 65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InvalidInput(f"port {port} is taken: --port {port % 65535 + 1}") from error
        raise InvalidInput(f"the address cannot be had: {error.strerror}") from error


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answers until Ctrl-C, which uvicorn raises once more when it has shut down."""
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=SHUTDOWN))
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


@program("d2f serve")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    options = Options(
        model=args.model,
        adapter=args.adapter,
        **asdict(chosen_options(args)),
        **asdict(given_diffusion(args)),
        tuner=Tuner(calibrations(), args.recalibrate),
        queue=args.queue,
        max_tokens=args.max_tokens,
        key=os.environ.get("D2F_API_KEY", "").strip(),
    )
    # Ahead of the model, which may take minutes to load; clients that come early wait.
    with listening(args.host, args.port) as listener:
        app = load_app(options)
        host, port = listener.getsockname()[:2]
        place = f"[{host}]" if ":" in host else host
        print(f"d2f serve: {args.model} at http://{place}:{port}/v1", file=sys.stderr)
        serve(app, listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
