"""The destinations of `exports.yaml`."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from langfuse_export.catalog.strict import StrictModel
from langfuse_worker.blobstore import PART_BYTES, SCHEMES, StoreConfig

# Others have a meaning in keys or are refused; see `server_transfer`.
_CLICKHOUSE_TAKES = re.compile(r"[A-Za-z0-9._/-]*")


def _destination_url(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"must start with {', '.join(s + '://' for s in SCHEMES)}")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError("must be absolute: file:///directory/")
    if not rest.strip("/") or (scheme != "file" and rest.startswith("/")):
        raise ValueError("names no bucket or directory")
    if not value.endswith("/"):
        raise ValueError("must end with '/', because keys are appended to it")
    return value


class DestinationModel(StrictModel):
    """A bucket, container or directory that objects are written to."""

    url: Annotated[str, AfterValidator(_destination_url)] = Field(
        description="file:///dir/, s3://bucket/prefix/, az://container/prefix/ or gs://bucket/prefix/",
        examples=["s3://llm-archive/langfuse/"],
    )
    endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        description="Address of an S3-compatible store, of an emulator, or of Azure in another cloud.",
    )
    region: str | None = Field(default=None, description="s3: region. Without it: AWS_REGION.")
    access_key_id: str | None = Field(
        default=None, description="s3: key id. Without keys: the ambient credentials."
    )
    secret_access_key: SecretStr | None = Field(default=None, description="s3: secret key.")
    session_token: SecretStr | None = Field(default=None, description="s3: token of temporary keys.")
    assume_role_arn: str | None = Field(
        default=None,
        pattern="^arn:",
        description="s3: role that is assumed with the keys, or with the ambient credentials.",
    )
    external_id: str | None = Field(default=None, description="s3: external id that the role asks for.")
    force_path_style: bool = Field(
        default=True, description="s3: false puts the bucket into the host instead of the path."
    )
    sse_kms_key_id: str | None = Field(default=None, description="s3: KMS key for SSE-KMS.")
    account_name: str | None = Field(
        default=None, pattern="^[a-z0-9]{3,24}$", description="az: the storage account."
    )
    account_key: SecretStr | None = Field(
        default=None, description="az: key of the account. Without key and token: the ambient identity."
    )
    sas_token: SecretStr | None = Field(default=None, description="az: shared access signature.")
    service_account: SecretStr | None = Field(
        default=None,
        description="gs: key of a service account, as JSON or the path of its file. Unset: ambient.",
    )
    storage_class: str | None = Field(
        default=None, description="Storage class or access tier, such as STANDARD_IA."
    )
    part_bytes: int = Field(
        default=PART_BYTES,
        ge=5 << 20,
        le=5 << 30,
        description="Least size of an upload's parts, bytes; larger where a large object is expected.",
    )

    transfer: Literal["worker", "server"] = Field(
        default="worker",
        description="server: ClickHouse writes the objects itself (Parquet alone); the worker verifies them.",
    )
    named_collection: str | None = Field(
        default=None,
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
        description="s3, az; with transfer: server: ClickHouse's named collection that has the bucket's "
        "address and credentials.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        scheme = self.url.partition("://")[0]
        self._check_transfer(scheme)
        for name in sorted(self.model_fields_set - {"url"}):
            if scheme not in _SCHEMES_OF.get(name, SCHEMES):
                where = " and ".join(f"{s}://" for s in _SCHEMES_OF[name])
                raise ValueError(f"{name}: goes with {where}, not with {scheme}://")
        for name, needed in _NEEDS.items():
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise ValueError(f"{name}: needs {needed} beside it")
        if scheme == "az" and self.account_name is None:
            raise ValueError("account_name: az:// needs the name of the storage account")
        if self.account_key is not None and self.sas_token is not None:
            raise ValueError("sas_token: cannot be used together with account_key; leave one of them out")
        return self

    def _check_transfer(self, scheme: str) -> None:
        if self.transfer == "worker":
            if self.named_collection is not None:
                raise ValueError("named_collection: goes with transfer: server")
            return
        if scheme not in _SCHEMES_OF["named_collection"]:
            raise ValueError(f"transfer: server goes with s3:// and az://, not with {scheme}://")
        if self.named_collection is None:
            raise ValueError(
                "transfer: server needs a named_collection, from which ClickHouse has credentials"
            )
        if self.storage_class is not None:
            raise ValueError(
                "storage_class: cannot be set with transfer: server; use a lifecycle rule of the bucket"
            )
        if not _CLICKHOUSE_TAKES.fullmatch(prefix := self.store_config().path):
            raise ValueError(
                f"url: with transfer: server, a prefix has letters, digits and . _ - / alone, not {prefix!r}"
            )

    def store_config(self) -> StoreConfig:
        """The destination as the blob store takes it."""
        values: dict[str, Any] = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self
            if name not in ("transfer", "named_collection")
        }
        return StoreConfig(**values)


# Which store a key of a destination is for; the others are for all.
_SCHEMES_OF = {
    **dict.fromkeys(
        (
            "region",
            "access_key_id",
            "secret_access_key",
            "session_token",
            "assume_role_arn",
            "external_id",
            "force_path_style",
            "sse_kms_key_id",
        ),
        ("s3",),
    ),
    **dict.fromkeys(("account_name", "account_key", "sas_token"), ("az",)),
    "service_account": ("gs",),
    **dict.fromkeys(("endpoint", "storage_class", "part_bytes"), ("s3", "az", "gs")),
    "named_collection": ("s3", "az"),
}
_NEEDS = {
    "access_key_id": "secret_access_key",
    "secret_access_key": "access_key_id",
    "session_token": "access_key_id",
    "external_id": "assume_role_arn",
}
