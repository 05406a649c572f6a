"""Personal data: one key per subject and purpose, values sealed one by one, erasure by destroying keys.

Data keys are random, wrapped by a key-encryption key, and live in a database of their own, so that neither
a copy of the event store nor a copy of the key database alone shows anything. Sealing is AES-256-GCM with
the place of the value as associated data: a token moved to another field, event, stream or store does not
open.
"""

import os
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Lock
from typing import Any, Final, LiteralString, NamedTuple, TypeVar, cast
from uuid import UUID

import psycopg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg.errors import ForeignKeyViolation
from typing_extensions import override

from chassis.connections.migrating import Tables, require
from chassis.connections.postgres import connect
from chassis.connections.settings import Settings
from chassis.connections.transient import DATABASE_LOST, Transient
from chassis.privacy.aging import AgedCache
from chassis.privacy.key_encryption import (
    KEY_BYTES,
    AesKeyEncryption,
    KeyEncryption,
    KeyEncryptionGone,
    Tampered,
    wrapped_and_opened,
)
from chassis.privacy.personal import TRANSACTION
from chassis.privacy.root_key import root_key

ERASED: Final = "***"
"""The text that a reader sees where the key is gone."""
SEALED_PREFIX: Final = "k1."
KEYS_CACHED_MAX: Final = 20_000
"""A key that is ready to use takes 3 KB, most of it inside OpenSSL."""
STATEMENT_SECONDS_MAX: Final = 5.0
"""The limit of one statement of the key database; requests wait for it."""
TURN_SECONDS_MAX: Final = 20.0
"""How long a thread waits while others ask the key database."""
KEYS_CACHED_SECONDS: Final = 60.0
"""How long a key that was destroyed elsewhere may still open values in this process."""
KEYS_PER_QUERY: Final = 5_000
ROTATED_MEANWHILE_MAX: Final = 5
"""How often rows are asked for, or stored, again because a rotation has ended in between."""
T = TypeVar("T")
_NONCE_BYTES: Final = 12


class SecretMissing(Transient):
    """The key database holds no secret for a purpose."""


class DataKey:
    """The key of one subject, ready to use.

    `parts` are its keys for purposes other than `TRANSACTION`; None for one that was destroyed. A subject whose key was
    made without a part never gets it: this key seals and opens its values of that purpose too.
    """

    __slots__ = ("_cipher", "_derived", "_whole", "head", "id", "material", "parts", "subject", "suffix")

    def __init__(
        self,
        subject: UUID,
        key_id: UUID,
        material: bytes,
        parts: "Mapping[str, DataKey | None] | None" = None,
    ) -> None:
        self.subject = subject
        self.id = key_id
        self.head = f"{SEALED_PREFIX}{b2a_base64(key_id.bytes, newline=False).decode('ascii')}."
        self.suffix = f"|{key_id.hex}"
        self._cipher: AESGCM | None = None
        self.material = material
        self.parts = parts
        self._derived: dict[str, bytes] = {}
        self._whole: DataKey | None = None

    @property
    def cipher(self) -> AESGCM:
        """What seals and opens. Of the keys of a subject that are loaded, most are not used: it is made when it is."""
        if self._cipher is None:
            self._cipher = AESGCM(self.material)
        return self._cipher

    def of(self, purpose: str) -> "DataKey | None":
        """The key that seals values of this purpose; None where it was destroyed."""
        return self if self.parts is None else self.parts.get(purpose, self)

    def opening(self, token: str) -> "DataKey | None":
        """The one of the subject's keys that a token was sealed under; None where it is none of them."""
        if token.startswith(self.head):
            return self
        for part in (self.parts or {}).values():
            if part is not None and token.startswith(part.head):
                return part
        return None

    @property
    def whole(self) -> "DataKey":
        """The key for what holds values of all purposes: a snapshot, a digest of a command.

        It follows from all keys of the subject. Where one of them is destroyed it is another one, and opens nothing of before.
        """
        if not self.parts:
            return self
        if self._whole is None:
            parts = [self.parts[purpose] for purpose in sorted(self.parts)]
            ids = b"".join(b"destroyed" if part is None else part.id.bytes for part in (self, *parts))
            materials = b"".join(b"" if part is None else part.material for part in (self, *parts))
            material = blake2b(materials, digest_size=KEY_BYTES).digest()
            self._whole = DataKey(self.subject, UUID(bytes=blake2b(ids, digest_size=16).digest()), material)
        return self._whole

    def derived(self, purpose: str) -> bytes:
        """As `derive`, cached; for the few purposes that the code names."""
        secret = self._derived.get(purpose)
        if secret is None:
            secret = self._derived[purpose] = self.derive(purpose)
        return secret

    def derive(self, purpose: str) -> bytes:
        """A secret for another purpose (a digest, a blind index) that dies with this key."""
        return blake2b(purpose.encode(), key=self.material, digest_size=32).digest()

    @override
    def __repr__(self) -> str:
        return f"DataKey(subject={self.subject}, id={self.id})"


