import json
from datetime import date
from io import BytesIO
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.adapters.canonical import CanonicalAdapter
from sync_ingest.adapters.port import LINE_BYTES_MAX, FeedFile
from sync_ingest.domain.records import AnyRecord, Posting, Unreadable, canonical_schema

SCHEMA_FILE = Path(__file__).parents[1] / "schema" / "canonical.v1.json"
GOOD = (
    b'{"record":"posting","account":"1","core_transaction_id":"t1","amount_minor":-1234,"currency":"CNY",'
    b'"booked_on":"2026-01-05"}'
)


def reasons(items):
    return [
        (item.line, item.content.reason, item.content.column)
        for item in items
        if isinstance(item.content, Unreadable)
    ]


def spoilt(**changes):
    return json.dumps(json.loads(GOOD) | changes).encode()


@pytest.mark.parametrize(
    ("line", "reason", "column"),
    [
        (GOOD[: len(GOOD) // 2], "record-truncated", f"byte {len(GOOD) // 2}"),
        (spoilt(amount_minor="12..34"), "amount-malformed", "amount_minor"),
        (spoilt(amount_minor=12.34), "amount-malformed", "amount_minor"),
        (spoilt(amount_minor=None), "amount-malformed", "amount_minor"),
        (spoilt(amount_minor=10**16), "amount-malformed", "amount_minor"),
        (spoilt(booked_on="2026-02-30"), "date-impossible", "booked_on"),
        (spoilt(currency="CNYY"), "currency-unknown", "currency"),
        (spoilt(currency="CNX"), "currency-unknown", "currency"),
        (spoilt(currency="CNY\n"), "currency-unknown", "currency"),
        (spoilt(currency="XAU"), "currency-unknown", "currency"),
        (spoilt(account=""), "field-invalid", "account"),
        (spoilt(leg=-1), "field-invalid", "leg"),
        (spoilt(acount="1"), "field-unknown", None),
        (spoilt(record="payment"), "record-unknown", "record"),
        (b'{"record":"posting","account":"1"}', "field-missing", "core_transaction_id"),
        (b"[]", "record-unknown", None),
        (GOOD.replace(b'"', b"'"), "json-malformed", "byte 2"),
        (GOOD.replace(b'"1"', b'"\xd6\xd0"'), "encoding-wrong", "byte 32"),
        (b"\x00\xff\xfe\x81 x", "record-binary", None),
        (GOOD[:-1] + b',"text":"' + b"x" * LINE_BYTES_MAX + b'"}', "record-oversized", None),
    ],
)
def test_a_broken_line_has_its_reason_and_its_neighbours_do_not_notice(read_all, line, reason, column):
    items = read_all(CanonicalAdapter(), b"\n".join([GOOD] * 100 + [line, GOOD, b"", GOOD]))
    assert reasons(items) == [(101, reason, column)]
    assert sum(isinstance(item.content, Posting) for item in items) == 102


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "file-empty"),
        (b"\r\n \n", "file-empty"),
        ("﻿{}".encode("utf-16"), "encoding-wrong"),
        (bytes(range(256)) * 8, "file-binary"),
        (b"\x1f\x8b\x08\x00" + bytes(300), "file-compressed"),
        (b"PK\x03\x04" + bytes(300), "file-compressed"),
        (b"%PDF-1.7\n" + GOOD, "file-document"),
    ],
)
def test_a_file_that_is_no_text_is_one_entry_and_other_files_go_on(read_all, content, reason):
    items = read_all(CanonicalAdapter(), content, GOOD)
    assert reasons(items) == [(0, reason, None)]
    assert [item.file for item in items] == [0, 1]


def test_a_file_that_stops_inside_a_record_says_so(read_all):
    items = read_all(CanonicalAdapter(), GOOD + b"\n" + GOOD[:40])
    assert "the file stops" in items[1].content.detail


def test_a_detail_never_quotes_what_the_feed_sent(read_all):
    (item,) = read_all(CanonicalAdapter(), spoilt(product="SECRET-6222"))
    assert item.content.reason == "field-invalid"
    assert "SECRET" not in item.content.detail + str(item.content.column)


@pytest.mark.parametrize(
    "line",
    [
        spoilt(product="O'Brien-6222"),
        spoilt(**{"O'Brien-6222": 1}),
        spoilt(**{"6222021234566789`": 1}),
        spoilt(record="O'Brien-6222"),
        spoilt(booked_on="O'Brien-6222"),
        spoilt(account={"O'Brien-6222": 6222}),
        spoilt(currency="6222'O'Brien'6222"),
        b'{"record":"holders","account":"1","holders":[{"O\'Brien-6222":1}]}',
        b'{"record":"holders","account":"1","holders":[{"party":"p","role":"O\'Brien \'6222"}]}',
    ],
)
def test_a_detail_shows_fields_of_the_schema_and_nothing_else(read_all, line):
    (item,) = read_all(CanonicalAdapter(), line)
    shown = f"{item.content.detail} {item.content.column}"
    assert "6222" not in shown
    assert "Brien" not in shown


