"""``d2f generate``: one answer on the terminal, as it is decoded.

Knows no decoding rule; figures come from the Trace.
"""

from d2f.cli.program import INTERRUPTED, calibrations, program, starting

with starting():
    import argparse
    import signal
    import sys
    from collections.abc import Iterator, Sequence
    from dataclasses import replace
    from io import TextIOWrapper
    from pathlib import Path
    from types import FrameType

    from rich.console import Console

    from d2f import DecodeConfig, Model, StepEvent, Trace, TraceHeader, stream
    from d2f.catalogue.pairs import (
        PAIRS,
        PUBLISHED_PAIRS,
        default_config,
        embedded_models,
        made_for,
        model_name,
        rival,
    )
    from d2f.catalogue.published import PUBLISHED
    from d2f.checkpoints.config_json import model_config
    from d2f.checkpoints.resolve import find_folder
    from d2f.cli.options import (
        Parser,
        add_diffusion_options,
        add_engine_options,
        add_setting_options,
        apply_settings,
        chosen_options,
        given_diffusion,
        given_settings,
    )
    from d2f.cli.output import check_output, write_output
    from d2f.cli.visual import Board, watch
    from d2f.config import CONFIGS, config_to_dict, settings_of
    from d2f.decode import prepare, trace_header
    from d2f.detokenizer import ReadableText
    from d2f.errors import InvalidInput
    from d2f.infill import infill
    from d2f.memory import find_device
    from d2f.model_files import read_json
    from d2f.strict_json import to_json
    from d2f.text import decoded, plain_text
    from d2f.tuning import Tuner, load_tuned

SLOWEST = 1000
DESCRIPTION = """\
Answer one prompt. The text appears on stdout as it is decoded, the figures on stderr at the end.
They are those of one cold run; to compare decoders, use python -m d2f bench. Settings left out
take the defaults of the model's pair in the catalogue, else the decoder's own."""
EXAMPLES = """\
examples:
  python -m d2f generate --model mini-d2f --prompt "Tom has 3 apples and buys 4 more. How many?"
  python -m d2f generate --model mini-ar --prompt "Solve 3x + 4 = 19." --json
  python -m d2f generate --model mini-d2f --prompt - --tau-conf 0.8 --trace run.json < question.txt
  python -m d2f generate --model mini-d2f --prompt "Solve 3x + 4 = 19." \\
      --infill "Subtract 4 from both sides: 3x = _______."
  python -m d2f generate --model mini-d2f --prompt "Solve 3x + 4 = 19." --race --slow 20
  python -m d2f generate --model ./my-model --adapter ./my-lora --dtype bfloat16 --prompt "Hello"

Exit status: 0 done, 1 the output's reader went away, 2 bad input or a model that computes no
numbers, 130 interrupted (a trace asked for is still written)."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("python -m d2f generate", DESCRIPTION, EXAMPLES)
    names = ", ".join(embedded_models()) or "none yet"
    parser.add_argument(
        "--model",
        required=True,
        help=f"an embedded model ({names}), a published one (python -m d2f models lists them), "
        "a model folder, or an id of the Hugging Face hub",
    )
    parser.add_argument("--prompt", required=True, help="the question; - reads it from stdin")
    parser.add_argument(
        "--decoder", choices=CONFIGS, help="how to decode (default: the one the model is made for)"
    )
    parser.add_argument(
        "--adapter",
        metavar="PLACE",
        help="a PEFT LoRA adapter to merge: a folder, or an id of the hub",
    )
    parser.add_argument(
        "--infill",
        metavar="TEXT",
        help="the answer with gaps to fill: two or more underscores in a row, one a token. "
        "AR can fill one at the end only",
    )
    add_engine_options(parser)
    add_diffusion_options(parser, grid=False)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object at the end and nothing else"
    )
    parser.add_argument(
        "--visual", action="store_true", help="draw the answer's blocks while they are refined"
    )
    parser.add_argument(
        "--race",
        nargs="?",
        const="",
        metavar="MODEL",
        help="draw a second model beside it, in fair turns (default: its rival in the catalogue)",
    )
    parser.add_argument(
        "--slow",
        type=float,
        default=1.0,
        metavar="TIMES",
        help="draw so many times slower than it was (default: %(default)g)",
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="write every step of the run as JSON"
    )
    add_setting_options(parser)
    return parser.parse_args(argv)


def chosen_config(args: argparse.Namespace) -> DecodeConfig:
    """Decoder and settings, before any weight is read."""
    name, pairs, own = model_name(args.model), PAIRS | PUBLISHED_PAIRS, None
    decoder = args.decoder or made_for(name, pairs)
    if args.model not in PUBLISHED:
        raw = read_json(find_folder(args.model) / "config.json")
        own = model_config(raw, given_diffusion(args))
    config, given = default_config(name, decoder, pairs, own), given_settings(args)
    if args.race is not None:
        # Each lane takes those that its decoder has.
        given = {name: text for name, text in given.items() if name in settings_of(type(config))}
    return apply_settings(config, given)


def read_prompt(prompt: str) -> str:
    """The question, of the command line or of standard input."""
    # What a command line holds beside UTF-8 comes as surrogates.
    data = read_stdin() if prompt == "-" else prompt.encode("utf-8", "surrogateescape")
    try:
        text = decoded(data)
    except InvalidInput as error:
        raise InvalidInput(f"the prompt cannot be read: {error}") from error
    text = plain_text(text).strip()
    if not text:
        raise InvalidInput("the prompt is empty")
    return text


def read_stdin() -> bytes:
    """All of standard input."""
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise InvalidInput(f"standard input cannot be read: {error.strerror}") from error


def check(args: argparse.Namespace) -> None:
    """Refuse options that exclude each other, and output that cannot be written."""
    drawn = args.visual or args.race is not None
    if drawn and args.json:
        raise InvalidInput("--json prints no board; leave it or --visual and --race out")
    if args.race is not None and args.trace is not None:
        raise InvalidInput("--trace writes one run, and --race makes two; leave one of them out")
    if not 0 < args.slow <= SLOWEST:
        raise InvalidInput(f"--slow must be in (0, {SLOWEST}], got {args.slow:g}")
    check_output("--trace", args.trace)


def second(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of the other lane of a race."""
    model = args.race or rival(model_name(args.model))
    # What was said of the first model is not true of this one.
    own = {"model": model, "adapter": None, "decoder": None, "mask_id": None, "logit_shift": None}
    shared = {name: value for name, value in vars(args).items() if name != "grid"}
    return argparse.Namespace(**shared | own)


