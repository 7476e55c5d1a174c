"""One fit: an inner purged split to stop and to calibrate on, then the model on all training rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from quant_assets.errors import QuantAssetsError
from quant_assets.signals import splits
from quant_assets.signals.calibration import fit_calibration
from quant_assets.signals.models import estimator
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.signal_model import SYMBOLS_TO_CENTRE, SignalModel

SHARED = 0.01
INNER_SHARE = 0.25
"""The last sessions of a training on which it is stopped and calibrated, as a share."""


def is_centred(frame: pl.DataFrame) -> bool:
    """Whether a model of these rows holds symbols against one another: there are many in the median session."""
    return float(frame.group_by("session").len()["len"].median() or 0) >= SYMBOLS_TO_CENTRE  # type: ignore[arg-type]


def telling_features(frame: pl.DataFrame, features: Sequence[str]) -> tuple[str, ...]:
    """Of some features those that a model of these rows can use, in their order; all of them where it is not centred.

    A centred one has no use for what all symbols of a session share, and trees that may look at it look at little else, for
    the market's moves are most of what labels tell. Left out is what varies by less than a hundredth within sessions.
    """
    if not is_centred(frame):
        return tuple(features)
    within = frame.group_by("session").agg(pl.col(features).var(ddof=0)).select(pl.col(features).mean()).row(0)
    whole = frame.select(pl.col(features).var(ddof=0)).row(0)
    return tuple(name for name, own, total in zip(features, within, whole, strict=True) if own and own > SHARED * total)


def fit_signal_model(
    frame: pl.DataFrame, features: Sequence[str], config: ModelConfig, seed: int, purge: int, label: str = "up", embargo: int = 0
) -> SignalModel:
    """Fit one model on every row of a training frame; the same rows in the same order give the same model, byte for byte.

    `frame` is sorted by session and has `session`, `symbol`, the features (nulls allowed), the boolean `label` and `weight`, never null.
    Where the configuration stops early or calibrates, a first model is fitted on the earlier sessions and judged on the
    last quarter, `purge` and `embargo` sessions apart; its rounds and its calibration serve the final one. Raises
    `TooFewSessions`, and `QuantAssetsError` where all labels are alike.
    """
    sessions = frame["session"].unique().sort().to_list()
    centred = is_centred(frame)
    base_rate = float(frame[label].mean())  # type: ignore[arg-type]
    if base_rate in (0.0, 1.0):
        raise QuantAssetsError(
            f"All {len(frame)} training labels from {sessions[0]} to {sessions[-1]} are {'true' if base_rate else 'false'}: there is nothing "
            "to tell apart. Choose another label threshold (QUANT_LABEL_THRESHOLD), or train on more history."
        )
    whole = replace(config, early_stopping_rounds=0)
    if not config.early_stopping_rounds and config.calibration == "none":
        return _model(estimator.fit(frame, features, label, whole, seed, "weight"), centred, "none", frame.clear(), label, base_rate)
    inner = splits.holdout(sessions, share=INNER_SHARE, purge=purge, embargo=embargo)
    earlier = frame.filter(pl.col("session") <= inner.train_sessions[-1])
    later = frame.filter(pl.col("session") >= inner.test_sessions[0])
    if min(earlier[label].n_unique(), later[label].n_unique()) < 2:  # outcomes all alike stop and calibrate nothing
        return _model(estimator.fit(frame, features, label, whole, seed, "weight"), centred, "none", frame.clear(), label, base_rate)
    trial = estimator.fit(earlier, features, label, config, seed, "weight", later if config.early_stopping_rounds else None)
    calibrated = _model(trial, centred, config.calibration, later, label, base_rate)
    if config.early_stopping_rounds:
        whole = replace(whole, rounds=trial.rounds or config.rounds, member_rounds=getattr(trial, "member_rounds", ()))
    return replace(calibrated, estimator=estimator.fit(frame, features, label, whole, seed, "weight"))


def _model(fitted: estimator.Estimator, centred: bool, method: str, judged: pl.DataFrame, label: str, base_rate: float) -> SignalModel:
    log_odds = fitted.log_odds(judged)
    if centred:
        log_odds = judged.select("session", log_odds.rename("z")).select(pl.col("z") - pl.col("z").mean().over("session"))["z"]
    calibration = fit_calibration(method, log_odds.to_numpy(), judged[label].to_numpy(), base_rate)
    if centred and method == "none":  # centred log-odds are around 0, which stands for the base rate and not for a coin
        calibration = replace(calibration, intercept=math.log(base_rate / (1 - base_rate)))
    return SignalModel(fitted, calibration, centred)