class Origin(NamedTuple):
    """Where a sealed value was first written. A copy of the sealed value must keep it beside the token."""

    store: str
    stream_id: UUID
    version: int
    name: str

    def aad(self, place: str, key: DataKey) -> bytes:
        """Associated data for the value of field `place`."""
        return f"{self.prefix()}{place}{key.suffix}".encode()

    def prefix(self) -> str:
        """The common prefix of the associated data of all fields of one event."""
        return f"{self.store}|{self.stream_id.hex}|{self.version}|{self.name}|"


def seal(key: DataKey, aad: bytes, plain: str) -> str:
    """A token `k1.<key id>.<nonce and ciphertext>` that opens only with this key and associated data."""
    nonce = os.urandom(_NONCE_BYTES)
    sealed = nonce + key.cipher.encrypt(nonce, plain.encode(), aad)
    return key.head + b2a_base64(sealed, newline=False).decode("ascii")


def unseal(key: DataKey | None, aad: bytes, token: str) -> str:
    """The value of a token; `ERASED` where its key is gone; raises Tampered where it was moved or changed."""
    if token == ERASED or key is None or not token.startswith(key.head):
        if token != ERASED and not is_token(token):
            raise Tampered("not a token")
        return ERASED
    try:
        sealed = a2b_base64(token[len(key.head) :], strict_mode=True)
        return key.cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], aad).decode()
    except (InvalidTag, NotBase64, ValueError) as error:
        raise Tampered("the token does not open here") from error


def is_token(value: object) -> bool:
    """Whether this looks like a sealed value."""
    return isinstance(value, str) and value.startswith(SEALED_PREFIX) and value.count(".") == 2


def opening(key: DataKey | None, origin: Origin) -> Callable[[str, str | None], str | None]:
    """`open_value` for all fields of one event: what their associated data share is made once."""
    before = "" if key is None else origin.prefix()

    def opened(place: str, token: str | None) -> str | None:
        if token is None:
            return None
        sealer = None if key is None else key.opening(token)
        aad = b"" if sealer is None else f"{before}{place}{sealer.suffix}".encode()
        return unseal(sealer, aad, token)

    return opened


def open_value(key: DataKey | None, origin: Origin, place: str, token: str | None) -> str | None:
    """The plain value of field `place` of the event at `origin`; None stays None."""
    return None if token is None else opening(key, origin)(place, token)


def seal_bytes(key: DataKey, place: str, plain: bytes) -> bytes:
    """Seals bytes that are stored beside events; `place` binds them to their place."""
    nonce = os.urandom(_NONCE_BYTES)
    return key.id.bytes + nonce + key.cipher.encrypt(nonce, plain, f"{place}|{key.id.hex}".encode())


