"""The races that ship: whole, linkable, and of held-out problems."""

from itertools import islice

import pytest

from app.gallery import SEED, gallery
from app.recordings.link import from_link, to_link
from app.recordings.recording import Recording
from d2f.catalogue.pairs import PAIRS
from d2f.tasks import TASKS, draw

RACES = gallery()


def test_there_is_one_race_a_task_on_a_held_out_problem():
    first = [next(islice(draw(task, "test", SEED), 1)).prompt for task in TASKS]
    assert [race.prompt for race in RACES] == first


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.prompt[:20])
def test_a_shipped_race_is_whole_and_fits_a_link(race: Recording):
    assert [lane.name for lane in race.lanes] == ["D2F", "AR"]
    for lane in race.lanes:
        assert lane.trace.finish_reason in ("stop", "length") and lane.trace.tokens > 0
        assert lane.trace.header.model in (PAIRS["mini"].d2f, PAIRS["mini"].ar)
    assert race.verdict
    link = to_link(race)
    assert len(link) <= 5000
    texts = [lane.trace.text for lane in from_link(link).lanes]
    assert texts == [lane.trace.text for lane in race.lanes]
