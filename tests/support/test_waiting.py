"""Waiting ends with the condition, or says in words what did not come."""

import pytest

from tests.support.waiting import comes, until


async def test_it_ends_when_the_condition_holds() -> None:
    asked = iter([False, False, True])
    await until(lambda: next(asked))
    assert list(asked) == []

    async def holds() -> bool:
        return True

    await until(holds)
    assert await comes(holds)


async def test_what_did_not_come_is_said() -> None:
    waiting = ["the third"]
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: .*not waiting.* \['the third'\]"):
        await until(lambda: not waiting, what=lambda: waiting, seconds_max=0.05)
