"""What a bar reached, held against what really happens when it is held back or released and everything is run again."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from rich.console import Console

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.data_quality.blast_radius.counterfactual import FEATURES, Bar
from quant_assets.data_quality.blast_radius.edges import COLUMNS, EDGES, impact, record
from quant_assets.data_quality.blast_radius.report import show
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.catalog import model_columns
from quant_assets.feature_store.store import refresh_labels, refresh_technical
from quant_assets.feature_store.training_sets import training_set
from quant_assets.market_data.landing import land
from quant_assets.publishing import outbox
from quant_assets.publishing.documents import signal_document_id, signal_documents
from quant_assets.schemas import ANOMALIES, INSTANT, OUTBOX, REVIEWS
from quant_assets.settings import load_settings
from quant_assets.warehouse import Warehouse, append_ledger, append_versions
from quant_assets_tests.conftest import action, bar, delivery
from quant_assets_tests.market_data.test_universe import store_members
from quant_assets_tests.signals.nights import Desk

SYMBOL, LAST, BAD = "A|B/C %d", 100, 96
"""A symbol that needs care in keys; the session that the market reaches to; the one whose bar is wrong by a third."""
LATER = timedelta(hours=1)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Four symbols over 100 sessions with one wrong bar and no finding: which rules find it is tested elsewhere."""
    desk = Desk.new(tmp_path_factory.mktemp("market"), 5, LAST, train_min_sessions=60)
    with desk.warehouse.transaction() as connection:
        connection.execute("delete from data_quality.anomalies")
        prices = ", ".join(f"{name} = {name} * 1.3" for name in ("open", "high", "low", "close"))
        connection.execute(f"update market_data.daily_bars set {prices} where symbol = ? and session = ?", [SYMBOL, desk.session(BAD)])
        connection.execute("delete from feature_store.technical_v1; delete from feature_store.labels")
    refresh(desk)
    return desk


