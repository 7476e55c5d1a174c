"""Single files of a vendor: real faulty series against their hand-repaired twins, and files that cannot be judged."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from quant_assets.data_quality.catalog import FILE_RULES
from quant_assets.data_quality.catalog import RULES as RULES_BY_NIGHT
from quant_assets.data_quality.one_file import calendar_of, judge_file, symbol_of
from quant_assets_tests.lookahead import DATA

FOLDER = DATA / "price_repair"
DAILY = sorted(path.name for path in FOLDER.glob("*-1d-*.csv"))
FAULTY = [name for name in DAILY if not name.endswith("-fixed.csv") and name.replace(".csv", "-fixed.csv") in DAILY]
CONTROLS = [name for name in DAILY if "-no-bad-" in name]
LEFT = {"SCR-TO-1d-bad-div-fixed.csv": date(2023, 10, 5)}
"""A repaired twin with a fault that its repair left: two companies in turn under one ticker, at 1.94 and 29.96."""

needs_data = pytest.mark.skipif(not DAILY, reason="shared market data is not at hand")


RULES = re.compile("unit|split|dividend|action|capital_gain")
"""Of the rules about units, splits, dividends and adjusted closes: the repaired twins keep faults of other kinds."""


def serious(path: Path) -> pl.DataFrame:
    """What these rules say of a file's bars."""
    return judge_file(path).findings.filter(pl.col("severity") != "info", pl.col("rule").str.contains(RULES.pattern))


def faulty_sessions(name: str) -> set[date]:
    """Sessions whose row differs from the repaired one, and those at which an action follows a row with another adjusted close."""
    rows = {}
    for kind in ("", "-fixed"):
        read = pl.read_csv(FOLDER / name.replace(".csv", f"{kind}.csv"), infer_schema=False)
        values = [column for column in read.columns if column not in ("Date", "Datetime", "Repaired?")]
        day = pl.col("Datetime" if "Datetime" in read.columns else "Date").str.slice(0, 10).str.to_date()
        rows[kind] = read.select(day.alias("session"), *(pl.col(column).cast(pl.Float64) for column in values)).sort("session")
    both = rows[""].join(rows["-fixed"], on="session", suffix="_fixed")
    names = [column for column in rows[""].columns if f"{column}_fixed" in both.columns]

    def differs(columns: list[str]) -> pl.Expr:
        return pl.any_horizontal(((pl.col(c) - pl.col(f"{c}_fixed")).abs() > 1e-4 * pl.col(c).abs()).fill_null(False) for c in columns)

    acts = [column for column in ("Dividends", "Stock Splits", "Capital Gains") if column in both.columns]
    acted = pl.any_horizontal((pl.col(column) != 0).fill_null(False) for column in acts) if acts else pl.lit(False)
    # An adjusted close carries the faults of every later action: it says of an action only that it is wrong, not which.
    off = pl.col("Adj Close") / pl.col("Adj Close_fixed")
    after = off.forward_fill().shift(1) / off.backward_fill() - 1
    own = [column for column in names if column != "Adj Close"]
    return set(both.filter(differs(own) | (acted & (after.abs() > 1e-4)))["session"])


@needs_data
class TestRealSeries:
    @pytest.mark.parametrize("name", FAULTY)
    def test_a_faulty_series_is_flagged_at_the_fault(self, name: str) -> None:
        assert faulty_sessions(name) & set(serious(FOLDER / name)["session"])

    @pytest.mark.parametrize("name", ["8TRA-DE-1d-missing-div-adjust.csv", "SSW-JO-1d-100x-error.csv", "ALPHA-PA-1d-bad-stock-split.csv"])
    def test_a_finding_is_told_once_beside_what_was_not_judged(self, name: str) -> None:
        judged = judge_file(FOLDER / name)
        assert judged.refused is None
        assert judged.not_judged.height > 0
        assert judged.findings.select("session", "rule", "detector").is_unique().all()
        assert set(judged.findings["rule"]) <= {*RULES_BY_NIGHT, *FILE_RULES}

    @pytest.mark.parametrize("name", CONTROLS)
    def test_a_control_is_not_flagged(self, name: str) -> None:
        assert judge_file(FOLDER / name).findings.filter(pl.col("severity") != "info").is_empty()  # by no rule at all

    @pytest.mark.parametrize("name", [name for name in DAILY if name.endswith("-fixed.csv")])
    def test_what_was_repaired_is_not_flagged(self, name: str) -> None:
        left = {LEFT[name], LEFT[name] - timedelta(days=1)} if name in LEFT else set()
        assert set(serious(FOLDER / name)["session"]) == left

    @pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*-1wk-*.csv")))
    def test_a_weekly_series_is_refused(self, name: str) -> None:
        refused = judge_file(FOLDER / name).refused
        assert refused is not None
        assert "weekly" in refused


HEAD = "Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits"


