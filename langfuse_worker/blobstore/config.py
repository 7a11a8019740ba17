"""Where a store is and how to get in."""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from langfuse_worker.blobstore.parts import PART_BYTES

SCHEMES = ("file", "s3", "az", "gs")


@dataclass(frozen=True)
class StoreConfig:
    """A bucket, container or directory. Without credentials, the ambient ones are used.

    Attributes:
        url: `file:///dir/`, `s3://bucket/prefix/`, `az://container/prefix/` or `gs://bucket/prefix/`. What
            follows the bucket is put before every key as it is.
        endpoint: address of an S3-compatible store, of an emulator, or of Azure in another cloud.
        region: of S3. Unset: AWS_REGION, else us-east-1.
        access_key_id, secret_access_key, session_token: keys of S3; the token goes with temporary ones.
        assume_role_arn, external_id: role on AWS that is assumed with those keys, or the ambient ones.
        force_path_style: false puts S3's bucket into the host, unless it has dots or the host is an address.
        account_name: the storage account of Azure.
        account_key, sas_token: one of them, or neither for a managed or workload identity.
        service_account: key of a Google service account, as JSON or as the path of its file.
        part_bytes: least size of an upload's parts. Files have none.
        untrusted_endpoint: whether a user chose where the store is, as in Langfuse's Postgres. Every address
            is then checked before it is connected to (`langfuse_worker.endpoints`).
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    assume_role_arn: str | None = None
    external_id: str | None = None
    force_path_style: bool = True
    sse_kms_key_id: str | None = None
    storage_class: str | None = None
    account_name: str | None = None
    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    service_account: str | None = field(default=None, repr=False)
    part_bytes: int = PART_BYTES
    untrusted_endpoint: bool = False

    @property
    def scheme(self) -> str:
        """One of SCHEMES."""
        return urlsplit(self.url).scheme

    @property
    def bucket(self) -> str:
        """The bucket or container; empty for a directory."""
        return urlsplit(self.url).netloc

    @property
    def path(self) -> str:
        """The directory, or the prefix of every key."""
        path = unquote(urlsplit(self.url).path)
        return path if self.scheme == "file" else path.lstrip("/")

    @property
    def service_account_key(self) -> str | None:
        """The `service_account` where it is the JSON itself, and not the path of its file."""
        return self.service_account if (self.service_account or "").lstrip().startswith("{") else None

    def masked(self, text: str) -> str:
        """The text without the secrets of this store, should an error quote them."""
        secrets = (self.secret_access_key, self.session_token, self.account_key, self.sas_token)
        for secret in (*secrets, self.service_account_key):
            text = text.replace(secret, "***") if secret else text
        return text
