"""The business date runs from cut-off to cut-off, the calendar date from midnight to midnight; both in the bank's zone."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from chassis.business_dates import BusinessDates
from chassis.connections.settings import Settings
from chassis.web.formats import StatedInstant
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tests.support.specification import ManualClock

STATED: TypeAdapter[datetime] = TypeAdapter(StatedInstant)
SHANGHAI, BERLIN = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("clock", "business", "calendar"),
    [
        ("2026-01-05T00:00:00+08:00", 5, 5),
        ("2026-01-05T17:29:59+08:00", 5, 5),
        ("2026-01-05T17:30:00+08:00", 6, 5),
        ("2026-01-05T23:59:59+08:00", 6, 5),
        ("2026-01-06T00:00:00+08:00", 6, 6),
    ],
)
def test_settings_say_both_days_of_now(
    monkeypatch: pytest.MonkeyPatch, clock: str, business: int, calendar: int
) -> None:
    monkeypatch.setenv("CRM_CUT_OFF", "17:30")
    settings, now = Settings(), ManualClock(datetime.fromisoformat(clock))
    assert settings.business_date(now) == date(2026, 1, business)
    assert settings.calendar_date(now) == date(2026, 1, calendar)
    monkeypatch.delenv("CRM_CUT_OFF")
    assert Settings().business_date(now) == date(2026, 1, calendar), "without a cut-off the two are one"


@pytest.mark.parametrize("cut_off", ["00:00Z", "00:00+08:00", "17:30Z"])
def test_a_cut_off_with_an_offset_is_refused(monkeypatch: pytest.MonkeyPatch, cut_off: str) -> None:
    """At `00:00Z` each instant was in the business date of the next day: that is not the midnight of the bank."""
    monkeypatch.setenv("CRM_CUT_OFF", cut_off)
    with pytest.raises(ValidationError, match="no offset"):
        Settings()


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 (in UTC)
    st.times(),
    st.sampled_from([SHANGHAI, BERLIN, UTC]),
)
def test_each_instant_is_in_one_business_date_that_is_its_day_or_the_next(
    instant: datetime, cut_off: time, zone: ZoneInfo
) -> None:
    dates = BusinessDates(zone, cut_off)
    day = dates.business_date(instant)
    assert dates.begins(day) <= instant < dates.begins(day + timedelta(days=1))
    assert day - dates.calendar_date(instant) in {timedelta(0), timedelta(days=1)}


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        BusinessDates(SHANGHAI).business_date(datetime(2026, 1, 5))  # noqa: DTZ001 (refused)


@given(
    st.times(),
    st.sampled_from([SHANGHAI, BERLIN, UTC, ZoneInfo("America/New_York"), ZoneInfo("Pacific/Kiritimati")]),
)
def test_the_first_instant_that_a_caller_may_state_has_a_business_date(cut_off: time, zone: ZoneInfo) -> None:
    """That of the first day of year 1 overflowed in zones west of UTC, and in others with a cut-off in the night."""
    first = STATED.validate_python("0001-01-03T00:00:00Z")
    assert BusinessDates(zone, cut_off).business_date(first).year == 1
    with pytest.raises(ValidationError):
        STATED.validate_python("0001-01-02T23:59:59Z")
