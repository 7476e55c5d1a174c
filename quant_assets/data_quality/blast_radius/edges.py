"""What a bar touched: everything that used it, and by how much the signals move without it.

Each edge is one function from a version of a bar, and what the edges before it reached, to the things it reaches itself;
a later stage appends its own to `EDGES`. An edge decides by comparing two computations, with the bar and without it.
The view `technical_v1` has no cross-section: feature rows of other symbols do not depend on a bar; what reaches their
signals are the models that were trained on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from difflib import get_close_matches
from typing import Any

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.data_quality.blast_radius.counterfactual import FEATURES, Bar
from quant_assets.data_quality.blast_radius.signal_moves import signal_moves
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.catalog import model_columns
from quant_assets.publishing.documents import instant_text, signal_document_id
from quant_assets.publishing.outbox import SUFFIX, OutboxError, read
from quant_assets.schemas import BLAST_RADIUS, INSTANT
from quant_assets.settings import Settings
from quant_assets.signals.champions import MODEL
from quant_assets.warehouse import Warehouse, append_ledger

COLUMNS = [name for name in BLAST_RADIUS.column_names if name != "recorded_at"]
NOTHING_REACHED = pl.DataFrame(schema={name: BLAST_RADIUS.polars_schema[name] for name in COLUMNS})
_REACHED = {name: BLAST_RADIUS.polars_schema[name] for name in ("item", "item_session", "value_with", "value_without", "detail")}

Edge = Callable[[Bar, pl.DataFrame], pl.DataFrame]
"""Takes a bar and the rows of the edges before it (`edge` and the columns that follow); returns one row per thing reached:
`item`, `item_session`, `value_with`, `value_without`, `detail`."""


def feature_rows(bar: Bar, reached: pl.DataFrame) -> pl.DataFrame:
    """Rows of `technical_v1` that differ, or would with a release; the values are those of the feature that moves most, in its deviations."""
    histories = bar.histories(bar.as_of)
    if histories is None:
        return _rows([])
    by_session = histories.feature_changes.sort("size", "feature", descending=[True, False]).group_by("session", maintain_order=True)
    most = by_session.agg(pl.len(), pl.col("feature", "value_with", "value_without").first()).sort("session")
    released = ", were it released" if histories.held else ""
    return _rows(
        (f"technical_v1/{bar.symbol}/{session}", session, None, None, f"the row of the bar itself: without it there is none{released}")
        if session == bar.session
        else (
            f"technical_v1/{bar.symbol}/{session}",
            session,
            *values,
            f"{count} of {len(FEATURES)} features differ, {feature} most{released}",
        )
        for session, count, feature, *values in most.iter_rows()
    )


def label_rows(bar: Bar, reached: pl.DataFrame) -> pl.DataFrame:
    """Labels that begin or end at the bar, or span a dividend measured against its close, now or with a release; the values are returns."""
    histories = bar.histories(bar.as_of)
    if histories is None:
        return _rows([])
    differing = histories.labels(bar.calendar).filter("differs", pl.col("known_at") <= bar.as_of)
    released = ", were it released" if histories.held else ""
    return _rows(
        (
            f"labels/{bar.symbol}/{row['session']}/{row['horizon']}", row["session"], row["value_with"], row["value_without"],
            f"{'begins' if row['session'] == bar.session else 'ends'} at the bar: without it there is none{released}"
            if row["value_without"] is None
            else f"spans a dividend that was measured against its close{released}",
        )
        for row in differing.iter_rows(named=True)
    )  # fmt: skip


def training_sets(bar: Bar, reached: pl.DataFrame) -> pl.DataFrame:
    """Training frames of versions, promoted or turned down, that held an affected row, by fingerprint; the values count the symbol's rows in them."""
    frames = ((promotion, _trained_rows(bar, promotion)) for promotion in _promotions(bar))
    return _rows(
        (
            promotion["fingerprint"], None, rows.height, rows.height - rows["lost"].sum(),
            f"known until {promotion['trained_until']} UTC: of the symbol's {rows.height} rows {rows['lost'].sum()} rest on the bar alone, "
            f"{(~rows['lost'] & (rows['features_differ'] | rows['label_differs'])).sum()} differ",
        )
        for promotion, rows in frames
        if (rows["features_differ"] | rows["label_differs"]).any()
    )  # fmt: skip


def model_versions(bar: Bar, reached: pl.DataFrame) -> pl.DataFrame:
    """Versions that were trained on such a frame; `detail` counts what they have scored, of whatever symbol."""
    made = bar.read(
        """
        select model_version, count(*) as signals, count(distinct symbol) as symbols
        from signals.daily_signals where model_version is not null and known_at <= $as_of group by model_version
        """
    )
    scored = {version: f"{signals:,} signals of {symbols:,} symbols" for version, signals, symbols in made.iter_rows()}
    return _rows(
        (
            f"{MODEL}/{promotion['model_version']}", None, None, None,
            f"horizon {promotion['horizon']}, {promotion['decision']} {promotion['promoted_at']} UTC, scored {scored.get(promotion['model_version'], 'nothing yet')}",
        )
        for promotion in _trained_on(bar, reached)
    )  # fmt: skip


