"""A golden feed gives the golden events (D03), field by field, whatever changes in between."""

import io
import json
import re
from pathlib import Path

import msgspec
import pytest
from sync_ingest.domain.identities import feed_id
from sync_ingest.ledger import CATALOGUE, STORE
from sync_ingest.runs.results import FeedContent

GOLDEN = Path(__file__).parent / "golden"
SOURCE = "golden"
VARYING = frozenset({"digest", "received_at"})
"""A digest is under a key that is drawn by chance."""
KEYED = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[58][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""So is an id of an external id: it is told by the order in which it is met."""


def told(ingest, after):
    """Everything that the store holds of the source behind a position, opened, in order."""
    recorder, keys = ingest.ledger._recorder, ingest.ledger._keys
    found = []
    while page := recorder.read_after(after):
        after = page[-1].position
        opened = CATALOGUE.open_all(page, keys.keys_for([one.stream_id for one in page], create=False))
        found += [one for one in opened if one.event.source == SOURCE]
    return [
        {
            "stream": "feed" if one.stream_id == feed_id(SOURCE) else str(one.stream_id),
            "version": one.version,
            "name": one.name,
            "effective_at": one.metadata.effective_at.isoformat() if "posting" in one.name else None,
            "data": {
                field: value
                for field, value in msgspec.to_builtins(one.event).items()
                if field not in VARYING
            },
        }
        for one in found
    ]


@pytest.mark.requirement("D03")
def test_the_golden_feed_gives_the_golden_events(ingest):
    assert STORE == "ingest"
    content = (GOLDEN / "feed.jsonl").read_bytes()
    before = ingest.ledger.head_position()
    ingest.run(SOURCE, [FeedContent("feed.jsonl", lambda: io.BytesIO(content))], format="canonical")
    expected = (GOLDEN / "events.ndjson").read_text(encoding="utf-8").splitlines()
    met: dict[str, str] = {}
    found = "\n".join(json.dumps(line, ensure_ascii=False) for line in told(ingest, before))
    assert KEYED.sub(lambda id: met.setdefault(id[0], f"id-{len(met) + 1}"), found).splitlines() == expected
