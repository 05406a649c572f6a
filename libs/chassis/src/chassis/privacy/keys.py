"""Personal data: one key per subject, values sealed one by one, erasure by destroying the key.

Data keys are random, wrapped by a key-encryption key, and live in a database of their own, so that neither
a copy of the event store nor a copy of the key database alone shows anything. Sealing is AES-256-GCM with
the place of the value as associated data: a token moved to another field, event, stream or store does not
open.
"""

import os
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Lock
from typing import Any, Final, NamedTuple, TypeVar, cast
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
    Tampered,
    WrongKeyEncryption,
)
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
T = TypeVar("T")
_NONCE_BYTES: Final = 12


class SecretMissing(Transient):
    """The key database holds no secret for a purpose."""


class DataKey:
    """The key of one subject, ready to use."""

    __slots__ = ("_derived", "cipher", "head", "id", "material", "subject")

    def __init__(self, subject: UUID, key_id: UUID, material: bytes) -> None:
        self.subject = subject
        self.id = key_id
        self.head = f"{SEALED_PREFIX}{b2a_base64(key_id.bytes, newline=False).decode('ascii')}."
        self.cipher = AESGCM(material)
        self.material = material
        self._derived: dict[str, bytes] = {}

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
        return f"{self.prefix()}{place}|{key.id.hex}".encode()

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
    before, after = ("", "") if key is None else (origin.prefix(), f"|{key.id.hex}")

    def opened(place: str, token: str | None) -> str | None:
        return None if token is None else unseal(key, f"{before}{place}{after}".encode(), token)

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
KEYS: Final = Tables("data_keys", "public", KEYS_ROLE, (_KEYS_SCHEMA, _KEY_ENCRYPTION_SCHEMA))
"""The key database, for `migrate`."""


class KeyEncryptionKeys:
    """The key-encryption keys of the key database, in memory for as long as the process lives."""

    def __init__(self, root: KeyEncryption) -> None:
        self._root = root
        self._known: dict[int, KeyEncryption] = {}

    def of(self, connection: "psycopg.Connection[Any]", number: int | None) -> KeyEncryption:
        """What wraps a row with this `encryption`; raises WrongKeyEncryption where it is gone."""
        if number is None:
            return self._root
        if number not in self._known:
            select = "select wrapped from key_encryption_keys where number = %s"
            row = connection.execute(select, (number,), binary=True).fetchone()
            if row is None:
                raise WrongKeyEncryption(f"there is no key-encryption key {number}")
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
        wrapped = self._root.wrap(os.urandom(KEY_BYTES), encryption_place(number))
        connection.execute(
            "insert into key_encryption_keys (number, wrapped) values (%s, %s) on conflict (number) do nothing",
            (number, wrapped),
        )

    def wrapping(
        self, connection: "psycopg.Connection[Any]", store: Callable[[int | None, KeyEncryption], T]
    ) -> T:
        """Stores what the newest one wraps; again where that one is gone by then, because a rotation has ended."""
        number = self.newest(connection)
        try:
            return store(number, self.of(connection, number))
        except ForeignKeyViolation:
            number = self.newest(connection)
            return store(number, self.of(connection, number))


def encryption_place(number: int) -> bytes:
    """The associated data of a wrapped key-encryption key."""
    return f"key-encryption-key|{number}".encode()


