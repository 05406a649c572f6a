"""Other key-encryption keys: data keys and secrets are wrapped again, while the processes that use them go on.

What was sealed stays as it is, because the data keys stay. Each statement is repeatable, so that a rotation that was
interrupted is taken up by the next one. A row is changed only where it still holds what was read: a key that is destroyed
meanwhile stays destroyed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from psycopg.errors import DeadlockDetected, ForeignKeyViolation

from chassis.connections.migrating import require
from chassis.connections.postgres import connect
from chassis.privacy.key_encryption import KeyEncryption, wrapped_and_opened
from chassis.privacy.keys import (
    KEYS,
    KEYS_PER_QUERY,
    KEYS_ROLE,
    KeyEncryptionKeys,
    encryption_place,
    key_place,
    secret_place,
)

STATEMENT_SECONDS_MAX: Final = 120.0
ROUNDS_MAX: Final = 100
"""How often what was stored meanwhile is wrapped again."""
_LOCK: Final = 0x6B65_6B72
"""Advisory: one rotation at a time."""
_TABLES: Final[tuple[LiteralString, ...]] = ("data_keys", "purpose_keys")
"""Where data keys lie. Both have the same columns, but for the purpose."""
_ALL: Final[LiteralString] = (
    "(select wrapped, encryption from data_keys union all select wrapped, encryption from purpose_keys)"
)
T = TypeVar("T")


class RotationRuns(Exception):
    """Another rotation of this key database runs."""


class RotationDisturbed(Exception):
    """Others went on storing under the key-encryption keys before. The next rotation ends this one."""


class RootKeyWraps(Exception):
    """Data keys are wrapped by the root key itself: it can be replaced after a rotation."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """The number of the key-encryption key that wraps everything now, and how many rows were wrapped again."""

    number: int
    data_keys: int
    secrets: int
    resumed: bool


@dataclass(frozen=True, slots=True)
class Wrapping:
    """How many rows each key-encryption key wraps; `number` is None for the root key."""

    number: int | None
    data_keys: int
    secrets: int


def wrappings(url: str) -> list[Wrapping]:
    """What wraps what, the root key first."""
    rows = (
        f"select number, (select count(*) from {_ALL} d where d.encryption is not distinct from k.number"
        " and d.wrapped is not null), (select count(*) from secrets s where s.encryption is not distinct from k.number)"
        " from (select null::integer as number union all select number from key_encryption_keys) k"
        " order by number nulls first"
    )
    return _connected(url, lambda connection: [Wrapping(*row) for row in connection.execute(rows)])


def rotate(url: str, root: KeyEncryption, *, rows_per_statement: int = KEYS_PER_QUERY) -> Rotated:
    """Makes a key-encryption key, wraps everything by it, and destroys the ones before.

    Where a rotation was interrupted, it ends that one. Raises RotationRuns, RotationDisturbed, WrongKeyEncryption, and what
    PostgreSQL and the root key raise.
    """

    def run(connection: "psycopg.Connection[Any]") -> Rotated:
        encryptions = KeyEncryptionKeys(root)
        newest = encryptions.newest(connection)
        encryptions.of(
            connection, newest
        )  # another root key must not make one that the right one cannot open
        resumed = newest is not None and _left(connection, newest)
        number = newest if newest is not None and resumed else (newest or 0) + 1
        encryptions.make(connection, number)
        data_keys = secrets = 0
        for _ in range(ROUNDS_MAX):
            try:
                # A process that read the newest number before may store under the one before once more.
                for table in _TABLES:
                    connection.execute(
                        f"update {table} set encryption = null where wrapped is null and encryption is not null"
                    )
                    for many in _data_keys(connection, encryptions, table, number, rows_per_statement):
                        data_keys += many
                secrets += _secrets(connection, encryptions, number)
                connection.execute("delete from key_encryption_keys where number < %s", (number,))
            except (ForeignKeyViolation, DeadlockDetected):  # with who makes or destroys keys
                continue
            return Rotated(number, data_keys, secrets, resumed)
        raise RotationDisturbed(number)

    return _alone(url, run)


def replace_root_key(url: str, root: KeyEncryption, new: KeyEncryption) -> int:
    """Wraps the key-encryption keys by another root key, all or none; returns how many. The other one has opened each again.

    Raises RootKeyWraps, RotationRuns, WrongKeyEncryption, and what PostgreSQL and the root keys raise.
    """

    def run(connection: "psycopg.Connection[Any]") -> int:
        with connection.transaction():
            if _wrapped_by_root(connection):
                raise RootKeyWraps
            rows = connection.execute(
                "select number, wrapped from key_encryption_keys for update", binary=True
            ).fetchall()
            for number, wrapped in rows:
                place = encryption_place(number)
                again = wrapped_and_opened(new, root.unwrap(wrapped, place), place)
                connection.execute(
                    "update key_encryption_keys set wrapped = %s where number = %s", (again, number)
                )
        return len(rows)

    return _alone(url, run)


def _data_keys(
    connection: "psycopg.Connection[Any]",
    encryptions: KeyEncryptionKeys,
    table: LiteralString,
    number: int,
    many: int,
) -> Iterator[int]:
    """Wraps the data keys again; how many, for each statement."""
    select = (
        f"select subject, key_id, wrapped, encryption from {table}"
        " where wrapped is not null and encryption is distinct from %s order by subject limit %s"
    )
    update = (
        f"update {table} d set wrapped = n.wrapped, encryption = %s"
        " from unnest(%s::uuid[], %s::bytea[], %s::bytea[]) as n (key_id, before, wrapped)"
        " where d.key_id = n.key_id and d.wrapped = n.before"
    )
    to = encryptions.of(connection, number)
    while rows := connection.execute(select, (number, many), binary=True).fetchall():
        keys, before, after = [], [], []
        for subject, key_id, wrapped, old in rows:
            place = key_place(subject, key_id)
            keys.append(key_id)
            before.append(wrapped)
            after.append(to.wrap(encryptions.of(connection, old).unwrap(wrapped, place), place))
        yield connection.execute(update, (number, keys, before, after)).rowcount


def _secrets(connection: "psycopg.Connection[Any]", encryptions: KeyEncryptionKeys, number: int) -> int:
    rows = connection.execute(
        "select purpose, wrapped, encryption from secrets where encryption is distinct from %s",
        (number,),
        binary=True,
    ).fetchall()
    to = encryptions.of(connection, number)
    for purpose, wrapped, old in rows:
        place = secret_place(purpose)
        again = to.wrap(encryptions.of(connection, old).unwrap(wrapped, place), place)
        connection.execute(
            "update secrets set wrapped = %s, encryption = %s where purpose = %s and wrapped = %s",
            (again, number, purpose, wrapped),
        )
    return len(rows)


def _left(connection: "psycopg.Connection[Any]", number: int) -> bool:
    """Whether something is wrapped by another key than this one, or another one is there."""
    (left,) = connection.execute(
        "select exists (select 1 from key_encryption_keys where number < %(n)s)"
        f" or exists (select 1 from {_ALL} d where wrapped is not null and encryption is distinct from %(n)s)"
        " or exists (select 1 from secrets where encryption is distinct from %(n)s)",
        {"n": number},
    ).fetchone() or (False,)
    return bool(left)


def _wrapped_by_root(connection: "psycopg.Connection[Any]") -> bool:
    (found,) = connection.execute(
        f"select exists (select 1 from {_ALL} d where wrapped is not null and encryption is null)"
        " or exists (select 1 from secrets where encryption is null)"
    ).fetchone() or (False,)
    return bool(found)


def _alone(url: str, run: "Callable[[psycopg.Connection[Any]], T]") -> T:
    def locked(connection: "psycopg.Connection[Any]") -> T:
        (alone,) = connection.execute("select pg_try_advisory_lock(%s)", (_LOCK,)).fetchone() or (False,)
        if not alone:
            raise RotationRuns
        return run(connection)

    return _connected(url, locked)


def _connected(url: str, run: "Callable[[psycopg.Connection[Any]], T]") -> T:
    require(url, [KEYS])
    with connect(url, role=KEYS_ROLE, statement_seconds=STATEMENT_SECONDS_MAX) as connection:
        return run(connection)
