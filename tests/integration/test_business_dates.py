"""With a cut-off, everything that a service opens counts from one business date, and births alone from the calendar."""

from datetime import date, datetime, time

import pytest
from customer.connections import both_sides
from customer.settings import CustomerSettings
from sync_ingest.settings import SyncIngestSettings

from tests.integration.conftest import System
from tests.support.roles import PLACES
from tests.support.specification import ManualClock

CUT_OFF = time(17, 30)


@pytest.mark.parametrize(("now", "day"), [("2036-01-05T17:29:59+08:00", 5), ("2036-01-05T17:30:00+08:00", 6)])
async def test_all_of_a_service_has_one_business_date(system: System, now: str, day: int) -> None:
    clock, business = ManualClock(datetime.fromisoformat(now)), date(2036, 1, day)
    places = system.customer.model_dump(include=PLACES)
    settings = CustomerSettings(**places, cut_off=CUT_OFF)
    async with both_sides(settings, clock) as (service, write, read):
        days = [service.today(), write.today(), read.queries.list.today(), read.queries.facts.today()]
        assert [*days, service.business_date(clock.now())] == [business] * 5
        assert service.born_until is not None
        assert service.born_until() == date(2036, 1, 5)
    ingest = SyncIngestSettings(**places, cut_off=CUT_OFF).ingest
    assert ingest.booking_days(clock.now()).today == business
