"""Answers in the making on a terminal: each lane's board, as its blocks are refined.

Knows no model; a lane's events come on its own clock.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from d2f.detokenizer import TokenTexts
from d2f.events import StepEvent, Trace, TraceHeader
from d2f.tokenizer import Tokenizer

MASK, BORDER, STOP = "░", "│", "■"
# Never by colour alone: what is new is bold, what was forced underlined, what was given italic.
NEW, FORCED, GIVEN, FAINT = "bold cyan", "underline", "italic", "dim"
FRAMES = 30  # a second


@dataclass
class Board:
    """One lane: its answer as far as it is decided, masks between, and its figures."""

    header: TraceHeader
    tokenizer: Tokenizer
    source: Iterator[StepEvent]
    events: list[StepEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = 0.0
        self._first = len(self.header.prompt_ids)
        self._places = TokenTexts(self.tokenizer, self._first)
        self._texts = self._places.place(self.header.given)
        self._forced: set[int] = set()
        self._new: set[int] = set()
        self._borders: set[int] = set()
        self._end = self._first

    def advance(self) -> bool:
        """Take the next step; False: the run is over."""
        event = next(self.source, None)
        if event is None:
            self._new = set()
            return False
        self.events.append(event)
        self.clock += event.seconds
        self._texts |= self._places.add(event)
        self._new = {commit.position for commit in event.commits}
        self._forced |= {commit.position for commit in event.commits if commit.forced}
        self._borders |= {block.start for block in event.blocks}
        self._end = max([self._end, event.window[1], *(p + 1 for p in self._new)])
        return True

    @property
    def trace(self) -> Trace:
        """The run so far, with its text."""
        trace = Trace(self.header, tuple(self.events))
        return trace.with_text(self.tokenizer.decode(trace.token_ids))

    def __rich__(self) -> Panel:
        trace = self.trace
        figures = (
            f"{trace.tokens} tokens, {trace.tokens_per_forward:.1f} a forward, "
            f"{trace.tokens_per_second:.0f} tokens/s"
        )
        title = f"{self.header.model} ({self.header.decoder})"
        return Panel(Group(self._answer(trace), Text(figures, FAINT)), title=Text(title))

    def _answer(self, trace: Trace) -> Text:
        answer, canvas = Text(), trace.canvas
        for position in range(self._first, self._end):
            if position in self._borders and position > self._first:
                answer.append(BORDER, FAINT)
            stops = canvas.get(position) in self.header.stop_ids
            known = STOP if stops else self._texts.get(position)
            answer.append(MASK if known is None else known, self._style(position))
        return answer

    def _style(self, position: int) -> str:
        if position not in self._texts:
            return FAINT
        kinds = ((self._new, NEW), (self._forced, FORCED), (self.header.given.keys(), GIVEN))
        return " ".join(style for places, style in kinds if position in places)


def watch(
    boards: Sequence[Board], slow: float, ended: Callable[[], bool], console: Console
) -> bool:
    """Draw the runs as they decode; False: ``ended`` cut them short.

    The lane with the least time on its own clock moves next, as in every race here. ``slow`` is how
    many times slower than the clocks it is shown.
    """
    running, began = list(boards), time.monotonic()
    table = Table.grid(expand=True)
    for _ in boards:
        table.add_column(ratio=1)
    table.add_row(*boards)
    with Live(table, console=console, refresh_per_second=FRAMES):
        while running:
            if ended():
                return False
            board = min(running, key=lambda each: each.clock)
            # Shown when the lane's clock, slowed down, says so.
            time.sleep(max(0.0, began + slow * board.clock - time.monotonic()))
            if not board.advance():
                running.remove(board)
    return True
