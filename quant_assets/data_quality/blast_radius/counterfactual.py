"""One symbol's history with and without one version of a bar, as known at an instant, and what differs between the two.

The features are computed twice by the code that fills the table, so that what depends on a bar is measured, not
concluded from a look-back. The view looks at one symbol at a time: a column of a cross-section would need more symbols.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.catalog import TECHNICAL_V1
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.feature_store.inputs import IN_STRETCH
from quant_assets.feature_store.labels import HORIZONS, labels
from quant_assets.settings import Settings
from quant_assets.warehouse import Warehouse

TOLERANCE = 1e-9
"""Two values are equal where they differ by no more than this share of the larger, or of the row's close or volume.

The recursions forget a bar by a factor per session: of a close that is wrong by 30 % the slow EMA keeps more than that for
219 sessions, and Wilder's averages forget a little more slowly. On-balance volume never forgets.
"""
FEATURES = [feature.name for feature in TECHNICAL_V1]
_SCALES = {feature.name: {"price": "close", "shares": "volume"}.get(feature.unit) for feature in TECHNICAL_V1}


@dataclass(frozen=True)
class Histories:
    """Forward-adjusted bars of one symbol with and without one bar; `held`: as known then, the bar was held back."""

    held: bool
    bars_with: pl.DataFrame
    bars_without: pl.DataFrame

    @cached_property
    def features_with(self) -> pl.DataFrame:
        """The rows of `technical_v1` with the bar."""
        return technical_v1(self.bars_with)

    @cached_property
    def features_without(self) -> pl.DataFrame:
        """The rows of `technical_v1` without the bar."""
        return technical_v1(self.bars_without)

    @cached_property
    def feature_changes(self) -> pl.DataFrame:
        """One row per session and feature that differs: `session`, `feature`, `value_with`, `value_without`, `size`.

        `size` is the difference in standard deviations of the feature over the history without the bar, infinite where
        one of the two is null. The bar's own session is among them with every feature, `value_without` null.
        """
        sides = self.features_with, self.features_without
        long_with, long_without = (side.unpivot(FEATURES, index="session", variable_name="feature", value_name="value") for side in sides)
        spread = long_without.group_by("feature").agg(pl.col("value").std().alias("spread"))
        scales = self.bars_with.select("session", pl.col("close", "volume").abs())
        value, other = pl.col("value"), pl.col("value_without")
        scale = pl.col("feature").replace_strict(_SCALES, return_dtype=pl.String)
        size_of_row = pl.when(scale == "close").then("close").when(scale == "volume").then("volume").fill_null(1.0)
        near = (value - other).abs() <= TOLERANCE * pl.max_horizontal(value.abs(), other.abs(), size_of_row)
        both_null = pl.col("stays").is_not_null() & value.is_null() & other.is_null()
        size = (value - other).abs() / pl.when(pl.col("spread") > 0).then("spread").otherwise(1.0)
        return (
            long_with.join(long_without.with_columns(stays=True), on=["session", "feature"], how="left", suffix="_without")
            .join(scales, on="session")
            .filter(~near.fill_null(value=False) & ~both_null)
            .join(spread, on="feature", how="left")
            .select("session", "feature", value.alias("value_with"), "value_without", size.fill_null(float("inf")).alias("size"))
        )

    def labels(self, calendar: TradingCalendar, horizons: Sequence[int] = HORIZONS) -> pl.DataFrame:
        """One row per label with the bar: `session`, `horizon`, `value_with`, `value_without` (null: no label), `differs`, `known_at`.

        The values are forward returns; `known_at` says when the label was known with the bar.
        """
        first, last = self.bars_with.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
        made, other = (labels(bars, calendar.frame(first, last), horizons) for bars in (self.bars_with, self.bars_without))
        both = made.join(other, on=["session", "horizon"], how="left", suffix="_without", maintain_order="left")
        value, without = pl.col("forward_return"), pl.col("forward_return_without")
        return both.select(
            "session",
            "horizon",
            value.alias("value_with"),
            without.alias("value_without"),
            ((value - without).abs() > TOLERANCE).fill_null(value=True).alias("differs"),
            "known_at",
        )


@dataclass(frozen=True)
class Bar:
    """One version of a bar, and all that an edge of its blast radius may ask of the desk, as of one instant."""

    warehouse: Warehouse
    settings: Settings
    calendar: TradingCalendar
    symbol: str
    session: date
    known_at: datetime
    as_of: datetime
    _histories: dict[datetime, Histories | None] = field(default_factory=dict, repr=False, compare=False)

    def read(self, sql: str, **parameters: object) -> pl.DataFrame:
        """Run a query that may name `$symbol`, `$session`, `$source`, `$version` and `$as_of`, the bar's unless given otherwise."""
        own = {
            "symbol": self.symbol,
            "session": self.session,
            "source": self.warehouse.preferred_source,
            "version": self.known_at,
            "as_of": self.as_of,
        }
        named = set(re.findall(r"\$(\w+)", sql))  # DuckDB refuses a parameter that the query does not name
        return self.warehouse.read(sql, {name: value for name, value in {**own, **parameters}.items() if name in named})

    @cached_property
    def found_at(self) -> datetime | None:
        """Wall clock at which a critical finding about this version was first recorded; None where there is none."""
        found: datetime | None = self.read(
            """
            select min(recorded_at) as found_at from data_quality.anomalies
            where symbol = $symbol and session = $session and source = $source and bar_known_at = $version and severity = 'critical'
            """
        )["found_at"].item()
        return found

    def was_used(self, histories: Histories, recorded_at: datetime) -> bool:
        """Whether what was written at a wall-clock moment rests on this bar.

        It does where the bar stood in the history, and also where the finding that keeps it out as of that instant was
        made later: a new rule speaks about old bars as of the instant at which they became known.
        """
        return not histories.held or self.found_at is None or self.found_at > recorded_at

    def histories(self, at: datetime) -> Histories | None:
        """The symbol's history as known at an instant, with and without this version; None where it was not the newest then."""
        if at not in self._histories:
            self._histories[at] = self._read_histories(at)
        return self._histories[at]

    def _read_histories(self, at: datetime) -> Histories | None:
        in_scope = f"exists (select 1 from market_data.scope_as_of($as_of) as stretch where {IN_STRETCH}) as in_scope"
        columns = f"symbol, session, open, high, low, close, volume, basis, known_at, {in_scope}"
        newest = self.read(
            f"""
            select {columns} from market_data.daily_bars_as_of($as_of) as row
            where symbol = $symbol and session = $session and source = $source
            """,
            as_of=at,
        )
        if newest["known_at"].to_list() != [self.known_at]:
            return None
        clean = self.read(f"select {columns} from data_quality.clean_bars_as_of($as_of) as row where symbol = $symbol", as_of=at)
        actions = self.read(
            """
            select symbol, session, kind, value, known_at from market_data.corporate_actions_as_of($as_of)
            where symbol = $symbol and source = $source
            """,
            as_of=at,
        )
        without = clean.filter(pl.col("session") != self.session)
        both = (forward_adjusted(bars, actions) for bars in (pl.concat([without, newest]), without))
        return Histories(without.height == clean.height, *both)
