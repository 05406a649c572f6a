"""The sources of a panorama: how far each is booked, when it was last received, and whether it is stale."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from customer.panorama.schema import SourceShown, Status

STALE_AFTER_SECONDS: Final = 30 * 60
"""The schedule of a source whose certificates state none."""
STALE_AFTER_TIMES: Final = 2
"""A source is stale once it has been silent for this many times its interval."""


@dataclass(slots=True)
class ReceivedSource:
    """The date up to which a source is booked, when it was last received, and how long ago that is."""

    booked_through: str | None = None
    received_at: str = ""
    status: Status | None = None
    certificate: str | None = None
    reasons: list[str] = field(default_factory=list)
    expected_every_seconds: int | None = None
    certified_at: str | None = None
    freshness_seconds: int = 0
    stale: bool = False

    def receive(self, booked_through: str | None, at: str) -> None:
        """Takes in that something was received at an instant, and booked up to a day."""
        if booked_through is not None and (
            self.booked_through is None or booked_through > self.booked_through
        ):
            self.booked_through = booked_through
        self.received_at = max(self.received_at, at)


def last_received(
    accounts: Sequence[Mapping[str, Any]],
    sources: Iterable[Mapping[str, Any]],
    now: datetime,
    stale_after_seconds: int,
) -> dict[str, ReceivedSource]:
    """The sources of these accounts by name; `sources` are the documents of their last certificates."""
    received: dict[str, ReceivedSource] = {}
    for account in accounts:
        found = received.get(account["source"]) or received.setdefault(account["source"], ReceivedSource())
        found.receive(account["booked_through"], account["changed_at"])
    for source in sources:
        known = received.get(source["source"])
        if known is not None:
            known.receive(source["booked_through"], source.get("heard_at") or source["certified_at"])
            known.status, known.certificate = source["status"], source["certificate"]
            known.certified_at = source["certified_at"]
            known.reasons = source.get("reasons") or []
            known.expected_every_seconds = source.get("expected_every_seconds")
    for known in received.values():
        known.freshness_seconds = _seconds_since(known.received_at, now)
        every_seconds = known.expected_every_seconds
        bound_seconds = stale_after_seconds if every_seconds is None else STALE_AFTER_TIMES * every_seconds
        known.stale = known.freshness_seconds > bound_seconds
    return received


def source_shown(name: str, source: ReceivedSource) -> SourceShown:
    """A source as a panorama returns it."""
    return {
        "source": name,
        "booked_through": source.booked_through,
        "heard_at": source.received_at,
        "freshness_seconds": source.freshness_seconds,
        "stale": source.stale,
        "certificate": source.certificate,
        "status": source.status,
        "reasons": source.reasons,
        "certified_at": source.certified_at,
    }


def all_booked_through(sources: Collection[str], received: Mapping[str, ReceivedSource]) -> str | None:
    """The day up to which all of these sources are booked; None where one of them has booked nothing."""
    through = [received[source].booked_through for source in sources]
    known = [day for day in through if day is not None]
    return min(known) if known and len(known) == len(through) else None


def _seconds_since(instant: str, now: datetime) -> int:
    return max(0, int((now - datetime.fromisoformat(instant)).total_seconds()))
