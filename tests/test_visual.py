"""Boards on a terminal: every token in its place, fair turns, and what cannot be drawn."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from races import header
from rich.console import Console

from d2f.cli.generate import main
from d2f.cli.visual import Board, watch
from d2f.config import ARConfig, D2FConfig
from d2f.events import BlockView, Commit, StepEvent
from d2f.tokenizer import Tokenizer

PROMPT = (7, 7)


def event(number: int, *commits: Commit, seconds: float = 0.0) -> StepEvent:
    blocks = (BlockView(1, 2, 4, 0, "completed"), BlockView(2, 4, 6, 2, "semi_activated"))
    return StepEvent(number, seconds, (0, 6), commits, blocks)


def drawn(board: Board) -> list[str]:
    """The lines of the answer."""
    console = Console(file=io.StringIO(), width=60, record=True)
    console.print(board)
    return [line.strip("│ ") for line in console.export_text().splitlines()[1:-2]]


def board(tokenizer: Tokenizer, *events: StepEvent, held: tuple = ()) -> Board:
    about = replace(header(D2FConfig(), "tiny"), prompt_ids=PROMPT, held=held)
    about = replace(about, stop_ids=tokenizer.stop_ids)
    return Board(about, tokenizer, iter(events))


def test_masks_tokens_borders_and_stops_are_drawn_in_place(tokenizer: Tokenizer) -> None:
    [x], [y] = tokenizer.encode("x"), tokenizer.encode("y")
    steps = (
        event(0, Commit(3, x, 0.99)),
        event(1, Commit(2, y, 0.4, True), Commit(5, tokenizer.end_id, 1.0)),
    )
    lane = board(tokenizer, *steps)
    assert drawn(lane) == [""]
    assert lane.advance()
    assert drawn(lane) == ["░x│░░"]
    assert lane.advance()
    assert drawn(lane) == ["yx│░■"]
    assert not lane.advance()


def test_held_tokens_stand_there_from_the_start(tokenizer: Tokenizer) -> None:
    [x] = tokenizer.encode("x")
    lane = board(tokenizer, event(0, Commit(3, x, 1.0)), held=((0, x), (2, x)))
    lane.advance()
    assert drawn(lane) == ["xx│x░"]


def test_new_and_forced_tokens_differ_by_more_than_colour(tokenizer: Tokenizer) -> None:
    [x] = tokenizer.encode("x")
    lane = board(tokenizer, event(0, Commit(2, x, 0.4, True), Commit(3, x, 1.0)), event(1))
    lane.advance()
    assert "bold" in lane._style(3) and "underline" not in lane._style(3)
    assert "bold" in lane._style(2) and "underline" in lane._style(2)
    lane.advance()
    assert (lane._style(2), lane._style(3)) == ("underline", "")


def test_the_lane_with_the_least_time_moves_next(tokenizer: Tokenizer) -> None:
    order: list[str] = []

    def lane(name: str, *seconds: float) -> Iterator[StepEvent]:
        for number, each in enumerate(seconds):
            order.append(name)
            yield StepEvent(number, each, (0, 2), ())

    about = replace(header(ARConfig(), "tiny"), prompt_ids=PROMPT)
    boards = [
        Board(about, tokenizer, lane("a", 3.0, 3.0)),
        Board(about, tokenizer, lane("b", 2.0, 2.0, 2.0)),
    ]
    assert watch(boards, 1e-9, lambda: False, Console(file=io.StringIO()))
    assert order == ["a", "b", "b", "a", "b"]
    assert [each.clock for each in boards] == [6.0, 6.0]


def test_it_ends_when_it_is_told_to(tokenizer: Tokenizer) -> None:
    lane = board(tokenizer, event(0), event(1))
    assert not watch([lane], 1e-9, lambda: bool(lane.events), Console(file=io.StringIO()))
    assert len(lane.events) == 1


def test_two_models_race_on_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    asked = ["--model", "mini-d2f", "--prompt", "Solve 3x + 4 = 19.", "--tau-conf", "0.9"]
    assert main([*asked, "--race"]) == 0
    out, err = capsys.readouterr()
    assert "mini-d2f (d2f)" in out and "mini-ar (ar)" in out
    assert len(re.findall(r"x│? = 15 / 3 = 5", out)) == 2
    assert [line.split(":")[0] for line in err.splitlines()] == ["d2f, mini-d2f", "ar, mini-ar"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--visual", "--json"), "--json prints no board"),
        (("--race", "--trace", "x.json"), "--trace writes one run"),
        (("--slow", "0"), r"--slow must be in (0, 1000], got 0"),
        (("--slow", "nan"), r"--slow must be in (0, 1000], got nan"),
        (("--race", "--model", "mini-dllm"), "no rival of 'mini-dllm'; name one"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", "mini-d2f", "--prompt", "Hello", *args]) == 2
    assert message in capsys.readouterr().err
