"""The rules of tags and of the tags of a customer, as given, when, then."""

from uuid import UUID

import pytest
from customer.domain.commands import ChangeTags, Tagging
from customer.domain.customer import customer_decider
from customer.domain.events import CustomerErased, CustomerRegistered, TagAdded, TagRemoved
from customer.domain.refusals import (
    TAGS_MAX,
    CustomerIsErased,
    CustomerNotRegistered,
    TagOfAnother,
    TooManyTags,
)
from customer.domain.spelling import DOTS, MIDDLE_DOT, key_of
from customer.domain.tag import (
    CODE,
    MERGED_MAX,
    NAMES_MAX,
    AcceptTag,
    DefineTag,
    MergeTag,
    ReinstateTag,
    RenameTag,
    RetireTag,
    Tag,
    TagAccepted,
    TagDefined,
    TagIsMerged,
    TagIsRetired,
    TagMergeCircular,
    TagMerged,
    TagNameTaken,
    TagReinstated,
    TagRenamed,
    TagRetired,
    TagTookOver,
    TagUnknown,
    TakeOver,
    TooManyTagNames,
    TooManyTagsMerged,
    claim_of,
    code_of,
    identify,
    tag_decider,
)
from customer.normalising import name as normalised_name
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.support.specification import Specification

tag = Specification(tag_decider)
customer = Specification(customer_decider)
HOUSE, RICH, YOUNG = map(code_of, ("房贷客户", "高净值潜力客户", "学生"))
house = TagDefined(HOUSE, "房贷客户", "dictionary", claim_of("房贷客户"))
registered = CustomerRegistered(name="张伟", kind="person", origin="staff")


def added(code, rule=None):
    return TagAdded(code=code, origin="manual" if rule is None else "system", rule=rule)


# tags


def test_a_tag_is_defined_once():
    defined = tag.given().when(DefineTag("房贷客户", "dictionary")).then(house)
    defined.when(DefineTag("房贷客户", "free")).then_rejected(TagNameTaken)


@pytest.mark.requirement("R025")
def test_a_tag_is_renamed_and_keeps_its_code_and_its_former_name():
    renamed = tag.given(house).when(RenameTag("房贷")).then(TagRenamed(HOUSE, "房贷", claim_of("房贷")))
    renamed.when(RenameTag("房贷")).then_nothing()
    back = renamed.when(RenameTag("房贷客户")).then(TagRenamed(HOUSE, "房贷客户", None))
    back.then_state(Tag(HOUSE, "dictionary", ("房贷", "房贷客户")))


@pytest.mark.requirement("R025")
def test_a_merged_tag_stands_for_another_and_is_changed_no_more():
    merged = tag.given(house).when(MergeTag(RICH)).then(TagMerged(HOUSE, RICH))
    merged.when(MergeTag(RICH)).then_nothing()
    for command in (
        MergeTag(YOUNG),
        RenameTag("x"),
        RetireTag(),
        TakeOver((YOUNG,)),
        ReinstateTag(),
        AcceptTag(),
    ):
        merged.when(command).then_rejected(TagIsMerged)
    tag.given(house).when(MergeTag(HOUSE)).then_rejected(TagMergeCircular)


def test_a_tag_takes_over_others_within_a_limit_and_not_when_it_is_retired():
    tag.given(house).when(TakeOver((RICH, YOUNG))).then(TagTookOver(HOUSE, (RICH, YOUNG)))
    full = TagTookOver(HOUSE, tuple(map(str, range(MERGED_MAX))))
    tag.given(house, full).when(TakeOver((RICH,))).then_rejected(TooManyTagsMerged)
    tag.given(house, TagRetired(HOUSE)).when(TakeOver((RICH,))).then_rejected(TagIsRetired)


def test_a_retired_tag_may_still_be_renamed_and_merged():
    retired = tag.given(house).when(RetireTag()).then(TagRetired(HOUSE))
    retired.when(RetireTag()).then_nothing()
    retired.when(RenameTag("房贷")).then(TagRenamed(HOUSE, "房贷", claim_of("房贷")))
    retired.when(MergeTag(RICH)).then(TagMerged(HOUSE, RICH))


def test_a_retired_tag_is_reinstated():
    back = tag.given(house, TagRetired(HOUSE)).when(ReinstateTag()).then(TagReinstated(HOUSE))
    back.when(ReinstateTag()).then_nothing()
    back.when(TakeOver((RICH,))).then(TagTookOver(HOUSE, (RICH,)))
    back.when(RetireTag()).then(TagRetired(HOUSE))
    tag.given(house).when(ReinstateTag()).then_nothing()


def test_the_dictionary_accepts_a_free_tag():
    accepted = tag.given(replace(house, kind="free")).when(AcceptTag()).then(TagAccepted(HOUSE))
    accepted.when(AcceptTag()).then_nothing()
    accepted.then_state(Tag(HOUSE, "dictionary", ("房贷客户",)))
    tag.given(house).when(AcceptTag()).then_nothing()


def test_what_was_never_defined_is_unknown():
    for command in (
        *(RenameTag("x"), MergeTag(RICH), TakeOver((RICH,)), RetireTag(), ReinstateTag(), AcceptTag()),
    ):
        tag.given().when(command).then_rejected(TagUnknown)


def test_a_tag_has_a_bounded_number_of_names():
    names = [TagRenamed(HOUSE, str(number), UUID(int=number)) for number in range(NAMES_MAX - 1)]
    tag.given(house, *names).when(RenameTag("one more")).then_rejected(TooManyTagNames)
    tag.given(house, *names).when(RenameTag("房贷客户")).then(TagRenamed(HOUSE, "房贷客户", None))


