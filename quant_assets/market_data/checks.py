"""Checks on landed bars: what must never pass blocks, what people should know warns."""

from collections.abc import Iterator
from datetime import date, timedelta

import dagster as dg
import polars as pl

from quant_assets.assets import markdown_table
from quant_assets.market_data.assets import BARS
from quant_assets.resources import DeskResource, Night, WarehouseResource
from quant_assets.schemas import DAILY_BARS

DATED = r"try_cast(regexp_replace(batch_id, '^(\d{4})-?(\d{2})-?(\d{2})\.tar\.gz-.*$', '\1-\2-\3') as date)"
"""SQL: the date of a dated delivery; null for any other batch."""


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec("schema", asset=BARS, blocking=True, description="The stored columns and types are the declared ones."),
        dg.AssetCheckSpec("key", asset=BARS, blocking=True, description="No two rows share symbol, session, source and known_at."),
        dg.AssetCheckSpec(
            "fresh", asset=BARS, description="The last session is there, for every symbol in scope that traded in the 30 days before it."
        ),
        dg.AssetCheckSpec(
            "deliveries",
            asset=BARS,
            description="Every dated delivery of the run's sessions came whole and once, or was healed by a later one, and no split was lost with one.",
        ),
    ],
)
def daily_bars_checks(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, desk: DeskResource
) -> Iterator[dg.AssetCheckResult]:
    """Judge the stored bars as a whole, and whether those due are there."""
    from quant_assets.migrations import sql_type

    stored = dict(
        warehouse.client.read(
            "select column_name, data_type from duckdb_columns() where schema_name = 'market_data' and table_name = 'daily_bars'"
        ).iter_rows()
    )
    difference = sorted(set(stored.items()) ^ {(column.name, sql_type(column.dtype)) for column in DAILY_BARS.columns})
    yield dg.AssetCheckResult(
        check_name="schema",
        asset_key=BARS,
        passed=not difference,
        description=f"Stored and declared columns differ in: {difference or 'nothing'}.",
    )
    doubled = warehouse.client.read(
        f"select {', '.join(DAILY_BARS.key)}, count(*) as rows from market_data.daily_bars group by all having count(*) > 1"
    )
    yield dg.AssetCheckResult(
        check_name="key",
        asset_key=BARS,
        passed=doubled.is_empty(),
        description=f"{doubled.height} keys stand in more than one row.",
        metadata={"offending_rows": doubled.height, "doubled": markdown_table(doubled.head(20))},
    )
    night = desk.night(context, warehouse.client)
    yield _deliveries(night, warehouse, desk)
    last = warehouse.client.read(
        """
        select symbol, max(session) as last_session, symbol in (from market_data.universe_on_as_of($due, $as_of)) as in_scope
        from market_data.latest_daily_bars
        where source = $source and session <= $due group by symbol order by last_session, symbol
        """,
        {"source": desk.settings.source, "due": night.tonight, "as_of": night.as_of},
    )
    newest: date | None = last["last_session"].max()  # type: ignore[assignment]
    recently = pl.col("last_session").is_between(night.tonight - timedelta(days=30), night.tonight, closed="left")
    late = last.filter("in_scope", recently).drop("in_scope")
    yield dg.AssetCheckResult(
        check_name="fresh",
        asset_key=BARS,
        passed=late.is_empty() and newest == night.tonight,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Last session stored: {newest or 'none'}, due: {night.tonight}; {late.height} symbols end in the 30 days before it.",
        metadata={
            "late_symbols": late.height,
            "last_session": str(newest),
            "due": str(night.tonight),
            "symbols": markdown_table(late.head(20)),
        },
    )


def _deliveries(night: Night, warehouse: WarehouseResource, desk: DeskResource) -> dg.AssetCheckResult:
    """The dated deliveries that were empty, partial, stale, late, repeated or refused, and whether their session is whole by now.

    A later delivery brings the bars and not the splits of a session whose own delivery is missing or was faulty: where a
    close then moves as by a split, that is told too. It looks back ten days, so that what no later delivery heals is told again.
    """
    since, until = night.sessions[0] - timedelta(days=10), night.as_of.date()
    faulty = warehouse.client.read(
        """
        with told as (
            select *, """ + DATED + """ as dated
            from market_data.fetch_ledger where source = $source and status not in ('landed', 'unchanged')
        ),
        counts as (
            select session, count(*) as bars, lag(count(*)) over (order by session) as bars_before
            from market_data.latest_daily_bars
            where source = $source and session between $since - to_days(10) and $last group by session
        )
        select regexp_extract(batch_id, '^(.*)-', 1) as delivery, status, coalesce(bars, 0) as bars, bars_before,
            dated not in (select unnest($sessions)) or coalesce(bars >= 0.97 * bars_before, false) as healed, detail
        from told left join counts on session = dated
        where dated between $since and $until order by dated
        """,
        {
            "source": desk.settings.source, "since": since, "last": night.sessions[-1], "until": until,
            "sessions": list(desk.calendar.between(since, until)) or [until],
        },
    )  # fmt: skip
    lost = warehouse.client.read(
        """
        with batches as (select distinct batch_id, """ + DATED + """ as dated from market_data.fetch_ledger where source = $source),
        bars as (
            select symbol, session, arg_max(close, known_at) as close, min(dated) as dated
            from market_data.daily_bars join batches using (batch_id)
            where source = $source and basis = 'raw' and session between $since - to_days(10) and $last group by symbol, session
        ),
        moves as (select *, lag(close) over (partition by symbol order by session) / nullif(close, 0) as ratio from bars)
        select symbol, session, round(ratio, 3) as ratio from moves
        anti join market_data.latest_corporate_actions as action on action.symbol = moves.symbol and action.session = moves.session
        where session >= $since and dated > session and ratio > 0
            and list_bool_or([abs(greatest(ratio, 1 / ratio) / simple - 1) < 0.03 for simple in [1.5, greatest(2, round(greatest(ratio, 1 / ratio)))]])
        order by session, symbol
        """,
        {"source": desk.settings.source, "since": since, "last": night.sessions[-1]},
    )  # fmt: skip
    moved = ", ".join(f"{symbol} on {session} ({ratio:g})" for symbol, session, ratio in lost.head(5).iter_rows())
    told = f" {lost.height} closes move as by a split on a session without a good delivery of its own: {moved}. Fetch that delivery again."
    open_ones = faulty.filter(~pl.col("healed"))
    names = ", ".join(f"{name} ({status})" for name, status in open_ones.select("delivery", "status").head(5).iter_rows())
    return dg.AssetCheckResult(
        check_name="deliveries",
        asset_key=BARS,
        passed=open_ones.is_empty() and lost.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{faulty.height} deliveries were not as they should be, {open_ones.height} of them not healed{': ' if names else ''}{names}."
        + (told if lost.height else ""),
        metadata={
            "faulty": faulty.height,
            "not_healed": open_ones.height,
            "deliveries": markdown_table(faulty.head(50)),
            "perhaps_split": markdown_table(lost.head(50)),
        },
    )
