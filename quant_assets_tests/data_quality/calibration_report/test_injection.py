"""Faults put into bars: what is changed, and that nothing else is."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.calibration_report.faults import APART, BARS, BEFORE, DELIVERIES, SERIES, VALUES
from quant_assets.data_quality.calibration_report.injection import RATES, Injection, inject
from quant_assets.data_quality.calibration_report.report import as_panel
from quant_assets.errors import ConfigurationError
from quant_assets_tests.data_quality.market import market
from quant_assets_tests.lookahead import NO_ACTIONS

KEY = ["symbol", "session"]
PRICES = ["open", "high", "low", "close"]


@pytest.fixture(scope="module")
def panel(calendar: TradingCalendar) -> pl.DataFrame:
    """Bars of 40 symbols on 155 sessions, adjusted by their vendor."""
    bars = market(seed=4).filter(pl.col("session").is_in(list(calendar.sessions)))
    return as_panel(bars, calendar).sort(KEY)


@pytest.fixture(scope="module")
def placed(panel: pl.DataFrame, calendar: TradingCalendar) -> Injection:
    return inject(panel, NO_ACTIONS, calendar, seed=1)


def only(kind: str, panel: pl.DataFrame, calendar: TradingCalendar, actions: pl.DataFrame = NO_ACTIONS, rate: float = 5.0) -> Injection:
    return inject(panel, actions, calendar, {**dict.fromkeys(RATES, 0.0), kind: rate}, seed=11)


def beside(injection: Injection, panel: pl.DataFrame) -> pl.DataFrame:
    """The faulty bars with the values they had, these with the suffix `_right`."""
    return injection.truth.drop("known_at").join(injection.bars, on=KEY).join(panel, on=KEY, suffix="_right")


class TestRegression:
    @pytest.mark.parametrize(("kind", "factor"), [("unit_100", 100.0), ("unit_10", 10.0), ("unit_0.01", 0.01)])
    def test_a_unit_error_is_of_the_whole_bar(self, kind: str, factor: float, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        found = beside(only(kind, panel, calendar), panel)
        assert found.height == 3  # 5 in 10,000 of 6,200 bars
        for name in PRICES:
            assert (found[name] / found[f"{name}_right"]).to_list() == pytest.approx([factor] * 3)
        assert found["volume"].to_list() == found["volume_right"].to_list()

    @pytest.mark.parametrize(("kind", "ratio"), [("split_2", 2.0), ("split_3", 3.0), ("split_4", 4.0), ("reverse_split_10", 0.1)])
    def test_before_a_split_that_nobody_recorded_prices_are_those_traded(
        self, kind: str, ratio: float, panel: pl.DataFrame, calendar: TradingCalendar
    ) -> None:
        split = only(kind, panel, calendar, rate=1.0)
        symbol, session = split.truth.select(KEY).row(0)
        changed = split.bars.filter(pl.col("symbol") == symbol).join(panel, on=KEY, suffix="_right")
        before, after = changed.filter(pl.col("session") < session), changed.filter(pl.col("session") >= session)
        assert (before["close"] / before["close_right"]).to_list() == pytest.approx([ratio] * before.height)
        assert (before["volume"] * ratio).to_list() == pytest.approx(before["volume_right"].to_list())
        assert after["close"].to_list() == after["close_right"].to_list()
        assert changed["basis"].unique().to_list() == ["raw"]
        assert split.actions.is_empty()
        assert only("recorded_split", panel, calendar, rate=1.0).actions.select("kind", "value").rows() == [("split", 2.0)]

    def test_a_split_adjusted_twice_stands_in_the_actions_alone(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        split = only("twice_adjusted_split", panel, calendar, rate=1.0)
        assert split.bars.select(*KEY, *PRICES).equals(panel.select(*KEY, *PRICES))
        assert split.actions.select(*KEY, "kind").equals(split.truth.select(*KEY, kind=pl.lit("split")))
        assert split.actions["value"].item() in (2.0, 3.0, 4.0)

    @pytest.mark.parametrize(("kind", "times"), [("recorded_dividend", 1.0), ("bad_dividend", 100.0)])
    def test_the_price_falls_by_the_dividend_paid(self, kind: str, times: float, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        paid = only(kind, panel, calendar, rate=1.0)
        symbol, session, value = paid.actions.select(*KEY, "value").row(0)
        both = paid.bars.join(panel, on=KEY, suffix="_right").filter(pl.col("symbol") == symbol, pl.col("session") < session)
        raw, adjusted = both.select("close", "close_right").row(-1)
        assert value / times / raw == pytest.approx(1 - adjusted / raw)
        assert 0.002 <= value / times / raw <= 0.009

    def test_an_earlier_dividend_is_of_the_shares_before_the_split(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        symbols = panel["symbol"].unique()
        paid = pl.DataFrame({"symbol": symbols}).with_columns(
            session=panel["session"].min(), kind=pl.lit("dividend"), value=pl.lit(0.5), known_at=panel["known_at"].min()
        )
        split = only("split_4", panel.with_columns(basis=pl.lit("raw")), calendar, paid.cast(NO_ACTIONS.schema), rate=1.0)  # type: ignore[arg-type]
        values = dict(split.actions.select("symbol", "value").iter_rows())
        assert {symbol for symbol, value in values.items() if value == 2.0} == set(split.truth["symbol"])
        assert sorted(set(values.values())) == [0.5, 2.0]

    def test_a_jump_is_eight_times_the_usual_move(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        found = beside(only("jump_8", panel, calendar), panel)
        for symbol, session, close, right in found.select(*KEY, "close", "close_right").iter_rows():
            before = panel.filter(pl.col("symbol") == symbol, pl.col("session") < session)
            usual = before["close"].log().diff().abs().median() * 1.4826  # type: ignore[operator]
            ratio = pl.Series([close / right]).log().abs().item()
            assert ratio == pytest.approx(8 * usual)

    @pytest.mark.parametrize(("kind", "low", "high"), [("wrong_close_small", 0.005, 0.03), ("wrong_close_large", 0.03, 0.12)])
    def test_a_wrong_close_takes_high_and_low_along(
        self, kind: str, low: float, high: float, panel: pl.DataFrame, calendar: TradingCalendar
    ) -> None:
        found = beside(only(kind, panel, calendar, rate=30.0), panel)
        assert ((found["close"] / found["close_right"] - 1).abs().is_between(low, high)).all()
        assert (found["high"] >= found["close"]).all()
        assert (found["low"] <= found["close"]).all()
        assert found.filter(pl.col("open") != pl.col("open_right")).is_empty()

    def test_bars_too_few_and_too_many(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        gone = only("missing_session", panel, calendar)
        assert panel.join(gone.bars, on=KEY, how="anti").select(KEY).equals(gone.truth.select(KEY).sort(KEY))
        twice = only("duplicate_bar", panel, calendar)
        assert twice.bars.group_by(KEY).len().filter(pl.col("len") == 2).select(KEY).sort(KEY).equals(twice.truth.select(KEY).sort(KEY))
        closed = only("closed_session_bar", panel, calendar)
        assert closed.bars.height == panel.height + closed.truth.height
        assert not any(calendar.is_session(day) for day in closed.truth["session"])
        assert closed.bars.join(closed.truth, on=KEY, how="semi").height == closed.truth.height

    def test_a_stale_run_repeats_the_bar_before_it(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        stale = only("stale_run", panel, calendar)
        lengths = stale.truth.group_by("fault").len()["len"]
        assert lengths.is_between(5, 10).all()
        repeated = stale.bars.with_columns(pl.col(PRICES).shift(1).over("symbol").name.suffix("_before"))
        found = repeated.join(stale.truth, on=KEY)
        assert found.height == lengths.sum()
        assert all((found[name] == found[f"{name}_before"]).all() for name in PRICES)
        assert (found["volume"] > 0).all()

    def test_identical_series_stand_under_two_symbols(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        same = only("identical_series", panel, calendar)
        found = same.truth.join(same.bars, on=KEY)
        assert found.group_by("fault").agg(pl.col("symbol").n_unique())["symbol"].to_list() == [2] * found["fault"].n_unique()
        assert found.group_by("fault", "session").agg(pl.col("close", "volume").n_unique()).select("close", "volume").unique().rows() == [
            (1, 1)
        ]

    def test_a_stale_and_a_partial_delivery(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        stale = only("stale_delivery", panel, calendar, rate=7.0)
        assert stale.truth["session"].n_unique() == 1
        assert stale.truth.height >= 0.8 * 40 - 1
        repeated = stale.bars.with_columns(pl.col("close").shift(1).over("symbol").alias("before")).join(stale.truth, on=KEY)
        assert (repeated["close"] == repeated["before"]).all()
        partial = only("partial_delivery", panel, calendar, rate=7.0)
        assert panel.height - partial.bars.height == partial.truth.height >= 20 - 1

    def test_a_kind_that_does_not_exist_and_a_rate_below_zero_are_refused(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        for rates in ({"gremlins": 1.0}, {"unit_10": -1.0}, {"unit_10": float("nan")}):
            with pytest.raises(ConfigurationError, match=next(iter(rates))):
                inject(panel, NO_ACTIONS, calendar, rates)


class TestProperties:
    def test_every_kind_is_put_in(self, placed: Injection) -> None:
        assert set(placed.truth["kind"]) | set(placed.not_injected["kind"]) == {*DELIVERIES, *SERIES, *BARS}
        assert set(placed.truth["kind"]) >= {*SERIES, *BARS} - set(placed.not_injected["kind"])
        assert placed.not_injected.filter(pl.col("injected") >= pl.col("wanted")).is_empty()

    def test_the_seed_decides(self, placed: Injection, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        shuffled = panel.sample(fraction=1.0, shuffle=True, seed=5)
        again, other = inject(shuffled, NO_ACTIONS, calendar, seed=1), inject(panel, NO_ACTIONS, calendar, seed=2)
        assert again.bars.select(panel.columns).equals(placed.bars.select(panel.columns))
        assert again.truth.equals(placed.truth)
        assert not other.truth.equals(placed.truth)

    @pytest.mark.parametrize("kind", [*BARS, *DELIVERIES])
    def test_bars_that_the_truth_does_not_name_are_as_given(self, kind: str, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        injection = only(kind, panel, calendar, rate=20.0)
        kept, given = (frame.join(injection.truth, on=KEY, how="anti").select(panel.columns) for frame in (injection.bars, panel))
        assert kept.equals(given)
        assert not injection.truth.is_empty()
        assert injection.truth["known_at"].null_count() == 0
        if kind not in ("missing_session", "partial_delivery", "duplicate_bar", "closed_session_bar"):
            found = beside(injection, panel)
            differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_right")) for name in VALUES)
            assert found.filter(differs).height > 0.45 * found.height  # of an identical series, one of the two is as given

    def test_faults_stand_apart(self, placed: Injection, panel: pl.DataFrame) -> None:
        place = panel.with_columns(place=pl.int_range(pl.len()).over("symbol")).select(*KEY, "place")
        ends = placed.truth.join(place, on=KEY).group_by("symbol", "fault").agg(first=pl.col("place").min(), last=pl.col("place").max())
        apart = ends.sort("symbol", "first").with_columns(gap=pl.col("first") - pl.col("last").shift(1).over("symbol"))
        assert apart["gap"].drop_nulls().min() > APART  # type: ignore[operator]
        assert ends["first"].min() >= BEFORE  # type: ignore[operator]

    @pytest.mark.parametrize("rate", [1.0, 8.0])
    def test_rates_are_kept(self, rate: float, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        assert only("jump_8", panel, calendar, rate=rate).truth.height == max(1, round(rate * panel.height / 10_000))

    @pytest.mark.parametrize(
        "thin",
        [
            pl.col("symbol") == "S00",
            (pl.col("symbol") == "S00") & (pl.col("session").rank("dense") <= 5),
            pl.lit(value=False),
        ],
    )
    def test_too_few_bars_are_a_note(self, thin: pl.Expr, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        bars = panel.filter(thin)
        injection = inject(bars, NO_ACTIONS, calendar, seed=3)
        missed = injection.not_injected
        assert set(missed["kind"]) | set(injection.truth["kind"]) == set(RATES)
        assert set(missed["kind"]) >= set(DELIVERIES)
        assert missed["why"].str.contains("too few").all()
        if bars.height < BEFORE:
            assert injection.bars.select(panel.columns).equals(bars)

    @pytest.mark.parametrize("name", VALUES)
    def test_values_that_are_missing_stay_missing_and_say_what_could_not_be_put_in(
        self, name: str, panel: pl.DataFrame, calendar: TradingCalendar
    ) -> None:
        injection = inject(panel.with_columns(pl.lit(None, pl.Float64).alias(name)), NO_ACTIONS, calendar, seed=3)
        assert injection.bars[name].null_count() == injection.bars.height
        refused: dict[str, Any] = {"volume": {"volume_10", "volume_0"}, "adj_close": set()}
        assert set(injection.not_injected["kind"]) >= refused.get(name, {*RATES})
