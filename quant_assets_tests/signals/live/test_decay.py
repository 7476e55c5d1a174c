"""Decay: the band by hand, who is judged when on what, and how often constant and lost skill are called decayed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.schemas import DRIFT, LABELS, PREDICTIONS, SIGNAL_SCORECARD
from quant_assets.signals.champions import MODEL
from quant_assets.signals.live.decay import (
    Decay,
    champion_decay,
    drift_of_night,
    expected_band,
    fold_rank_ics,
    judge_decay,
    mean_interval,
    retraining_reason,
)
from quant_assets.warehouse import Warehouse, append_versions, rewrite_current

Array = np.ndarray[Any, np.dtype[np.float64]]
FIRST = date(2020, 1, 2)
AS_OF = datetime(2022, 1, 1)
SKILL, NOISE = 0.06, 0.186  # the latter is the spread of a rank correlation over 30 symbols: 1 / sqrt(29)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def live(ics: Sequence[float | None] | Array) -> pl.DataFrame:
    """Live sessions with these rank ICs, one a day."""
    rows = {"session": [day(number) for number in range(len(ics))], "rank_ic": list(ics)}
    return pl.DataFrame(rows, schema={"session": pl.Date, "rank_ic": pl.Float64})


def skilled(seed: int, sessions: int, horizon: int = 1, persistence: float = 0.0) -> Array:
    """Rank ICs of constant skill: noise that comes in spells, summed over as many sessions as labels span."""
    from scipy.signal import lfilter

    innovations = np.random.default_rng(seed).standard_normal(sessions + horizon + 100)
    spells = lfilter([1.0], [1.0, -persistence], innovations)[100:]
    summed = np.convolve(spells, np.ones(horizon), "valid")[:sessions]
    powers = persistence ** np.abs(np.subtract.outer(np.arange(horizon), np.arange(horizon)))
    return SKILL + NOISE * summed / math.sqrt(powers.sum() / (1 - persistence**2))


class TestRegression:
    def test_the_band_of_one_session_by_hand(self) -> None:
        """64 sessions, 0.05 and -0.05 in turn: blocks of 4 have no variance, single sessions 0.0025 with 64 / 63 for the mean taken."""
        low, high = expected_band(np.tile([0.05, -0.05], 32), 1, 1)
        width = 2.602480 * 0.05 * math.sqrt(64 / 63)  # Student's t, 99 %, 64 / 4 - 1 = 15 degrees of freedom
        assert [low, high] == pytest.approx([-width, width], abs=1e-7)

    def test_long_independent_folds_give_the_textbook_band(self) -> None:
        ics = skilled(1, 20_000)
        low, high = expected_band(ics, 120, 1)
        assert (low + high) / 2 == pytest.approx(ics.mean())
        assert (high - low) / 2 == pytest.approx(2.326 * NOISE * math.sqrt(1 / 120 + 1 / 20_000), rel=0.05)

    def test_overlapping_labels_widen_it_by_what_they_share(self) -> None:
        """At horizon 5 the correlations 0.8, 0.6, 0.4, 0.2 make the variance of a mean of n (5 - 8 / n) / n."""
        low, high = expected_band(skilled(1, 20_000, horizon=5), 120, 5)
        assert (high - low) / 2 == pytest.approx(2.326 * NOISE * math.sqrt((5 - 8 / 120) / 120 + 5 / 20_000), rel=0.08)

    @pytest.mark.parametrize(("folds", "sessions", "confidence"), [(59, 20, 0.99), (60, 0, 0.99), (60, 20, 1.0), (60, 20, 0.5)])
    def test_a_band_of_nothing_is_refused(self, folds: int, sessions: int, confidence: float) -> None:
        with pytest.raises(ValueError, match=rf"{folds} sessions of folds .* {sessions} live ones .* confidence {confidence}"):
            expected_band(skilled(1, folds), sessions, 1, confidence)

    def test_under_twenty_live_sessions_it_cannot_be_told(self) -> None:
        ics = [-1.0] * 19 + [None]
        verdict = judge_decay(skilled(1, 252), live(ics), 1)
        assert verdict == Decay(19, None, None, None, None, False, "decay cannot be told: 19 live sessions have an outcome, fewer than 20")

    def test_without_folds_it_cannot_be_told(self) -> None:
        verdict = judge_decay(skilled(1, 59), live([-1.0] * 20), 1)
        assert (verdict.live_rank_ic, verdict.low, verdict.decayed) == (-1.0, None, False)
        assert verdict.text == "decay cannot be told: the folds hold 59 sessions with a rank IC, fewer than 60"

    def test_between_looks_the_last_judgement_stands(self) -> None:
        folds, ics = skilled(1, 756), [0.06] * 20 + [-0.9] * 20
        first = judge_decay(folds, live(ics[:20]), 1)
        assert not first.decayed
        assert judge_decay(folds, live(ics[:39]), 1) == first
        second = judge_decay(folds, live(ics), 1)
        assert second.decayed
        assert (second.live_sessions, second.live_until) == (40, day(39))
        assert second.text.startswith(f"live rank IC -0.4200 over 40 sessions to {day(39)} lies below the ")

    @pytest.mark.parametrize(("horizon", "window"), [(1, 120), (5, 252), (20, 252)])
    def test_old_success_is_forgotten(self, horizon: int, window: int) -> None:
        ics = [0.9] * 260 + [0.0] * 120
        verdict = judge_decay(skilled(1, 756), live(ics), horizon)
        assert verdict.live_sessions == window
        assert verdict.live_rank_ic == pytest.approx(0.9 * (window - 120) / window)

    def test_an_interval_needs_twenty_sessions(self) -> None:
        assert mean_interval(skilled(1, 19), 1) is None
        low, high = mean_interval(skilled(1, 20_000), 1) or (0.0, 0.0)
        assert (high - low) / 2 == pytest.approx(1.96 * NOISE / math.sqrt(20_000), rel=0.1)

    def test_a_champion_is_judged_by_its_own_folds_and_live_rows(self, warehouse: Warehouse) -> None:
        """Version 1 ranks right in its folds and wrong live; others' rows and replayed ones say the opposite."""
        predict(warehouse, "1", 80, right=True)
        predict(warehouse, "2", 80, right=False)
        assert fold_rank_ics(warehouse, "1", 1, AS_OF)["rank_ic"].to_list() == pytest.approx([1.0] * 80)
        assert fold_rank_ics(warehouse, "2", 1, AS_OF)["rank_ic"].to_list() == pytest.approx([-1.0] * 80)
        assert fold_rank_ics(warehouse, "1", 5, AS_OF).is_empty()
        assert fold_rank_ics(warehouse, "1", 1, outcome_known(9)).height == 10
        rows = pl.concat([cards("live", "1", False), cards("live", "2", True), cards("replayed", "1", True), cards("live", None, True)])
        verdict = champion_decay(warehouse, "1", 1, AS_OF, rows)
        assert verdict.decayed
        assert [verdict.live_sessions, verdict.live_rank_ic] == pytest.approx([20, -1.0])
        assert not champion_decay(warehouse, "2", 1, AS_OF, rows).decayed

    def test_drift_is_the_nights_as_it_was_known_then(self, warehouse: Warehouse) -> None:
        record_drift(warehouse, "technical_v1", day(1), AS_OF, {"rsi_14": (1.2, "critical"), "macd": (0.1, None)})
        record_drift(warehouse, "technical_v1", day(0), AS_OF, {"macd": (3.0, "critical")})
        record_drift(warehouse, "alpha_v1", day(1), AS_OF, {"roc_20": (3.0, "critical")})
        rows = drift_of_night(warehouse, "technical_v1", day(1), AS_OF)
        assert rows["feature"].to_list() == ["macd", "rsi_14"]
        assert (
            retraining_reason(rows, None)
            == "1 of 2 features have drifted critically as of 2020-01-03, in standard deviations: rsi_14 (+1.2)"
        )
        assert drift_of_night(warehouse, "technical_v1", day(1), AS_OF - timedelta(seconds=1)).is_empty()

    def test_a_reason_names_decay_and_the_five_worst_features(self) -> None:
        rows = pl.DataFrame(
            {
                "feature": [f"f{n}" for n in range(8)],
                "session": [day(1)] * 8,
                "shift": [1.0, -7.0, 3.0, 4.0, 5.0, 6.0, 9.0, None],
                "severity": [*["critical"] * 6, "warning", None],
            }
        )
        decayed = Decay(40, day(39), 0.0, 0.01, 0.1, True, "live rank IC is low")
        assert retraining_reason(rows, decayed) == (
            "live rank IC is low; 6 of 8 features have drifted critically as of 2020-01-03, in standard deviations: "
            "f1 (-7.0), f5 (+6.0), f4 (+5.0), f3 (+4.0), f2 (+3.0) and 1 more"
        )
        steady = Decay(40, day(39), 0.05, 0.01, 0.1, False, "live rank IC is as expected")
        assert retraining_reason(rows.filter(severity="warning"), steady) == ""
        assert retraining_reason(rows.clear(), None) == ""


