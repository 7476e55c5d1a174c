"""The assets of the stage on a night's own tables: what stands beside the findings, and what a bar found out late had reached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quant_assets_tests import nights
from quant_assets_tests.nights import BEFORE, CALENDAR, EVENING, Desk

LATE = """
    insert into data_quality.anomalies by name
    select symbol, session, source, 'suspicious_close' as rule, 'next_session' as detector, known_at as bar_known_at, 1.0 as score,
        'critical' as severity, 'found out a session later' as detail, null as suggestion, ? as known_at, now()::timestamp as recorded_at
    from market_data.latest_daily_bars where symbol = 'SYN002' and session = ?
"""


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Desk]:
    home, _ = nights.finished(tmp_path_factory.getbasetemp())
    with nights.desk(nights.copied(home, tmp_path / "home")) as opened:
        yield opened


def told(desk: Desk, asset: str) -> dict[str, Any]:
    """The metadata of an asset that is materialized alone."""
    result = desk.run(assets=[asset])
    assert result.success
    (event,) = (e for e in result.all_events if e.is_step_materialization and e.asset_key and e.asset_key.to_user_string() == asset)
    return {name: value.value for name, value in event.materialization.metadata.items()}


class TestRegression:
    def test_the_night_tells_what_rested_on_a_bar_that_was_found_out_late(self, desk: Desk) -> None:
        assert told(desk, "data_quality/blast_radius")["bars_found_out"] == 0
        desk.change(LATE, CALENDAR.known_at(EVENING), BEFORE)
        numbers = told(desk, "data_quality/blast_radius")
        assert (numbers["bars_found_out"], numbers["bars_measured"]) == (1, 1)
        reached = desk.read("select edge, count(*) as items from data_quality.blast_radius group by edge order by edge")
        # Features of its session and the next; labels that begin or end there (1, 5 and 20 sessions); tonight's signal, published.
        assert dict(reached.iter_rows()) == {"feature_row": 2, "label": 4, "signal": 1, "document": 1}
        assert told(desk, "data_quality/blast_radius")["dagster/row_count"] == numbers["dagster/row_count"] == 8  # measured once

    def test_findings_come_with_their_plots_and_the_figures_of_the_desk(self, desk: Desk) -> None:
        numbers = told(desk, "data_quality/anomalies")
        assert numbers["new_findings"] == 0  # judged already
        assert str(numbers["over_time"]).startswith("![plot](data:image/png;base64,")
        assert numbers["deliveries"] == 1
        assert numbers["open_critical"] == 0
        assert "suspicious_close" in str(numbers["by_rule"])
