"""What alpha_v1.sql adds on reading, over tables made by the real kernels: Polars and numpy as oracles, bits as the measure of order."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from functools import cache
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.alpha.history import alpha_history
from quant_assets.feature_store.alpha_market import alpha_market
from quant_assets.feature_store.catalog import ALPHA_CROSS_SECTION, ALPHA_V1, Feature
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.feature_store.market_series import market_series
from quant_assets.settings import PROJECT_ROOT
from quant_assets_tests.lookahead import random_history

Tables = dict[str, pl.DataFrame]
MODEL = PROJECT_ROOT / "dbt_features" / "models" / "features" / "alpha_v1.sql"
SQL = re.sub(r"\{\{\s*source\('(\w+)',\s*'(\w+)'\)\s*\}\}", r"\1.\2", MODEL.read_text(encoding="utf-8"))
NAMES = [feature.name for feature in ALPHA_V1]
ADDED = [feature for feature in ALPHA_CROSS_SECTION if feature.table == "alpha_v1"]
RANKED = [feature.name.removeprefix("rank_") for feature in ADDED if feature.name.startswith("rank_")]
STANDARDISED = [feature.name.removeprefix("zscore_") for feature in ADDED if feature.name.startswith("zscore_")]
LEAVER, STRANGER, LEFT = "S3", "S7", date(2020, 12, 1)


def in_scope() -> pl.Expr:
    """One symbol leaves, one never was in scope."""
    return (pl.col("symbol") != STRANGER) & ((pl.col("symbol") != LEAVER) | (pl.col("session") <= LEFT))


@cache
def bars() -> pl.DataFrame:
    history = random_history(9, symbols=9, n=310, gaps=0.02)
    return forward_adjusted(history["bars"], history["actions"])


def tables_of(adjusted: pl.DataFrame) -> Tables:
    """The stored parts of the view as the pipeline computes them, with a scope."""
    known = adjusted.select("symbol", "session", "price_factor", "share_factor", "known_at")
    technical = technical_v1(adjusted).join(known, on=["symbol", "session"])
    changes = technical.select("symbol", "session", "price_change_1d", "known_at")
    history = alpha_history(adjusted.join(changes.drop("known_at"), on=["symbol", "session"]))
    members = changes.filter(in_scope())
    market = market_series(members.drop("known_at")).join(members.group_by("session").agg(pl.col("known_at").max()), on="session")
    beside = market.select("session", "market_return_1d", pl.col("known_at").alias("market_known_at"))
    symbols = adjusted.select("symbol").unique().filter(pl.col("symbol") != STRANGER).sort("symbol")
    ends = pl.when(pl.col("symbol") == LEAVER).then(pl.lit(LEFT)).alias("valid_to")
    return {
        "feature_store.technical_v1": technical,
        "feature_store.alpha_history_v1": history.join(known.select("symbol", "session", "known_at"), on=["symbol", "session"]),
        "feature_store.alpha_market_v1": alpha_market(changes.join(beside, on="session", how="left")),
        "feature_store.market_v1": market,
        "market_data.scope": symbols.select(
            "symbol", pl.lit(date(2000, 1, 1)).alias("valid_from"), ends, since=pl.lit(None, pl.Datetime("us"))
        ),
    }


@cache
def tables() -> Tables:
    return tables_of(bars())


def view(path: Path, parts: Tables, threads: int = 2, where: str = "true") -> pl.DataFrame:
    """The view over these tables, in a database of its own."""
    path.unlink(missing_ok=True)
    with duckdb.connect(path) as connection:
        connection.execute(f"set threads = {threads}; create schema feature_store; create schema market_data")
        for name, frame in parts.items():
            connection.register("frame", frame)
            connection.execute(f"create table {name} as select * from frame")
            connection.unregister("frame")
        connection.execute(f"create view feature_store.alpha_v1 as {SQL}")
        return pl.DataFrame(connection.sql(f"select * from feature_store.alpha_v1 where {where}").to_arrow_table()).sort(
            "symbol", "session"
        )


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    return view(tmp_path_factory.mktemp("view") / "view.duckdb", tables())


def stored() -> pl.DataFrame:
    """The parts beside each other, in the order of the view."""
    parts = tables()
    joined = parts["feature_store.technical_v1"].drop("known_at")
    for name in ("feature_store.alpha_history_v1", "feature_store.alpha_market_v1"):
        joined = joined.join(parts[name].drop("known_at"), on=["symbol", "session"])
    return joined.sort("symbol", "session")


def of_one_session(*rows: tuple[str, float | None]) -> Tables:
    """The tables cut to one session, one feature replaced by given values."""
    day = date(2021, 1, 28)
    replaced = pl.DataFrame(rows, schema={"symbol": pl.String, "momentum_252_21": pl.Float64}, orient="row")
    cut = {name: frame.filter(session=day) if "session" in frame.columns else frame for name, frame in tables().items()}
    columns = cut["feature_store.alpha_history_v1"].columns
    history = cut["feature_store.alpha_history_v1"].drop("momentum_252_21").join(replaced, on="symbol").select(columns)
    return cut | {"feature_store.alpha_history_v1": history}


class TestRegression:
    def test_columns_are_those_of_the_catalog(self, computed: pl.DataFrame) -> None:
        assert computed.columns == ["symbol", "session", *NAMES, "known_at"]
        assert {str(computed.schema[name]) for name in NAMES} == {"Float64"}

    def test_what_is_stored_comes_as_it_is(self, computed: pl.DataFrame) -> None:
        parts = stored()
        names = [name for name in NAMES if name in parts.columns]
        assert_frame_equal(computed.select("symbol", "session", *names), parts.select("symbol", "session", *names), check_exact=True)

    def test_ties_share_the_mean_of_their_ranks(self, tmp_path: Path) -> None:
        rows = view(tmp_path / "t.duckdb", of_one_session(("S0", 0.1), ("S1", 0.1), ("S2", -0.3), ("S4", None), ("S5", 0.4), ("S7", 9.0)))
        ranks = dict(rows.select("symbol", "rank_momentum_252_21").iter_rows())
        assert ranks == {"S0": 0.5, "S1": 0.5, "S2": 0.125, "S4": None, "S5": 0.875, "S7": None}

    def test_robust_scores_are_clipped(self, tmp_path: Path) -> None:
        rows = view(tmp_path / "t.duckdb", of_one_session(("S0", 0.0), ("S1", 0.1), ("S2", -0.1), ("S4", 0.3), ("S5", 50.0)))
        scores = dict(rows.select("symbol", "zscore_momentum_252_21").iter_rows())
        # Median 0.1, distances from it 0.1, 0, 0.2, 0.2 and 49.9: their median is 0.2.
        assert scores["S0"] == pytest.approx(-0.1 / (1.4826 * 0.2), rel=1e-13)
        assert (scores["S1"], scores["S5"]) == (0.0, 3.0)

    def test_a_symbol_alone_stands_in_the_middle(self, tmp_path: Path) -> None:
        row = view(tmp_path / "t.duckdb", of_one_session(("S0", 0.1))).row(0, named=True)
        assert (row["rank_momentum_252_21"], row["zscore_momentum_252_21"], row["traded_value_share_20"]) == (0.5, None, 1.0)

    @pytest.mark.parametrize("absurd", [1e30, 9e33, 1e35, 1e300, float("inf")])
    def test_an_absurd_traded_value_is_left_out_of_the_sum(self, absurd: float, tmp_path: Path) -> None:
        """Two of them, which together must not leave the digits of the sum either."""
        parts = of_one_session(("S0", 0.1), ("S1", 0.2), ("S2", 0.3), ("S4", 0.4))
        value = pl.col("symbol").replace_strict({"S0": 1.0, "S1": absurd, "S2": 3.0, "S4": absurd}, return_dtype=pl.Float64)
        history = parts["feature_store.alpha_history_v1"].with_columns(traded_value_sma_20=value)
        rows = view(tmp_path / "t.duckdb", parts | {"feature_store.alpha_history_v1": history})
        assert dict(rows.select("symbol", "traded_value_share_20").iter_rows()) == {"S0": 0.25, "S1": None, "S2": 0.75, "S4": None}
        assert rows["rank_traded_value_sma_20"].to_list() == [0.125, 0.75, 0.375, 0.75]

    def test_a_bar_of_absurd_volume_leaves_the_view_readable(self, computed: pl.DataFrame, tmp_path: Path) -> None:
        day = date(2021, 1, 28)
        absurd = (pl.col("symbol") == "S0") & (pl.col("session") == day)
        spoilt = bars().with_columns(pl.when(absurd).then(1e36).otherwise(pl.col("volume")).alias("volume"))
        rows = view(tmp_path / "t.duckdb", tables_of(spoilt), where=f"session = date '{day}'")
        assert rows.height == computed.filter(session=day).height
        shares = dict(rows.select("symbol", "traded_value_share_20").iter_rows())
        assert shares.pop("S0") is None
        assert sum(share for share in shares.values() if share is not None) == pytest.approx(1.0, rel=1e-12)

    def test_the_calendar_of_a_session(self, tmp_path: Path) -> None:
        row = view(tmp_path / "t.duckdb", of_one_session(("S0", 0.1))).row(0, named=True)
        assert [row[name] for name in ("day_of_week", "day_of_month", "week_of_year", "month")] == [4.0, 28.0, 4.0, 1.0]
        assert (row["month_sine"], row["month_cosine"]) == (pytest.approx(0.5), pytest.approx(3**0.5 / 2))


class TestProperties:
    @pytest.mark.parametrize("feature", ALPHA_V1, ids=lambda feature: str(feature.name))
    def test_stays_in_the_catalogs_range(self, computed: pl.DataFrame, feature: Feature) -> None:
        values = computed[feature.name].drop_nulls()
        assert values.len() > 0
        assert values.is_finite().all()
        slack = 1e-12 if feature.table != "alpha_v1" else 0.0
        low, high = (bound if bound is not None else limit for bound, limit in ((feature.low, -np.inf), (feature.high, np.inf)))
        assert values.is_between(low - slack, high + slack).all()

    @pytest.mark.parametrize("name", RANKED)
    def test_ranks_agree_with_polars(self, computed: pl.DataFrame, name: str) -> None:
        value = pl.when(in_scope()).then(pl.col(name))
        expected = stored().select(((value.rank("average") - 0.5) / value.count()).over("session"))[name]
        assert (computed[f"rank_{name}"] - expected).abs().max() < 1e-15  # type: ignore[operator]
        assert computed[f"rank_{name}"].is_null().equals(expected.is_null())

    @pytest.mark.parametrize("name", STANDARDISED)
    def test_scores_agree_with_polars(self, computed: pl.DataFrame, name: str) -> None:
        value = pl.when(in_scope()).then(pl.col(name))
        if "(ln " in next(feature for feature in ADDED if feature.name == f"zscore_{name}").definition:
            value = pl.when(pl.col(name) > 0).then(value.log())
        apart = value - value.median().over("session")
        spread = apart.abs().median().over("session") * 1.4826
        expected = stored().select(pl.when(spread > 0).then((apart / spread).clip(-3, 3)).alias(name))[name]
        assert expected.is_not_null().any()
        assert_frame_equal(computed.select(pl.col(f"zscore_{name}").alias(name)), expected.to_frame(), rel_tol=1e-11, abs_tol=1e-13)

    def test_exposures_are_means_of_scores(self, computed: pl.DataFrame) -> None:
        for feature in ADDED:
            if feature.name.startswith("exposure_"):
                parts = [
                    (-1 if "minus" in part else 1) * pl.col(re.findall(r"zscore_\w+", part)[0])
                    for part in feature.definition.split(" and ")
                ]
                expected = computed.select(pl.sum_horizontal(parts, ignore_nulls=False) / len(parts)).to_series()
                assert_frame_equal(computed.select(feature.name), expected.alias(feature.name).to_frame(), rel_tol=1e-13, abs_tol=1e-15)

    def test_the_markets_state_agrees_with_numpy(self, computed: pl.DataFrame) -> None:
        market = tables()["feature_store.market_v1"].sort("session")
        returns, dispersion, breadth = (
            market[name].to_numpy() for name in ("market_return_1d", "market_dispersion_1d", "market_breadth_1d")
        )
        by_session = computed.unique("session").sort("session").join(market.select("session"), on="session", how="semi")
        oracles: dict[str, tuple[int, Callable[[slice], float]]] = {
            **{f"market_return_{n}d": (n, lambda at: np.prod(1 + returns[at]) - 1) for n in (5, 20, 60, 252)},
            **{f"market_volatility_{n}": (n, lambda at: returns[at].std(ddof=1)) for n in (20, 60, 252)},
            "market_drawdown_252": (252, lambda at: 1 - (level := np.cumprod(np.append(1, 1 + returns[at])))[-1] / level.max()),
            "market_dispersion_20": (20, lambda at: dispersion[at].mean()),
            "market_breadth_20": (20, lambda at: breadth[at].mean()),
            **{
                f"market_average_correlation_{n}": (n, lambda at: (v := returns[at].var(ddof=1)) / (v + (dispersion[at] ** 2).mean()))
                for n in (20, 60)
            },
        }
        for name, (n, oracle) in oracles.items():
            ours = by_session[name]
            assert ours[: n - 1].null_count() == n - 1
            expected = [oracle(slice(end - n + 1, end + 1)) for end in range(n - 1, len(returns))]
            np.testing.assert_allclose(ours[n - 1 :].to_numpy(), expected, rtol=1e-10, atol=1e-14, err_msg=name)

    def test_shares_count_the_symbols_in_scope(self, computed: pl.DataFrame) -> None:
        scoped = stored().filter(in_scope())
        shares = {
            "market_share_above_sma_50": pl.col("close_to_sma_50") > 0,
            "market_share_above_sma_200": pl.col("close_to_sma_200") > 0,
            "market_share_at_high_252": pl.col("sessions_since_high_252") == 0,
            "market_share_at_low_252": pl.col("sessions_since_low_252") == 0,
        }
        expected = scoped.group_by("session").agg(rule.mean().alias(name) for name, rule in shares.items())
        rows = computed.select("symbol", "session", *shares)
        assert_frame_equal(
            rows, rows.select("symbol", "session").join(expected, on="session", how="left", maintain_order="left"), rel_tol=1e-13
        )
        summed = computed.group_by("session").agg(pl.col("traded_value_share_20").sum(), pl.col("traded_value_share_20").count().alias("n"))
        assert summed.filter(pl.col("n") > 0)["traded_value_share_20"].to_numpy() == pytest.approx(1.0, rel=1e-12)

    def test_the_market_is_the_same_for_all_symbols(self, computed: pl.DataFrame) -> None:
        names = [name for name in NAMES if name.startswith("market_") and not re.match(r"market_correlation_\d", name)]
        assert computed.group_by("session").agg(pl.col(names).n_unique()).select(pl.max_horizontal(pl.col(names).max())).item() == 1

    def test_out_of_scope_has_no_place_and_no_part(self, computed: pl.DataFrame, tmp_path: Path) -> None:
        own = [feature.name for feature in ADDED if feature.name.startswith(("rank_", "zscore_", "exposure_", "traded_value_share"))]
        assert computed.filter(~in_scope()).select(pl.all_horizontal(pl.col(own).is_null().all())).item()
        parts = dict(tables())
        scales = {
            "feature_store.technical_v1": NAMES[:22],
            "feature_store.alpha_history_v1": ["reversal_5", "traded_value_sma_20"],
            "feature_store.alpha_market_v1": ["beta_252"],
        }
        for table, names in scales.items():
            parts[table] = parts[table].with_columns(
                pl.when(in_scope()).then(pl.col(name)).otherwise(pl.col(name) * 3 + 1).alias(name) for name in names
            )
        changed = view(tmp_path / "t.duckdb", parts)
        assert_frame_equal(changed.filter(in_scope()), computed.filter(in_scope()), check_exact=True)

    def test_neither_threads_nor_order_change_a_bit(self, computed: pl.DataFrame, tmp_path: Path) -> None:
        shuffled = {name: frame.sample(fraction=1.0, shuffle=True, seed=3) for name, frame in tables().items()}
        assert_frame_equal(view(tmp_path / "t.duckdb", shuffled, threads=1), computed, check_exact=True)

    def test_a_filter_on_sessions_gives_the_same_rows(self, computed: pl.DataFrame, tmp_path: Path) -> None:
        first, last = date(2020, 11, 20), date(2020, 12, 10)
        some = view(tmp_path / "t.duckdb", tables(), where=f"session between date '{first}' and date '{last}'")
        assert_frame_equal(some, computed.filter(pl.col("session").is_between(first, last)), check_exact=True)

    def test_later_sessions_change_no_bit_before(self, computed: pl.DataFrame, tmp_path: Path) -> None:
        cut = date(2020, 12, 15)
        before = view(tmp_path / "t.duckdb", tables_of(bars().filter(pl.col("session") <= cut)))
        assert_frame_equal(before, computed.filter(pl.col("session") <= cut), check_exact=True)

    def test_the_market_before_the_look_back_changes_no_bit(self, computed: pl.DataFrame, tmp_path: Path) -> None:
        first = tables()["feature_store.market_v1"]["session"].sort()[20]
        cut = {name: frame.filter(pl.col("session") >= first) if "session" in frame.columns else frame for name, frame in tables().items()}
        since = cut["feature_store.market_v1"]["session"].sort()[251]
        rows = view(tmp_path / "t.duckdb", cut, where=f"session >= date '{since}'")
        assert rows.height > 0
        assert_frame_equal(rows.drop("known_at"), computed.filter(pl.col("session") >= since).drop("known_at"), check_exact=True)

    @pytest.mark.parametrize("symbol", ["S1", STRANGER])
    @pytest.mark.parametrize("table", ["technical_v1", "alpha_history_v1", "alpha_market_v1"])
    def test_known_when_the_last_of_the_session_was(self, computed: pl.DataFrame, tmp_path: Path, table: str, symbol: str) -> None:
        late, first, day = datetime(2031, 5, 1), date(2021, 1, 4), date(2021, 1, 12)
        parts = {
            name: frame.filter(pl.col("session") >= first) if "session" in frame.columns else frame for name, frame in tables().items()
        }
        rule = (pl.col("symbol") == symbol) & (pl.col("session") == day)
        stamped = parts[f"feature_store.{table}"].with_columns(pl.when(rule).then(pl.lit(late)).otherwise("known_at").alias("known_at"))
        rows = view(tmp_path / "t.duckdb", parts | {f"feature_store.{table}": stamped}, where=f"known_at >= timestamp '{late}'")
        of_session = computed.filter(session=day)
        expected = of_session.filter(symbol=symbol) if symbol == STRANGER else of_session
        assert expected.height > 0
        assert rows.select("symbol", "session").equals(expected.select("symbol", "session"))

    def test_a_restated_market_stamps_the_year_that_looks_back_on_it(self, computed: pl.DataFrame, tmp_path: Path) -> None:
        late, market = datetime(2031, 5, 1), tables()["feature_store.market_v1"].sort("session")
        stamped = market.with_columns(pl.when(pl.int_range(pl.len()) == 40).then(pl.lit(late)).otherwise("known_at").alias("known_at"))
        rows = view(tmp_path / "t.duckdb", tables() | {"feature_store.market_v1": stamped}, where=f"known_at >= timestamp '{late}'")
        assert rows["session"].unique().sort().equals(market["session"][40 : 40 + 252])
