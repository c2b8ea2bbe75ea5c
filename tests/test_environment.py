"""What the page's environment holds, before anything that takes time reads it."""

import importlib.util
import os
import stat
from pathlib import Path

import pytest

from app.environment import bypass_proxies, check_proxy, made, prepare
from d2f.errors import InvalidInput

HERE = "localhost,127.0.0.1,::1"


@pytest.mark.parametrize(
    ("told", "direct"),
    [
        ({}, HERE),
        ({"NO_PROXY": "example.com"}, f"example.com,{HERE}"),
        ({"no_proxy": "example.com", "NO_PROXY": "other.org"}, f"example.com,{HERE}"),
        ({"no_proxy": " ::1 , example.com,"}, "::1,example.com,localhost,127.0.0.1"),
        ({"no_proxy": "*"}, f"*,{HERE}"),
        ({"no_proxy": "[::1],[fd00::7]"}, "::1,fd00::7,localhost,127.0.0.1"),
    ],
)
def test_this_machine_is_asked_directly(told: dict[str, str], direct: str):
    environment = dict(told)
    prepare(environment)
    assert environment["no_proxy"] == environment["NO_PROXY"] == direct


@pytest.mark.parametrize("hosts", ["example.com:http", "::1/128"])
def test_hosts_that_httpx_does_not_read_are_refused(hosts: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_PROXY", hosts)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(InvalidInput, match=f"^NO_PROXY is '{hosts},localhost.* must hold hosts,"):
        prepare(dict(os.environ))


def test_the_address_that_the_page_listens_on_is_asked_directly_as_well():
    environment = {"no_proxy": "example.com"}
    bypass_proxies(environment, "10.0.0.7")
    assert environment["no_proxy"] == "example.com,10.0.0.7"


@pytest.mark.parametrize("address", ["http://proxy:3128", "https://u:p@proxy", "proxy:3128"])
def test_addresses_of_proxies_are_taken(address: str):
    check_proxy("ALL_PROXY", address)


@pytest.mark.parametrize(
    "address", ["socks://u:secret@proxy:1", "socks4://proxy", "ftp://proxy", "http://proxy:secret"]
)
def test_what_is_no_proxy_is_refused_without_its_password(address: str):
    with pytest.raises(InvalidInput) as error:
        check_proxy("ALL_PROXY", address)
    assert str(error.value) == (
        "ALL_PROXY is no address of a proxy: it must begin with http://, https:// or socks5://. "
        "Correct or unset it"
    )


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("installed", [False, True])
def test_a_socks_proxy_needs_its_package(
    scheme: str, installed: bool, monkeypatch: pytest.MonkeyPatch
):
    found = importlib.util.find_spec("httpx") if installed else None
    monkeypatch.setattr("app.environment.find_spec", lambda name: found)
    if installed:
        check_proxy("ALL_PROXY", f"{scheme}://proxy:1080")
    else:
        with pytest.raises(InvalidInput, match=r"^ALL_PROXY is a SOCKS proxy, .* 'httpx\[socks\]'"):
            check_proxy("ALL_PROXY", f"{scheme}://proxy:1080")


@pytest.mark.parametrize("name", ["all_proxy", "HTTPS_PROXY", "http_proxy"])
def test_proxies_are_checked_by_the_names_they_have(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "socks://127.0.0.1:7891/")
    with pytest.raises(InvalidInput, match=f"^{name.upper()} is no address"):
        prepare({})


def test_uploads_get_a_folder_of_their_own_for_a_while():
    environment: dict[str, str] = {}
    folder = prepare(environment)
    assert environment["GRADIO_TEMP_DIR"] == str(folder) and not folder.exists()
    assert prepare({}) != folder
    with made(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.stat().st_uid == os.getuid()
        (folder / "upload.json").write_text("{}")
    assert not folder.exists()


def test_a_folder_that_was_chosen_is_kept(tmp_path: Path):
    environment = {"GRADIO_TEMP_DIR": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "0"}
    with made(prepare(environment)):
        pass
    assert tmp_path.is_dir() and environment["GRADIO_TEMP_DIR"] == str(tmp_path)
    assert environment["HF_HUB_DISABLE_TELEMETRY"] == "0"
    assert environment["GRADIO_ANALYTICS_ENABLED"] == "False"
