"""What the page's own script sends with an event: a question to be run, a race to be opened.

The form and the conversation are the browser's, so what comes is checked here and not trusted.
"""

import re
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

from d2f.errors import InvalidInput

from ..conversation import Conversation
from .messages import SETTINGS

NAME = re.compile(r"[0-9a-z]{1,16}")
RELOAD = "Reload the page and try again."


@dataclass(frozen=True)
class Asking:
    """A prompt, the pair to ask, its settings in the order of ``SETTINGS``, and what was said.

    ``run`` is the browser's own name for the race, under which it waits for its messages.
    """

    run: str
    prompt: str
    pair: str
    settings: list[Any]
    past: Conversation | None


def read_asking(data: Any) -> Asking:
    """What ``ask`` was sent with: ``run``, ``prompt``, ``pair``, ``settings`` by name, ``past``.

    Raises:
        InvalidInput: it is not of that form. Whether its values will do is checked by who runs it.
    """
    run, prompt, pair, settings = (
        field(data, name) for name in ("run", "prompt", "pair", "settings")
    )
    if not isinstance(run, str) or not NAME.fullmatch(run):
        raise InvalidInput(f"A race's name must be 1 to 16 letters and digits. {RELOAD}")
    if not isinstance(prompt, str) or not isinstance(pair, str):
        raise InvalidInput(f"The question and its models must be texts. {RELOAD}")
    if not isinstance(settings, dict) or settings.keys() != set(SETTINGS):
        raise InvalidInput(f"The settings must be {', '.join(SETTINGS)}. {RELOAD}")
    return Asking(run, prompt, pair, [settings[name] for name in SETTINGS], read_past(data))


def read_past(data: Any) -> Conversation | None:
    """The conversation so far; None before its first turn.

    Raises:
        InvalidInput: it is none.
    """
    given = data.get("past") if isinstance(data, dict) else None
    if given is None:
        return None
    past = Conversation.from_dict(given)
    if past is None:
        raise InvalidInput("This conversation cannot be read. Begin a new chat.")
    return past


def field(data: Any, name: str) -> Any:
    """One value of an event.

    Raises:
        InvalidInput: there is none of this name.
    """
    if not isinstance(data, dict) or name not in data:
        raise InvalidInput(f"The page sent {brief(data)} without {name!r}. {RELOAD}")
    return data[name]
