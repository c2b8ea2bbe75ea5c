"""The environment of the page, put right before torch and gradio read it. Imports neither."""

import os
import shutil
import signal
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from urllib.request import getproxies

import httpx

from d2f.errors import InvalidInput

DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads starve a busy machine
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROXIED = ("http", "https", "all")  # kinds of addresses that a variable names a proxy for
ENDING = (signal.SIGINT, signal.SIGTERM)


def prepare(environment: MutableMapping[str, str], uploads: str) -> None:
    """Sets what is not set, keeps this machine's own addresses from proxies, checks the rest.

    Args:
        uploads: a folder of this program's own. Gradio's usual one may be another user's.

    Raises:
        InvalidInput: a proxy is named that cannot be used.
    """
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)
    environment["GRADIO_TEMP_DIR"] = environment.get("GRADIO_TEMP_DIR") or uploads
    bypass_proxies(environment, *LOOPBACK)
    for kind, address in getproxies().items():
        if kind in PROXIED:
            check_proxy(f"{kind.upper()}_PROXY", address)


def bypass_proxies(environment: MutableMapping[str, str], *hosts: str) -> None:
    """Has these hosts asked directly, whatever proxies the environment names."""
    told = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    direct = [host.strip() for host in told.split(",") if host.strip()]
    direct += [host for host in hosts if host not in direct]
    # Most programs let the lower case win, some read nothing but the upper.
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(direct)


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


@contextmanager
def private_folder() -> Iterator[str]:
    """A temporary folder of this program's own, for as long as the context lasts."""
    try:
        folder = TemporaryDirectory(prefix="d2f-race-", ignore_cleanup_errors=True)
    except OSError as error:
        raise InvalidInput(
            f"no temporary folder can be made, set TMPDIR to one: {error}"
        ) from error
    with folder as path:
        yield path


@contextmanager
def quiet_end(folder: str) -> Iterator[None]:
    """Ends the program at once on Ctrl+C or a signal to end.

    An exception instead would surface in the middle of some library's import, as another one.
    """
    before = {number: signal.signal(number, partial(_end, folder)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(folder: str, number: int, _: object) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(128 + number)
