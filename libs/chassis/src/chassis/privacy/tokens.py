"""Callers and their tokens. Only this module verifies tokens.

JWT with a pinned algorithm per key; the issuer is the access context or an OIDC provider by its JWK set.
Until there is one, a development token is signed with a key file, and neither signed nor accepted outside
of development.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization, OKPKey

from chassis.connections.settings import TokenSettings
from chassis.connections.transient import Transient

ALGORITHMS: Final = ("Ed25519", "ES256", "PS256", "RS256")
"""Signatures with a public key only: a verifier cannot sign, and `none` and HMAC are not algorithms here."""
ADMINISTRATOR: Final = "administrator"
"""The role of a development token that names none."""
DEVELOPMENT_ISSUER: Final = "crm-development"
DEVELOPMENT_ALGORITHM: Final = "Ed25519"
DEVELOPMENT_SECONDS_MAX: Final = 30 * 24 * 3600
TOKEN_CHARACTERS_MAX: Final = 8_192
SUBJECT_CHARACTERS_MAX: Final = 90
ROLES_MAX: Final = 100
VERIFIED_CACHED_MAX: Final = 10_000
LEEWAY_SECONDS: Final = 30
REVERIFY_SECONDS_MAX: Final = 300
KEYS_READ_AGAIN_SECONDS: Final = 60
"""With `REVERIFY_SECONDS_MAX` the bound within which a key that was taken out of its file is no longer believed."""


class TokenInvalid(Exception):
    """The token is not valid. The message is safe to show and holds nothing of the token."""


class KeysUnreadable(Transient):
    """The file of an issuer's keys cannot be read just now, or is no JWK set. No token is believed meanwhile."""


