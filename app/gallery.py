"""Recorded races that ship with the page, in ``assets/traces``. Knows nothing of gradio."""

from pathlib import Path

from app.recording import Recording

TRACES = Path(__file__).resolve().parent.parent / "assets" / "traces"


def gallery(folder: Path = TRACES) -> list[Recording]:
    """The recordings of a folder, by file name; a damaged one raises ``RecordingError``."""
    return [
        Recording.from_json(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    ]
