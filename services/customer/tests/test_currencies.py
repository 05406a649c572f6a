"""A currency that a caller sends is one of ISO 4217 that money can be booked in."""

import pytest
from customer.shapes import StatedAssetBody
from pydantic import ValidationError


@pytest.mark.parametrize("currency", ["CNX", "CNY\n", "cny", "XAU", "XTS", "XXX", "ＣＮＹ", ""])
def test_what_is_no_currency_is_refused(currency):
    with pytest.raises(ValidationError):
        StatedAssetBody(product="deposit", currency=currency, amount="1.00")


def test_decimals_are_those_of_the_currency():
    assert StatedAssetBody(product="deposit", currency="KWD", amount="1.005").amount == "1.005"
    with pytest.raises(ValidationError):
        StatedAssetBody(product="deposit", currency="JPY", amount="1.5")
