"""The environment of the page, put right before torch and gradio read it. Imports neither."""

import shutil
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir
from urllib.request import getproxies
from uuid import uuid4

import httpx

from d2f.errors import InvalidInput

DEFAULTS = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
UPLOADS = "GRADIO_TEMP_DIR"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROXIED = ("http", "https", "all")  # kinds of addresses that a variable names a proxy for


def prepare(environment: MutableMapping[str, str]) -> Path | None:
    """Sets what is not set, keeps this machine's own addresses from proxies, checks the rest.

    Returns:
        The folder for uploads, yet to be made; None if the environment names one.

    Raises:
        InvalidInput: a proxy, or a host that needs none, cannot be read.
    """
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)
    bypass_proxies(environment, *LOOPBACK)
    for kind, address in getproxies().items():
        if kind in PROXIED:
            check_proxy(f"{kind.upper()}_PROXY", address)
    check_direct(environment["NO_PROXY"])
    if environment.get(UPLOADS):
        return None
    folder = own_folder()
    environment[UPLOADS] = str(folder)
    return folder


def bypass_proxies(environment: MutableMapping[str, str], *hosts: str) -> None:
    """Has these hosts asked directly, whatever proxies the environment names."""
    told = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    direct = [bare(host.strip()) for host in told.split(",") if host.strip()]
    direct += [host for host in hosts if host not in direct]
    # Most programs let the lower case win, some read nothing but the upper.
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(direct)


def bare(host: str) -> str:
    """A host without the brackets that an IPv6 address has in a URL; httpx reads no others."""
    return host.removeprefix("[").removesuffix("]")


def check_direct(hosts: str) -> None:
    """``InvalidInput`` unless httpx reads these hosts, which it does for whatever it asks."""
    try:
        httpx.Client(verify=False).close()
    except httpx.InvalidURL as error:
        raise InvalidInput(
            f"NO_PROXY is {hosts!r}: it must hold hosts, with commas between them"
        ) from error


def check_proxy(name: str, address: str) -> None:
    """``InvalidInput`` unless the address is one that httpx takes for a proxy.

    It may hold a password, so the message does not repeat it.
    """
    try:
        scheme = httpx.Proxy(address if "://" in address else f"http://{address}").url.scheme
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidInput(
            f"{name} is no address of a proxy: it must begin with http://, https:// or socks5://. "
            "Correct or unset it"
        ) from error
    if scheme.startswith("socks") and find_spec("socksio") is None:
        raise InvalidInput(
            f"{name} is a SOCKS proxy, which needs: pip install 'httpx[socks]'. Or unset it"
        )


def own_folder() -> Path:
    """A folder for what visitors upload, yet to be made, whose name nobody can know before.

    Gradio's usual one has a fixed name, and may belong to another user of this machine.
    """
    try:
        return Path(gettempdir()) / f"d2f-race-{uuid4().hex}"
    except FileNotFoundError as error:
        raise InvalidInput(f"no temporary folder: set TMPDIR to one ({error})") from error


@contextmanager
def made(folder: Path | None) -> Iterator[None]:
    """Makes a folder for as long as the context lasts."""
    if folder is None:
        yield
        return
    folder.mkdir(mode=0o700)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
