"""What the tier of a customer was: each event of it, and the tier in force on any day, by assessment or by override."""

from datetime import date, timedelta
from uuid import UUID, uuid5

import pytest
from chassis.write.deciding import CommandContext
from customer.domain.commands import AssessTier, EndTierOverride, EraseCustomer, OverrideTier
from customer.domain.tag import stream_of

from .test_api import api
from .test_lists import acting
from .test_queries import NOW, bank, queries
from .test_tags_api import HOUSE, code_of_refusal, defined, once, registered
from .told import dated

__all__ = ["api", "bank", "once", "queries"]

YEAR = NOW.year - 1
UNTIL = date(YEAR, 5, 20)


async def done(api, customer, command, effective_on, actor="lin", reason=None, recorded_on=None):
    """A command that is effective on a day, and recorded on it or on a later one."""
    at = NOW.replace(year=effective_on.year, month=effective_on.month, day=effective_on.day, hour=4)
    recorded = at + (timedelta() if recorded_on is None else recorded_on - effective_on)
    id = uuid5(UUID(customer), f"{command}{effective_on}")
    context = CommandContext(actor=actor, now=recorded, command_id=id, effective_at=at, reason=reason)
    return await api.service.handler.handle(UUID(customer), command, context, asked=str(command))


async def tier_on(api, customer, day):
    answer = await api.get(f"/customers/{customer}/tier", params={"as_of": str(day)})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found["tier"], found["assessed"], found["given_by"] and found["given_by"]["change"]


@pytest.fixture
async def lived(api):
    """A customer with three assessments, the last of them late, and two overrides, of which one lapsed."""
    customer = await registered(api, "浦东")
    on = date(YEAR, 3, 10)
    await done(api, customer, AssessTier(f"{YEAR}-02", 50_000_000), date(YEAR, 3, 1), "timer:customer-tier")
    first = OverrideTier("potential", UNTIL, on, UNTIL)
    await done(api, customer, first, on, reason='the "board" said so')
    await done(api, customer, AssessTier(f"{YEAR}-03", 600_000_000), date(YEAR, 4, 1), "timer:customer-tier")
    await done(api, customer, EndTierOverride("lapsed", UNTIL), UNTIL, "timer:tier-override-lapses")
    second = OverrideTier("mass", date(YEAR, 9, 1), date(YEAR, 6, 10), date(YEAR, 9, 1))
    await done(api, customer, second, date(YEAR, 6, 10), reason="as a test")
    late = AssessTier(f"{YEAR}-05", 0, 0)
    await done(api, customer, late, date(YEAR, 6, 1), "timer:customer-tier", recorded_on=date(YEAR, 6, 15))
    await done(api, customer, EndTierOverride("withdrawn"), date(YEAR, 7, 1), reason="it was one")
    return customer


@pytest.mark.requirement("R021", "R022", "M06")
async def test_the_tier_on_a_day_is_what_was_in_force_with_who_gave_it_and_why(api, lived):
    for day, expected in (
        (date(1900, 1, 1), (None, None, None)),
        (date(YEAR, 2, 28), (None, None, None)),
        (date(YEAR, 3, 1), ("wealth", "wealth", "assessed")),
        (date(YEAR, 3, 9), ("wealth", "wealth", "assessed")),
        (date(YEAR, 3, 10), ("potential", "wealth", "overridden")),
        (date(YEAR, 4, 1), ("potential", "private", "overridden")),
        (UNTIL - timedelta(days=1), ("potential", "private", "overridden")),
        (UNTIL, ("private", "private", "assessed")),
        (date(YEAR, 6, 1), ("mass", "mass", "assessed")),  # recorded two weeks later, effective from then on
        (date(YEAR, 6, 10), ("mass", "mass", "overridden")),
        (date(YEAR, 7, 1), ("mass", "mass", "assessed")),
        (dated(NOW), ("mass", "mass", "assessed")),
    ):
        assert await tier_on(api, lived, day) == expected, day
    given_by = (await api.get(f"/customers/{lived}/tier", params={"as_of": f"{YEAR}-04-02"})).json()[
        "given_by"
    ]
    assert (given_by["actor"], given_by["reason"], given_by["valid_until"]) == (
        "lin",
        'the "board" said so',
        str(UNTIL),
    )
    now = (await api.get(f"/customers/{lived}/tier")).json()
    assert (now["as_of"], now["given_by"]["month"]) == (str(NOW.date()), f"{YEAR}-05")


@pytest.mark.requirement("R021", "R022", "R091")
async def test_the_history_lists_each_event_with_the_tier_after_it(api, lived):
    page = (await api.get(f"/customers/{lived}/tier/history")).json()
    assert page["next"] is None
    assert [(one["change"], one["tier"], one["assessed"], one["override"]) for one in page["items"]] == [
        ("assessed", "wealth", "wealth", None),
        ("overridden", "potential", "wealth", "potential"),
        ("assessed", "potential", "private", "potential"),
        ("lapsed", "private", "private", None),
        ("overridden", "mass", "private", "mass"),
        ("assessed", "mass", "mass", "mass"),
        ("withdrawn", "mass", "mass", None),
    ]
    assert [one["month"] for one in page["items"] if one["month"]] == [
        f"{YEAR}-{month}" for month in ("02", "03", "05")
    ]
    assert [one["reason"] for one in page["items"] if one["reason"]] == [
        'the "board" said so',
        "as a test",
        "it was one",
    ]
    first = (await api.get(f"/customers/{lived}/tier/history", params={"limit": 4})).json()
    rest = await api.get(f"/customers/{lived}/tier/history", params={"limit": 4, "after": first["next"]})
    assert [*first["items"], *rest.json()["items"]] == page["items"]


@pytest.mark.requirement("R083", "M22")
async def test_who_was_erased_has_no_tier_and_who_is_unknown_or_out_of_scope_has_no_history(api, lived):
    for path in ("tier", "tier/history"):
        nobody = await api.get(f"/customers/{uuid5(UUID(int=1), 'nobody')}/{path}")
        assert await code_of_refusal(nobody) == (404, "customer-not-registered")
        tag = await api.get(f"/customers/{stream_of(await defined(api, HOUSE + path))}/{path}")
        assert await code_of_refusal(tag) == (404, "subject-unknown")
        new = await registered(api)
        assert (await api.get(f"/customers/{new}/{path}")).status_code == 200
        acting(api, "relationship-manager", "徐汇/RM-1")
        out = await api.get(f"/customers/{lived}/{path}")
        assert await code_of_refusal(out) == (404, "customer-not-registered")
        acting(api, "administrator")
    await done(api, lived, EraseCustomer((), (), date(YEAR, 8, 1)), date(YEAR, 8, 1))
    assert await tier_on(api, lived, date(YEAR, 8, 1)) == (None, None, None)
    assert await tier_on(api, lived, date(YEAR, 7, 31)) == ("mass", "mass", "assessed")
    *_, last = (await api.get(f"/customers/{lived}/tier/history")).json()["items"]
    assert (last["change"], last["tier"]) == ("erased", None)


async def test_of_a_day_to_come_and_of_what_is_no_day_nothing_is_said(api, lived):
    for day in (str(NOW.date() + timedelta(days=1)), "2026-02-30", "yesterday", "9999-12-31"):
        refused = await api.get(f"/customers/{lived}/tier", params={"as_of": day})
        assert await code_of_refusal(refused) == (422, "request-invalid"), day
