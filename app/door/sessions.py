"""What the server keeps of a session: its states, packed, until nobody is there to use them.

Gradio keeps a copy of every component's config for each session, 130 kB of ours, and never forgets
a session but for another. The copies serve deep links alone, which this page does not have.
"""

import pickle
import zlib
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.state_holder import SessionState, StateHolder

KEPT = 3600  # seconds that a page may be away, such as a laptop that sleeps
MAX_BYTES = 64_000_000  # of all states together


class Packed(bytes):
    """A state's value, deflated. It is this process's own, never a visitor's."""

    @classmethod
    def of(cls, value: Any) -> "Packed":
        return cls(zlib.compress(pickle.dumps(value), 1))

    @property
    def value(self) -> Any:
        return pickle.loads(zlib.decompress(self))


class Session(SessionState):
    """States of one session, and nothing that was shown or filled in.

    Components are those of all sessions: this page changes their values, never what they are.
    """

    def __init__(self, blocks: gr.Blocks) -> None:
        bare: Any = SimpleNamespace(default_config=blocks.default_config, blocks={})
        super().__init__(bare)
        self.blocks_config = blocks.default_config  # not a copy

    def __getitem__(self, key: int) -> Any:
        value = super().__getitem__(key)
        return value.value if isinstance(value, Packed) else value

    def __setitem__(self, key: int, value: Any) -> None:
        if isinstance(self.blocks_config.blocks.get(key), gr.State):
            super().__setitem__(key, Packed.of(value))
            self.config_values.clear()

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


def state_bytes(session: SessionState) -> int:
    """Bytes of a session's states."""
    return sum(len(each) for each in session.state_data.values() if isinstance(each, Packed))


class Sessions(StateHolder):
    """All sessions; the ones that nobody uses go first, whoever fills the room.

    Args:
        is_open: whether a page of the session is open.
    """

    def __init__(self, blocks: gr.Blocks, is_open: Callable[[str], bool]) -> None:
        super().__init__()
        self.set_blocks(blocks)
        self._is_open = is_open

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = Session(self.blocks)
        return super().__getitem__(session_id)

    def update(self, session_id: str) -> None:
        """Marks a session as the last one used, and makes room for it."""
        self.session_data.move_to_end(session_id)
        while len(self.session_data) > self.capacity:
            self._drop_one()

    def sweep(self) -> None:
        """Forgets sessions whose page was left long ago, and more if they are too large."""
        now = datetime.now()
        for session_id, used in list(self.time_last_used.items()):
            if self._is_open(session_id):
                self.time_last_used[session_id] = now
            elif (now - used).total_seconds() >= KEPT:
                self._drop(session_id)
        while sum(map(state_bytes, self.session_data.values())) > MAX_BYTES:
            self._drop_one()

    def _drop_one(self) -> None:
        """Of those that are not open the one unused for longest; else of all."""
        oldest = next(iter(self.session_data))
        self._drop(next((s for s in self.session_data if not self._is_open(s)), oldest))

    def _drop(self, session_id: str) -> None:
        self.session_data.pop(session_id, None)
        self.time_last_used.pop(session_id, None)
