"""`quant-assets quality`: what each command prints, keeps and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quant_assets.cli import main
from quant_assets_tests import nights
from quant_assets_tests.data_quality.market import market
from quant_assets_tests.nights import EVENING, Desk


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Desk]:
    home, _ = nights.finished(tmp_path_factory.getbasetemp())
    with nights.desk(nights.copied(home, tmp_path / "home")) as opened:
        yield opened


def quality(*words: str) -> Result:
    return CliRunner().invoke(main, ["quality", *words])


class TestRegression:
    def test_report_tells_what_is_open_and_what_nobody_decided(self, desk: Desk) -> None:
        told = quality("report")
        assert told.exit_code == 0
        assert "Open: 0 critical" in told.output
        assert "Nothing has been decided yet." in told.output
        assert "suspicious_close" in told.output

    def test_impact_shows_what_a_bar_touched_and_keeps_it_once(self, desk: Desk) -> None:
        first, again = (quality("impact", "SYN001", EVENING.isoformat()) for _ in range(2))
        assert (first.exit_code, again.exit_code) == (0, 0)
        assert "feature_row" in first.output
        rows = desk.read("select count(*) as rows, count(distinct (edge, item)) as things from data_quality.blast_radius")
        assert rows["rows"].item() == rows["things"].item() > 0

    def test_impact_of_a_bar_that_is_not_there_names_what_is(self, desk: Desk) -> None:
        told = quality("impact", "SYN01", EVENING.isoformat())
        assert told.exit_code == 1
        assert "SYN001" in told.output

    def test_calibrate_on_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "bars.csv"
        market(3, symbols=12, n=120).rename({"session": "date"}).write_csv(path)
        with nights.environment(tmp_path / "home", QUANT_SOURCE="files", QUANT_START="2021-01-04"):
            told = quality("calibrate", "--file", str(path), "--rate", "unit_100=30", "--seed", "5")
            wrong = quality("calibrate", "--file", str(path), "--rate", "unit_100")
        assert told.exit_code == 0, told.output
        assert "unit_100" in told.output
        assert "seed 5" in told.output
        assert (wrong.exit_code, "KIND=RATE" in wrong.output) == (2, True)

    def test_inspect_judges_daily_files_and_refuses_others(self, tmp_path: Path) -> None:
        for name, step in (("ACME.csv", 1), ("WEEKLY.csv", 7)):
            days = [date(2023, 3, 6) + timedelta(days=n * step) for n in range(60)]
            rows = [f"{day},10,11,9,{1000 if n == 40 else 10 + n % 3 / 10},10,1000,0,0" for n, day in enumerate(days)]
            (tmp_path / name).write_text("\n".join(["Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits", *rows]))
        told = quality("inspect", str(tmp_path / "ACME.csv"))
        assert told.exit_code == 0
        assert "critical 2023-04-15  ohlc_order (rules)" in told.output
        refused = quality("inspect", str(tmp_path / "ACME.csv"), str(tmp_path / "WEEKLY.csv"))
        assert refused.exit_code == 1
        assert "refused: WEEKLY.csv holds weekly bars" in refused.output
