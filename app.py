"""Entry point of the page, on a laptop and on a Hugging Face Space: ``python app.py --help``."""

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve a busy machine
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from app.ui import build, launch_options  # noqa: E402
from d2f.bench.machine import default_dtype  # noqa: E402
from d2f.checkpoint import DTYPES  # noqa: E402
from d2f.registry import PAIRS  # noqa: E402


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Race a D2F model against its AR baseline.")
    parser.add_argument("--host", default=None, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=None, help="port (default: first free, 7860-)")
    parser.add_argument("--share", action="store_true", help="open a public Gradio link")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for this login")
    parser.add_argument("--mcp", action="store_true", help="serve the API as MCP tools as well")
    parser.add_argument("--pair", default="mini", choices=sorted(PAIRS), help="models to race")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument(
        "--dtype", choices=sorted(DTYPES), help="default: bfloat16 where native, else float32"
    )
    args = parser.parse_args(argv)
    if args.auth is not None and not all(args.auth.partition(":")):
        parser.error("--auth must be USER:PASSWORD")
    return args


args = parse_args(None if __name__ == "__main__" else [])
demo = build(args.pair, args.device, args.dtype or default_dtype(args.device))

if __name__ == "__main__":
    demo.launch(
        server_name=args.host,
        server_port=args.port,
        share=args.share,
        auth=tuple(args.auth.split(":", 1)) if args.auth else None,
        mcp_server=args.mcp,
        **launch_options(),
    )