def open_bytes(key: DataKey | None, place: str, sealed: bytes) -> bytes | None:
    """The plain bytes, or None where their key is gone; raises Tampered where they were moved or changed."""
    if key is None or sealed[:16] != key.id.bytes:
        return None
    try:
        return key.cipher.decrypt(sealed[16:28], sealed[28:], f"{place}|{key.id.hex}".encode())
    except (InvalidTag, ValueError) as error:
        raise Tampered("the bytes do not open here") from error


KEYS_ROLE: Final = "crm_keys_writer"
_KEYS_SCHEMA: Final = """
create table if not exists {schema}.data_keys (
    subject uuid primary key,
    key_id uuid not null unique,
    wrapped bytea,
    created_at timestamptz not null default now(),
    erased_at timestamptz,
    constraint erased_means_gone check ((wrapped is null) = (erased_at is not null))
);
create table if not exists {schema}.secrets (
    purpose text primary key,
    wrapped bytea not null,
    created_at timestamptz not null default now()
);
"""
_KEY_ENCRYPTION_SCHEMA: Final = """
create table if not exists {schema}.key_encryption_keys (
    number integer primary key,
    wrapped bytea not null,
    created_at timestamptz not null default now()
);
alter table {schema}.data_keys
    add column if not exists encryption integer references {schema}.key_encryption_keys;
alter table {schema}.secrets
    add column if not exists encryption integer references {schema}.key_encryption_keys;
"""
"""`encryption` is the number of the key-encryption key that wraps a row; null where the root key does."""
_PURPOSES_SCHEMA: Final = """
create table if not exists {schema}.purpose_keys (
    subject uuid not null,
    purpose text not null,
    key_id uuid not null unique,
    wrapped bytea,
    encryption integer references {schema}.key_encryption_keys,
    created_at timestamptz not null default now(),
    erased_at timestamptz,
    primary key (subject, purpose),
    constraint erased_means_gone check ((wrapped is null) = (erased_at is not null))
);
"""
"""Beside `data_keys`, and not in it: processes of the version before go on while this one is brought in."""
KEYS: Final = Tables(
    "data_keys", "public", KEYS_ROLE, (_KEYS_SCHEMA, _KEY_ENCRYPTION_SCHEMA, _PURPOSES_SCHEMA)
)
"""The key database, for `migrate`."""


class KeyEncryptionKeys:
    """The key-encryption keys of the key database, in memory for as long as the process lives."""

    def __init__(self, root: KeyEncryption) -> None:
        self._root = root
        self._known: dict[int, KeyEncryption] = {}

    def of(self, connection: "psycopg.Connection[Any]", number: int | None) -> KeyEncryption:
        """What wraps a row with this `encryption`; raises KeyEncryptionGone where a rotation has destroyed it."""
        if number is None:
            return self._root
        if number not in self._known:
            select = "select wrapped from key_encryption_keys where number = %s"
            row = connection.execute(select, (number,), binary=True).fetchone()
            if row is None:
                raise KeyEncryptionGone(f"there is no key-encryption key {number}")
            self._known[number] = AesKeyEncryption(self._root.unwrap(row[0], encryption_place(number)))
        return self._known[number]

    def newest(self, connection: "psycopg.Connection[Any]") -> int | None:
        """The number of the one that wraps new keys; None where the root key does."""
        select = "select max(number) from key_encryption_keys"
        (newest,) = connection.execute(select).fetchone() or (None,)
        if newest is None and self._root.remote:
            self.make(connection, 1)
            return 1
        return cast("int | None", newest)

    def make(self, connection: "psycopg.Connection[Any]", number: int) -> None:
        """Makes the one of this number, unless somebody else did."""
        wrapped = wrapped_and_opened(self._root, os.urandom(KEY_BYTES), encryption_place(number))
        connection.execute(
            "insert into key_encryption_keys (number, wrapped) values (%s, %s) on conflict (number) do nothing",
            (number, wrapped),
        )

    def wrapping(
        self, connection: "psycopg.Connection[Any]", store: Callable[[int | None, KeyEncryption], T]
    ) -> T:
        """Stores what the newest one wraps; again where that one is gone by then, because a rotation has ended."""
        for _ in range(ROTATED_MEANWHILE_MAX):
            number = self.newest(connection)
            try:
                return store(number, self.of(connection, number))
            except (ForeignKeyViolation, KeyEncryptionGone):
                continue
        raise KeyEncryptionGone(f"a rotation has ended {ROTATED_MEANWHILE_MAX} times meanwhile")


