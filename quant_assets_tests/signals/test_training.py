"""Training: it finds what is planted and nothing else, looks at no future, and repeats itself bit for bit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from quant_assets.schemas import PREDICTIONS
from quant_assets.signals.evaluation.leaks import leak_report
from quant_assets.signals.fitting import fit_signal_model
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.splits import TooFewSessions
from quant_assets.signals.training import TrainingResult, TrainingSetup, fingerprint, train
from quant_assets_tests.signals.worlds import FEATURES, world

SETUP = TrainingSetup(
    FEATURES, horizon=1, definition_hash="abc", n_folds=3, train_min_sessions=100, config=ModelConfig(rounds=60, threads=1)
)


def oracle_rank_ic(frame: pl.DataFrame, result: TrainingResult) -> float:
    tested = frame.join(result.predictions, on=["symbol", "session"], how="semi")
    daily = tested.group_by("session").agg(pl.corr("score", "forward_return", method="spearman").alias("rank_ic"))
    return float(daily["rank_ic"].mean())


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return world(11, rank_ic=0.15)


@pytest.fixture(scope="module")
def result(frame: pl.DataFrame) -> TrainingResult:
    return train(frame, SETUP)


class TestRegression:
    def test_planted_signal_is_found_and_no_more_than_planted(self, frame: pl.DataFrame, result: TrainingResult) -> None:
        summary = result.evaluation.summary
        oracle = oracle_rank_ic(frame, result)
        assert summary["rank_ic_t"] > 3
        assert 0.6 * oracle < summary["rank_ic"] < oracle + 0.02
        assert summary["auc"] > 0.53
        assert summary["log_loss"] < summary["base_rate_log_loss"]
        assert set(result.model.importance["feature"][:2]) == {"first", "second"}

    def test_shuffled_labels_teach_nothing(self, result: TrainingResult) -> None:
        assert result.evaluation.summary["control_auc"] == pytest.approx(0.5, abs=0.02)
        assert abs(result.evaluation.summary["control_rank_ic_t"]) < 3

    def test_nothing_is_found_where_nothing_is(self) -> None:
        empty = train(world(12, rank_ic=0.0), SETUP).evaluation.summary
        assert abs(empty["rank_ic_t"]) < 3
        assert empty["auc"] == pytest.approx(0.5, abs=0.02)

    def test_a_leaked_future_column_wins_hugely(self, frame: pl.DataFrame, result: TrainingResult) -> None:
        leaking = frame.with_columns(fourth=pl.col("forward_return"), oracle_score="score")
        found = train(leaking, SETUP)
        assert leak_report(found.evaluation.sessions, 1)[0].startswith("Leak: the model's mean rank IC")
        assert leak_report(train(leaking.drop("oracle_score"), SETUP).evaluation.sessions, 1)[0].startswith("Implausible: the mean rank IC")
        assert leak_report(result.evaluation.sessions, 1) == []
        assert found.evaluation.summary["rank_ic"] > oracle_rank_ic(frame, result) + 0.5
        assert found.evaluation.summary["auc"] > 0.95
        assert found.model.importance["feature"][0] == "fourth"

    def test_folds_by_hand(self, frame: pl.DataFrame, result: TrainingResult) -> None:
        """400 sessions: 100 to train on, 1 purged, 299 to test in 100, 100 and 99."""
        days = frame["session"].unique().sort()
        first = result.folds.row(0, named=True)
        assert (first["train_from"], first["train_to"], first["test_from"], first["test_to"]) == (days[0], days[99], days[101], days[200])
        assert (first["train_rows"], first["rows"], first["sessions"]) == (2000, 2000, 100)
        assert first["train_up_share"] == frame.filter(pl.col("session") <= days[99])["up"].mean()
        assert result.folds["sessions"].to_list() == [100, 100, 99]
        assert (result.rows, result.first_session, result.last_session) == (8000, days[0], days[-1])
        assert result.trained_until == frame["known_at"].max()

    def test_predictions_fit_their_table(self, result: TrainingResult) -> None:
        added = {"model", "model_version", "known_at", "recorded_at"}
        declared = {name: dtype for name, dtype in PREDICTIONS.polars_schema.items() if name not in added}
        kept = result.predictions.select(*declared)
        assert dict(kept.schema) == {name: dtype() if isinstance(dtype, type) else dtype for name, dtype in declared.items()}
        assert sum(kept.null_count().row(0)) == 0
        assert len(result.predictions) == 299 * 20

    def test_final_model_is_fitted_on_everything(self, frame: pl.DataFrame, result: TrainingResult) -> None:
        again = fit_signal_model(frame.sort("session", "symbol"), FEATURES, SETUP.config, SETUP.seed, SETUP.horizon)
        assert result.model.to_json() == again.to_json()

    def test_what_cannot_be_trained_on_is_named(self, frame: pl.DataFrame) -> None:
        with pytest.raises(TooFewSessions, match="90 sessions are too few"):
            train(frame.head(90 * 20), SETUP)
        with pytest.raises(ValueError, match="up is null in 20 of 8000 rows"):
            train(frame.with_columns(up=pl.when(pl.col("session") < frame["session"].max()).then("up")), SETUP)
        with pytest.raises(ValueError, match="3 of 8003 rows repeat a symbol and session"):
            train(pl.concat([frame, frame.head(3)]), SETUP)


class TestProperties:
    def test_same_frame_same_result_for_any_order_of_rows(self, frame: pl.DataFrame, result: TrainingResult) -> None:
        again = train(frame.sample(fraction=1, shuffle=True, seed=5).select(*reversed(frame.columns)), SETUP)
        assert again.model.to_json() == result.model.to_json()
        assert again.predictions.equals(result.predictions)
        assert again.folds.equals(result.folds)
        assert again.fingerprint == result.fingerprint == fingerprint(frame, SETUP)

    def test_no_fold_looks_ahead(self, frame: pl.DataFrame, result: TrainingResult) -> None:
        """Whatever happens from a fold's first test session on, its own and earlier predictions of that session stay."""
        second = result.folds.row(1, named=True)
        later = pl.col("session") >= second["train_to"] + timedelta(days=1)  # the purged session's label is known too late
        other = frame.with_columns(
            up=pl.when(later).then(~pl.col("up")).otherwise("up"),
            forward_return=pl.when(later).then(-pl.col("forward_return")).otherwise("forward_return"),
        )
        told = ["fold", "symbol", "session", "probability", "uncalibrated_probability", "train_up_share", "trained_until"]
        changed, before = train(other, SETUP).predictions.select(told), result.predictions.select(told)
        kept, rest = pl.col("fold") <= 1, pl.col("fold") == 2
        assert changed.filter(kept).equals(before.filter(kept))
        assert not changed.filter(rest)["probability"].equals(before.filter(rest)["probability"])

    def test_every_session_is_scored_by_a_model_trained_before_it(self, frame: pl.DataFrame, result: TrainingResult) -> None:
        # A session closes at 21:00 here, and its labels' instants stand half an hour after the next close.
        closes = result.predictions["session"].cast(pl.Datetime("us")) + timedelta(hours=21)
        assert (result.predictions["trained_until"] < closes).all()

    def test_a_label_restated_later_is_no_part_of_an_earlier_training(self, frame: pl.DataFrame, result: TrainingResult) -> None:
        days = frame["session"].unique().sort()
        restated = (pl.col("symbol") == "S03") & (pl.col("session") < days[50])
        late = frame.with_columns(known_at=pl.when(restated).then(frame["known_at"].max()).otherwise("known_at"))
        changed = train(late, SETUP)
        first = changed.folds.row(0, named=True)
        assert first["train_rows"] == 2000 - 50
        assert first["trained_until"] == result.folds["trained_until"][0]
        without = frame.filter(pl.col("session") <= days[99], ~restated).sort("session", "symbol")
        test = frame.filter(pl.col("session").is_between(days[101], days[200])).sort("session", "symbol")
        expected = fit_signal_model(without, FEATURES, SETUP.config, SETUP.seed, SETUP.horizon).predict(test)
        assert changed.predictions.filter(pl.col("fold") == 0)["probability"].equals(expected)

    def test_fingerprint_tells_everything_that_matters(self, frame: pl.DataFrame) -> None:
        known = frame.head(200)
        one = pl.int_range(pl.len()) == 17
        variants = [
            (known, SETUP),
            (known.head(199), SETUP),
            (known.with_columns(third=pl.col("third") + one.cast(pl.Float64) * 1e-12), SETUP),
            (known.with_columns(third=pl.when(~one).then("third")), SETUP),
            (known.with_columns(third=pl.when(~one).then("third").otherwise(0.0)), SETUP),
            (known.with_columns(up=pl.col("up") ^ one), SETUP),
            (known.with_columns(symbol=pl.when(one).then(pl.lit("X")).otherwise("symbol")), SETUP),
            (known.with_columns(known_at=pl.col("known_at") + pl.duration(microseconds=one.cast(pl.Int64))), SETUP),
            *((known, replace(SETUP, **change)) for change in (
                {"horizon": 5}, {"definition_hash": "abd"}, {"seed": 8}, {"n_folds": 4}, {"train_min_sessions": 99}, {"embargo": 1},
                {"config": ModelConfig(rounds=61, threads=1)}, {"features": FEATURES[::-1]}, {"label_threshold": 0.01}, {"expanding": False},
                {"test_sessions": 50}, {"tuning_trials": 2}, {"fee_bps": 1.0},
            )),
        ]  # fmt: skip
        marks = [fingerprint(known, setup) for known, setup in variants]
        assert len(set(marks)) == len(variants)
        assert fingerprint(known.with_columns(unused=1), SETUP) == marks[0]

    def test_fingerprint_is_the_same_in_another_process(self, frame: pl.DataFrame, tmp_path: Path) -> None:
        frame.write_parquet(tmp_path / "frame.parquet")
        code = (
            "import sys, polars as pl; from quant_assets_tests.signals.test_training import SETUP; "
            "from quant_assets.signals.training import fingerprint; print(fingerprint(pl.read_parquet(sys.argv[1]), SETUP))"
        )
        found = subprocess.run([sys.executable, "-c", code, tmp_path / "frame.parquet"], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == fingerprint(frame, SETUP)
