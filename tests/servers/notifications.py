"""Receivers of notifications: a webhook, and a mail server."""

from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from typing import Any, Self
from urllib.parse import quote

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.servers.http import Answering, HttpServer


class _Receiving(Answering):
    owner: "WebhookReceiver"

    def do_POST(self) -> None:
        self.owner.requests.append(({k.lower(): v for k, v in self.headers.items()}, self.read_body()))
        retry = self.owner.retry_after
        headers = {} if retry is None else {"Retry-After": str(retry)}
        self.answer(self.owner.statuses.pop(0) if self.owner.statuses else 200, headers=headers)


@dataclass
class WebhookReceiver(HttpServer):
    """Takes POST requests.

    Attributes:
        statuses: the answers to the next requests; 200 afterwards.
        retry_after: its header in every answer, seconds; none without.
        requests: headers, names in lower case, and body of each request.
    """

    handler = _Receiving
    statuses: list[int] = field(default_factory=list)
    retry_after: int | None = None
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        super().__enter__()
        self.url += "/services/T0/secret-path"
        return self


class _OnAnyPort(Controller):
    """Takes port 0 for any that is free."""

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        super()._trigger_server()


@dataclass
class MailServer:
    """SMTP with a user; keeps what it is sent.

    Attributes:
        recipients: of each mail, those of its envelope.
        goodbye: the answer to QUIT.
    """

    user: str = "langfuse"
    password: str = "p@ss/word"
    goodbye: str = "221 Bye"
    mails: list[Message] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._controller = _OnAnyPort(
            self,
            hostname="127.0.0.1",
            port=0,
            authenticator=self._authenticate,
            auth_required=True,
            auth_require_tls=False,
            ready_timeout=60,
        )
        self._controller.start()
        self.port = self._controller.port
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Called by aiosmtpd for each mail."""
        assert isinstance(envelope.content, bytes)
        self.recipients.append(list(envelope.rcpt_tos))
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Called by aiosmtpd at the end."""
        return self.goodbye

    @property
    def url(self) -> str:
        """SMTP_CONNECTION_URL of its user."""
        return f"smtp://{self.user}:{quote(self.password, safe='')}@127.0.0.1:{self.port}"

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any
    ) -> AuthResult:
        expected = LoginPassword(self.user.encode(), self.password.encode())
        # Not handled: aiosmtpd shall answer.
        return AuthResult(success=given == expected, handled=False)