PAIRS = [
    ("record", '"posting"'),
    ("account", '"a:1"'),
    ("core_transaction_id", '"t1"'),
    ("amount_minor", "-1234"),
    ("currency", '"CNY"'),
    ("booked_on", '"2026-01-05"'),
]
EXTRA = [("leg", "1"), ("leg", "2"), ("text", "null"), ("text", '"x: \\"y\\": z"'), ("text", '"a\\u003ab"')]
EXTRA += [
    ("teller", '"t:t"'),
    ("amount_minor", "1"),
    ("account", '"2"'),
    ("\\u0061ccount", '"3"'),
    ("leg", "1 "),
]


@given(
    st.lists(st.lists(st.sampled_from(EXTRA), max_size=4), min_size=1, max_size=6),
    st.sampled_from([":", " :", ": ", " \t: "]),
    st.randoms(),
)
def test_a_field_that_is_there_twice_is_refused_and_no_other(extras, colon, chance):
    lines, wanted = [], []
    for extra in extras:
        pairs = PAIRS + extra
        chance.shuffle(pairs)
        names = [json.loads(f'"{name}"') for name, _ in pairs]
        lines.append("{" + ",".join(f'"{name}"{colon}{value}' for name, value in pairs) + "}")
        wanted.append("json-duplicate-key" if len(set(names)) < len(names) else None)
    content = "\n".join(lines).encode()
    feed_file = FeedFile("f", len(content), lambda: BytesIO(content))
    items = [item for batch in CanonicalAdapter().read([feed_file]) for item in batch.items]
    assert [getattr(item.content, "reason", None) for item in items] == wanted


def test_a_field_that_is_there_twice_inside_is_refused_too(read_all):
    holders = b'{"record":"holders","account":"1","holders":[{"party":"p","role":"owner"%s},{"party":"q","role":"joint"}]}'
    items = read_all(CanonicalAdapter(), holders % b"" + b"\n" + holders % b',"role":"joint"')
    assert [getattr(item.content, "reason", None) for item in items] == [None, "json-duplicate-key"]


postings = st.builds(
    Posting,
    account=st.text(min_size=1, max_size=20),
    core_transaction_id=st.text(min_size=1, max_size=20),
    amount_minor=st.integers(-(10**15), 10**15),
    currency=st.sampled_from(["CNY", "USD", "JPY"]),
    booked_on=st.dates(date(1900, 1, 1), date(2200, 1, 1)),
    leg=st.integers(0, 9),
    text=st.none() | st.text(max_size=40),
    counterparty_name=st.none() | st.text(max_size=10),
)


@given(st.lists(postings, max_size=20), st.integers(1, 64), st.sampled_from([b"\n", b"\r\n"]))
def test_what_is_written_is_read_however_the_bytes_are_cut(written, step, end):
    class Dribble:
        def __init__(self, content: bytes) -> None:
            self.content, self.at = content, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, _: int) -> bytes:
            piece = self.content[self.at : self.at + step]
            self.at += step
            return piece

    content = b"".join(msgspec.json.encode(record) + end for record in written)
    feed_file = FeedFile("f", len(content), lambda: Dribble(content))
    items = [item for batch in CanonicalAdapter().read([feed_file]) for item in batch.items]
    if content:
        assert [item.content for item in items] == written


def test_the_published_schema_is_the_one_that_is_read():
    published = json.loads(SCHEMA_FILE.read_text())
    assert published == canonical_schema(), "write it again with: crm schema, or see CONTRIBUTING"


@given(postings)
def test_a_record_of_ours_is_valid_by_the_published_schema(posting):
    validator = jsonschema_rs.validator_for(canonical_schema())
    assert validator.is_valid(json.loads(msgspec.json.encode(posting)))


@pytest.mark.requirement("D07")
@pytest.mark.parametrize("changes", [{"amount_minor": "12..34"}, {"account": ""}, {"acount": 1}, {"leg": -1}])
def test_the_published_schema_refuses_what_is_quarantined(changes):
    assert not jsonschema_rs.validator_for(canonical_schema()).is_valid(json.loads(spoilt(**changes)))


def test_every_kind_of_record_has_its_tag():
    tags = {kind.__struct_config__.tag for kind in AnyRecord.__args__}
    assert tags == {
        "posting",
        "party",
        "account",
        "account-closed",
        "holder",
        "holders",
        "card",
        "loan",
        "standing-order",
        "control",
    }
