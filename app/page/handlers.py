"""What happens on the page: each handler takes values by component and returns values by component.

A component that a handler does not return stays as it is. A :class:`D2FError` that it raises is for
the visitor: :mod:`.blocks` tells it. Knows no layout: :mod:`.layout` places
the components and says which handler answers which event.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any, TypeVar

import gradio as gr
from gradio.components import Component

from d2f.config import D2FConfig, settings_of
from d2f.errors import D2FError, InvalidInput
from d2f.tasks import Problem
from d2f.text import decoded, new_lines

from ..lanes.lane import Host
from ..prompts import MAX_CHARACTERS, random_problem, recognise
from ..recordings.armour import unmarked
from ..recordings.link import from_link
from ..recordings.recording import Recording
from ..recordings.store import UNKNOWN, Store, StoreError, publish, published
from .asking import Asking, field, read_asking
from .charts import TITLES, figures
from .components import RaceBoard
from .messages import SETTINGS, Fill, Message, pack_messages, pack_now
from .quota import Quota
from .tell import read_settings, retell, tell
from .visitors import Visitors, visitor

PUBLISHED_AN_HOUR = 20  # by one visitor
PUBLISHED_TOGETHER = 200  # an hour, by all
NOTHING = ""  # what tells the board nothing; Gradio cannot skip a component of our own

Choice = TypeVar("Choice")
Values = dict[Component, Any]
Shown = tuple[list[Message], Recording]  # a race and the messages that replay it


@dataclass(frozen=True, eq=False)
class Parts:
    """The components that handlers read and write; the form is the board's own."""

    board: RaceBoard
    recording: gr.State
    problem: gr.State
    plots: list[gr.Plot]


