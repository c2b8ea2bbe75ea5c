"""``python -m d2f models``: the catalogue, what of it can run here, and downloads ahead of time.

Only ever run with ``-m``. Knows no decoder; sizes are computed, and what is downloaded is what
huggingface_hub's cache holds.
"""

from d2f.cli.program import program, starting

with starting():
    import argparse
    import sys
    from collections.abc import Container, Sequence
    from itertools import groupby
    from pathlib import Path
    from typing import Any

    import torch

    from d2f.catalogue.choices import choices
    from d2f.catalogue.entry import Published
    from d2f.catalogue.pairs import (
        PUBLISHED_PAIRS,
        Here,
        catalogue_decoder,
        embedded_models,
        pair_memory,
        pair_repos,
        pair_state,
    )
    from d2f.catalogue.published import PUBLISHED
    from d2f.catalogue.sizes import gigabytes
    from d2f.checkpoints.hub import cached, has_token, snapshot
    from d2f.checkpoints.resolve import folder_shape, known_shape
    from d2f.cli.options import Parser
    from d2f.errors import InvalidInput
    from d2f.machine import memory_bandwidth
    from d2f.memory import free_memory
    from d2f.shape import TOKENS
    from d2f.strict_json import to_json

DESCRIPTION = f"""\
List the models this package knows by name, and the pairs of them that race. Memory is what weights
in bfloat16, a KV cache of {TOKENS:,} tokens and one step's logits take, and of a pair what CUDA
takes besides: computed, not measured."""
EXAMPLES = """\
examples:
  python -m d2f models
  python -m d2f models --json --device cuda:1
  python -m d2f models --download llada

Exit status: 0 done, 2 bad input or a download that failed."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = Parser("python -m d2f models", DESCRIPTION, EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=gpu, help="where to run (default here: %(default)s)")
    parser.add_argument(
        "--download",
        metavar="NAME",
        nargs="+",
        help="download models, or both models of a pair, and exit",
    )
    return parser.parse_args(argv)


def model_row(model: Published, here: Container[str]) -> dict[str, Any]:
    """A published model, in JSON values."""
    return {
        "name": model.name,
        "repos": [f"{repo.id}@{repo.revision}" for repo in model.repos],
        "licences": [repo.licence for repo in model.repos],
        "gated": any(repo.gated for repo in model.repos),
        "downloaded": all(repo.id in here for repo in model.repos),
        "download_bytes": sum(model.download(repo) for repo in model.repos),
        "parameters": model.shape.parameters,
        "memory_bytes": model.shape.memory("bfloat16"),
        "chat": model.chat,
        "decoder": model.decoder,
        "presets": sorted(model.presets),
        "partner": model.partner,
        "note": model.note,
        "thinks": model.thinks,
    }


def catalogue(device: str) -> dict[str, Any]:
    """Everything this program tells, in JSON values."""
    here, pairs = found_here(device), []
    bandwidth = memory_bandwidth() if device.startswith("cpu") else None
    for choice in choices(here, bandwidth):
        pair = choice.pair
        pairs.append(
            {
                "name": pair.name,
                "title": pair.title,
                "models": {lane: model for lane, (model, _) in pair.lanes.items()},
                "download_bytes": sum(pair_repos(pair).values()),
                "memory_bytes": pair_memory(pair, shapes=here.shapes),
                "state": pair_state(pair, here).kind,
                "group": choice.group,
                "text": choice.text,
                "expected_tokens_per_second": choice.expected,
            }
        )
    embedded = [{"name": name, "decoder": catalogue_decoder(name)} for name in embedded_models()]
    models = [model_row(model, here.repos) for model in PUBLISHED.values()]
    return {"embedded": embedded, "published": models, "pairs": pairs}


def downloaded() -> set[str]:
    """Ids of the catalogue's repositories that the hub's cache holds whole."""
    repos = {repo for model in PUBLISHED.values() for repo in model.repos}
    return {repo.id for repo in repos if cached(repo.id, repo.revision) is not None}


def found_here(device: str, models_dir: Path | None = None) -> Here:
    """What pairs meet on this machine; models below ``models_dir`` go before the hub's."""
    root, folders, shapes = models_dir, {}, {}
    if root is not None:
        paths = {name: root / name for name in PUBLISHED}
        folders = {n: path for n, path in paths.items() if (path / "config.json").is_file()}
    for model in PUBLISHED.values():
        own = folders.get(model.name)
        try:
            shapes[model.name] = (
                known_shape(model) if own is None else folder_shape(own, model.diffusion)
            )
        except ValueError:
            pass  # a damaged config.json is told when its model is loaded, and bars no other
    return Here(
        device=device,
        free=room(device),
        token=has_token(),
        repos=downloaded(),
        folders=folders,
        shapes=shapes,
    )


def room(device: str) -> int | None:
    """Bytes free on a device; 0 if it is not there, None if it does not say."""
    try:
        return free_memory(device)
    except ValueError:
        return 0


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; the first row heads them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def text(found: dict[str, Any]) -> str:
    """The catalogue as tables."""
    names = [row["name"] for row in found["embedded"]]
    models = [("name", "parameters", "download", "memory", "licence", "gated", "here", "from")]
    for row in found["published"]:
        models.append(
            (
                row["name"],
                f"{row['parameters'] / 1e9:.2f} B",
                gigabytes(row["download_bytes"]),
                gigabytes(row["memory_bytes"]),
                ", ".join(dict.fromkeys(row["licences"])),
                "gated" if row["gated"] else "open",
                "yes" if row["downloaded"] else "no",
                # Commits by their first digits; --json has them whole.
                " + ".join(repo[: repo.index("@") + 9] for repo in row["repos"]),
            )
        )
    parts = [f"Embedded, run anywhere: {', '.join(names) or 'none'}", table(models)]
    for group, rows in groupby(found["pairs"], key=lambda row: str(row["group"])):
        pairs = [("pair", "memory", "races", "here")]
        for row in rows:
            memory = gigabytes(row["memory_bytes"]) if row["memory_bytes"] else "-"
            races = " against ".join(row["models"][lane] for lane in ("d2f", "ar"))
            pairs.append((row["name"], memory, races, row["text"]))
        parts.append(f"{group}:\n{table(pairs)}")
    return "\n\n".join(parts)


def download(names: Sequence[str]) -> list[str]:
    """Bring models and pairs here; the folders.

    Raises:
        ValueError: no such name; HubError: it cannot be had.
    """
    known = [*PUBLISHED, *PUBLISHED_PAIRS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInput(f"--download must be of {known}, got {unknown[0]!r}")
    wanted = [
        PUBLISHED[name].repos if name in PUBLISHED else pair_repos(PUBLISHED_PAIRS[name])
        for name in names
    ]
    repos = list(dict.fromkeys(repo for each in wanted for repo in each))
    # Small and gated ones first: what will fail fails before the long transfers.
    repos.sort(key=lambda repo: not (repo.gated or "Lora" in repo.id))
    return [str(snapshot(repo.id, repo.revision)) for repo in repos]


@program("d2f models")
def main(argv: Sequence[str] | None = None) -> int:
    """Tell or download."""
    args = parse(argv)
    if args.download is not None:
        folders = download(args.download)
        print(to_json({"folders": folders}) if args.json else "\n".join(folders))
    else:
        found = catalogue(args.device)
        print(to_json(found) if args.json else text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
