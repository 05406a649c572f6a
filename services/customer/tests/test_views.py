"""The views as plain folds."""

from copy import deepcopy
from uuid import UUID

import pytest
from customer.views import asset_panorama, customers
from customer.views.asset_panorama import (
    ACCOUNTS,
    MEMBERS_MAX,
    MONTHS_KEPT_MAX,
    MOVEMENTS,
    PARTIES,
    SOURCES,
    VIEW,
    TooManyMembers,
    keys,
)
from customer.views.customers import NotRegistered
from hypothesis import given
from hypothesis import strategies as st

from .told import Teller

ACCOUNT, OTHER, PARTY, CUSTOMER = UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4)


def folded(events):
    """All documents of the asset panorama after these events; a fold leaves the events as they are."""
    documents = {}
    for event in events:
        for key in keys(event) if event.type in VIEW.events else []:
            kept = deepcopy(event.data)
            documents[key] = asset_panorama.project(key, documents.get(key), event)
            assert event.data == kept
    return documents


def account_of(events, account=ACCOUNT):
    return folded(events)[ACCOUNTS, str(account)]


amounts = st.integers(-(10**12), 10**12).filter(bool)
moves = st.lists(st.tuples(amounts, st.sampled_from(["CNY", "USD"]), st.booleans()), max_size=30)


@given(moves)
def test_a_balance_is_the_sum_of_its_movements_per_currency(moved):
    teller = Teller()
    events = [
        teller.posting(ACCOUNT, amount, currency=currency, reverses="x" if reversal else None)
        for amount, currency, reversal in moved
    ]
    documents = folded(events)
    found = [doc for (collection, _), doc in documents.items() if collection == MOVEMENTS]
    assert len(found) == len(moved)
    for currency in {currency for _, currency, _ in moved}:
        balance = documents[ACCOUNTS, str(ACCOUNT)]["balances"][currency]
        assert balance["minor"] == sum(m["amount_minor"] for m in found if m["currency"] == currency)
        assert balance["movements"] == sum(m["currency"] == currency for m in found)
        outflows = documents[ACCOUNTS, str(ACCOUNT)]["outflows"].get(currency, {})
        told = sum(minor for kinds in outflows.values() for minor in kinds.values())
        assert told == sum(m["outflow_minor"] for m in found if m["currency"] == currency)


def test_a_reversal_of_a_debit_takes_spending_back_and_one_of_a_credit_is_none():
    teller = Teller()
    spent = teller.posting(ACCOUNT, -500, kind="card")
    back = teller.posting(ACCOUNT, 500, kind="card", reverses=spent.data["posting_id"])
    credit = teller.posting(ACCOUNT, 900, kind="transfer")
    taken = teller.posting(ACCOUNT, -900, kind="transfer", reverses=credit.data["posting_id"])
    account = account_of([spent, teller.posting(ACCOUNT, -70, kind="card"), back, credit, taken])
    assert account["outflows"] == {"CNY": {"2026-01": {"card": 70}}}
    assert account["balances"]["CNY"]["minor"] == -70


def test_months_of_outflow_are_bounded_and_the_newest_stay():
    teller = Teller()
    months = [f"{2024 + number // 12}-{number % 12 + 1:02d}" for number in range(20)]
    events = [teller.posting(ACCOUNT, -10, f"{month}-01") for month in [*months[10:], *months[:10]]]
    kept = account_of(events)["outflows"]["CNY"]
    assert sorted(kept) == months[-MONTHS_KEPT_MAX:]
    assert account_of(events)["booked_through"] == f"{months[-1]}-01"


def test_master_data_may_come_before_or_after_the_first_posting():
    teller = Teller()
    seen = teller.tell(ACCOUNT, "account.seen", source="core", account="k1.a.1")
    posted = teller.posting(ACCOUNT, 5, product="card")
    assert account_of([seen, posted])["product"] == "card"
    opened = teller.tell(
        ACCOUNT,
        "account.opened",
        source="core",
        account="k1.a.2",
        opened_on="2020-01-01",
        product="wealth",
    )
    account = account_of([seen, posted, opened, teller.posting(ACCOUNT, 5, product="card")])
    assert (account["product"], account["balances"]["CNY"]["minor"]) == ("wealth", 10)
    assert account["account"] == {"t": "k1.a.2", "v": 3, "n": "account-opened"}


