"""A file that somebody writes to while it is read: what is hashed, kept and parsed are the same bytes."""

import io
from hashlib import sha256

import pytest
from sync_ingest.archive.intakes import CHUNK_BYTES, PASSES_MAX, FeedChanging
from sync_ingest.runs.results import FeedContent

LINE = (
    b'{"record":"posting","account":"1","core_transaction_id":"t%d","amount_minor":%d,"currency":"CNY",'
    b'"booked_on":"2026-01-05"}\n'
)


def lines(count, first=1, amount_minor=100):
    return b"".join(LINE % (number, amount_minor) for number in range(first, first + count))


class Versions(io.BytesIO):
    """A file that holds another content each time it is read from its beginning; the last one stays."""

    def __init__(self, *contents):
        super().__init__(contents[0])
        self.contents = list(contents)

    def seek(self, position, whence=0):
        if position == 0 and len(self.contents) > 1:
            del self.contents[0]
            super().seek(0)
            self.truncate()
            self.write(self.contents[0])
        return super().seek(position, whence)


class Growing(Versions):
    """A file that is written to all the time."""

    def __init__(self):
        super().__init__(*(lines(number) for number in range(1, PASSES_MAX + 4)))


def taken(ingest, source, stream):
    result = ingest.run(source, [FeedContent("feed.jsonl", lambda: stream)], format="canonical")
    (intake,) = [ingest.archive.intakes.one(each) for each in result.intakes]
    return result.findings, intake, ingest.bytes_of(intake).read()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lines(3), lines(3, amount_minor=200)),
        (lines(3), lines(5)),
        (lines(3), lines(3)[:-40]),
        (lines(3), lines(1)),
        (lines(9_000), lines(4_000, amount_minor=7)),
        (lines(9_000), lines(9_000)[:CHUNK_BYTES]),
        (lines(2), lines(9_000)),
    ],
    ids=["overwritten", "longer", "cut-off", "shorter", "chunks-fewer", "one-chunk", "chunks-more"],
)
def test_what_changed_between_two_reads_is_kept_under_its_own_hash(ingest, source, before, after):
    findings, intake, kept = taken(ingest, source, Versions(before, after))
    assert kept == after
    assert (intake.sha256, intake.size_bytes) == (sha256(after).digest(), len(after))
    whole = after.count(b"\n")
    assert (findings.posted, findings.quarantined) == (whole, 0 if after.endswith(b"\n") else 1)


def test_a_file_that_never_stops_changing_is_refused_and_nothing_of_it_is_kept(ingest, source):
    with pytest.raises(FeedChanging):
        taken(ingest, source, Growing())
    assert ingest.archive.intakes.open(source) == []
    findings, _, kept = taken(ingest, source, Versions(lines(4)))
    assert (findings.posted, kept) == (4, lines(4))


def test_what_becomes_bytes_that_are_kept_already_is_what_they_are(ingest, source):
    taken(ingest, source, Versions(lines(2)))
    findings, intake, kept = taken(ingest, source, Versions(lines(3), lines(2)))
    assert (findings.posted, findings.duplicates) == (0, 2)
    assert (intake.sha256, kept) == (sha256(lines(2)).digest(), lines(2))