class DevelopmentOnly(Exception):
    """Development tokens are not for this environment."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller that a token names: staff number, post, and roles."""

    subject: str
    post: str | None = None
    roles: frozenset[str] = frozenset()
    on_behalf_of: str | None = None
    expires_at: float = 0.0
    """The token's expiry in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """One issuer: its name, its keys as they are now, and the algorithms that they may be used with."""

    issuer: str
    keys: Callable[[], KeySet]
    algorithms: Sequence[str] = ALGORITHMS


class KeysFile:
    """The JWK set in a file, read again when it was read `KEYS_READ_AGAIN_SECONDS` ago: keys are added and
    withdrawn while processes run."""

    def __init__(self, file: Path, now: Callable[[], datetime]) -> None:
        self._file = file
        self._now = now
        self._keys: KeySet | None = None
        self._read_at = 0.0

    def __call__(self) -> KeySet:
        """The keys; raises KeysUnreadable."""
        now = self._now().timestamp()
        if self._keys is None or now >= self._read_at + KEYS_READ_AGAIN_SECONDS:
            self._keys = None
            try:
                content: KeySetSerialization = msgspec.json.decode(self._file.read_bytes())
                self._keys = KeySet.import_key_set(content)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, JoseError) as error:
                raise KeysUnreadable(f"the token keys cannot be read: {type(error).__name__}") from error
            self._read_at = now
        return self._keys


class Verifier:
    """Verifies tokens; what was verified is remembered, bounded, for `REVERIFY_SECONDS_MAX` and never past
    its expiry.

    Use it from one thread: the event loop.
    """

    def __init__(
        self,
        trusted: Iterable[Trusted],
        audience: str,
        now: Callable[[], datetime],
        *,
        cached_max: int = VERIFIED_CACHED_MAX,
    ) -> None:
        self._trusted = {each.issuer: each for each in trusted}
        self._audience = audience
        self._now = now
        self._cached_max = cached_max
        self._verified: OrderedDict[str, tuple[Caller, float]] = OrderedDict()

    def not_ready(self) -> list[str]:
        """Why no token can be verified; empty when one can."""
        if not self._trusted:
            return ["no token keys are configured: every call is refused"]
        try:
            for each in self._trusted.values():
                each.keys()
        except KeysUnreadable as error:
            return [str(error)]
        return []

    def verify(self, token: str) -> Caller:
        """Returns the caller that a token names; raises TokenInvalid, KeysUnreadable."""
        now = self._now().timestamp()
        known = self._verified.get(token)
        if known is not None and now < known[1]:
            return known[0]
        caller = self._checked(token, now)
        self._verified[token] = (caller, min(caller.expires_at, now + REVERIFY_SECONDS_MAX))
        if len(self._verified) > self._cached_max:
            self._verified.popitem(last=False)
        return caller

    def _checked(self, token: str, now: float) -> Caller:
        if len(token) > TOKEN_CHARACTERS_MAX:
            raise TokenInvalid("the token is too long")
        trusted = self._trusted.get(_issuer_said(token))
        if trusted is None:
            raise TokenInvalid("the token is of no issuer that is trusted here")
        keys = trusted.keys()
        try:
            claims = jwt.decode(token, keys, algorithms=list(trusted.algorithms)).claims
        except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TokenInvalid("the signature of the token is not valid") from error
        return _caller(claims, trusted.issuer, self._audience, now)


def _issuer_said(token: str) -> str:
    """The issuer that an unverified token names. It is used only to choose the keys to verify with."""
    try:
        _, payload, _ = token.split(".")
        body = msgspec.json.decode(_from_base64url(payload))
    except (ValueError, RecursionError) as error:
        raise TokenInvalid("this is no JSON Web Token") from error
    issuer = body.get("iss") if isinstance(body, dict) else None
    if not isinstance(issuer, str):
        raise TokenInvalid("the token names no issuer")
    return issuer


def _from_base64url(text: str) -> bytes:
    from base64 import urlsafe_b64decode

    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))


def _caller(claims: dict[str, Any], issuer: str, audience: str, now: float) -> Caller:
    said = claims.get("aud")
    subject, expires, post = claims.get("sub"), claims.get("exp"), claims.get("post")
    roles, behalf = claims.get("roles", []), claims.get("on_behalf_of")
    if claims.get("iss") != issuer or audience not in (said if isinstance(said, list) else [said]):
        raise TokenInvalid("the token is for somebody else")
    if not isinstance(expires, int | float) or isinstance(expires, bool) or expires + LEEWAY_SECONDS <= now:
        raise TokenInvalid("the token has expired")
    for name in ("nbf", "iat"):
        begins = claims.get(name, 0)
        if not isinstance(begins, int | float) or begins > now + LEEWAY_SECONDS:
            raise TokenInvalid("the token is not valid yet")
    if (
        not isinstance(subject, str)
        or not 0 < len(subject) <= SUBJECT_CHARACTERS_MAX
        or not subject.isprintable()
    ):
        raise TokenInvalid("the token names nobody")
    if not all(
        each is None or (isinstance(each, str) and len(each) <= SUBJECT_CHARACTERS_MAX and each.isprintable())
        for each in (post, behalf)
    ):
        raise TokenInvalid("the token's post, or for whom it acts, is not valid")
    if (
        not isinstance(roles, list)
        or len(roles) > ROLES_MAX
        or not all(isinstance(role, str) for role in roles)
    ):
        raise TokenInvalid("the token's roles are not valid")
    return Caller(subject, post, frozenset(roles), behalf, expires + LEEWAY_SECONDS)


def verifier_of(settings: TokenSettings, now: Callable[[], datetime]) -> Verifier:
    """Returns a verifier of the issuers in the settings; in development also of tokens signed with the
    development key."""
    trusted = []
    if settings.token_keys_file is not None:
        trusted.append(Trusted(settings.token_issuer, KeysFile(settings.token_keys_file, now)))
    if settings.development:
        key = development_key(settings.development_token_file)
        keys = KeySet([key])
        trusted.append(Trusted(DEVELOPMENT_ISSUER, lambda: keys, (DEVELOPMENT_ALGORITHM,)))
    return Verifier(trusted, settings.token_audience, now)


def development_token(
    settings: TokenSettings,
    now: datetime,
    *,
    subject: str = "developer",
    post: str | None = None,
    roles: Sequence[str] = (ADMINISTRATOR,),
    seconds: int = 8 * 3600,
) -> str:
    """A token for development.

    Raises DevelopmentOnly in other environments, ValueError where it would be refused.
    """
    if not settings.development:
        raise DevelopmentOnly(
            f"CRM_ENVIRONMENT is {settings.environment}: no development token is issued or accepted"
        )
    if not 0 < seconds <= DEVELOPMENT_SECONDS_MAX:
        raise ValueError(f"a development token lives 1 to {DEVELOPMENT_SECONDS_MAX} seconds")
    key = development_key(settings.development_token_file)
    claims: dict[str, Any] = {
        "iss": DEVELOPMENT_ISSUER,
        "aud": settings.token_audience,
        "sub": subject,
        "roles": list(roles),
        "iat": int(now.timestamp()),
        "exp": int((now + timedelta(seconds=seconds)).timestamp()),
    }
    if post is not None:
        claims["post"] = post
    try:
        _caller(claims, DEVELOPMENT_ISSUER, settings.token_audience, now.timestamp())
    except TokenInvalid as error:
        raise ValueError(str(error)) from error
    header = {"alg": DEVELOPMENT_ALGORITHM, "kid": key.kid}
    token = jwt.encode(header, claims, key, algorithms=[DEVELOPMENT_ALGORITHM])
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise ValueError("the token is too long")
    return token


def development_key(file: Path) -> OKPKey:
    """The key that signs development tokens; made where it is missing, readable by its owner alone."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        text = _made(file)
    key = OKPKey.import_key(text)
    key.ensure_kid()
    return key


def _made(file: Path) -> bytes:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Not the process alone: in a container it has the number of the one that crashed before.
    fresh = file.with_name(f"{file.name}.{os.getpid()}.{os.urandom(4).hex()}.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as writing:
        writing.write(OKPKey.generate_key("Ed25519").as_pem(private=True))
    try:
        os.link(fresh, file)  # the first of several processes makes it, and none reads an incomplete key
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return file.read_bytes()
