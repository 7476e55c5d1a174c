"""The whole evaluation: every group, rival and interval against scikit-learn, SciPy and hand sums, and where there is nothing to score."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.signals.evaluation import Evaluation, evaluate
from quant_assets.signals.evaluation.ranking import newey_west_t
from quant_assets.signals.evaluation.report import PREDICTION_COLUMNS
from quant_assets.signals.evaluation.rivals import METRICS, PREDICTORS
from quant_assets_tests.signals.evaluation.panels import FIRST, panel


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return panel()


@pytest.fixture(scope="module")
def result(rows: pl.DataFrame) -> Evaluation:
    return evaluate(rows, horizon=1)


def values(result: Evaluation, predictor: str, group: str = "all", member: str = "all") -> dict[str, float | None]:
    chosen = result.scores.filter(predictor=predictor, group=group, member=member)
    return dict(zip(chosen["metric"], chosen["value"], strict=True))


class TestRegression:
    def test_four_rows_by_hand(self) -> None:
        rows = pl.DataFrame(
            {
                "symbol": ["A", "B", "C", "D"],
                "session": [date(2020, 1, 1)] * 4,
                "fold": pl.Series([0] * 4, dtype=pl.Int32),
                "probability": [0.6, 0.7, 0.4, 0.6],
                "control_probability": [0.5] * 4,
                "train_up_share": [0.4] * 4,
                "forward_return": [0.01, 0.03, 0.02, -0.01],
                "up": [True, True, True, False],
            }
        )
        found = evaluate(rows, horizon=1)
        summary = found.summary
        # Ups at .6, .7 and .4 against the down at .6: half, one and none of three pairs.
        assert summary["auc"] == pytest.approx(1.5 / 3)
        assert summary["brier"] == pytest.approx((0.16 + 0.09 + 0.36 + 0.36) / 4)
        assert summary["accuracy"] == 0.5
        assert summary["majority_accuracy"] == 0.25  # the training's majority was down
        assert summary["accuracy_gain"] == 0.25
        assert summary["base_rate_log_loss"] == pytest.approx(-(3 * np.log(0.4) + np.log(0.6)) / 4)
        # Ranks 2.5, 4, 1, 2.5 against 2, 4, 3, 1: deviations 0, 1.5, -1.5, 0 against -0.5, 1.5, 0.5, -1.5.
        assert summary["rank_ic"] == pytest.approx(1.5 / np.sqrt(4.5 * 5.0))
        assert summary["spread_gross"] == pytest.approx(0.03 - 0.02)
        assert summary["control_auc"] == 0.5
        assert (summary["rows"], summary["sessions"], summary["rank_ic_sessions"]) == (4, 1, 1)
        unknown = ("control_rank_ic", "rank_ic_t", "icir", "spread_net", "turnover", "auc_low", "auc_high")
        assert [summary[name] for name in unknown] == [None] * 7
        assert found.scores["low"].null_count() == len(found.scores)
        assert found.calibration["stage"].unique().to_list() == ["calibrated"]
        assert set(found.scores["predictor"]) == {"model", "control", "base_rate", "majority"}

    def test_scikit_learn_and_scipy_agree_in_every_group(self, rows: pl.DataFrame, result: Evaluation) -> None:
        from scipy.stats import spearmanr
        from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss, precision_score, recall_score, roc_auc_score

        members = result.scores.select("group", "member").unique(maintain_order=True).rows()
        assert members == [
            ("all", "all"), ("fold", "0"), ("fold", "1"), ("fold", "2"), ("year", "2020"), ("year", "2021"), ("sector", "banks"),
            ("sector", "energy"), ("sector", "food"), ("regime", "bear"), ("regime", "bull"),
        ]  # fmt: skip
        keyed = rows.sort("session", "symbol").with_columns(pl.col("session").dt.year().alias("year"), pl.lit("all").alias("all"))
        for group, member in members:
            for name, column in (("model", "probability"), ("heuristic", "heuristic_probability")):
                part = keyed.filter(pl.col(group).cast(pl.String) == member).filter(pl.col(column).is_not_nan())
                up, probability, base = (part[of].to_numpy() for of in ("up", column, "train_up_share"))
                ics = [
                    spearmanr(day[column], day["forward_return"]).statistic
                    for day in part.partition_by("session")
                    if day[column].n_unique() > 1
                ]
                expected = {
                    "auc": roc_auc_score(up, probability), "log_loss": log_loss(up, probability), "brier": brier_score_loss(up, probability),
                    "log_loss_gain": log_loss(up, base) - log_loss(up, probability), "accuracy": accuracy_score(up, probability >= 0.5),
                    "accuracy_gain": accuracy_score(up, probability >= 0.5) - accuracy_score(up, base >= 0.5),
                    "precision": precision_score(up, probability >= 0.5), "recall": recall_score(up, probability >= 0.5),
                    "f1": f1_score(up, probability >= 0.5), "rank_ic": np.mean(ics), "icir": np.mean(ics) / np.std(ics, ddof=1),
                    "rank_ic_t": newey_west_t(np.array(ics), 0),
                }  # fmt: skip
                found = values(result, name, group, member)
                assert {metric: found[metric] for metric in expected} == pytest.approx(expected, abs=1e-11), (group, member, name)
                counted = result.scores.filter(group=group, member=member, predictor=name)
                assert counted.filter(metric="auc").select("rows", "sessions").row(0) == (len(part), part["session"].n_unique())
                assert counted.filter(metric="rank_ic")["sessions"].item() == len(ics)

    def test_rivals_are_who_they_say(self, rows: pl.DataFrame, result: Evaluation) -> None:
        up, called = rows["up"], rows["train_up_share"] >= 0.5
        majority = values(result, "majority")
        assert majority["accuracy"] == pytest.approx((called == up).mean())
        assert majority["precision"] == pytest.approx((called & up).sum() / called.sum())
        assert {name for name, value in majority.items() if value is not None} == {"accuracy", "precision", "recall", "f1"}
        assert {name for name, value in values(result, "base_rate").items() if value is not None} == {
            "log_loss",
            "brier",
            "accuracy",
            "ece",
        }
        known = rows.drop_nulls("previous_up")
        previous = values(result, "previous_sign")
        assert previous["accuracy"] == pytest.approx((known["previous_up"] == known["up"]).mean())
        tpr = (known["previous_up"] & known["up"]).sum() / known["up"].sum()
        fpr = (known["previous_up"] & ~known["up"]).sum() / (~known["up"]).sum()
        assert previous["auc"] == pytest.approx((1 + tpr - fpr) / 2)  # an ROC curve of one corner
        assert [previous[name] for name in ("log_loss", "brier", "ece", "spread_net")] == [None] * 4
        oracle = values(result, "oracle")
        assert oracle["rank_ic"] > 0.5
        assert oracle["log_loss"] is None
        for predictor in PREDICTORS:
            missing = {name for name, value in values(result, predictor.name).items() if value is None}
            assert missing == set(METRICS) - set(predictor.metrics)

    def test_shuffled_labels_are_worth_a_coin(self, result: Evaluation) -> None:
        control = result.scores.filter(group="all", predictor="control")
        for metric, nothing in (("auc", 0.5), ("rank_ic", 0.0), ("spread_gross", 0.0)):
            value, low, high = control.filter(metric=metric).select("value", "low", "high").row(0)
            assert low < nothing < high
            assert value == pytest.approx(nothing, abs=0.06)
        assert abs(values(result, "control")["rank_ic_t"]) < 3

    def test_both_stages_of_calibration(self, rows: pl.DataFrame, result: Evaluation) -> None:
        assert result.calibration.columns == ["stage", "bin", "rows", "probability", "up_share"]
        for stage, predictor in (("raw", "uncalibrated"), ("calibrated", "model")):
            part = result.calibration.filter(stage=stage)
            assert part["rows"].sum() == len(rows)
            gaps = ((part["probability"] - part["up_share"]).abs() * part["rows"]).sum() / len(rows)
            assert values(result, predictor)["ece"] == pytest.approx(gaps)

    def test_calibrated_probabilities_may_have_no_error(self) -> None:
        """Ups drawn from the very probabilities: the error seen is chance alone, and its interval says so where resamples would not."""
        rng = np.random.default_rng(1)
        for seed in range(3):
            rows = panel(seed, sessions=150)
            drawn = rows.with_columns(up=pl.Series(rng.random(len(rows)) < rows["uncalibrated_probability"].to_numpy()))
            error = evaluate(drawn, horizon=1).scores.filter(group="all", predictor="uncalibrated", metric="ece").row(0, named=True)
            assert 0.005 < error["value"] <= error["high"] < 0.05
            assert error["low"] < 0.004

    def test_sessions_carry_what_is_compared(self, rows: pl.DataFrame, result: Evaluation) -> None:
        sessions = result.sessions
        assert sessions["session"].is_sorted()
        assert len(sessions) == rows["session"].n_unique()
        assert sessions.schema["fold"] == pl.Int32
        for predictor in ("model", "uncalibrated", "heuristic", "control", "previous_sign", "oracle"):
            name = "rank_ic" if predictor == "model" else f"{predictor}_rank_ic"
            assert sessions[name].drop_nulls().mean() == pytest.approx(values(result, predictor)["rank_ic"])
        assert sessions["previous_sign_rank_ic"][0] is None  # there is no session before the first
        assert sessions["log_loss"].mean() == pytest.approx(result.summary["log_loss"])  # all sessions have as many symbols
        assert sessions["base_rate_log_loss"].mean() == pytest.approx(result.summary["base_rate_log_loss"])
        for name in ("spread_gross", "spread_net", "turnover"):
            assert sessions[name].drop_nulls().mean() == pytest.approx(result.summary[name])

    def test_folds_have_the_names_of_the_summary(self, rows: pl.DataFrame, result: Evaluation) -> None:
        assert result.folds.columns == ["fold", *result.summary]
        assert result.folds["fold"].to_list() == [0, 1, 2]
        alone = evaluate(rows.filter(fold=1), horizon=1)
        # By itself the fold has tenths of its own, and its first tranche no one before.
        differ = {"ece", "ece_low", "ece_high", "uncalibrated_ece", "spread_net", "spread_net_low", "spread_net_high", "turnover"}
        differ |= {"auc_low", "auc_high"}  # the resamples' bins are of its own, too
        expected = {name: value for name, value in alone.summary.items() if name not in differ}
        assert {name: result.folds.row(1, named=True)[name] for name in expected} == pytest.approx(expected)

    def test_short_groups_have_no_interval(self, rows: pl.DataFrame) -> None:
        days = [FIRST, *sorted(rows["session"].unique())[:19]]
        short = evaluate(rows.filter(pl.col("session").is_in(days)), horizon=1)
        assert short.scores["low"].null_count() == len(short.scores)
        assert short.scores.filter(group="all", predictor="model")["value"].null_count() == 0
        longer = evaluate(rows.filter(pl.col("session") <= sorted(rows["session"].unique())[19]), horizon=1)
        unsure = longer.scores.filter(pl.col("low").is_null(), group="all", predictor="model")
        assert unsure["metric"].to_list() == ["rank_ic_t", "spread_net", "turnover"]  # the first session replaces no tranche

    def test_sessions_that_cannot_be_ranked_are_left_out(self) -> None:
        rows = panel(sessions=10)
        first, second = (FIRST, FIRST.replace(day=2))
        alone = rows.filter((pl.col("session") != first) | (pl.col("symbol") == "S00"))
        flat = alone.with_columns(pl.when(pl.col("session") == second).then(0.5).otherwise("probability").alias("probability"))
        result = evaluate(flat, horizon=1)
        assert result.summary["rank_ic_sessions"] == 8
        assert result.sessions.filter(pl.col("rank_ic").is_null())["session"].to_list() == [first, second]
        assert result.summary["rank_ic"] == pytest.approx(result.sessions["rank_ic"].drop_nulls().mean())

    def test_one_class_and_constant_predictions_are_null(self) -> None:
        rows = panel(sessions=30).with_columns(up=True, probability=pl.lit(0.5))
        result = evaluate(rows, horizon=5)
        for name in ("auc", "auc_low", "rank_ic", "rank_ic_t", "rank_ic_low", "icir", "spread_gross", "turnover"):
            assert result.summary[name] is None, name
        assert result.summary["accuracy"] == 1.0
        assert not result.scores["value"].is_nan().any()
        assert not result.scores["low"].is_nan().any()

    def test_a_sector_is_a_market_of_its_own(self) -> None:
        """Ranks, tranches and their predecessors come from the sector alone; t allows for labels of 5 sessions, twice 4 lags."""
        rows = panel(horizon=5)
        found = evaluate(rows, horizon=5)
        of_order = ("auc", "rank_ic", "rank_ic_t", "icir", "spread_gross", "spread_net", "turnover")
        for sector in ("banks", "energy", "food"):
            alone, inside = evaluate(rows.filter(sector=sector), horizon=5), values(found, "model", "sector", sector)
            assert [inside[name] for name in of_order] == pytest.approx([alone.summary[name] for name in of_order])
            assert found.scores.filter(member=sector, predictor="model", metric="turnover")["sessions"].item() == 85
            assert inside["rank_ic_t"] == pytest.approx(newey_west_t(alone.sessions["rank_ic"].drop_nulls().to_numpy(), 8))

    def test_a_rival_that_never_answers_is_null(self, rows: pl.DataFrame, result: Evaluation) -> None:
        silent = {"heuristic_probability": None, "previous_up": None, "sector": None}
        found = evaluate(rows.with_columns(pl.lit(value).alias(name) for name, value in silent.items()), horizon=1)
        for predictor in ("heuristic", "previous_sign"):
            scores = found.scores.filter(predictor=predictor)
            assert scores["value"].null_count() == len(scores)
            assert (scores["rows"] == 0).all()
        assert set(found.scores["group"]) == {"all", "fold", "year", "regime"}
        assert values(found, "model") == values(result, "model")

    def test_fees_come_off_the_spread(self, rows: pl.DataFrame, result: Evaluation) -> None:
        free, dear = (evaluate(rows, horizon=1, fee_bps=fee, resamples=20).summary for fee in (0, 10))
        paid = 4 * result.summary["turnover"] * 10 / 10_000
        assert free["spread_net"] - dear["spread_net"] == pytest.approx(paid)
        assert free["spread_gross"] == dear["spread_gross"]

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda rows: rows.drop("up", "fold"), "predictions lack fold, up"),
            (lambda rows: rows.head(0), "no predictions"),
            (lambda rows: pl.concat([rows, rows.head(2)]), "2 of 1082 rows repeat a symbol and session"),
            (lambda rows: rows.with_columns(fold=pl.Series([5] * 1079 + [0], dtype=pl.Int32)), "is tested by several folds"),
            (lambda rows: rows.with_columns(forward_return=pl.lit(None, pl.Float64)), "forward_return is unknown in 1080 of 1080"),
            (lambda rows: rows.with_columns(probability=pl.lit(float("nan"))), "probability is unknown in 1080"),
        ],
    )
    def test_what_cannot_be_scored_is_refused(self, rows: pl.DataFrame, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(ValueError, match=message):
            evaluate(spoil(rows), horizon=1)


class TestProperties:
    @given(seed=st.integers(0, 1000))
    @settings(max_examples=3, deadline=None)
    def test_order_of_rows_and_repetition_change_nothing(self, rows: pl.DataFrame, result: Evaluation, seed: int) -> None:
        again = evaluate(rows.sample(fraction=1, shuffle=True, seed=seed), horizon=1)
        for name in ("scores", "sessions", "calibration", "folds"):
            assert getattr(again, name).equals(getattr(result, name)), name
        assert again.summary == result.summary

    def test_only_the_order_of_scores_ranks(self, rows: pl.DataFrame, result: Evaluation) -> None:
        stretched = evaluate(rows.with_columns((pl.col("probability") ** 3 / 2).alias("probability")), horizon=1)
        of_order = ("auc", "rank_ic", "rank_ic_t", "icir", "spread_gross", "spread_net", "turnover")
        for name in (*of_order, "auc_low", "auc_high", "rank_ic_low", "rank_ic_high"):
            assert stretched.summary[name] == pytest.approx(result.summary[name]), name

    def test_optional_columns_change_no_other_score(self, rows: pl.DataFrame, result: Evaluation) -> None:
        least = evaluate(rows.select(PREDICTION_COLUMNS), horizon=1)
        expected = result.scores.filter(
            pl.col("group").is_in(["all", "fold", "year"]), pl.col("predictor").is_in(["model", "control", "base_rate", "majority"])
        )
        assert least.scores.drop("value", "low", "high").equals(expected.drop("value", "low", "high"))
        for name in ("value", "low", "high"):
            assert least.scores[name].to_list() == pytest.approx(expected[name].to_list(), nan_ok=True)

    @given(seed=st.integers(0, 1000), horizon=st.sampled_from([1, 5]))
    @settings(max_examples=4, deadline=None)
    def test_intervals_hold_their_values_and_stay_in_range(self, seed: int, horizon: int) -> None:
        found = evaluate(panel(seed, sessions=120, horizon=horizon), horizon, resamples=200).scores
        sure = found.drop_nulls("low")
        assert (sure["high"] >= sure["low"]).all()
        assert sure.select(pl.col("value").is_between(pl.col("low") - 1e-12, pl.col("high") + 1e-12).all()).item()
        shares = sure.filter(pl.col("metric").is_in(["auc", "accuracy", "precision", "recall", "f1", "ece", "brier", "turnover"]))
        assert shares["low"].min() >= 0
        assert shares["high"].max() <= 1
        assert found.filter(pl.col("value").is_null() & pl.col("low").is_not_null()).is_empty()

    def test_more_sessions_make_narrower_intervals(self) -> None:
        widths = []
        for sessions in (60, 240, 960):
            summary = evaluate(panel(4, symbols=15, sessions=sessions), horizon=1, resamples=200).summary
            widths.append([summary[f"{name}_high"] - summary[f"{name}_low"] for name in ("rank_ic", "auc", "log_loss")])
        for wide, narrow in pairwise(widths):
            assert (np.array(narrow) < 0.75 * np.array(wide)).all()
