"""Whether ClickHouse keeps exports out of the way of people: users, constraints, priorities."""

import re
from collections.abc import Callable, Iterator, Mapping

from langfuse_export.catalog import CatalogError
from langfuse_export.doctor.subject import Subject
from langfuse_worker.clickhouse import ACCESS_DENIED, UNKNOWN_TABLE, ClickHouse, ClickHouseError
from langfuse_worker.doctor import Finding, ok, problem, warning
from langfuse_worker.doctor.clickhouse import PROFILES, ask, connected

_CEILINGS = ("max_threads", "max_memory_usage", "max_execution_time")
# Younger than the servers that have to know what is set with every query.
_HARMLESS = {
    "filter": "",
    "select": "",
    "output_format_float_precision": "0",
    "ignore_cold_parts_seconds": "0",
    "apply_patch_parts": "1",
}
_CANCEL = "cancel_http_readonly_queries_on_client_close"
_WRITES = re.compile(r"\b(ALL|INSERT|ALTER|CREATE|DROP|TRUNCATE)\b")
# As what ClickHouse counts the use of s3() and azureBlobStorage().
_FUNCTIONS = re.compile(r"\bCREATE TEMPORARY TABLE\b")
_GRANT_LOG = "GRANT SELECT ON system.query_log to the user of exports"

# Of other clients, whose comments do not have our product's name.
_OTHERS = """
SELECT user, toUInt64OrZero(Settings['priority']) AS priority, count()
FROM system.query_log
WHERE type = 'QueryFinish' AND is_initial_query AND event_date >= toDate(now() - 3600)
  AND event_time >= now() - 3600 AND JSONExtractString(log_comment, 'product') != 'langfuse-export'
GROUP BY user, priority ORDER BY count() DESC
"""


class _Setting:
    """A setting of this user's session."""

    def __init__(self, value: str, low: str | None, high: str | None, is_const: int) -> None:
        self.value = value
        self.is_bounded_above = bool(is_const) or high is not None
        self.is_bounded_below = bool(is_const) or (low is not None and int(low) > 0)


def check_user(subject: Subject) -> Iterator[Finding]:
    """Whether exports have a user of their own that can only read."""
    what = "clickhouse: user"
    with connected(subject.connect) as source:
        [(user,)] = ask(source, "SELECT currentUser()")
        grants = [row[0] for row in ask(source, "SHOW GRANTS")]
        others = {row[0]: row[2] for row in _others(source) or ()}
    by_server = _is_server_mode(subject)
    writes = [grant for grant in grants if _writes(grant, by_server)]
    if others.get(user):
        text = f"{user} also sent {others[user]} queries that are not exports in the last hour"
        yield warning(what, text, f"give exports a user of their own: {PROFILES}")
    elif writes:
        yield warning(what, f"{user} may write: {writes[0]}", f"exports need SELECT only: {PROFILES}")
    elif by_server:
        yield ok(what, f"{user} is used by exports only, and writes into buckets alone")
    else:
        yield ok(what, f"{user} is used by exports only, and can only read")


def _is_server_mode(subject: Subject) -> bool:
    try:
        return bool(subject.server_mode)
    except (CatalogError, ClickHouseError):
        return False  # the check of the catalog says why


def _writes(grant: str, by_server: bool) -> bool:
    """Whether a grant lets its user change data or tables."""
    privileges, _, target = grant.partition(" ON ")
    if by_server and target.startswith("*.*"):
        privileges = _FUNCTIONS.sub("", privileges)
    return bool(_WRITES.search(privileges))


def check_profile(subject: Subject) -> Iterator[Finding]:
    """Whether the profile bounds what a query may ask for, and ends the queries of workers that died."""
    with connected(subject.connect) as source:
        settings = _settings(source, (*_CEILINGS, "priority", _CANCEL, "readonly", *_HARMLESS))
    yield from _changed_results(settings)
    yield _constraints(settings)
    yield _cancelling(settings)


def _changed_results(settings: Mapping[str, _Setting]) -> Iterator[Finding]:
    for name, harmless in _HARMLESS.items():
        if name in settings and (value := settings[name].value) != harmless:
            text = f"{name} is {value!r}: it changes what queries of this user return, and no count tells"
            yield problem("clickhouse: results", text, f"remove {name} from its profile: {PROFILES}")


def _constraints(settings: Mapping[str, _Setting]) -> Finding:
    what = "clickhouse: constraints"
    open_ones = [name for name in _CEILINGS if not settings[name].is_bounded_above]
    if not settings["priority"].is_bounded_below:
        open_ones.append("priority")
    if open_ones:
        text = f"a query of this user may raise {', '.join(open_ones)}; values in a profile are only defaults"
        return warning(what, text, f"add <constraints> to its profile: {PROFILES}")
    return ok(what, "threads, memory, time and priority cannot be raised")


