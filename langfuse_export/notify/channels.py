"""The ways a message goes. Each raises `DeliveryError` without the secrets that its address may hold."""

import hashlib
import hmac
import json
import smtplib
import ssl
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import urllib3

from langfuse_export.notify.notice import Message

TIMEOUT_S = 5
ATTEMPTS = 2
SIGNATURE_HEADER = "X-Langfuse-Signature"


class DeliveryError(Exception):
    """A message was not taken."""


class Channel(Protocol):
    """One way for messages to go."""

    @property
    def name(self) -> str:
        """For logs and people; no address."""
        ...

    def send(self, message: Message) -> None:
        """Send it, within some seconds. Raises DeliveryError."""
        ...


@dataclass(frozen=True)
class Webhook:
    """POSTs JSON, signed with HMAC-SHA256 if there is a secret."""

    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    name: str = "webhook"

    def send(self, message: Message) -> None:
        """See `Channel`."""
        body = json.dumps(message.body, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if self.secret:
            headers[SIGNATURE_HEADER] = signature(self.secret, body, int(time.time()))
        _post(self.url, body, headers)


def signature(secret: str, body: bytes, timestamp: int) -> str:
    """The header's value: `t=<seconds>,v1=<hex HMAC-SHA256 of "<seconds>.<body>">`."""
    signed = f"{timestamp}.".encode() + body
    return f"t={timestamp},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


@dataclass(frozen=True)
class Slack:
    """An incoming webhook of Slack."""

    url: str = field(repr=False)
    name: str = "slack"

    def send(self, message: Message) -> None:
        """See `Channel`."""
        text = f"*{message.subject}*\n{message.text}"  # with names that users chose, even <!channel>
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        body = json.dumps({"text": escaped}).encode()
        _post(self.url, body, {"Content-Type": "application/json; charset=utf-8"})


@dataclass(frozen=True)
class Email:
    """SMTP; `smtps://` from the first byte on encrypted, `smtp://` as soon as the server offers it.

    Attributes:
        url: smtp://user:password@host:587, as Langfuse's SMTP_CONNECTION_URL.
    """

    url: str = field(repr=False)
    sender: str
    recipients: tuple[str, ...]
    name: str = "email"

    def send(self, message: Message) -> None:
        """See `Channel`."""
        [error] = self.deliver([(self.recipients, message)])
        if error:
            raise DeliveryError(error)

    def deliver(self, mails: Sequence[tuple[tuple[str, ...], Message]]) -> list[str | None]:
        """Send messages to recipients of their own over one connection; for each, what went wrong."""
        try:
            with closing(self._connect()) as server:
                parts = urlsplit(self.url)
                if parts.username:
                    server.login(unquote(parts.username), unquote(parts.password or ""))
                errors = [self._send(server, recipients, message) for recipients, message in mails]
                # What the server has taken is sent, however it says goodbye.
                with suppress(OSError, smtplib.SMTPException):
                    server.quit()
                return errors
        except (OSError, smtplib.SMTPException) as error:
            return [self._said(error)] * len(mails)
        except ValueError:  # whose message may hold a piece of the password
            said = "SMTP_CONNECTION_URL cannot be used: its parts must be ASCII, and percent-encoded"
            return [said] * len(mails)

    def _send(self, server: smtplib.SMTP, recipients: tuple[str, ...], message: Message) -> str | None:
        mail = EmailMessage()
        try:
            # Names of projects come from users.
            mail["Subject"] = " ".join(message.subject.split())
            mail["From"], mail["To"] = self.sender, ", ".join(recipients)
            mail.set_content(message.text + "\n")
            refused = server.send_message(mail)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            return self._said(error)
        return f"refused for {', '.join(refused)}" if refused else None

    def _connect(self) -> smtplib.SMTP:
        parts = urlsplit(self.url)
        host = parts.hostname or "localhost"
        verify = parse_qs(parts.query).get("tls.rejectUnauthorized", ["true"])[0] != "false"
        context = ssl.create_default_context() if verify else ssl._create_unverified_context()
        if parts.scheme == "smtps" or parts.port == 465:
            return smtplib.SMTP_SSL(host, parts.port or 465, timeout=TIMEOUT_S, context=context)
        server = smtplib.SMTP(host, parts.port or 587, timeout=TIMEOUT_S)
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=context)
        return server

    def _said(self, error: Exception) -> str:
        password = urlsplit(self.url).password
        text = str(error).replace(unquote(password), "***") if password else str(error)
        return f"{type(error).__name__}: {text}"


def _post(url: str, body: bytes, headers: dict[str, str]) -> None:
    retries = urllib3.Retry(
        ATTEMPTS - 1,
        redirect=0,
        status_forcelist=(500, 502, 503, 504),
        allowed_methods=None,  # POST, too: a message that comes twice is better than none
        backoff_factor=0.2,
        raise_on_status=False,
        respect_retry_after_header=False,  # it may ask for an hour, and a sensor's tick has a minute
    )
    try:
        answer = urllib3.request("POST", url, body=body, headers=headers, retries=retries, timeout=TIMEOUT_S)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        # Its message has the address, whose path is the secret of many webhooks.
        cause = getattr(error, "reason", None) or error
        raise DeliveryError(f"no answer: {type(cause).__name__}") from None
    if answer.status >= 300:
        raise DeliveryError(f"answered {answer.status}")