def predictions(bar: Bar, reached: pl.DataFrame) -> pl.DataFrame:
    """Walk-forward predictions made from feature rows that differ; without the bar they are unknown, for no fold's model is kept."""
    parts = [_rows([])]
    for promotion in _trained_on(bar, reached):
        differing = _trained_rows(bar, promotion).filter("features_differ")["session"]
        made = bar.read(
            """
            select session, fold, probability from signals.predictions
            where model = $model and model_version = $number and horizon = $horizon and symbol = $symbol and session in $differing
            order by session, fold
            """,
            model=MODEL,
            number=promotion["model_version"],
            horizon=promotion["horizon"],
            differing=differing.to_list(),
        )
        prefix = f"{MODEL}/{promotion['model_version']}/{promotion['horizon']}/{bar.symbol}"
        parts.append(
            _rows(
                (f"{prefix}/{session}/{fold}", session, probability, None, "from features that differ; the fold's model is not kept")
                for session, fold, probability in made.iter_rows()
            )
        )
    return pl.concat(parts)


def signals(bar: Bar, reached: pl.DataFrame) -> pl.DataFrame:
    """Versions of the symbol's signals that were scored on features that differ; the values are probabilities (`signal_moves`)."""
    return _rows(
        (
            f"{signal_document_id(bar.symbol, row['session'], row['horizon'])}@{instant_text(row['known_at'])}",
            row["session"], row["value_with"], row["value_without"], row["detail"],
        )
        for row in signal_moves(bar).iter_rows(named=True)
    )  # fmt: skip


def documents(bar: Bar, reached: pl.DataFrame) -> pl.DataFrame:
    """Published documents of those signals, by document id; the values are those of the newest such version in the outbox."""
    moved = {row["item"]: row for row in reached.filter(pl.col("edge") == "signal").iter_rows(named=True)}
    newest = {item.rpartition("@")[0]: row["item_session"] for item, row in moved.items()}
    files = bar.read(
        "select session, sha256 from publishing.outbox where session in $sessions order by session, recorded_at",
        sessions=sorted(set(newest.values())),
    )
    found: dict[str, list[tuple[str, str]]] = {}
    unreadable: dict[date, str] = {}
    for session, sha256 in files.iter_rows():
        name = f"{session.isoformat()}-{sha256[:16]}{SUFFIX}"
        try:
            published = read(bar.settings.outbox_path / name).get("signals", [])
        except OutboxError as error:
            unreadable[session] = str(error)
            continue
        for document in published:
            if document["document_id"] in newest:
                found.setdefault(document["document_id"], []).append((document["as_of"], name))
    rows: list[Sequence[object]] = []
    for document_id, session in newest.items():
        versions = sorted(found.get(document_id, []))
        used = [(f"{document_id}@{as_of}", name) for as_of, name in versions if f"{document_id}@{as_of}" in moved]
        if used:
            item, name = used[-1]
            later = "" if f"{document_id}@{versions[-1][0]}" == item else f"; replaced by the one as of {versions[-1][0]}"
            rows.append((document_id, session, moved[item]["value_with"], moved[item]["value_without"], f"in {name}{later}"))
        elif session in unreadable:
            rows.append((document_id, session, None, None, f"it cannot be told whether it was published: {unreadable[session]}"))
    return _rows(rows)


EDGES: tuple[tuple[str, Edge], ...] = (
    ("feature_row", feature_rows),
    ("label", label_rows),
    ("training_set", training_sets),
    ("model_version", model_versions),
    ("prediction", predictions),
    ("signal", signals),
    ("document", documents),
)
"""The edges by their names in the table, in the order in which a bar's influence travels."""


