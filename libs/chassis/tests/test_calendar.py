"""The calendar: public holidays and make-up working days, the bank's own file, and laws of working time."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from chassis.calendar import (
    Calendar,
    CalendarExhausted,
    CalendarInvalid,
    DaysKnown,
    Span,
    public_holidays,
    read_days,
)
from chassis.calendar.calendar import SEARCHED_DAYS_MAX
from hypothesis import example, given
from hypothesis import strategies as st

SHANGHAI, BERLIN = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Berlin")
HOURS = (Span.of("09:00-12:00"), Span.of("13:30-17:30"))
AT_NIGHT = (Span.of("01:00-02:30"), Span.of("02:30-02:45"), Span.of("02:50-03:10"), Span.of("22:00-24:00"))
"""Hours that a change of the clocks in Berlin cuts."""
CHINA = Calendar(SHANGHAI, public_holidays(), HOURS)
NIGHTS = Calendar(BERLIN, DaysKnown({}, frozenset()), AT_NIGHT)


def at(text: str, zone: ZoneInfo = SHANGHAI) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)


instants = st.datetimes(datetime(2024, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
hours = st.timedeltas(timedelta(0), timedelta(hours=120))
days = st.dates(date(2004, 1, 1), date(2027, 12, 31))
calendars = st.sampled_from([CHINA, NIGHTS])


# days


def test_public_holidays_and_make_up_working_days_are_known() -> None:
    kinds = {
        day: CHINA.kind_of(date.fromisoformat(day)) for day in ("2026-02-14", "2026-02-15", "2026-02-28")
    }
    assert kinds == {
        "2026-02-14": "make-up-working-day",  # a Saturday before the Spring Festival
        "2026-02-15": "public-holiday",
        "2026-02-28": "make-up-working-day",
    }
    assert CHINA.kind_of(date(2026, 10, 1)) == "public-holiday"
    assert CHINA.kind_of(date(2026, 11, 26)) == "working-day"
    assert CHINA.kind_of(date(2026, 11, 28)) == "weekend"


def test_a_year_that_was_not_announced_has_its_weekends_and_says_that_it_is_not_known() -> None:
    assert CHINA.knows(date(2026, 12, 31))
    new_year = date(2028, 1, 3)
    assert (CHINA.knows(new_year), CHINA.is_working_day(new_year)) == (False, True)
    assert not CHINA.is_working_day(date(2028, 1, 8))


def test_working_days_pass_over_holidays_and_count_make_up_days() -> None:
    before_festival = date(2026, 2, 13)
    assert CHINA.working_days_after(before_festival, 1) == date(2026, 2, 14)
    assert CHINA.working_days_after(before_festival, 2) == date(2026, 2, 24)
    assert CHINA.working_days_before(date(2026, 2, 24), 1) == date(2026, 2, 14)
    assert CHINA.next_working_day(date(2026, 2, 15)) == date(2026, 2, 24)
    assert CHINA.last_working_day(date(2026, 2, 23)) == date(2026, 2, 14)


@given(days, st.integers(0, 60))
def test_counting_working_days_there_and_back_agree(day: date, count: int) -> None:
    after = CHINA.working_days_after(day, count)
    assert CHINA.working_days_between(day, after) == count
    before = CHINA.working_days_before(day, count)
    assert CHINA.working_days_between(before - timedelta(days=1), day - timedelta(days=1)) == count
    if count:
        assert CHINA.is_working_day(after)
        assert CHINA.is_working_day(before)


@given(days, days, st.integers(0, 40))
def test_a_later_day_has_no_earlier_end(one: date, other: date, count: int) -> None:
    first, second = sorted((one, other))
    assert CHINA.working_days_after(first, count) <= CHINA.working_days_after(second, count)
    assert CHINA.working_days_before(first, count) <= CHINA.working_days_before(second, count)


def test_a_calendar_without_working_days_is_refused_after_a_bounded_search() -> None:
    never = {date(2026, 1, 1) + timedelta(days=n): False for n in range(2 * SEARCHED_DAYS_MAX)}
    calendar = Calendar(SHANGHAI, DaysKnown(never, frozenset()), HOURS)
    with pytest.raises(CalendarExhausted):
        calendar.working_days_after(date(2026, 1, 1), 1)
    with pytest.raises(CalendarExhausted):
        calendar.after_working_time(at("2026-01-01T08:00"), timedelta(hours=1))


# business dates


def test_from_the_cut_off_on_it_is_the_next_business_date() -> None:
    calendar = Calendar(SHANGHAI, public_holidays(), HOURS, time(17, 30))
    assert calendar.business_date(at("2026-11-26T17:29:59")) == date(2026, 11, 26)
    assert calendar.business_date(at("2026-11-26T17:30:00")) == date(2026, 11, 27)
    assert CHINA.business_date(at("2026-11-26T23:59:59")) == date(2026, 11, 26)


@given(instants, st.times(), st.sampled_from([SHANGHAI, BERLIN]))
def test_a_business_date_runs_from_its_beginning_to_that_of_the_next(
    instant: datetime, cut_off: time, zone: ZoneInfo
) -> None:
    calendar = Calendar(zone, public_holidays(), HOURS, cut_off)
    day = calendar.business_date(instant)
    assert calendar.business_date_begins(day) <= instant
    assert instant < calendar.business_date_begins(day + timedelta(days=1))


# hours


def test_four_working_hours_pass_over_noon_night_and_weekend() -> None:
    four = timedelta(hours=4)
    assert CHINA.after_working_time(at("2026-11-26T10:00"), four) == at("2026-11-26T15:30")
    assert CHINA.after_working_time(at("2026-11-27T16:00"), four) == at("2026-11-30T11:30")
    assert CHINA.after_working_time(at("2026-11-28T20:00"), four) == at("2026-11-30T14:30")
    assert CHINA.before_working_time(at("2026-11-30T11:30"), four) == at("2026-11-27T16:00")


@given(calendars, instants, hours)
@example(NIGHTS, at("2026-03-29T00:30", BERLIN), timedelta(hours=3))  # the clocks go on
@example(NIGHTS, at("2026-10-25T00:30", BERLIN), timedelta(hours=3))  # the clocks go back
def test_the_working_time_up_to_the_end_is_what_was_asked_for(
    calendar: Calendar, instant: datetime, worked: timedelta
) -> None:
    after = calendar.after_working_time(instant, worked)
    assert after >= instant
    assert calendar.working_time_between(instant, after) == worked
    before = calendar.before_working_time(instant, worked)
    assert before <= instant
    assert calendar.working_time_between(before, instant) == worked


@given(calendars, instants, instants, hours, hours)
def test_a_later_start_or_a_longer_time_has_no_earlier_end(
    calendar: Calendar, one: datetime, other: datetime, less: timedelta, more: timedelta
) -> None:
    first, second = sorted((one, other))
    shorter, longer = sorted((less, more))
    assert calendar.after_working_time(first, less) <= calendar.after_working_time(second, less)
    assert calendar.after_working_time(first, shorter) <= calendar.after_working_time(first, longer)
    assert calendar.before_working_time(first, less) <= calendar.before_working_time(second, less)


@given(calendars, instants, hours, hours)
def test_working_times_add_up(
    calendar: Calendar, instant: datetime, one: timedelta, other: timedelta
) -> None:
    in_parts = calendar.after_working_time(calendar.after_working_time(instant, one), other)
    assert in_parts == calendar.after_working_time(instant, one + other)


@given(instants, hours, st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"]))
def test_the_zone_in_which_an_instant_is_written_does_not_matter(
    instant: datetime, worked: timedelta, zone: str
) -> None:
    elsewhere = instant.astimezone(ZoneInfo(zone))
    assert CHINA.after_working_time(elsewhere, worked) == CHINA.after_working_time(instant, worked)
    assert CHINA.business_date(elsewhere) == CHINA.business_date(instant)


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        CHINA.business_date(datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="no time zone"):
        CHINA.after_working_time(datetime(2026, 1, 1), timedelta(hours=1))  # noqa: DTZ001


@pytest.mark.parametrize("text", ["9", "12:00-09:00", "09:00-09:00", "25:00-26:00", ""])
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any text)
        Span.of(text)


def test_hours_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="begins before"):
        Calendar(SHANGHAI, public_holidays(), (Span.of("09:00-12:00"), Span.of("11:00-13:00")))


# the bank's own file


def written(folder: Path, text: str) -> Path:
    path = folder / "days.toml"
    path.write_text(text)
    return path


def test_the_banks_file_stands_over_the_public_holidays(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "holidays = [2026-11-26, 2028-01-03]\nworking_days = [2026-10-01, 2028-01-08]\nannounced_years = [2028]",
    )
    days = read_days(path, public_holidays())
    assert [days.is_working_day(date(2026, *day)) for day in ((11, 26), (10, 1), (10, 2))] == [
        False,
        True,
        False,
    ]
    assert (days.knows(date(2028, 5, 1)), days.is_working_day(date(2028, 1, 3))) == (True, False)
    assert days.digest() != public_holidays().digest()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("holidays = [2027-01-01, 2027-01-01]", "twice"),
        ("holidays = ['2027-01-01']", "no day"),
        ("holidays = [2027-01-01T00:00:00]", "no day"),
        ("holidays = [0001-01-01]", "1970"),
        ("holidays = 2027-01-01", "a list"),
        ("holidays = [2027-02-06]\nworking_days = [2027-02-06]", "and in"),
        ("working_days = [2027-02-08]", "without this entry"),
        ("announced_years = [2030]", "no holiday"),
        ("announced_years = [true]", "no year"),
        ("holiday = [2027-01-01]", "is none of"),
        ("holidays = [", "days.toml"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_entry(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CalendarInvalid, match=said):
        read_days(written(tmp_path, text), public_holidays())


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalendarInvalid, match="No such file"):
        read_days(tmp_path / "none.toml", public_holidays())
    (tmp_path / "days.toml").write_bytes(b"\xff\x00")
    with pytest.raises(CalendarInvalid, match="invalid start byte"):
        read_days(tmp_path / "days.toml", public_holidays())
