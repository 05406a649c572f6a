"""Any postings, cut into files in any way, sent in any order, again, and read by other mappings, are the same ledger.

The model is a page of its own: with ids a posting is its id; without, a file of parts brings what it holds, once.
"""

import io
from collections import Counter
from datetime import date
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sync_ingest.ledger import CATALOGUE
from sync_ingest.runs.results import FeedContent

_EXAMPLES = count(1)
ACCOUNTS, DAYS, AMOUNTS = ("A", "B"), (date(2026, 3, 2), date(2026, 3, 3)), (-100, 100, 250)
HEADER = "id,account,date,amount,reverses,text,balance,teller\n"
PLAIN = """
currency = "CNY"
decimal_mark = "."
{covers}
[columns]
{ids}
account = "account"
booked_on = "date"
amount = "amount"
"""
READINGS = ("", 'text = "text"\n', 'text = "text"\nbalance_after = "balance"\n', 'teller = "teller"\n')

money = st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(DAYS), st.sampled_from(AMOUNTS))


def mapping(covers, ids, reading):
    stated = f'covers = "{covers}"' if covers else ""
    named = 'core_transaction_id = "id"\nreverses = "reverses"' if ids else ""
    return PLAIN.format(covers=stated, ids=named) + READINGS[reading]


def row(posting, identity="", reverses="", teller=0):
    account, day, amount = posting
    sign = "-" if amount < 0 else ""
    printed = f"{sign}{abs(amount) // 100}.{abs(amount) % 100:02d}"
    return f"{identity},{account},{day},{printed},{reverses},text {teller},{teller}.00,T{teller}\n"


def send(ingest, source, files, toml):
    """Sends files, each the rows of a file, in one run."""
    contents = [
        FeedContent(f"file-{at}", lambda rows=rows: io.BytesIO((HEADER + "".join(rows)).encode()))
        for at, rows in enumerate(files)
        if rows
    ]
    if not contents:
        return 0
    found = ingest.run(source, contents, format="csv", mapping=toml).findings
    assert found.records == found.posted + found.duplicates + found.quarantined
    return found.posted


def ledger(ingest, source):
    """What is booked: account, day and amount of every posting, and how many reverse another one."""
    found, reversals = Counter(), 0
    for account in ACCOUNTS:
        stream = ingest.ids.account(source, account)
        keys = ingest.ledger._keys.keys_for([stream], create=False)
        for one in CATALOGUE.open_all(ingest.ledger._recorder.read_stream(stream), keys):
            if hasattr(one.event, "posting_id"):
                found[account, one.event.booked_on, one.event.amount_minor] += 1
                reversals += hasattr(one.event, "reverses")
    return found, reversals


def cut(draw, rows):
    """The rows in files, in any way and order."""
    files = [[] for _ in range(draw(st.integers(1, 4)))]
    for each in draw(st.permutations(rows)):
        files[draw(st.integers(0, len(files) - 1))].append(each)
    return [file for file in files if file]


several = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@several
@given(data=st.data(), postings=st.lists(money, min_size=1, max_size=8))
def test_with_ids_however_they_are_cut_shuffled_resent_and_mapped(ingest, data, postings):
    """Reversals among them: before their originals, in other files, and of each posting at most one."""
    draw, source = data.draw, f"ids-{next(_EXAMPLES)}"
    rows = [row(posting, f"t{at}") for at, posting in enumerate(postings)]
    back = [(account, DAYS[1], -amount) for account, _, amount in postings]
    undone = draw(st.sets(st.integers(0, len(postings) - 1)))
    rows += [row(back[at], f"r{at}", f"t{at}") for at in undone]
    expected = Counter(postings) + Counter(back[at] for at in undone)
    for again in (False, True):
        for file in cut(draw, rows):
            told = [each.replace("text 0", f"text {draw(st.integers(0, 2))}") for each in file]
            posted = send(ingest, source, [told], mapping(None, True, draw(st.integers(0, 3))))
            assert not (again and posted)
    assert ledger(ingest, source) == (expected, len(undone))
    assert ingest.archive.quarantine.waiting(source) == 0


@several
@given(data=st.data(), postings=st.lists(money, min_size=1, max_size=8))
def test_parts_without_ids_however_they_are_cut_resent_and_mapped(ingest, data, postings):
    draw, source = data.draw, f"parts-{next(_EXAMPLES)}"
    files = cut(draw, [row(posting) for posting in postings])
    # No two files are the same bytes: a source that sends the same bytes again says the same again.
    files = [[each.replace("T0", f"T{at + 1}") for each in file] for at, file in enumerate(files)]
    order = [*draw(st.permutations(files)), *draw(st.lists(st.sampled_from(files), max_size=4))]
    while order:
        some = draw(st.integers(1, len(order)))
        send(ingest, source, order[:some], mapping("parts", False, draw(st.integers(0, 3))))
        order = order[some:]
    assert ledger(ingest, source) == (Counter(postings), 0)
    assert send(ingest, source, files, mapping("parts", False, 0)) == 0


@several
@given(data=st.data(), postings=st.lists(money, min_size=1, max_size=8))
def test_whole_days_without_ids_however_they_overlap_and_are_shuffled_and_mapped(ingest, data, postings):
    draw, source = data.draw, f"days-{next(_EXAMPLES)}"
    for days in [*draw(st.lists(st.sets(st.sampled_from(DAYS), min_size=1), max_size=3)), set(DAYS)]:
        teller = draw(st.integers(0, 2))
        shuffled = draw(st.permutations(postings))
        file = [row(posting, teller=teller) for posting in shuffled if posting[1] in days]
        send(ingest, source, [file], mapping("whole-days", False, draw(st.integers(0, 3))))
    assert ledger(ingest, source) == (Counter(postings), 0)


@pytest.mark.parametrize("seed", range(3))
def test_files_that_were_taken_for_whole_days_are_parts_once_it_is_stated(ingest, seed):
    source = f"stated-{next(_EXAMPLES)}"
    one = ("A", DAYS[0], 100)
    files = [[row(one, teller=at)] * (at + 1) for at in range(seed + 1)]
    for file in files:
        send(ingest, source, [file], mapping(None, False, 0))
    assert ledger(ingest, source)[0] == Counter({one: seed + 1}), "the largest file holds all of them"
    for file in reversed(files):
        send(ingest, source, [file], mapping("parts", False, 1))
    assert ledger(ingest, source)[0] == Counter({one: sum(range(1, seed + 2))})
