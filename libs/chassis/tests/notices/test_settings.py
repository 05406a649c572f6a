"""Settings of the notices, and the providers that they name."""

from typing import Any

import pytest
from chassis.connections.settings import complaint
from chassis.notices.providers import PrintingProvider
from chassis.notices.role import providers_of, receipt_secrets
from chassis.notices.settings import NoticeSettings
from chassis.notices.smtp import SmtpProvider
from chassis.notices.webhook import WebhookProvider
from pydantic import ValidationError

from tests.support.specification import ManualClock

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def settings(**values: Any) -> NoticeSettings:
    """Settings of production."""
    return NoticeSettings(**{"postgres_url": "postgresql://nowhere", "environment": "production", **values})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sms_url": "https://sms.example/send"}, "CRM_SMS_SECRET"),
        ({"push_url": "https://push.example/send"}, "CRM_PUSH_SECRET"),
        ({"sms_url": "ftp://sms.example", "sms_secret": SECRET}, "CRM_SMS_URL"),
        ({"sms_url": "http://sms.example/send", "sms_secret": SECRET}, "CRM_SMS_URL: notices go over TLS"),
        ({"sms_secret": "hush"}, "CRM_SMS_SECRET"),
        ({"smtp_host": "mail.example"}, "CRM_SMTP_SENDER"),
        (
            {"smtp_host": "mail.example", "smtp_sender": "a@b.example", "smtp_security": "none"},
            "SMTP_SECURITY",
        ),
        ({"smtp_sender": "a@b.example\r\nBcc: x@example.com"}, "CRM_SMTP_SENDER"),
        ({"sms_per_second_max": 0}, "CRM_SMS_PER_SECOND_MAX"),
    ],
)
def test_settings_that_are_not_whole_are_named_and_their_secrets_are_not_told(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**values)
    text = complaint(refused.value)
    assert said in text
    assert "hush" not in text


async def test_a_channel_without_a_provider_prints_in_development_alone() -> None:
    clock = ManualClock()
    async with providers_of(settings(environment="development"), clock) as found:
        assert {type(one) for one in found.values()} == {PrintingProvider}
        assert set(found) == {"sms", "email", "push"}
    async with providers_of(settings(), clock) as found:
        assert found == {}


async def test_the_settings_name_the_provider_of_each_channel() -> None:
    named = settings(
        sms_url="https://sms.example/send",
        sms_secret=SECRET,
        smtp_host="mail.example",
        smtp_sender="bank@example.org",
        smtp_password="hush",
        email_secret=SECRET,
    )
    async with providers_of(named, ManualClock()) as found:
        assert isinstance(found["sms"], WebhookProvider)
        assert isinstance(found["email"], SmtpProvider)
        assert "push" not in found
    assert set(receipt_secrets(named)) == {"sms", "email"}
    assert "hush" not in repr(named)
    assert SECRET not in repr(named)
