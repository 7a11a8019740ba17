"""Google Cloud Storage as far as the product speaks it: the XML API, keys of service accounts, and the
metadata server that gives out the identity of a machine.

No emulator that can be installed has the XML API's multipart uploads.
"""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cached_property
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from langfuse_worker.blobstore import StoreConfig
from tests.servers.http import Answering, HttpServer

EMAIL = "exporter@project.iam.gserviceaccount.com"
METADATA_TOKEN = "token-of-the-machine"
_NOW = formatdate(1_780_000_000, usegmt=True)


@dataclass
class _Object:
    data: bytes
    headers: dict[str, str]

    @property
    def e_tag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


class _Answering(Answering):
    owner: "GoogleServer"

    def _route(self) -> None:
        body = self.read_body()
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if parts.path.startswith("/computeMetadata/"):
            self._metadata()
            return
        bucket, _, key = parts.path.lstrip("/").partition("/")
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self.owner.knows(token):
            self._error(401, "AuthenticationRequired")
        elif self.owner.denied:
            self._error(403, "AccessDenied")
        elif bucket not in self.owner.buckets:
            self._error(404, "NoSuchBucket")
        elif not key:
            self._list(bucket, query)
        elif "uploads" in query or "uploadId" in query:
            self._multipart(bucket, unquote(key), query, body)
        else:
            self._object(bucket, unquote(key), body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _route

    def _metadata(self) -> None:
        if self.headers.get("Metadata-Flavor") != "Google":
            self._error(403, "Forbidden")
            return
        token = {"access_token": METADATA_TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        self.answer(200, json.dumps(token).encode(), {"Content-Type": "application/json"})

    def _object(self, bucket: str, key: str, body: bytes) -> None:
        objects = self.owner.buckets[bucket]
        if self.command == "PUT":
            objects[key] = _Object(body, self._metadata_headers())
            self.answer(200, b"", {"ETag": objects[key].e_tag})
        elif key not in objects:
            self._error(404, "NoSuchKey")
        elif self.command == "DELETE":
            del objects[key]
            self.answer(204)
        else:
            found = objects[key]
            self.answer(200, found.data, {**found.headers, "ETag": found.e_tag, "Last-Modified": _NOW})

    def _multipart(self, bucket: str, key: str, query: dict[str, str], body: bytes) -> None:
        uploads = self.owner.uploads
        if "uploads" in query:
            upload = f"upload-{len(uploads)}-{threading.get_ident()}"
            uploads[upload] = (bucket, key, {})
            self._xml(
                f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            )
        elif query["uploadId"] not in uploads:  # it has been aborted meanwhile
            self._error(404, "NoSuchUpload")
        elif self.command == "PUT":
            uploads[query["uploadId"]][2][int(query["partNumber"])] = body
            self.answer(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        elif self.command == "DELETE":
            del uploads[query["uploadId"]]
            self.answer(204)
        else:
            _, _, stored = uploads.pop(query["uploadId"])
            named = [
                int(n.text or 0) for n in ElementTree.fromstring(body).iter() if n.tag.endswith("PartNumber")
            ]
            whole = _Object(b"".join(stored[number] for number in named), {})
            self.owner.buckets[bucket][key] = whole
            tag = f"<ETag>{escape(whole.e_tag)}</ETag>"
            self._xml(f"<CompleteMultipartUploadResult>{tag}</CompleteMultipartUploadResult>")

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        contents, folders = "", {}
        for key, found in sorted(self.owner.buckets[bucket].items()):
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
                continue
            contents += (
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-06-01T00:00:00.000Z</LastModified>"
                f"<ETag>{escape(found.e_tag)}</ETag><Size>{len(found.data)}</Size></Contents>"
            )
        shown = "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders)
        self._xml(f"<ListBucketResult>{contents}{shown}</ListBucketResult>")

    def _metadata_headers(self) -> dict[str, str]:
        kept = ("content-type", "x-goog-storage-class")
        return {name: value for name, value in self.headers.items() if name.lower() in kept}

    def _error(self, status: int, code: str) -> None:
        self._xml(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", status)

    def _xml(self, text: str, status: int = 200) -> None:
        self.answer(status, text.encode(), {"Content-Type": "application/xml"})


@dataclass
class GoogleServer(HttpServer):
    """Buckets over HTTP, for tokens that the account has signed or that the machine was given.

    Attributes:
        buckets: objects by bucket and key.
        uploads: multipart uploads that are open: id to bucket, key and parts by number.
        denied: whether a valid token is not enough either.
    """

    handler = _Answering
    buckets: dict[str, dict[str, _Object]] = field(default_factory=dict)
    uploads: dict[str, tuple[str, str, dict[int, bytes]]] = field(default_factory=dict)
    denied: bool = False
    _key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def create_bucket(self, name: str) -> None:
        """Make a bucket, empty it if it is there."""
        self.buckets[name] = {}
        self.uploads = {id_: upload for id_, upload in self.uploads.items() if upload[0] != name}
        self.denied = False

    def keys(self, bucket: str) -> list[str]:
        """Names of the objects, sorted."""
        return sorted(self.buckets[bucket])

    def read(self, bucket: str, key: str) -> bytes:
        """Content of an object."""
        return self.buckets[bucket][key].data

    @cached_property
    def service_account(self) -> str:
        """The JSON key of a service account, as Google's console gives it out."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        document = {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "key-1",
            "private_key": pem.decode(),
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
        return json.dumps(document)

    def store_config(self, bucket: str, prefix: str = "") -> StoreConfig:
        """How the product reaches a bucket with the service account's key."""
        return StoreConfig(
            f"gs://{bucket}/{prefix}",
            endpoint=self.url,
            service_account=self.service_account,
        )

    def knows(self, token: str) -> bool:
        """Whether a bearer token is the machine's or signed by the account."""
        if token == METADATA_TOKEN:
            return True
        signed, _, signature = token.rpartition(".")
        try:
            claims = json.loads(_unpadded(signed.partition(".")[2]))
            self._key.public_key().verify(
                _unpadded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except (InvalidSignature, ValueError):
            return False
        return claims["iss"] == EMAIL and claims["exp"] > claims["iat"]


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
