"""Checks that the key database has the keys of all sealed values, and none that an erasure has destroyed. One restored to an
earlier time lacks some, and has others again.

What is sealed under a key that was destroyed by an erasure is as it should be; what is sealed under one
that nobody knows is lost, and looks the same to a reader.
"""

import re
from binascii import a2b_base64
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

import psycopg
from chassis.clock import Clock
from chassis.connections.postgres import connect
from chassis.connections.settings import Settings
from chassis.privacy.key_encryption import KeyEncryptionUnusable
from chassis.privacy.keys import KEYS_ROLE, KeyRing
from chassis.write.events import StoredEvent

from crm_cli.contexts import Context
from crm_cli.verify_report import Report

LOOKED_UP_MAX: Final = 100_000
"""Subjects with a key that are remembered as looked up."""
_TOKEN: Final = re.compile(rb'"k1\.([A-Za-z0-9+/]{22}==)\.')
_KNOWN: Final = (
    "select w.subject, w.key_id from unnest(%s::uuid[], %s::uuid[]) as w(subject, key_id)"
    " where not exists (select 1 from data_keys k where k.key_id = w.key_id)"
    " and not exists (select 1 from purpose_keys k where k.key_id = w.key_id)"
    " and not exists (select 1 from data_keys k where k.subject = w.subject and k.erased_at is not null)"
    " and not exists (select 1 from purpose_keys k where k.subject = w.subject and k.erased_at is not null)"
)
"""Those without a key. An event may hold values of another subject than its own, so a key is looked for by its number. One that
was destroyed without being there bears a number of its own: then the subject says that it is erased."""
DESTROYED_WITHIN_SECONDS: Final = 900.0
"""A policy has destroyed keys so long after the event that erased."""
_LEFT: Final = (
    "select w.subject, w.purpose from unnest(%s::uuid[], %s::text[], %s::timestamptz[]) as w(subject, purpose, at)"
    " where w.at < now() - make_interval(secs => %s) and (exists (select 1 from data_keys k"
    " where w.purpose is null and k.subject = w.subject and k.wrapped is not null) or exists (select 1 from purpose_keys k"
    " where k.subject = w.subject and k.wrapped is not null and k.purpose = coalesce(w.purpose, k.purpose)))"
)


def ring_of_login(settings: Settings, clock: Clock) -> KeyRing | None:
    """The keys; None where this login may not have them. What needs none is checked all the same."""
    try:
        connect(settings.keys_url, role=KEYS_ROLE).close()
        return KeyRing.of(settings, clock.monotonic)
    except (psycopg.Error, KeyEncryptionUnusable, OSError):
        return None


class SealedKeys:
    """Looks up the keys of a log's sealed values, page by page. It reports where it may not read the key
    database."""

    def __init__(self, settings: Settings, context: Context, report: Report) -> None:
        self._url = settings.keys_url
        self._context = context
        self._catalogue = context.catalogue()
        self._report = report
        self._lost: set[UUID] = set()
        self._looked_up: set[tuple[int, bytes]] = set()
        self._connection: psycopg.Connection[Any] | None = None
        with suppress(psycopg.Error):
            self._connection = connect(self._url, role=KEYS_ROLE)
        if self._connection is None:
            report.figures["keys"] = "not looked at: this login may not read the key database"

    def take(self, page: Sequence[StoredEvent]) -> None:
        """Looks up the keys of the next events; raises psycopg.Error."""
        if self._connection is None:
            return
        sealed_under = self._catalogue.sealed_under
        wanted = {(sealed_under(event).int, key) for event in page for key in set(_TOKEN.findall(event.body))}
        self._report.passed("I10", len(wanted))
        self._look_for_erased(self._connection, page)
        unknown = wanted - self._looked_up
        if not unknown:
            return
        if len(self._looked_up) > LOOKED_UP_MAX:
            self._looked_up.clear()
        self._looked_up |= unknown
        subjects = [UUID(int=subject) for subject, _ in unknown]
        keys = [UUID(bytes=a2b_base64(key)) for _, key in unknown]
        for subject, key in self._connection.execute(_KNOWN, (subjects, keys)):
            if subject not in self._lost:
                self._lost.add(subject)
                self._report.broken(
                    "I10", f"{self._context.name}: the key {key} of {subject} is lost, and was not destroyed"
                )

    def _look_for_erased(self, connection: "psycopg.Connection[Any]", page: Sequence[StoredEvent]) -> None:
        erased = [
            (subject, erasure.purpose, self._catalogue.metadata_of(event).recorded_at)
            for event in page
            if (erasure := self._context.erases(event)) is not None
            for subject in erasure.subjects
        ]
        if not erased:
            return
        self._report.passed("I10", len(erased))
        for subject, purpose in connection.execute(
            _LEFT, (*map(list, zip(*erased, strict=True)), DESTROYED_WITHIN_SECONDS)
        ):
            which = "a key" if purpose is None else f"the key for {purpose}"
            self._report.broken(
                "I10", f"{self._context.name}: {subject} is erased, and {which} of it is there"
            )

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
