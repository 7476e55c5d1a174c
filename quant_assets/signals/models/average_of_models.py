"""The mean of several families' log-odds: their errors differ, and exact contributions stay exact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import polars as pl

from quant_assets.errors import QuantAssetsError
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.models.estimator import family_module
from quant_assets.signals.models.fitted import Fitted, opened, unreadable
from quant_assets.signals.models.samples import Matrix, Samples, Vector


class AverageOfModels(Fitted):
    """Members on the same features, each with the same say."""

    family = "average"

    @cached_property
    def members(self) -> tuple[Fitted, ...]:
        """The fitted members, in the configuration's order."""
        return _members(self.body, self.threads)

    @property
    def member_rounds(self) -> tuple[int, ...]:
        """The rounds of each member."""
        return tuple(member.rounds for member in self.members)

    @cached_property
    def importance(self) -> pl.DataFrame:
        """One row per feature, most important first: `feature`, `gain` (mean of its shares of the members' gains), `splits` (sum)."""
        shares = [
            member.importance.with_columns(gain=pl.col("gain") / total if (total := member.importance["gain"].sum()) else 0.0)
            for member in self.members
        ]
        summed = pl.concat(shares).group_by("feature").agg(pl.col("gain").mean(), pl.col("splits").sum())
        return summed.sort(["gain", "feature"], descending=[True, False])

    def _log_odds(self, values: Matrix) -> Vector:
        return np.asarray(np.mean([member._log_odds(values) for member in self.members], axis=0))

    def _contributions(self, values: Matrix) -> Matrix:
        return np.asarray(np.mean([member._contributions(values) for member in self.members], axis=0))


def fit(train: Samples, validation: Samples | None, features: Sequence[str], config: ModelConfig, seed: int) -> AverageOfModels:
    """Fit every member on the same rows with the same configuration, but for its rounds where it has its own, and seed."""
    rounds = config.member_rounds or (config.rounds,) * len(config.members)
    configs = [replace(config, rounds=max(own, 1)) for own in rounds]
    members = [
        family_module(family).fit(train, validation, features, own, seed) for family, own in zip(config.members, configs, strict=True)
    ]
    return from_body(json.dumps([[member.family, member.to_text()] for member in members]), config.threads)


def from_body(body: str, threads: int) -> AverageOfModels:
    """Read the members' texts; raises `QuantAssetsError` where they do not share their features."""
    try:
        members = _members(body, threads)
    except (ValueError, KeyError, TypeError) as error:
        raise unreadable("average", error) from None
    if len({member.features for member in members}) != 1:
        raise QuantAssetsError("The members of this average do not read the same features; train the model again.")
    model = AverageOfModels(members[0].features, max(member.rounds for member in members), body, threads)
    vars(model)["members"] = members  # read once
    return model


def _members(body: str, threads: int) -> tuple[Fitted, ...]:
    return tuple(family_module(family).from_body(opened(family, text), threads) for family, text in json.loads(body))
