"""Files that a program writes at its end: refused before the work, written whole after it."""

import os
from pathlib import Path

from d2f.errors import InvalidInput


def check_output(option: str, path: Path | None) -> None:
    """``InvalidInput`` for a place where no file can be written; None: nothing is to be."""
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidInput(f"{option} must be a file in an existing folder, got {str(path)!r}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidInput(f"{option}: {str(path)!r} may not be written")


def write_output(option: str, path: Path, text: str) -> None:
    """Write the text and a line's end; a reader finds the old file or the new one, never a part.

    Raises:
        InvalidInput: it cannot be written.
    """
    whole = path.is_file() or not path.exists()  # a device or a pipe is written as it is
    part = path.with_name(path.name + ".part") if whole else path
    try:
        part.write_text(text + "\n", encoding="utf-8")
        if whole:
            part.replace(path)
    except OSError as error:
        raise InvalidInput(f"{option}: {str(path)!r} cannot be written: {error}") from error
