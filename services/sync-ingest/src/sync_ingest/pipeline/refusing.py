"""Why a record is quarantined: the reasons that the pipeline itself gives."""

from typing import Final, cast
from uuid import UUID

import msgspec

from sync_ingest.adapters.port import Item
from sync_ingest.domain.records import FIRST_DAY, LAST_DAY, AnyRecord, MasterRecord, Posting, Unreadable
from sync_ingest.pipeline.run import Quarantined, Run

SUMS: Final = "a balance or a turnover would be beyond what every reader holds exactly"
DAYS: Final = f"not between {FIRST_DAY} and {LAST_DAY}"
_HIDDEN: Final = "a character that cannot be seen, or a blank at an end of a code or number"


def refused(item: Item, reason: str, detail: str) -> Quarantined:
    """The record with a reason (a stable code) and a detail; its bytes are kept as they came where it has any."""
    content = item.content
    raw = content.raw if isinstance(content, Unreadable) else raw_of(content)
    kind = content.kind if isinstance(content, Unreadable) else content.__struct_config__.tag
    return Quarantined(item, Unreadable(reason, detail, raw, kind=str(kind) if kind else None))


def hidden(item: Item, column: str) -> Quarantined:
    """A code, name or number has a character that cannot be seen."""
    content = cast("Posting | MasterRecord", item.content)
    return Quarantined(item, Unreadable("character-invisible", _HIDDEN, raw_of(content), column))


def conflict(item: Item) -> Quarantined:
    """The identity of a posting is taken by other money."""
    detail = "the same transaction and leg with another amount, currency or booking date"
    return refused(item, "identity-conflict", detail)


def surplus_control(item: Item, controls_max: int) -> Quarantined:
    """A control record beyond the bound of its file: nothing is compared with it."""
    return refused(item, "control-records-too-many", f"a file has at most {controls_max} control records")


def orphan(run: Run, item: Item) -> Quarantined:
    """A reversal whose original is not stored."""
    detail = "it reverses a posting that is not there; it is booked when that one comes"
    found = refused(item, "reversal-without-original", detail)
    found.awaited = original_of(run, cast("Posting", item.content))
    return found


def unfit(run: Run, item: Item) -> Quarantined:
    """Why a posting that is not there yet cannot come from an intake that a certificate covers."""
    if isinstance(item.content, Posting) and item.content.reverses is not None:
        return orphan(run, item)
    return refused(item, "intake-certified", "its intake is certified without it: release its entry")


def original_of(run: Run, posting: Posting) -> UUID:
    """Identity of the posting that a reversal names: on its own account and leg unless it says otherwise."""
    account = posting.reverses_account or posting.account
    leg = posting.leg if posting.reverses_leg is None else posting.reverses_leg
    return run.ids.posting(run.source, account, posting.reverses or "", leg)


def raw_of(record: AnyRecord) -> bytes:
    """A record as a canonical line."""
    return msgspec.json.encode(record)