Ready = tuple[Model, TraceHeader, Iterator[StepEvent]]


def set_up(args: argparse.Namespace) -> Ready:
    """All that can be refused is refused here, the cheapest checks first."""
    find_device(args.device)
    if args.infill is not None and "max_new_tokens" in given_settings(args):
        raise InvalidInput("--infill says how long the answer is; leave --max-new-tokens out")
    config = chosen_config(args)
    prompt = read_prompt(args.prompt)
    model = load_tuned(
        args.model,
        chosen_options(args),
        Tuner(calibrations(), args.recalibrate),
        adapter=args.adapter,
        diffusion=given_diffusion(args),
    )
    prompt_ids = model.tokenizer.encode_chat([{"role": "user", "content": prompt}])
    hold: dict[int, int] = {}
    if args.infill is not None:
        hold, length = infill(model.tokenizer, plain_text(args.infill))
        config = replace(config, max_new_tokens=length)
    source = stream(model, prompt_ids, config, hold=hold)
    header = trace_header(model, prompt_ids, config, hold)
    prepare(model, len(prompt_ids), config)
    return model, header, source


class Interrupt:
    """Ctrl-C as a wish heard between two steps, so that no step is cut in half; twice, it kills."""

    asked = False

    def __enter__(self) -> "Interrupt":
        self._usual = signal.signal(signal.SIGINT, self._hear)
        return self

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._usual)

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._usual)


def follow(
    source: Iterator[StepEvent], readable: ReadableText, show: bool
) -> tuple[list[StepEvent], bool]:
    """The events, told as they come, and whether someone cut them short."""
    events: list[StepEvent] = []
    with Interrupt() as interrupt:
        for event in source:
            events.append(event)
            try:
                if show:
                    print(readable.add(event), end="", flush=True)
            except BrokenPipeError:
                return events, True
            if interrupt.asked:
                return events, True
    return events, False


def report(trace: Trace) -> dict[str, object]:
    """The one object ``--json`` prints."""
    return {
        "model": trace.header.model,
        "decoder": trace.header.decoder,
        "device": trace.header.device,
        "dtype": trace.header.dtype,
        "versions": trace.header.versions,
        "config": config_to_dict(trace.header.config),
        "text": trace.text,
        "token_ids": list(trace.token_ids),
        **trace.metrics,
    }


def summary(trace: Trace) -> str:
    endings = {"stop": "the answer ended", "length": "max_new_tokens reached"}
    told = trace.header.versions
    how = f"attention {told['attention']}, {told['forward']}, {told['weights']}"
    return (
        f"{trace.header.decoder}, {trace.header.model}: {trace.tokens} tokens in "
        f"{trace.seconds:.3f} s = {trace.tokens_per_second:.1f} tokens/s; "
        f"first token after {trace.ttft:.3f} s; {trace.forwards} forwards of "
        f"{trace.ms_per_forward:.2f} ms, {trace.tokens_per_forward:.2f} tokens each; "
        f"{endings.get(trace.finish_reason or '', 'interrupted')}; {how}"
    )


def run(
    args: argparse.Namespace, model: Model, header: TraceHeader, source: Iterator[StepEvent]
) -> int:
    """Decode and tell; a trace asked for is written even when the run is cut short."""
    readable = ReadableText(model.tokenizer, header)
    events, interrupted = follow(source, readable, show=not args.json)
    trace = Trace(header, tuple(events))
    trace = trace.with_text(model.tokenizer.decode(trace.token_ids))
    if args.trace is not None:
        write_output("--trace", args.trace, trace.to_json())
    if args.json:
        print(to_json(report(trace)), flush=True)
    else:
        print(readable.rest(trace.text), flush=True)
        print(summary(trace), file=sys.stderr)
    return INTERRUPTED if interrupted else 0


def draw(args: argparse.Namespace, runs: Sequence[Ready]) -> int:
    """Decode on a board each, then tell the figures."""
    boards = [Board(header, model.tokenizer, source) for model, header, source in runs]
    with Interrupt() as interrupt:
        whole = watch(boards, args.slow, lambda: interrupt.asked, Console())
    for board in boards:
        if args.trace is not None:
            write_output("--trace", args.trace, board.trace.to_json())
        print(summary(board.trace), file=sys.stderr)
    return 0 if whole else INTERRUPTED


@program("d2f generate")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    check(args)
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that lacks a character shows a substitute; the run goes on.
        sys.stdout.reconfigure(errors="replace")
    if args.race is not None:
        return draw(args, [set_up(args), set_up(second(args))])
    return draw(args, [set_up(args)]) if args.visual else run(args, *set_up(args))


if __name__ == "__main__":
    sys.exit(main())
