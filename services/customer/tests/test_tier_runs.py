"""Tiers of many customers at once: by a condition or a list, by two persons, over a crash, and taken back."""

from datetime import timedelta
from uuid import UUID, uuid5

import pytest
from chassis.bulk import Bulk, listed
from chassis.write.deciding import Approved, CommandContext
from customer.catalogue import catalogue
from customer.domain.commands import Details, EraseCustomer, RegisterCustomer
from customer.domain.state import TierOverride

from .test_api import CLOCK, api, key
from .test_bulk import finished, results
from .test_lists import acting
from .test_queries import NOW, bank, queries
from .test_tags_api import code_of_refusal, found, once, registered, shown
from .test_tier_overrides import SOON, as_of, overridden
from .test_tiers_api import assessed, tier_of

__all__ = ["api", "bank", "once", "queries", "shown"]

WHY = {"reason": "资产50万以上且近30天登录APP"}
LATER = SOON + timedelta(days=30)


async def prepared(api, tier="potential", valid_until=SOON, headers=None, **whom):
    body = WHY | {"tier": tier, "valid_until": str(valid_until)} | whom
    return await api.post("/customers/tier-overrides", json=body, headers=headers or once())


async def started(api, where):
    """The start of a run, proposed by one person and approved by another."""
    waiting = await api.post(f"{where}/propose", json=WHY, headers=once())
    assert waiting.status_code == 202, waiting.text
    approving = {"digest": waiting.json()["digest"], "reason": "seen"}
    headers = once() | as_of(api, "compliance", "chen")
    approved = await api.post(f"{waiting.headers['Location']}/approve", json=approving, headers=headers)
    assert approved.status_code == 200, approved.text


async def override_of(api, customer):
    api.service.handler.forget(UUID(customer))
    return (await api.service.handler.load(UUID(customer))).state.tier_override


@pytest.mark.requirement("R024", "M06", "R091")
async def test_customers_who_meet_a_condition_are_put_into_a_tier_by_two_persons(api, shown, store):
    rich, other = [await registered(api, "浦东") for _ in range(2)]
    poor = await registered(api, "浦东")
    for customer, average in ((rich, 50_000_000), (other, 60_000_000), (poor, 0)):
        await assessed(api, customer, "2025-12", average)
    await shown()
    made = await prepared(api, "private", where="tier is wealth")
    assert (made.status_code, made.json()["items"], made.json()["needs_approval"]) == (201, 2, True), (
        made.text
    )
    where = made.headers["Location"]
    assert (await api.get(f"{where}/preview")).json()["changed"] == 2
    alone = await api.post(f"{where}/start", json=WHY, headers=once())
    assert await code_of_refusal(alone) == (409, "bulk-needs-approval"), (
        "a single customer takes two persons too"
    )
    await started(api, where)
    assert (await finished(api, where))["done"] == 2
    await shown()
    assert await found(api, "tier is private") == {rich, other}
    assert (await tier_of(api, rich))["assessed"] == "wealth"
    *_, last = await store.read_stream(UUID(rich))
    meta = api.service.catalogue.metadata_of(last)
    assert (last.name, meta.actor, meta.proposed_by, meta.reason, meta.privilege) == (
        "tier-overridden",
        "chen",
        "lin",
        WHY["reason"],
        "high",
    )


@pytest.mark.requirement("R024", "M33", "M06")
async def test_an_undo_returns_every_customer_to_the_override_that_it_had_but_one_that_was_changed_since(
    api, shown
):
    had, none, same, since, lapsed, erased = [await registered(api) for _ in range(6)]
    assert (await overridden(api, had, "mass", LATER)).status_code == 200
    assert (await overridden(api, same, "potential", SOON)).status_code == 200
    assert (await overridden(api, lapsed, "mass", NOW.date() + timedelta(days=1))).status_code == 200
    nobody = str(uuid5(UUID(int=1), "nobody"))
    listed_ones = [had, none, same, since, lapsed, erased, nobody]
    made = await prepared(api, customers=listed_ones)
    context = CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=9))
    await api.service.handler.handle(UUID(erased), EraseCustomer((), (), NOW.date()), context)
    where = made.headers["Location"]
    await started(api, where)
    await finished(api, where)
    assert await results(api, where) == [
        "done",
        "done",
        "unchanged",
        "done",
        "done",
        "customer-erased",
        "customer-not-registered",
    ]
    assert (await overridden(api, since, "mass", SOON)).status_code == 200
    undo = await api.post(f"{where}/undo", json=WHY, headers=once())
    assert (undo.status_code, undo.json()["items"]) == (201, 4), undo.text
    overrides = api.service.overrides
    today = overrides.today
    object.__setattr__(overrides, "today", lambda: today() + timedelta(days=1))
    await started(api, undo.headers["Location"])
    await finished(api, undo.headers["Location"])
    assert await results(api, undo.headers["Location"]) == ["done", "done", "version-mismatch", "done"]
    assert await override_of(api, had) == TierOverride("mass", LATER)
    assert await override_of(api, none) is None
    assert await override_of(api, same) == TierOverride("potential", SOON)
    assert await override_of(api, since) == TierOverride("mass", SOON)
    assert await override_of(api, lapsed) is None, "the date of what it had has come meanwhile"


