"""Published races: each has a short id, and lies where its link outlives the server.

A :class:`Store` keeps bytes under ids and knows nothing of races; :func:`publish` and
:func:`published` stand between it and the page. An id is a hash of the race keyed with the store's
secret: the same race has the same id, and nobody can guess or construct one. What a store gives
back is read like a stranger's file. Knows nothing of gradio.
"""

import gzip
import hmac
import logging
import re
import secrets
import sqlite3
import string
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from huggingface_hub import CommitScheduler, HfApi
from huggingface_hub.errors import RemoteEntryNotFoundError

from d2f.errors import D2FError

from .armour import short_id
from .recording import RecordedLane, Recording
from .refusals import RecordingError, require

MAX_RACE = 1_048_576  # bytes of JSON
MAX_PACKED = MAX_RACE + 4096  # what does not deflate grows a little
MAX_RACES = 10_000
MAX_BYTES = 1_000_000_000  # all races of a store, deflated
LENGTH = 10
DIGITS = string.digits + string.ascii_letters
BUSY_SECONDS = 10
COMMIT_MINUTES = 5
DATASETS, NOWHERE = "hf://datasets/", "none"
SUFFIX = ".json.gz"
FULL = "The store of published races is full. Use Download trace to keep this race."
UNKNOWN = "No race is published under this address. It may have been cut short or mistyped."
DAMAGED = "This published race cannot be opened: its record is damaged."
_ID = re.compile(f"[0-9A-Za-z]{{{LENGTH}}}")
_TABLES = """
CREATE TABLE IF NOT EXISTS secret (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS races (
    id TEXT PRIMARY KEY, made TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, data BLOB NOT NULL
);
"""
# One statement, so that no other thread or process can slip in between counting and inserting.
_INSERT = """
INSERT INTO races (id, data) SELECT :id, :data
WHERE (SELECT count(*) FROM races) < :max_races
AND (SELECT total(length(data)) FROM races) + length(:data) <= :max_bytes
ON CONFLICT DO NOTHING
"""


class StoreError(D2FError):
    """A store refuses or cannot be used; the message tells a visitor why."""


class Store(Protocol):
    """Keeps bytes under ids. ``place`` says where, to people; ``key`` is its secret.

    Both methods may be called from any thread, and raise :class:`StoreError` where they cannot do
    their work.
    """

    place: str
    key: bytes

    def put(self, race_id: str, data: bytes) -> None:
        """Keeps ``data``, all of it or nothing; an id that is there keeps what it has."""

    def get(self, race_id: str) -> bytes | None:
        """What is kept under an id, None without it; of anything larger, the beginning."""


def publish(store: Store, recording: Recording) -> str:
    """Puts a race into the store; its id there.

    As in a link, the prompt's token ids become zeros: what was said is told in words, once.

    Raises:
        ValueError: the race is too long, or the store has no room.
    """
    lanes = tuple(_without_ids(lane) for lane in recording.lanes)
    data = replace(recording, lanes=lanes).to_json().encode()
    if len(data) > MAX_RACE:
        raise StoreError(
            f"This race is too long to be published: {len(data):,} bytes, at most {MAX_RACE:,}. "
            "Use Download trace to keep it."
        )
    race_id = _id(store.key, data)
    store.put(race_id, gzip.compress(data, mtime=0))
    return race_id


def published(store: Store, race_id: str) -> Recording:
    """The race of an id, of which nothing is believed.

    Raises:
        StoreError: there is none, or what is kept is no race.
    """
    race_id = short_id(race_id, LENGTH)
    data = store.get(race_id) if _ID.fullmatch(race_id) else None
    if data is None:
        raise StoreError(UNKNOWN)
    try:
        return Recording.from_json(_inflate(data).decode())
    except ValueError as error:
        raise StoreError(DAMAGED) from error


def _without_ids(lane: RecordedLane) -> RecordedLane:
    header = replace(lane.trace.header, prompt_ids=(0,) * len(lane.trace.header.prompt_ids))
    return replace(lane, trace=replace(lane.trace, header=header))


def _id(key: bytes, data: bytes) -> str:
    number = int.from_bytes(hmac.digest(key, data, "sha256"), "big")
    return "".join(DIGITS[number // len(DIGITS) ** i % len(DIGITS)] for i in range(LENGTH))


def _inflate(data: bytes) -> bytes:
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)  # gzip
    try:
        content = inflate.decompress(data, MAX_RACE + 1)
    except zlib.error as error:
        raise RecordingError("it is damaged") from error
    require(len(content) <= MAX_RACE, f"it unfolds to more than {MAX_RACE:,} bytes")
    require(inflate.eof and not inflate.unused_data, "its end is missing, or something follows it")
    return content


class SqliteStore:
    """A SQLite file, made where there is none. Each call has a connection of its own."""

    def __init__(self, path: Path, max_races: int = MAX_RACES, max_bytes: int = MAX_BYTES) -> None:
        self.place, self._path = str(path), path
        self._limits = {"max_races": max_races, "max_bytes": max_bytes}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"Its folder cannot be made: {error}.") from error
        with self._transaction() as db:
            db.execute("PRAGMA journal_mode=WAL")  # readers and a writer do not wait for each other
            db.executescript(_TABLES)
            db.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", [secrets.token_bytes(32)])
            (self.key,) = db.execute("SELECT key FROM secret").fetchone()

    def put(self, race_id: str, data: bytes) -> None:
        with self._transaction() as db:
            db.execute(_INSERT, {"id": race_id, "data": data, **self._limits})
            kept = db.execute("SELECT 1 FROM races WHERE id = ?", [race_id]).fetchone()
        if kept is None:
            raise StoreError(FULL)

    def get(self, race_id: str) -> bytes | None:
        # Whatever its type and length: a file on a disk can be edited.
        query = "SELECT substr(CAST(data AS BLOB), 1, ?) FROM races WHERE id = ?"
        with self._transaction() as db:
            row = db.execute(query, [MAX_PACKED, race_id]).fetchone()
        return row and (row[0] or b"")  # SQLite has no empty part of a blob

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS)) as db, db:
                yield db
        except sqlite3.Error as error:
            text = f"The store of published races cannot be used right now: {error}."
            raise StoreError(text) from error


