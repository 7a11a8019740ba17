"""What happens when exports fail, and who is told."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from langfuse_worker.settings.types import CommaSeparated

NOTIFICATION_PREFIX = "LANGFUSE_BLOB_STORAGE_FAILURE_NOTIFICATION_"


class HealthSettings(BaseSettings):
    """What happens when exports fail, and who is told."""

    export_stop_after_failures: int = Field(
        default=3,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_STOP_AFTER_FAILURES",
        ge=1,
        le=100,
        description="Failed attempts in a row after which a project that its destination refuses is stopped.",
    )
    export_stop_after_s: float = Field(
        default=600.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_STOP_AFTER_S",
        ge=0,
        le=604_800,
        description="Seconds for which a destination has to refuse at least before its project is stopped.",
    )
    export_probe_hours: float = Field(
        default=24.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_PROBE_HOURS",
        gt=0,
        le=24 * 31,
        description="How often a stopped project is tried nevertheless, hours.",
    )
    export_backoff_first_s: float = Field(
        default=300.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_BACKOFF_FIRST_S",
        gt=0,
        le=86_400,
        description="Seconds from a failed run to the next attempt of its project; doubles.",
    )
    export_backoff_max_s: float = Field(
        default=21_600.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_BACKOFF_MAX_S",
        gt=0,
        le=604_800,
        description="Seconds between two attempts of a project at most.",
    )
    export_behind_hours: float = Field(
        default=6.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_BEHIND_NOTICE_HOURS",
        ge=0,
        le=24 * 31,
        description="Hours that a due window may wait, nothing failing, before people are told; 0: for ever.",
    )
    notification_cooldown_hours: float = Field(
        default=24.0,
        validation_alias=NOTIFICATION_PREFIX + "COOLDOWN_HOURS",
        ge=0,
        le=24 * 31,
        description="Least time between two notifications that a project fails or is behind, hours.",
    )
    notify_webhook_url: SecretStr | None = Field(
        default=None,
        validation_alias=NOTIFICATION_PREFIX + "WEBHOOK_URL",
        description="URL that is sent JSON when exports fail, stop or work again.",
    )
    notify_webhook_secret: SecretStr | None = Field(
        default=None,
        validation_alias=NOTIFICATION_PREFIX + "WEBHOOK_SECRET",
        description="Key of the HMAC-SHA256 in that webhook's X-Langfuse-Signature.",
    )
    notify_slack_url: SecretStr | None = Field(
        default=None,
        validation_alias=NOTIFICATION_PREFIX + "SLACK_URL",
        description="Slack's incoming webhook for the same.",
    )
    notify_email_to: CommaSeparated = Field(
        default=(),
        validation_alias=NOTIFICATION_PREFIX + "EMAIL_TO",
        description="Who gets mail of the same, separated by commas.",
    )
    notify_owners: bool = Field(
        default=True,
        validation_alias=NOTIFICATION_PREFIX + "EMAIL_OWNERS",
        description="Whether a project's owners and admins in Langfuse's Postgres get mail of it, too.",
    )
    smtp_url: SecretStr | None = Field(
        default=None,
        validation_alias="SMTP_CONNECTION_URL",
        description="smtp://user:password@host:587 or smtps://, for mail.",
    )
    email_from: str | None = Field(
        default=None, validation_alias="EMAIL_FROM_ADDRESS", description="Sender of mail."
    )
