"""A small hub on this machine, spoken to by huggingface_hub: what comes, what failures say."""

import errno
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from originals import Llada, llada_json, llada_state, rounded, write_folder
from test_originals import with_adapter
from tiny import network

from d2f import load_model
from d2f.catalogue.entry import Adapter, Published, Repo
from d2f.catalogue.published import PUBLISHED
from d2f.checkpoints.hub import _whole, cached, explain, has_token, snapshot
from d2f.errors import HubError
from d2f.nn.transformer import Transformer
from d2f.tokenizer import Tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by id, with their files; ``refused`` holds a status and error code by id."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, repo_id: str, folder: Path) -> None:
        files = (path for path in folder.rglob("*") if path.is_file())
        self.repos[repo_id] = {str(p.relative_to(folder)): p.read_bytes() for p in files}


class Handler(BaseHTTPRequestHandler):
    """The few routes of the hub's interface that a snapshot takes."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append(f"{self.command} {path}")
        api = path.startswith("api/models/")
        owner, name, route, revision, *rest = [*path.removeprefix("api/models/").split("/"), "", ""]
        repo_id = f"{owner}/{name}"
        status, code = self.hub.refused.get(repo_id, (200, ""))
        if repo_id not in self.hub.repos:
            status, code = 401, "RepoNotFound"
        elif revision not in (COMMIT, "main"):
            status, code = 404, "RevisionNotFound"
        # As on the hub, a gated repository's list of files is public.
        if status != 200 and not (api and code == "GatedRepo"):
            return self.reply(status, b"", {"X-Error-Code": code, "X-Error-Message": code})
        files = self.hub.repos[repo_id]
        if not api:
            return self.file(files["/".join(rest).strip("/")])
        if route == "revision":
            return self.reply(200, json.dumps({"id": repo_id, "sha": COMMIT}).encode())
        tree = [
            {"type": "file", "path": path, "size": len(data), "oid": sha1(data).hexdigest()}
            for path, data in files.items()
        ]
        return self.reply(200, json.dumps(tree).encode())

    def file(self, data: bytes) -> None:
        headers = {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self.reply(200, data, headers)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process takes for the real one, with an empty cache and no token."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    reach(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()
    huggingface_hub.close_session()


def reach(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """What the library reads from the environment when it is imported."""
    settings = {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
    }
    for name, value in settings.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setattr("d2f.checkpoints.hub.get_token", lambda: None)


@contextmanager
def without_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture
def small(hub: Hub, tmp_path: Path) -> Hub:
    folder = tmp_path / "small"
    (folder / "original").mkdir(parents=True)
    for name in (
        "config.json",
        "model.safetensors",
        "merges.txt",
        "modeling.py",
        "pytorch_model.bin",
        "original/params.json",
        "original/consolidated.safetensors",
    ):
        (folder / name).write_text(name)
    hub.add("some/model", folder)
    return hub


def test_only_what_is_needed_comes_and_no_code(small: Hub) -> None:
    folder = snapshot("some/model", COMMIT)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"config.json", "model.safetensors", "merges.txt"}
    assert (folder / "merges.txt").read_text() == "merges.txt"
    asked = [line for line in small.asked if "some/model" in line]
    assert asked and all(COMMIT in line for line in asked)


def test_a_snapshot_that_is_there_is_used_without_a_question(
    small: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cached("some/model", COMMIT) is None
    folder = snapshot("some/model", COMMIT)
    small.asked.clear()
    assert cached("some/model", COMMIT) == folder
    assert snapshot("some/model", COMMIT) == folder
    assert small.asked == []
    with without_network(monkeypatch):
        assert snapshot("some/model", COMMIT) == folder


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_an_interrupted_download_goes_on(
    revision: str, small: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = snapshot("some/model", revision)
    (folder / "model.safetensors").unlink()
    assert cached("some/model", revision) is None
    message = r"some/model is not \(all\) downloaded, and HF_HUB_OFFLINE forbids to: unset it"
    with without_network(monkeypatch), pytest.raises(HubError, match=message):
        snapshot("some/model", revision)
    small.asked.clear()
    assert snapshot("some/model", revision) == folder
    assert (folder / "model.safetensors").read_text() == "model.safetensors"
    assert not any("merges.txt" in line for line in small.asked)


def test_a_snapshot_with_a_shard_missing_is_not_whole(hub: Hub, tmp_path: Path) -> None:
    """Whatever the library says of the folder."""
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    source = tmp_path / "sharded"
    source.mkdir()
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("config.json", shards[0]):
        (source / name).write_text("{}")
    hub.add("some/shards", source)
    folder = snapshot("some/shards", COMMIT)
    assert cached("some/shards", COMMIT) is None
    (folder / shards[1]).write_text("{}")
    assert cached("some/shards", COMMIT) == folder
    (folder / "model.safetensors.index.json").unlink()
    assert not _whole(folder)
    (folder / "adapter_model.safetensors").write_text("{}")
    assert _whole(folder)


def test_a_snapshot_with_a_damaged_index_is_told_when_it_is_loaded(
    hub: Hub, tmp_path: Path
) -> None:
    source = tmp_path / "damaged"
    source.mkdir()
    for name in ("config.json", "model.safetensors.index.json"):
        (source / name).write_text("{}")
    hub.add("some/damaged", source)
    folder = snapshot("some/damaged", COMMIT)
    assert cached("some/damaged", COMMIT) == folder


@pytest.mark.parametrize(
    ("refusal", "token", "message"),
    [
        (
            (403, "GatedRepo"),
            None,
            r"some/model is gated: accept its licence at https://huggingface.co/some/model, "
            r"then log in with 'hf auth login' or set HF_TOKEN",
        ),
        ((403, "GatedRepo"), "hf_x", r"gated and the token set up here has no access to it"),
        ((401, "RepoNotFound"), None, r"the hub shows no repository some/model: check the name"),
        ((404, "RevisionNotFound"), None, rf"some/model has no revision '{COMMIT}'"),
        (
            (401, "Invalid credentials in Authorization header"),
            "hf_x",
            r"the hub refuses the token set up here: log in",
        ),
        ((418, ""), None, r"the hub is out of reach for some/model .*418"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(
    refusal: tuple[int, str],
    token: str | None,
    message: str,
    small: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("d2f.checkpoints.hub.get_token", lambda: token)
    small.refused["some/model"] = refusal
    with pytest.raises(HubError, match=message):
        snapshot("some/model", COMMIT)


def test_offline_and_not_there(small: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        without_network(monkeypatch),
        pytest.raises(
            HubError,
            match=r"some/model is not \(all\) downloaded, and HF_HUB_OFFLINE forbids to: unset it",
        ),
    ):
        snapshot("some/model", COMMIT)
    assert small.asked == []


def test_no_network_and_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(monkeypatch, "http://127.0.0.1:1", tmp_path)
    with pytest.raises(HubError, match=r"out of reach for some/model .*check the network"):
        snapshot("some/model", "main")
    huggingface_hub.close_session()


def answered(status: int) -> Exception:
    errors = huggingface_hub.errors
    request = huggingface_hub.get_session().build_request("GET", "http://127.0.0.1")
    return errors.HfHubHTTPError("no", response=errors.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (answered(503), "the hub answered 503 for a/b: try again later"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: make room"),
        (PermissionError(13, "Permission denied", "/cache"), "cannot be downloaded: .*denied"),
        (TimeoutError("timed out"), r"out of reach for a/b \(timed out\): check the network"),
        (
            huggingface_hub.errors.LocalEntryNotFoundError("nothing here"),
            r"out of reach for a/b \(nothing here\)",
        ),
        (huggingface_hub.errors.HFValidationError("two slashes"), "'a/b' is no name of a repo"),
    ],
)
def test_other_failures_are_told_apart(error: Exception, message: str) -> None:
    assert re.search(message, explain(error, "a/b", "main"))


def test_a_token_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2f.checkpoints.hub.get_token", lambda: "hf_x")
    assert has_token()
    monkeypatch.setattr("d2f.checkpoints.hub.get_token", lambda: None)
    assert not has_token()


@pytest.fixture
def tiny_llada(
    hub: Hub, tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Published, Transformer]:
    """A catalogue entry whose checkpoint and adapter lie on the hub, tiny."""
    mask = Tokenizer(tokenizer_folder).mask_id
    net = rounded(network(640, sharpness=1, mask_id=mask, num_kv_heads=4))
    state = llada_state(net)
    hub.add("org/tiny", write_folder(tmp_path / "base", state, llada_json(net), tokenizer_folder))
    targets = ["q_proj", "k_proj", "v_proj", "attn_out"]
    with_adapter(Llada(net), tmp_path / "lora", targets)
    hub.add("lab/tiny_Lora", tmp_path / "lora")
    entry = replace(
        PUBLISHED["d2f-llada-8b-instruct"],
        name="d2f-tiny",
        repo=Repo("org/tiny", COMMIT, "MIT"),
        adapter=Adapter(repo=Repo("lab/tiny_Lora", "main", "MIT"), rank=4),
        shape=net.config,
    )
    monkeypatch.setitem(PUBLISHED, "d2f-tiny", entry)
    monkeypatch.setitem(PUBLISHED, "tiny", replace(entry, name="tiny", adapter=None))
    return entry, net


def test_a_published_name_comes_with_its_adapter(
    tiny_llada: tuple[Published, Transformer], tmp_path: Path, hub: Hub
) -> None:
    model = load_model("d2f-tiny", dtype="bfloat16")
    assert model.name == "d2f-tiny"
    assert model.dtype == "bfloat16"
    by_hand = load_model(tmp_path / "base", adapter=tmp_path / "lora", dtype="bfloat16")
    bare = load_model("tiny", dtype="bfloat16")
    for key, value in by_hand.net.state_dict().items():
        assert torch.equal(model.net.state_dict()[key], value), key
    key = "layers.1.self_attn.o_proj.weight"
    assert not torch.equal(model.net.state_dict()[key], bare.net.state_dict()[key])
    hub.asked.clear()
    load_model("tiny", dtype="bfloat16")
    assert hub.asked == []


def test_any_repository_is_loaded_by_its_id(
    tiny_llada: tuple[Published, Transformer], hub: Hub
) -> None:
    exact = load_model("tiny").net.state_dict()
    for name in ("org/tiny", f"org/tiny@{COMMIT}"):
        for key, value in load_model(name).net.state_dict().items():
            assert torch.equal(value, exact[key]), key
    with pytest.raises(HubError, match="no model folder 'org/none'; on the hub: the hub shows no"):
        load_model("org/none")


def test_a_model_with_an_adapter_takes_no_other(
    tiny_llada: tuple[Published, Transformer], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="model 'd2f-tiny' has an adapter of its own"):
        load_model("d2f-tiny", adapter=tmp_path / "lora")


def test_an_adapter_of_another_published_model_is_refused(
    tiny_llada: tuple[Published, Transformer], tmp_path: Path, hub: Hub
) -> None:
    """Same shapes, another base: nothing but its own word tells."""
    path = tmp_path / "lora" / "adapter_config.json"
    raw = json.loads(path.read_text())
    load_model("tiny", adapter=tmp_path / "lora")
    path.write_text(json.dumps(raw | {"base_model_name_or_path": "/data/Dream-v0-Base-7B"}))
    for name in ("tiny", "org/tiny", f"org/tiny@{COMMIT}"):
        with pytest.raises(ValueError, match="was trained on Dream-v0-Base-7B, not on tiny"):
            load_model(name, adapter=tmp_path / "lora")
    folder = snapshot("org/tiny", COMMIT)
    assert "models--org--tiny" in folder.parts
    with pytest.raises(ValueError, match="was trained on Dream-v0-Base-7B, not on tiny"):
        load_model(folder, adapter=tmp_path / "lora")
    # A folder of any other name may hold whatever the adapter was made for.
    load_model(tmp_path / "base", adapter=tmp_path / "lora")


def test_attention_that_cannot_run_is_refused_before_the_download(
    tiny_llada: tuple[Published, Transformer], hub: Hub
) -> None:
    with pytest.raises(ValueError, match="attention 'flash' needs a CUDA GPU"):
        load_model("d2f-tiny", attention="flash")
    assert hub.asked == []


def test_without_a_home_folder_nothing_is_cached_and_a_download_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~no-such-user/hub")
    assert cached("someone/model", "main") is None
    with pytest.raises(HubError, match="^there is no home folder for downloads: set HOME or HF_"):
        snapshot("someone/model", "main")


def test_a_token_that_another_user_keeps_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("hf_secret")
    token.chmod(0)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(token))
    user = os.geteuid()
    if user == 0:
        os.seteuid(65533)
    try:
        assert has_token() is False
    finally:
        os.seteuid(user)
