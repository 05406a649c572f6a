"""What a stored body may hold and PostgreSQL's own JSON cannot."""

import json
from typing import Any, cast
from uuid import UUID

from chassis.write.events import StoredEvent
from chassis.write.store import Recorder, prepare
from crm_cli import verify_store
from crm_cli.contexts import Context
from crm_cli.verify_report import Report


def test_a_null_character_in_a_text_does_not_end_the_verification(postgres_url: str) -> None:
    schema = "store_nulls"
    prepare(postgres_url, schema)
    recorder = Recorder(postgres_url, schema)
    texts = ["a\x00b", "\x00", "no \\u0000 but these letters", "both \\\x00", "plain"]
    recorder.append_bulk(
        [
            StoredEvent(
                UUID(int=1),
                version,
                "posting-booked",
                json.dumps(
                    {"data": {"posting_id": str(version), "currency": "CNY", "amount_minor": 7, "text": text}}
                ).encode(),
            )
            for version, text in enumerate(texts, 1)
        ]
    )
    recorder.close()
    store = verify_store.Store(
        postgres_url, Context("nulls", schema, cast(Any, None), {}), cast(Report, None)
    )
    try:
        summed = verify_store.SummedByAccount(store, store.head())
        assert summed.up_to(None) == {str(UUID(int=1)): {"CNY": (len(texts), 7 * len(texts))}}
    finally:
        store.close()
