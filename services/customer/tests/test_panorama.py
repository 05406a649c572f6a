"""The panorama's figures, against sums made another way."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from chassis.write.events import event_id
from customer.holdings import held
from customer.panorama.composing import panorama
from customer.panorama.rules import ASSETS, LIABILITIES, SPENDING_KINDS, allocation, keeps
from customer.panorama.schema import Panorama
from customer.views import asset_panorama
from customer.views.asset_panorama import ACCOUNTS, keys
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from .told import Teller

NOW = datetime(2026, 2, 1, tzinfo=UTC)
DAY = "2026-02-01"
FIGURES = ("aum", "liabilities", "net_worth", *ASSETS, *LIABILITIES, "spending")
ME, SPOUSE = "party-me", "party-spouse"
CUSTOMER = {"_id": "c1", "name": "张*", "kind": "person", "parties": [{"party_id": ME, "source": "core"}]}


def documents(events):
    found = {}
    for event in events:
        for key in keys(event):
            if key.collection == ACCOUNTS:
                found[key.id] = asset_panorama.project(key, found.get(key.id), event)
    return [
        {**doc, "_id": id, "account": "***", "cards": [], "orders": doc["orders"]}
        for id, doc in found.items()
    ]


def seen(events, sources=(), **given):
    shown = panorama(CUSTOMER, documents(events), sources, now=given.pop("now", NOW), today=DAY, **given)
    TypeAdapter(Panorama).validate_python(shown, strict=True)
    return shown


def opened(teller, number, product, holders=((ME, "owner"),), source="core"):
    account = UUID(int=number)
    events = [
        teller.tell(
            account,
            "account.opened",
            source=source,
            account="k1.a.1",
            opened_on="2020-01-01",
            product=product,
        )
    ]
    for party, role in holders:
        events.append(teller.tell(account, "account.holder_named", source=source, party_id=party, role=role))
    return account, events


postings = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(-(10**9), 10**9).filter(bool),
        st.sampled_from(["CNY", "USD"]),
        st.sampled_from(["card", "transfer", "wealth", "fee", "loan_repayment"]),
        st.booleans(),
    ),
    max_size=40,
)


@pytest.mark.requirement("M02")
@given(postings)
def test_every_figure_is_the_sum_of_its_movements(posted):
    teller = Teller()
    products = ["deposit", "wealth", "loan", "card"]
    events, accounts = [], []
    for number, product in enumerate(products):
        account, told = opened(teller, number + 1, product)
        accounts.append(account)
        events += told
    for at, amount, currency, kind, back in posted:
        events.append(
            teller.posting(accounts[at], amount, currency=currency, kind=kind, reverses="x" if back else None)
        )
    shown = seen(events)
    assert [b["currency"] for b in shown["currencies"]] == sorted(
        {currency for _, _, currency, _, _ in posted}
    )
    for block in shown["currencies"]:
        balances = [0, 0, 0, 0]
        for at, amount, currency, _, _ in posted:
            balances[at] += amount if currency == block["currency"] else 0
        owned, owed = [max(b, 0) for b in balances], [max(-b, 0) for b in balances]
        assert block["deposits"]["amount_minor"] == owned[0]
        assert block["wealth"]["amount_minor"] == owned[1]
        assert block["credit_balances"]["amount_minor"] == owned[2] + owned[3]
        assert block["loans"]["amount_minor"] == owed[2]
        assert block["cards"]["amount_minor"] == owed[3]
        assert block["overdrafts"]["amount_minor"] == owed[0] + owed[1]
        assert block["aum"]["amount_minor"] == sum(owned) == sum(block[s]["amount_minor"] for s in ASSETS)
        assert block["liabilities"]["amount_minor"] == sum(block[s]["amount_minor"] for s in LIABILITIES)
        assert block["net_worth"]["amount_minor"] == sum(balances)
        spent = sum(
            -amount
            for at, amount, currency, kind, back in posted
            if currency == block["currency"]
            and at in {0, 3}
            and kind in SPENDING_KINDS
            and (amount > 0 if back else amount < 0)
        )
        assert block["spending"]["amount_minor"] == spent
        assert sum(one["amount_minor"] for one in block["spending"]["by_kind"]) == spent
        shares = block["allocation"]
        assert sum(share["hundredths"] for share in shares) == (10_000 if sum(owned) else 0)


@pytest.mark.requirement("R064")
@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=8))
def test_an_allocation_sums_to_100_and_is_off_by_less_than_a_hundredth(amounts):
    shares = allocation([(str(at), amount) for at, amount in enumerate(amounts)])
    total = sum(amounts)
    if not total:
        assert shares == []
        return
    assert sum(share["hundredths"] for share in shares) == 10_000
    for share, amount in zip(shares, amounts, strict=True):
        assert abs(share["hundredths"] * total - amount * 10_000) < total
        assert share["percent"] == f"{share['hundredths'] / 100:.2f}"


def test_equal_remainders_go_to_the_part_that_stands_first():
    assert [share["percent"] for share in allocation([("a", 1), ("b", 1), ("c", 1)])] == [
        "33.34",
        "33.33",
        "33.33",
    ]


def test_a_joint_account_counts_in_full_and_says_so():
    teller = Teller()
    mine, first = opened(teller, 1, "deposit")
    ours, second = opened(teller, 2, "deposit", ((SPOUSE, "owner"), (ME, "joint")))
    shown = seen([*first, *second, teller.posting(mine, 300), teller.posting(ours, 500)])
    [block] = shown["currencies"]
    assert (block["deposits"]["amount_minor"], block["deposits"]["joint_minor"]) == (800, 500)
    assert [(a["role"], a["joint"], a["holders"]) for a in shown["accounts"]] == [
        ("owner", False, 1),
        ("joint", True, 2),
    ]
    assert shown["rules"]["joint_accounts"] == "in-full-for-each-holder"


def loan(teller, account, amount_minor, name="L1", granted_on="2026-01-01"):
    return teller.tell(
        account,
        "loan.granted",
        source="core",
        loan=name,
        granted_on=granted_on,
        amount_minor=amount_minor,
        currency="CNY",
        duration_months=12,
        payment_minor=amount_minor // 12,
    )


def test_a_loan_without_an_account_of_its_own_is_owed_as_granted_less_repaid():
    teller = Teller()
    account, events = opened(teller, 1, "deposit")
    events += [loan(teller, account, 1200), loan(teller, account, 600, "L2", "2026-02-01")]
    events += [teller.posting(account, 5000), teller.posting(account, -1500, kind="loan_repayment")]
    shown = seen(events)
    [block], [held] = shown["currencies"], shown["accounts"]
    assert [(one["loan"], one["outstanding_minor"]) for one in held["loans"]] == [("L1", 0), ("L2", 300)]
    assert [one["granted_by"] for one in held["loans"]] == [
        str(event_id(account, 3)),
        str(event_id(account, 4)),
    ]
    assert sum(one["repaid_minor"] for one in held["loans"]) == 1500
    assert (block["loans"]["amount_minor"], block["deposits"]["amount_minor"]) == (300, 3500)
    assert (block["aum"]["amount_minor"], block["net_worth"]["amount_minor"]) == (3500, 3200)
    assert block["spending"]["amount_minor"] == 0


def test_a_loan_that_moves_to_another_account_is_owed_once():
    teller = Teller()
    account, events = opened(teller, 1, "deposit")
    other, more = opened(teller, 2, "deposit")
    first = loan(teller, account, 1200)
    moved = {"source": "core", "account_id": str(other), "sequences": [first.sequence]}
    shown = seen(
        [
            *events,
            *more,
            first,
            teller.tell(account, "account.records_moved", **moved),
            loan(teller, other, 1200),
        ]
    )
    [block] = shown["currencies"]
    assert block["loans"]["amount_minor"] == 1200
    assert [len(held["loans"]) for held in shown["accounts"]] == [0, 1]


def test_a_loan_with_an_account_of_its_own_is_not_counted_twice():
    teller = Teller()
    account, events = opened(teller, 1, "loan")
    shown = seen([*events, loan(teller, account, 1200), teller.posting(account, -1200, kind="transfer")])
    assert shown["currencies"][0]["loans"]["amount_minor"] == 1200
    assert shown["accounts"][0]["loans"][0]["outstanding_minor"] is None


def test_a_figure_is_as_old_as_its_oldest_source():
    teller = Teller()
    mine, first = opened(teller, 1, "deposit")
    theirs, second = opened(teller, 2, "deposit", source="other")
    events = [
        *first,
        *second,
        teller.posting(mine, 1, "2026-01-31"),
        teller.posting(theirs, 1, "2026-01-10", source="other"),
    ]
    certified = {
        "source": "other",
        "status": "GREEN",
        "certificate": "c1",
        "booked_through": "2026-01-20",
        "certified_at": "2026-01-31T23:00:00+00:00",
    }
    shown = seen(events, [certified])
    [block] = shown["currencies"]
    assert block["deposits"]["sources"] == ["core", "other"]
    assert block["deposits"]["as_of"] == shown["as_of"] == "2026-01-20"
    assert block["wealth"]["as_of"] is None
    assert shown["month"] == "2026-01"
    assert [a["source_status"] for a in shown["accounts"]] == [None, "GREEN"]
    assert shown["accounts"][1]["freshness_seconds"] == 3600
    assert [(s["source"], s["certificate"], s["booked_through"]) for s in shown["sources"]] == [
        ("core", None, "2026-01-31"),
        ("other", "c1", "2026-01-20"),
    ]
    assert block["deposits"]["position"] == max(event.position for event in events)
    assert block["deposits"]["freshness_seconds"] > 3600


@pytest.mark.requirement("R077", "M02")
def test_where_one_source_falls_silent_only_its_figures_are_stale():
    """M02: stop one source and only its figures go amber."""
    teller = Teller()
    mine, first = opened(teller, 1, "deposit")
    theirs, second = opened(teller, 2, "wealth", source="other")
    events = [
        *first,
        *second,
        teller.posting(mine, 1, "2026-01-31"),
        teller.posting(theirs, 1, "2026-01-31", source="other"),
    ]

    def stale(silent_minutes):
        heard = {"status": "GREEN", "certificate": "c", "booked_through": "2026-01-31"}
        core = heard | {"source": "core", "certified_at": NOW.isoformat()}
        silent = (NOW - timedelta(minutes=silent_minutes)).isoformat()
        shown = seen(events, [core, heard | {"source": "other", "certified_at": silent}])
        [block] = shown["currencies"]
        sources = {one["source"] for one in shown["sources"] if one["stale"]}
        return {name: block[name]["stale"] for name in block if name in FIGURES}, sources

    fresh: dict[str, list[str]] = {name: [] for name in FIGURES}
    assert stale(30) == (fresh, set())
    amber = ["other"]
    assert stale(31) == (fresh | {"wealth": amber, "aum": amber, "net_worth": amber}, {"other"})


def test_an_account_on_which_nothing_moved_yet_counts_with_zero():
    teller = Teller()
    event = teller.tell(
        UUID(int=1),
        "account.opened",
        source="core",
        account="k1.a.1",
        opened_on="2020-01-01",
        product="deposit",
        currency="CNY",
    )
    owner = teller.tell(UUID(int=1), "account.holder_named", source="core", party_id=ME, role="owner")
    shown = seen([event, owner])
    [block] = shown["currencies"]
    assert (block["currency"], block["aum"]["amount"], block["deposits"]["accounts"]) == ("CNY", "0.00", 1)
    assert block["allocation"] == []
    assert shown["accounts"][0]["balances"][0]["booked_through"] is None


def test_a_month_that_documents_no_longer_keep_is_known_to_be_missing():
    teller = Teller()
    account, events = opened(teller, 1, "deposit")
    events += [teller.posting(account, -1, f"2026-{month:02d}-01", kind="fee") for month in (1, 3, 4)]
    months = documents(events)[0]["outflows"]["CNY"]
    assert [keeps(months, month) for month in ("2025-12", "2026-01", "2026-02", "2026-05")] == [
        False,
        True,
        True,
        True,
    ]
    assert keeps({"2026-02": {}}, "2025-01")
    assert seen(events, month="2026-03")["currencies"][0]["spending"]["amount_minor"] == 1
    assert seen(events, month="2026-05")["currencies"][0]["spending"]["amount_minor"] == 0


def test_a_customer_without_accounts_has_no_figures():
    assert seen([])["currencies"] == []


@pytest.mark.requirement("R003")
def test_the_guides_own_example():
    """R003: savings 300,000, wealth 200,000, loan 800,000, card spending of the month 5,432.10."""
    teller = Teller()
    accounts = {
        product: opened(teller, n, product)
        for n, product in enumerate(("deposit", "wealth", "loan", "card"), 1)
    }
    events = [event for _, told in accounts.values() for event in told]
    for product, amount, kind in [
        ("deposit", 30_000_000, "cash"),
        ("wealth", 20_000_000, "wealth"),
        ("loan", -80_000_000, "transfer"),
        ("card", -500_000, "card"),
        ("card", -43_210, "card"),
    ]:
        events.append(teller.posting(accounts[product][0], amount, kind=kind))
    [block] = seen(events)["currencies"]
    assert {
        name: block[name]["amount"]
        for name in ("deposits", "wealth", "loans", "spending", "aum", "net_worth")
    } == {
        "deposits": "300000.00",
        "wealth": "200000.00",
        "loans": "800000.00",
        "spending": "5432.10",
        "aum": "500000.00",
        "net_worth": "-305432.10",
    }
    assert [share["percent"] for share in block["allocation"]] == ["60.00", "40.00", "0.00"]


def test_a_reversal_takes_back_under_the_type_and_in_the_month_of_what_it_reverses():
    teller = Teller()
    account, events = opened(teller, 1, "deposit")
    transfer = teller.posting(account, -700, "2026-01-05", kind="transfer")
    repayment = teller.posting(account, -100_000, "2026-01-06", kind="loan_repayment")
    bought = teller.posting(account, -300, "2026-01-07", kind="card")
    events += [teller.posting(account, 500_000, "2026-01-01"), loan(teller, account, 120_000)]
    events += [transfer, repayment, bought]
    events += [teller.reversal(each, "2026-02-02") for each in (transfer, repayment)]
    events.append(teller.reversal(bought, "2026-02-02", kind="transfer"))
    for month in ("2026-01", "2026-02"):
        [block] = seen(events, month=month)["currencies"]
        assert block["spending"]["amount_minor"] == 0, month
        assert block["net_worth"]["amount_minor"] == 500_000 - 120_000
        assert block["loans"]["amount_minor"] == 120_000


reversible = st.lists(
    st.tuples(
        st.integers(-(10**9), 10**9).filter(bool),
        st.sampled_from(["CNY", "USD"]),
        st.sampled_from(["card", "transfer", "fee", "loan_repayment", None]),
        st.integers(1, 6),
        st.sampled_from([None, "card", "transfer", "loan_repayment"]),
        st.integers(1, 6),
        st.booleans(),
    ),
    max_size=12,
)


@given(reversible, st.randoms(use_true_random=False))
def test_figures_with_a_reversal_are_those_without_both_in_every_month(posted, chance):
    teller, without = Teller(), Teller()
    account, events = opened(teller, 1, "deposit")
    _, others = opened(without, 1, "deposit")
    events.append(loan(teller, account, 10**10))
    others.append(loan(without, account, 10**10))
    moved = []
    for amount, currency, kind, month, own_kind, back_in, reversed_ in posted:
        day = f"2025-{month:02d}-15"
        original = teller.posting(account, amount, day, currency=currency, kind=kind)
        moved.append(original)
        if reversed_:
            later = f"2025-{max(month, back_in):02d}-20"
            moved.append(teller.reversal(original, later, kind=own_kind))
        else:
            others.append(without.posting(account, amount, day, currency=currency, kind=kind))
    chance.shuffle(moved)
    [kept] = documents([*events, *moved])
    for month in (f"2025-{number:02d}" for number in range(1, 7)):
        if not all(keeps(months, month) for months in kept["outflows"].values()):
            continue
        found, expected = (_figures(seen(all_of, month=month)) for all_of in ([*events, *moved], others))
        assert found == expected, month


def _figures(shown):
    return {
        (block["currency"], name): block[name]["amount_minor"]
        for block in shown["currencies"]
        for name in FIGURES
        if block[name]["amount_minor"]
    } | {
        (block["currency"], one["kind"]): one["amount_minor"]
        for block in shown["currencies"]
        for one in block["spending"]["by_kind"]
        if one["amount_minor"]
    }


def test_a_date_in_the_far_future_moves_neither_the_default_month_nor_how_far_a_source_is():
    teller = Teller()
    account, events = opened(teller, 1, "deposit")
    events += [teller.posting(account, 1, "2026-01-30"), teller.posting(account, 2, "2199-01-01")]
    shown = seen(events)
    [block] = shown["currencies"]
    assert block["aum"]["amount_minor"] == 3
    assert (shown["month"], shown["as_of"], block["aum"]["as_of"]) == ("2026-01", "2026-01-30", "2026-01-30")
    assert shown["accounts"][0]["balances"][0]["booked_through"] == "2026-01-30"
    only = documents([*opened(teller, 2, "deposit")[1], teller.posting(UUID(int=2), 2, "2199-01-01")])
    assert [one["booked_through"] for one in only] == [None]
    certified = teller.tell(
        UUID(int=9),
        "feed.certified",
        source="core",
        certificate="c",
        status="GREEN",
        booked_through="2199-01-01",
    )
    assert asset_panorama.source(None, certified)["booked_through"] is None


def test_a_signatory_sees_the_account_and_owns_nothing_of_it():
    teller = Teller()
    _, mine = opened(teller, 1, "deposit")
    theirs, others = opened(teller, 2, "deposit", ((SPOUSE, "owner"), (ME, "signatory")), source="other")
    spent = teller.posting(theirs, -5_000, kind="card", source="other")
    shown = seen([*mine, *others, teller.posting(theirs, 90_000, source="other"), spent])
    by_role = {one["role"]: one for one in shown["accounts"]}
    assert by_role["signatory"]["balances"][0]["balance_minor"] == 85_000
    assert (by_role["signatory"]["joint"], by_role["signatory"]["holders"]) == (False, 1)
    assert shown["currencies"] == []
    assert shown["as_of"] is None


def test_an_owner_beside_a_signatory_is_not_a_joint_holder():
    teller = Teller()
    mine, events = opened(teller, 1, "deposit", ((ME, "owner"), (SPOUSE, "signatory")))
    shown = seen([*events, teller.posting(mine, 100)])
    assert [(one["joint"], one["holders"]) for one in shown["accounts"]] == [(False, 1)]
    assert shown["currencies"][0]["aum"]["joint_minor"] == 0


def test_a_closed_account_shows_its_day_and_counts_with_what_is_left():
    teller = Teller()
    full, of_full = opened(teller, 1, "deposit")
    empty, of_empty = opened(teller, 2, "deposit")
    events = [
        *of_full,
        *of_empty,
        teller.posting(full, 700),
        teller.posting(empty, 300),
        teller.posting(empty, -300, kind="card"),
        *(teller.tell(one, "account.closed", source="core", closed_on="2026-01-20") for one in (full, empty)),
    ]
    today = held(documents(events), {ME}, "2026-01-20")
    shown = panorama(CUSTOMER, today, (), now=NOW, today=DAY)
    assert {one["closed_on"] for one in shown["accounts"]} == {"2026-01-20"}
    aum = shown["currencies"][0]["aum"]
    assert (aum["amount_minor"], aum["accounts"]) == (700, 1)
    assert shown["currencies"][0]["spending"]["amount_minor"] == 300
    before = panorama(CUSTOMER, held(documents(events), {ME}, "2026-01-19"), (), now=NOW, today=DAY)
    assert before["currencies"][0]["aum"]["accounts"] == 2
    events.append(teller.tell(empty, "account.reopened", source="core"))
    assert [one["closed"] for one in held(documents(events), {ME}, "2026-01-20")] == [True, False]


@pytest.mark.requirement("R077")
def test_a_source_is_stale_by_its_own_schedule_and_says_why_it_is_not_green():
    teller = Teller()
    key, first = opened(teller, 1, "deposit")
    events, later = [*first, teller.posting(key, 1, "2026-01-31")], NOW + timedelta(days=9)

    def shown(silent, every_seconds):
        certified = {
            "source": "core",
            "status": "AMBER",
            "reasons": ["quarantine-waiting"],
            "certificate": "c",
            "booked_through": "2026-01-31",
            "certified_at": (later - silent).isoformat(),
            "expected_every_seconds": every_seconds,
        }
        [source] = seen(events, [certified], now=later)["sources"]
        assert (source["status"], source["reasons"]) == ("AMBER", ["quarantine-waiting"])
        return source["stale"]

    hours = timedelta(hours=1)
    assert [shown(n * hours, 24 * 3600) for n in (1, 47, 49)] == [False, False, True]
    assert [shown(n * hours, 900) for n in (0.4, 0.6)] == [False, True]
    assert [shown(n * hours, None) for n in (0.4, 0.6)] == [False, True]


def test_a_source_is_heard_of_when_it_sent_something_and_not_when_somebody_acknowledged_something():
    teller = Teller()
    certified = teller.tell(
        UUID(int=9),
        "feed.certified",
        source="core",
        certificate="c",
        status="AMBER",
        booked_through="2026-01-31",
        received_at="2026-01-02T10:00:00Z",
    )
    document = asset_panorama.source(None, certified)
    old = documents(opened(teller, 1, "deposit")[1])
    for one in old:
        one["changed_at"] = "2026-01-01T00:00:00+00:00"
    shown = panorama(CUSTOMER, old, [document], now=NOW, today=DAY)
    [source] = shown["sources"]
    assert source["certified_at"] == document["certified_at"] > "2026-01-02T10:00:00+00:00"
    assert (source["heard_at"], source["stale"]) == ("2026-01-02T10:00:00+00:00", True)
    before = {name: value for name, value in document.items() if name != "heard_at"}
    assert (
        panorama(CUSTOMER, old, [before], now=NOW, today=DAY)["sources"][0]["heard_at"]
        == document["certified_at"]
    )


def test_the_month_of_a_customer_without_a_movement_is_that_of_the_business_date():
    """In the first eight hours of a month at the bank it was the month before, and after the cut-off of the last day too."""
    still_january = datetime(2026, 1, 31, 16, tzinfo=UTC)
    assert panorama(CUSTOMER, [], (), now=still_january, today=DAY)["month"] == "2026-02"
