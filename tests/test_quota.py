"""Quotas: exact at their edges, by name and in all."""

import random
from collections import Counter

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
    quota = Quota(1, 3, 60, clock)
    assert quota.take("a") and quota.take("b")
    clock.now += 59
    assert quota.take("c")
    assert [quota.take(name) for name in "abcd"] == [False] * 4
    clock.now += 1
    assert [quota.take(name) for name in "dca"] == [True, False, True]


def test_a_use_that_is_refused_is_not_counted(clock: Clock):
    quota = Quota(1, 2, 60, clock)
    assert [quota.take("a") for _ in range(9)] == [True, *[False] * 8]
    assert quota.take("b")


def test_names_of_any_length_cost_the_same(clock: Clock):
    quota = Quota(1, 2, 60, clock)
    assert quota.take("x" * 10_000_000)
    assert not quota.take("x" * MAX_NAME)


def test_a_busy_name_leaves_some_for_the_others(clock: Clock) -> None:
    """Of 200 uses, thirteen names that take all they can get leave 50; of the last each has one."""
    quota = Quota(20, 200, 60, clock)
    assert sum(quota.take("busy") for _ in range(99)) == 20
    others = {name: sum(quota.take(name) for _ in range(99)) for name in "abcdefghijkl"}
    assert list(others.values()) == [18, 17, 15, 13, 12, 11, 10, 9, 8, 7, 6, 6]
    late = [[quota.take(f"late {n}") for _ in range(9)].count(True) for n in range(99)]
    assert late == [5, 5, 4, 4, *[3] * 4, *[2] * 4, *[1] * 10, *[0] * 77]
    assert 20 + sum(others.values()) + sum(late) == 200


def test_who_has_had_none_is_served_until_none_is_left(clock: Clock) -> None:
    rng = random.Random(4)
    for most, together in ((1, 1), (2, 3), (3, 40), (20, 200), (50, 20)):
        quota, taken = Quota(most, together, 60, clock), Counter[str]()
        while taken.total() < together:
            name = str(rng.randrange(30)) if rng.random() < 0.9 else f"new {rng.random()}"
            served = quota.take(name)
            assert served or taken[name] > 0
            taken[name] += served
            assert taken[name] <= most
        assert not quota.take("new")
        clock.now += 60