def test_cards_and_standing_orders_that_move_away_are_no_longer_the_accounts():
    teller = Teller()
    card = teller.tell(ACCOUNT, "card.issued", source="core", card="k1.a.1", issued_on="2026-01-01")
    order = teller.tell(
        ACCOUNT, "standing_order.set", source="core", order="S1", amount_minor=5, currency="CNY"
    )
    kept = teller.tell(
        ACCOUNT, "standing_order.set", source="core", order="S2", amount_minor=6, currency="CNY"
    )
    sequences = [card.sequence, order.sequence]
    moved = teller.tell(
        ACCOUNT, "account.records_moved", source="core", account_id=str(ACCOUNT), sequences=sequences
    )
    account = account_of([card, order, kept, moved])
    assert (account["cards"], [one["order"] for one in account["orders"]]) == ([], ["S2"])


def test_repeated_master_data_replaces_the_earlier():
    teller = Teller()
    holders = [
        teller.tell(ACCOUNT, "account.holder_named", source="core", party_id=party, role=role)
        for party, role in (("a", "owner"), ("b", "joint"), ("b", "owner"))
    ]
    loans = [
        teller.tell(
            ACCOUNT,
            "loan.granted",
            source="core",
            loan="L1",
            granted_on="2026-01-01",
            amount_minor=1200,
            currency="CNY",
            duration_months=12,
            payment_minor=100,
            status=status,
        )
        for status in ("running", "finished")
    ]
    account = account_of([*holders, *loans, teller.posting(ACCOUNT, -100, kind="loan_repayment")])
    assert [(h["party_id"], h["role"]) for h in account["holders"]] == [("a", "owner"), ("b", "owner")]
    assert [loan["status"] for loan in account["loans"]] == ["finished"]
    assert account["repaid"] == {"CNY": 100}


def test_an_account_with_too_many_holders_is_not_cut_short_silently():
    teller = Teller()
    events = [
        teller.tell(ACCOUNT, "account.holder_named", source="core", party_id=str(n), role="joint")
        for n in range(MEMBERS_MAX + 1)
    ]
    folded(events[:-1])
    with pytest.raises(TooManyMembers):
        folded(events)


def test_a_movement_keeps_the_way_to_its_event_and_sealed_values():
    teller = Teller()
    movement = folded([teller.posting(ACCOUNT, -5, text="k1.k.t", value_on="2026-01-06")])[
        MOVEMENTS, f"{ACCOUNT}:0000000001"
    ]
    assert movement["posting_id"] == str(UUID(int=1))
    assert (movement["text"], movement["stored_name"]) == ("k1.k.t", "posting-booked")
    assert (movement["position"], movement["value_on"]) == (1, "2026-01-06")


def test_the_dates_of_a_source_never_go_back():
    teller = Teller()
    feed = UUID(int=9)
    events = [
        teller.tell(feed, "feed.certified", source="core", certificate="c", status=s, booked_through=day)
        for s, day in (("GREEN", "2026-01-31"), ("RED", "2026-01-10"), ("RED", None))
    ]
    source = folded(events)[SOURCES, str(feed)]
    assert (source["booked_through"], source["status"]) == ("2026-01-31", "RED")
    assert (source["reasons"], source["expected_every_seconds"]) == ([], None)
    why = {"status": "AMBER", "reasons": ["nothing-read"], "expected_every_seconds": 900}
    now = teller.tell(feed, "feed.certified", source="core", certificate="d", booked_through=None, **why)
    source = folded([*events, now])[SOURCES, str(feed)]
    assert {name: source[name] for name in why} == why


def test_a_described_party_is_stored_sealed_and_other_events_change_no_document():
    teller = Teller()
    described = teller.tell(PARTY, "party.described", source="core", kind="person", name="k1.k.n")
    documents = folded([described, teller.tell(PARTY, "feed.record_released", source="core")])
    assert list(documents) == [(PARTIES, str(PARTY))]
    assert documents[PARTIES, str(PARTY)]["name"] == {"t": "k1.k.n", "v": 1, "n": "party-described"}


def test_accounts_do_not_mix():
    teller = Teller()
    documents = folded([teller.posting(ACCOUNT, 1), teller.posting(OTHER, 2)])
    assert [documents[ACCOUNTS, str(a)]["balances"]["CNY"]["minor"] for a in (ACCOUNT, OTHER)] == [1, 2]


