"""Public events as views get them, made by hand."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

START = datetime(2026, 1, 31, 8, tzinfo=UTC)


def dated(instant):
    """The bank's date at an instant."""
    return instant.astimezone(ZoneInfo("Asia/Shanghai")).date()


@dataclass(frozen=True)
class Told:
    type: str
    subject: UUID
    sequence: int
    data: dict[str, Any]
    position: int = 0
    stored_name: str = "stored"
    recorded_at: datetime = START
    stated_at: datetime | None = None

    @property
    def effective_at(self) -> datetime:
        return self.stated_at or self.recorded_at


@dataclass
class Teller:
    """Numbers the events of each subject and of the whole context as a store would."""

    position: int = 0

    def __post_init__(self):
        self.sequences: dict[UUID, int] = {}

    def tell(self, subject, type, **data):
        self.position += 1
        self.sequences[subject] = self.sequences.get(subject, 0) + 1
        at = START + timedelta(seconds=self.position)
        name = type.replace(".", "-").replace("_", "-")
        return Told(type, subject, self.sequences[subject], data, self.position, name, at)

    def reversal(self, of, booked_on, **data):
        """Takes back a posting, as ingest tells it: with what it reverses."""
        back = {
            "reverses": of.data["posting_id"],
            "reversed_kind": of.data.get("kind"),
            "reversed_booked_on": of.data["booked_on"],
            "currency": of.data["currency"],
        }
        return self.posting(of.subject, -of.data["amount_minor"], booked_on, **back | data)

    def posting(self, subject, amount_minor, booked_on="2026-01-05", *, reverses=None, **data):
        fields = {
            "source": "core",
            "posting_id": str(UUID(int=self.position + 1)),
            "core_transaction_id": f"t{self.position + 1}",
            "leg": 1,
            "amount_minor": amount_minor,
            "currency": "CNY",
            "booked_on": booked_on,
            "intake": str(UUID(int=1)),
            "line": self.position + 1,
        }
        if reverses is not None:
            return self.tell(subject, "posting.reversed", **fields | {"reverses": reverses} | data)
        return self.tell(subject, "posting.booked", **fields | data)
