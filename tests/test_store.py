"""Published races: the same from both kinds of store, after a restart, and whatever is kept there.

The dataset store runs on a folder that stands for the repository. What the hub itself does over
the network is not tested here; huggingface_hub's scheduler is the real one in one test.
"""

import gzip
import json
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any

import httpx
import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RemoteEntryNotFoundError
from test_recording import mutate, race

from app.recordings.recording import Recording
from app.recordings.store import (
    DAMAGED,
    FULL,
    LENGTH,
    MAX_RACE,
    UNKNOWN,
    DatasetStore,
    SqliteStore,
    Store,
    StoreError,
    dataset_store,
    open_store,
    publish,
    published,
)

REPO = "someone/races"


@dataclass
class Folder:
    """What the store may know of huggingface_hub's CommitScheduler."""

    folder_path: Path
    lock: Any = field(default_factory=Lock)


@dataclass
class Repository:
    """A dataset repository as a folder; ``asked`` are the files that were wanted from it."""

    folder: Path
    asked: list[str] = field(default_factory=list)

    def commit(self, local: Path) -> None:
        for path in local.glob("*/*"):
            self.write(path.relative_to(local).as_posix(), path.read_bytes())

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def download(self, *, filename: str, local_dir: str) -> str:
        self.asked.append(filename)
        if not (self.folder / filename).is_file():
            request = httpx.Request("GET", "https://hub.invalid")
            raise RemoteEntryNotFoundError("404", response=httpx.Response(404, request=request))
        path = Path(local_dir, filename)
        path.parent.mkdir(parents=True)
        path.write_bytes((self.folder / filename).read_bytes())
        return str(path)


class SqliteServer:
    """Starts servers over one SQLite file."""

    def __init__(self, root: Path) -> None:
        self.path = root / "folder" / "races.sqlite"

    def start(self, **limits: int) -> SqliteStore:
        return SqliteStore(self.path, **limits)

    def overwrite(self, race_id: str, data: Any) -> None:
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute("UPDATE races SET data = ? WHERE id = ?", [data, race_id])


class SpaceServer:
    """Starts servers over one repository, each with an empty folder, as a Space does."""

    def __init__(self, root: Path) -> None:
        self.root, self.repository = root, Repository(root / "repository")
        self.folders: list[Folder] = []

    def start(self, **limits: int) -> DatasetStore:
        if self.folders:
            self.repository.commit(self.folders[-1].folder_path)
        self.folders.append(Folder(self.root / str(len(self.folders))))
        self.folders[-1].folder_path.mkdir()
        return DatasetStore(
            "hub", b"a secret", self.folders[-1], self.repository.download, **limits
        )

    def overwrite(self, race_id: str, data: bytes) -> None:
        for path in self.root.rglob(f"{race_id}.json.gz"):
            path.write_bytes(data)


Server = SqliteServer | SpaceServer


