"""Redis of the queues, and the event log that their jobs point to."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

EVENT_UPLOAD_PREFIX = "LANGFUSE_S3_EVENT_UPLOAD_"


class QueueSettings(BaseSettings):
    """Redis of the queues, and the event log that their jobs point to."""

    redis_connection_string: SecretStr | None = Field(
        default=None,
        validation_alias="REDIS_CONNECTION_STRING",
        description="redis://user:password@host:6379/0 or rediss://. Wins over REDIS_HOST.",
    )
    redis_host: str | None = Field(
        default=None,
        validation_alias="REDIS_HOST",
        description="Redis of the queues. Unset, as REDIS_CONNECTION_STRING: an embedded server.",
    )
    redis_port: int = Field(
        default=6379, validation_alias="REDIS_PORT", ge=1, le=65535, description="Port of REDIS_HOST."
    )
    redis_auth: SecretStr = Field(
        default=SecretStr(""), validation_alias="REDIS_AUTH", description="Password of REDIS_HOST."
    )
    redis_tls_enabled: bool = Field(
        default=False, validation_alias="REDIS_TLS_ENABLED", description="Whether REDIS_HOST speaks TLS."
    )
    event_bucket: str | None = Field(
        default=None,
        validation_alias=EVENT_UPLOAD_PREFIX + "BUCKET",
        description="Bucket of the event log, or a URL such as az://container/. Unset: LANGFUSE_HOME/events.",
    )
    event_prefix: str = Field(
        default="",
        validation_alias=EVENT_UPLOAD_PREFIX + "PREFIX",
        description="What every key of the event log starts with, such as events/.",
    )
    event_region: str | None = Field(
        default=None, validation_alias=EVENT_UPLOAD_PREFIX + "REGION", description="Region of that bucket."
    )
    event_endpoint: str | None = Field(
        default=None,
        validation_alias=EVENT_UPLOAD_PREFIX + "ENDPOINT",
        description="Endpoint of an S3-compatible store.",
    )
    event_access_key_id: str | None = Field(
        default=None,
        validation_alias=EVENT_UPLOAD_PREFIX + "ACCESS_KEY_ID",
        description="Key id. Unset: the ambient credentials.",
    )
    event_secret_access_key: SecretStr | None = Field(
        default=None, validation_alias=EVENT_UPLOAD_PREFIX + "SECRET_ACCESS_KEY", description="Secret key."
    )
    event_concurrent_reads: int = Field(
        default=50,
        validation_alias="LANGFUSE_S3_CONCURRENT_READS",
        ge=1,
        le=1000,
        description="Objects of the event log that a consumer reads side by side.",
    )
