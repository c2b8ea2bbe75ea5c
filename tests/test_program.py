"""How programs of the command line start and end, run as a shell runs them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from d2f.cli.output import check_output, write_output
from d2f.cli.program import program
from d2f.errors import ComputeError, D2FError, InvalidInput, LoadError

PYTHON = sys.executable
PROGRAMS = ["generate", "bench", "serve", "models", "train", "train.average"]
# Each with its standard output closed would else compute for an answer nobody reads.
ARGUMENTS = {
    "generate": "--model mini-d2f --prompt Hi",
    "bench": "--problems 1",
    "serve": "--model mini-d2f",
    "models": "",
    "train": "mini-ar",
    "train.average": "mini-ar mini-ar",
}
SMALL = """
import sys
from d2f.cli.program import program, starting
with starting():
    pass
@program("small")
def main(argv=None):
    {body}
    return 0
sys.exit(main())
"""


def shell(line: str, **more: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=os.environ | more, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def small(body: str, around: str, tmp_path: Path, **more: str) -> tuple[int, str, str]:
    """A program of that body, its standard streams as the shell is told."""
    path = tmp_path / "small.py"
    path.write_text(SMALL.format(body=body))
    return shell(around.format(f"PYTHONPATH=. {PYTHON} {path}"), **more)


@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_while_torch_loads_ends_a_program_without_a_word(name: str) -> None:
    run = subprocess.Popen(
        [PYTHON, "-m", f"d2f.{name}", *ARGUMENTS[name].split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    maps = Path(f"/proc/{run.pid}/maps")
    if not maps.is_file():
        run.kill()
        pytest.skip("no /proc here to see torch load")
    while "torch" not in maps.read_text():
        assert run.poll() is None
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=30) == (b"", b"")
    assert run.returncode == 130


def test_ctrl_c_that_a_shell_ignores_stays_ignored(tmp_path: Path) -> None:
    body = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('on')"
    assert small(body, "trap '' INT; {}", tmp_path) == (0, "on\n", "")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_closed_output_is_refused_before_any_work(name: str) -> None:
    line = f"{PYTHON} -m d2f.{name} {ARGUMENTS[name]} >&-"
    said = f"d2f {name}: standard output is closed; to drop it, use >/dev/null\n"
    assert shell(line) == (2, "", said)


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize(
    ("body", "around", "expected"),
    [
        # A reader that goes away, of little and of much.
        ("print('word')", "{} | true; exit ${{PIPESTATUS[0]}}", (1, "", "")),
        ("print('word' * 10**6)", "{} | true; exit ${{PIPESTATUS[0]}}", (1, "", "")),
        (
            "print('word')",
            "{} >/dev/full",
            (1, "", "small: the output cannot be written: [Errno 28] No space left on device\n"),
        ),
        ("print(repr(sys.stdin.read()))", "{} <&-", (0, "''\n", "")),
        ("print('told', file=sys.stderr)", "{} 2>&-", (0, "", "")),
        ("raise KeyboardInterrupt", "{}", (130, "", "small: interrupted\n")),
        # Printed above, flushed below: the reader has both in this order.
        (
            "print('word'); raise KeyboardInterrupt",
            "{} 2>&1",
            (130, "word\nsmall: interrupted\n", ""),
        ),
        ("sys.exit(3)", "{}", (3, "", "")),
    ],
)
def test_streams_and_statuses(
    body: str, around: str, expected: tuple[int, str, str], buffered: str, tmp_path: Path
) -> None:
    # The pipe's reader must be gone before the program prints.
    late = f"import time; time.sleep(0.2 if '|' in {around!r} else 0); {body}"
    assert small(late, around, tmp_path, PYTHONUNBUFFERED=buffered) == expected


def test_a_closed_stream_leaves_its_number_to_no_file(tmp_path: Path) -> None:
    body = f"file = open({str(tmp_path / 'own')!r}, 'w'); print(file.fileno() > 2, 'for stderr')"
    assert small(body, "{} 2>&- <&-", tmp_path) == (0, "True for stderr\n", "")


@pytest.mark.parametrize("kind", [D2FError, InvalidInput, LoadError, ComputeError])
def test_what_is_told_to_the_user_is_one_line(
    kind: type[D2FError], capsys: pytest.CaptureFixture[str]
) -> None:
    @program("small")
    def main(argv: object = None) -> int:
        raise kind("no\n such   thing")

    assert main() == 2
    assert capsys.readouterr() == ("", "small: no such thing\n")


@pytest.mark.parametrize("error", [ValueError("x"), OSError(2, "x"), RuntimeError("x")])
def test_a_fault_of_the_program_is_raised(error: Exception) -> None:
    @program("small")
    def main(argv: object = None) -> int:
        raise error

    with pytest.raises(type(error)) as raised:
        main()
    assert raised.value is error


def test_output_files_are_whole_and_devices_stay_devices(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_output("--out", path, "first")
    write_output("--out", path, "second")
    assert path.read_text() == "second\n" and list(tmp_path.iterdir()) == [path]
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        write_output("--out", tmp_path / "pipe", json.dumps([1]))
        assert reader.communicate()[0] == "[1]\n"
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(InvalidInput, match=r"--out: '/dev/full' cannot be written: .*No space"):
        write_output("--out", Path("/dev/full"), "x")


@pytest.mark.parametrize("place", [".", "nowhere/run.json", "file/run.json"])
def test_a_place_for_no_file_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="--trace must be a file in an existing folder, got "):
        check_output("--trace", tmp_path / place)
