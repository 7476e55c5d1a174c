"""Two versions side by side: numbers that a person can verify, and a difference that is paired."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quant_assets.errors import ConfigurationError
from quant_assets.schemas import LABELS, PREDICTIONS
from quant_assets.signals.champions import MODEL, REJECTED
from quant_assets.signals.registry.comparison import compare_versions
from quant_assets.signals.registry.desk import DecisionRefused, ModelDesk
from quant_assets.warehouse import Warehouse
from quant_assets_tests.signals import trained as shelf
from quant_assets_tests.signals.trained import FIRST_DECISION, decide, trained

DAYS = [date(2020, 1, 1) + timedelta(days=day) for day in range(60)]
KNOWN = datetime(2020, 5, 1)
SYMBOLS = [f"S{number:02}" for number in range(8)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[ModelDesk]:
    with shelf.desk(tmp_path) as opened:
        yield opened


def write(warehouse: Warehouse, table: str, frame: pl.DataFrame) -> None:
    with warehouse.transaction() as connection:
        connection.register("given", frame)
        connection.execute(f"insert into {table} by name select * from given")
        connection.unregister("given")


def outcomes(warehouse: Warehouse, days: list[date] = DAYS) -> pl.DataFrame:
    """Normal returns with a seed, stored as labels of horizon 1."""
    random = np.random.default_rng(5)
    frame = pl.DataFrame({"session": np.repeat(np.array(days, dtype="datetime64[D]"), len(SYMBOLS)), "symbol": SYMBOLS * len(days)})
    frame = frame.with_columns(forward_return=pl.Series(random.normal(0, 0.01, len(frame)))).with_columns(up=pl.col("forward_return") > 0)
    stored = frame.with_columns(horizon=pl.lit(1, pl.Int32), known_at=pl.lit(KNOWN), run_id=pl.lit("r"), recorded_at=pl.lit(KNOWN))
    write(warehouse, "feature_store.labels", stored.select(*(name for name in LABELS.column_names if name in stored.columns)))
    return frame


def predicted(warehouse: Warehouse, version: str, rows: pl.DataFrame) -> None:
    """Store `probability` per symbol and session as a version's walk-forward predictions."""
    told = {
        "model": MODEL,
        "model_version": version,
        "horizon": 1,
        "fold": 0,
        "trained_until": KNOWN,
        "known_at": KNOWN,
        "recorded_at": KNOWN,
    }
    stored = rows.select("symbol", "session", "probability").with_columns(
        *(pl.lit(value).alias(name) for name, value in told.items()), uncalibrated_probability=pl.lit(None, pl.Float64)
    )
    write(warehouse, PREDICTIONS.full_name, stored)


