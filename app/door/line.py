"""Who waits in Gradio's queue, and who listens: bounds for one visitor, and an end for the unheard.

A join is a request that is over at once; what it asks for waits in the queue, runs, and keeps its
answer, whether or not anybody ever listens. So one client can fill the queue for all. Here a
session and an address have a few places each, and a session that nobody has listened to for
``patience`` seconds loses its places.

An address that may be a proxy's, and so many visitors', has any number of places, but few that
nobody listens to: a visitor's own is one only between a join and its stream. A new one takes the
place of the oldest there, so that nobody can keep the others out.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import fastapi
from gradio.queueing import Queue

from ..page.visitors import internet_address
from .refused import Refused

OF_SESSION = 8
OF_ADDRESS = 16
UNHEARD = 8  # of an address, a proxy's too
PATIENCE = 10.0
LOOPBACK = ("127.", "::1")  # own addresses: a proxy of this machine names its visitors to uvicorn


@dataclass(frozen=True)
class Place:
    """A place in the queue: whose it is, who is told, and from where it was asked for.

    ``shared``: the address may be that of a proxy.
    """

    owner: str
    session: str
    address: str
    shared: bool


def place_of(session: str | None, request: fastapi.Request) -> Place:
    """Callers by MCP share one session of Gradio's own, hence each is an owner by itself."""
    session = session or uuid4().hex
    mcp = request.headers.get("x-gradio-user") == "mcp"
    host = request.client.host if request.client else ""
    own = host if host.startswith(LOOPBACK) else internet_address(host)
    return Place(uuid4().hex if mcp else session, session, own or host, own is None)


class Line:
    """Gradio's queue, whose ``push`` goes by the bounds from now on."""

    def __init__(self, queue: Queue, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._queue, self._push = queue, queue.push
        self._joining: list[Place] = []  # those on their way into the queue
        self._listening: Counter[str] = Counter()
        self._present: Counter[str] = Counter()
        self._heard: dict[str, float] = {}
        queue.push = self.push  # type: ignore[method-assign]  # Gradio offers no other way in

    def close(self) -> None:
        """Leaves the queue as it was."""
        self._queue.push = self._push  # type: ignore[method-assign]

    async def push(self, body: Any, request: fastapi.Request, username: str | None) -> Any:
        """As Gradio's.

        Raises:
            Refused: the queue is full, or the session or the address has all of its places.
        """
        place = place_of(body.session_hash, request)
        unheard = self._admit(place)
        self._joining.append(place)
        self._heard[place.session] = time.monotonic()
        try:
            if len(unheard) >= UNHEARD:
                await self._forget(min(unheard, key=lambda session: self._heard.get(session, 0)))
            return await self._push(body=body, request=request, username=username)
        finally:
            self._joining.remove(place)

    def _admit(self, place: Place) -> list[str]:
        """Sessions of the same address that nobody listens to; refuses a place too many."""
        limit = self._queue.max_size
        # Not those that were forgotten and are about to end.
        events = [each for each in self._queue.event_ids_to_events.values() if each.alive]
        if limit is not None and len(self._queue) >= limit:
            raise Refused(503, f"The line is full: {limit} runs wait. Try again in a minute.")
        places = [*self._joining, *(place_of(e.session_hash, e.request) for e in events)]
        if sum(each.owner == place.owner for each in places) >= OF_SESSION:
            raise _too_many(OF_SESSION, "of this session are under way or wait")
        own = [each for each in places if each.address == place.address]
        unheard = [each.session for each in own if each.session not in self._listening]
        if place.shared:
            return unheard
        if len(unheard) >= UNHEARD:
            raise _too_many(UNHEARD, "from your address wait, and nobody listens to them")
        if len(own) >= OF_ADDRESS:
            raise _too_many(OF_ADDRESS, "from your address are under way or wait")
        return []

    # ---- who is there

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """Somebody takes what the queue says to a session, as long as the context lasts."""
        try:
            with _counted(self._listening, session):
                yield
        finally:
            self._heard[session] = time.monotonic()

    @contextmanager
    def present(self, session: str) -> Iterator[None]:
        """A page of this session is open, as long as the context lasts."""
        with _counted(self._present, session):
            yield

    def is_open(self, session: str) -> bool:
        """Whether a page of the session is open, or somebody listens."""
        return session in self._present or session in self._listening

    def session_of(self, event: str) -> str | None:
        """Whose event it is, also after its end; None: it is unknown here, or expired."""
        found = self._queue.event_ids_to_events.get(event)
        if found is not None:
            return found.session_hash
        pending = self._queue.pending_event_ids_session.items()
        return next((session for session, events in pending if event in events), None)

    def waits(self, session: str) -> bool:
        """Whether the queue has, or will have, something to say to a session."""
        return session in self._queue.pending_messages_per_session

    # ---- the unheard

    async def sweep(self) -> None:
        """Ends and forgets what nobody has listened to for too long."""
        queue, now = self._queue, time.monotonic()
        known = {event.session_hash for event in queue.event_ids_to_events.values()}
        known |= {*queue.pending_messages_per_session, *queue.pending_event_ids_session}
        self._heard = {session: self._heard.get(session, now) for session in known}
        for session, heard in list(self._heard.items()):
            if now - heard >= self.patience and session not in self._listening:
                await self._forget(session)

    async def _forget(self, session: str) -> None:
        await self._queue.clean_events(session_hash=session)
        self._queue.pending_messages_per_session.pop(session, None)
        self._queue.pending_event_ids_session.pop(session, None)
        self._heard.pop(session, None)


def _too_many(most: int, which: str) -> Refused:
    text = f"{most} requests {which}, the limit. Try again when one of them has ended."
    return Refused(429, text)


@contextmanager
def _counted(counter: Counter[str], name: str) -> Iterator[None]:
    counter[name] += 1
    try:
        yield
    finally:
        counter[name] -= 1
        if not counter[name]:
            del counter[name]
