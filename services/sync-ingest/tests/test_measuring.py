"""What operators hear of a source, from the real tables: counts, quarantine by reason, certificates, silence."""

import io
import json

import psycopg
from chassis.clock import SystemClock
from chassis.connections.migrating import migrate
from chassis.messaging.records import Record
from chassis.observability import metrics
from structlog.testing import capture_logs
from sync_ingest.listening import TOPIC, BranchFeed
from sync_ingest.measuring import measuring, watched
from sync_ingest.opening import TABLES, IngestPool, opened
from sync_ingest.runs.ports import Acting
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings


def settings_of(postgres_url, data):
    return SyncIngestSettings(postgres_url=postgres_url, data=data)


def line(number, amount="1.00"):
    return (
        json.dumps(
            {
                "record": "posting",
                "account": "A1",
                "core_transaction_id": f"t{number}",
                "amount_minor": 100 if amount == "1.00" else amount,
                "currency": "CNY",
                "booked_on": "2026-03-02",
            }
        ).encode()
        + b"\n"
    )


def take(ingest, source, *lines):
    content = FeedContent("feed.jsonl", lambda: io.BytesIO(b"".join(lines)))
    return ingest.run(source, [content], format="canonical")


async def page_of(settings, source):
    """The samples of a source as `/metrics` shows them."""
    page = (await metrics.measured([measuring(settings)])).decode()
    mine = [each for each in page.splitlines() if f'"{source}"' in each]
    return {each.rpartition(" ")[0]: float(each.rpartition(" ")[2]) for each in mine}


async def test_every_source_s_last_intake_counts(postgres_url, data, source):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "insert into ingest.intakes (id, source, sha256, name_sealed, format, size_bytes, received_at)"
            " select gen_random_uuid(), %s, '', 'n', 'canonical', 0, now() - make_interval(mins => m)"
            " from unnest(array[90, 60, 5]) as m",
            (source,),
        )
    found = await page_of(settings_of(postgres_url, data), source)
    assert 300 <= found[f'crm_freshness_seconds{{name="{source}"}}'] < 360
    assert found[f'crm_freshness_expected_seconds{{name="{source}"}}'] == 24 * 60 * 60
    overdue = f'crm_source_overdue_seconds{{source="{source}"}}'
    assert found[overdue] == 0
    with opened(settings_of(postgres_url, data)) as ingest:
        ingest.schedule(source, 60)
    assert 240 <= (await page_of(settings_of(postgres_url, data), source))[overdue] < 300


async def test_neither_a_repair_nor_an_acknowledgement_is_a_sign_of_the_source(
    ingest, postgres_url, data, source
):
    settings = settings_of(postgres_url, data)
    red = take(ingest, source, line(1), printed(2), b"{broken")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "update ingest.intakes set received_at = received_at - interval '1 hour' where source = %s",
            (source,),
        )
    ingest.acting = Acting("lee", reason="the branch knows")
    ingest.acknowledge(red.certificate)
    ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 9)
    ingest.release(entry.id, line(3))
    [mine] = [each for each in watched(settings) if each.source == source]
    assert 3_600 <= mine.silent_seconds < 3_700


def printed(number):
    """A posting with a running balance that no row explains."""
    return (
        line(number)
        .replace(b'"currency"', b'"balance_after_minor": 100000, "currency"')
        .replace(b"A1", b"A2")
    )


async def test_ten_malformed_records_are_heard_of(ingest, postgres_url, data, source):
    settings = settings_of(postgres_url, data)
    take(ingest, source, line(1), line(2), *(line(number, "12..34") for number in range(3, 13)))
    [mine] = [each for each in watched(settings) if each.source == source]
    assert (mine.posted, mine.duplicates, mine.quarantined) == (2, 0, 10)
    assert (sum(mine.waiting.values()), len(mine.waiting)) == (10, 1)
    assert (mine.status, "quarantine-waiting" in mine.reasons) == ("AMBER", True)
    [reason] = mine.waiting
    found = await page_of(settings, source)
    assert found[f'crm_quarantine_waiting{{reason="{reason}",source="{source}"}}'] == 10
    assert found[f'crm_source_records{{outcome="posted",source="{source}"}}'] == 2
    assert found[f'crm_source_records{{outcome="quarantined",source="{source}"}}'] == 10
    statuses = [
        found[f'crm_certificate_status{{source="{source}",status="{s}"}}'] for s in ("GREEN", "AMBER", "RED")
    ]
    assert statuses == [0, 1, 0]


async def test_what_comes_again_counts_as_duplicates_and_what_is_dismissed_waits_no_more(
    ingest, postgres_url, data, source
):
    settings = settings_of(postgres_url, data)
    take(ingest, source, line(1), line(2))
    take(ingest, source, line(1), line(3))
    [mine] = [each for each in watched(settings) if each.source == source]
    assert (mine.posted, mine.duplicates, mine.quarantined, mine.waiting) == (3, 1, 0, {})
    take(ingest, source, line(4, "x"))
    assert any("crm_quarantine_waiting" in each for each in await page_of(settings, source))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("update ingest.quarantine set status = 'dismissed' where source = %s", (source,))
    assert not any("crm_quarantine_waiting" in each for each in await page_of(settings, source))


def test_counts_of_certificates_from_before_are_added_up_when_the_table_is_made(
    ingest, postgres_url, data, source
):
    settings = settings_of(postgres_url, data)
    take(ingest, source, line(1), line(2, "x"))
    take(ingest, source, line(1), line(3))
    before = [each for each in watched(settings) if each.source == source]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("drop table ingest.source_counts")
        connection.execute("delete from migrations.applied where module = 'ingest' and version = 3")
    migrate(postgres_url, TABLES, service_url=postgres_url)
    after = [each for each in watched(settings) if each.source == source]
    assert [each[3:6] for each in after] == [each[3:6] for each in before] == [(2, 1, 1)]


def test_a_batch_of_the_topic_and_its_window_are_one_line_of_the_log_each(postgres_url, data, source):
    settings = settings_of(postgres_url, data)
    pool, clock = IngestPool(settings), SystemClock()
    feed = BranchFeed(pool.opened, default_source=source, window=settings.window, now=clock.now)
    headers = [("source", source.encode())]
    broken = [Record(TOPIC, 0, b"A1", headers, b"{broken", offset) for offset in range(10)]
    with capture_logs() as said:
        feed.book([*broken, Record(TOPIC, 0, b"A1", headers, line(1), 10)])
    pool.close()
    [booked] = [each for each in said if each["event"] == "batch booked"]
    assert booked["log_level"] == "warning"
    assert {name: booked[name] for name in ("source", "records", "posted", "duplicates", "quarantined")} == {
        "source": source,
        "records": 11,
        "posted": 1,
        "duplicates": 0,
        "quarantined": 10,
    }
