"""What is shown of a personal value."""

import pytest
from customer.domain.masking import (
    masked_account,
    masked_address,
    masked_birthday,
    masked_email,
    masked_identity_number,
    masked_name,
    masked_phone,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("mask", "value", "shown"),
    [
        (masked_name, "张伟", "张*"),
        (masked_name, "欧阳修文", "欧阳*"),
        (masked_name, "Grace Bennett", "G*** Bennett"),
        (masked_name, "Grace", "G***"),
        (masked_phone, "13800001234", "138****1234"),
        (masked_phone, "010-8888999", "*******8999"),
        (masked_identity_number, "110101198002290011", "110***********0011"),
        (masked_account, "6222021234566789", "622202******6789"),
        (masked_account, "576", "**6"),
        (masked_email, "zhang@qq.com", "z***@qq.com"),
        (masked_email, "no address", "***"),
        (masked_address, "北京市朝阳区示例路12号", "北京市朝阳区***"),
        (masked_address, "广东省深圳市南山区科技园", "广东省深圳市南山区***"),
        (masked_address, "12 Long Lane, Ely", "12 Lo***"),
        (masked_birthday, "1980-02-29", "1980-**-**"),
    ],
)
def test_what_is_shown(mask, value, shown):
    assert mask(value) == shown
    assert mask(None) is None
    assert mask("***") == "***"


def test_a_company_is_no_person():
    assert masked_name("金桥贸易有限公司", "company") == "金桥贸易有限公司"


@given(
    st.sampled_from([masked_phone, masked_identity_number, masked_account]), st.text("0123456789", min_size=1)
)
def test_at_least_a_third_of_every_number_is_hidden(mask, number):
    shown = mask(number)
    assert shown.count("*") * 3 >= len(number)