def test_a_customer_document_is_the_fold_of_its_events():
    teller = Teller()
    events = [
        teller.tell(
            CUSTOMER, "customer.registered", kind="person", origin="staff", name="k1.k.1", phone="k1.k.2"
        ),
        teller.tell(CUSTOMER, "customer.reference_linked", source="core", party_id="a"),
        teller.tell(CUSTOMER, "customer.reference_linked", source="core", party_id="b"),
        teller.tell(CUSTOMER, "customer.renamed", name="k1.k.3"),
        teller.tell(CUSTOMER, "customer.contact_details_changed", phone=None, email="k1.k.4"),
    ]
    document = None
    for event in events:
        [key] = customers.keys(event)
        document = customers.project(key, document, event)
    assert document["name"] == {"t": "k1.k.3", "v": 4, "n": "customer-renamed"}
    assert document["phone"] is None
    assert document["email"]["v"] == 5
    assert [one["party_id"] for one in document["parties"]] == ["a", "b"]
    assert document["registered_at"] < document["changed_at"]


SHARED = ("customer.identity_number_shared", {"source": "core", "party_id": "a", "customer_id": str(OTHER)})
CONTRADICTED = (
    "customer.details_contradicted",
    {"source": "core", "party_id": "a", "identity_number": "k1.k.2"},
)


def corrected(*fields):
    return "customer.identity_details_corrected", {
        "born_on": None,
        "identity_number": "k1.k.3",
        "changed": fields,
    }


def resolved(field, *, accepted, party="a"):
    return "customer.contradiction_resolved", {"field": field, "party_id": party, "accepted": accepted}


@pytest.mark.parametrize(
    ("events", "shared"),
    [
        ([SHARED], True),
        ([SHARED, corrected("identity_number")], False),
        ([SHARED, corrected("born_on")], True),
        ([SHARED, corrected()], True),
        ([corrected("identity_number"), SHARED], True),
        ([CONTRADICTED, SHARED, resolved("identity_number", accepted=False)], False),
        ([CONTRADICTED, SHARED, resolved("identity_number", accepted=True)], False),
        ([SHARED, resolved("born_on", accepted=False)], True),
        ([CONTRADICTED, SHARED, ("customer.details_confirmed", {"party_id": "a", "fields": ["name"]})], True),
        (
            [
                CONTRADICTED,
                SHARED,
                ("customer.details_confirmed", {"party_id": "a", "fields": ["identity_number"]}),
            ],
            False,
        ),
        ([SHARED, ("customer.details_confirmed", {"party_id": "b", "fields": ["identity_number"]})], True),
    ],
)
def test_a_shared_identity_number_is_a_question_until_the_customer_has_another_one(events, shared):
    teller = Teller()
    registered = teller.tell(CUSTOMER, "customer.registered", kind="person", origin="staff", name="k1.k.1")
    document = customers.project(None, None, registered)
    for type, data in events:
        document = customers.project(None, document, teller.tell(CUSTOMER, type, **data))
    assert ("identity-number" in document["questions"]) is shared


def test_an_event_before_the_registration_is_refused():
    with pytest.raises(NotRegistered):
        customers.project(None, None, Teller().tell(CUSTOMER, "customer.renamed", name="k1.k.3"))


def test_a_key_customers_review_is_shown_until_it_ends():
    teller = Teller()
    events = [
        teller.tell(CUSTOMER, "customer.registered", name=None, kind="person", origin="staff"),
        teller.tell(CUSTOMER, "customer.named_key_customer", review_due_on="2026-02-28"),
        teller.tell(CUSTOMER, "customer.review_due", due_on="2026-02-28"),
        teller.tell(CUSTOMER, "customer.reviewed", reviewed_on="2026-01-31", review_due_on="2026-02-28"),
        teller.tell(CUSTOMER, "customer.reviewed", reviewed_on="2026-03-02", review_due_on="2026-04-02"),
        teller.tell(CUSTOMER, "customer.no_longer_key_customer"),
    ]
    reviews = []
    document = None
    for event in events:
        document = customers.project(customers.keys(event)[0], document, event)
        reviews.append(document.get("review"))
    at = events[2].recorded_at.isoformat()
    assert reviews == [
        None,
        {"due_on": "2026-02-28", "reviewed_on": None, "reminded_at": None},
        {"due_on": "2026-02-28", "reviewed_on": None, "reminded_at": at},
        {"due_on": "2026-02-28", "reviewed_on": "2026-01-31", "reminded_at": at},
        {"due_on": "2026-04-02", "reviewed_on": "2026-03-02", "reminded_at": None},
        None,
    ]
