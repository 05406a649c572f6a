"""When a party is described, then a customer is registered: once, whoever else said so, and however often."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid5

import pytest
from chassis.clock import SystemClock
from chassis.connections.transient import is_transient
from chassis.messaging.delivered import read
from chassis.messaging.records import Record
from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import ERASED, Origin, seal
from chassis.write.deciding import CommandContext
from chassis.write.secret_checks import SecretDiffers
from contracts import purposes
from contracts.envelope import Envelope
from contracts.identity import ExternalIds
from customer.catalogue import catalogue
from customer.claims import Claims, nth
from customer.domain.commands import Details, Reference, RegisterCustomer, TakeOverReference, UnlinkReference
from customer.domain.events import (
    CONTACT,
    ContactDetailsChanged,
    CustomerRegistered,
    CustomerRenamed,
    IdentityNumberShared,
    ReferenceClaimed,
    ReferenceDisputed,
    ReferenceLinked,
    ReferenceUnlinked,
)
from customer.identities import customer_of_party
from customer.policies.when_party_described_then_register_customer import NAME, RegisterDescribed

from .told import START

NUMBER = "4711"
IDS = ExternalIds(bytes(32))
PARTY = IDS.party("core", NUMBER)
PURPOSES = catalogue().purposes
NUMBERED = {"identity_number": "11010519491231002X"}


@pytest.fixture
def policy(handler, store, key_ring):
    return RegisterDescribed(handler, store, key_ring, SystemClock(), IDS, START.date)


def described(ring, sequence=1, *, number=NUMBER, **values):
    """A record as the relay publishes it, read as a consumer reads it."""
    party = IDS.party("core", number)
    [key] = ring.keys_for([party], purposes=PURPOSES).values()
    origin = Origin("ingest", party, sequence, "party-described")
    values = {"party": number, "name": "张伟", "phone": "13800001234"} | values
    by = {f: key.of(purposes.CONTACT) if f in CONTACT else key for f in values}
    sealed = {
        f: v and (ERASED if (k := by[f]) is None else seal(k, origin.aad(f, k), v)) for f, v in values.items()
    }
    body = {"source": "core", "kind": "person"} | sealed
    envelope = Envelope(
        id=uuid5(party, str(sequence)),
        type="party.described",
        version=1,
        context="ingest",
        subject=party,
        sequence=sequence,
        position=sequence,
        recorded_at=START,
        effective_at=START,
        stored_name="party-described",
        correlation_id=UUID(int=5),
        causation_id=UUID(int=6),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    return read(Record("crm.ingest.events", 0, party.bytes, envelope.headers(), json.dumps(body).encode(), 0))


async def told(store, handler, stream):
    """What stands in a stream, opened."""
    stored = await store.read_stream(stream)
    keys = handler._keys.keys_for([stream])
    return [one.event for one in handler._catalogue.open_all(stored, keys)]


async def test_master_data_registers_and_links_with_the_trace_of_its_event(policy, store, handler, key_ring):
    event = described(key_ring)
    await policy(event)
    stream = customer_of_party(PARTY)
    registered, linked = await told(store, handler, stream)
    assert (registered.name, registered.phone, registered.origin) == ("张伟", "+8613800001234", "master-data")
    assert linked == ReferenceLinked(source="core", party_id=PARTY, key=NUMBER)
    [first, _] = await store.read_stream(stream)
    metadata = handler._catalogue.metadata_of(first)
    assert (metadata.actor, metadata.causation_id, metadata.correlation_id) == (
        f"policy:{NAME}",
        event.id,
        UUID(int=5),
    )
    assert metadata.trace["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c")


async def test_the_same_event_twice_and_from_two_consumers_at_once_has_one_effect(
    policy, store, handler, key_ring
):
    event = described(key_ring)
    await asyncio.gather(*(policy(event) for _ in range(8)))
    await policy(event)
    assert len(await store.read_stream(customer_of_party(PARTY))) == 2


async def test_the_same_event_on_another_day_changes_nothing(policy, store, key_ring):
    event = described(key_ring, **NUMBERED)
    await policy(event)
    await replace(policy, today=lambda: START.date() + timedelta(days=1))(event)
    assert await store.head_position() == 2


async def test_a_later_description_gives_the_events_of_its_changes(policy, store, handler, key_ring):
    await policy(described(key_ring))
    await policy(described(key_ring, 2, name="张伟明", phone="13900005678"))
    events = await told(store, handler, customer_of_party(PARTY))
    assert events[2:] == [
        CustomerRenamed(name="张伟明", source="core", party_id=PARTY),
        ContactDetailsChanged(
            phone="+8613900005678",
            email=None,
            address=None,
            source="core",
            party_id=PARTY,
            changed=("phone",),
        ),
    ]


async def test_a_party_that_staff_linked_registers_nobody_else(policy, store, handler, key_ring):
    theirs = UUID(int=77)
    command = RegisterCustomer(Details(name="Zhang Wei"), (Reference.of(IDS, "core", NUMBER),))
    context = CommandContext(actor="staff", now=START, command_id=UUID(int=1))
    await handler.handle(theirs, command, context)
    await policy(described(key_ring))
    await policy(described(key_ring))
    assert await store.read_stream(customer_of_party(PARTY)) == []
    assert [type(event) for event in await told(store, handler, theirs)] == [
        CustomerRegistered,
        ReferenceClaimed,
        ReferenceDisputed,
    ]


async def test_a_party_whose_key_is_destroyed_is_not_registered(policy, store, key_ring):
    event = described(key_ring)
    key_ring.erase([PARTY])
    await policy(event)
    assert await store.head_position() == 0


async def test_a_sealed_value_in_another_field_is_refused(policy, key_ring):
    event = described(key_ring)
    event.data["party"] = event.data["name"]
    with pytest.raises(Tampered):
        await policy(event)


async def test_thousands_of_parties_take_seconds(policy, store, key_ring):
    clock = SystemClock()
    key_ring.keys_for([IDS.party("core", str(number)) for number in range(1000)])
    events = [described(key_ring, number=str(number)) for number in range(1000)]
    began = clock.monotonic()
    for at in range(0, len(events), 200):
        await asyncio.gather(*(policy(event) for event in events[at : at + 200]))
    took = clock.monotonic() - began
    assert await store.head_position() == 2000
    assert took < 20, f"{took:.1f} s for a thousand"


async def test_an_invalid_value_of_master_data_is_kept_and_named(policy, store, handler, key_ring):
    await policy(described(key_ring, phone="call me", identity_number="110105194912310021"))
    [registered, _] = await told(store, handler, customer_of_party(PARTY))
    assert (registered.phone, registered.identity_number) == ("call me", "110105194912310021")
    assert registered.invalid == ("phone", "identity_number")


@pytest.mark.requirement("M28")
async def test_an_identity_number_of_another_customer_is_an_event_and_nothing_is_lost(
    policy, store, handler, key_ring
):
    events = [described(key_ring, number=number, **NUMBERED) for number in ("1", "2")]
    await asyncio.gather(*(policy(event) for event in events))
    await asyncio.gather(*(policy(event) for event in events))
    first, second = (customer_of_party(IDS.party("core", number)) for number in ("1", "2"))
    names = [[type(event) for event in await told(store, handler, one)] for one in (first, second)]
    assert sorted(names, key=len) == [
        [CustomerRegistered, ReferenceLinked],
        [CustomerRegistered, ReferenceLinked, IdentityNumberShared],
    ]


async def test_a_party_that_a_person_unlinked_waits_and_one_that_was_moved_goes_with_its_customer(
    policy, store, handler, key_ring
):
    await policy(described(key_ring))
    first, second = customer_of_party(PARTY), UUID(int=78)

    async def command(customer, what, number):
        context = CommandContext(actor="staff", now=START, command_id=UUID(int=number))
        return await handler.handle(customer, what, context)

    await command(first, UnlinkReference(PARTY, START.date()), 1)
    await policy(described(key_ring, 2, name="张伟明"))
    assert [type(event) for event in await told(store, handler, first)][2:] == [ReferenceUnlinked]
    await command(second, RegisterCustomer(Details(name="张伟")), 2)
    claim = await Claims(handler, store).of_party(PARTY, START.date())
    assert (claim.holder, claim.identity) == (None, nth(PARTY, 1))
    reference = Reference("core", NUMBER, PARTY, claim.identity)
    await command(second, TakeOverReference(reference, START.date()), 3)
    await policy(described(key_ring, 3, name="张伟明", address="北京市"))
    assert (await handler.load(second)).state.values["address"] == "北京市"
    assert len(await told(store, handler, first)) == 3


async def test_ids_that_were_derived_under_another_secret_stop_the_policy_and_register_nobody(
    policy, store, key_ring
):
    """The key database was lost, and another secret was made in it for a store that is empty."""
    differing = replace(policy, ids=ExternalIds(bytes(31) + b"\1"))
    with pytest.raises(SecretDiffers, match="not the one that ids of ingest were derived under") as refused:
        await differing(described(key_ring))
    assert is_transient(refused.value), "so nothing is parked and nothing is committed"
    assert await store.head_position() == 0
    await policy(described(key_ring))
    assert await store.head_position() == 2
