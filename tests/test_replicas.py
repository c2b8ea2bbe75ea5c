"""The service on Ray Serve, as ``serve run`` starts it: two replicas, of which one dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from folders import save_models

import app.lanes.lane
from app.lanes.lane import Lane, remote_lane
from app.lanes.remote import Server
from d2f import ARConfig
from d2f.serve.service import Options

CONFIG = Path(__file__).parent.parent / "assets" / "serve.yaml"
CHAT = [{"role": "user", "content": "Count."}]
PATIENCE = 300.0
MARK = "D2F_TEST_OF_REPLICAS"
on_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is optional: not installed")


def test_the_config_names_only_what_there_is():
    (application,) = yaml.safe_load(CONFIG.read_text())["applications"]
    assert Options(**application["args"]).model == "mini-d2f"
    module, _, name = application["import_path"].partition(":")
    assert find_spec(module) is not None and name == "application"
    assert [each["name"] for each in application["deployments"]] == [application["name"]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Iterator[Any]:
    """The address of a service of two replicas, and its process."""
    root = tmp_path_factory.mktemp("replicas")
    port = 8765
    config = yaml.safe_load(CONFIG.read_text())
    config["http_options"]["port"] = port
    (application,) = config["applications"]
    application["args"]["model"] = str(save_models(root, tokenizer_folder) / "mini-ar")
    (deployment,) = application["deployments"]
    del deployment["autoscaling_config"]
    deployment |= {"num_replicas": 2, "max_ongoing_requests": 1}
    deployment["ray_actor_options"]["num_cpus"] = 0.5
    path = root / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    environment = os.environ | {
        MARK: str(root),
        "RAY_USAGE_STATS_ENABLED": "0",
        # On a slow machine, starting a process takes longer than the 5 seconds Ray expects.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }
    command = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()", "run", str(path)]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=CONFIG.parent.parent, stdout=log, stderr=log
        )
    try:
        await_answer(f"http://127.0.0.1:{port}/v1/models", process, root / "log")
        yield f"http://127.0.0.1:{port}/v1", str(root)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


def await_answer(url: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(1)
    raise AssertionError(log.read_text()[-4000:])


def replicas(mark: str) -> list[int]:
    """The replicas' processes: those of this test alone."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes()
            ours = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if ours and name.startswith(b"ray::ServeReplica:d2f:d2f"):
            found.append(int(folder.name))
    return found


def race(url: str, tokens: int) -> tuple[Lane, threading.Thread]:
    """A page's lane that runs in a thread of its own."""
    server = Server(url, protocol="events")
    lane = remote_lane("AR", server, CHAT, ARConfig(max_new_tokens=tokens, temperature=1.0))

    def run() -> None:
        while lane.advance() is not None:
            pass
        lane.close()

    thread = threading.Thread(target=run)
    thread.start()
    return lane, thread


@on_ray
@pytest.mark.slow
def test_a_dead_replica_ends_its_own_run_and_no_other(
    service: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    url, mark = service
    monkeypatch.setattr(app.lanes.lane, "BEGIN", 60.0)
    assert len(replicas(mark)) == 2
    races = [race(url, 700), race(url, 700)]
    until = time.monotonic() + 60
    while not all(len(lane.events) > 5 for lane, _ in races) and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(replicas(mark)[0], signal.SIGKILL)
    for _, thread in races:
        thread.join()
    (broken,) = [lane for lane, _ in races if lane.failure]
    (whole,) = [lane for lane, _ in races if not lane.failure]
    assert broken.failure.endswith("broke off in the middle of its answer.")
    assert 5 < len(broken.events) < 700 and broken.trace.finish_reason is None
    assert whole.trace.finish_reason in ("stop", "length")
    for _ in range(3):
        lane, thread = race(url, 20)
        thread.join()
        assert lane.failure == "" and lane.trace.finish_reason in ("stop", "length")
    until = time.monotonic() + PATIENCE
    while len(replicas(mark)) < 2 and time.monotonic() < until:
        time.sleep(1)
    assert len(replicas(mark)) == 2, "Ray starts another"
