"""What the warehouse holds of one source: the other side of `delivery.Holdings`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from quant_assets.warehouse import Warehouse


class StoredHoldings:
    """The bars, payloads and batches that stand in the warehouse, read when they are asked for."""

    def __init__(self, warehouse: Warehouse, source: str) -> None:
        self._warehouse = warehouse
        self._source = {"source": source}

    def symbols(self) -> pl.DataFrame:
        """One row per ticker with a bar, whoever held it: `symbol`, `first_session`, `last_session`; sources know tickers only."""
        return self._warehouse.read(
            """
            select coalesce(ticker, symbol) as symbol, min(first_session) as first_session, max(last_session) as last_session
            from (
                select symbol, min(session) as first_session, max(session) as last_session
                from market_data.daily_bars where source = $source group by symbol
            ) left join (select symbol, ticker from market_data.latest_instruments where source = $source) using (symbol)
            group by all order by symbol
            """,
            self._source,
        )

    def landed(self) -> frozenset[str]:
        """The payloads (`payload_sha256`) and requests (`request_id`) that stand in the fetch ledger."""
        ids = self._warehouse.read(
            "select unnest([payload_sha256, request_id]) as id from market_data.fetch_ledger where source = $source", self._source
        )
        return frozenset(ids["id"].drop_nulls())

    def batches(self) -> Mapping[str, datetime]:
        """When each batch landed, by the wall clock."""
        batches = self._warehouse.read(
            "select batch_id, max(requested_at) as landed_at from market_data.fetch_ledger where source = $source group by batch_id order by landed_at",
            self._source,
        )
        return dict(batches.iter_rows())