def encryption_place(number: int) -> bytes:
    """The associated data of a wrapped key-encryption key."""
    return f"key-encryption-key|{number}".encode()


@dataclass(slots=True)
class KeyRing:
    """The data keys of subjects: found in bulk, made where missing, kept for a bounded time.

    `encryption` is the root key. Calls block on the database when a key is not cached; `cached` never does. Safe to
    share between threads.
    """

    url: str
    encryption: KeyEncryption
    monotonic: Callable[[], float]
    cached_max: int = KEYS_CACHED_MAX
    statement_seconds: float = STATEMENT_SECONDS_MAX
    turn_seconds: float = TURN_SECONDS_MAX
    _cache: "AgedCache[int, tuple[DataKey | None]]" = field(init=False)
    """The key is the integer of the subject: a UUID computes its hash in Python each time."""
    _database: Lock = field(default_factory=Lock)
    _connection: "psycopg.Connection[Any] | None" = None
    _encryptions: KeyEncryptionKeys = field(init=False)

    def __post_init__(self) -> None:
        """The cache ages on the ring's own clock."""
        self._cache = AgedCache(self.cached_max, KEYS_CACHED_SECONDS, self.monotonic)
        self._encryptions = KeyEncryptionKeys(self.encryption)

    @classmethod
    def open(cls, url: str, encryption: KeyEncryption, monotonic: Callable[[], float]) -> "KeyRing":
        """A ring over the key database at `url`; raises SchemaBehind where it was not migrated yet."""
        require(url, [KEYS])
        return cls(url, encryption, monotonic)

    @classmethod
    def of(cls, settings: Settings, monotonic: Callable[[], float]) -> "KeyRing":
        """The ring that the settings name; raises SchemaBehind, and KeyEncryptionMissing but in development."""
        return cls.open(settings.keys_url, root_key(settings), monotonic)

    def cached(self, subject: UUID) -> "DataKey | None":
        """The key of a subject if it is cached; never waits for the database."""
        held = self._cache.get(subject.int)
        return None if held is None else held[0]

    def all_cached(self, subjects: Iterable[UUID]) -> "list[DataKey | None]":
        """As `cached` gives each of them, at one time."""
        held = self._cache.get_all([subject.int for subject in subjects])
        return [None if one is None else one[0] for one in held]

    def keys_for(
        self, subjects: Iterable[UUID], *, create: bool = True, purposes: Collection[str] = ()
    ) -> dict[UUID, DataKey]:
        """The keys of these subjects. A subject that was erased is absent and never gets a key again.

        All keys of a subject are made at once: its key, and one for each of `purposes`.
        """
        found: dict[UUID, DataKey] = {}
        missing: list[UUID] = []
        distinct = {subject.int: subject for subject in subjects}
        for subject, held in zip(distinct.values(), self._cache.get_all(distinct), strict=True):
            if held is None:
                missing.append(subject)
            elif held[0] is not None:
                found[subject] = held[0]
        for at in range(0, len(missing), KEYS_PER_QUERY):
            loaded = self._load(missing[at : at + KEYS_PER_QUERY], create, purposes)
            found |= {subject: key for subject, key in loaded.items() if key is not None}
        return found

    def secret(self, purpose: str, *, create: bool = True) -> bytes:
        """The one secret that all services share for `purpose`, of 32 bytes; made where it is missing, unless
        not wanted.

        It is not cached here: the caller keeps it for as long as its process lives. Raises SecretMissing.
        A caller that stores values derived from it uses `chassis.write.secret_checks`.
        """
        return self._asked(lambda: self._read(lambda: self._secret(purpose, create)))

    def erase(self, subjects: Iterable[UUID], purpose: str | None = None) -> int:
        """Destroys the keys of these subjects for ever, all or those of one purpose; returns how many subjects had one.

        Other processes stop opening their values within `KEYS_CACHED_SECONDS`. A subject without a key is
        marked too, so that it never gets one. The key of `TRANSACTION` goes with all others or not at all: it may have
        sealed values of every purpose (`inseparable`).
        """
        if purpose == TRANSACTION:
            raise ValueError(f"the keys of {TRANSACTION} are destroyed with all others")
        gone = sorted(dict.fromkeys(subjects))
        return self._asked(lambda: self._erase(gone) if purpose is None else self._erase_part(gone, purpose))

    def erased(self, subjects: Iterable[UUID], purpose: str | None = None) -> set[UUID]:
        """Returns those of these subjects whose keys were destroyed, all or that of one purpose.

        A subject that never had a key is not among them.
        """
        wanted = list(subjects)
        select = (
            "select subject from data_keys where subject = any(%(s)s) and erased_at is not null union"
            " select subject from purpose_keys where subject = any(%(s)s) and purpose = %(p)s and erased_at is not null"
        )
        values = {"s": wanted, "p": purpose}
        return self._asked(lambda: {row[0] for row in self._connected().execute(select, values)})

    def inseparable(self, subjects: Iterable[UUID], purpose: str) -> set[UUID]:
        """Returns those of these subjects whose values of this purpose go with all others: their key was made without one
        for the purpose."""
        wanted = list(subjects)
        select = (
            "select subject from data_keys d where subject = any(%s) and wrapped is not null"
            " and not exists (select 1 from purpose_keys p where p.subject = d.subject and p.purpose = %s)"
        )
        return self._asked(lambda: {row[0] for row in self._connected().execute(select, (wanted, purpose))})

    def close(self) -> None:
        """Lets the connection go."""
        with self._database:
            self._let_go()

    def _asked(self, ask: Callable[[], T]) -> T:
        """Runs a query, once more over a new connection where the connection was lost.

        One thread does so at a time. Raises OperationalError where its turn does not come.
        """
        if not self._database.acquire(timeout=self.turn_seconds):
            raise psycopg.OperationalError(f"others have asked the key database for {self.turn_seconds:g} s")
        try:
            return ask()
        except DATABASE_LOST:
            self._let_go()
            return ask()
        finally:
            self._database.release()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _erase(self, gone: list[UUID]) -> int:
        connection = self._connected()
        with connection.transaction():
            # Subjects without a key come first: a key made in between is destroyed below, and its parts after it.
            connection.cursor().executemany(
                "insert into data_keys (subject, key_id, erased_at) values (%s, gen_random_uuid(), now())"
                " on conflict (subject) do nothing",
                [(subject,) for subject in gone],
            )
            count = self._destroyed("data_keys", "subject = any(%s)", (gone,))
            self._destroyed("purpose_keys", "subject = any(%s)", (gone,))
        self._forget(gone)
        return count

    def _erase_part(self, gone: list[UUID], purpose: str) -> int:
        connection = self._connected()
        with connection.transaction():
            connection.cursor().executemany(
                "insert into purpose_keys (subject, purpose, key_id, erased_at)"
                " values (%s, %s, gen_random_uuid(), now()) on conflict (subject, purpose) do nothing",
                [(subject, purpose) for subject in gone],
            )
            count = self._destroyed("purpose_keys", "subject = any(%s) and purpose = %s", (gone, purpose))
        self._forget(gone)
        return count

    def _destroyed(self, table: LiteralString, which: LiteralString, values: tuple[Any, ...]) -> int:
        update: LiteralString = f"update {table} set wrapped = null, encryption = null, erased_at = now()"
        return self._connected().execute(f"{update} where {which} and wrapped is not null", values).rowcount

    def _forget(self, gone: list[UUID]) -> None:
        for subject in gone:
            self._cache.drop(subject.int)

    def _secret(self, purpose: str, create: bool) -> bytes:
        connection, aad = self._connected(), secret_place(purpose)
        select = "select wrapped, encryption from secrets where purpose = %s"
        row = connection.execute(select, (purpose,), binary=True).fetchone()
        if row is None and create:
            # Of two processes that start at once the first makes the secret, and the other reads it.
            made = os.urandom(KEY_BYTES)
            self._encryptions.wrapping(
                connection,
                lambda number, encryption: connection.execute(
                    "insert into secrets (purpose, wrapped, encryption) values (%s, %s, %s)"
                    " on conflict (purpose) do nothing",
                    (purpose, encryption.wrap(made, aad), number),
                ),
            )
            row = connection.execute(select, (purpose,), binary=True).fetchone()
        if row is None:
            raise SecretMissing(purpose)
        return self._encryptions.of(connection, row[1]).unwrap(row[0], aad)

    def _read(self, read: Callable[[], T]) -> T:
        """Reads rows and opens them; again where a rotation has wrapped them otherwise in between."""
        for _ in range(ROTATED_MEANWHILE_MAX - 1):
            with suppress(KeyEncryptionGone):
                return read()
        return read()

    def _load(
        self, subjects: list[UUID], create: bool, purposes: Collection[str]
    ) -> dict[UUID, DataKey | None]:
        """Reads and makes keys.

        They are cached before the database is released, so that no erasure gets in between.
        """

        def load() -> dict[UUID, DataKey | None]:
            since = self.monotonic()
            loaded = self._read(lambda: self._query(subjects, create, purposes))
            self._cache.put_all({subject.int: (key,) for subject, key in loaded.items()}, since=since)
            return loaded

        return self._asked(load)

    def _query(
        self, subjects: list[UUID], create: bool, purposes: Collection[str]
    ) -> dict[UUID, DataKey | None]:
        connection = self._connected()
        rows = connection.execute(_SELECT, {"s": subjects}, binary=True).fetchall()
        unknown = sorted(set(subjects) - {row[0] for row in rows if row[1] is None})
        if not unknown or not create:
            return self._opened(connection, rows)
        new = [_new(subject, purposes) for subject in unknown]
        stored = self._encryptions.wrapping(
            connection, lambda number, encryption: _store(connection, new, number, encryption)
        )
        # Others made some of them in between, or a purpose of theirs was erased before they had any key.
        stored -= {row[0] for row in rows if row[1] is not None}
        others = [subject for subject in unknown if subject not in stored]
        if others:
            rows = [row for row in rows if row[0] not in set(others)]
            rows += connection.execute(_SELECT, {"s": others}, binary=True).fetchall()
        made: dict[UUID, DataKey | None] = {key.subject: key for key in new if key.subject in stored}
        return made | self._opened(connection, rows)

    def _opened(
        self, connection: "psycopg.Connection[Any]", rows: "list[tuple[Any, ...]]"
    ) -> dict[UUID, DataKey | None]:
        """The keys of rows as `_SELECT` has them; None for a subject whose key was destroyed."""
        parts: dict[UUID, dict[str, DataKey | None]] = {}
        for subject, purpose, key_id, wrapped, number in rows:
            if purpose is not None:
                part = (
                    None if wrapped is None else self._unwrapped(connection, subject, key_id, wrapped, number)
                )
                parts.setdefault(subject, {})[purpose] = part
        return {
            subject: None
            if wrapped is None
            else self._unwrapped(connection, subject, key_id, wrapped, number, parts.get(subject))
            for subject, purpose, key_id, wrapped, number in rows
            if purpose is None
        }

    def _unwrapped(
        self,
        connection: "psycopg.Connection[Any]",
        subject: UUID,
        key_id: UUID,
        wrapped: bytes,
        number: int | None,
        parts: Mapping[str, DataKey | None] | None = None,
    ) -> DataKey:
        material = self._encryptions.of(connection, number).unwrap(wrapped, key_place(subject, key_id))
        return DataKey(subject, key_id, material, parts)

    def _connected(self) -> "psycopg.Connection[Any]":
        if self._connection is None or self._connection.closed:
            self._connection = connect(self.url, role=KEYS_ROLE, statement_seconds=self.statement_seconds)
        return self._connection


