"""What is shown of a record that cannot be read holds nothing of the record: no name, address, quote or number."""

import json
from io import BytesIO

from hypothesis import example, given
from hypothesis import strategies as st
from sync_ingest.adapters.canonical import read_line
from sync_ingest.adapters.delimited import DelimitedAdapter
from sync_ingest.adapters.mapping import MappingFile
from sync_ingest.adapters.port import FeedFile, Line
from sync_ingest.domain.records import Unreadable, masked_file
from sync_ingest.reporting import masked_number

PIECE = 5
"""So many characters of a value that stand together are a leak."""
MAPPING = (
    'currency = "CNY"\n[columns]\naccount = "a"\nbooked_on = "d"\namount = "m"\ntext = "t"\nkind = "k"\n'
)

han = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=2, max_size=12)
digits = st.text("0123456789", min_size=8, max_size=24)
latin = st.text("JQXZjqxz", min_size=5, max_size=12)
quotes = st.sampled_from(["'", '"', "`", "\\", "\n", "\x00", ",", ";", "·", " ", "$.", "[0]", "{", "（"])
values = st.one_of(
    han,
    digits,
    st.tuples(latin, quotes, latin).map("".join),
    st.tuples(han, st.sampled_from(["市", "路", "号", "市朝阳区"]), digits).map("".join),
    st.tuples(quotes, latin, digits, quotes).map("".join),
)
fields = st.sampled_from(
    ["record", "account", "core_transaction_id", "amount_minor", "currency", "booked_on", "leg", "product", "kind",
     "value_on", "text", "counterparty_name", "reverses_leg", "numbered_by", "sequence_number"]
)  # fmt: skip
places = st.sampled_from(
    ["value", "name", "nested", "list", "twice", "cut", "behind", "not utf-8", "outside"]
)


def pieces(value):
    return {value[at : at + PIECE] for at in range(max(1, len(value) - PIECE + 1))}


def assert_nothing_of(value, *shown):
    said = " ".join(str(each) for each in shown if each is not None)
    assert not [piece for piece in pieces(value) if piece.strip() and piece in said], said


def line(value, field, place):
    record = {
        "record": "posting",
        "account": "6222",
        "core_transaction_id": "T1",
        "amount_minor": 1,
        "currency": "CNY",
        "booked_on": "2026-03-02",
    }
    match place:
        case "value":
            record[field] = value
        case "name":
            record[value] = 1
        case "nested":
            record[field] = {value: value}
        case "list":
            record[field] = [value, {value: value}]
        case "outside":
            return json.dumps([value, value], ensure_ascii=False).encode()
    content = json.dumps(record, ensure_ascii=False).encode()
    match place:
        case "twice":
            name = json.dumps(value, ensure_ascii=False).encode()
            return content[:-1] + b"," + name + b":1," + name + b":2}"
        case "cut":
            return content[:-1] + b',"text":"' + value.encode()
        case "behind":
            return content + value.encode()
        case "not utf-8":
            return content[:-1] + b',"text":"' + value.encode() + b'\xff"}'
    return content


@given(values, fields, places)
@example('O\'Hara "7"', "kind", "value")
@example("6222021234560001", "account", "name")
def test_a_canonical_line_that_cannot_be_read_is_told_without_its_values(value, field, place):
    found = read_line(Line(2, line(value, field, place), True, False))
    if isinstance(found, Unreadable):
        assert_nothing_of(value, found.reason, found.detail, found.column)


@given(values, st.integers(0, 4), st.sampled_from(["cell", "bare", "column more", "header", "unclosed"]))
def test_a_delimited_row_that_cannot_be_read_is_told_without_its_values(value, at, place):
    header, row = ["a", "d", "m", "t", "k"], ["6222", "2026-03-02", "1.00", "", ""]
    quoted = '"' + value.replace('"', '""') + '"'
    if place == "header":
        header[at] = quoted
    elif place == "column more":
        row.append(quoted)
    else:
        row[at] = {"cell": quoted, "bare": value, "unclosed": '"' + value}[place]
    content = f"{','.join(header)}\n{','.join(row)}\n".encode()
    feed = FeedFile("feed.csv", len(content), lambda: BytesIO(content))
    for batch in DelimitedAdapter(MappingFile.from_toml(MAPPING)).read([feed]):
        for found in [item.content for item in batch.items if isinstance(item.content, Unreadable)]:
            assert_nothing_of(value, found.reason, found.detail, found.column)


@given(digits.filter(lambda number: len(number) >= 12))
def test_a_masked_account_number_is_not_the_number(number):
    assert number not in masked_number(number)
    assert len(masked_number(number).replace("*", "")) <= 10


@given(values, st.sampled_from(["", ".csv", ".jsonl", ".bak"]))
def test_a_file_is_shown_by_its_ending_alone(value, ending):
    assert_nothing_of(value, masked_file(value + ending))
