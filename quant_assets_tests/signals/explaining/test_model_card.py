"""The model card: every number of it is the training's, every section says something, no symbol breaks a table."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest

from quant_assets.feature_store.contract import FeatureContract
from quant_assets.signals.evaluation import evaluate
from quant_assets.signals.explaining.explanation import combine, counter_examples, permutation_importance
from quant_assets.signals.explaining.model_card import GROUPS, CardInputs, model_card
from quant_assets_tests.signals.explaining.test_explanation import TRUTH
from quant_assets_tests.signals.worlds import world

SECTIONS = [
    "In short", "What it is", "Data", "Folds", "Scores out of sample", "Calibration", "By year", "By sector", "By regime",
    "What it looks at", "Counter-examples", "Leaks", "Promotion", "Limits",
]  # fmt: skip
NOTHING = pl.DataFrame()


@pytest.fixture(scope="module")
def card() -> CardInputs:
    """A card of the planted truth itself on a small world, whose symbols are as awkward as vendors have them."""
    frame = world(1, rank_ic=0.2, symbols=12, sessions=120).with_columns(symbol=pl.format("A|B\\{}", pl.col("symbol")))
    random = np.random.default_rng(1)
    noise = pl.Series(0.5 + 0.01 * random.standard_normal(len(frame)))
    days = frame["session"].unique().sort()
    fold = (pl.col("session") >= days[60]).cast(pl.Int32)
    predictions = frame.with_columns(
        TRUTH.predict(frame), uncalibrated_probability=TRUTH.predict(frame), control_probability=noise, heuristic_probability=noise,
        train_up_share=pl.lit(0.5), fold=fold, trained_until=pl.lit(datetime(2019, 12, 31, 21)),
        sector=pl.when(pl.col("symbol").str.ends_with("0")).then(pl.lit("Oil | Gas")).otherwise(pl.lit("Banks")),
    )  # fmt: skip
    evaluated = evaluate(predictions, 1, resamples=50)
    folds = [
        {"fold": number, "train_from": date(2019, 1, 2), "train_to": date(2019, 12, 30), "test_from": days[60 * number],
         "test_to": days[60 * number + 59], "train_rows": 3000, "train_up_share": 0.5, "trained_until": datetime(2019, 12, 31, 21)}
        for number in (0, 1)
    ]  # fmt: skip
    units = ("fraction", "fraction", "0 to 100", "ratio")
    return CardInputs(
        contract=FeatureContract("technical_v1", "ab" * 32, TRUTH.features, ("Float64",) * 4, units),
        family="lightgbm", parameters={"rounds": 100, "learning_rate": 0.03, "members": ("lightgbm", "logistic")},
        horizon=1, label_threshold=0.0, embargo=2, seed=7, fee_bps=5.0, source="files", symbols=12, rows=len(frame),
        first_session=days[0], last_session=days[-1], as_of=datetime(2020, 5, 1, 21), trained_until=datetime(2020, 4, 30, 21),
        fingerprint="cd" * 32, folds=pl.DataFrame(folds), scores=evaluated.scores, calibration=evaluated.calibration,
        importance=TRUTH.importance, permutation=combine([permutation_importance(TRUTH, frame, "up", 1, seed=7)]),
        counter_examples=counter_examples(predictions, TRUTH, frame, count=5), leaks=(), decision="promoted",
        reason="a gain in both", evidence={"rank_ic_gain": 0.0123456, "incumbent": None}, version="12", basis="restated",
    )  # fmt: skip


def section(text: str, title: str) -> str:
    return re.split(r"^## ", text.split(f"## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0].strip()


def score(card: CardInputs, predictor: str, metric: str, group: str = "all") -> dict[str, float]:
    rows = card.scores.filter(pl.col("predictor") == predictor, pl.col("metric") == metric, pl.col("group") == group)
    return rows.row(0, named=True)


class TestRegression:
    def test_the_sections_stand_in_order(self, card: CardInputs) -> None:
        text = model_card(card)
        assert text.startswith("# Signal model 12\n\nThe probability of a return over 1 session above 0.00%.")
        assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == SECTIONS

    def test_scores_stand_with_their_intervals_beside_every_rival(self, card: CardInputs) -> None:
        lines = section(model_card(card), "Scores out of sample").splitlines()
        header = next(line for line in lines if line.startswith("|  |"))
        assert header == "|  | model | heuristic | base rate | majority class | shuffled labels | uncalibrated |"
        rank_ic = next(line for line in lines if line.startswith("| rank IC |")).split(" | ")
        found = score(card, "model", "rank_ic")
        assert rank_ic[1] == f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
        assert rank_ic[3:5] == ["–", "–"], "a base rate ranks nothing"
        spread = next(line for line in lines if line.startswith("| decile spread")).split(" | ")
        assert spread[1].startswith(f"{1e4 * score(card, 'model', 'spread_gross')['value']:+.1f} [")
        assert "Over 1,440 rows of 120 sessions" in lines[0]

    def test_what_it_is_and_where_it_comes_from(self, card: CardInputs) -> None:
        text = model_card(card)
        assert "- Parameters: learning_rate 0.03, members lightgbm + logistic, rounds 100" in text
        assert "fraction: `first`, `second`; 0 to 100: `third`; ratio: `fourth`" in text
        assert "- Source: files, prices restated" in text
        assert "12 symbols, 2020-01-01 to 2020-04-29, 1,440 rows" in text
        assert "cd" * 32 in text
        assert "purge of 1 session and an embargo of 2" in section(text, "Folds")
        assert "| 0 | 2019-01-02 to 2019-12-30 | 3,000 | 50.0% | 3 | 2020-01-01 to 2020-02-29 | 2019-12-31 21:00 UTC |" in text

    def test_the_short_word_says_what_the_intervals_say(self, card: CardInputs) -> None:
        assert "(above zero)" in section(model_card(card), "In short")
        rank_ic = (pl.col("predictor") == "model") & (pl.col("metric") == "rank_ic") & (pl.col("group") == "all")
        unsure = card.scores.with_columns(low=pl.when(rank_ic).then(-0.1).otherwise("low"))
        assert "(zero is not excluded), beside" in section(model_card(replace(card, scores=unsure)), "In short")
        leaking = model_card(replace(card, leaks=["Leak: the model exceeds the truth."]))
        assert "looks like a leak" in section(leaking, "In short")
        assert section(leaking, "Leaks") == "- Leak: the model exceeds the truth."

    def test_losses_stand_with_their_errors(self, card: CardInputs) -> None:
        text = section(model_card(card), "What it looks at")
        row = card.permutation.row(by_predicate=pl.col("feature") == "first", named=True)
        assert f"| `first` | 66.7% | {row['rank_ic_loss']:+.4f} ± {row['rank_ic_loss_se']:.4f} |" in text
        assert "the model does not use it" in text

    def test_the_decision_stands_with_its_evidence(self, card: CardInputs) -> None:
        assert section(model_card(card), "Promotion") == "- Promoted: a gain in both\n- rank ic gain: 0.01235\n- incumbent: none"
        assert section(model_card(replace(card, decision=None)), "Promotion") == "Nothing is decided yet."

    def test_limits_are_those_of_source_basis_and_label(self, card: CardInputs) -> None:
        limits = section(model_card(replace(card, limits=["Trained on 12 symbols of choice."])), "Limits")
        assert "survivors" in limits
        assert "restated" in limits
        assert "overlap" not in limits
        assert "12 symbols of choice" in limits
        other = section(model_card(replace(card, source="synthetic", basis="raw", horizon=5)), "Limits")
        assert "made up" in other
        assert "restated" not in other
        assert "Labels overlap over 5 sessions" in other


class TestProperties:
    def test_a_section_without_data_says_in_one_line_why(self, card: CardInputs) -> None:
        empty = replace(
            card, folds=NOTHING, scores=card.scores.clear(), calibration=NOTHING, importance=NOTHING, permutation=NOTHING,
            counter_examples=NOTHING, leaks=None, decision=None, version=None, basis=None, evidence={},
        )  # fmt: skip
        text = model_card(empty)
        silent = ["In short", "Folds", "Scores out of sample", "Calibration", *(f"By {group}" for group in GROUPS), "What it looks at"]
        for title in [*silent, "Counter-examples", "Leaks", "Promotion"]:
            told = section(text, title)
            assert told.endswith("."), title
            assert "\n" not in told, title
        assert text.startswith("# Signal model\n")

    def test_every_row_of_a_table_has_as_many_cells_as_its_header(self, card: CardInputs) -> None:
        text = model_card(card)
        tables = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
        assert len(tables) == 7
        for table in tables:
            widths = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table.splitlines()}
            assert len(widths) == 1, table
        assert "A\\|B\\\\S0" in text
        assert "Oil \\| Gas" in text

    def test_the_same_inputs_give_the_same_text(self, card: CardInputs) -> None:
        assert model_card(card) == model_card(replace(card, importance=card.importance.reverse(), scores=card.scores.reverse()))
        assert not re.search(r"\bnan\b|None", model_card(card))
