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

from ..conversation import Conversation
from ..lanes.lane import Host
from ..prompts import MAX_CHARACTERS, random_problem, recognise
from ..recordings.armour import unmarked
from ..recordings.link import from_link
from ..recordings.recording import Recording
from ..recordings.store import UNKNOWN, Store, StoreError, publish, published
from .charts import TITLES, figures
from .components import RaceBoard
from .messages import Message, new_run, pack_messages, pack_now
from .quota import Quota
from .tell import SETTINGS, read_settings, recall, retell, tell
from .visitors import Visitors, visitor

PUBLISHED_AN_HOUR = 20  # by one visitor
PUBLISHED_TOGETHER = 200  # an hour, by all
NOTHING = ""  # what tells the board nothing; Gradio cannot skip a component of our own

Choice = TypeVar("Choice")
Values = dict[Component, Any]
Shown = tuple[list[Message], Recording]  # a race and the messages that replay it


@dataclass(frozen=True, eq=False)
class Parts:
    """The components that handlers read and write; ``settings`` by the setting's name."""

    board: RaceBoard
    recording: gr.State
    problem: gr.State
    conversation: gr.BrowserState
    prompt: gr.Textbox
    follow: gr.Checkbox
    drop: gr.Checkbox
    pair: gr.Dropdown
    settings: dict[str, gr.Number | gr.Dropdown]
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

    def run(self, values: Values, request: gr.Request) -> Iterator[Values]:
        """Runs a race, the visitor's only one, afresh or as a follow-up."""
        parts = self.parts
        past = Conversation.from_dict(values[parts.conversation])
        yield from self._race(values, request, values[parts.prompt], past, values[parts.follow])

    def regenerate(self, values: Values, request: gr.Request) -> Iterator[Values]:
        """Runs the last turn of the conversation once more, or the prompt if there is none."""
        parts = self.parts
        past = Conversation.from_dict(values[parts.conversation])
        prompt, follow = values[parts.prompt], values[parts.follow]
        if past and past.turns:
            prompt, past, follow = past.turns[-1].prompt, past.without_last(), True
            yield {parts.board: NOTHING, parts.prompt: prompt}
        yield from self._race(values, request, prompt, past, follow)

    def _race(
        self,
        values: Values,
        request: gr.Request,
        prompt: str,
        past: Conversation | None,
        follow: bool,
    ) -> Iterator[Values]:
        parts = self.parts
        past = past if follow else None
        found = recognise(self._asked(past, prompt), self._problems(values))
        settings = [values[box] for box in parts.settings.values()]
        pair, drop, name = values[parts.pair], values[parts.drop], new_run()
        with self.visitors.run(visitor(request)) as stop:
            run = tell(prompt, pair, settings, found, self.host, past, drop, stop)
            for number, told in enumerate(run):
                packed = pack_messages(name, number, told.messages)
                answer: Values = {parts.board: packed}
                if told.recording:
                    answer[parts.recording] = told.recording
                if told.conversation:
                    answer[parts.conversation] = told.conversation.to_dict()
                yield answer

    @staticmethod
    def _asked(past: Conversation | None, prompt: str) -> list[str]:
        earlier = [turn.prompt for turn in past.turns] if past else []
        return [*earlier, new_lines(prompt or "").strip()]

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
        return self._fill(random_problem())

    def example(self, task: str) -> Callable[[int], Values]:
        """The handler of a task's examples: fills in the one that was clicked."""
        return lambda index: self._fill(pick(self.known[task], index))

    def _fill(self, problem: Problem) -> Values:
        parts = self.parts
        return {parts.prompt: problem.prompt, parts.problem: problem, parts.follow: False}

    def defaults(self, pair: str) -> Values:
        """A pair's settings by their boxes."""
        config = self.host.pair(pair).config
        return {box: getattr(config, name) for name, box in self.parts.settings.items()}

    # ---- the conversation

    def edit(self, values: Values, request: gr.Request) -> Values:
        """Takes the last turn back, and its prompt into the box."""
        self._stop(request)
        parts = self.parts
        past = Conversation.from_dict(values[parts.conversation])
        if not past or not past.turns:
            raise InvalidInput("There is no prompt to edit yet.")
        rest = past.without_last()
        return {
            parts.prompt: past.turns[-1].prompt,
            parts.conversation: rest.to_dict(),
            parts.follow: bool(rest.turns),
            parts.board: pack_now(recall(rest)),
        }

    def clear(self, request: gr.Request) -> Values:
        """Forgets the conversation."""
        self._stop(request)
        parts = self.parts
        # A browser keeps its old value on None.
        return {
            parts.conversation: {},
            parts.follow: False,
            parts.board: pack_now(recall(None)),
        }

    def suggest(self, values: Values) -> Values:
        """Fills in the follow-up that the problem's own conversation goes on with."""
        parts = self.parts
        past = Conversation.from_dict(values[parts.conversation])
        asked = [turn.prompt for turn in past.turns] if past else []
        found = recognise(asked, self._problems(values)) if asked else None
        if found is None or found.follow_up is None:
            raise InvalidInput(
                "No follow-up is known for this conversation: try another problem, "
                "or type your own."
            )
        return {parts.prompt: found.follow_up, parts.follow: True, parts.board: NOTHING}

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

    def open_link(self, fragment: str | None, request: gr.Request) -> Values:
        """The link that the address of the open page was given."""
        link = unmarked(fragment or "")
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

    def open(self, fragment: str | None, saved: Any, request: gr.Request) -> Values:
        """What a visitor sees first: a linked race, their conversation, or a recorded race."""
        query = dict(request.query_params)
        try:
            linked = self._linked(fragment, query)
            if linked is not None:
                return self._show(retell(linked), linked, opening=True)
            filled = self._prefilled(query)
        except D2FError as error:
            return self._tell({"kind": "error", "text": str(error)}, opening=True)
        past = Conversation.from_dict(saved)
        if past and past.turns and past.pair in self.host.pairs and not _asks(query):
            return self._recall(past)
        if not self.recordings:
            return filled | {self.parts.board: pack_now([], opening=True)}
        return filled | self._show(*self.recordings[0], opening=True)

    def _recall(self, past: Conversation) -> Values:
        """A conversation that the visitor left, with the pair it was held with."""
        parts = self.parts
        told = {parts.board: pack_now(recall(past), opening=True), parts.follow: True}
        if past.pair == self.pair:
            return told
        return told | {parts.pair: past.pair, **self.defaults(past.pair)}

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

    def _prefilled(self, query: dict[str, str]) -> Values:
        """Values of prompt, pair and settings asked for by the address.

        Raises:
            InvalidInput: it asks for what cannot be.
        """
        parts = self.parts
        try:
            chosen = self.host.pair(query.get("pair", self.pair))
            values = [
                _typed(name, query[name]) if name in query else getattr(chosen.config, name)
                for name in SETTINGS
            ]
            read_settings(chosen, values)
        except D2FError as error:
            raise InvalidInput(f"This link contains an invalid setting: {error}") from error
        if not _asks(query):
            return {}
        filled: Values = {parts.pair: chosen.name}
        if "prompt" in query:
            filled[parts.prompt] = new_lines(query["prompt"])[:MAX_CHARACTERS]
        return filled | dict(zip(parts.settings.values(), values, strict=True))

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


def _asks(query: dict[str, str]) -> bool:
    """Whether an address asks for a fresh start with values of its own."""
    return not query.keys().isdisjoint(("prompt", "pair", *SETTINGS))


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