class Scheduler(Protocol):
    """What is used of huggingface_hub's CommitScheduler, which uploads a folder now and then."""

    @property
    def folder_path(self) -> Path: ...

    @property
    def lock(self) -> AbstractContextManager[Any, Any]: ...


class Download(Protocol):
    """``hf_hub_download`` of one repository: the path of a file that was fetched."""

    def __call__(self, *, filename: str, local_dir: str) -> str: ...


class DatasetStore:
    """A file a race in a Hugging Face dataset repository.

    A race lies in the scheduler's folder at once, and in the repository after its next commit. One
    that is not in the folder, as after the restart of a Space, is fetched at every opening. The
    limits are those of the folder, and so of the disk: what is only in the repository is not
    counted.
    """

    def __init__(
        self,
        place: str,
        key: bytes,
        scheduler: Scheduler,
        download: Download,
        max_races: int = MAX_RACES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.place, self.key = place, key
        self._scheduler, self._download = scheduler, download
        self._max_races, self._max_bytes = max_races, max_bytes

    def put(self, race_id: str, data: bytes) -> None:
        folder = self._scheduler.folder_path
        path = folder / _file(race_id)
        part = path.with_name(f"{race_id}.part")
        with self._scheduler.lock:
            if path.exists():
                return
            sizes = [file.stat().st_size for file in folder.glob(f"*/*{SUFFIX}")]
            if len(sizes) >= self._max_races or sum(sizes) + len(data) > self._max_bytes:
                raise StoreError(FULL)
            try:
                path.parent.mkdir(exist_ok=True)
                part.write_bytes(data)
                part.replace(path)
            except OSError as error:
                raise _unreachable(error) from error

    def get(self, race_id: str) -> bytes | None:
        try:
            return _begin(self._scheduler.folder_path / _file(race_id))
        except FileNotFoundError:
            return self._fetch(race_id)
        except OSError as error:
            raise _unreachable(error) from error

    def _fetch(self, race_id: str) -> bytes | None:
        # Into a folder of its own: the hub's cache keeps a file for every id that was ever tried.
        with TemporaryDirectory() as folder:
            try:
                return _begin(Path(self._download(filename=_file(race_id), local_dir=folder)))
            except RemoteEntryNotFoundError:
                return None
            except Exception as error:  # of several network libraries
                raise _unreachable(error) from error


def _file(race_id: str) -> str:
    # The hub wants no more than 10,000 files in a folder.
    return f"{race_id[:2]}/{race_id}{SUFFIX}"


def _begin(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_PACKED)


def _unreachable(error: Exception) -> StoreError:
    logging.getLogger(__name__).warning("the store cannot be used", exc_info=error)
    name = type(error).__name__
    return StoreError(f"The store of published races cannot be used right now ({name}).")


def dataset_store(
    repo_id: str, folder: Path, token: str | None, api: HfApi | None = None
) -> DatasetStore:
    """A store in ``OWNER/NAME``, made private where there is none; ``folder`` waits for uploads.

    ``api`` is a client to use in place of one with this token.

    Raises:
        StoreError: there is no token, or the repository cannot be had with it.
    """
    if not token:
        raise StoreError("A dataset needs a token that may write to it, in HF_TOKEN.")
    api = api or HfApi(token=token)
    try:
        scheduler = CommitScheduler(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            every=COMMIT_MINUTES,
            private=True,
            hf_api=api,
            allow_patterns=f"*{SUFFIX}",
        )
    except Exception as error:  # of several network libraries
        raise StoreError(f"The dataset cannot be opened: {error}") from error
    # Ids stay the same after a restart that left nothing but the token.
    key = hmac.digest(token.encode(), b"ids of published races", "sha256")
    download = partial(api.hf_hub_download, repo_id, repo_type="dataset")
    return DatasetStore(DATASETS + repo_id, key, scheduler, download)


def open_store(place: str | None, environment: Mapping[str, str]) -> Store | None:
    """A path's SQLite file, ``hf://datasets/OWNER/NAME``, or ``none``, which has no store.

    None as a place is a file in the user's cache folder, where links survive a restart.

    Raises:
        StoreError: it does not open.
    """
    if place == NOWHERE:
        return None
    if place is not None and not place.startswith(DATASETS):
        return SqliteStore(Path(place))
    try:
        cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "d2f-race"
    except RuntimeError as error:
        raise StoreError("There is no home folder for it: HOME is not set.") from error
    if place is None:
        return SqliteStore(cache / "races.sqlite")
    repo_id = place.removeprefix(DATASETS)
    return dataset_store(repo_id, cache / repo_id.replace("/", "--"), environment.get("HF_TOKEN"))
