"""``python -m d2f.serve``: starts the service. For several machines or GPUs see ``replicas``."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

import uvicorn
from safetensors import SafetensorError

from d2f.bench.machine import default_dtype
from d2f.engine import chosen_engine
from d2f.options import Parser, add_engine_options
from d2f.registry import embedded_models
from d2f.serve.service import Options, load_app

DESCRIPTION = """\
Serve one model over HTTP: OpenAI's /v1/chat/completions and /v1/models, and /v1/events, the run
itself as a stream of events. Runs are decoded one after the other. A key in the environment
variable D2F_API_KEY must be sent by every client."""
EXAMPLES = """\
examples:
  python -m d2f.serve --model mini-d2f
  python -m d2f.serve --model ./my-model --device cuda --host 0.0.0.0 --port 8000"""
SHUTDOWN = 5  # seconds that open connections have to end


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("python -m d2f.serve", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "--model",
        required=True,
        help="a name of the catalogue (python -m d2f.models), a model folder, or an id of the "
        "Hugging Face hub",
    )
    parser.add_argument("--adapter", help="a PEFT LoRA adapter to merge: a folder or a hub id")
    add_engine_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: 8000)")
    parser.add_argument(
        "--queue", type=int, default=16, help="runs that may wait, before 503 (default: 16)"
    )
    parser.add_argument(
        "--max-tokens", type=int, default=2048, help="longest answer served (default: 2048)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    dtype = default_dtype(args.device, embedded=args.model in embedded_models())
    try:
        options = Options(
            model=args.model,
            adapter=args.adapter,
            **asdict(chosen_engine(args, dtype)),
            queue=args.queue,
            max_tokens=args.max_tokens,
            key=os.environ.get("D2F_API_KEY", ""),
        )
        app = load_app(options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        print(f"d2f.serve: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    uvicorn.run(app, host=args.host, port=args.port, timeout_graceful_shutdown=SHUTDOWN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
