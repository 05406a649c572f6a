"""`crm verify` names who is erased by the log and not in the key database."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
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
