"""A currency that a caller sends is one of ISO 4217 that money can be booked in."""

import pytest
from customer.shapes import DeclaredAssetBody
from pydantic import ValidationError


@pytest.mark.parametrize("currency", ["CNX", "CNY\n", "cny", "XAU", "XTS", "XXX", "ＣＮＹ", ""])
def test_an_unknown_currency_is_refused(currency):
    with pytest.raises(ValidationError):
        DeclaredAssetBody(product="deposit", currency=currency, amount="1.00")


def test_decimals_are_those_of_the_currency():
    assert DeclaredAssetBody(product="deposit", currency="KWD", amount="1.005").amount == "1.005"
    with pytest.raises(ValidationError):
        DeclaredAssetBody(product="deposit", currency="JPY", amount="1.5")