@dataclass(slots=True)
class KeyRing:
    """The data keys of subjects: found in bulk, made where missing, kept for a bounded time.

    `encryption` is the root key. Calls block on the database when a key is not cached; `cached` never does. Safe to share between threads.
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

    def keys_for(self, subjects: Iterable[UUID], *, create: bool = True) -> dict[UUID, DataKey]:
        """The keys of these subjects. A subject that was erased is absent and never gets a key again."""
        found: dict[UUID, DataKey] = {}
        missing: list[UUID] = []
        distinct = {subject.int: subject for subject in subjects}
        for subject, held in zip(distinct.values(), self._cache.get_all(distinct), strict=True):
            if held is None:
                missing.append(subject)
            elif held[0] is not None:
                found[subject] = held[0]
        for at in range(0, len(missing), KEYS_PER_QUERY):
            loaded = self._load(missing[at : at + KEYS_PER_QUERY], create)
            found |= {subject: key for subject, key in loaded.items() if key is not None}
        return found

    def secret(self, purpose: str, *, create: bool = True) -> bytes:
        """The one secret that all services share for `purpose`, of 32 bytes; made where it is missing, unless
        not wanted.

        It is not cached here: the caller keeps it for as long as its process lives. Raises SecretMissing.
        A caller that stores values derived from it uses `chassis.write.secret_checks`.
        """
        return self._asked(lambda: self._secret(purpose, create))

    def erase(self, subjects: Iterable[UUID]) -> int:
        """Destroys the keys of these subjects for ever; returns how many there were.

        Other processes stop opening their values within `KEYS_CACHED_SECONDS`. A subject without a key is
        marked too.
        """
        gone = list(dict.fromkeys(subjects))
        return self._asked(lambda: self._erase(gone))

    def erased(self, subjects: Iterable[UUID]) -> set[UUID]:
        """Returns those of these subjects whose keys were destroyed.

        A subject that never had a key is not among them.
        """
        wanted = list(subjects)
        select = "select subject from data_keys where subject = any(%s) and erased_at is not null"
        return self._asked(lambda: {row[0] for row in self._connected().execute(select, (wanted,))})

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
            # Subjects without a key come first: a key made in between is destroyed below.
            connection.cursor().executemany(
                "insert into data_keys (subject, key_id, erased_at) values (%s, gen_random_uuid(), now())"
                " on conflict (subject) do nothing",
                [(subject,) for subject in sorted(gone)],
            )
            count = connection.execute(
                "update data_keys set wrapped = null, encryption = null, erased_at = now()"
                " where subject = any(%s) and wrapped is not null",
                (gone,),
            ).rowcount
        for subject in gone:
            self._cache.drop(subject.int)
        return count

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

    def _load(self, subjects: list[UUID], create: bool) -> dict[UUID, DataKey | None]:
        """Reads and makes keys.

        They are cached before the database is released, so that no erasure gets in between.
        """

        def load() -> dict[UUID, DataKey | None]:
            since = self.monotonic()
            loaded = self._query(subjects, create)
            for subject, key in loaded.items():
                self._cache.put(subject.int, (key,), since=since)
            return loaded

        return self._asked(load)

    def _query(self, subjects: list[UUID], create: bool) -> dict[UUID, DataKey | None]:
        connection = self._connected()
        select = "select subject, key_id, wrapped, encryption from data_keys where subject = any(%s)"
        rows = connection.execute(select, (subjects,), binary=True).fetchall()
        unknown = sorted(set(subjects) - {row[0] for row in rows})
        made: dict[UUID, DataKey | None] = {}
        if unknown and create:
            new = [
                DataKey(subject, UUID(bytes=os.urandom(16), version=4), os.urandom(KEY_BYTES))
                for subject in unknown
            ]
            stored = self._encryptions.wrapping(
                connection, lambda number, encryption: _store(connection, new, number, encryption)
            )
            made = {key.subject: key for key in new if key.subject in stored}
            of_others = [subject for subject in unknown if subject not in stored]
            if of_others:  # another process made them in between
                rows += connection.execute(select, (of_others,), binary=True).fetchall()
        return made | {
            subject: None
            if wrapped is None
            else DataKey(
                subject,
                key_id,
                self._encryptions.of(connection, number).unwrap(wrapped, key_place(subject, key_id)),
            )
            for subject, key_id, wrapped, number in rows
        }

    def _connected(self) -> "psycopg.Connection[Any]":
        if self._connection is None or self._connection.closed:
            self._connection = connect(self.url, role=KEYS_ROLE, statement_seconds=self.statement_seconds)
        return self._connection


def _store(
    connection: "psycopg.Connection[Any]", keys: list[DataKey], number: int | None, encryption: KeyEncryption
) -> set[UUID]:
    """Stores new keys, and returns the subjects that had none."""
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
