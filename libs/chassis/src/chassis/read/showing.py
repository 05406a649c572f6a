"""Opens sealed values of documents for a response and masks them at once.

    keys = await keys_of(ring, subjects)
    keys.masked(document["note"], masked_text, context=CONTEXT, subject=subject, field="note")

A value whose key was destroyed is shown as `***`.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from chassis.clock import SystemClock
from chassis.privacy.aging import AgedCache
from chassis.privacy.keys import KEYS_CACHED_SECONDS, DataKey, KeyRing, Origin, open_value
from chassis.privacy.masking import Mask
from chassis.read.documents import open_sealed

MASKED_CACHED_MAX: Final = 65_536
"""Masked values are cached by key and place, no longer than keys are. A value without a key is not looked up."""


_masked: Final[AgedCache[tuple[int, Mask, str, str, int, str, str], str]] = AgedCache(
    MASKED_CACHED_MAX, KEYS_CACHED_SECONDS, SystemClock().monotonic
)


class Keys:
    """The keys of the subjects of one response, by the integers of their ids: a UUID computes its hash in
    Python each time."""

    def __init__(self, found: Mapping[int, DataKey]) -> None:
        self._found = found

    def masked(
        self, value: Mapping[str, Any] | None, mask: Mask, *, context: str, subject: UUID, field: str
    ) -> str | None:
        """A sealed value as it may be shown."""
        if value is None:
            return None
        keys = self._found.get(subject.int)
        key = None if keys is None else keys.opening(value["t"])
        if key is None:
            return mask(open_sealed(value, None, context=context, subject=subject, field=field))
        place = (key.id.int, mask, context, field, value["v"], value["n"], value["t"])
        known = _masked.get(place)
        if known is None:
            known = mask(open_sealed(value, key, context=context, subject=subject, field=field))
            if known is not None:
                _masked.put(place, known)
        return known

    def opened(
        self, value: Mapping[str, Any] | None, *, context: str, subject: UUID, field: str
    ) -> str | None:
        """A sealed value in clear, only to compare it with another; never for a response."""
        return open_sealed(value, self._found.get(subject.int), context=context, subject=subject, field=field)

    def masked_token(self, token: str | None, mask: Mask, *, origin: Origin, field: str) -> str | None:
        """As `masked`, for a token of the event at `origin`."""
        return mask(open_value(self._found.get(origin.stream_id.int), origin, field, token))


async def keys_of(ring: KeyRing, subjects: Iterable[UUID]) -> Keys:
    """The keys of these subjects. Only keys that are not cached are read from the database, in a thread."""
    found: dict[int, DataKey] = {}
    missing: list[UUID] = []
    wanted = list(subjects)
    for subject, key in zip(wanted, ring.all_cached(wanted), strict=True):
        if key is None:
            missing.append(subject)
        else:
            found[subject.int] = key
    if missing:
        loaded = await asyncio.to_thread(ring.keys_for, missing, create=False)
        found |= {subject.int: key for subject, key in loaded.items()}
    return Keys(found)
