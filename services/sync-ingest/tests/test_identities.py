from datetime import date

import pytest
from contracts.identity import posting_id
from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.domain.identities import (
    certificate_id,
    content_digest,
    intake_id,
    posting_ids,
    quarantine_id,
)
from sync_ingest.domain.records import Posting

KEY = bytes(32)


def posting(account="1", transaction="t", leg=1, **changes):
    values = {"amount_minor": 1, "currency": "CNY", "booked_on": date(2026, 1, 1)} | changes
    return Posting(account=account, core_transaction_id=transaction, leg=leg, **values)


@given(st.text(min_size=1, max_size=9), st.text(min_size=1, max_size=9), st.integers(0, 999))
def test_the_fast_way_to_an_identity_is_the_published_one(account, transaction, leg):
    (fast,) = posting_ids("core", [posting(account, transaction, leg)])
    assert fast == posting_id("core", account, transaction, leg)
    assert (fast.version, fast.variant, str(fast)) == (5, posting_id("c", "a", "t", 1).variant, str(fast))


@pytest.mark.parametrize("source", ["", "a:b"])
def test_a_source_is_named_without_a_colon(source):
    with pytest.raises(ValueError, match="colon"):
        posting_ids(source, [])


def test_a_digest_tells_content_apart_and_nothing_without_its_key():
    assert content_digest(posting(), KEY) == content_digest(posting(), KEY)
    assert content_digest(posting(), KEY) != content_digest(posting(amount_minor=2), KEY)
    assert content_digest(posting(), KEY) != content_digest(posting(), b"\1" * 32)


def test_ids_of_feeds_depend_on_all_that_makes_them_one():
    assert intake_id("a", b"1", "r") != intake_id("b", b"1", "r")
    assert (
        len({quarantine_id("a", raw, reason, n) for raw in (b"x", b"y") for reason in "rs" for n in (1, 2)})
        == 8
    )
    first = certificate_id("a", None, [intake_id("a", b"1", "r")])
    assert first != certificate_id("a", first, [intake_id("a", b"1", "r")])
