"""The health of a project: pure decisions, with a clock of the tests' own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langfuse_export.health.fingerprint import fingerprint
from langfuse_export.health.notice_kind import NoticeKind
from langfuse_export.health.policy import HealthPolicy
from langfuse_export.health.state import Failure, Health, State
from langfuse_export.layout import hive
from langfuse_export.tables import TABLES
from langfuse_export.windows import Frequency
from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.settings import Settings
from langfuse_worker.store_faults import AccessFault
from tests.export.project import project_export

NOW = datetime(2026, 6, 1, tzinfo=UTC)
POLICY = HealthPolicy()
DENIED = Failure(
    windows=("w1",), reason="destination_access", error="403", blocks=True, fault=AccessFault.CREDENTIALS
)
DOWN = Failure(windows=("w1",), reason="destination_unavailable", error="503", blocks=True)
BROKEN = Failure(windows=("w1",), reason="clickhouse_memory", error="memory", blocks=False)


def minutes(count: float) -> timedelta:
    """So many minutes."""
    return timedelta(minutes=count)


def _failing_for(failure: Failure, duration: timedelta) -> tuple[Health, list[timedelta]]:
    """A project that fails from `NOW` on and is tried whenever that is due; and when it was tried."""
    health, now, attempts = Health().failed(failure, POLICY, NOW), NOW, [timedelta(0)]
    while health.next_attempt is not None and health.next_attempt - NOW < duration:
        now = health.next_attempt
        attempts.append(now - NOW)
        health = health.asked(POLICY, now).failed(failure, POLICY, now)
    return health, attempts


@pytest.mark.parametrize(
    ("attempts", "delay"),
    [(0, 0), (1, 5), (2, 10), (3, 20), (6, 160), (7, 320), (8, 360), (9, 360), (10**6, 360)],
)
def test_delays_double_from_five_minutes_to_six_hours(attempts: int, delay: int) -> None:
    assert POLICY.delay(attempts) == minutes(delay)


def test_the_longest_delay_that_can_be_set_is_borne_for_ever() -> None:
    day = timedelta(days=1)
    assert HealthPolicy(first_delay=day, max_delay=day).delay(10_000) == day


def test_a_destination_that_is_down_for_a_day_is_tried_ten_times_and_never_stops() -> None:
    """Defect D14 of Langfuse: 360 attempts a day, whatever the frequency."""
    health, attempts = _failing_for(DOWN, timedelta(days=1))

    assert [attempt // minutes(1) for attempt in attempts] == [
        0, 5, 15, 35, 75, 155, 315, 635, 995, 1355,
    ]  # fmt: skip
    assert health.state is State.BACKING_OFF


def test_one_refusal_stops_nothing_three_over_some_time_do() -> None:
    """Defect D15 of Langfuse: the first refusal ends the export until somebody comes."""
    once = Health().failed(DENIED, POLICY, NOW)
    assert once.state is State.BACKING_OFF

    stopped, attempts = _failing_for(DENIED, minutes(16))

    assert len(attempts) == 3
    assert stopped.state is State.STOPPED
    assert stopped.next_attempt == NOW + minutes(15) + timedelta(days=1)


def test_refusals_within_a_moment_are_one_piece_of_evidence() -> None:
    health = Health()
    for second in range(20):  # runs that were queued when the destination began to refuse
        health = health.failed(DENIED, POLICY, NOW + timedelta(seconds=second))

    assert health.state is State.BACKING_OFF
    assert health.next_attempt == NOW + minutes(5)
    assert health.user_faults == 1


def test_a_window_that_fails_by_itself_does_not_hold_up_the_others() -> None:
    health = Health().failed(BROKEN, POLICY, NOW)
    for hour in range(1, 24):
        health = health.exported((f"hour{hour}",), NOW + timedelta(hours=hour))

    assert health.state is State.RETRYING
    assert health.windows == ("w1",)
    assert health.next_attempt == NOW + minutes(5)


def test_windows_that_all_fail_by_themselves_wait_as_if_the_project_did() -> None:
    health = Health()
    for hour in range(3):
        failure = BROKEN.model_copy(update={"windows": (f"hour{hour}",)})
        health = health.failed(failure, POLICY, NOW + timedelta(hours=hour))

    assert health.state is State.BACKING_OFF
    assert health.windows == ("hour0", "hour1", "hour2")


def test_a_lasting_failure_of_a_window_is_left_to_people_in_the_end() -> None:
    health = Health().failed(BROKEN, POLICY, NOW)
    tried = 0
    while health.next_attempt is not None:
        now = health.next_attempt
        health = health.asked(POLICY, now)
        if health.next_attempt is None:
            break
        health = health.exported(("another",), now).failed(BROKEN, POLICY, now)
        tried += 1

    assert tried == POLICY.max_rounds - 1
    assert health.windows == ("w1",)


def test_an_attempt_whose_process_was_killed_counts_as_failed() -> None:
    health, now = Health().failed(DOWN, POLICY, NOW), NOW
    for _ in range(6):  # asked for, and never heard of again
        assert health.next_attempt is not None
        now = health.next_attempt
        health = health.asked(POLICY, now)

    assert health.next_attempt == now + minutes(320)


def test_after_the_first_success_everything_that_waited_follows_at_once() -> None:
    health, _ = _failing_for(DENIED, timedelta(days=3))
    later = NOW + timedelta(days=4)

    recovered = health.exported(("w9",), later)
    assert recovered.state is State.RETRYING
    assert recovered.is_due(later)

    assert recovered.exported(("w1",), later).state is State.CATCHING_UP


def test_a_change_starts_it_again_and_forgets_the_evidence() -> None:
    stopped, _ = _failing_for(DENIED, minutes(16))

    resumed = stopped.resumed(NOW + minutes(20))
    assert resumed.state is State.BACKING_OFF
    assert resumed.is_due(NOW + minutes(20))
    again = resumed.asked(POLICY, NOW + minutes(20)).failed(DENIED, POLICY, NOW + minutes(20))

    assert again.state is State.BACKING_OFF
    assert again.next_attempt == NOW + minutes(25)


def test_people_hear_of_a_stop_once_and_of_the_recovery_once() -> None:
    health, told, now = Health(), list[tuple[NoticeKind, int]](), NOW
    for minute in range(0, 3 * 1440, 5):
        now = NOW + minutes(minute)
        if health.next_attempt is None or health.is_due(now):
            health = health.asked(POLICY, now) if health.since else health
            health = health.failed(DENIED, POLICY, now)
        if kind := health.notice(POLICY, now):
            told.append((kind, minute))
            health = health.noticed(kind, now)
    health = health.exported(("w1",), now)
    kind = health.notice(POLICY, now)

    assert told == [(NoticeKind.STOPPED, 15)]
    assert kind is NoticeKind.RECOVERED
    assert health.noticed(kind, now).notice(POLICY, now) is None


def test_people_hear_of_a_failing_project_once_a_day() -> None:
    health, told = Health(), list[int]()
    for minute in range(0, 3 * 1440, 5):
        now = NOW + minutes(minute)
        if health.next_attempt is None or health.is_due(now):
            health = health.asked(POLICY, now) if health.since else health
            health = health.failed(DOWN, POLICY, now)
        if kind := health.notice(POLICY, now):
            assert kind is NoticeKind.FAILING
            told.append(minute)
            health = health.noticed(kind, now)

    assert told == [15, 15 + 1440, 15 + 2880]


def test_a_project_that_comes_and_goes_is_quiet_for_a_day() -> None:
    failing, _ = _failing_for(DOWN, minutes(16))
    told = failing.noticed(NoticeKind.FAILING, NOW)
    over = told.exported(("w1",), NOW + minutes(30)).noticed(NoticeKind.RECOVERED, NOW + minutes(30))

    kept = over.caught_up(POLICY, NOW + minutes(31))
    assert kept is not None
    assert kept.state is State.HEALTHY
    again = kept
    for attempt in range(5):
        again = again.failed(DOWN, POLICY, again.next_attempt or NOW + minutes(60 + attempt))

    assert again.streak == 5
    assert again.notice(POLICY, NOW + timedelta(hours=5)) is None
    assert over.caught_up(POLICY, NOW + timedelta(days=2)) is None


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["asked", "denied", "down", "broken", "exported", "resumed"]), st.integers(0, 90)
    ),
    max_size=60,
)


@given(_STEPS)
def test_whatever_happens_attempts_are_bounded_and_nothing_that_failed_is_forgotten(
    steps: list[tuple[str, int]],
) -> None:
    health, now, failed = Health(), NOW, set[str]()
    for number, (step, wait) in enumerate(steps):
        now += minutes(wait)
        key = f"w{number:03}"
        if step == "asked" and health.is_due(now):
            before = health
            health = health.asked(POLICY, now)
            assert health.next_attempt is None or health.next_attempt > now
            assert before.windows == health.windows
        elif step in ("denied", "down", "broken"):
            failure = {"denied": DENIED, "down": DOWN, "broken": BROKEN}[step]
            health = health.failed(failure.model_copy(update={"windows": (key,)}), POLICY, now)
            failed.add(key)
        elif step == "exported" and failed:
            mended = min(failed)
            failed.remove(mended)
            health = health.exported((mended,), now)
        elif step == "resumed" and health.since:
            health = health.resumed(now)
        assert set(health.windows) == failed
        assert health.next_attempt is not None or not failed or health.rounds > POLICY.max_rounds
        assert health.state is not State.STOPPED or health.user_faults >= POLICY.evidence
        assert Health.model_validate_json(health.model_dump_json(exclude_defaults=True)) == health


@pytest.mark.parametrize(
    "mended",
    [
        {"destination": StoreConfig("s3://archive/", secret_access_key="another")},
        {"named_collection": "archive"},
        {"layout": hive(Frequency.HOURLY)},
        {"tables": (TABLES["traces"],)},
        {"frequency": Frequency.DAILY},
    ],
    ids=lambda mended: next(iter(mended)),
)
def test_a_configuration_that_may_mend_a_project_has_another_fingerprint(mended: dict[str, Any]) -> None:
    failing, changed = project_export(Settings()), project_export(Settings(), **mended)
    assert fingerprint(changed, "salt") != fingerprint(failing, "salt")


def test_names_and_people_are_not_of_the_configuration_that_fails() -> None:
    failing, renamed = (
        project_export(Settings()),
        project_export(Settings(), name="Support bot", owners=("team:support",)),
    )
    assert fingerprint(renamed, "salt") == fingerprint(failing, "salt")
