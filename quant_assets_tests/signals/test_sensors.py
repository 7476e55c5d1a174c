"""The sensor that asks for retraining, on a real instance: when it asks, how often, and what it says when it does not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from quant_assets.settings import load_settings
from quant_assets.signals.sensors import REASON_TAG, SCORECARD_KEY, ask_for_retraining
from quant_assets_tests import nights
from quant_assets_tests.nights import CALENDAR

SESSIONS = CALENDAR.between(date(2025, 1, 2), date(2025, 12, 31))
COOL_DOWN = 5


@dg.asset(key=SCORECARD_KEY)
def scorecard() -> None:
    """Stands for the night's asset; the sensor reads what was reported of it."""


@dg.op
def train() -> None:
    """Stands for the training."""


@dg.job(name="retrain")
def retrain() -> None:
    train()


DEFINITIONS = dg.Definitions(assets=[scorecard], jobs=[retrain], sensors=[ask_for_retraining])


@dataclass
class Watch:
    """An instance, and the cursor that the daemon would keep for the sensor."""

    instance: dg.DagsterInstance
    cursor: str | None = None

    def night(self, number: int, reason: str) -> None:
        """The n-th session's night fills the scorecard and says why to train again; an empty text: no reason."""
        self.report({"retraining_reason": reason, "as_of": str(CALENDAR.known_at(SESSIONS[number]))})

    def report(self, metadata: dict[str, str]) -> None:
        self.instance.report_runless_asset_event(dg.AssetMaterialization(SCORECARD_KEY, metadata=metadata))

    def tick(self, carry_out: bool = True) -> dg.RunRequest | str:
        """One tick: the run that is asked for, carried out as the daemon does (not twice under one key), or why none is."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor, definitions=DEFINITIONS)
        outcome = ask_for_retraining.evaluate_tick(context)
        self.cursor = outcome.cursor
        if not outcome.run_requests:
            return outcome.skip_message or ""
        (request,) = outcome.run_requests
        asked_before = self.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": str(request.run_key)}))
        if carry_out and not asked_before:
            self.train(tags={**request.tags, "dagster/run_key": str(request.run_key)})
        return request

    def train(self, tags: dict[str, str] | None = None, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> None:
        """A run of the job, as it stands in the instance when it has ended."""
        self.instance.create_run_for_job(retrain, tags=tags, status=status)

    @property
    def trainings(self) -> Sequence[dg.DagsterRun]:
        return self.instance.get_runs(dg.RunsFilter(job_name="retrain"))


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with (
        nights.environment(tmp_path_factory.mktemp("home"), QUANT_RETRAIN_COOLDOWN_SESSIONS=str(COOL_DOWN)),
        dg.instance_for_test() as made,
    ):
        yield made


@pytest.fixture
def watch(instance: dg.DagsterInstance) -> Watch:
    """The instance as if it were new."""
    instance.wipe()
    return Watch(instance)


class TestRegression:
    def test_it_is_running_and_loads_with_its_job(self) -> None:
        assert ask_for_retraining.default_status is dg.DefaultSensorStatus.RUNNING
        assert ask_for_retraining.job_name == "retrain"
        dg.Definitions.validate_loadable(DEFINITIONS)

    def test_before_the_first_night_it_waits(self, watch: Watch) -> None:
        assert watch.tick() == "No night has filled signals/scorecard yet."

    def test_without_a_reason_nothing_is_asked(self, watch: Watch) -> None:
        watch.night(10, "")
        assert watch.tick() == "Neither drift nor decay as of 2025-01-17 21:30 UTC."
        assert not watch.trainings

    def test_what_the_night_left_out_is_named(self, watch: Watch) -> None:
        watch.report({"as_of": "2025-01-17 21:30:00"})
        assert watch.tick() == "The newest signals/scorecard does not say its retraining_reason; the next night does."

    def test_a_reason_asks_once_with_the_reason_and_the_nights_instant(self, watch: Watch) -> None:
        watch.night(10, "live rank IC is low")
        request = watch.tick()
        assert isinstance(request, dg.RunRequest)
        assert request.job_name in (None, "retrain")
        (run,) = watch.trainings
        assert run.tags[REASON_TAG] == "live rank IC is low"
        assert run.tags["quant/as_of"] == "2025-01-17T21:30:00"
        assert watch.tick() == (
            "Cooling down: 0 of 5 sessions have passed since the last training (as of 2025-01-17 21:30 UTC). "
            "The reason to train again: live rank IC is low."
        )

    def test_a_request_that_was_lost_is_made_again_under_its_key(self, watch: Watch) -> None:
        watch.night(10, "live rank IC is low")
        lost, again = watch.tick(carry_out=False), watch.tick()
        assert isinstance(lost, dg.RunRequest)
        assert isinstance(again, dg.RunRequest)
        assert lost.run_key == again.run_key
        assert len(watch.trainings) == 1

    def test_after_the_cool_down_another_reason_asks_again_and_the_same_does_not(self, watch: Watch) -> None:
        watch.night(10, "drift as of 2025-01-17")
        watch.tick()
        watch.night(10 + COOL_DOWN - 1, "drift as of 2025-01-24")
        assert "4 of 5 sessions" in str(watch.tick())
        watch.night(10 + COOL_DOWN, "drift as of 2025-01-17")
        watch.tick()
        assert len(watch.trainings) == 1
        watch.night(10 + COOL_DOWN, "drift as of 2025-01-27")
        watch.tick()
        assert len(watch.trainings) == 2

    def test_a_training_that_a_person_started_cools_down_too(self, watch: Watch) -> None:
        watch.train(tags={"quant/as_of": "2025-01-17"})
        watch.night(12, "drift")
        assert "2 of 5 sessions have passed since the last training (as of 2025-01-17 21:30 UTC)" in str(watch.tick())

    def test_a_training_that_failed_is_not_tried_at_every_tick(self, watch: Watch) -> None:
        watch.train(tags={"quant/as_of": "2025-01-17"}, status=dg.DagsterRunStatus.FAILURE)
        watch.night(10, "drift")
        assert "0 of 5 sessions" in str(watch.tick())

    def test_over_recorded_data_an_untagged_training_counts_from_the_night_that_saw_it(self, watch: Watch) -> None:
        """The run was made by the wall clock, years after the desk's: the cool-down would never end."""
        watch.train()
        watch.night(10, "drift")
        assert "0 of 5 sessions" in str(watch.tick())
        watch.night(13, "drift")
        assert "3 of 5 sessions" in str(watch.tick())
        watch.night(15, "drift")
        assert isinstance(watch.tick(), dg.RunRequest)

    def test_an_untagged_training_on_a_live_desk_counts_from_when_it_was_made(self, watch: Watch) -> None:
        watch.train()
        (record,) = watch.instance.get_run_records()
        made = record.create_timestamp.replace(tzinfo=None)
        before = CALENDAR.last_known_session(made)
        later = CALENDAR.session_after(CALENDAR.session_after(before) or before)
        assert later is not None
        watch.report({"retraining_reason": "drift", "as_of": str(CALENDAR.known_at(later))})
        assert "2 of 5 sessions" in str(watch.tick())

    def test_a_deleted_run_is_remembered(self, watch: Watch) -> None:
        watch.night(10, "drift as of 2025-01-17")
        watch.tick()
        watch.tick()
        watch.instance.delete_run(watch.trainings[0].run_id)
        watch.night(11, "drift as of 2025-01-21")
        assert "1 of 5 sessions" in str(watch.tick())

    def test_an_earlier_night_run_again_asks_nothing(self, watch: Watch) -> None:
        watch.night(20, "drift as of 2025-02-03")
        watch.tick()
        watch.night(3, "drift as of 2025-01-07")
        assert "0 of 5 sessions" in str(watch.tick())
        assert len(watch.trainings) == 1