def _cancelling(settings: Mapping[str, _Setting]) -> Finding:
    what = "clickhouse: cancelling"
    if settings[_CANCEL].value in ("0", "false"):
        remedy = f"set {_CANCEL} = 1 and readonly = 2 in its profile: {PROFILES}"
        return warning(what, f"{_CANCEL} is off: a dead worker's query runs to its end", remedy)
    if settings["readonly"].value == "0":
        text = f"{_CANCEL} is set, but only works in readonly sessions"
        return warning(what, text, f"set readonly = 2 in its profile: {PROFILES}")
    return ok(what, "the query of a worker that dies is cancelled")


def check_query_log(subject: Subject) -> Iterator[Finding]:
    """Whether costs can be seen."""
    what = "clickhouse: query_log"
    with connected(subject.connect) as source:
        try:
            ask(source, "SELECT 1 FROM system.query_log WHERE event_date = today() LIMIT 1")
        except ClickHouseError as error:
            if error.code == UNKNOWN_TABLE:
                remedy = "switch <query_log> on in the server's configuration"
                yield warning(what, "there is none: costs stay unknown", remedy)
            elif error.code == ACCESS_DENIED:
                yield warning(what, "may not be read: costs stay unknown", _GRANT_LOG)
            else:
                raise
        else:
            yield ok(what, "can be read: `export history` shows what exports cost")


def check_priorities(subject: Subject) -> Iterator[Finding]:
    """Whether the priority of exports means anything beside those of other queries."""
    what, ours = "clickhouse: priorities", subject.settings.export_priority
    if ours == 0:
        remedy = "set LANGFUSE_CLICKHOUSE_DATA_EXPORT_PRIORITY=2"
        yield warning(what, "exports have priority 0, which switches priorities off for them", remedy)
        return
    with connected(subject.connect) as source:
        others = _others(source)
        profiles = _profile_priorities(source) if not others else []
    if others:
        yield _judged(what, ours, others)
    elif any(0 < priority < ours for priority in profiles):
        yield ok(what, f"no other queries in the last hour; profiles have {sorted(set(profiles))}")
    else:
        why = _GRANT_LOG if others is None else "look again when people have used Langfuse"
        text = (
            "there is no query of the last hour to tell from" if others == [] else "query_log tells nothing"
        )
        yield warning(what, text, f"{why}; interactive users need priority 1: {PROFILES}")


def _judged(what: str, ours: int, others: list[tuple[str, int, int]]) -> Finding:
    total = sum(count for _, _, count in others)
    urgent = sum(count for _, priority, count in others if 0 < priority < ours)
    never = [(user, count) for user, priority, count in others if not 0 < priority < ours]
    if not never:
        return ok(what, f"exports ({ours}) yield to all {total} other queries of the last hour")
    user, count = never[0]
    text = f"exports ({ours}) yield to {urgent} of {total} other queries of the last hour; {count} of {user} "
    return warning(
        what,
        text + "have no more urgent priority",
        f"give {user} a profile with priority 1; 0 is no priority: {PROFILES}",
    )


def _others(source: ClickHouse) -> list[tuple[str, int, int]] | None:
    """User, priority and number of other queries of the last hour; None where that cannot be read."""
    try:
        return [(str(user), int(priority), int(count)) for user, priority, count in ask(source, _OTHERS)]
    except ClickHouseError as error:
        if error.code in (ACCESS_DENIED, UNKNOWN_TABLE):
            return None
        raise


def _profile_priorities(source: ClickHouse) -> list[int]:
    sql = "SELECT toUInt64OrZero(value) FROM system.settings_profile_elements "
    try:
        return [int(row[0]) for row in ask(source, sql + "WHERE setting_name = 'priority'")]
    except ClickHouseError:
        return []  # takes rights that exports need not have


def _settings(source: ClickHouse, names: tuple[str, ...]) -> Mapping[str, _Setting]:
    sql = "SELECT name, value, min, max, readonly FROM system.settings WHERE "
    sql += "has(splitByChar(',', {names:String}), name)"
    return {name: _Setting(*rest) for name, *rest in ask(source, sql, names=",".join(names))}


CHECKS: Mapping[str, Callable[[Subject], Iterator[Finding]]] = {
    "clickhouse: user": check_user,
    "clickhouse: profile": check_profile,
    "clickhouse: priorities": check_priorities,
    "clickhouse: query_log": check_query_log,
}
