"""The model that scores: an estimator, the calibration of its log-odds, and what they are held against.

The log-odds of all symbols in one session share a part, which is a bet on the market; a few hundred sessions teach
nothing about it, but its errors hit all symbols of a session at once. So a model of many symbols is centred: a symbol's
log-odds count against the mean of those scored with it, and the base rate stands for the market. (On ten synthetic
markets the mean t-value of the log-loss gain over the base rate rises from 1.3 to 3.2.)
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import polars as pl

from quant_assets.errors import QuantAssetsError
from quant_assets.signals.calibration import Calibration
from quant_assets.signals.models.estimator import Estimator, from_text

SYMBOLS_TO_CENTRE = 10
"""From how many symbols a session (their median over training sessions) a model is centred; fewer hold no cross-section."""


@dataclass(frozen=True)
class SignalModel:
    """What was fitted, with everything that turns features into a probability; equal texts are equal models."""

    estimator: Estimator
    calibration: Calibration
    centred: bool

    @property
    def features(self) -> tuple[str, ...]:
        """The columns it reads, in its order."""
        return self.estimator.features

    @property
    def importance(self) -> pl.DataFrame:
        """The estimator's: `feature`, `gain`, `splits`, most important first."""
        return self.estimator.importance

    def log_odds(self, frame: pl.DataFrame) -> pl.Series:
        """The estimator's own log-odds per row, neither centred nor calibrated. Raises `ContractError` where a feature is missing."""
        return self.estimator.log_odds(frame).rename("log_odds")

    def centre(self, frame: pl.DataFrame) -> pl.Series:
        """What each row's log-odds count against: the mean over its `session`, or null where the model is not centred."""
        return self._centre(frame, self.log_odds(frame))

    def predict(self, frame: pl.DataFrame, centre: pl.Series | None = None) -> pl.Series:
        """Calibrated probability per row that the label is true, in the frame's order, never null.

        `frame` has the features and `session`, and of each session all symbols that are to be held against one another; or
        `centre` says what each row is held against (null: nothing).
        """
        log_odds = self.log_odds(frame)
        against = self._centre(frame, log_odds) if centre is None else centre
        return self.calibration.probability(log_odds - against.fill_null(0.0)).rename("probability")

    def _centre(self, frame: pl.DataFrame, log_odds: pl.Series) -> pl.Series:
        if not self.centred:
            return pl.Series("centre", [None] * len(frame), dtype=pl.Float64)
        return frame.select("session", log_odds).select(centre=pl.col("log_odds").mean().over("session"))["centre"]

    def uncalibrated(self, frame: pl.DataFrame) -> pl.Series:
        """The estimator's own probability per row, neither centred nor calibrated."""
        return (1.0 / (1.0 + (-self.log_odds(frame)).exp())).rename("uncalibrated_probability")

    def contributions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What each feature adds to a row's log-odds: one column per feature and `base`, never null, exact.

        Of a centred model, what it adds beyond the session's mean, so that what is the same for all symbols adds nothing. A
        row's sum is the logit of its probability; under isotonic calibration, which has no shares, the log-odds before it.
        """
        raw = self.estimator.contributions(frame)
        if self.centred:
            features = pl.col(self.features)
            raw = (
                raw.with_columns(frame["session"])
                .with_columns(features - features.mean().over("session"), base=pl.lit(0.0))
                .drop("session")
            )
        slope, intercept = (1.0, 0.0) if self.calibration.method == "isotonic" else (self.calibration.slope, self.calibration.intercept)
        return raw.with_columns(pl.all() * slope).with_columns(pl.col("base") + intercept)

    def to_json(self) -> str:
        """The whole model as JSON text."""
        parts = {"family": self.estimator.family, "centred": self.centred, "calibration": self.calibration.to_dict()}
        return json.dumps({**parts, "estimator": self.estimator.to_text()}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str = "This text") -> SignalModel:
        """Read what `to_json` wrote; raises `QuantAssetsError` naming `source` for anything else."""
        try:
            content = json.loads(text)
            calibration = Calibration.from_dict(content["calibration"])
            # One thread: a night's universe is too small to be worth handing over to a second.
            return cls(from_text(content["family"], content["estimator"], threads=1), calibration, bool(content["centred"]))
        except (ValueError, KeyError, TypeError, QuantAssetsError) as error:
            raise QuantAssetsError(f"{source} is no signal model ({error}); train the model again to write one.") from None
