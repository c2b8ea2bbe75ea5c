"""Quotas: exact at their edges, by name and in all."""

import pytest

from app.page.quota import MAX_NAME, Quota


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_each_name_has_so_many_uses_within_the_time(clock: Clock):
    quota = Quota(2, 100, 60, clock)
    assert quota.take("a")
    clock.now += 30
    assert quota.take("a") and not quota.take("a")
    assert quota.take("b")
    clock.now += 29.9
    assert not quota.take("a")
    clock.now += 0.1
    assert quota.take("a") and not quota.take("a")


def test_all_together_have_so_many_uses_whatever_their_names(clock: Clock):
    quota = Quota(2, 3, 60, clock)
    assert quota.take("a") and quota.take("b")
    clock.now += 59
    assert quota.take("c")
    assert [quota.take(name) for name in "abcd"] == [False] * 4
    clock.now += 1
    assert [quota.take(name) for name in "dca"] == [True, True, False]


def test_a_use_that_is_refused_is_not_counted(clock: Clock):
    quota = Quota(1, 2, 60, clock)
    assert [quota.take("a") for _ in range(9)] == [True, *[False] * 8]
    assert quota.take("b")


def test_names_of_any_length_cost_the_same(clock: Clock):
    quota = Quota(1, 2, 60, clock)
    assert quota.take("x" * 10_000_000)
    assert not quota.take("x" * MAX_NAME)
