"""Our recorder behind the interface of the `eventsourcing` library.

This module is the library's persistence module for our stores (`PERSISTENCE_MODULE`): `application` opens
a context's store as an application of the library, and readers of the log other than the relay use its
notification log. The library's published test cases test the recorder. The library counts versions from
any number, so the recorder allows gaps in versions here.
"""

from collections.abc import Callable, Sequence
from queue import LifoQueue
from threading import Thread
from typing import Any, Final, TypeVar
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    OperationalError,
    ProcessRecorder,
    StoredEvent,
    Subscription,
)
from psycopg import sql
from typing_extensions import override

from chassis.connections.transient import StoreUnavailable
from chassis.write import events
from chassis.write.store.items import IdentityConflict, VersionConflict
from chassis.write.store.recorder import Recorder
from chassis.write.store.schema import channel

CONNECTIONS_MAX: Final = 12
CONNECTION_WAIT_SECONDS_MAX: Final = 30.0
APPLICATION_CONNECTIONS_MAX: Final = 2
SECTION_EVENTS_MAX: Final = 1_000
LISTEN_SECONDS: Final = 0.1

T = TypeVar("T")


class OneRoundTripRecorder(ApplicationRecorder):
    """Stores and selects through `Recorder`. Threads share it and take connections from a bounded pool."""

    def __init__(
        self, url: str, schema: str, connections_max: int = CONNECTIONS_MAX, *, as_login: bool = False
    ) -> None:
        super().__init__()
        self.channel = channel(schema)
        self.listener = Recorder(url, schema, as_login=as_login)
        self._table = sql.Identifier(schema, "events")
        self._closed = False
        self._idle: LifoQueue[Recorder] = LifoQueue(maxsize=connections_max)
        for _ in range(connections_max):
            self._idle.put_nowait(Recorder(url, schema, as_login=as_login))

    def close(self) -> None:
        """Closes the connections. A connection that a thread still uses is closed when the thread returns it."""
        self._closed = True
        self.listener.close()
        while not self._idle.empty():
            self._idle.get_nowait().close()

    @override
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        ours = [
            events.StoredEvent(_uuid(one.originator_id), one.originator_version, one.topic, one.state)
            for one in stored_events
        ]
        try:
            return self._with(lambda recorder: recorder.append_bulk(ours, dense=False))
        except (VersionConflict, IdentityConflict) as error:
            raise IntegrityError(str(error)) from error

    @override
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        order = "desc" if desc else "asc"
        rows = self._select(
            "select stream_id, version, name, body from {t} where stream_id = %s and (%s::int is null or version > %s)"
            f" and (%s::int is null or version <= %s) order by version {order} limit %s",
            (_uuid(originator_id), gt, gt, lte, lte, limit),
        )
        return [StoredEvent(*row) for row in rows]

    @override
    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = (start or 0) - 1 if inclusive_of_start else (start or 0)
        rows = self._select(
            "select stream_id, version, name, body, position from {t} where position > %s"
            " and (%s::bigint is null or position <= %s) and (%s or name = any(%s)) order by position limit %s",
            (after, stop, stop, not topics, list(topics), limit),
        )
        return [Notification(*row) for row in rows]

    @override
    def max_notification_id(self) -> int | None:
        return self._with(lambda recorder: recorder.head_position()) or None

    @override
    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        return _Following(self, gt, topics)

    def _select(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        composed = sql.SQL(statement).format(t=self._table)  # type: ignore[arg-type, unused-ignore]
        return self._with(
            lambda recorder: recorder.connection().execute(composed, parameters, binary=True).fetchall()
        )

    def _with(self, use: Callable[[Recorder], T]) -> T:
        recorder = self._idle.get(timeout=CONNECTION_WAIT_SECONDS_MAX)
        try:
            return use(recorder)
        except StoreUnavailable as error:
            raise OperationalError(str(error)) from error
        finally:
            self._idle.put_nowait(recorder)
            if self._closed:
                self.close()


class _Following(ListenNotifySubscription[ApplicationRecorder]):
    """Pulls when the store notifies that events were stored."""

    def __init__(self, recorder: OneRoundTripRecorder, gt: int | None, topics: Sequence[str]) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._ours = recorder
        self._listening = Thread(target=self._listen)
        self._listening.start()

    @override
    def __exit__(self, *args: object, **kwargs: Any) -> None:
        try:
            super().__exit__(*args, **kwargs)
        finally:
            self._listening.join()

    def _listen(self) -> None:
        try:
            connection = self._ours.listener.connection()
            connection.execute(sql.SQL("listen {}").format(sql.Identifier(self._ours.channel)))
            while not self._has_been_stopped and self._thread_error is None:
                for _ in connection.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                    self._has_been_notified.set()
        except Exception as error:  # noqa: BLE001 (raised to whoever iterates)
            self._thread_error = self._thread_error or error
            self.stop()


class Factory(InfrastructureFactory[Any]):
    """The library's factory: our recorder on the store that `STORE_URL` and `STORE_SCHEMA` name."""

    @override
    def application_recorder(self) -> OneRoundTripRecorder:
        return OneRoundTripRecorder(
            self.env["STORE_URL"],
            self.env["STORE_SCHEMA"],
            APPLICATION_CONNECTIONS_MAX,
            as_login=self.env.get("STORE_AS_LOGIN", "") == "yes",
        )

    @override
    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        if purpose != "events":
            raise NotImplementedError(f"{purpose}: they are kept sealed, by chassis.write.snapshots")
        return self.application_recorder()

    @override
    def tracking_recorder(self, tracking_recorder_class: Any = None) -> Any:
        raise NotImplementedError("how far a reader is stands beside its documents")

    @override
    def process_recorder(self) -> ProcessRecorder:
        raise NotImplementedError("a context is written by its command handler and by ingest")


class StoreApplication(Application[UUID]):
    """A context's store as an application of the library, for readers of the log other than the relay."""

    log_section_size = SECTION_EVENTS_MAX

    def read_after(self, position: int, limit: int) -> list[events.StoredEvent]:
        """Events beyond `position` in order, at most `SECTION_EVENTS_MAX`, from the library's notification
        log."""
        section = self.notification_log.select(position, limit, inclusive_of_start=False)
        return [
            events.StoredEvent(
                _uuid(one.originator_id), one.originator_version, one.topic, one.state, position=one.id
            )
            for one in section
        ]

    def head_position(self) -> int:
        """Position of the last event, 0 in an empty store."""
        return self.recorder.max_notification_id() or 0

    @override
    def close(self) -> None:
        super().close()
        if isinstance(self.recorder, OneRoundTripRecorder):
            self.recorder.close()


def application(url: str, schema: str, *, as_login: bool = False) -> StoreApplication:
    """Opens a context's store through the library; the caller closes it.

    Its calls raise the library's `PersistenceError` where the database does not answer. `as_login`: with the
    rights of the login, to read.
    """
    return StoreApplication(
        {
            "PERSISTENCE_MODULE": __name__,
            "STORE_URL": url,
            "STORE_SCHEMA": schema,
            "STORE_AS_LOGIN": "yes" if as_login else "",
        }
    )


def _uuid(originator_id: UUID | str) -> UUID:
    return originator_id if isinstance(originator_id, UUID) else UUID(originator_id)
