"""Three systems of a bank, each in a format of its own, are one panorama whose figures name their sources."""

import json
from typing import Any

import pytest
from chassis.messaging.records import Record
from contracts.topics import COREBANK_POSTINGS

from tests.integration.conftest import System, lines

ON = "2026-03-02"
SOURCES = {"counter": ("deposit", "D1"), "funds": ("wealth", "W1"), "card-centre": ("card", "C1")}
MAPPING = """
currency = "CNY"
[columns]
core_transaction_id = "number"
account = "fund"
booked_on = "day"
amount = "amount"
"""


def posting(account: str, amount_minor: int, kind: str) -> dict[str, Any]:
    """A canonical posting."""
    return {
        "record": "posting",
        "account": account,
        "core_transaction_id": "1",
        "amount_minor": amount_minor,
        "currency": "CNY",
        "booked_on": ON,
        "kind": kind,
    }


async def batch(system: System, source: str, content: bytes, key: str, **asked: str) -> None:
    """A batch over HTTP, of which every record is taken."""
    answer = await system.web.post(
        "/ingest/batches",
        params={"source": source, **asked},
        content=content,
        headers={"Idempotency-Key": f"three-{source}-{key}"},
    )
    assert (answer.status_code, answer.json()["quarantined"]) == (201, 0), answer.text


async def one_customer(system: System) -> str:
    """Somebody who is party P in each of the systems, which a person has confirmed."""
    body = {
        "name": "周慧",
        "phone": "13800004321",
        "stated_assets": [{"product": "deposit", "amount": "1", "currency": "CNY"}],
        "references": [{"source": source, "key": "P"} for source in SOURCES],
    }
    made = await system.web.post("/customers", json=body, headers={"Idempotency-Key": "three"})
    assert made.status_code == 201, made.text
    at, token, tag = made.headers["Location"], made.headers["Consistency-Token"], made.headers["ETag"]
    shown = (await system.web.get(at, params={"at_least": token})).json()
    for reference in shown["references"]:
        done = await system.web.post(
            f"{at}/references/{reference['party_id']}/confirm",
            json={"reason": "the card was shown"},
            headers={"Idempotency-Key": f"three-{reference['party_id']}", "If-Match": tag},
        )
        assert done.status_code == 200, done.text
        tag = done.headers["ETag"]
    return at


@pytest.mark.requirement("R002")
async def test_counter_funds_and_card_centre_are_one_panorama(system: System) -> None:
    for source, (product, account) in SOURCES.items():
        opened = {
            "record": "account",
            "account": account,
            "opened_on": ON,
            "currency": "CNY",
            "product": product,
        }
        holder = {"record": "holder", "account": account, "party": "P", "role": "owner"}
        await batch(system, source, lines(opened, holder), "master")
    await batch(system, "counter", lines(posting("D1", 30_000_00, "cash")), "postings")
    rows = f"number,fund,day,amount\n1,W1,{ON},20000.00\n2,W1,{ON},-0.50\n".encode()
    await batch(system, "funds", rows, "postings", format="csv", mapping=MAPPING)
    before = system.heads()["ingest"]
    bought = json.dumps(posting("C1", -5_432_10, "card")).encode()
    await system.publisher.publish(
        [Record(COREBANK_POSTINGS.name, 0, b"C1", [("source", b"card-centre")], bought)]
    )
    while system.heads()["ingest"] == before:
        await system.caught_up()
    at = await one_customer(system)
    await system.caught_up()
    [block] = (await system.web.get(f"{at}/panorama")).json()["currencies"]
    assert {
        name: (block[name]["amount_minor"], block[name]["sources"])
        for name in ("deposits", "wealth", "cards", "aum")
    } == {
        "deposits": (30_000_00, ["counter"]),
        "wealth": (19_999_50, ["funds"]),
        "cards": (5_432_10, ["card-centre"]),
        "aum": (49_999_50, ["counter", "funds"]),
    }
    assert block["spending"]["amount_minor"] == 5_432_10
