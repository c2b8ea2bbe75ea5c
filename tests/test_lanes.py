"""A lane: live or recorded, the same to its reader."""

import pytest
from races import ar_trace, d2f_trace, decode, header, token_text

from app.lanes import Lane, recorded_lane, warm_model
from d2f import ARConfig, StepEvent


@pytest.mark.parametrize("trace", [d2f_trace(), ar_trace()], ids=["d2f", "ar"])
def test_a_recorded_lane_repeats_its_trace(trace):
    lane = recorded_lane("lane", trace, token_text)
    events = []
    while (event := lane.advance()) is not None:
        events.append(event)
        assert lane.seconds == sum(each.seconds for each in events)
    assert lane.trace == trace
    assert lane.advance() is None


def test_closing_a_lane_closes_its_decoder_and_keeps_the_partial_answer():
    closed = []

    def decoder():
        try:
            yield from ar_trace().events
        finally:
            closed.append(True)

    lane = Lane("AR", header(ARConfig(), "small-ar"), decoder(), token_text, decode)
    lane.advance()
    lane.advance()
    lane.close()
    assert closed == [True]
    assert lane.advance() is None
    assert lane.trace.text == "one two"
    assert lane.trace.finish_reason is None


def test_a_checkpoint_that_does_not_load_says_so(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="does not load"):
        warm_model(str(tmp_path), "ar", "cpu", "float32")
    with pytest.raises(ValueError, match="no model 'nowhere'"):
        warm_model("nowhere", "ar", "cpu", "float32")


def test_a_lane_starts_with_a_clock_at_zero():
    lane = recorded_lane("lane", ar_trace(), token_text)
    assert (lane.seconds, lane.events) == (0.0, [])
    assert isinstance(lane.advance(), StepEvent)
    assert lane.seconds == 0.25