def written(folder: Path, name: str, days: list[str], head: str = HEAD) -> Path:
    path = folder / name
    width = head.count(",") - 6
    lines = [f"{day},10,11,9,{10 + n % 3 / 10},{10 + n % 3 / 10},1000" + ",0" * width for n, day in enumerate(days)]
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def every(n: int, step: timedelta) -> list[str]:
    return [f"{date(2023, 3, 6) + k * step}" for k in range(n)]


class TestRegression:
    @pytest.mark.parametrize(
        ("name", "symbol", "calendar"),
        [
            ("1398-HK-1d-bad-div.csv", "1398.HK", "XHKG"),
            ("1398.HK.csv", "1398.HK", "XHKG"),
            ("CALM-1d-no-bad-divs.csv", "CALM", "XNYS"),
            ("BRK-B-1d.csv", "BRK-B", "XNYS"),
            ("VOD.L.csv", "VOD.L", "XLON"),
            ("KEN-TA-1d-bad-div-fixed.csv", "KEN.TA", "XTAE"),
            ("LA-V-1d-x.csv", "LA.V", "XTSE"),
            ("ACME.QQ.csv", "ACME.QQ", None),
        ],
    )
    def test_the_name_says_the_symbol_and_its_suffix_the_calendar(self, name: str, symbol: str, calendar: str | None) -> None:
        assert symbol_of(name) == symbol
        assert calendar_of(symbol) == calendar

    @pytest.mark.parametrize(
        ("days", "interval"),
        [
            (every(9, timedelta(days=7)), "weekly"),
            (every(9, timedelta(days=30)), "monthly"),
            (every(9, timedelta(days=91)), "quarterly"),
            ([f"2023-03-06 {hour:02d}:30:00-05:00" for hour in range(9, 16)], "intraday"),
            (every(1, timedelta(days=1)), "too few"),
        ],
    )
    def test_other_intervals_are_refused_whatever_the_file_is_called(self, tmp_path: Path, days: list[str], interval: str) -> None:
        judged = judge_file(written(tmp_path, "ACME-1d.csv", days))
        assert judged.refused is not None
        assert interval in judged.refused
        assert judged.findings.is_empty()
        assert judged.not_judged["reason"].to_list() == [judged.refused]

    @pytest.mark.parametrize(("text", "reason"), [("", "not a readable CSV"), ("a,b\n1,2\n", "no Open, High, Low, Close")])
    def test_a_file_without_bars_is_refused(self, tmp_path: Path, text: str, reason: str) -> None:
        (tmp_path / "ACME.csv").write_text(text)
        refused = judge_file(tmp_path / "ACME.csv").refused
        assert refused is not None
        assert reason in refused

    def test_an_unknown_suffix_needs_a_calendar(self, tmp_path: Path) -> None:
        path = written(tmp_path, "ACME.QQ.csv", every(5, timedelta(days=1)))
        refused = judge_file(path).refused
        assert refused is not None
        assert "QQ" in refused
        judged = judge_file(path, calendar="XLON")
        assert (judged.refused, judged.calendar) == (None, "XLON")

    def test_a_calendar_that_does_not_exist_is_a_reason(self, tmp_path: Path) -> None:
        refused = judge_file(written(tmp_path, "ACME.csv", every(5, timedelta(days=1))), calendar="XXXX").refused
        assert refused is not None
        assert "XXXX" in refused

    def test_what_could_not_be_read_is_told(self, tmp_path: Path) -> None:
        head = HEAD.removesuffix(",Dividends,Stock Splits")
        path = written(tmp_path, "ACME.csv", [*every(5, timedelta(days=1)), "2023-03-07", "soon"], head)
        path.write_text(path.read_text().replace("2023-03-09,10,", "2023-03-09,ten,"))
        notes = dict(judge_file(path).not_judged.rows())
        assert notes["no readable Date"] == 1
        assert notes["another row of the same session stands below it"] == 1
        assert notes["Open is not a number"] == 1
        assert notes["no column Dividends"] == notes["no column Stock Splits"] == 5

    def test_an_instant_in_utc_belongs_to_the_session_of_its_exchange(self, tmp_path: Path) -> None:
        # 15:00 UTC is midnight in Tokyo.
        days = [f"2023-03-{day:02d} 15:00:00+00:00" for day in range(6, 10)]
        path = written(tmp_path, "7203.T.csv", days)
        path.write_text(path.read_text().replace("15:00:00+00:00,10,11,9", "15:00:00+00:00,10,8,9", 1))
        judged = judge_file(path)
        assert judged.findings.filter(pl.col("rule") == "ohlc_order")["session"].to_list() == [date(2023, 3, 7)]


class TestProperties:
    @needs_data
    def test_the_order_of_the_rows_does_not_matter(self, tmp_path: Path) -> None:
        name = "KEN-TA-1d-bad-div.csv"
        head, *lines = (FOLDER / name).read_text().splitlines()
        (tmp_path / name).write_text("\n".join([head, *reversed(lines)]) + "\n")
        assert serious(tmp_path / name).equals(serious(FOLDER / name))