class TestProperties:
    def test_between_two_requests_lies_the_cool_down_and_no_reason_waits_longer(self, watch: Watch) -> None:
        reasons = [bool(coin) for coin in np.random.default_rng(1).integers(0, 2, 24)]
        asked, expected = [], list[int]()
        for number, reason in enumerate(reasons):
            watch.night(number, f"drift as of {SESSIONS[number]}" if reason else "")
            asked += [number for _ in range(2) if isinstance(watch.tick(), dg.RunRequest)]
            if reason and (not expected or number - expected[-1] >= COOL_DOWN):
                expected.append(number)
        assert len(expected) == 4
        assert asked == expected

    def test_the_reason_is_read_from_metadata_and_no_database_is_made(self, watch: Watch) -> None:
        watch.night(10, "drift")
        assert isinstance(watch.tick(), dg.RunRequest)
        assert not list(Path(load_settings().home).rglob("*.duckdb"))


def test_the_desks_clock_is_naive_utc() -> None:
    """What the asset writes as `as_of` is what the sensor reads back."""
    instant = CALENDAR.known_at(SESSIONS[10])
    assert datetime.fromisoformat(str(instant)) == instant
    assert CALENDAR.as_of(instant.isoformat()) == instant
    assert CALENDAR.as_of((instant + timedelta(microseconds=5)).isoformat()) == instant + timedelta(microseconds=5)
