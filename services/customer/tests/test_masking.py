"""What is shown of a personal value."""

import pytest
from chassis.privacy.masking import (
    HIDDEN,
    masked_birthday,
    masked_email,
    masked_identity_number,
    masked_name,
    masked_phone,
)
from customer.masking import masked_account, masked_address, masked_company
from hypothesis import example, given
from hypothesis import strategies as st


@pytest.mark.requirement("R087")
@pytest.mark.parametrize(
    ("mask", "value", "shown"),
    [
        (masked_name, "张伟", "张*"),
        (masked_name, "欧阳修文", "欧阳*"),
        (masked_name, "夏侯", "夏*"),
        (masked_name, "Grace Bennett", "G***"),
        (masked_name, "Nguyen Van An", "N***"),
        (masked_name, "Li Wei 13800001234", "L***"),
        (masked_name, "O'Brien", "O***"),
        (masked_name, "买买提·吐尔逊", "买*"),
        (masked_name, "𠮷田", "𠮷*"),
        (masked_name, "13800001234 张伟", "***"),
        (masked_company, "金桥贸易有限公司", "金桥贸易有限公司"),
        (masked_company, "金桥贸易 13800001234", "金桥贸易 ***"),
        (masked_company, "金桥贸易 138-0000-1234", "金桥贸易 ***"),
        (masked_company, "金桥贸易１３８ ００００ １２３４", "金桥贸易***"),
        (masked_company, "7-11 便利店 24 7 365", "7-11 便利店 24 7 365"),
        (masked_phone, "13800001234", "138****1234"),
        (masked_phone, "+8613800001234", "138****1234"),
        (masked_phone, "010-8888999", "******8999"),
        (masked_phone, "+442079460000", "********0000"),
        (masked_phone, "13800001234 找张伟", "***"),
        (masked_phone, "()", "***"),
        (masked_identity_number, "110101198002290011", "110***********0011"),
        (masked_identity_number, "张伟的身份证号码是多少呢谁知道", "***"),
        (masked_account, "6222021234566789", "622202******6789"),
        (masked_account, "576", "**6"),
        (masked_account, "张伟6222021234566789", "***"),
        (masked_email, "zhang@qq.com", "z***@qq.com"),
        (masked_email, "no address", "***"),
        (masked_email, "z@zhangwei.name", "z***@***"),
        (masked_email, "'@qq.com", "***"),
        (masked_address, "北京市朝阳区示例路12号", "北京市朝阳区***"),
        (masked_address, "广东省深圳市南山区科技园", "广东省深圳市南山区***"),
        (masked_address, "江苏无锡市锡山区东亭街道", "江苏无锡市锡山区***"),
        (masked_address, "江苏省无锡市新区长江路金城市场三楼", "江苏省无锡市***"),
        (masked_address, "江苏省张伟家后面的无锡市", "江苏省***"),
        (masked_address, "昆山市花桥镇", "昆山市***"),
        (masked_address, "张伟转交市长收", "***"),
        (masked_address, "12 Long Lane, Ely", "***"),
        (masked_birthday, "1980-02-29", "1980-**-**"),
        (masked_birthday, "张伟生于八零年", "***"),
    ],
)
def test_each_mask_shows_the_parts_that_it_lists(mask, value, shown):
    assert mask(value) == shown
    assert mask(None) is None
    assert mask("***") == "***"


@given(
    st.sampled_from([masked_phone, masked_identity_number, masked_account]), st.text("0123456789", min_size=1)
)
@example(masked_phone, "0" * 41)
def test_at_least_a_third_of_every_number_is_hidden(mask, number):
    shown = mask(number)
    assert shown == HIDDEN or shown.count("*") * 3 >= len(number)


SECRETS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="*"), min_size=2, max_size=40
)
HAN = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=1, max_size=6)


@given(st.sampled_from([masked_name, masked_phone, masked_email, masked_address, masked_birthday]), SECRETS)
def test_a_value_without_the_format_of_its_field_shows_one_character_at_most(mask, text):
    """Divisions, the digits of numbers and the domains of providers are of the field; nothing else is."""
    shown = mask(f"\u200b{text}".strip() or "\u200b")
    assert len(shown.replace("*", "").replace("@", "")) <= 1


@given(HAN, HAN, st.text("0123456789", min_size=1, max_size=4))
def test_an_address_shows_its_divisions_alone(name, street, number):
    shown = masked_address(f"广东省深圳市南山区科苑{street}路{number}号{name}家旁的朝阳市")
    assert shown == "广东省深圳市南山区***"


@given(st.text("0123456789'\"\\\n\x00,; 张伟Grace", min_size=1, max_size=30))
def test_a_mask_takes_any_text(text):
    for mask in (
        masked_name,
        masked_phone,
        masked_identity_number,
        masked_account,
        masked_email,
        masked_birthday,
    ):
        shown = mask(text)
        assert not {"\n", "\x00"} & set(shown)
        assert "伟" not in shown[1:]
