"""`crm verify` names who is erased by the log and not in the key database."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.notices.deciding import NoticeHandedOver, NoticeRefused, NoticeRequested
from chassis.privacy.keys import seal
from chassis.write.catalogue import NewEvent
from chassis.write.events import Metadata
from contracts.purposes import CONTACT
from crm_cli.contexts import CONTEXTS
from crm_cli.verify_keys import DESTROYED_WITHIN_SECONDS, SealedKeys
from crm_cli.verify_report import Report
from customer.domain.events import CustomerContactErased, CustomerErased

from tests.support.fixtures import key_ring, keys_url

__all__ = ["key_ring", "keys_url"]

CUSTOMER, PARTY, OTHER = (UUID(int=number) for number in (71, 72, 73))
LONG_AGO = datetime(2026, 1, 5, tzinfo=UTC)
PART = CustomerContactErased(parties=(PARTY,), rest_from=date(2036, 1, 5))
WHOLE = CustomerErased(parties=(PARTY,), accounts=())


@pytest.mark.requirement("M22")
@pytest.mark.parametrize(
    ("event", "purpose", "word"), [(PART, CONTACT, "for contact"), (WHOLE, None, "a key")]
)
def test_keys_that_are_there_again_after_an_erasure_are_named(
    key_ring, keys_url, postgres_url, tmp_path, event, purpose, word
):
    settings = Settings(postgres_url=postgres_url, keys_url=keys_url, data=tmp_path)
    subjects = [CUSTOMER, PARTY, OTHER]
    key_ring.keys_for(subjects, purposes=[CONTACT])
    key_ring.erase(subjects[:1], purpose)

    def problems(at=LONG_AGO):
        report, context = Report(), CONTEXTS["customer"]
        meta = Metadata(
            effective_at=at,
            recorded_at=at,
            actor="t",
            command_id=OTHER,
            correlation_id=OTHER,
            causation_id=OTHER,
        )
        stored = context.catalogue().stored([NewEvent(CUSTOMER, 1, event, meta)], {})
        keys = SealedKeys(settings, context, report)
        keys.take(stored)
        keys.close()
        return report.as_json()["invariants"]["I10"].get("problems", [])

    [left] = problems()
    assert str(PARTY) in left
    assert word in left
    now = SystemClock().now()
    assert problems(now) == [], "the policy has some time"
    assert len(problems(now - timedelta(seconds=2 * DESTROYED_WITHIN_SECONDS))) == 1
    key_ring.erase(subjects[:2], purpose)
    assert problems() == []
    with psycopg.connect(keys_url) as connection:
        for table in ("data_keys", "purpose_keys"):
            connection.execute(
                f"update {table} set wrapped = 'restored', erased_at = null where subject = %s", (CUSTOMER,)
            )
    [again] = problems()
    assert str(CUSTOMER) in again


def test_what_is_sealed_of_a_notice_is_looked_for_under_its_subject(
    key_ring, keys_url, postgres_url, tmp_path
):
    """The key database was lost, and the customer erased since: nothing of it is lost that would be there otherwise."""
    settings = Settings(postgres_url=postgres_url, keys_url=keys_url, data=tmp_path)
    context, key = CONTEXTS["customer"], key_ring.keys_for([CUSTOMER])[CUSTOMER]
    token = seal(key, b"", "13800001234")
    requested = NoticeRequested(CUSTOMER, "sms", "t", 1, token, token, "d", LONG_AGO, LONG_AGO)
    answered = [
        NoticeHandedOver("gateway", None, token, CUSTOMER),
        NoticeRefused("gateway", "c", token, CUSTOMER),
    ]
    meta = Metadata(
        effective_at=LONG_AGO,
        recorded_at=LONG_AGO,
        actor="t",
        command_id=OTHER,
        correlation_id=OTHER,
        causation_id=OTHER,
    )
    events = [NewEvent(PARTY, at, event, meta) for at, event in enumerate([requested, *answered], 1)]
    stored = context.catalogue().stored(events, {})

    def problems():
        report = Report()
        keys = SealedKeys(settings, context, report)
        keys.take(stored)
        keys.close()
        return report.as_json()["invariants"]["I10"].get("problems", [])

    assert problems() == []
    with psycopg.connect(keys_url) as connection:
        connection.execute("delete from data_keys where subject = %s", (CUSTOMER,))
    [lost] = problems()
    assert str(CUSTOMER) in lost
    key_ring.erase([CUSTOMER])
    assert problems() == []