class TestProperties:
    @pytest.mark.parametrize(("horizon", "persistence"), [(1, 0.0), (1, 0.3), (5, 0.0), (5, 0.3)])
    def test_constant_skill_is_seldom_called_decayed(self, horizon: int, persistence: float) -> None:
        """At one time in at most 2 of 100 worlds; a year of looks in at most 8 of 100."""
        at_once, in_a_year, worlds = {60: 0, 240: 0}, 0, 200
        for seed in range(worlds):
            ics = skilled(seed, 756 + 240, horizon, persistence)
            months = [judge_decay(ics[:756], live(ics[756 : 756 + n]), horizon).decayed for n in range(20, 241, 20)]
            at_once = {n: count + months[n // 20 - 1] for n, count in at_once.items()}
            in_a_year += any(months)
        assert max(at_once.values()) <= 0.02 * worlds, at_once
        assert in_a_year <= 0.08 * worlds

    def test_lost_skill_is_found(self) -> None:
        """From 0.06 to nothing over 30 symbols: after 120 sessions in more than 7 worlds of 10."""
        worlds = 100
        found = sum(judge_decay(skilled(seed, 756), live(skilled(seed + 10_000, 120) - SKILL), 1).decayed for seed in range(worlds))
        assert found > 0.7 * worlds

    @settings(max_examples=50, deadline=None)
    @given(
        seed=st.integers(0, 1000),
        sessions=st.integers(20, 300),
        lost=st.floats(0, 0.3),
        more=st.floats(0, 0.3),
        level=st.floats(-0.2, 0.2),
        horizon=st.sampled_from([1, 5, 20]),
    )
    def test_worse_is_never_called_better_and_levels_do_not_matter(
        self, seed: int, sessions: int, lost: float, more: float, level: float, horizon: int
    ) -> None:
        folds, ics = skilled(seed, 300, horizon), skilled(seed + 1, sessions, horizon) - lost
        verdict, worse = (judge_decay(folds, live(values), horizon) for values in (ics, ics - more))
        assert worse.decayed >= verdict.decayed
        assert verdict.low is not None
        assert verdict.high is not None
        moved = judge_decay(folds + level, live(ics + level), horizon)
        assert moved.low == pytest.approx(verdict.low + level, abs=1e-9)
        assert moved.high == pytest.approx(verdict.high + level, abs=1e-9)

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 1000), sessions=st.integers(1, 500), horizon=st.sampled_from([1, 5, 20]))
    def test_the_band_holds_the_folds_mean_and_widens_with_confidence(self, seed: int, sessions: int, horizon: int) -> None:
        folds = skilled(seed, 252, horizon)
        narrow, wide = (expected_band(folds, sessions, horizon, confidence) for confidence in (0.9, 0.99))
        assert wide[0] < narrow[0] < folds.mean() < narrow[1] < wide[1]


