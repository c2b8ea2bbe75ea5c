"""Who may run, on the page and by the API alike: one run a visitor, and a few an address.

A visitor is one of Gradio's sessions: a tab of the page, or a client object of the API. Sessions
are made at will, so an address of the internet has ``AT_ONCE`` runs at most, those that wait
included, and Gradio's queue bounds all of them together.

What this cannot do: tell people behind one address apart, or know one person at many addresses.
Behind a proxy the address is the visitor's own only where the variable FORWARDED_ALLOW_IPS, which
uvicorn reads, names the proxy. Else it is the proxy's, commonly a private one, as on a Hugging Face
Space; private addresses are not counted, so that the visitors of a proxy do not share eight runs.
Calls by MCP come from one session of Gradio's own, hence each is a visitor by itself, and their
callers may claim any address. Knows nothing of what a run is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network, ip_address
from threading import Event, Lock
from uuid import uuid4

import gradio as gr

from d2f.errors import D2FError

AT_ONCE = 8


class TooManyRuns(D2FError):
    """An address has as many runs as it may; the message tells a visitor so."""


@dataclass(frozen=True)
class Visitor:
    """A session, and the address of the internet that it came from, None without one."""

    session: str
    address: str | None = None


def visitor(request: gr.Request) -> Visitor:
    """Who sent a request."""
    shared = request.headers.get("x-gradio-user") == "mcp"
    session = None if shared else request.session_hash
    host = request.client.host if request.client else ""
    return Visitor(session or uuid4().hex, internet_address(host))


def internet_address(host: str) -> str | None:
    """An address of the internet, of IPv6 the /64 network that one visitor has; else None."""
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if not ip.is_global:
        return None
    return str(ip if isinstance(ip, IPv4Address) else IPv6Network((int(ip), 64), strict=False))


class Visitors:
    """The runs under way, by the session of their visitor."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._running: dict[str, tuple[Event, str | None]] = {}
        self._lock = Lock()

    @contextmanager
    def run(self, visitor: Visitor) -> Iterator[Event]:
        """A new run of a visitor, whose run before is ended; who sets the event ends this one.

        Raises:
            TooManyRuns: other visitors have all runs of this one's address.
        """
        stop = Event()
        with self._lock:
            others = [
                at for session, (_, at) in self._running.items() if session != visitor.session
            ]
            if visitor.address is not None and others.count(visitor.address) >= self._at_once:
                raise TooManyRuns(
                    f"{self._at_once} runs from your address are under way or wait, the most "
                    "there may be. Try again when one of them has ended."
                )
            earlier = self._running.get(visitor.session)
            self._running[visitor.session] = stop, visitor.address
        if earlier is not None:
            earlier[0].set()
        try:
            yield stop
        finally:
            self._end(visitor, stop)

    def _end(self, visitor: Visitor, stop: Event) -> None:
        with self._lock:
            running = self._running.get(visitor.session)
            if running is not None and running[0] is stop:
                del self._running[visitor.session]

    def stop(self, session: str) -> None:
        """Ends the visitor's run, if there is one, even before it has said anything."""
        with self._lock:
            running = self._running.get(session)
        if running is not None:
            running[0].set()
