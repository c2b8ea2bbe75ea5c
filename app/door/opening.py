"""Puts the door before Gradio's app when it is launched, and sweeps behind it while it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gradio.routes import App
from starlette.middleware import Middleware

from ..failures import words
from .brief import brief_log
from .door import Door
from .line import Line
from .sessions import Sessions

SWEEP = 1.0  # seconds


def doorway() -> dict[str, Any]:
    """What ``Blocks.launch`` makes its app with."""
    return {"middleware": [Middleware(Door)], "lifespan": opened}


@asynccontextmanager
async def opened(app: App) -> AsyncIterator[None]:
    """The app within its bounds, for as long as it runs."""
    queue = app.get_blocks()._queue
    queue.ANALYTICS_MAX_EVENTS = 1  # Gradio sums up every event that it keeps after each one
    line = app.state.line = Line(queue)
    sessions = app.state_holder = Sessions(app.get_blocks(), line.is_open)
    with brief_log():
        sweeper = asyncio.create_task(_sweep(app, line, sessions))
        try:
            yield
        finally:
            sweeper.cancel()
            line.close()


async def _sweep(app: App, line: Line, sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        try:
            await line.sweep()
            sessions.sweep()
            app.iterators_to_reset &= app.get_blocks()._queue.event_ids_to_events.keys()
        except Exception as error:
            words(error)  # logged; the next round may do better
