"""Lanes at a scripted server, run to their end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from servers import Part, Scripted

from app.lanes.lane import Lane, remote_lane
from app.lanes.server import Server
from d2f import ARConfig
from d2f.config import DecodeConfig

CHAT = [{"role": "user", "content": "Count."}]
CONFIG = ARConfig(max_new_tokens=8)


@contextmanager
def lane_at(
    server: Server, config: DecodeConfig = CONFIG, chat: Sequence[dict[str, str]] = CHAT
) -> Iterator[Lane]:
    lane = remote_lane("AR", server, chat, config)
    try:
        yield lane
    finally:
        lane.close()


def run(lane: Lane) -> Lane:
    while lane.advance() is not None:
        pass
    return lane


def answered(script: Sequence[Part], config: ARConfig = CONFIG) -> Lane:
    with Scripted(script) as server:
        return answered_by(server, config)


def answered_by(server: Scripted, config: ARConfig = CONFIG) -> Lane:
    with lane_at(Server(server.url, "llama"), config) as lane:
        return run(lane)