@pytest.fixture(params=[SqliteServer, SpaceServer], ids=["sqlite", "dataset"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    return request.param(tmp_path)


def races(count: int) -> list[Recording]:
    return [replace(race(), prompt=f"Count to {number}.") for number in range(count)]


def without_past(recording: Recording) -> Recording:
    lanes = []
    for lane in recording.lanes:
        head = replace(lane.trace.header, prompt_ids=(0,) * len(lane.trace.header.prompt_ids))
        lanes.append(replace(lane, trace=replace(lane.trace, header=head)))
    return replace(recording, lanes=tuple(lanes))


# --- What is published comes back. ---


def test_a_published_race_comes_back_without_the_ids_of_its_prompt(server: Server):
    store = server.start()
    race_id = publish(store, race())
    assert len(race_id) == LENGTH and race_id.isalnum() and race_id.isascii()
    assert race() != published(store, race_id) == without_past(race())


def test_the_same_race_has_the_same_id_after_a_restart_too(server: Server):
    store = server.start()
    first, second = (publish(store, each) for each in races(2))
    assert first != second
    assert publish(store, races(1)[0]) == first
    again = server.start()
    assert published(again, first) == without_past(races(1)[0])
    assert published(again, second).prompt == "Count to 1."
    assert publish(again, races(1)[0]) == first
    assert publish(again, published(again, first)) == first


def test_ids_hang_on_the_secret_of_the_store(tmp_path: Path):
    stores = [SqliteStore(tmp_path / name) for name in ("one", "two")]
    assert len({publish(store, race()) for store in stores}) == 2
    assert stores[0].key == SqliteStore(tmp_path / "one").key != stores[1].key


@pytest.mark.parametrize(
    "race_id",
    ["", "a" * LENGTH, "a" * (LENGTH + 1), "\n" + "a" * 9, "../secret0", "%2e%2e%2f0",
     "' OR ''=''", "é" * LENGTH, "\0" * LENGTH],
)  # fmt: skip
def test_an_unknown_or_hostile_id_is_told_in_one_sentence(server: Server, race_id: str):
    store = server.start()
    publish(store, race())
    with pytest.raises(StoreError) as refused:
        published(store, race_id)
    assert str(refused.value) == UNKNOWN
    if isinstance(server, SpaceServer):
        wellformed = race_id == "a" * LENGTH
        assert server.repository.asked == ([f"aa/{race_id}.json.gz"] if wellformed else [])


# --- Limits. ---


@pytest.mark.parametrize("limit", ["races", "bytes"])
def test_a_full_store_refuses_new_races_and_keeps_the_old(server: Server, limit: str):
    first, second = races(2)
    store = server.start(**({"max_races": 1} if limit == "races" else {"max_bytes": 1000}))
    race_id = publish(store, first)
    with pytest.raises(StoreError) as refused:
        publish(store, second)
    assert str(refused.value) == FULL
    assert publish(store, first) == race_id
    assert published(store, race_id) == without_past(first)


def test_a_race_too_long_to_be_read_again_is_not_published(server: Server):
    store = server.start()
    lanes = race().lanes

    def answering(length: int) -> Recording:
        long = lanes[0].trace.with_text("é" * length)  # six bytes each in JSON
        return replace(race(), lanes=(replace(lanes[0], trace=long), lanes[1]))

    spare = MAX_RACE - len(without_past(answering(0)).to_json())
    race_id = publish(store, answering(spare // 6))
    assert published(store, race_id) == without_past(answering(spare // 6))
    with pytest.raises(StoreError, match="too long to be published: 1,048,5.. bytes, at most"):
        publish(store, answering(spare // 6 + 1))


def test_many_visitors_at_once_never_exceed_the_limit_and_lose_nothing(server: Server):
    store = server.start(max_races=10)

    def attempt(recording: Recording) -> tuple[Recording, str | None]:
        try:
            return recording, publish(store, recording)
        except StoreError as refused:
            assert str(refused) == FULL
            return recording, None

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(attempt, 2 * races(16)))
    kept = {race_id: recording for recording, race_id in told if race_id}
    assert len(kept) == 10
    for race_id, recording in kept.items():
        assert published(store, race_id) == without_past(recording)


def test_servers_that_start_at_once_share_one_secret(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: SqliteStore(tmp_path / "races"), range(8)))
    assert len({store.key for store in stores}) == 1


# --- What is kept is not believed. ---


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        gzip.compress(b"{}"),
        gzip.compress(b"\xff"),
        gzip.compress(race().to_json().encode())[:-1],
        gzip.compress(race().to_json().encode()) + b"more",
        gzip.compress(b" " * 50_000_000),
    ],
    ids=["empty", "junk", "no race", "no text", "cut", "longer", "bomb"],
)
def test_a_damaged_record_is_refused(server: Server, data: bytes):
    store = server.start()
    race_id = publish(store, race())
    server.overwrite(race_id, data)
    with pytest.raises(StoreError) as refused:
        published(store, race_id)
    assert str(refused.value) == DAMAGED


def test_hundreds_of_damaged_records_are_refused_or_valid(tmp_path: Path):
    server = SpaceServer(tmp_path)  # the quicker one to overwrite
    rng, store = random.Random(3), server.start()
    race_id, text = publish(store, race()), race().to_json()
    changed = [json.dumps(mutate(json.loads(text), rng)) for _ in range(100)]
    packed = [gzip.compress(each.encode()) for each in changed]
    broken = [bytearray(gzip.compress(text.encode())) for _ in range(100)]
    for data in broken:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)

    def survives(data: bytes) -> bool:
        server.overwrite(race_id, bytes(data))
        try:
            assert published(store, race_id).to_json()
        except StoreError as refused:
            assert str(refused) == DAMAGED
            return False
        return True

    assert 5 < sum(survives(data) for data in [*packed, *broken]) < 100


@pytest.mark.parametrize("value", ["text", 7, 1.5])
def test_a_row_of_another_type_is_refused(tmp_path: Path, value: object):
    server = SqliteServer(tmp_path)
    store = server.start()
    race_id = publish(store, race())
    server.overwrite(race_id, value)
    with pytest.raises(StoreError, match="damaged"):
        published(store, race_id)


# --- Stores that cannot be used say so. ---


def test_a_file_that_is_no_store_does_not_open(tmp_path: Path):
    other = tmp_path / "notes.txt"
    other.write_text("Nothing of SQLite's. " * 100)
    for path, reason in {
        tmp_path: "unable to open database file",
        other: "file is not a database",
        other / "races.sqlite": "folder cannot be made",
    }.items():
        with pytest.raises(StoreError, match=reason):
            SqliteStore(path)
    assert other.read_text().startswith("Nothing")


def test_a_store_that_breaks_is_told_to_whoever_publishes_or_reads(tmp_path: Path):
    server = SqliteServer(tmp_path)
    store = server.start()
    race_id = publish(store, race())
    for path in server.path.parent.iterdir():
        path.write_bytes(b"overwritten " * 1000)
    with pytest.raises(StoreError, match="cannot be used right now: file is not a database"):
        publish(store, race())
    with pytest.raises(StoreError, match="cannot be used right now"):
        published(store, race_id)


def test_a_hub_out_of_reach_is_told(tmp_path: Path):
    def unreachable(**request: str) -> str:
        raise ConnectionError("no route")

    store = DatasetStore("hub", b"a secret", Folder(tmp_path), unreachable)
    race_id = publish(store, race())
    assert published(store, race_id)  # it is still here
    with pytest.raises(StoreError, match=r"cannot be used right now \(ConnectionError\)"):
        published(store, "a" * LENGTH)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    store = DatasetStore("hub", b"a secret", Folder(tmp_path / "absent"), lambda **request: "")
    with pytest.raises(StoreError, match=r"cannot be used right now \(FileNotFoundError\)"):
        publish(store, race())


# --- Datasets. ---


def test_a_race_is_one_file_written_under_the_lock_of_the_scheduler(tmp_path: Path):
    scheduler = Folder(tmp_path)
    store = DatasetStore("hub", b"a secret", scheduler, Repository(tmp_path).download)
    with ThreadPoolExecutor(1) as pool:
        with scheduler.lock:
            later = pool.submit(publish, store, race())
            with pytest.raises(TimeoutError):
                later.result(timeout=0.2)
            assert list(tmp_path.iterdir()) == []
        race_id = later.result()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [tmp_path / race_id[:2] / f"{race_id}.json.gz"]
    assert Recording.from_json(gzip.decompress(files[0].read_bytes()).decode())


def test_a_race_fetched_from_the_hub_leaves_nothing_behind(tmp_path: Path):
    server = SpaceServer(tmp_path)
    race_id = publish(server.start(), race())
    again = server.start()
    assert published(again, race_id) == published(again, race_id)
    assert server.repository.asked == 2 * [f"{race_id[:2]}/{race_id}.json.gz"]
    assert list(server.folders[-1].folder_path.iterdir()) == []


class LocalApi(HfApi):
    """The hub's client without the hub: what it was asked for, and files as a repository."""

    def __init__(self, repository: Repository) -> None:
        super().__init__(token="hf_secret")
        self.repository = repository
        self.made: list[dict[str, Any]] = []

    def create_repo(self, **request: Any) -> SimpleNamespace:  # type: ignore[override]
        self.made.append(request)
        return SimpleNamespace(repo_id=request["repo_id"])

    def create_commit(self, **request: Any) -> None:  # type: ignore[override]
        assert (request["repo_id"], request["repo_type"]) == (REPO, "dataset")
        for operation in request["operations"]:
            with operation.as_file() as file:
                self.repository.write(operation.path_in_repo, file.read())

    def hf_hub_download(self, repo_id: str, **request: Any) -> str:  # type: ignore[override]
        assert (repo_id, request.pop("repo_type")) == (REPO, "dataset")
        return self.repository.download(**request)


def test_the_scheduler_of_huggingface_hub_commits_the_folder(tmp_path: Path):
    repository = Repository(tmp_path / "repository")
    api = LocalApi(repository)
    store = dataset_store(REPO, tmp_path / "folder", "hf_secret", api)
    assert api.made == [
        {"repo_id": REPO, "private": True, "repo_type": "dataset", "exist_ok": True}
    ]
    race_id = publish(store, race())
    (tmp_path / "folder" / "ab").mkdir()
    (tmp_path / "folder" / "ab" / "torn.part").write_text("left by a crash")
    scheduler: Any = store._scheduler
    scheduler.trigger().result(30)
    scheduler.stop()
    assert [path.name for path in repository.folder.glob("*/*")] == [f"{race_id}.json.gz"]
    again = dataset_store(REPO, tmp_path / "other", "hf_secret", api)
    again._scheduler.stop()
    assert published(again, race_id) == without_past(race())
    assert publish(again, race()) == race_id


def test_without_a_token_or_the_hub_a_dataset_does_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folders = {"XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(StoreError, match="needs a token"):
        open_store(f"hf://datasets/{REPO}", folders)
    for name in (REPO, "../../races", "races/of/many"):
        with pytest.raises(StoreError, match="The dataset cannot be opened"):
            open_store(f"hf://datasets/{name}", folders | {"HF_TOKEN": "hf_secret"})
    assert {path.parent for path in tmp_path.rglob("*")} <= {tmp_path, tmp_path / "d2f-race"}


# --- Places. ---


def test_a_place_is_a_file_the_cache_folder_or_nowhere(tmp_path: Path):
    path = tmp_path / "mine.sqlite"
    mine = open_store(str(path), {})
    usual = open_store(None, {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert open_store("none", {}) is None
    places: list[Store | None] = [mine, usual]
    assert [each.place for each in places if each] == [
        str(path),
        str(tmp_path / "cache" / "d2f-race" / "races.sqlite"),
    ]
    assert path.is_file() and (tmp_path / "cache" / "d2f-race" / "races.sqlite").is_file()
