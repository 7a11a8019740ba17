"""`langfuse-worker notify`."""

import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from langfuse_export.notify.notice import trial_message
from langfuse_export.notify.notifier import Notifier
from langfuse_worker.console import fail, out
from langfuse_worker.logs import configure_logging
from langfuse_worker.settings import settings

app = typer.Typer(help="Who is told when exports fail, stop or work again.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Who is told when exports fail, stop or work again."""


@app.command("test")
def send_test(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")] = False,
) -> None:
    """Send a test message to every channel that is configured.

    Exit code 0 when all took it, 1 when one did not, 2 when none is configured.

    Example: EMAIL_FROM_ADDRESS=langfuse@example.com langfuse-worker notify test
    """
    config = settings()
    configure_logging("error")
    notifier = Notifier.from_settings(config)
    if not notifier.channels:
        prefix = "LANGFUSE_BLOB_STORAGE_FAILURE_NOTIFICATION_"
        owners = ", and owners of projects get no tests" if notifier.owner_mail else ""
        fail(
            f"no channel{owners}: set {prefix}WEBHOOK_URL, {prefix}SLACK_URL, or SMTP_CONNECTION_URL "
            f"with EMAIL_FROM_ADDRESS and {prefix}EMAIL_TO",
            code=2,
        )
    results = notifier.send(trial_message(datetime.now(UTC)))
    if as_json:
        print(json.dumps([{"channel": name, "error": error} for name, error in results.items()], indent=2))
    else:
        for name, error in results.items():
            out.print(f"{name}: {error or 'sent'}", markup=False)
    sys.exit(1 if any(results.values()) else 0)
