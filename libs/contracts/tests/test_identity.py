import pytest
from contracts.identity import account_id, party_id, posting_id
from hypothesis import given
from hypothesis import strategies as st

keys = st.text(min_size=1, max_size=12)
sources = st.text(alphabet=st.characters(codec="utf-8", exclude_characters=":"), min_size=1, max_size=8)


@given(st.tuples(sources, keys, keys, st.integers(0, 9)), st.tuples(sources, keys, keys, st.integers(0, 9)))
def test_two_postings_share_an_id_only_if_they_are_the_same_posting(one, other):
    assert (posting_id(*one) == posting_id(*other)) == (one == other)


def test_an_account_and_a_party_with_the_same_number_are_two_things():
    assert account_id("core", "4711") != party_id("core", "4711")


@pytest.mark.parametrize(("source", "key"), [("", "1"), ("a:b", "1"), ("a", "")])
def test_an_empty_key_or_a_colon_in_a_source_is_refused(source, key):
    with pytest.raises(ValueError, match="not empty"):
        account_id(source, key)
