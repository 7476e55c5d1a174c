"""The whole story: a vendor's files in, documents out, each value walked back to the line it comes from.

Three nights are run once, as a person runs them. The first knows neither a document store nor a webhook that answers;
the second has one session more and a webhook; the third has the same files, and a document store at last.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_assets.clock import trading_calendar
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.catalog import TECHNICAL_V1
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.feature_store.views import definition_hash
from quant_assets.publishing.documents import instant_text, signal_document_id
from quant_assets.signals.registry.local_copies import load_local_copy
from quant_assets_tests import command, market

COUNT = 330
SESSIONS = market.sessions(COUNT + 1)
TONIGHT, TOMORROW = SESSIONS[-2:]
UNREADABLE, BROKEN, BROKEN_TONIGHT = ("AAA", SESSIONS[100]), ("BBB", SESSIONS[150]), ("CCC", TONIGHT)
SECRET = "the receiver knows it"


@dataclass
class Receiver:
    """A webhook on loopback: what it got, and with which status it answers."""

    url: str = ""
    status: int = 500
    refused: list[str] = field(default_factory=list)
    accepted: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@dataclass
class Night:
    """What a night said, and a copy of the database it left."""

    said: str
    home: Path

    def read(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        return command.read(self.home, "files", sql, **parameters)


@dataclass
class Story:
    """Everything that was done, in the end."""

    home: Path
    files: Path
    nights: list[Night]
    lines: dict[str, int]
    alerts: list[tuple[dict[str, str], bytes]]
    refused: list[str]
    documents: dict[str, dict[str, Any]]
    trained_again: subprocess.CompletedProcess[str]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A webhook that is there for the length of a block."""
    got = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if got.status == 200:
                got.accepted.append((dict(self.headers), body))
            else:
                got.refused.append(self.headers["X-Quant-Alert-Id"])
            self.send_response(got.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    got.url = f"http://127.0.0.1:{server.server_port}/alerts"
    yield got
    server.shutdown()
    server.server_close()


def nobody_listens() -> str:
    """A MongoDB address where nothing answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"mongodb://127.0.0.1:{free.getsockname()[1]}"


def deliver(folder: Path, count: int) -> dict[str, int]:
    """Write the vendor's files up to a session, with the same three faults; returns the line of each."""
    market.write(folder, market.bars(count))
    faults = ((UNREADABLE, "Close", "n.a."), (BROKEN, "High", "1.0"), (BROKEN_TONIGHT, "Low", "999.0"))
    return {symbol: market.set_cell(folder / f"{symbol}.csv", session, column, text) for (symbol, session), column, text in faults}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    root = tmp_path_factory.mktemp("story")
    home, files = root / "home", root / "vendor"
    settings = {
        "QUANT_SOURCE": "files",
        "QUANT_FILES_PATH": str(files),
        "QUANT_TRAIN_MIN_SESSIONS": "120",
        "QUANT_PROMOTION_CONFIDENCE": "0",
    }
    nights: list[Night] = []

    def night(**more: str) -> None:
        finished = command.run(home, "run", **settings, **more)
        assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
        copy = root / f"after_{len(nights)}"
        copy.mkdir()
        shutil.copy(home / "quant.duckdb", copy)
        nights.append(Night(finished.stdout, copy))

    with receiver() as webhook:
        alarm = {"QUANT_WEBHOOK_URL": webhook.url, "QUANT_WEBHOOK_SECRET": SECRET}
        lines = deliver(files, COUNT)
        night(QUANT_MONGODB_URI=nobody_listens(), **alarm)
        deliver(files, COUNT + 1)
        webhook.status = 200
        night(QUANT_MONGODB_URI=nobody_listens(), **alarm)
        night(**alarm)
    trained_again = command.run(home, "model", "train", "--as-of", str(TONIGHT), **settings)
    return Story(home, files, nights, lines, webhook.accepted, webhook.refused, command.documents(home), trained_again)


def known_at(session: date) -> datetime:
    """When a session's bars are known: half an hour after the close."""
    return trading_calendar("XNYS", market.FIRST).close(session) + timedelta(minutes=30)


def bars_of_files(folder: Path, until: date) -> pl.DataFrame:
    """The sound bars as the standard library reads them, without the three faults."""
    rows = [
        {"symbol": file.stem, "session": session, "known_at": known_at(session), "basis": "restated"}
        | {name: float(row[name.title()]) for name in ("open", "high", "low", "close", "volume")}
        for file in sorted(folder.glob("*.csv"))
        for session, row in market.read(file).items()
        if session <= until and (file.stem, session) not in (UNREADABLE, BROKEN, BROKEN_TONIGHT)
    ]
    return pl.DataFrame(rows, schema_overrides={"known_at": pl.Datetime("us")})


class TestRegression:
    def test_each_value_of_a_document_is_the_rows(self, story: Story) -> None:
        rows = story.nights[0].read("select * from signals.daily_signals order by symbol")
        assert [row["symbol"] for row in rows] == ["AAA", "BBB", "DDD", "EEE", "TRUE"]  # CCC's bar is broken tonight
        for row in rows:
            document = story.documents[signal_document_id(row["symbol"], TONIGHT, 1)]
            assert {
                name: document[name] for name in ("symbol", "horizon", "probability", "confidence", "recommendation", "scorer", "mode")
            } == {name: row[name] for name in ("symbol", "horizon", "probability", "confidence", "recommendation", "scorer", "mode")}
            assert (row["scorer"], row["mode"]) == ("model", "live")
            assert document["session"] == TONIGHT.isoformat()
            assert document["contributions"] == json.loads(row["contributions"])
            assert document["known_at"] == instant_text(row["known_at"]) == instant_text(known_at(TONIGHT))
            assert document["trained_until"] == instant_text(row["trained_until"])
            assert document["lineage"] == {
                "dagster_run_id": row["run_id"],
                "model_version": row["model_version"],
                "feature_view": "technical_v1",
                "definition_hash": row["definition_hash"],
                "batch_ids": [row["batch_id"]],
            }
        assert {row["run_id"] for row in rows} <= set(command.dagster_runs(story.home)["run_id"])

    def test_a_probability_is_the_models_answer_to_its_feature_row(self, story: Story) -> None:
        night = story.nights[0]
        (promotion,) = night.read("select model_version, model_sha256 from signals.promotions")
        model, contract = load_local_copy(
            story.home / "models", promotion["model_version"], promotion["model_sha256"], "technical_v1", definition_hash("technical_v1")
        )
        features = command.warehouse(night.home, "files").read(
            "select * from feature_store.technical_v1 where session = $session order by symbol", {"session": TONIGHT}
        )
        assert contract.names == model.features
        answers = dict(zip(features["symbol"], model.predict(features), strict=True))
        stored = {row["symbol"]: row["probability"] for row in night.read("select symbol, probability from signals.daily_signals")}
        assert stored == pytest.approx(answers, abs=1e-12)
        reasons = {row["symbol"]: row["contributions"] for row in night.read("select symbol, contributions from signals.daily_signals")}
        for row in features.iter_rows(named=True):
            for reason in json.loads(reasons[row["symbol"]]):
                assert reason["value"] == pytest.approx(row[reason["feature"]], rel=1e-5)

    def test_a_feature_row_is_computed_from_the_bars_of_the_files(self, story: Story) -> None:
        bars = bars_of_files(story.files, TONIGHT)
        no_actions = pl.DataFrame(
            schema={"symbol": pl.String, "session": pl.Date, "kind": pl.String, "value": pl.Float64, "known_at": pl.Datetime("us")}
        )
        names = [feature.name for feature in TECHNICAL_V1]
        wanted = technical_v1(forward_adjusted(bars, no_actions)).sort("symbol", "session")
        stored = command.warehouse(story.nights[0].home, "files").read("select * from feature_store.technical_v1 order by symbol, session")
        assert stored.select("symbol", "session", *names).equals(wanted.select("symbol", "session", *names))
        closes = bars.filter(pl.col("symbol") == "DDD").sort("session")["close"].to_list()
        by_hand = stored.filter((pl.col("symbol") == "DDD") & (pl.col("session") == TONIGHT)).row(0, named=True)
        assert by_hand["price_change_1d"] == pytest.approx(closes[-1] / closes[-2] - 1)
        assert by_hand["sma_20"] == pytest.approx(sum(closes[-20:]) / 20)

    def test_a_bar_is_the_line_of_its_file(self, story: Story) -> None:
        stored = story.nights[0].read(
            "select symbol, session, open, high, low, close, volume, adj_close, basis from market_data.daily_bars"
        )
        assert len(stored) == len(market.SYMBOLS) * COUNT - 1  # the unreadable row is no bar
        lines = {symbol: market.read(story.files / f"{symbol}.csv") for symbol in market.SYMBOLS}
        for bar in stored:
            line = lines[bar["symbol"]][bar["session"]]
            assert [bar[name.lower().replace(" ", "_")] for name in market.HEADER[1:]] == [float(line[name]) for name in market.HEADER[1:]]
            assert bar["basis"] == "restated"

    def test_a_bad_row_is_told_by_file_and_line_and_the_rest_lands(self, story: Story) -> None:
        (rejected,) = story.nights[0].read("select * from market_data.rejected_rows")
        assert (rejected["file"], rejected["line"], rejected["column_name"], rejected["value"]) == ("AAA.csv", 102, "Close", "n.a.")
        assert story.lines["AAA"] == 102
        assert {row["symbol"] for row in story.nights[0].read("select distinct symbol from data_quality.clean_bars")} == set(market.SYMBOLS)

    def test_a_broken_bar_is_a_finding_and_goes_no_further(self, story: Story) -> None:
        night = story.nights[0]
        findings = night.read(
            "select symbol, session, rule, severity from data_quality.anomalies where severity = 'critical' order by symbol"
        )
        assert findings == [
            {"symbol": symbol, "session": session, "rule": rule, "severity": "critical"}
            for (symbol, session), rule in ((UNREADABLE, "missing_session"), (BROKEN, "ohlc_order"), (BROKEN_TONIGHT, "ohlc_order"))
        ]
        for table in ("data_quality.clean_bars", "feature_store.technical_v1"):
            kept = {(row["symbol"], row["session"]) for row in night.read(f"select symbol, session from {table}")}
            assert not kept & {BROKEN, BROKEN_TONIGHT, UNREADABLE}
            assert len(kept) == len(market.SYMBOLS) * COUNT - 3


class TestProperties:
    def test_one_session_more_brings_one_session_more(self, story: Story) -> None:
        before, after = (night.home for night in story.nights[:2])
        for table in ("market_data.daily_bars", "feature_store.technical_v1", "signals.daily_signals"):
            old, new = (command.read(home, "files", f"select symbol, session from {table}") for home in (before, after))
            added = [row for row in new if row not in old]
            assert all(row in new for row in old)
            assert sorted(row["symbol"] for row in added) == sorted(market.SYMBOLS)
            assert {row["session"] for row in added} == {TOMORROW}

    def test_the_next_night_is_live_and_scored_by_the_model_that_was_there(self, story: Story) -> None:
        rows = story.nights[1].read("select * from signals.daily_signals where session = $session", session=TOMORROW)
        assert {(row["mode"], row["scorer"], row["model_version"]) for row in rows} == {("live", "model", "1")}
        close = known_at(TOMORROW) - timedelta(minutes=30)
        assert all(row["trained_until"] < close for row in rows)
        assert len(story.nights[1].read("select model_version from signals.promotions")) == 1

    def test_the_same_files_again_change_nothing_and_the_command_says_so(self, story: Story) -> None:
        assert command.contents(story.nights[1].home, "files") == command.contents(story.nights[2].home, "files")
        assert "Nothing had changed since the last run" in story.nights[2].said
        assert all("Nothing had changed" not in night.said for night in story.nights[:2])

    def test_training_again_on_what_was_known_that_evening_returns_the_registered_version(self, story: Story) -> None:
        assert story.trained_again.returncode == 0, story.trained_again.stdout + story.trained_again.stderr
        assert "registered_before: True" in story.trained_again.stdout
        assert "model_version: 1" in story.trained_again.stdout
        assert command.contents(story.home, "files") == command.contents(story.nights[2].home, "files")
        assert command.model_runs(story.home)[1].rows() == [(1, "champion")]

    def test_without_a_document_store_the_documents_wait_and_come_in_order(self, story: Story) -> None:
        for night, waiting in zip(story.nights[:2], (1, 2), strict=True):
            assert f"publish_documents: Waiting: {waiting} outbox files" in night.said
            assert "mongodb/signals" not in night.said
        delivered = [line for line in story.nights[2].said.splitlines() if line.startswith("mongodb/signals")]
        assert [TONIGHT.isoformat() in line for line in delivered] == [True, False, False]
        assert ["inserted 5" in delivered[0], "inserted 6" in delivered[1], "unchanged 6" in delivered[2]] == [True] * 3
        wanted = [signal_document_id(symbol, TONIGHT, 1) for symbol in market.SYMBOLS if symbol != "CCC"]
        wanted += [signal_document_id(symbol, TOMORROW, 1) for symbol in market.SYMBOLS]
        assert sorted(name for name in story.documents if name.startswith("signals/")) == sorted(wanted)

    def test_an_alert_that_was_refused_comes_later_and_is_signed(self, story: Story) -> None:
        assert "send_alerts: Waiting" in story.nights[0].said
        alerts = [json.loads(body) for _, body in story.alerts]
        assert set(story.refused) <= {alert["alert_id"] for alert in alerts}
        assert story.refused
        assert len({alert["alert_id"] for alert in alerts}) == len(alerts)
        (broken,) = (alert for alert in alerts if alert["check"] == "ohlc_order")
        first_run = story.nights[0].read("select any_value(run_id) as run_id from signals.daily_signals")[0]["run_id"]
        assert (broken["run_id"], broken["asset"], broken["session"]) == (first_run, "market_data/daily_bars", TONIGHT.isoformat())
        assert broken["numbers"] == {"critical_tonight": 1, "warning_tonight": 0, "info_tonight": 0, "critical_open": 2}
        for headers, body in story.alerts:
            signed = hmac.new(SECRET.encode(), headers["X-Quant-Timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
            assert headers["X-Quant-Signature"] == f"sha256={signed}"
            assert headers["X-Quant-Alert-Id"] == json.loads(body)["alert_id"]