class TestRegression:
    def test_as_judged_each_with_its_interval(self, desk: ModelDesk) -> None:
        for found in (compare_versions(desk, "1", "3"), compare_versions(replace(desk, registry=None), "1", "3")):
            assert found.judged["metric"].to_list() == ["base_rate_log_loss", "log_loss", "rank_ic", "rows"]
            assert found.judged.row(2) == ("rank_ic", 0.125, 0.05, 0.2, 0.375, 0.05, 0.2)
            assert found.judged.row(1) == ("log_loss", 0.6875, 0.68, None, 0.6875, 0.68, None)
            assert (found.sessions, found.paired.height) == (0, 0)
            assert found.notes == ("No session was predicted by both out of sample with a known outcome, so nothing is paired.",)

    def test_paired_on_what_both_predicted(self, desk: ModelDesk) -> None:
        """Version 1 knows the outcome, 2 says a coin's 0.6 for all; 1 was asked on the later sessions, of 2 a symbol is missing."""
        truth = outcomes(desk.warehouse)
        knows = truth.with_columns(probability=0.5 + 10 * pl.col("forward_return").clip(-0.04, 0.04))
        predicted(desk.warehouse, "1", knows.filter(pl.col("session") >= DAYS[20]))
        reversed_ = truth.with_columns(probability=0.5 - 10 * pl.col("forward_return").clip(-0.04, 0.04))
        predicted(desk.warehouse, "2", reversed_.filter(pl.col("symbol") != SYMBOLS[0]))
        found = compare_versions(desk, "1", "2")
        assert (found.sessions, found.rows) == (40, 40 * 7)
        ic, loss = found.paired.iter_rows(named=True)
        assert (ic["metric"], ic["a"], ic["b"], ic["difference"]) == ("rank_ic", pytest.approx(1), pytest.approx(-1), pytest.approx(2))
        assert ic["difference_low"] == pytest.approx(2)
        common = knows.filter(pl.col("session") >= DAYS[20], pl.col("symbol") != SYMBOLS[0])
        by_hand = [-math.log(p if up else 1 - p) for p, up in common.select("probability", "up").iter_rows()]
        assert loss["a"] == pytest.approx(sum(by_hand) / len(by_hand))
        assert loss["a_low"] < loss["a"] < loss["a_high"]
        assert loss["difference"] == pytest.approx(loss["a"] - loss["b"])
        assert loss["difference_low"] < loss["difference"] < loss["difference_high"] < 0

    def test_the_threshold_of_the_labels_decides_what_is_up(self, desk: ModelDesk) -> None:
        truth = outcomes(desk.warehouse)
        for version in ("4", "5"):
            result = trained(version * 64, label_threshold=0.005)
            decide(desk.settings, version, FIRST_DECISION + timedelta(days=9), REJECTED, result)
            predicted(desk.warehouse, version, truth.with_columns(probability=pl.lit(0.25)))
        loss = compare_versions(desk, "4", "5").paired.filter(metric="log_loss").row(0, named=True)
        share = (truth["forward_return"] > 0.005).mean()
        assert isinstance(share, float)
        assert loss["a"] == pytest.approx(-(share * math.log(0.25) + (1 - share) * math.log(0.75)))
        assert (loss["difference"], loss["difference_low"], loss["difference_high"]) == (0, 0, 0)
        found = compare_versions(desk, "1", "4")
        assert found.notes[0] == "Their labels have different thresholds (0, 0.005), so log loss is not compared."
        assert "log_loss" not in found.paired["metric"]

    def test_few_sessions_have_no_interval_and_ties_no_rank_ic(self, desk: ModelDesk) -> None:
        truth = outcomes(desk.warehouse, DAYS[:10])
        for version in ("1", "2"):
            predicted(desk.warehouse, version, truth.with_columns(probability=pl.lit(0.5)))
        ic, loss = compare_versions(desk, "1", "2").paired.iter_rows(named=True)
        assert (ic["a"], ic["difference"], ic["difference_low"]) == (None, None, None)
        assert (loss["a"], loss["difference"], loss["difference_low"]) == (pytest.approx(math.log(2)), 0, None)

    def test_one_metric_alone(self, desk: ModelDesk) -> None:
        found = compare_versions(desk, "1", "2", ["rank_ic"])
        assert found.judged["metric"].to_list() == ["rank_ic"]
        with pytest.raises(ConfigurationError, match="Neither version has the metric luck; there are base_rate_log_loss, log_loss"):
            compare_versions(desk, "1", "2", ["luck"])

    def test_what_cannot_be_compared(self, desk: ModelDesk) -> None:
        decide(desk.settings, "4", FIRST_DECISION + timedelta(days=9), REJECTED, trained("4" * 64, horizon=5))
        with pytest.raises(DecisionRefused, match="Version 1 is for horizon 1, version 4 for 5"):
            compare_versions(desk, "1", "4")
        with pytest.raises(DecisionRefused, match="There is no model version '9'"):
            compare_versions(desk, "1", "9")


class TestProperties:
    def test_the_other_way_round_is_the_negative(self, desk: ModelDesk) -> None:
        truth = outcomes(desk.warehouse)
        random = np.random.default_rng(3)
        for version in ("1", "2"):
            predicted(desk.warehouse, version, truth.with_columns(probability=pl.Series(random.uniform(0.3, 0.7, len(truth)))))
        one, other = compare_versions(desk, "1", "2").paired, compare_versions(desk, "2", "1").paired
        for forth, back in zip(one.iter_rows(named=True), other.iter_rows(named=True), strict=True):
            assert forth["difference"] == pytest.approx(-back["difference"])
            assert forth["difference_low"] == pytest.approx(-back["difference_high"])
            assert (forth["a"], forth["a_low"]) == (back["b"], back["b_low"])