@pytest.fixture(scope="module")
def model(market: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The same with a model that was promoted before the wrong bar, and may score it."""
    desk = market.copy(tmp_path_factory.mktemp("model"))
    desk.train(desk.evening(BAD - 1), model_rounds=80)  # enough that most features have a say
    return desk


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Callable[[Desk], Desk]]:
    """Makes desks of one's own, each with its database held open by this process until the test ends: ten times as fast."""
    with ExitStack() as held_open:

        def copy(desk: Desk) -> Desk:
            made = desk.copy(Path(tempfile.mkdtemp(dir=tmp_path)))
            held_open.enter_context(duckdb.connect(made.warehouse.path))
            return made

        yield copy


@pytest.fixture
def new(market: Desk, copied: Callable[[Desk], Desk]) -> Desk:
    """A desk of one's own without a model."""
    return copied(market)


def refresh(desk: Desk) -> None:
    refresh_technical(desk.warehouse, "again")
    refresh_labels(desk.warehouse, desk.calendar, "again")


def hold(desk: Desk, number: int, known_at: datetime) -> None:
    """A critical finding about the newest version of the symbol's bar, known from an instant on; then features and labels."""
    versions = desk.warehouse.read(
        "select symbol, session, source, known_at as bar_known_at from market_data.latest_daily_bars where symbol = $symbol and session = $session",
        {"symbol": SYMBOL, "session": desk.session(number)},
    )
    stamps = {"known_at": pl.lit(known_at, INSTANT), "recorded_at": pl.lit(utc_now(), INSTANT), "suggestion": pl.lit(None, pl.String)}
    words = {"rule": "price_jump", "detector": "rules", "severity": "critical", "detail": "up by 30 %"}
    finding = versions.with_columns(pl.lit(1.0).alias("score"), **stamps, **{name: pl.lit(word) for name, word in words.items()})
    with desk.warehouse.transaction() as connection:
        append_versions(connection, ANOMALIES, finding.select(ANOMALIES.column_names))
    refresh(desk)


def release(desk: Desk, number: int, decided_at: datetime) -> None:
    """A person releases the finding."""
    findings = desk.warehouse.read(
        "select symbol, session, source, rule, bar_known_at from data_quality.anomalies where session = $session",
        {"session": desk.session(number)},
    )
    stamps = {"decided_at": pl.lit(decided_at, INSTANT), "recorded_at": pl.lit(utc_now(), INSTANT)}
    decision = findings.with_columns(**stamps, decision=pl.lit("release"), decided_by=pl.lit("analyst"), reason=pl.lit("seen"))
    with desk.warehouse.transaction() as connection:
        append_ledger(connection, REVIEWS, decision.select(REVIEWS.column_names))
    refresh(desk)


def nights(desk: Desk, numbers: Iterable[int]) -> None:
    """Score each session in an evening of its own."""
    for number in numbers:
        desk.score(number)


def publish(desk: Desk, number: int, as_of: datetime) -> str:
    """Write the session's signals as of an instant to the outbox; returns the file's name."""
    session = desk.session(number)
    signals = desk.warehouse.read("select * from signals.daily_signals_as_of($as_of)", {"as_of": as_of})
    file = outbox.write(
        desk.settings.outbox_path, session, {"signals": signal_documents(signals.filter(pl.col("session") == session), as_of)}
    )
    entry = {"session": session, "sha256": file.sha256, "documents": file.counts["signals"], "collections": json.dumps(file.counts)}
    with desk.warehouse.transaction() as connection:
        append_ledger(connection, OUTBOX, pl.DataFrame([{**entry, "run_id": "x", "recorded_at": utc_now()}], schema=OUTBOX.polars_schema))
    return file.path.name


def reached(desk: Desk, number: int = BAD, as_of: datetime | None = None) -> pl.DataFrame:
    return impact(desk.warehouse, desk.settings, desk.calendar, SYMBOL, desk.session(number), as_of or desk.evening(LAST) + 3 * LATER)


def edge(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    return rows.filter(pl.col("edge") == name)


def moves(rows: pl.DataFrame, column: str) -> dict[date, float | None]:
    """One of the two probabilities of each signal, by its session."""
    found = edge(rows, "signal")
    return dict(zip(found["item_session"], found[column], strict=True))


def probabilities(desk: Desk) -> dict[date, float]:
    """The symbol's newest signals, by session."""
    signals = desk.signals().filter(pl.col("symbol") == SYMBOL)
    return dict(zip(signals["session"], signals["probability"], strict=True))


def differing(before: pl.DataFrame, after: pl.DataFrame, key: list[str], columns: list[str]) -> set[tuple[object, ...]]:
    """Keys of rows that are not in both tables, or whose values differ by more than a share of 1e-9, sizes below 1 taken as 1."""
    both = before.join(after.with_columns(there=True), on=key, how="left", suffix="_after")
    gaps = [
        ((pl.col(name) - pl.col(f"{name}_after")).abs() > 1e-9 * pl.max_horizontal(pl.col(name).abs(), 1.0))
        | (pl.col(name).is_null() != pl.col(f"{name}_after").is_null())
        for name in columns
    ]
    return set(both.filter(pl.col("there").is_null() | pl.any_horizontal(gaps)).select(key).iter_rows())


class TestSignals:
    @pytest.mark.parametrize("scorer", ["heuristic", "model"])
    def test_nights_that_are_run_again_without_the_bar_give_what_was_said(
        self, scorer: str, market: Desk, model: Desk, copied: Callable[[Desk], Desk]
    ) -> None:
        start = market if scorer == "heuristic" else model
        desk, again = copied(start), copied(start)
        sessions = range(BAD - 1, LAST + 1)
        nights(desk, sessions)
        said = reached(desk)
        hold(again, BAD, again.evening(BAD))
        nights(again, sessions)
        stored, really = probabilities(desk), probabilities(again)
        affected = [desk.session(number) for number in range(BAD, LAST + 1)]
        assert moves(said, "value_with") == {session: stored[session] for session in affected}
        without = moves(said, "value_without")
        assert without.pop(desk.session(BAD)) is None  # without its bar the session has no signal
        assert without == pytest.approx({session: really[session] for session in affected[1:]}, abs=1e-9)
        assert max(abs(stored[session] - really[session]) for session in affected[1:]) > 1e-3
        assert {text.split(";")[0] for text in edge(said, "signal")["detail"]} == {
            f"live signal of {'the heuristic' if scorer == 'heuristic' else 'model version 1'}"
        }

    def test_tonight_is_scored_again_without_the_bar_and_then_with_it(self, model: Desk, copied: Callable[[Desk], Desk]) -> None:
        desk = copied(model)
        desk.score(LAST)
        session, evening = desk.session(LAST), desk.evening(LAST)
        first = probabilities(desk)[session]
        told = reached(desk)
        hold(desk, BAD, evening + LATER)
        assert moves(reached(desk), "value_without") == moves(told, "value_without")  # a bar that was used before it was held back
        assert moves(reached(desk), "value_with") == {session: first}
        desk.score(LAST, as_of=evening + 2 * LATER)
        second = probabilities(desk)[session]
        assert second == pytest.approx(moves(told, "value_without")[session], abs=1e-9)
        both = edge(reached(desk), "signal")
        assert both["value_with"].to_list() == pytest.approx([first, first], abs=1e-9)
        assert both["value_without"].to_list() == pytest.approx([second, second], abs=1e-9)
        assert ["scored while the bar was held back" in text for text in both["detail"]] == [False, True]
        release(desk, BAD, evening + 3 * LATER)
        desk.score(LAST, as_of=evening + 4 * LATER)
        assert probabilities(desk)[session] == pytest.approx(first, abs=1e-9)

    def test_a_bar_that_is_held_back_before_it_is_used_would_move_the_signal_on_a_release(self, new: Desk) -> None:
        hold(new, BAD, new.evening(BAD))
        new.score(LAST)
        session, stored = new.session(LAST), probabilities(new)[new.session(LAST)]
        said = reached(new)
        assert moves(said, "value_without") == {session: stored}
        release(new, BAD, new.evening(LAST) + LATER)
        new.score(LAST, as_of=new.evening(LAST) + 2 * LATER)
        assert probabilities(new)[session] == pytest.approx(moves(said, "value_with")[session], abs=1e-9)
        assert abs(stored - probabilities(new)[session]) > 1e-3

    def test_a_corrected_bar_has_two_versions_and_each_its_own_signals(self, new: Desk) -> None:
        nights(new, [BAD, BAD + 1])
        seen = new.evening(BAD + 1) + LATER
        with new.warehouse.transaction() as connection:
            connection.execute(
                """
                insert into market_data.daily_bars
                select * replace (? as known_at, open / 1.3 as open, high / 1.3 as high, low / 1.3 as low, close / 1.3 as close)
                from market_data.daily_bars where symbol = ? and session = ?
                """,
                [seen, SYMBOL, new.session(BAD)],
            )
        refresh(new)
        nights(new, [BAD + 2])
        said = reached(new)
        first, second = (rows for _, rows in said.group_by("bar_known_at", maintain_order=True))
        assert said["bar_known_at"].unique().sort().to_list() == [new.evening(BAD), seen]
        assert edge(first, "signal")["item_session"].to_list() == [new.session(BAD), new.session(BAD + 1)]
        assert edge(second, "signal")["item_session"].to_list() == [new.session(BAD + 2)]
        assert edge(first, "feature_row").is_empty()  # the table has forgotten it
        assert edge(second, "feature_row").height == LAST - BAD + 1
        now = reached(new, as_of=seen - LATER)
        assert edge(now, "signal").drop("measured_at").equals(edge(first, "signal").drop("measured_at"))

    def test_a_walk_forward_prediction_cannot_be_made_again_and_the_row_says_so(self, new: Desk) -> None:
        new.train(new.evening(LAST))
        new.score(LAST, first=BAD)
        said = reached(new)
        session = new.session(BAD + 1)
        (signal,) = edge(said, "signal").filter(pl.col("item_session") == session).to_dicts()
        assert (signal["value_with"], signal["value_without"]) == (probabilities(new)[session], None)
        assert "whose model is not kept" in signal["detail"]
        (prediction,) = edge(said, "prediction").filter(pl.col("item_session") == session).to_dicts()
        assert prediction["item"] == f"signal/1/1/{SYMBOL}/{session}/4"
        assert prediction["value_with"] == signal["value_with"]

    def test_a_model_whose_file_is_gone_is_named(self, model: Desk, copied: Callable[[Desk], Desk]) -> None:
        desk = copied(model)
        desk.score(LAST)
        (desk.settings.models_path / "signal-1.json").unlink()
        (signal,) = edge(reached(desk), "signal").to_dicts()
        assert signal["value_without"] is None
        assert "it cannot be scored again: There is no local copy of model version 1" in signal["detail"]

    def test_a_stored_signal_that_its_history_does_not_give_any_more_is_told(self, new: Desk) -> None:
        new.score(LAST)
        said = reached(new)
        with new.warehouse.transaction() as connection:
            connection.execute("update signals.daily_signals set probability = 0.123")
        (signal,) = edge(reached(new), "signal").to_dicts()
        assert "stored as 0.123, which its history does not give any more" in signal["detail"]
        assert moves(reached(new), "value_with") == pytest.approx(moves(said, "value_with"), abs=1e-12)


class TestTables:
    @pytest.mark.parametrize("number", [1, 20, 60, BAD, LAST])
    def test_rows_that_change_in_the_tables_when_it_is_held_back_are_the_rows_that_were_told(self, number: int, new: Desk) -> None:
        tables = {"technical_v1": (["symbol", "session"], FEATURES), "labels": (["symbol", "session", "horizon"], ["forward_return"])}
        before = {table: new.warehouse.read(f"select * from feature_store.{table}") for table in tables}
        said = reached(new, number)
        hold(new, number, new.evening(number))
        for table, (key, columns) in tables.items():
            after = new.warehouse.read(f"select * from feature_store.{table}")
            names = edge(said, {"technical_v1": "feature_row", "labels": "label"}[table])["item"].to_list()
            changed = differing(before[table], after, key, columns)
            assert sorted(names) == sorted("/".join(map(str, (table, *row))) for row in changed)
            assert {symbol for symbol, *_ in changed} == {SYMBOL}
        held = reached(new, number)
        assert held.drop("detail").equals(said.drop("detail"))  # what a release would change is what holding it back changed
        assert all(text.endswith(", were it released") for text in held["detail"])

    def test_the_values_of_a_row_are_those_of_the_feature_it_names(self, new: Desk) -> None:
        row = edge(reached(new), "feature_row").row(1, named=True)
        count, _, total, _, _, feature, _ = row["detail"].split()
        assert (row["item_session"], total, feature) == (new.session(BAD + 1), "22", "price_change_1d")
        assert int(count) > 15
        where = {"symbol": SYMBOL, "session": new.session(BAD + 1)}
        sql = f"select {feature} from feature_store.technical_v1 where symbol = $symbol and session = $session"
        assert new.warehouse.read(sql, where).item() == row["value_with"]
        hold(new, BAD, new.evening(BAD))
        assert new.warehouse.read(sql, where).item() == row["value_without"]


class TestTrainings:
    def test_a_training_set_is_told_by_the_rows_that_it_would_lose_and_those_that_differ(
        self, market: Desk, new: Desk, copied: Callable[[Desk], Desk]
    ) -> None:
        trained = new.train(new.evening(LAST))
        new.score(LAST)
        said = reached(new)
        again = copied(market)
        hold(again, BAD, again.evening(BAD))
        frames = [
            training_set(
                desk.warehouse, desk.calendar, "technical_v1", None, (desk.session(1), desk.session(LAST - 1)), 1, desk.evening(LAST - 1)
            ).frame.filter(pl.col("symbol") == SYMBOL)
            for desk in (new, again)
        ]
        lost = frames[0].join(frames[1], on="session", how="anti").height
        changed = len(differing(*frames, ["session"], [*model_columns(), "forward_return"])) - lost
        assert (lost, changed) == (2, LAST - 2 - BAD)
        (row,) = edge(said, "training_set").to_dicts()
        assert (row["item"], row["value_with"], row["value_without"]) == (trained.result.fingerprint, frames[0].height, frames[1].height)
        assert row["detail"].endswith(f"of the symbol's {LAST - 2} rows {lost} rest on the bar alone, {changed} differ")
        (version,) = edge(said, "model_version").to_dicts()
        assert version["item"] == "signal/1"
        assert version["detail"].endswith("scored 4 signals of 4 symbols")

    def test_only_trainings_that_knew_the_bar_used_it(self, model: Desk, copied: Callable[[Desk], Desk]) -> None:
        desk = copied(model)
        assert edge(reached(desk, BAD), "training_set").is_empty()
        assert edge(reached(desk, BAD - 1), "training_set").is_empty()  # trained before its close
        assert edge(reached(desk, BAD - 2), "training_set").height == 1  # its close is the last label's

    def test_what_was_trained_while_it_was_held_back_did_not_use_it_and_what_was_trained_before_the_finding_was_made_did(
        self, market: Desk, copied: Callable[[Desk], Desk]
    ) -> None:
        before, after = copied(market), copied(market)
        hold(before, BAD, before.evening(BAD))
        before.train(before.evening(LAST))
        assert edge(reached(before), "training_set").is_empty()
        after.train(after.evening(LAST))
        hold(after, BAD, after.evening(BAD))  # a new rule that speaks of an old evening
        assert edge(reached(after), "training_set").height == edge(reached(after), "model_version").height == 1

    def test_what_is_out_of_scope_is_in_no_training_set(self, new: Desk) -> None:
        stay = [(name, new.session(1), None) for name in ("BRK.B", "O'NEIL")]
        store_members(new.warehouse, [(SYMBOL, new.session(1), new.session(BAD - 1)), *stay], new.evening(1), "synthetic")
        new.train(new.evening(LAST))
        (row,) = edge(reached(new), "training_set").to_dicts()
        assert (row["value_with"], row["value_without"]) == (BAD - 1, BAD - 2)  # the label that ends at the bar, the day before
        assert edge(reached(new, BAD + 1), "training_set").is_empty()
        assert not edge(reached(new, BAD + 1), "feature_row").is_empty()


class TestDocuments:
    def test_published_documents_are_those_that_lie_in_the_outbox(self, new: Desk) -> None:
        nights(new, [LAST - 1, LAST])
        name = publish(new, LAST, new.evening(LAST))
        document_id = signal_document_id(SYMBOL, new.session(LAST), 1)
        said = reached(new)
        (document,) = edge(said, "document").to_dicts()
        assert (document["item"], document["detail"]) == (document_id, f"in {name}")
        signal = edge(said, "signal").filter(pl.col("item_session") == new.session(LAST)).row(0, named=True)
        assert signal["item"].startswith(f"{document_id}@")
        assert (document["value_with"], document["value_without"]) == (signal["value_with"], signal["value_without"])

    def test_of_two_published_versions_the_newer_is_told(self, new: Desk) -> None:
        new.score(LAST)
        publish(new, LAST, new.evening(LAST))
        hold(new, BAD, new.evening(LAST) + LATER)
        new.score(LAST, as_of=new.evening(LAST) + 2 * LATER)
        name = publish(new, LAST, new.evening(LAST) + 2 * LATER)
        (document,) = edge(reached(new), "document").to_dicts()
        assert (document["detail"], document["value_without"]) == (f"in {name}", probabilities(new)[new.session(LAST)])
        (earlier,) = edge(reached(new, as_of=new.evening(LAST) + LATER), "document").to_dicts()
        assert "; replaced by the one as of 2023-05-25T22:30:00.000000Z" in earlier["detail"]

    def test_a_missing_file_is_told(self, new: Desk) -> None:
        new.score(LAST)
        (new.settings.outbox_path / publish(new, LAST, new.evening(LAST))).unlink()
        (document,) = edge(reached(new), "document").to_dicts()
        assert document["item"] == signal_document_id(SYMBOL, new.session(LAST), 1)
        assert "cannot be told whether it was published: The outbox file" in document["detail"]


class TestRegression:
    def test_a_label_over_a_dividend_is_measured_against_the_close_before_it(
        self, open_warehouse: Warehouse, calendar: TradingCalendar, tmp_path: Path
    ) -> None:
        days = calendar.between(date(2020, 3, 2), date(2020, 3, 9))
        bars = [bar("AAA", day, close) for day, close in zip(days, (50, 100, 99, 99, 99, 99), strict=True)]
        land(open_warehouse, delivery(bars, [action("AAA", days[2], 1.0, "dividend")]), calendar, calendar.known_at(days[-1]), "run")
        said = impact(open_warehouse, load_settings(home=tmp_path), calendar, "AAA", days[1], calendar.known_at(days[-1]))
        ends, over, begins = edge(said, "label").rows(named=True)
        assert (over["item"], over["detail"]) == (f"labels/AAA/{days[0]}/5", "spans a dividend that was measured against its close")
        assert over["value_with"] == pytest.approx(99 / 50 / (1 - 1 / 100) - 1)  # 1 of the close of 100
        assert over["value_without"] == pytest.approx(99 / 50 / (1 - 1 / 50) - 1)  # 1 of the close of 50
        assert [(row["item"], row["value_with"], row["value_without"]) for row in (ends, begins)] == [
            (f"labels/AAA/{days[0]}/1", 1.0, None),
            (f"labels/AAA/{days[1]}/1", pytest.approx(0.0), None),
        ]

    def test_who_and_what_is_not_there_is_named_with_the_nearest(self, market: Desk) -> None:
        def refusal(symbol: str, session: date, as_of: datetime) -> str:
            with pytest.raises(QuantAssetsError) as refused:
                impact(market.warehouse, market.settings, market.calendar, symbol, session, as_of)
            return str(refused.value)

        evening = market.evening(LAST)
        assert "symbol 'BRKB' is known as of 2023-05-25 20:30:00 UTC from synthetic: 4 symbols have bars, such as BRK.B." in refusal(
            "BRKB", market.session(BAD), evening
        )
        assert refusal(SYMBOL, date(2023, 4, 7), evening) == (
            f"{SYMBOL} has no bar on 2023-04-07, which is no session of XNYS, as known as of 2023-05-25 20:30:00 UTC; "
            "the nearest are on 2023-04-06 and 2023-04-10."
        )
        not_yet = refusal(SYMBOL, market.session(BAD), market.evening(BAD - 1))
        assert not_yet.endswith(f"the nearest are on {market.session(BAD - 1)}.")
        assert "no bar is stored at all" in refusal(SYMBOL, market.session(1), datetime(2000, 1, 1))

    @pytest.mark.parametrize("volume", [1000.0, None])
    def test_the_only_bar_of_a_market(
        self, volume: float | None, open_warehouse: Warehouse, calendar: TradingCalendar, tmp_path: Path
    ) -> None:
        session = date(2020, 3, 2)
        land(open_warehouse, delivery([bar("AAA", session, volume=volume)]), calendar, calendar.known_at(session), "run")
        said = impact(open_warehouse, load_settings(home=tmp_path), calendar, "AAA", session, calendar.known_at(session))
        assert said.select("edge", "item", "item_session", "value_with").rows() == [
            ("feature_row", f"technical_v1/AAA/{session}", session, None)
        ]

    @pytest.mark.parametrize("close", [0.0, -5.0, float("nan"), float("inf")])
    def test_a_price_that_is_none_reaches_as_far_as_any_other_and_leaves_no_number_that_is_none(self, close: float, new: Desk) -> None:
        before = reached(new)
        with new.warehouse.transaction() as connection:
            connection.execute(
                "update market_data.daily_bars set close = ?, volume = null where symbol = ? and session = ?",
                [close, SYMBOL, new.session(BAD)],
            )
        hold(new, BAD, new.evening(BAD))
        new.score(LAST)
        said = reached(new)
        assert said.select(pl.col("value_with", "value_without").is_finite().all()).row(0) == (True, True)
        assert edge(said, "label")["item"].to_list() == edge(before, "label")["item"].to_list()
        (signal,) = edge(said, "signal").to_dicts()
        assert signal["value_with"] != signal["value_without"] == probabilities(new)[new.session(LAST)]

    def test_what_is_printed(self, new: Desk) -> None:
        nights(new, [LAST])
        hold(new, BAD, new.evening(LAST) + LATER)
        console = Console(width=160, record=True, file=io.StringIO())
        show(new.warehouse, reached(new), SYMBOL, new.session(BAD), new.evening(LAST) + 3 * LATER, console)
        said = console.export_text()
        assert f"{SYMBOL} {new.session(BAD)}, as of 2023-05-25 23:30 UTC" in said
        assert "held back (critical: price_jump)" in said
        assert "Signals that move most (1 of 1)" in said
        rows = [line.split() for line in said.splitlines()]
        assert ["feature_row", "5", str(new.session(BAD)), str(new.session(LAST)), "–"] in rows
        (move,) = [row[1:4] for row in rows if row and row[0] == signal_document_id(SYMBOL, new.session(LAST), 1)]
        assert float(move[1]) - float(move[0]) == pytest.approx(float(move[2]), abs=1.1e-4)


class TestProperties:
    def test_the_same_measurement_is_recorded_once(self, new: Desk) -> None:
        nights(new, [LAST])
        said = reached(new)
        assert record(new.warehouse, said) == said.height > 0
        assert record(new.warehouse, reached(new)) == 0
        kept = new.warehouse.read(f"select {', '.join(COLUMNS)} from data_quality.blast_radius")
        assert kept.sort("edge", "item").equals(said.sort("edge", "item"))
        later = reached(new, as_of=new.evening(LAST) + 4 * LATER)
        assert record(new.warehouse, later) == later.height == said.height
        assert record(new.warehouse, said.clear()) == 0

    def test_what_is_measured_as_of_an_evening_does_not_change_with_the_evenings_after_it(self, new: Desk) -> None:
        nights(new, [BAD, BAD + 1])
        as_of = new.evening(BAD + 1)
        before = reached(new, as_of=as_of)
        nights(new, range(BAD + 2, LAST + 1))
        new.train(new.evening(LAST))
        hold(new, BAD - 5, new.evening(LAST))
        assert reached(new, as_of=as_of).equals(before)
        assert before["item_session"].max() == new.session(BAD + 1)

    def test_a_later_stage_appends_an_edge_that_starts_from_what_the_others_reached(self, new: Desk) -> None:
        def portfolios(of: Bar, rows: pl.DataFrame) -> pl.DataFrame:
            signals = rows.filter(pl.col("edge") == "signal")
            return signals.select("item_session", "value_with", "value_without", item=pl.lit("desk"), detail=pl.lit(f"holds {of.symbol}"))

        nights(new, [LAST])
        as_of = new.evening(LAST)
        said = impact(new.warehouse, new.settings, new.calendar, SYMBOL, new.session(BAD), as_of, (*EDGES, ("portfolio", portfolios)))
        assert said.filter(pl.col("edge") != "portfolio").equals(reached(new, as_of=as_of))
        (row,) = edge(said, "portfolio").to_dicts()
        assert (row["item"], row["detail"], row["value_with"]) == ("desk", f"holds {SYMBOL}", probabilities(new)[new.session(LAST)])
        assert record(new.warehouse, said) == said.height
