"""Promotion: numbers by hand, evidence from simulated rivals, and that noise changes nothing."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from quant_assets.signals.promotion import LEAST_SESSIONS, decide


def predictions(seed: int, skill: float, sessions: int = 400, symbols: int = 20, start: int = 0) -> pl.DataFrame:
    """A world in which a probability that knows `skill` of each return is offered; the returns depend on the sessions alone."""
    world, model = np.random.default_rng(99), np.random.default_rng(seed)
    returns = world.standard_normal((1000, symbols))[start : start + sessions]
    told = skill * returns + np.sqrt(1 - skill**2) * model.standard_normal((1000, symbols))[start : start + sessions]
    days = [date(2020, 1, 1) + timedelta(days=start + i) for i in range(sessions)]
    return pl.DataFrame(
        {
            "symbol": [f"S{i:02}" for i in range(symbols)] * sessions,
            "session": np.repeat(np.array(days, dtype="datetime64[D]"), symbols),
            "probability": 1 / (1 + np.exp(-1.6 * skill * told.ravel())),
            "train_up_share": 0.5,
            "forward_return": returns.ravel(),
            "up": returns.ravel() > 0,
        }
    )


class TestRegression:
    def test_gains_by_hand(self) -> None:
        """Two symbols: the challenger orders them rightly at 0.6 and 0.4, the incumbent wrongly at 0.4 and 0.6."""
        days = [date(2020, 1, 1) + timedelta(days=i) for i in range(LEAST_SESSIONS)]
        base = pl.DataFrame({"session": days}).join(pl.DataFrame({"symbol": ["A", "B"], "forward_return": [0.01, -0.01]}), how="cross")
        base = base.with_columns(up=pl.col("forward_return") > 0, train_up_share=0.5)
        right = base.with_columns(probability=pl.when("up").then(0.6).otherwise(0.4))
        wrong = base.with_columns(probability=pl.when("up").then(0.4).otherwise(0.6))
        decision = decide(right, wrong, 1, 0.99, "3")
        assert decision.promoted
        assert decision.incumbent == "3"
        assert decision.rank_ic is not None
        assert decision.log_loss is not None
        assert (decision.rank_ic.mean, decision.rank_ic.bound) == (2.0, 2.0)
        assert decision.log_loss.bound == pytest.approx(np.log(0.6 / 0.4))
        assert (decision.sessions, decision.first_session, decision.last_session) == (LEAST_SESSIONS, days[0], days[-1])
        assert decide(right, None, 1, 0.99).log_loss.mean == pytest.approx(np.log(0.6 / 0.5))  # type: ignore[union-attr]
        assert decision.evidence["rank_ic_gain"] == 2.0

    def test_too_few_common_sessions_are_not_enough(self) -> None:
        challenger = predictions(1, 0.5, sessions=200)
        decision = decide(challenger, predictions(2, 0.1, sessions=100, start=150), 1, 0.99, "3")
        assert not decision.promoted
        assert decision.reason == "50 common sessions out of sample are too few to hold it against version 3; 60 are needed"
        assert not decide(challenger.clear(), None, 1, 0.99).promoted

    def test_a_leak_is_turned_down_whatever_it_gains(self) -> None:
        decision = decide(predictions(1, 0.9), None, 1, 0.99, leaks=("its rank IC is beyond the planted truth",))
        assert not decision.promoted
        assert decision.reason.startswith("it looks like a leak: its rank IC is beyond the planted truth; against no skill on 400 sessions")

    def test_without_confidence_whatever_is_trained_becomes_champion(self) -> None:
        assert decide(predictions(1, 0.0, sessions=10), None, 1, 0.0).promoted


class TestProperties:
    @pytest.mark.parametrize("skill", [0.15, 0.3])
    def test_more_skill_takes_the_place_and_never_loses_it(self, skill: float) -> None:
        better, worse = predictions(1, skill), predictions(2, skill / 3)
        assert decide(better, None, 1, 0.99).promoted
        assert decide(better, worse, 1, 0.99, "1").promoted
        assert not decide(worse, better, 1, 0.99, "1").promoted

    def test_the_same_model_again_gains_nothing(self) -> None:
        decision = decide(predictions(1, 0.2), predictions(1, 0.2), 1, 0.99, "1")
        assert not decision.promoted
        assert (decision.rank_ic.mean, decision.log_loss.mean) == (0.0, 0.0)  # type: ignore[union-attr]

    @pytest.mark.parametrize("horizon", [1, 5])
    def test_noise_changes_no_champion(self, horizon: int) -> None:
        """Forty challengers of no skill against none, and forty of equal skill against one another: one in forty at most."""
        noise = [predictions(seed, 0.0, sessions=200).with_columns(0.5 + 0.02 * (pl.col("probability") - 0.5)) for seed in range(40)]
        spread = [
            frame.with_columns(probability=0.5 + 0.01 * np.random.default_rng(i).standard_normal(len(frame)))
            for i, frame in enumerate(noise)
        ]
        assert sum(decide(frame, None, horizon, 0.99).promoted for frame in spread) <= 1
        equals = [predictions(seed, 0.1, sessions=200) for seed in range(41)]
        assert sum(decide(one, other, horizon, 0.99, "1").promoted for one, other in pairwise(equals)) <= 1

    def test_order_of_rows_does_not_matter(self) -> None:
        frame = predictions(3, 0.1)
        assert decide(frame.sample(fraction=1, shuffle=True, seed=1), None, 1, 0.99) == decide(frame, None, 1, 0.99)
