"""Settings of the notices: who carries them, and how many."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from chassis.connections.settings import PeerUrl, Settings
from chassis.notices.signing import secret_bytes
from chassis.notices.smtp import SmtpSecurity


def _secret(value: SecretStr) -> SecretStr:
    secret_bytes(value.get_secret_value())
    return value


WebhookSecret = Annotated[SecretStr, AfterValidator(_secret)]


class NoticeSettings(Settings):
    """The providers of notices. In development a channel without one prints; elsewhere its notices wait.

    `sms_url`, `push_url`: the gateways, with the secret that signs what goes to them and their receipts. `smtp_host`:
    the server that takes e-mail, from `smtp_sender`. The files `*_ca_file` name the authorities of providers in the house.
    `notices_to_each_per_day_max`: of each channel to one subject.
    """

    sms_url: PeerUrl | None = None
    sms_secret: WebhookSecret | None = None
    sms_ca_file: Path | None = None
    sms_per_second_max: int = Field(default=20, ge=1, le=10_000)
    push_url: PeerUrl | None = None
    push_secret: WebhookSecret | None = None
    push_ca_file: Path | None = None
    push_per_second_max: int = Field(default=50, ge=1, le=10_000)
    smtp_host: str | None = Field(default=None, min_length=1)
    smtp_port: int = Field(default=587, ge=1, le=65_535)
    smtp_security: SmtpSecurity = "starttls"
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_ca_file: Path | None = None
    smtp_sender: str = Field(default="", pattern=r"^([!-?A-~]{1,64}@[A-Za-z0-9.-]{1,190})?$")
    email_secret: WebhookSecret | None = None
    """Signs the receipts of e-mail."""
    email_per_second_max: int = Field(default=10, ge=1, le=10_000)
    notices_to_each_per_day_max: int = Field(default=20, ge=1, le=1_000)

    @model_validator(mode="after")
    def _providers_are_whole(self) -> Self:
        for channel, url, secret in (
            ("SMS", self.sms_url, self.sms_secret),
            ("PUSH", self.push_url, self.push_secret),
        ):
            if url is not None and secret is None:
                raise ValueError(f"CRM_{channel}_SECRET: what goes to CRM_{channel}_URL is signed")
            if url is not None and not url.startswith("https://") and not self.development:
                raise ValueError(f"CRM_{channel}_URL: notices go over TLS; http is for development")
        if self.smtp_host is not None and not self.smtp_sender:
            raise ValueError("CRM_SMTP_SENDER: e-mail has a sender")
        if self.smtp_host is not None and self.smtp_security == "none" and not self.development:
            raise ValueError("CRM_SMTP_SECURITY: e-mail goes over TLS; none is for development")
        return self
