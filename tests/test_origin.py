"""Whose clock and machine a lane's figures are of: fields, which no text of a recording claims."""

import base64
import json
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from races import d2f_trace, header
from test_link import BY_HAND

from app.page.charts import figures
from app.page.reducer import machine, place
from app.page.tell import retell
from app.recordings.link import from_link, to_link
from app.recordings.recording import Recording
from app.recordings.refusals import RecordingError
from app.recordings.store import SqliteStore, publish, published
from d2f import ARConfig, Trace
from d2f.errors import InvalidInput

OLD = Path(__file__).parent / "old"  # written when the device told all in words
CLOUD = "cuda (H100), at gpu:8001, bfloat16"
COUNTED, PIECES = (
    "client-timed, gpu:8000, tokens by its own count, the server's",
    "client-timed, gpu:8000, the server's",
)


def old(name: str, form: str, tmp_path: Path) -> Recording:
    if form == "store":
        path = shutil.copy(OLD / "races.sqlite", tmp_path)
        return published(SqliteStore(Path(path)), "DZlYoOBgRE")
    text = (OLD / f"{name}.{form}").read_text(encoding="utf-8")
    return Recording.from_json(text) if form == "json" else from_link(text.strip())


@pytest.mark.parametrize(
    ("name", "form", "counted", "told"),
    [
        ("counted", "json", True, COUNTED),
        ("counted", "link", True, COUNTED),
        ("counted", "store", True, COUNTED),
        ("pieces", "json", False, PIECES),
        ("pieces", "link", False, PIECES),
    ],
)
def test_what_was_kept_before_is_told_as_it_was(
    name: str, form: str, counted: bool, told: str, tmp_path: Path
) -> None:
    recording = old(name, form, tmp_path)
    d2f, ar = (lane.trace.header for lane in recording.lanes)
    assert (d2f.device, d2f.clock, d2f.host) == ("cuda (H100)", "decoder", "gpu:8001")
    assert (ar.device, ar.clock, ar.host) == ("unknown", "client", "gpu:8000")
    assert (d2f.counted, ar.counted) == (True, counted)
    start, *_, end = retell(recording)
    assert end["note"] == f"As recorded, not measured here: {CLOUD}; {told}."
    assert [lane["confidences"] for lane in start["lanes"]] == [True, False]
    assert [bars.name for bars in figures(recording)[-1].data] == ["D2F"]
    assert Recording.from_json(recording.to_json()) == recording
    linked = from_link(to_link(recording)).lanes[1].trace.header
    assert replace(linked, stop_ids=ar.stop_ids) == ar


def one(device: str, **origin: object) -> Recording:
    lane = BY_HAND.lanes[0]
    header = replace(lane.trace.header, device=device, **origin)
    return Recording("Count.", (replace(lane, trace=replace(lane.trace, header=header)),))


def forms(recording: Recording, tmp_path: Path) -> list[Recording]:
    store = SqliteStore(tmp_path / "races.sqlite")
    return [
        Recording.from_json(recording.to_json()),
        from_link(to_link(recording)),
        published(store, publish(store, recording)),
    ]


@pytest.mark.parametrize(
    "device",
    [
        "client-timed, gpu:8000",
        "client-timed, gpu:8000, tokens by its own count",
        "cpu (Fast, at last)",
        "cuda (H100), at gpu:8000",
    ],
)
def test_no_text_claims_a_clock_or_a_host(device: str, tmp_path: Path) -> None:
    for kept in forms(one(device), tmp_path):
        told = kept.lanes[0].trace.header
        assert (told.device, told.clock, told.host, told.counted) == (device, "decoder", None, True)
        assert machine(told).startswith(f"Measured on this machine ({device}, float32)")


@pytest.mark.parametrize(
    ("clock", "host", "counted"),
    [
        ("decoder", "gpu:8000", True),
        ("client", "gpu:8000", True),
        ("client", "gpu:8000", False),
        ("client", None, False),
        ("client", "gpu, at the attic", True),
    ],
)
def test_files_links_and_stores_keep_the_fields(
    clock: str, host: str | None, counted: bool, tmp_path: Path
) -> None:
    origin = {"clock": clock, "host": host, "counted": counted}
    for kept in forms(one("cpu", **origin), tmp_path):
        told = kept.lanes[0].trace.header
        assert {name: getattr(told, name) for name in origin} == origin


def test_a_run_of_this_machine_needs_no_more_room_in_a_link() -> None:
    def head(recording: Recording) -> list:
        link = to_link(recording)
        data = base64.urlsafe_b64decode(link + "=" * (-len(link) % 4))
        return json.loads(zlib.decompress(data, -zlib.MAX_WBITS))

    data = head(one("cpu"))
    assert data[0] == 3 and len(data[4][0]) == 15
    assert head(one("cpu", host="gpu"))[4][0][15:] == ["decoder", "gpu"]


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("clock", "mine", "clock must be one of"),
        ("clock", 1, "clock must be one of"),
        ("counted", 1, "counted must be true or false"),
        ("host", "x" * 201, "the host is longer than 200 characters"),
        ("host", "\x00", "the host contains the character U\\+0000"),
    ],
)
def test_fields_of_a_file_are_checked(field: str, value: object, told: str) -> None:
    data = json.loads(one("cpu").to_json())
    data["lanes"][0]["trace"]["header"][field] = value
    with pytest.raises(RecordingError, match=told):
        Recording.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (["mine", None, True], "its clock must be 'decoder' or 'client'"),
        (["client", [], True], "the host must be text"),
        (["client", 0, True], "the host must be text"),
        (["client", None, 1], "whether its tokens were counted must be true or false"),
        (["client", None, True, [], [], [], 0], "its parts are not those of a race"),
    ],
)
def test_fields_of_a_link_are_checked(origin: list, told: str) -> None:
    link = to_link(one("cpu"))
    data = json.loads(
        zlib.decompress(base64.urlsafe_b64decode(link + "=" * (-len(link) % 4)), -zlib.MAX_WBITS)
    )
    data[4][0] += origin
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflate.compress(json.dumps(data).encode()) + deflate.flush()
    with pytest.raises(RecordingError, match=told):
        from_link(base64.urlsafe_b64encode(packed).decode().rstrip("="))


def test_a_trace_without_the_fields_is_a_decoders_own() -> None:
    data = json.loads(d2f_trace().to_json())
    assert [data["header"].pop(name) for name in ("clock", "host", "counted")] == [
        "decoder",
        None,
        True,
    ]
    assert Trace.from_json(json.dumps(data)) == d2f_trace()
    data["header"]["clock"] = "sun"
    with pytest.raises(InvalidInput, match="clock must be one of"):
        Trace.from_json(json.dumps(data))


def test_a_place_is_told_in_one_way() -> None:
    here = header(ARConfig(), "mini-ar")
    assert place(here) == "cpu (x86_64), float32"
    assert place(replace(here, host="gpu:1")) == "cpu (x86_64), at gpu:1, float32"
    there = replace(here, clock="client", host="gpu:1", dtype="the server's")
    assert place(there) == "client-timed, gpu:1, tokens by its own count, the server's"
    assert place(replace(there, counted=False)) == "client-timed, gpu:1, the server's"