class Page:
    """The handlers, bound to what they need: the models' host, the races kept, who visits.

    A handler takes the values of its inputs, by component where there are several.
    """

    def __init__(
        self,
        parts: Parts,
        pair: str,
        host: Host,
        known: dict[str, list[Problem]],
        recordings: list[Recording],
        store: Store | None = None,
    ) -> None:
        self.parts, self.pair, self.host, self.known, self.store = parts, pair, host, known, store
        # Told at the start: telling takes ten times as long as packing.
        self.recordings: list[Shown] = [(retell(each, trusted=True), each) for each in recordings]
        self.visitors = Visitors()
        self.quota = Quota(PUBLISHED_AN_HOUR, PUBLISHED_TOGETHER, seconds=3600)

    # ---- a race

    def run(self, values: Values, sent: gr.EventData, request: gr.Request) -> Iterator[Values]:
        """Runs a race, the visitor's only one, afresh or as a conversation goes on."""
        asking = read_asking(sent._data)
        found = recognise(_asked(asking), self._problems(values))
        with self.visitors.run(visitor(request)) as stop:
            chosen = asking.pair, asking.settings
            run = tell(asking.prompt, *chosen, found, self.host, asking.past, stop)
            for number, told in enumerate(run):
                packed = pack_messages(asking.run, number, told.messages)
                answer: Values = {self.parts.board: packed}
                if told.recording:
                    answer[self.parts.recording] = told.recording
                yield answer

    def _problems(self, values: Values) -> list[Problem]:
        """Problems whose answers are known: the last one drawn, and the examples."""
        return [values[self.parts.problem], *(each for own in self.known.values() for each in own)]

    def stop(self, request: gr.Request) -> None:
        """Ends the visitor's run."""
        self._stop(request)

    def _stop(self, request: gr.Request) -> None:
        self.visitors.stop(visitor(request).session)

    # ---- the form

    def draw(self) -> Values:
        """Fills in a fresh random problem."""
        problem = random_problem()
        filled: Fill = {"kind": "fill", "prompt": problem.prompt}
        return self._tell(filled) | {self.parts.problem: problem}

    # ---- recorded races

    def show_recorded(self, index: int, request: gr.Request) -> Values:
        """One of the races that ship with the page."""
        messages, recording = pick(self.recordings, index)
        self._stop(request)
        return self._show(messages, recording)

    def download(self, values: Values) -> Values:
        """The race on the board as a file."""
        recording: Recording | None = values[self.parts.recording]
        if recording is None:
            raise InvalidInput("There is no finished race to download yet.")
        text = recording.to_json()
        return self._tell({"kind": "file", "name": "d2f-race.json", "text": text})

    def open_file(self, path: str | None, request: gr.Request) -> Values:
        """A race from a file of the visitor's."""
        if path is None:
            return {self.parts.board: NOTHING}
        data = Path(path).read_bytes()
        return self._take_board(lambda: Recording.from_json(decoded(data)), request)

    def open_link(self, sent: gr.EventData, request: gr.Request) -> Values:
        """The link of a turn, or one that the address of the open page was given."""
        fragment = field(sent._data, "link")
        link = unmarked(fragment) if isinstance(fragment, str) else None
        if link is None:
            return {self.parts.board: NOTHING}
        return self._take_board(lambda: from_link(link), request)

    def _take_board(self, read: Callable[[], Recording], request: gr.Request) -> Values:
        """A race in place of the one on the board, even a running one. Refused: no change."""
        recording = read()
        messages = retell(recording)
        self._stop(request)
        return self._show(messages, recording)

    def publish(self, values: Values, request: gr.Request) -> Values:
        """Gives the race on the board a short link."""
        recording: Recording | None = values[self.parts.recording]
        if recording is None or self.store is None:
            raise InvalidInput("There is no finished race to publish yet.")
        asking = visitor(request)
        # A reload makes a new session, but no new address. One behind a proxy has only the session.
        if not self.quota.take(asking.address or asking.session):
            raise InvalidInput("Too many races were published in the last hour. Try again later.")
        race_id = publish(self.store, recording)
        return self._tell({"kind": "published", "id": race_id, "prompt": recording.prompt})

    def charts(self, values: Values) -> Values:
        """Figures of the race on the board."""
        recording: Recording | None = values[self.parts.recording]
        drawn = figures(recording) if recording else [None] * len(TITLES)
        return dict(zip(self.parts.plots, drawn, strict=True))

    # ---- the first sight

    def open(self, fragment: str | None, request: gr.Request) -> Values:
        """What a visitor sees first: a linked race, a filled form, or a recorded race."""
        query = dict(request.query_params)
        try:
            linked = self._linked(fragment, query)
            if linked is not None:
                return self._show(retell(linked), linked, opening=True)
            filled = self._prefilled(query)
        except D2FError as error:
            return self._tell({"kind": "error", "text": str(error)}, opening=True)
        if filled is not None:
            return self._tell(filled, opening=True)
        if not self.recordings:
            return {self.parts.board: pack_now([], opening=True)}
        return self._show(*self.recordings[0], opening=True)

    def _linked(self, fragment: str | None, query: dict[str, str]) -> Recording | None:
        """The race that the address holds or names; a :class:`D2FError` if it does not open."""
        link = unmarked(fragment or "")
        if link is not None:
            return from_link(link)
        if "race" not in query:
            return None
        if self.store is None:
            raise StoreError(UNKNOWN)
        return published(self.store, query["race"])

    def _prefilled(self, query: dict[str, str]) -> Fill | None:
        """Prompt, pair and settings asked for by the address; None if it asks for none.

        Raises:
            InvalidInput: it asks for what cannot be.
        """
        if query.keys().isdisjoint(("prompt", "pair", *SETTINGS)):
            return None
        try:
            chosen = self.host.pair(query.get("pair", self.pair))
            values = [
                _typed(name, query[name]) if name in query else getattr(chosen.config, name)
                for name in SETTINGS
            ]
            read_settings(chosen, values)
        except D2FError as error:
            raise InvalidInput(f"This link contains an invalid setting: {error}") from error
        settings = dict(zip(SETTINGS, values, strict=True))
        filled: Fill = {"kind": "fill", "pair": chosen.name, "settings": settings}
        if "prompt" in query:
            filled["prompt"] = new_lines(query["prompt"])[:MAX_CHARACTERS]
        return filled

    # ---- words

    def _show(self, messages: list[Message], recording: Recording, opening: bool = False) -> Values:
        return {
            self.parts.board: pack_now(messages, opening),
            self.parts.recording: recording,
        }

    def _tell(self, message: Message, opening: bool = False) -> Values:
        return {self.parts.board: pack_now([message], opening)}


def pick(choices: Sequence[Choice], index: int) -> Choice:
    """One of a row, by the index that a browser sent.

    Raises:
        InvalidInput: there is none of this index.
    """
    if type(index) is not int or not 0 <= index < len(choices):
        raise InvalidInput(f"There is no choice {brief(index)} here: reload the page.")
    return choices[index]


def _asked(asking: Asking) -> list[str]:
    """The prompts of a conversation, the new one last."""
    earlier = [turn.prompt for turn in asking.past.turns] if asking.past else []
    return [*earlier, new_lines(asking.prompt).strip()]


def _typed(name: str, text: str) -> float | str | None:
    """The value of a setting in an address: a word where it has a few; else a number, empty: none.

    Raises:
        InvalidInput: it is no number.
    """
    if settings_of(D2FConfig)[name].choices:
        return text
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise InvalidInput(f"{brief(text)} is no number") from None
