"""A row of totals in a bank's file is a control total of the run."""

import io

from sync_ingest.runs.results import FeedContent

MAPPING = """
account = "1"
currency = "CNY"
[columns]
booked_on = "d"
credit = "c"
debit = "b"
balance_after = "s"
[control]
rows = ["合计"]
credits = "c"
debits = "b"
closing_balance = "s"
"""
ROWS = ["2024-01-02,8.00,0.00,8.00", "2024-01-03,0.00,3.50,4.50", "2024-01-04,1.00,-,5.50"]


def run(ingest, source, rows, total):
    content = "\n".join(["d,c,b,s", *rows, total, ""]).encode()
    feed = [FeedContent("f.csv", lambda: io.BytesIO(content))]
    return ingest.run(source, feed, format="csv", mapping=MAPPING).findings


def test_totals_that_agree_are_no_postings_and_change_nothing(ingest, source):
    findings = run(ingest, source, ROWS, "合计,9.00,-3.50,5.50")
    assert (findings.posted, findings.quarantined) == (3, 0)
    assert findings.status != "RED", findings
