"""`/healthz` and `/readyz` of the consumers.

Healthy: every consumer gets on; one that waits for jobs does, one that hangs in a batch does not.
Ready: besides, Redis and ClickHouse answer, and nobody has asked to stop.
"""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from redis.exceptions import RedisError

from langfuse_ingest.consumers.pool import ConsumerPool
from langfuse_worker.clickhouse import ClickHouseError, Query, QueryComment, connect_for_ingestion
from langfuse_worker.clickhouse.limits import INGESTION_LIMITS
from langfuse_worker.redis import open_redis
from langfuse_worker.settings import Settings, SettingsError

_REDIS_S = 2
_LIMITS = replace(INGESTION_LIMITS, max_execution_time_s=1)


class Health:
    """Answers whether this deployment lives and is ready."""

    def __init__(self, settings: Settings, pools: Sequence[ConsumerPool]) -> None:
        """Watch these pools."""
        self._settings = settings
        self._pools = pools
        self._redis = open_redis(settings, once_within_s=_REDIS_S)
        self._clickhouse = connect_for_ingestion(settings, _LIMITS)
        self.stopping = False

    def healthz(self) -> tuple[bool, dict[str, Any]]:
        """Whether no consumer is wedged, and what each does."""
        consumers = [state for pool in self._pools for state in pool.states()]
        limit = self._settings.stuck_after_s
        wedged = [state.pid for state in consumers if state.alive and state.idle_s > limit]
        detail = [
            {"queue": s.queue, "pid": s.pid, "alive": s.alive, "secondsSinceProgress": round(s.idle_s, 1)}
            for s in consumers
        ]
        return not wedged, {"status": "wedged" if wedged else "ok", "wedged": wedged, "consumers": detail}

    def readyz(self) -> tuple[bool, dict[str, Any]]:
        """Whether events are being ingested now, and if not, what is missing."""
        missing: dict[str, str] = {}
        if self.stopping:
            missing["process"] = "is stopping"
        try:
            self._redis.ping()
        except RedisError as error:
            missing["redis"] = str(error)
        # The embedded engine is opened by one process at a time, so asking would wait for the consumers.
        if self._settings.clickhouse_url:
            try:
                self._clickhouse.rows(Query("SELECT 1", QueryComment(purpose="ready")))
            except ClickHouseError as error:
                missing["clickhouse"] = str(error)
        for pool in self._pools:
            if not pool.is_complete:
                reason = f" ({pool.died_of})" if pool.died_of else ""
                missing["consumers"] = f"one of {pool.shard} has died{reason} and is being restarted"
        return not missing, {"status": "ready" if not missing else "not ready", "missing": missing}


class HealthServer:
    """Serves the two answers."""

    def __init__(self, port: int, health: Health) -> None:
        """Bind to the port, on every interface; 0 picks one. Raises SettingsError when it is in use."""

        class Handler(_Handler):
            answers = health

        try:
            self._server = ThreadingHTTPServer(("", port), Handler)
        except OSError as error:
            raise SettingsError(f"LANGFUSE_WORKER_HEALTH_PORT={port}: {error.strerror}") from None
        self._server.daemon_threads = True
        # Consumers are forked. Those that outlive a killed supervisor would keep its port from the next one.
        os.register_at_fork(after_in_child=self._server.socket.close)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    answers: Health

    def log_message(self, format: str, *args: Any) -> None:
        """Probes are not logged."""

    def do_GET(self) -> None:
        """Answer 200 or 503 with JSON."""
        if self.path not in ("/healthz", "/readyz"):
            self.send_error(404)
            return
        ok, detail = self.answers.healthz() if self.path == "/healthz" else self.answers.readyz()
        body = json.dumps(detail).encode()
        self.send_response(200 if ok else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
