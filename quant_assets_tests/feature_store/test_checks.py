"""The proof as Dagster runs it: seeds and counts in the metadata, and nothing downstream of features that peek."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from quant_assets_tests import nights
from quant_assets_tests.nights import EVENING, Desk

ASSETS = ("feature_store/technical_v1", "feature_store/alpha_v1", "feature_store/drift", "signals/daily_signals")
PROOFS = {
    ("technical_v1", "recomputed_as_of"), ("technical_v1", "cut_changes_nothing"), ("alpha_v1", "recomputed_as_of"),
}  # fmt: skip
DRIFT = """
    insert into feature_store.drift by name
    select 'technical_v1' as view, 'rsi_14' as feature, ?::date as session, ?::timestamp as known_at, date '2024-01-02' as reference_from,
        date '2024-12-31' as reference_to, 60 as window_sessions, 1.5 as shift, 0.001 as p_value, 0.004 as p_adjusted,
        'shifted' as verdict, ? as severity, now()::timestamp as recorded_at
"""


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Desk]:
    home, _ = nights.finished(tmp_path_factory.getbasetemp())
    with nights.desk(nights.copied(home, tmp_path / "home")) as opened:
        yield opened


def told(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    return {(each.asset_key.path[-1], each.check_name): each for each in result.get_asset_check_evaluations()}


def made(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.to_user_string() for event in result.all_events if event.is_step_materialization and event.asset_key}


class TestRegression:
    def test_a_sound_night_says_what_it_looked_at(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        _, result = nights.finished(tmp_path_factory.getbasetemp())
        assert result.success
        assert set(ASSETS) <= made(result)
        for key, check in told(result).items():
            if key in PROOFS:
                assert check.passed
                assert check.blocking
                assert check.metadata["seed"].value == EVENING.toordinal()
                assert check.metadata["offending_values"].value == 0
                assert check.metadata["rows"].value > 0
        assert set(told(result)) >= PROOFS
        assert told(result)["alpha_v1", "recomputed_as_of"].metadata["rows"].value <= 5  # one session of five symbols

    def test_features_that_peek_go_no_further(self, desk: Desk) -> None:
        desk.change("""
            update feature_store.technical_v1 as row set rsi_14 = tomorrow.rsi_14 from (
                select symbol, session, lead(rsi_14) over (partition by symbol order by session) as rsi_14 from feature_store.technical_v1
            ) as tomorrow where row.symbol = tomorrow.symbol and row.session = tomorrow.session
        """)
        result = desk.run(assets=[ASSETS[0], *ASSETS[2:]])
        assert not result.success
        checks = told(result)
        for name in ("recomputed_as_of", "cut_changes_nothing"):
            check = checks["technical_v1", name]
            assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
            offending = check.metadata["offending_values"].value
            rows = check.metadata["rows"].value
            assert check.description == f"{offending} values of {rows} rows came out otherwise (seed {EVENING.toordinal()})."
            assert "rsi_14" in str(check.metadata["offenders"].value)
        assert not {"feature_store/drift", "signals/daily_signals"} & made(result)

    @pytest.mark.drill
    def test_a_market_that_peeks_stops_what_rests_on_it(self, desk: Desk) -> None:
        desk.change(
            "update feature_store.market_v1 set market_breadth_1d = 1 - market_breadth_1d, market_return_1d = market_return_1d + 0.01"
        )
        result = desk.run(assets=ASSETS)
        checks = told(result)
        assert not result.success
        assert {key for key in PROOFS if not checks[key].passed} == {("alpha_v1", "recomputed_as_of")}
        assert "market_breadth_1d" in str(checks["alpha_v1", "recomputed_as_of"].metadata["offenders"].value)
        assert not {"feature_store/drift", "signals/daily_signals"} & made(result)

    @pytest.mark.parametrize("severity", ["critical", "warning"])
    def test_drift_warns_and_stops_nothing(self, desk: Desk, severity: str) -> None:
        desk.change(DRIFT, EVENING, nights.CALENDAR.known_at(EVENING), severity)
        result = desk.run(assets=["feature_store/drift"])
        check = told(result)["drift", "no_critical_drift"]
        assert result.success
        assert check.passed == (severity != "critical")
        if severity == "critical":
            assert check.severity is dg.AssetCheckSeverity.WARN
            assert check.description == "1 features of technical_v1 drifted a standard deviation or more."
            assert "| rsi_14 | 1.5 |" in str(check.metadata["features"].value)