def impact(
    warehouse: Warehouse,
    settings: Settings,
    calendar: TradingCalendar,
    symbol: str,
    session: date,
    as_of: datetime,
    edges: Sequence[tuple[str, Edge]] = EDGES,
) -> pl.DataFrame:
    """Everything that each version of a bar reached, as of an instant: rows of `data_quality.blast_radius` without `recorded_at`.

    A bar that stands in `clean_bars` is compared with its absence, one that is held back with its presence: `value_with`
    is always the number with the bar and `value_without` the one without it, null where there is none, where it is not
    finite (a return from a price of 0) or where it cannot be told (`detail` says why). Models stay as they are: a signal moves by its features alone. Differences below
    `counterfactual.TOLERANCE` are none. Raises `QuantAssetsError` for a symbol or session without a bar, naming the nearest.
    """
    names = {"symbol": symbol, "session": session, "source": warehouse.preferred_source, "as_of": as_of}
    versions = warehouse.read(
        """
        select known_at from market_data.daily_bars
        where symbol = $symbol and session = $session and source = $source and known_at <= $as_of order by known_at
        """,
        names,
    )["known_at"]
    if versions.is_empty():
        raise QuantAssetsError(_nearest(warehouse, calendar, symbol, session, as_of))
    parts = []
    for known_at in versions:
        bar = Bar(warehouse, settings, calendar, symbol, session, known_at, as_of)
        reached = pl.DataFrame(schema={"edge": pl.String, **_REACHED})
        for name, edge in edges:
            rows = edge(bar, reached).select(pl.lit(name).alias("edge"), *_REACHED)
            finite = (pl.when(pl.col(value).is_finite()).then(value).alias(value) for value in ("value_with", "value_without"))
            reached = pl.concat([reached, rows.with_columns(finite)])
        key = {"symbol": symbol, "session": session, "bar_known_at": known_at, "measured_at": as_of}
        parts.append(reached.with_columns(pl.lit(value, BLAST_RADIUS.polars_schema[name]).alias(name) for name, value in key.items()))
    return pl.concat(parts).select(COLUMNS)


def record(warehouse: Warehouse, measured: pl.DataFrame) -> int:
    """Keep what `impact` returned in `data_quality.blast_radius`; the same measurement again writes nothing. Returns the rows written."""
    with warehouse.transaction() as connection:
        return append_ledger(connection, BLAST_RADIUS, measured.with_columns(recorded_at=pl.lit(utc_now(), INSTANT)))


def _rows(rows: Iterable[Sequence[object]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=_REACHED, orient="row")


def _promotions(bar: Bar) -> list[dict[str, Any]]:
    """Each version that was decided upon by the instant, once, with the first decision."""
    return bar.read(
        """
        select model_version, horizon, fingerprint, trained_until, promoted_at, decision, recorded_at from signals.promotions
        where model = $model and promoted_at <= $as_of
        qualify row_number() over (partition by model_version order by promoted_at) = 1 order by model_version::bigint
        """,
        model=MODEL,
    ).to_dicts()


def _trained_on(bar: Bar, reached: pl.DataFrame) -> list[dict[str, Any]]:
    """The promotions whose training set is among what was reached."""
    frames = set(reached.filter(pl.col("edge") == "training_set")["item"])
    return [promotion for promotion in _promotions(bar) if promotion["fingerprint"] in frames]


def _trained_rows(bar: Bar, promotion: dict[str, Any]) -> pl.DataFrame:
    """The symbol's rows in a version's training frame: `session`, `features_differ`, `label_differs`, `lost` (there with the bar alone).

    The frame is the one that was known when the training's last label was; empty where the bar was no part of it.
    """
    nothing = pl.DataFrame(schema={"session": pl.Date, **dict.fromkeys(("features_differ", "label_differs", "lost"), pl.Boolean)})
    histories = bar.histories(promotion["trained_until"])
    if histories is None or not bar.was_used(histories, promotion["recorded_at"]):
        return nothing
    in_scope = histories.bars_with.filter("in_scope", pl.col("session") >= bar.settings.first_session_floor)["session"]
    changes = histories.feature_changes.filter(pl.col("feature").is_in(model_columns()))["session"].unique()
    known = histories.labels(bar.calendar, [promotion["horizon"]]).filter(pl.col("known_at") <= promotion["trained_until"])
    return known.filter(pl.col("session").is_in(in_scope.implode())).select(
        "session",
        features_differ=pl.col("session").is_in(changes.implode()),
        label_differs="differs",
        lost=pl.col("value_without").is_null(),
    )


def _nearest(warehouse: Warehouse, calendar: TradingCalendar, symbol: str, session: date, as_of: datetime) -> str:
    """Why there is no such bar, and what there is instead."""
    known = warehouse.read(
        """
        select symbol, max(session) filter (session < $session) as before, min(session) filter (session > $session) as after
        from market_data.daily_bars where source = $source and known_at <= $as_of group by symbol
        """,
        {"session": session, "source": warehouse.preferred_source, "as_of": as_of},
    )
    of_symbol = known.filter(pl.col("symbol") == symbol)
    if of_symbol.is_empty():
        close = get_close_matches(symbol, known["symbol"].to_list(), cutoff=0.5) or sorted(known["symbol"])[:3]
        there_are = f"{known.height:,} symbols have bars, such as {', '.join(close)}" if known.height else "no bar is stored at all"
        return f"No bar of a symbol {symbol!r} is known as of {as_of} UTC from {warehouse.preferred_source}: {there_are}."
    sessions = " and ".join(str(day) for day in of_symbol.row(0)[1:] if day is not None)
    closed = "" if calendar.is_session(session) else f", which is no session of {calendar.name}"
    return f"{symbol} has no bar on {session}{closed}, as known as of {as_of} UTC; the nearest are on {sessions}."
