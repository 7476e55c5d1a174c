"""No look-ahead: history cut anywhere changes nothing before the cut, and errors planted on purpose are caught."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from functools import cache

import numpy as np
import polars as pl
import pytest
from hmmlearn.hmm import GaussianHMM

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.catalog import TECHNICAL_V1
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.feature_store.labels import labels
from quant_assets.lookahead import described, offending_rows
from quant_assets_tests.lookahead import NO_ACTIONS, calendar_frame, evening, random_history, sp500_panel, stocknet_panel

History = dict[str, pl.DataFrame]


def features(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """The view as the pipeline computes it, with the instant from which each row was known."""
    adjusted = forward_adjusted(bars, actions)
    return technical_v1(adjusted).hstack(adjusted.select("known_at"))


def outcomes(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    return labels(forward_adjusted(bars, actions), calendar_frame(date(2020, 1, 1), 400))


def cuts_of(history: History, seed: int, n: int = 6, clock: str = "session") -> list[date | datetime]:
    """Random moments of a history, among them its second and its last but one."""
    moments = history["bars"][clock].unique().sort()
    inner = np.random.default_rng(seed).choice(len(moments) - 1, size=n, replace=False)
    return [moments[1], *(moments[int(i)] for i in inner), moments[-2]]


def real_history(panel: Callable[[], pl.DataFrame | None], symbols: int = 5, sessions: int = 400) -> History:
    bars = panel()
    if bars is None:
        pytest.skip("the shared market data is not at hand")
    chosen = bars["symbol"].unique().sort().gather_every(17).head(symbols)
    first = bars["session"].unique().sort().head(sessions)
    return {"bars": bars.filter(pl.col("symbol").is_in(chosen.implode()) & pl.col("session").is_in(first.implode())), "actions": NO_ACTIONS}


def known_late(history: History, seed: int) -> History:
    """Delay when some bars and actions became known by up to 30 days."""
    random = np.random.default_rng(seed)

    def delay(frame: pl.DataFrame) -> pl.DataFrame:
        days = np.where(random.random(frame.height) < 0.1, random.integers(1, 30, frame.height), 0)
        return frame.with_columns(pl.col("known_at") + pl.duration(days=pl.Series(days)))

    return {"bars": delay(history["bars"]), "actions": delay(history["actions"])}


class TestProperties:
    @pytest.mark.parametrize("seed", range(5))
    def test_features_of_generated_histories(self, seed: int) -> None:
        history = random_history(seed)
        assert set(features(**history).columns) >= {feature.name for feature in TECHNICAL_V1}
        assert offending_rows(features, history, cuts_of(history, seed)).is_empty()

    @pytest.mark.parametrize("panel", [sp500_panel, stocknet_panel])
    def test_features_of_real_histories(self, panel: Callable[[], pl.DataFrame | None]) -> None:
        history = real_history(panel)
        assert offending_rows(features, history, cuts_of(history, 1)).is_empty()

    @pytest.mark.parametrize("compute", [features, outcomes])
    @pytest.mark.parametrize("seed", range(4))
    def test_rows_are_reproduced_from_what_was_known_at_their_known_at(self, compute: Callable[..., pl.DataFrame], seed: int) -> None:
        history = known_late(random_history(seed), seed)
        key = ("symbol", "session", "horizon") if compute is outcomes else ("symbol", "session")
        assert offending_rows(compute, history, cuts_of(history, seed, clock="known_at"), key=key, clock="known_at").is_empty()

    @pytest.mark.parametrize("seed", range(4))
    def test_a_label_is_known_when_its_outcome_is(self, seed: int) -> None:
        history = random_history(seed)
        rows = outcomes(**history)
        assert rows.height > 0
        cuts = cuts_of(history, seed, clock="known_at")
        assert offending_rows(outcomes, history, cuts, key=("symbol", "session", "horizon"), clock="known_at").is_empty()


@cache
def regime_model() -> GaussianHMM:
    """Three regimes of daily returns, as if fitted on a stretch before any history here; nothing of it changes with a cut."""
    model = GaussianHMM(3, "diag")
    model.startprob_ = np.full(3, 1 / 3)
    model.transmat_ = np.full((3, 3), 0.075) + 0.775 * np.eye(3)
    model.means_ = np.array([[-0.01], [0.0], [0.01]])
    model.covars_ = np.array([[0.02**2], [0.01**2], [0.02**2]])
    return model


def viterbi_states(returns: pl.Series) -> pl.Series:
    """The state of each session on the likeliest path through the whole series: a later return may change an earlier state."""
    known = returns.drop_nulls().to_numpy()
    return _after_warm_up(returns, regime_model().predict(known[:, None]) if len(known) else known)


def filtered_states(returns: pl.Series) -> pl.Series:
    """The likeliest state of each session given the returns up to it, by the forward recursion."""
    model, states = regime_model(), []
    means, variances = model.means_[:, 0], model.covars_[:, 0, 0]
    belief = model.startprob_
    for value in returns.drop_nulls():
        prior = belief @ model.transmat_ if states else belief
        log_joint = np.log(prior) - (value - means) ** 2 / (2 * variances) - np.log(variances) / 2
        joint = np.exp(log_joint - log_joint.max())
        belief = joint / joint.sum()
        states.append(int(belief.argmax()))
    return _after_warm_up(returns, np.array(states))


def _after_warm_up(returns: pl.Series, states: np.ndarray) -> pl.Series:
    return pl.Series([None] * returns.null_count() + states.tolist(), dtype=pl.Int64)


CLOSE, VOLUME = pl.col("adj_close"), pl.col("adj_volume")
RETURN = CLOSE / CLOSE.shift(1) - 1
# The planted error, and the honest feature that somebody meant.
TWINS: dict[str, tuple[pl.Expr, pl.Expr]] = {
    "centred window": (CLOSE.rolling_mean(5, center=True), CLOSE.rolling_mean(5)),
    "back-fill": (VOLUME.backward_fill(), VOLUME.forward_fill()),
    "full-sample z-score": ((RETURN - RETURN.mean()) / RETURN.std(), (RETURN - RETURN.rolling_mean(20)) / RETURN.rolling_std(20)),
    "shifted label": (CLOSE.shift(-1) / CLOSE - 1, RETURN),
    "one-session misalignment": (pl.col("rsi_14").shift(-1), pl.col("rsi_14")),
    "later split in an earlier level": (
        pl.col("close") * pl.col("share_factor") / pl.col("share_factor").last(),
        pl.col("close") * pl.col("share_factor"),
    ),
    "Viterbi state": (
        RETURN.map_batches(viterbi_states, return_dtype=pl.Int64),
        RETURN.map_batches(filtered_states, return_dtype=pl.Int64),
    ),
}
SEEDS, CHUNK = 200, 25


def planted_and_honest(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Every planted error beside its honest twin, and the whole view `technical_v1`."""
    adjusted = forward_adjusted(bars, actions)
    view = technical_v1(adjusted).drop("symbol", "session")
    planted = (error.over("symbol").alias(name) for name, (error, _) in TWINS.items())
    honest = (twin.over("symbol").alias(f"{name}: its twin") for name, (_, twin) in TWINS.items())
    return adjusted.hstack(view).select("symbol", "session", "known_at", *view.columns, *planted, *honest)