SYMBOLS = ("A", "B", "C", "D")


def outcome_known(number: int) -> datetime:
    return datetime.combine(day(number + 1), datetime.min.time())


def predict(warehouse: Warehouse, version: str, sessions: int, right: bool) -> None:
    """Walk-forward predictions that rank four symbols right or wrong, and their outcomes."""
    cells = [(number, n, symbol) for number in range(sessions) for n, symbol in enumerate(SYMBOLS)]
    predictions = [
        {
            "model": MODEL, "model_version": version, "horizon": 1, "symbol": symbol, "session": day(number), "fold": 0,
            "probability": 0.4 + 0.05 * (n if right else -n), "uncalibrated_probability": None, "trained_until": datetime(2019, 1, 1),
            "known_at": datetime(2020, 1, 1), "recorded_at": AS_OF,
        }
        for number, n, symbol in cells
    ]  # fmt: skip
    outcomes = [
        {"symbol": symbol, "session": day(number), "horizon": 1, "forward_return": 0.01 * n, "up": n > 0, "known_at": outcome_known(number)}
        for number, n, symbol in cells
    ]
    with warehouse.transaction() as connection:
        append_versions(connection, PREDICTIONS, pl.DataFrame(predictions, schema=PREDICTIONS.polars_schema))
        labels = pl.DataFrame(outcomes, schema=LABELS.polars_schema)
        rewrite_current(connection, LABELS, labels, labels.select("symbol").unique())


def cards(mode: str, version: str | None, right: bool) -> pl.DataFrame:
    """Twenty sessions of the scorecard by one maker that ranks four symbols right or wrong."""
    rows = [
        {
            "mode": mode, "horizon": 1, "symbol": symbol, "session": day(number), "signal_known_at": AS_OF, "label_threshold": 0.0,
            "probability": 0.4 + 0.05 * (n if right else -n), "recommendation": "hold", "scorer": "model" if version else "heuristic",
            "model_version": version, "forward_return": 0.01 * n, "up": n > 0, "known_at": AS_OF, "run_id": "run", "recorded_at": AS_OF,
        }
        for number in range(20) for n, symbol in enumerate(SYMBOLS)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=SIGNAL_SCORECARD.polars_schema)


def record_drift(warehouse: Warehouse, view: str, session: date, known_at: datetime, found: dict[str, tuple[float, str | None]]) -> None:
    rows = [
        {column.name: None for column in DRIFT.columns} | {
            "view": view, "feature": feature, "session": session, "known_at": known_at, "reference_from": FIRST, "reference_to": FIRST,
            "window_sessions": 60, "shift": shift, "verdict": "shifted", "severity": severity, "recorded_at": AS_OF,
        }
        for feature, (shift, severity) in found.items()
    ]  # fmt: skip
    with warehouse.transaction() as connection:
        append_versions(connection, DRIFT, pl.DataFrame(rows, schema=DRIFT.polars_schema))