@pytest.mark.requirement("R024", "M33", "M06")
async def test_of_a_thousand_customers_each_has_one_event_or_a_named_failure_also_over_a_crash(
    api, store, handler
):
    """The process ends between two parts, with items done whose results are not stored yet."""
    there = [uuid5(UUID(int=3), str(number)) for number in range(980)]
    nobody = [uuid5(UUID(int=4), str(number)) for number in range(20)]
    selected = [*there[:500], *nobody, *there[500:]]
    details = Details(name="王芳", phone="13911112222")
    for at, customer in enumerate(there):
        context = CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=5_000 + at))
        await handler.handle(customer, RegisterCustomer(details), context)
    wanted = TierOverride("wealth", SOON)
    preparing = CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=7))
    run = await api.service.overrides.prepare(
        api.service.bulk, wanted, listed(selected), preparing, asked="all", selection=""
    )
    approved = Approved(UUID(int=5), "wu")

    def starting(number):
        return CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=number), approved=approved)

    await api.service.bulk.begin(run.run_id, starting(8))
    chunks = []

    def crashes(at):
        if at == "before-advance":
            chunks.append(at)
            if len(chunks) == 2:  # at 40 of 100: one part of 200 is settled, another one done
                raise KeyboardInterrupt

    def process(reached=lambda _: None):
        kinds, keys = api.service.bulk.kinds, handler.keys
        return Bulk(store, catalogue(), keys, kinds, CLOCK, items_at_once=200, reached=reached)

    with pytest.raises(KeyboardInterrupt):
        await process(crashes).run(run.run_id)
    assert (await api.service.bulk.shown(run.run_id)).settled == 200
    assert (await handler.load(there[399])).state.tier_override == wanted
    assert await process().run(run.run_id) == "finished"
    shown = await api.service.bulk.shown(run.run_id)
    assert (shown.done, shown.unchanged, shown.refused) == (980, 0, 20)
    assert set((await store.stream_heads(there)).values()) == {2}, "each was overridden once"
    assert await store.stream_heads(nobody) == {}
    failed = [one.subject for one in await api.service.bulk.results(run.run_id, 499, 20)]
    assert failed == nobody
    undoing = CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=11))
    undo = await api.service.bulk.prepare_undo(run.run_id, undoing)
    await api.service.bulk.begin(undo.run_id, starting(12))
    chunks.clear()
    with pytest.raises(KeyboardInterrupt):
        await process(crashes).run(undo.run_id)
    assert await process().run(undo.run_id) == "finished"
    assert (await api.service.bulk.shown(undo.run_id)).done == 980
    assert set((await store.stream_heads(there)).values()) == {3}
    for customer in there[::100]:
        handler.forget(customer)
        assert (await handler.load(customer)).state.tier_override is None


async def test_a_run_is_refused_whose_date_is_none_and_its_key_is_for_nothing_else(api):
    customer = await registered(api)
    too_late = NOW.date() + timedelta(days=1_000)
    for wrong in (NOW.date(), too_late):
        refused = await prepared(api, valid_until=wrong, customers=[customer])
        assert await code_of_refusal(refused) == (422, "tier-override-term-invalid")
    first = await prepared(api, customers=[customer], headers=key("run"))
    overrides = api.service.overrides
    today = overrides.today
    object.__setattr__(overrides, "today", lambda: today() + timedelta(days=200))
    assert (await prepared(api, customers=[customer], headers=key("run"))).json() == first.json()
    other = await prepared(api, "mass", customers=[customer], headers=key("run"))
    assert await code_of_refusal(other) == (422, "idempotency-key-reused")
    await started(api, first.headers["Location"])
    assert (await finished(api, first.headers["Location"]))["refused"] == 1, (
        "its date has come while it waited"
    )
    assert await results(api, first.headers["Location"]) == ["tier-override-term-invalid"]
    for role in ("relationship-manager", "teller", "compliance"):
        acting(api, role, "浦东/RM-1")
        assert await code_of_refusal(await prepared(api, customers=[customer])) == (403, "forbidden")
