"""What the warehouse tells a source that it holds of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from quant_assets.clock import trading_calendar, utc_now
from quant_assets.market_data.delivery import Holdings
from quant_assets.market_data.holdings import StoredHoldings
from quant_assets.market_data.landing import land
from quant_assets.warehouse import Warehouse
from quant_assets_tests.conftest import bar, delivery

CALENDAR = trading_calendar("XNYS", date(2020, 1, 2))
D1, D2, D3 = (date(2020, 3, day) for day in (2, 3, 4))


class TestRegression:
    def test_nothing_is_held_of_a_new_source(self, open_warehouse: Warehouse) -> None:
        holdings: Holdings = StoredHoldings(open_warehouse, "files")
        assert holdings.symbols().is_empty()
        assert holdings.symbols().columns == ["symbol", "first_session", "last_session"]
        assert holdings.landed() == frozenset()
        assert holdings.batches() == {}

    def test_bars_payloads_and_batches_of_one_source_and_no_other(self, open_warehouse: Warehouse) -> None:
        began = utc_now()
        for batch_id, bars in (("one", [bar("AAA", D1), bar("BBB", D1)]), ("two", [bar("AAA", D3)])):
            land(open_warehouse, delivery(bars, batch_id=batch_id), CALENDAR, CALENDAR.known_at(D3), "run")
        other = replace(delivery([bar("CCC", D2)], batch_id="three"), source="another")
        land(open_warehouse, other, CALENDAR, CALENDAR.known_at(D3), "run")
        holdings = StoredHoldings(open_warehouse, "files")
        assert holdings.symbols().rows() == [("AAA", D1, D3), ("BBB", D1, D1)]
        requests = open_warehouse.read("select request_id from market_data.fetch_ledger where source = 'files'")["request_id"]
        assert holdings.landed() == {"one", "two", *requests}
        batches = holdings.batches()
        assert list(batches) == ["one", "two"]
        assert began <= batches["one"] <= batches["two"] <= utc_now()
        assert StoredHoldings(open_warehouse, "another").symbols().rows() == [("CCC", D2, D2)]

    def test_what_is_landed_while_one_holds_it_is_seen(self, open_warehouse: Warehouse) -> None:
        holdings = StoredHoldings(open_warehouse, "files")
        assert "one" not in holdings.landed()
        land(open_warehouse, delivery([bar("AAA", D1)], batch_id="one"), CALENDAR, CALENDAR.known_at(D1), "run")
        assert "one" in holdings.landed()

    def test_a_restated_bar_is_held_once_and_a_batch_landed_again_is_as_young_as_its_last_landing(self, open_warehouse: Warehouse) -> None:
        holdings = StoredHoldings(open_warehouse, "files")
        for batch_id, close in (("one", 10.0), ("two", 11.0), ("one", 10.0)):
            land(open_warehouse, delivery([bar("AAA", D1, close)], batch_id=batch_id), CALENDAR, CALENDAR.known_at(D1), "run")
        assert holdings.symbols().rows() == [("AAA", D1, D1)]
        assert list(holdings.batches()) == ["two", "one"]
