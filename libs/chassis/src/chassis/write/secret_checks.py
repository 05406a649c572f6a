"""Checks that a secret of the key custody is the one under which a store was written.

Ids that were derived under a secret stay in a store for ever. Suppose that the key database was restored
to a time before the secret was made. Without a check another secret would be made silently, and every feed
would be recorded again under other ids. Each store therefore keeps a digest of its secret, which is
compared when the store is opened.
"""

from hashlib import blake2b
from typing import Final

from psycopg import sql

from chassis.connections.postgres import connect
from chassis.connections.transient import Transient
from chassis.privacy.keys import KeyRing, SecretMissing
from chassis.write.store.schema import checked, writer_role

_CONSTANT: Final = b"check value of a secret|"


class SecretDiffers(Transient):
    """The key custody does not hold the secret that the store was written with; nothing may be written until
    it does."""


def secret_of(ring: KeyRing, url: str, schema: str, purpose: str, *, create: bool = True) -> bytes:
    """Returns the secret of `purpose`, 32 bytes.

    Makes it for an empty store without a digest, unless not wanted.

    Raises SecretDiffers where the custody lacks the secret that the store was written with, or holds
    another one.
    """
    names = {
        "checks": sql.Identifier(checked(schema), "secret_checks"),
        "events": sql.Identifier(schema, "events"),
    }
    ask = sql.SQL("select digest from {checks} where purpose = %s").format(**names)
    with connect(url, role=writer_role(schema)) as connection:
        row = connection.execute(ask, (purpose,)).fetchone()
        written = connection.execute(sql.SQL("select from {events} limit 1").format(**names)).rowcount
        try:
            secret = ring.secret(purpose, create=create and row is None and not written)
        except SecretMissing:
            raise SecretDiffers(_reason(schema, purpose, "is not in the key database")) from None
        digest = blake2b(_CONSTANT + purpose.encode(), key=secret, digest_size=32).digest()
        if row is None:
            connection.execute(
                sql.SQL("insert into {checks} values (%s, %s) on conflict do nothing").format(**names),
                (purpose, digest),
            )
            row = connection.execute(ask, (purpose,)).fetchone()
    if row is None or bytes(row[0]) != digest:
        raise SecretDiffers(_reason(schema, purpose, "in the key database is another one"))
    return secret


def _reason(schema: str, purpose: str, what: str) -> str:
    return f"the secret {purpose!r} {what}; {schema} was written with one: restore the key database"
