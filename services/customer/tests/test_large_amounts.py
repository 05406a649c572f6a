"""Every figure, sum, total and link at and beyond the edges of 32, 53 and 64 bits, over HTTP."""

from uuid import UUID

import pytest
from chassis.money import decimal_text
from customer.queries import Queries

from .test_api import api
from .test_queries import IDS, NOW, Bank, Live

__all__ = ["api"]

RICH = UUID(int=2001)
AMOUNT_MAX = 10**15
BALANCE_MAX = 9 * 10**15
TURNOVER_MAX = 9 * 10**18
EDGES = [2**31 - 1, 2**31, 2**31 + 1, 2**53, 2**53 + 1, AMOUNT_MAX, BALANCE_MAX]


@pytest.fixture
def bank(key_ring):
    bank = Bank(key_ring)
    bank.customer(RICH, "张伟", ("core", "P1"))
    return bank


@pytest.fixture
async def queries(mongo, key_ring):
    return Queries(mongo, Live(), key_ring, today=NOW.date)


def post(bank, account, minor, **data):
    """The amount in postings, each within the limit of one."""
    sign, left = (1, minor) if minor > 0 else (-1, -minor)
    while left:
        part = min(left, AMOUNT_MAX)
        bank.posting(account, sign * part, **data)
        left -= part


async def links_sum(api, figure, field):
    """What the links of a figure sum to."""
    total = 0
    for link in figure["events"]:
        total += sum(one[field] for one in (await api.get(link)).json()["sums"])
    return total


@pytest.mark.parametrize("minor", EDGES)
async def test_every_figure_is_right_at_the_edges(api, bank, mongo, minor):
    saved = bank.account("core", "D1", "deposit", ("P1", "owner"))
    card = bank.account("core", "C1", "card", ("P1", "owner"))
    loan = bank.account("core", "L1", "deposit", ("P1", "owner"))
    granted = min(minor, AMOUNT_MAX)
    post(bank, saved, minor, kind="transfer")
    post(bank, card, -minor, kind="card")
    bank.tell(
        loan,
        "loan.granted",
        source="core",
        loan="L",
        granted_on="2026-01-01",
        amount_minor=granted,
        currency="CNY",
        duration_months=12,
        payment_minor=granted,
    )
    bank.posting(loan, granted, kind="transfer")
    bank.posting(loan, -1, kind="loan_repayment")
    await bank.keep(mongo)
    answer = await api.get(f"/customers/{RICH}/panorama")
    assert answer.status_code == 200
    [block] = answer.json()["currencies"]
    expected = {
        "deposits": minor + granted - 1,
        "aum": minor + granted - 1,
        "cards": minor,
        "loans": granted - 1,
        "liabilities": minor + granted - 1,
        "net_worth": 0,
        "spending": minor,
    }
    assert {name: block[name]["amount_minor"] for name in expected} == expected
    assert {name: block[name]["amount"] for name in expected} == {
        name: decimal_text(amount, "CNY") for name, amount in expected.items()
    }
    assert block["spending"]["by_kind"][0]["amount_minor"] == minor
    assert sum(share["hundredths"] for share in block["allocation"]) == 10_000
    assert await links_sum(api, block["deposits"], "amount_minor") == expected["deposits"]
    assert await links_sum(api, block["cards"], "amount_minor") == -minor
    assert await links_sum(api, block["loans"], "outstanding_minor") == granted - 1
    assert await links_sum(api, block["spending"], "outflow_minor") == minor
    accounts = (await api.get(f"/customers/{RICH}/accounts")).json()["items"]
    assert {one["balances"][0]["balance_minor"] for one in accounts} == {minor, -minor, granted - 1}
    [page] = [(await api.get(f"/customers/{RICH}/accounts/{card}/movements")).json()]
    assert sum(one["amount_minor"] for one in page["items"]) == -minor


@pytest.mark.parametrize("minor", EDGES)
async def test_a_month_that_is_summed_from_the_movements_is_right_at_the_edges(api, bank, mongo, minor):
    spent = bank.account("core", "D1", "deposit", ("P1", "owner"))
    post(bank, spent, -minor, kind="card", booked_on="2025-01-05")
    for month in ("2025-06", "2025-07", "2025-08", "2025-09"):
        bank.posting(spent, 1 - 2, f"{month}-01", kind="card")
    await bank.keep(mongo)
    [block] = (await api.get(f"/customers/{RICH}/panorama?month=2025-01")).json()["currencies"]
    assert block["spending"]["amount_minor"] == minor
    assert await links_sum(api, block["spending"], "outflow_minor") == minor


async def test_an_account_without_a_customer_shows_its_balance(api, bank, mongo):
    for at, minor in enumerate(EDGES):
        post(bank, bank.account("core", f"U{at}", "deposit"), minor)
    await bank.keep(mongo)
    found = (await api.get("/accounts/unlinked")).json()["items"]
    assert sorted(one["balances"][0]["balance_minor"] for one in found) == sorted(EDGES)


async def test_a_turnover_at_its_limit_is_summed_exactly(api, bank, mongo):
    account = bank.account("core", "D1", "deposit", ("P1", "owner"))
    bank.posting(account, 10, kind="transfer")
    collection, many = "asset_panorama_v1_movements", 2 * TURNOVER_MAX // AMOUNT_MAX
    await bank.keep(mongo)
    [movement] = await mongo.find(collection)
    del movement["_id"]
    for side in range(2):
        amount = AMOUNT_MAX - 1 if side else 1 - AMOUNT_MAX
        await mongo.command(
            {
                "insert": collection,
                "documents": [
                    {**movement, "_id": f"{account}:{at:010d}", "_seq": at, "amount_minor": amount}
                    | {"outflow_minor": 0 if side else -amount}
                    for at in range(10 + side * many, 10 + side * many + many // 2)
                ],
            }
        )
    sums = (await api.get(f"/customers/{RICH}/accounts/{account}/movements?limit=1")).json()["sums"]
    half = (many // 2) * (AMOUNT_MAX - 1)
    assert sums == [{"currency": "CNY", "movements": many + 1, "amount_minor": 10, "outflow_minor": half}]


async def test_a_sum_over_many_accounts_may_exceed_64_bits(api, bank, mongo):
    many = 2**64 // BALANCE_MAX + 2
    bank.account("core", "A", "deposit", ("P1", "owner"))
    post(bank, IDS.account("core", "A"), BALANCE_MAX)
    await bank.keep(mongo)
    collection = "asset_panorama_v1_accounts"
    [account] = await mongo.find(collection)
    copies = [{**account, "_id": str(IDS.account("core", f"A{at}"))} for at in range(1, many)]
    await mongo.command({"insert": collection, "documents": copies})
    answer = await api.get(f"/customers/{RICH}/panorama")
    [block] = answer.json()["currencies"]
    assert block["aum"]["amount_minor"] == many * BALANCE_MAX > 2**64
    assert block["aum"]["amount"] == decimal_text(many * BALANCE_MAX, "CNY")
    assert block["allocation"][0]["percent"] == "100.00"