def eventful_history(seed: int) -> History:
    """A short history in which a few cuts meet all that an error needs to show: splits, and two symbols that mostly lack their volume."""
    history = random_history(seed, symbols=4, n=80, splits=0.1)
    lacks = pl.Series(np.random.default_rng(seed).random(history["bars"].height) < 0.7)
    volume = pl.when(pl.col("symbol").is_in(["S0", "S1"]) & lacks).then(None).otherwise("volume").alias("volume")
    return {"bars": history["bars"].with_columns(volume), "actions": history["actions"]}


def _expect_the_planted_alone(history: History, seed: int, clock: str) -> None:
    found = offending_rows(planted_and_honest, history, cuts_of(history, seed, clock=clock), clock=clock)
    false = found.filter(~pl.col("column").is_in(list(TWINS)))
    assert false.is_empty(), f"seed {seed} flags what does not look ahead:\n{described(false)}"
    missed = TWINS.keys() - set(found["column"])
    assert not missed, f"seed {seed} does not catch: {', '.join(sorted(missed))}"


def _label_known_too_early(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    return outcomes(bars, actions).with_columns(evening())


class TestRegression:
    # The first chunk with every test, all 200 seeds with the drills.
    @pytest.mark.parametrize("first", [pytest.param(first, marks=[pytest.mark.drill] if first else []) for first in range(0, SEEDS, CHUNK)])
    def test_every_planted_error_is_caught_and_no_honest_twin_flagged(self, first: int) -> None:
        for seed in range(first, first + CHUNK):
            _expect_the_planted_alone(eventful_history(seed), seed, "session")

    def test_the_same_where_bars_came_late(self) -> None:
        for seed in range(20):
            _expect_the_planted_alone(known_late(eventful_history(seed), seed), seed, "known_at")

    def test_what_is_planted_and_its_twins_are_no_empty_columns(self) -> None:
        rows = planted_and_honest(**eventful_history(0))
        assert {name: rows[name].null_count() for name in rows.columns if rows[name].n_unique() < 3} == {}

    def test_the_filtered_state_is_what_the_last_smoothed_one_would_be(self) -> None:
        adjusted = forward_adjusted(**random_history(2, symbols=1, n=60))
        returns = adjusted.select(RETURN)["adj_close"]
        values = returns.drop_nulls().to_numpy()[:, None]
        at_the_end = [int(regime_model().predict_proba(values[:n])[-1].argmax()) for n in range(1, len(values) + 1)]
        assert filtered_states(returns).to_list() == [None, *at_the_end]
        assert viterbi_states(returns).to_list() != [None, *at_the_end]

    def test_a_label_said_to_be_known_at_its_own_session_is_caught(self) -> None:
        history = random_history(1)
        cuts = cuts_of(history, 1, clock="known_at")
        found = offending_rows(_label_known_too_early, history, cuts, key=("symbol", "session", "horizon"), clock="known_at")
        assert set(found["column"]) == {"row"}

    def test_features_said_to_be_known_with_their_own_bar_are_caught_where_an_earlier_one_came_late(self) -> None:
        history = known_late(random_history(1), 1)

        def own_bar_only(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
            return features(bars, actions).drop("known_at").join(bars.select("symbol", "session", "known_at"), on=["symbol", "session"])

        assert not offending_rows(own_bar_only, history, cuts_of(history, 1, clock="known_at"), clock="known_at").is_empty()
