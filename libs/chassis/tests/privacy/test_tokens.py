"""Tokens: what is believed, and what is not."""

import base64
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chassis.connections.settings import TokenSettings
from chassis.privacy import tokens as auth
from chassis.privacy.tokens import (
    DevelopmentOnly,
    KeysUnreadable,
    TokenInvalid,
    Trusted,
    Verifier,
    development_key,
    development_token,
    verifier_of,
)
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
CLAIMS = {
    "iss": "bank",
    "aud": "crm",
    "sub": "teller-7",
    "post": "P1",
    "roles": ["teller"],
    "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 3600,
}


class Now:
    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def key() -> ECKey:
    return ECKey.generate_key("P-256", {"kid": "k1"})


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def public(key: ECKey) -> KeySet:
    return KeySet([ECKey.import_key(key.as_dict(private=False))])


@pytest.fixture
def verifier(public: KeySet, now: Now) -> Verifier:
    return Verifier([Trusted("bank", lambda: public, ("ES256",))], "crm", now)


def signed(key: Any, claims: dict[str, Any], algorithm: str = "ES256", kid: str = "k1") -> str:
    return jwt.encode({"alg": algorithm, "kid": kid}, claims, key, algorithms=[algorithm])


def test_a_token_says_who_calls(verifier, key):
    caller = verifier.verify(signed(key, CLAIMS))
    assert (caller.subject, caller.post, caller.roles) == ("teller-7", "P1", frozenset({"teller"}))


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "other"},
        {"aud": "others"},
        {"aud": ["others"]},
        {"aud": None},
        {"sub": ""},
        {"sub": None},
        {"sub": 7},
        {"sub": "x" * 91},
        {"sub": "a\nb"},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": int(NOW.timestamp()) - 31},
        {"nbf": int(NOW.timestamp()) + 60},
        {"iat": "x"},
        {"roles": "teller"},
        {"roles": [1]},
        {"roles": ["r"] * 101},
        {"post": 1},
        {"post": "P1\nforged"},
        {"on_behalf_of": {}},
        {"on_behalf_of": "boris\x00"},
    ],
)
def test_a_token_that_says_something_else_is_not_believed(verifier, key, change):
    with pytest.raises(TokenInvalid):
        verifier.verify(signed(key, CLAIMS | change))


def test_a_signature_of_another_key_or_algorithm_is_not_believed(verifier, key):
    other = ECKey.generate_key("P-256", {"kid": "k1"})
    with pytest.raises(TokenInvalid):
        verifier.verify(signed(other, CLAIMS))
    # The classic: the public key as the secret of an HMAC, and no signature at all.
    secret = OctKey.import_key(json.dumps(key.as_dict(private=False)), {"kid": "k1"})
    with pytest.raises(TokenInvalid):
        verifier.verify(signed(secret, CLAIMS, "HS256"))
    header, payload, signature = signed(key, CLAIMS).split(".")
    nothing = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for forged in (
        f"{nothing}.{payload}.",
        f"{header}.{payload}.",
        f"{header}.{payload}.{signature[:-4]}AAAA",
    ):
        with pytest.raises(TokenInvalid):
            verifier.verify(forged)


@pytest.mark.parametrize(
    "text", ["", "a", "a.b.c", "..", "é.é.é", "a." + "W" * 9000 + ".c", "a.bnVsbA.c", "a.W10.c", "\ud800.a.b"]
)
def test_what_is_no_token_is_not_believed(verifier, text):
    with pytest.raises(TokenInvalid):
        verifier.verify(text)


def test_what_was_verified_is_remembered_until_it_expires_and_no_longer(verifier, key, now, monkeypatch):
    token = signed(key, CLAIMS | {"exp": int(NOW.timestamp()) + 100})
    first = verifier.verify(token)
    assert verifier.verify(token) is first
    now.at += timedelta(seconds=129)
    assert verifier.verify(token) is first
    now.at += timedelta(seconds=2)
    with pytest.raises(TokenInvalid, match="expired"):
        verifier.verify(token)


