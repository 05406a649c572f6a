"""Blind indexes: equal values have equal digests, and a value whose key is destroyed has none."""

from uuid import UUID

from chassis.privacy.keys import Origin, seal
from chassis.read.blind import BlindIndex, SealedAt

ONE, OTHER = UUID(int=1), UUID(int=2)


def sealed(key_ring, subject, field, value):
    key = key_ring.keys_for([subject])[subject]
    token = seal(key, Origin("things", subject, 1, "made").aad(field, key), value)
    return SealedAt({"t": token, "v": 1, "n": "made"}, "things", subject, field)


async def test_a_digest_is_of_the_value_and_its_field_and_goes_with_the_key(key_ring):
    blind = BlindIndex(key_ring)
    phone = sealed(key_ring, ONE, "phone", "1\n\x00")
    values = [phone, sealed(key_ring, OTHER, "phone", "1\n\x00"), sealed(key_ring, ONE, "mail", "1\n\x00")]
    one, same, other_field, nothing = await blind.digests([*values, phone._replace(value=None)])
    assert one == same == await BlindIndex(key_ring).digest("phone", "1\n\x00")
    assert other_field not in {None, one}
    assert nothing is None
    key_ring.erase([ONE])
    assert await blind.digests(values) == [None, same, None]
    assert await blind.digest("a", "b:c") != await blind.digest("a:1:b", "c")
