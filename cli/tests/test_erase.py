"""`crm erase` over the real stores: the person is gone everywhere, every figure and every invariant stays."""

import asyncio
import json
import subprocess
import sys
from datetime import date

import pytest
from chassis.opening import opened_keys
from chassis.privacy.tokens import development_token
from crm_cli.panorama import shown
from customer.connections import outside_ids
from customer.identities import customer_of_party
from msgspec import structs
from sync_ingest.domain.records import AccountClosedRecord, AccountRecord, HolderRecord, PartyRecord

from tests.support.roles import FOLLOWING, roles_of_all

from .stores import CLOCK, NAME, posting
from .test_verify import WAIT_SECONDS, World, bank, problems

__all__ = ["bank"]

OLD = date(2001, 5, 1)
PARTY = PartyRecord(party="P1", name=NAME, phone="13800138000")
FEED = (
    PARTY,
    AccountRecord(account="A1", opened_on=OLD, currency="CNY"),
    HolderRecord(account="A1", party="P1", role="owner"),
    structs.replace(posting("T1", "A1", 12_345), booked_on=OLD),
)
CLOSED = AccountClosedRecord(account="A1", closed_on=OLD)


@pytest.fixture
async def world(bank):
    world = World(bank)
    await asyncio.to_thread(bank.take, "branch", *FEED)
    await world.settle()
    yield world
    await world.mongo.drop_database()
    await world.close()


def crm(world, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "crm_cli.main", *arguments],
        env=world.bank.environment() | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def held_and_lifted(world, customer, ask):
    """A legal hold forbids what `ask` asks, until two persons have lifted it."""
    why = ("--reason", "a court asks", "--json")
    held = await asyncio.to_thread(crm, world, "hold", customer, *why)
    assert held.returncode == 0, held.stderr
    stands = await asyncio.to_thread(crm, world, *ask, CRM_RETENTION_YEARS="0")
    assert (stands.returncode, "legal hold" in stands.stderr) == (2, True), stands.stderr
    lift = await asyncio.to_thread(crm, world, "lift", customer, json.loads(held.stdout)["hold_id"], *why)
    assert lift.returncode == 0, lift.stderr
    said = json.loads(lift.stdout)
    token = development_token(world.settings, CLOCK.now(), subject="wu", roles=["compliance"])
    approving = ("approve", said["proposal_id"], said["digest"], *why)
    lifted = await asyncio.to_thread(crm, world, *approving, CRM_TOKEN=token)
    assert (lifted.returncode, json.loads(lifted.stdout)["keys_destroyed"]) == (0, None), lifted.stderr


@pytest.mark.requirement("M22")
async def test_values_of_an_erased_customer_are_shown_nowhere_and_all_invariants_hold(world):
    async with opened_keys(world.settings, CLOCK) as ring:
        ids = await outside_ids(world.settings, ring)
        party, account = ids.party("branch", "P1"), ids.account("branch", "A1")
        customer = customer_of_party(party)
        ask = ("erase", str(customer), "--reason", "she asked for it", "--json")

        open_still = await asyncio.to_thread(crm, world, *ask)
        assert (open_still.returncode, open_still.stdout) == (2, ""), open_still.stderr
        assert f"the account {account} is open" in open_still.stderr
        await asyncio.to_thread(world.bank.take, "branch", CLOSED)
        await world.settle()
        young = await asyncio.to_thread(crm, world, *ask)
        assert "have to be kept: until " in young.stderr, "it was described today"
        token = development_token(world.settings, CLOCK.now(), subject="lin", roles=["teller"])
        refused = await asyncio.to_thread(crm, world, *ask, CRM_TOKEN=token)
        assert (refused.returncode, "compliance" in refused.stderr) == (2, True)

        await held_and_lifted(world, str(customer), ask)
        roles = roles_of_all(world.settings, FOLLOWING | {"timers", "notices"}).values()
        async with world.running(*(make() for make in roles)):
            proposed = await asyncio.to_thread(crm, world, *ask, CRM_RETENTION_YEARS="0")
            assert proposed.returncode == 0, proposed.stderr
            said = json.loads(proposed.stdout)
            approving = ("approve", said["proposal_id"], said["digest"], "--reason", "checked", "--json")
            alone = await asyncio.to_thread(crm, world, *approving, CRM_RETENTION_YEARS="0")
            assert (alone.returncode, "Another person" in alone.stderr) == (2, True), alone.stderr
            token = development_token(world.settings, CLOCK.now(), subject="wu", roles=["compliance"])
            for _ in range(2):  # once more changes nothing
                erased = await asyncio.to_thread(
                    crm, world, *approving, CRM_RETENTION_YEARS="0", CRM_TOKEN=token
                )
                assert erased.returncode == 0, erased.stderr
                said = {"subject_id": str(customer), "version": 5, "keys_destroyed": True}
                assert json.loads(erased.stdout) == said
            await world.settled()
        assert ring.erased([customer, party, account]) == {customer, party, account}

    shown_now = await shown(world.settings, "branch", "P1", None, WAIT_SECONDS)
    assert NAME[0] not in json.dumps(shown_now, ensure_ascii=False)
    assert shown_now["currencies"][0]["aum"]["amount_minor"] == 12_345
    later = (structs.replace(PARTY, phone="13900139000"), posting("T2", "A1", 55))
    await asyncio.to_thread(world.bank.take, "branch", *later)
    await world.settle()
    after = await shown(world.settings, "branch", "P1", None, WAIT_SECONDS)
    assert NAME[0] not in json.dumps(after, ensure_ascii=False)
    assert after["currencies"][0]["aum"]["amount_minor"] == 12_400
    report = await world.verified(WAIT_SECONDS)
    assert problems(report) == {}
    assert report.green