def test_the_memory_of_verified_tokens_is_bounded(public, key, now):
    verifier = Verifier([Trusted("bank", lambda: public, ("ES256",))], "crm", now, cached_max=3)
    tokens = [signed(key, CLAIMS | {"sub": f"teller-{number}"}) for number in range(5)]
    first = [verifier.verify(token) for token in tokens]
    assert verifier.verify(tokens[0]) is not first[0]
    assert verifier.verify(tokens[-1]) is first[-1]


def keys_file(tmp_path, *keys):
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in keys]}))
    return file


def test_a_withdrawn_key_is_not_believed_after_some_minutes_and_a_new_one_is(tmp_path, key, now):
    file = keys_file(tmp_path, key)
    verifier = verifier_of(TokenSettings(data=tmp_path, token_keys_file=file, token_issuer="bank"), now)
    token = signed(key, CLAIMS)
    assert verifier.verify(token).subject == "teller-7"
    following = ECKey.generate_key("P-256", {"kid": "k2"})
    keys_file(tmp_path, following)
    now.at += timedelta(seconds=auth.REVERIFY_SECONDS_MAX + auth.KEYS_READ_AGAIN_SECONDS)
    with pytest.raises(TokenInvalid):
        verifier.verify(token)
    assert verifier.verify(signed(following, {**CLAIMS, "sub": "teller-8"}, kid="k2")).subject == "teller-8"


@pytest.mark.parametrize("broken", [None, "", "{", "[]", '{"keys": 7}', '{"keys": [{"kty": "EC"}]}'])
def test_a_file_of_keys_that_cannot_be_read_refuses_everybody_until_it_can(tmp_path, key, now, broken):
    file = keys_file(tmp_path, key)
    verifier = verifier_of(TokenSettings(data=tmp_path, token_keys_file=file, token_issuer="bank"), now)
    token = signed(key, CLAIMS)
    verifier.verify(token)
    file.unlink() if broken is None else file.write_text(broken)
    now.at += timedelta(seconds=auth.REVERIFY_SECONDS_MAX + auth.KEYS_READ_AGAIN_SECONDS)
    with pytest.raises(KeysUnreadable):
        verifier.verify(token)
    assert verifier.not_ready()[0].startswith("the token keys cannot be read")
    keys_file(tmp_path, key)
    assert verifier.verify(token).subject == "teller-7"
    assert verifier.not_ready() == []


def test_development_tokens_are_issued_and_believed_in_development_alone(tmp_path):
    settings = TokenSettings(data=tmp_path, environment="development")
    token = development_token(settings, NOW, subject="dev", roles=["teller"])
    assert verifier_of(settings, Now()).verify(token).subject == "dev"
    for environment in ("staging", "production"):
        elsewhere = TokenSettings(data=tmp_path, environment=environment)
        with pytest.raises(DevelopmentOnly, match=environment):
            development_token(elsewhere, NOW)
        found = verifier_of(elsewhere, Now())
        assert found.not_ready() == ["no token keys are configured: every call is refused"]
        with pytest.raises(TokenInvalid):
            found.verify(token)


TEXTS = st.text(max_size=120)


@given(TEXTS, st.none() | TEXTS, st.lists(st.text(max_size=200), max_size=120), st.integers(-5, 3600))
@settings_of(max_examples=150, deadline=None)
def test_a_development_token_is_believed_or_not_issued(tmp_path_factory, subject, post, roles, seconds):
    settings = TokenSettings(data=tmp_path_factory.getbasetemp() / "tokens", environment="development")
    try:
        token = development_token(settings, NOW, subject=subject, post=post, roles=roles, seconds=seconds)
    except ValueError:
        return
    caller = verifier_of(settings, Now()).verify(token)
    assert (caller.subject, caller.post, caller.roles) == (subject, post, frozenset(roles))


def test_the_development_key_is_made_once_and_is_its_owner_s_alone(tmp_path):
    file = tmp_path / "keys" / "dev-token"
    first = development_key(file)
    assert first.as_dict() == development_key(file).as_dict()
    assert isinstance(first, OKPKey)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["dev-token"]


def test_a_draft_that_a_crash_left_stops_no_process_of_the_same_number(tmp_path):
    (tmp_path / f"dev-token.{os.getpid()}.new").write_bytes(b"")
    assert isinstance(development_key(tmp_path / "dev-token"), OKPKey)
