"""Parts of a heavy window that have been read wait in the destination until all of them have been.

A plan beside them says which parts there are and how each was read, so that any later attempt can go on.
"""

from contextlib import suppress
from datetime import datetime

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from langfuse_export.layout import INCOMPLETE
from langfuse_export.parts import Part, SortedKeys
from langfuse_worker.blobstore import BlobStore, ObjectNotFoundError, StoreError

log = structlog.get_logger()

_PLAN, _PLAN_TYPE = "plan.json", "application/json; charset=utf-8"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StagedPart(_Model):
    """The object of a part that has been read.

    Attributes:
        key: key below the destination's prefix.
        bytes: of its file, without the compression in which it lies there.
        sha256: of the object as it lies there, hex.
        data_end: where in a Parquet file the row groups end and the footer starts.
        fingerprint: which version of which rows ClickHouse had in the part when it was read.
        read_at: when reading began, by ClickHouse's clock.
    """

    key: str
    rows: int
    bytes: int
    sha256: str
    data_end: int | None
    fingerprint: int
    read_at: datetime
    query_id: str


class PlannedPart(_Model):
    """A part, how often it was halved, and its object once it has been read."""

    low: str | None
    high: str | None
    depth: int = 0
    staged: StagedPart | None = None

    @property
    def part(self) -> Part:
        """The part's bounds."""
        return Part(self.low, self.high)


class Plan(_Model):
    """The parts of a window in their order.

    Attributes:
        query: digest of the query, its settings and prices; parts of another one do not fit.
        prices_as_of: the moment of the prices in the parts, for tables with columns of prices; UTC.
        reason: why parts were halved last; None while the size that an earlier window needed is enough.
        in_vain: ids of queries that were too heavy, or whose rows have changed since; they have a cost, too.
    """

    query: str
    parts: tuple[PlannedPart, ...]
    prices_as_of: datetime | None = None
    reason: str | None = None
    in_vain: tuple[str, ...] = ()

    @classmethod
    def of(cls, query: str, parts: list[Part], prices_as_of: datetime | None) -> "Plan":
        """A plan of parts that nobody has read yet."""
        planned = tuple(PlannedPart(low=part.low, high=part.high) for part in parts)
        return cls(query=query, parts=planned, prices_as_of=prices_as_of)

    @property
    def pending(self) -> list[PlannedPart]:
        """The parts that have to be read."""
        return [part for part in self.parts if part.staged is None]

    @property
    def staged(self) -> list[StagedPart]:
        """The parts that have been read."""
        return [part.staged for part in self.parts if part.staged is not None]

    @property
    def queries(self) -> list[str]:
        """Ids of the queries that have read rows, or tried to."""
        return [*(part.query_id for part in self.staged), *self.in_vain]

    @property
    def rows_that_worked(self) -> int:
        """Rows of the largest part among the smallest, which are those that all others had to become."""
        depth = max(part.depth for part in self.parts)
        return max(part.staged.rows for part in self.parts if part.staged and part.depth == depth)

    def with_(self, changed: PlannedPart, staged: StagedPart | None) -> "Plan":
        """The plan after a part was read, or has to be read again."""
        parts = [
            part.model_copy(update={"staged": staged}) if part == changed else part for part in self.parts
        ]
        lost = [changed.staged.query_id] if changed.staged and staged is None else []
        return self.model_copy(update={"parts": tuple(parts), "in_vain": (*self.in_vain, *lost)})

    def halved(self, keys: SortedKeys, reason: str, query_id: str) -> "Plan":
        """The plan with every part that has to be read in halves; those that were read stay.

        Args:
            keys: where to cut.
            reason: why.
            query_id: the query that was too heavy.
        """
        parts: list[PlannedPart] = []
        for planned in self.parts:
            halves = [planned.part] if planned.staged else keys.halves(planned.part)
            is_cut, depth = len(halves) > 1, planned.depth + 1
            parts += (
                [PlannedPart(low=h.low, high=h.high, depth=depth) for h in halves] if is_cut else [planned]
            )
        in_vain = (*self.in_vain, query_id)
        return self.model_copy(update={"parts": tuple(parts), "reason": reason, "in_vain": in_vain})


def discard(store: BlobStore, key: str) -> bool:
    """Delete an object that nobody needs, if it is there; False if that cannot be done now."""
    try:
        with suppress(ObjectNotFoundError):
            store.delete(key)
    except StoreError as error:
        log.warning("blob_export_staging_not_removed", uri=store.uri(key), error=str(error))
        return False
    return True


def started_folders(store: BlobStore) -> set[str]:
    """Folders of windows, of any project, in which an attempt has left a plan; none if the store fails."""
    try:
        keys = store.keys(INCOMPLETE)
    except StoreError as error:
        log.warning("blob_export_staging_not_read", uri=store.uri(INCOMPLETE), error=str(error))
        return set()
    return {key.rpartition("/")[0] for key in keys if key.endswith(f"/{_PLAN}")}


class Staging:
    """The folder of one table's window."""

    def __init__(self, store: BlobStore, folder: str) -> None:
        self.store = store
        self._folder = folder

    def key_of(self, query_id: str) -> str:
        """Where the part that this query reads is put."""
        return f"{self._folder}/{query_id}.part"

    def written_by(self, query_id: str) -> str:
        """Where ClickHouse itself puts the window's file with this query."""
        return f"{self._folder}/{query_id}"

    def load(self) -> Plan | None:
        """The plan that an earlier attempt left. Raises StoreError."""
        try:
            return Plan.model_validate_json(self.store.read(self._plan_key))
        except ObjectNotFoundError:
            return None
        except ValidationError:  # of another version of this program
            log.warning("blob_export_staging_unreadable", uri=self.store.uri(self._plan_key))
            self.remove()
            return None

    def save(self, plan: Plan) -> None:
        """Replace the plan. Raises StoreError."""
        self.store.write_bytes(self._plan_key, plan.model_dump_json(indent=2).encode(), _PLAN_TYPE)

    def keys(self) -> list[str]:
        """Keys of what lies here. Raises StoreError."""
        return self.store.keys(self._folder)

    def remove(self) -> None:
        """Delete plan and parts, also those of attempts that were killed. What cannot be deleted stays."""
        try:
            # The plan last: without it, nobody would look here again.
            for key in sorted(self.keys(), key=lambda key: key == self._plan_key):
                self.store.delete(key)
        except StoreError as error:
            log.warning("blob_export_staging_not_removed", uri=self.store.uri(self._folder), error=str(error))

    @property
    def _plan_key(self) -> str:
        return f"{self._folder}/{_PLAN}"
