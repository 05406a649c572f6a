import hmac
from unicodedata import normalize
from uuid import RFC_4122

import pytest
from contracts.identity import ExternalIds, source_name
from hypothesis import given
from hypothesis import strategies as st

IDS, OTHERS = ExternalIds(bytes(32)), ExternalIds(bytes(31) + b"\1")
keys = st.text(min_size=1, max_size=12)
sources = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters=":\u2a74\ufe55\uff1a\ufe13"),
    min_size=1,
    max_size=8,
)
legs = st.tuples(sources, keys, keys, st.integers(0, 9))


@given(legs, legs)
def test_two_postings_share_an_id_only_if_they_are_the_same_posting(one, other):
    same = normalize("NFKC", one[0]) == normalize("NFKC", other[0]) and one[1:] == other[1:]
    assert (IDS.posting(*one) == IDS.posting(*other)) == same


def test_a_source_is_the_same_however_its_letters_are_written():
    assert IDS.account("Zu\u0308rich", "1") == IDS.account("Z\u00fcrich", "1")
    assert IDS.account("\uff24\uff25\uff2d\uff2f", "1") == IDS.account("DEMO", "1")


@given(st.lists(legs.map(lambda leg: leg[1:]), max_size=5))
def test_many_postings_have_the_ids_that_each_has_alone(many):
    assert IDS.postings("core", many) == [IDS.posting("core", *leg) for leg in many]


def test_an_account_and_a_party_with_the_same_number_are_two_things():
    assert (
        len({IDS.account("core", "4711"), IDS.party("core", "4711"), IDS.of_source("card", "core", "4711")})
        == 3
    )


@pytest.mark.parametrize(("source", "key"), [("", "1"), ("a:b", "1"), ("a", "")])
def test_an_empty_key_or_a_colon_in_a_source_is_refused(source, key):
    with pytest.raises(ValueError, match="not empty"):
        IDS.account(source, key)


@given(legs)
def test_an_id_is_a_uuid_of_version_8_and_of_its_secret(leg):
    identity = IDS.posting(*leg)
    assert (identity.version, identity.variant, str(identity)) == (8, RFC_4122, str(identity))
    assert OTHERS.posting(*leg) != identity
    assert OTHERS.account(*leg[:2]) != IDS.account(*leg[:2])
    assert OTHERS.party(*leg[:2]) != IDS.party(*leg[:2])


def test_trying_all_digits_behind_a_mask_does_not_find_an_account_number():
    """A card number shows its first six and last four digits; here four are hidden, and all of them are tried."""
    shown = IDS.account("core", "6222021234566789")
    tried = [f"622202{n:04d}566789" for n in range(10_000)]
    guesses = [ExternalIds(secret) for secret in (b"\xff" * 32, b"core".ljust(32, b"\0"))]
    assert not any(guess.account("core", number) == shown for guess in guesses for number in tried)
    assert any(IDS.account("core", number) == shown for number in tried), "with the secret it is among them"


def test_a_secret_is_of_32_bytes_and_is_not_printed():
    secret = b"0123456789abcdef0123456789abcdef"
    ids = ExternalIds(secret)
    assert "0123" not in f"{ids!r} {ids} {[ids]}"
    assert not hmac.compare_digest(ids.account("core", "1").bytes, IDS.account("core", "1").bytes)
    with pytest.raises(ValueError, match="32 bytes"):
        ExternalIds(b"short")


def test_a_colon_in_another_width_makes_no_id_of_another_source():
    ids = ExternalIds(bytes(32))
    with pytest.raises(ValueError, match="no colon"):
        ids.party("core\uff1a1", "2")
    for text in ("", " core", "core\uff1a1", "core\u200b", "x" * 65):
        with pytest.raises(ValueError, match=r"blank|printable"):
            source_name(text)
    assert source_name("\uff43ore") == "core"
