"""Caches that forget."""

import gc

from chassis.privacy.aging import AgedCache, expire_all

from tests.support.specification import ManualClock


def test_an_entry_is_given_until_its_age() -> None:
    clock = ManualClock()
    cache: AgedCache[str, int] = AgedCache(10, 60.0, clock.monotonic)
    cache.put("a", 1)
    clock.advance(60)
    assert cache.get("a") == 1
    clock.advance(1)
    assert cache.get("a") is None


def test_many_are_given_as_each_of_them_is() -> None:
    clock = ManualClock()
    cache: AgedCache[str, int] = AgedCache(10, 60.0, clock.monotonic)
    cache.put("old", 1)
    clock.advance(61)
    cache.put("young", 2)
    asked = ["young", "old", "unknown", "young"]
    assert cache.get_all(asked) == [cache.get(key) for key in asked] == [2, None, None, 2]


def test_what_nobody_asks_for_is_forgotten_too() -> None:
    clock = ManualClock()
    cache: AgedCache[str, int] = AgedCache(10, 60.0, clock.monotonic)
    cache.put("old", 1)
    clock.advance(40)
    cache.put("young", 2)
    clock.advance(40)
    expire_all()
    assert (len(cache), cache.get("young")) == (1, 2)


def test_a_value_is_as_old_as_what_it_was_read_from() -> None:
    clock = ManualClock()
    cache: AgedCache[str, int] = AgedCache(10, 60.0, clock.monotonic)
    read_at = clock.monotonic()
    clock.advance(50)
    cache.put("a", 1, since=read_at)
    clock.advance(20)
    assert cache.get("a") is None


def test_the_oldest_go_where_there_are_too_many() -> None:
    cache: AgedCache[int, int] = AgedCache(3, 60.0, ManualClock().monotonic)
    for number in (1, 2, 3, 1, 4):
        cache.put(number, number)
    assert [number for number in range(5) if cache.get(number) is not None] == [1, 3, 4]


def test_a_cache_that_is_gone_is_not_kept_alive() -> None:
    cache: AgedCache[int, list[int]] = AgedCache(3, 60.0, ManualClock().monotonic)
    cache.put(1, [1])
    del cache
    gc.collect()
    expire_all()