_SELECT: Final = (
    "select subject, null::text as purpose, key_id, wrapped, encryption from data_keys where subject = any(%(s)b::uuid[])"
    " union all"
    " select subject, purpose, key_id, wrapped, encryption from purpose_keys where subject = any(%(s)b::uuid[])"
)


def _new(subject: UUID, purposes: Collection[str]) -> DataKey:
    """New keys of a subject, not stored yet."""
    parts = {purpose: _random(subject) for purpose in sorted(purposes)}
    key = _random(subject)
    return DataKey(subject, key.id, key.material, parts) if parts else key


def _random(subject: UUID) -> DataKey:
    return DataKey(subject, UUID(bytes=os.urandom(16), version=4), os.urandom(KEY_BYTES))


def _store(
    connection: "psycopg.Connection[Any]", keys: list[DataKey], number: int | None, encryption: KeyEncryption
) -> set[UUID]:
    """Stores new keys, each with its parts or not at all; returns the subjects of which all were stored."""
    if not any(key.parts for key in keys):
        return _store_keys(connection, keys, number, encryption)
    with connection.transaction():
        stored = _store_keys(connection, keys, number, encryption)
        parts = [
            (purpose, part)
            for key in keys
            if key.subject in stored
            for purpose, part in (key.parts or {}).items()
            if part is not None
        ]
        wrapped = [encryption.wrap(part.material, key_place(part.subject, part.id)) for _, part in parts]
        rows = connection.execute(
            "insert into purpose_keys (subject, purpose, key_id, wrapped, encryption)"
            " select *, %b::integer from unnest(%b::uuid[], %b::text[], %b::uuid[], %b::bytea[])"
            " on conflict (subject, purpose) do nothing returning key_id",
            (
                number,
                [part.subject for _, part in parts],
                [purpose for purpose, _ in parts],
                [part.id for _, part in parts],
                wrapped,
            ),
            binary=True,
        ).fetchall()
    found = {row[0] for row in rows}
    return stored - {part.subject for _, part in parts if part.id not in found}


def _store_keys(
    connection: "psycopg.Connection[Any]", keys: list[DataKey], number: int | None, encryption: KeyEncryption
) -> set[UUID]:
    wrapped = [encryption.wrap(key.material, key_place(key.subject, key.id)) for key in keys]
    stored = connection.execute(
        "insert into data_keys (subject, key_id, wrapped, encryption)"
        " select *, %b::integer from unnest(%b::uuid[], %b::uuid[], %b::bytea[])"
        " on conflict (subject) do nothing returning subject",
        (number, [key.subject for key in keys], [key.id for key in keys], wrapped),
        binary=True,
    ).fetchall()
    return {row[0] for row in stored}


def key_place(subject: UUID, key_id: UUID) -> bytes:
    """The associated data of a wrapped data key."""
    return b"data-key|" + subject.bytes + key_id.bytes


def secret_place(purpose: str) -> bytes:
    """The associated data of a wrapped secret."""
    return b"secret|" + purpose.encode()


Keys = Mapping[UUID, DataKey]
