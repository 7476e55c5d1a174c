"""How a feature table is brought up to date: which symbols, from which session on, read from where, in which batches.

A symbol whose new rows follow its stored ones goes on from its carried states and enough look-back; one whose past
changed is computed from its first bar and written from the change on. Both give the same bits. Symbols are taken some
at a time, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from quant_assets.clock import utc_now
from quant_assets.feature_store.inputs import BEGINNING, Changes, changes_since_build
from quant_assets.schemas import CARRIED_STATES, VIEW_BUILDS, Table
from quant_assets.warehouse import Connection, Warehouse, append_ledger, in_transaction, query, rewrite_current

BATCH_ROWS, BATCH_VALUES = 1_000_000, 32_000_000
"""Bars that are read, and values that are computed and written at once: a quarter of a gigabyte of them."""
RECENT = timedelta(days=30)
"""How far apart the changes may lie of symbols that go on from their look-back together."""


@dataclass(frozen=True)
class Refresh:
    """What one refresh changed: symbols looked at, rows written and rows removed."""

    symbols: int
    written: int
    removed: int


UNCHANGED = Refresh(0, 0, 0)


@dataclass(frozen=True)
class Batch:
    """Symbols to compute at once: their rows from `from_session` on are replaced (`scope`), inputs are read from `first` on.

    `carried` has the states to go on from (`symbol`, `session`, one column per state), where only look-back is read.
    """

    scope: pl.DataFrame
    first: date = BEGINNING
    carried: pl.DataFrame | None = None

    @property
    def symbols(self) -> list[str]:
        """The symbols of the batch."""
        return self.scope["symbol"].to_list()


@dataclass(frozen=True)
class Kernel:
    """What makes one feature table: how its inputs are read, computed, and reached by a change.

    `upstream` are the feature tables that it is computed from. `lookback` counts the rows of a symbol before a row that it needs, beside the carried `states`; `reached` widens the
    histories that changed (`symbol, from_session`) to those that depend on them.
    """

    table: Table
    definition: str
    lookback: int
    states: tuple[str, ...]
    upstream: tuple[Table, ...]
    read: Callable[[Connection, Batch], pl.DataFrame]
    compute: Callable[[pl.DataFrame, pl.DataFrame | None], pl.DataFrame]
    reached: Callable[[Connection, Changes], pl.DataFrame] = lambda _, changes: changes.histories


def refresh(warehouse: Warehouse, kernel: Kernel, run_id: str) -> Refresh:
    """Bring a feature table up to date with its inputs; nothing new writes nothing, not even a build.

    The database is held for one batch at a time, which takes seconds: a night is one batch.
    """
    source = warehouse.preferred_source
    with warehouse.connect() as connection:
        changes = changes_since_build(connection, kernel.table, kernel.definition, source, kernel.upstream)
        scope = _all_symbols(connection, kernel, source) if changes.rebuild else kernel.reached(connection, changes)
        if scope.is_empty():
            return UNCHANGED
        recent, rest = ([], scope) if changes.rebuild else _recent(connection, kernel, scope)
        waiting = deque([*recent, *_whole_histories(connection, kernel.table, rest, source)])
        stored = _store(connection, kernel, changes, waiting, source, run_id, [])
    while waiting:
        with warehouse.connect() as connection:
            stored = _store(connection, kernel, changes, waiting, source, run_id, stored)
    return Refresh(scope.height, sum(written for written, _ in stored), sum(removed for _, removed in stored))


Stored = tuple[int, int]
"""Rows written and rows removed."""


def _store(
    connection: Connection,
    kernel: Kernel,
    changes: Changes,
    waiting: deque[Batch],
    source: str,
    run_id: str,
    before: list[Stored],
) -> list[Stored]:
    """Compute the next batch that waits and write it in one transaction, the last one with the note of the build; returns all that was stored."""
    batch = waiting.popleft()
    inputs = kernel.read(connection, batch)
    read = [(batch, inputs)]
    if batch.first != BEGINNING:
        read, left = _with_enough_rows(kernel, batch, inputs)
        waiting.extend(_whole_histories(connection, kernel.table, left, source))
        if waiting and waiting[-1].first == BEGINNING:  # who must be taken whole comes along: one transaction is quicker than two
            whole = waiting.pop()
            read.append((whole, kernel.read(connection, whole)))
    computed = [(each, kernel.compute(given, each.carried)) for each, given in read]
    rows = pl.concat([each if changes.rebuild else each.filter(_within(each, batch.scope)) for batch, each in computed])
    rows = rows.select(kernel.table.column_names)
    scope = pl.concat([batch.scope for batch, _ in computed])
    with in_transaction(connection):
        written, removed = rewrite_current(connection, kernel.table, rows, scope)
        if kernel.states:
            _keep_states(connection, kernel, scope, pl.concat([_newest(kernel, each) for _, each in computed]))
        stored = [*before, (written, removed)]
        if not waiting:
            note_build(connection, kernel.table, kernel.definition, source, changes, sum(rows for rows, _ in stored), run_id)
    return stored


def note_build(connection: Connection, table: Table, definition: str, source: str, changes: Changes, written: int, run_id: str) -> None:
    """Write down with which definition a table was built and what it had seen, in the transaction that changed it."""
    build = {
        "view": table.name, "recorded_at": utc_now(), "definition_hash": definition, "source": source, "rows": written,
        "run_id": run_id, **changes.seen,
    }  # fmt: skip
    append_ledger(connection, VIEW_BUILDS, pl.DataFrame([build], schema=VIEW_BUILDS.polars_schema))


def _all_symbols(connection: Connection, kernel: Kernel, source: str) -> pl.DataFrame:
    """Every symbol that has bars or rows, from its beginning on."""
    symbols = query(
        connection,
        f"""
        select symbol from market_data.daily_bars where source = $source group by symbol
        union select symbol from {kernel.table.full_name} group by symbol order by symbol
        """,
        {"source": source},
    )
    return symbols.with_columns(from_session=pl.lit(BEGINNING))


def _recent(connection: Connection, kernel: Kernel, scope: pl.DataFrame) -> tuple[list[Batch], pl.DataFrame]:
    """Batches of the symbols for which look-back is enough, because all that changed follows their stored rows; and who is left.

    Who changed weeks before the others is left too, for the look-back of a batch begins with its earliest change.
    """
    latest: date = scope.select(pl.col("from_session").max()).item()
    new = scope.filter(pl.col("from_session") > latest - RECENT)
    carried = None
    if kernel.states:
        known = query(
            connection,
            "select symbol, session, states from feature_store.carried_states where view = $view and symbol in (select unnest($symbols))",
            {"view": kernel.table.name, "symbols": new["symbol"].to_list()},
        )
        stood = new.join(known.rename({"session": "stood"}), on="symbol").filter(pl.col("from_session") > pl.col("stood"))
        carried = stood.select("symbol", pl.col("stood").alias("session"), *_unpacked(kernel.states))
        new = stood.select("symbol", "from_session")
    # A session is 1.45 days on average; a symbol with many bars missing does not have enough rows then and is taken whole.
    days = kernel.lookback * 1.5 + 10 if kernel.lookback else 0
    symbols = max(1, int(BATCH_VALUES / len(kernel.table.columns) / (days + RECENT.days)))
    batches = []
    for part in new.sort("symbol").iter_slices(symbols):
        earliest: date = part.select(pl.col("from_session").min()).item()
        states = None if carried is None else carried.join(part, on="symbol", how="semi")
        batches.append(Batch(part, earliest - timedelta(days=days), states))
    return batches, scope.join(new, on="symbol", how="anti")


def _with_enough_rows(kernel: Kernel, batch: Batch, inputs: pl.DataFrame) -> tuple[list[tuple[Batch, pl.DataFrame]], pl.DataFrame]:
    """The symbols of a batch that have their look-back in what was read, with their inputs; and the scope of those who have not."""
    before = inputs.filter(~_within(inputs, batch.scope)).group_by("symbol").len("before")
    counted = batch.scope.join(before, on="symbol", how="left")
    enough = counted.filter(pl.col("before").fill_null(0) >= kernel.lookback).select(batch.scope.columns)
    left = batch.scope.join(enough, on="symbol", how="anti")
    if left.is_empty():
        return [(batch, inputs)], left
    if enough.is_empty():
        return [], left
    carried = None if batch.carried is None else batch.carried.join(enough, on="symbol", how="semi")
    return [(Batch(enough, batch.first, carried), inputs.filter(pl.col("symbol").is_in(enough["symbol"].implode())))], left


def _whole_histories(connection: Connection, table: Table, scope: pl.DataFrame, source: str) -> Iterator[Batch]:
    """Batches of symbols in their order, each of about `BATCH_VALUES` values."""
    if scope.is_empty():
        return
    sizes = query(
        connection,
        "select symbol, count(*) as bars from market_data.daily_bars where source = $source and symbol in (select unnest($symbols)) group by symbol",
        {"source": source, "symbols": scope["symbol"].to_list()},
    )
    ordered = (
        scope.join(sizes, on="symbol", how="left")
        .sort("symbol")
        .with_columns(pl.col("bars").fill_null(0).cum_sum() // min(BATCH_ROWS, BATCH_VALUES // len(table.columns)))
    )
    for part in ordered.partition_by("bars", maintain_order=True):
        yield Batch(part.select("symbol", "from_session"))


def _within(rows: pl.DataFrame, scope: pl.DataFrame) -> pl.Series:
    """Which rows lie in a scope; told from the keys alone, for the rows may be wide."""
    beside = rows.select("symbol", "session").join(scope, on="symbol", how="left", maintain_order="left")
    return beside.select((pl.col("session") >= pl.col("from_session")).fill_null(value=False)).to_series()


def _unpacked(states: tuple[str, ...]) -> list[pl.Expr]:
    return [pl.col("states").list.get(place).alias(name) for place, name in enumerate(states)]


def _newest(kernel: Kernel, computed: pl.DataFrame) -> pl.DataFrame:
    """The states of each symbol's newest row (`symbol, session, states`), where there is look-back enough to go on from them."""
    states = [f"state_{name}" for name in kernel.states]
    symbols = computed["symbol"].rle().struct.unnest()  # a symbol's rows stand together
    ends = symbols["len"].cum_sum() - 1
    newest = computed[ends].select("symbol", "session", *states).with_columns(rows=symbols["len"])
    known = newest.filter(pl.col("rows") > kernel.lookback, pl.all_horizontal(pl.col(states).is_not_null()))
    return known.select("symbol", "session", pl.concat_list(states).alias("states"))


def _keep_states(connection: Connection, kernel: Kernel, scope: pl.DataFrame, newest: pl.DataFrame) -> None:
    """Carry the newest states of some symbols in place of those before."""
    view = pl.lit(kernel.table.name).alias("view")
    rewrite_current(connection, CARRIED_STATES, newest.select(view, "symbol", "session", "states"), scope.select(view, "symbol"))
