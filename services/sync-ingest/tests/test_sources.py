"""One source has one name: what looks the same is the same or is refused."""

import io
import threading

import pytest
from sync_ingest.domain.sources import SourceLooksAlike, SourceNameInvalid, SourceReserved, checked_source
from sync_ingest.opening import opened
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings

ROW = (
    b'{"record":"posting","account":"A1","core_transaction_id":"t1","amount_minor":1,"currency":"CNY",'
    b'"booked_on":"2026-03-02"}'
)


def take(ingest, source, row=ROW):
    return ingest.run(source, [FeedContent("f", lambda: io.BytesIO(row))], format="canonical")


def test_wide_letters_and_composed_ones_are_the_same_source(ingest, source):
    name = f"Z\u00fcrich{source}"
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in name)
    assert take(ingest, name).findings.posted == 1
    for spelled in (wide, name.replace("\u00fc", "u\u0308")):
        again = take(ingest, spelled, ROW + b"\n")
        assert (again.source, again.findings.posted, again.findings.duplicates) == (name, 0, 1)
        assert ingest.latest_certificate(spelled).source == name


@pytest.mark.parametrize("alike", [str.upper, lambda name: name.replace("o", "\u043e"), str.title])
def test_a_name_that_looks_like_a_known_source_is_refused_with_that_name(ingest, source, alike):
    take(ingest, source)
    with pytest.raises(SourceLooksAlike, match=source):
        take(ingest, alike(source))
    assert source in ingest.archive.sources.every()
    assert alike(source) not in ingest.archive.sources.every()
    assert take(ingest, f"{source}-b").findings.posted == 1


@pytest.mark.parametrize("name", ["", " ", "a:b", "a\uff1ab", "a\0", "\u200ba", " a", "a\u3000", "x" * 65])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(SourceNameInvalid):
        checked_source(name)


@pytest.mark.parametrize("name", ["unattributed", "Unattributed", "unattribut\u0435d", "\uff55nattributed"])
def test_the_reserved_source_takes_nothing_from_outside(ingest, name):
    head = ingest.ledger.head_position()
    with pytest.raises(SourceReserved):
        take(ingest, name)
    with pytest.raises(SourceReserved):
        ingest.schedule(name, 60)
    with pytest.raises(ValueError, match="topic_source is no name of a source"):
        SyncIngestSettings(topic_source=name)
    assert ingest.ledger.head_position() == head


def test_of_two_that_look_alike_and_come_at_once_one_is_refused(postgres_url, data, source):
    told = []

    def first(name):
        with opened(SyncIngestSettings(postgres_url=postgres_url, data=data)) as ingest:
            try:
                told.append(take(ingest, name).findings.posted)
            except SourceLooksAlike:
                told.append("refused")

    threads = [threading.Thread(target=first, args=(name,)) for name in (source, source.upper())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, told)) == ["1", "refused"]