def test_names_that_look_alike_are_one_name():
    assert key_of("ＶＩＰ　客户") == key_of("vip  客户") == key_of("v\u034fip\u3164 客户\ufe00") == "vip 客户"
    assert key_of("买买提・艾力") == key_of("买买提･艾力") == key_of("买买提·艾力")
    assert claim_of("支行\uf90a") == claim_of("支行\u91d1")
    assert code_of("a") != code_of("b")
    assert identify(house) == claim_of(" 房贷客户 ")
    assert identify(TagRetired(HOUSE)) is None


TYPED = st.text(
    st.characters(codec="utf-8")
    | st.sampled_from([*map(chr, DOTS), MIDDLE_DOT, *"AaÅßſİΐ\u0301\u0345\u034f\ufe0f\u3164ﷺ　 ｶﾞ"]),
    min_size=1,
    max_size=60,
)
"""Anything, and what is often typed or is folded in an odd way."""


@given(TYPED)
def test_a_key_is_its_own_key_and_codes_are_codes(name):
    assert key_of(key_of(name)) == key_of(name)
    assert CODE.fullmatch(code_of(name))


@given(TYPED)
def test_a_normalised_name_has_the_key_of_what_was_typed(name):
    try:
        normalised = normalised_name(name)
    except ValueError:
        return
    assert normalised_name(normalised) == normalised
    assert key_of(normalised) == key_of(name)


# the tags of a customer


def changing(add=(), remove=(), rule=None, *, overriding=False):
    return ChangeTags(
        tuple(Tagging(*one) if isinstance(one, tuple) else Tagging(one) for one in add),
        tuple(Tagging(*one) if isinstance(one, tuple) else Tagging(one) for one in remove),
        rule,
        overriding,
    )


@pytest.mark.requirement("R007", "R061")
def test_several_tags_are_added_and_removed_in_one_command():
    both = customer.given(registered).when(changing((HOUSE, RICH))).then(added(HOUSE), added(RICH))
    both.when(changing((HOUSE,))).then_nothing()
    both.when(changing((YOUNG,), (RICH,))).then(TagRemoved(code=RICH), added(YOUNG))
    both.when(changing((), (YOUNG,))).then_nothing()


@pytest.mark.requirement("R007")
def test_who_added_a_tag_removes_it_or_somebody_overrides():
    by_rule = customer.given(registered).when(changing((HOUSE,), rule="loan")).then(added(HOUSE, "loan"))
    by_rule.when(changing((HOUSE,))).then_nothing()
    by_rule.when(changing((RICH,), (HOUSE,))).then_rejected(TagOfAnother)
    by_rule.when(changing((), (HOUSE,), "another")).then_rejected(TagOfAnother)
    by_rule.when(changing((), (HOUSE,), "loan")).then(TagRemoved(code=HOUSE, rule="loan"))
    by_rule.when(changing((), (HOUSE,), overriding=True)).then(TagRemoved(code=HOUSE))
    by_staff = customer.given(registered, added(HOUSE))
    by_staff.when(changing((HOUSE,), rule="loan")).then_nothing()
    by_staff.when(changing((), (HOUSE,), "loan")).then_rejected(TagOfAnother)


@pytest.mark.requirement("R025")
def test_who_has_a_merged_tag_has_the_tag_that_it_stands_for():
    merged = customer.given(registered, added(HOUSE))
    merged.when(changing(((RICH, (HOUSE,)),))).then_nothing()
    merged.when(changing((), ((RICH, (HOUSE,)),))).then(TagRemoved(code=HOUSE))
    both = customer.given(registered, added(HOUSE), added(RICH))
    both.when(changing((), ((RICH, (HOUSE,)),))).then(TagRemoved(code=RICH), TagRemoved(code=HOUSE))


@pytest.mark.requirement("R007", "R025")
def test_each_takes_away_its_own_of_tags_that_were_merged():
    """A rule whose tag was merged into one that somebody else had given could never take it away again."""
    merged = Tagging(RICH, (HOUSE,))
    both = customer.given(registered, added(HOUSE, "loan"), added(RICH))
    by_loan = both.when(ChangeTags((), (merged,), "loan")).then(TagRemoved(code=HOUSE, rule="loan"))
    by_loan.when(ChangeTags((), (merged,), "loan")).then_rejected(TagOfAnother)
    both.when(ChangeTags((), (merged,))).then(TagRemoved(code=RICH)).when(
        ChangeTags((), (merged,))
    ).then_rejected(TagOfAnother)
    both.when(ChangeTags((), (merged,), "card")).then_rejected(TagOfAnother)
    both.when(ChangeTags((), (merged,), None, True)).then(TagRemoved(code=RICH), TagRemoved(code=HOUSE))


def test_a_customer_has_a_bounded_number_of_tags():
    many = [added(code_of(str(number))) for number in range(TAGS_MAX)]
    customer.given(registered, *many).when(changing((HOUSE,))).then_rejected(TooManyTags)
    first = many[0].code
    customer.given(registered, *many).when(changing((HOUSE,), (first,))).then(
        TagRemoved(code=first), added(HOUSE)
    )


def test_nobody_is_tagged_who_is_unknown_or_erased():
    customer.given().when(changing((HOUSE,))).then_rejected(CustomerNotRegistered)
    customer.given(registered, CustomerErased((), ())).when(changing((HOUSE,))).then_rejected(
        CustomerIsErased
    )
