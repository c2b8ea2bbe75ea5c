"""Where a lane on another machine runs, and how this machine gets there. Sends nothing."""

import socket
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal
from urllib.request import getproxies, proxy_bypass

import httpx

from d2f.errors import D2FError, InvalidInput


class RemoteError(D2FError):
    """A server did not give what it was asked for; the message tells a visitor why."""


@dataclass(frozen=True)
class Server:
    """Where a lane runs. ``url`` is the base, such as ``http://host:8000/v1``.

    ``protocol`` is ``"chat"`` for OpenAI-compatible servers, which need a ``model``, or
    ``"events"`` for ``d2f.serve``. ``timeout`` is the longest silence, in seconds.

    Raises:
        InvalidInput: the address or the key cannot be used, or the model's name is missing.
    """

    url: str
    model: str = ""
    protocol: Literal["chat", "events"] = "chat"
    key: str = field(default="", repr=False)
    timeout: float = 60.0

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InvalidInput(
                f"server address must be a URL, got {self.url!r}: {error}"
            ) from error
        if url.scheme not in ("http", "https") or not url.host:
            raise InvalidInput(f"server address must begin with http:// or https://, got {url}")
        if self.protocol == "chat" and not self.model:
            raise InvalidInput(f"the server at {self.host} needs the name of a model")
        if not self.model.isprintable():
            raise InvalidInput(f"the name of a model holds characters of no text: {self.model!r}")
        object.__setattr__(self, "key", read_key(f"the API key for {self.host}", self.key))

    @property
    def host(self) -> str:
        """Host and port, without what else the address may hold."""
        url = httpx.URL(self.url)
        return f"{url.host}:{url.port}" if url.port else url.host

    @property
    def proxy(self) -> tuple[str, str] | None:
        """The variable that names a proxy for this server, and the proxy; never for this machine.

        The variable is written in capitals, though most systems know it in small letters as well.
        """
        url, proxies = httpx.URL(self.url), getproxies()
        if is_here(url.host) or proxy_bypass(url.host):
            return None
        kind = next((kind for kind in (url.scheme, "all") if proxies.get(kind)), None)
        if kind is None:
            return None
        address = proxies[kind]
        return f"{kind.upper()}_PROXY", address if "://" in address else f"http://{address}"


def read_key(name: str, key: str) -> str:
    """The key without the blanks around it, which files and clipboards add.

    Raises:
        InvalidInput: it holds a character that no HTTP header can; the message begins with
            ``name`` and does not repeat the key.
    """
    key = key.strip()
    for place, character in enumerate(key, 1):
        if not "\x20" <= character <= "\x7e":
            raise InvalidInput(
                f"{name} holds the character U+{ord(character):04X} at place {place}, which no "
                "HTTP header can hold: copy the key again"
            )
    return key


def is_here(host: str) -> bool:
    """Whether a host's name or address is of this machine alone."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        try:
            address = ip_address(socket.inet_aton(name))  # a short form, such as 127.1
        except OSError:
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified
