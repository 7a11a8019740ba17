"""Which projects are exported, and what their catalog may say."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from langfuse_worker.settings.types import (
    Addresses,
    CommaSeparated,
    EncryptionKey,
    HostNames,
    Networks,
    PostgresUrl,
)

ENDPOINT_PREFIX = "LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_"


class CatalogSettings(BaseSettings):
    """Which projects are exported, and what their catalog may say."""

    export_config: Path | None = Field(
        default=None,
        validation_alias="LANGFUSE_EXPORT_CONFIG",
        description=(
            "Path of exports.yaml. Unset: DATABASE_URL, or, embedded, all projects to LANGFUSE_HOME/blobs."
        ),
    )
    database_url: PostgresUrl | None = Field(
        default=None,
        validation_alias="DATABASE_URL",
        description="Langfuse's Postgres: exports what its projects have set up there. Unset: exports.yaml.",
    )
    encryption_key: EncryptionKey | None = Field(
        default=None,
        validation_alias="ENCRYPTION_KEY",
        description="Langfuse's key for the secrets in its Postgres, 64 hex digits.",
    )
    trace_only_projects: CommaSeparated = Field(
        default=(),
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_TRACE_ONLY_PROJECT_IDS",
        description="Projects of Langfuse's Postgres that export traces alone, separated by commas.",
    )
    export_prices: bool = Field(
        default=False,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_PRICES",
        description="Whether projects of Langfuse's Postgres export prices of models; see `prices`.",
    )
    export_skip_empty: bool = Field(
        default=False,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_SKIP_EMPTY",
        description="Whether projects of Langfuse's Postgres have no objects without rows; see `skip_empty`.",
    )
    export_mask_key: SecretStr | None = Field(
        default=None,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_MASK_KEY",
        min_length=16,
        description="Secret of hashed columns (`mask` in exports.yaml); the same key gives the same hashes.",
    )
    endpoint_allowed_hosts: HostNames = Field(
        default=(),
        validation_alias=ENDPOINT_PREFIX + "HOST",
        description="Hosts that endpoints from the database may have, whatever their addresses.",
    )
    endpoint_allowed_ips: Addresses = Field(
        default=(),
        validation_alias=ENDPOINT_PREFIX + "IPS",
        description="Private addresses that endpoints from the database may have.",
    )
    endpoint_allowed_networks: Networks = Field(
        default=(),
        validation_alias=ENDPOINT_PREFIX + "IP_SEGMENTS",
        description="Private networks that endpoints from the database may be in, such as 10.1.0.0/16.",
    )
