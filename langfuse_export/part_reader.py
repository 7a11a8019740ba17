"""Reads a heavy window in parts, each into an object of its own, and joins them."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from langfuse_export.errors import (
    TooHeavyError,
    VerificationError,
    is_shared_shortage,
    is_too_heavy,
    reason_of,
)
from langfuse_export.joining import PartFile, join
from langfuse_export.parts import MAX_PARTS, WHOLE, Part, PartSize
from langfuse_export.staging import Plan, PlannedPart, StagedPart, Staging
from langfuse_export.verified_stream import VerifiedStream
from langfuse_export.window_source import WindowSource
from langfuse_export.windows import EPOCH
from langfuse_worker.blobstore import ObjectNotFoundError
from langfuse_worker.clickhouse import ClickHouseError, Query


class LostPartError(VerificationError):
    """The object of a part is not there or not as it was written; the part has to be read again."""

    def __init__(self, message: str, planned: PlannedPart) -> None:
        super().__init__(message)
        self.planned = planned


@dataclass(frozen=True)
class PartReader:
    """The parts of one table of one window.

    Attributes:
        on_bytes: hears of bytes that came from ClickHouse.
        on_split: hears of an error that made the window be halved, and of its parts now.
    """

    source: WindowSource
    staging: Staging
    on_bytes: Callable[[int], None]
    on_split: Callable[[ClickHouseError, int], None]

    def begin(self, rows: int, size: PartSize | None) -> Plan | None:
        """The plan to go on with: an earlier attempt's, or one of the size that earlier windows needed.

        None if the window is to be read at once. Raises ClickHouseError, StoreError.

        Args:
            rows: rows of the window.
            size: what is known of earlier windows.
        """
        left = self.staging.load()
        if left is not None and left.query == self._query_digest:
            return self._still_valid(left)
        if left is not None:  # of other columns, prices or settings, or another format
            self.staging.remove()
        parts = size.parts_of(rows) if size else 1
        if parts == 1:
            return None
        return self._plan(self.source.sample_keys().cut(parts))

    def halve(
        self, plan: Plan | None, failed: PlannedPart | None, query: Query, error: ClickHouseError
    ) -> Plan:
        """Cut what has to be read in halves, and remember that.

        Args:
            plan: None after the window could not be read at once.
            failed: the part that could not be read, if there were parts.
            query: which would have read it.
            error: what ClickHouse said.

        Raises:
            TooHeavyError: there is nothing left to cut.
        """
        before = plan or self._plan([WHOLE])
        after = before.halved(self.source.sample_keys(), reason_of(error), query.query_id)
        if len(after.parts) > MAX_PARTS or (failed or before.parts[0]) in after.parts:
            raise TooHeavyError(self._advice(len(before.parts), error)) from error
        self.staging.save(after)
        self.on_split(error, len(after.parts))
        if is_shared_shortage(error):  # the halves may do no better now; a retry comes later and finds them
            raise error
        return after

    def read(self, plan: Plan, rows: int) -> Plan:
        """Read the parts that have not been read; returns the plan with all of them staged.

        Args:
            plan: the parts.
            rows: rows of the window.

        Raises:
            TooHeavyError: even the smallest parts are.
            ClickHouseError, StoreError, VerificationError: parts that were read before stay.
        """
        # Prices of an earlier attempt's parts are those of now, or the digest would differ.
        source = self.source.with_prices_as_of(plan.prices_as_of)
        while plan.pending:
            planned = plan.pending[0]
            query = source.query(planned.part, rows)
            try:
                staged = self._read(source, planned.part, query)
            except ClickHouseError as error:
                if not is_too_heavy(error):
                    raise
                plan = self.halve(plan, planned, query, error)
            else:
                plan = plan.with_(planned, staged)
                self.staging.save(plan)
        return plan

    def joined(self, plan: Plan) -> Iterator[bytes]:
        """The file of the whole window. Raises VerificationError, StoreError."""
        staged = [(planned, planned.staged) for planned in plan.parts if planned.staged]
        files = (PartFile(self._content(planned), part.data_end) for planned, part in staged)
        return join(self.source.project.encoding.format, files)

    def give_up(self, plan: Plan, lost: PlannedPart) -> None:
        """Have the next attempt read a lost part again, and with it all others that are gone.

        Raises:
            StoreError: the store does not answer.
        """
        there = set(self.staging.keys())
        for planned in plan.parts:
            if planned.staged and (planned == lost or planned.staged.key not in there):
                plan = plan.with_(planned, None)
        self.staging.save(plan)

    def _read(self, source: WindowSource, part: Part, query: Query) -> StagedPart:
        before = source.summarise(part)
        encoding = source.project.encoding.of_parts
        stream = VerifiedStream(encoding, source.table, source.cancellation, self.on_bytes)
        key = self.staging.key_of(query.query_id)
        with source.stream(query) as chunks:
            checked = stream.pass_through(chunks, lambda rows: source.agree(rows, before, part))
            self.staging.store.write(key, checked, encoding.content_type)
        return StagedPart(
            key=key,
            rows=stream.rows,
            bytes=stream.bytes,
            sha256=stream.sha256,
            data_end=stream.content.data_end,
            fingerprint=before.fingerprint,
            read_at=EPOCH + timedelta(milliseconds=before.read_at_ms),
            query_id=query.query_id,
        )

    def _content(self, planned: PlannedPart) -> Iterator[bytes]:
        encoding = self.source.project.encoding.of_parts
        return encoding.decompressed(self._checked(planned))

    def _checked(self, planned: PlannedPart) -> Iterator[bytes]:
        assert planned.staged is not None
        digest = hashlib.sha256()
        try:
            for chunk in self.staging.store.stream(planned.staged.key):
                digest.update(chunk)
                yield chunk
        except ObjectNotFoundError as error:
            raise LostPartError(f"a part that was read is gone: {error}", planned) from error
        if digest.hexdigest() != planned.staged.sha256:
            uri = self.staging.store.uri(planned.staged.key)
            raise LostPartError(f"{uri} has changed since it was written", planned)

    def _still_valid(self, plan: Plan) -> Plan:
        """The plan without parts whose rows have changed since they were read."""
        for planned in plan.parts:
            if (
                planned.staged
                and self.source.summarise(planned.part).fingerprint != planned.staged.fingerprint
            ):
                plan = plan.with_(planned, None)
        return plan

    def _plan(self, parts: list[Part]) -> Plan:
        return Plan.of(self._query_digest, parts, self.source.prices_as_of)

    @property
    def _query_digest(self) -> str:
        # Whenever the prices were read: parts with the same prices fit together.
        query = self.source.with_prices_as_of(EPOCH).query(WHOLE)
        whole = [
            query.sql,
            *(sorted(p.items()) for p in (query.parameters, query.settings, query.secrets, query.lists)),
        ]
        return hashlib.sha256(repr([self.source.project.encoding.of_parts, *whole]).encode()).hexdigest()

    def _advice(self, parts: int, error: ClickHouseError) -> str:
        limits = self.source.project.limits
        what = "a single key" if parts < MAX_PARTS // 2 else f"one of {parts} parts"
        return (
            f"{what} of the window is still too heavy for max_memory_usage = {limits.max_memory_usage} bytes "
            f"and max_execution_time = {limits.max_execution_time_s} s. Raise "
            "LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_MEMORY_USAGE or "
            "LANGFUSE_CLICKHOUSE_DATA_EXPORT_REQUEST_TIMEOUT_MS (or the project's limits, if they are lower) "
            f"or choose a shorter frequency or fewer columns. ClickHouse said: {error}"
        )
