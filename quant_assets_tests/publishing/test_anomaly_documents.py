"""Documents of findings: what a dashboard reads, which night's file carries what, and the same file for the same night."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import dagster as dg
import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

from quant_assets.clock import TradingCalendar
from quant_assets.publishing import embedded_store, outbox
from quant_assets.publishing.anomaly_documents import anomaly_document_id, anomaly_documents
from quant_assets.publishing.document_store import DocumentStore
from quant_assets.publishing.documents import Document, instant_text
from quant_assets.schemas import OUTBOX
from quant_assets.warehouse import Warehouse, append_ledger
from quant_assets_tests.conftest import SOURCE, bar
from quant_assets_tests.data_quality.test_summary import DAYS, RECORDED, Book, seven_evenings

SUGGESTION = {"column": "close", "value": 100.0, "evidence": "the next open"}


class Nights(Book):
    """The book, and the nights that publish it."""

    def publish(self, *sessions: date, **later: float) -> dict[date, dict[str, Document]]:
        """What a run of these sessions hands over, by session and id; it goes into the ledger of files."""
        with self.warehouse.transaction() as connection:
            written = anomaly_documents(connection, SOURCE, self.calendar, sessions, self.known(sessions[-1], **later))
            entries = [
                {"session": session, "sha256": "0", "documents": 0, "collections": "{}", "run_id": "r", "recorded_at": RECORDED}
                for session in sessions
            ]
            append_ledger(connection, OUTBOX, pl.DataFrame(entries, schema=OUTBOX.polars_schema))
        return {session: {document["document_id"]: document for document in documents} for session, documents in written.items()}


@pytest.fixture(scope="module")
def evenings(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, calendar: TradingCalendar) -> Path:
    return seven_evenings(tmp_path_factory.mktemp("evenings"), empty_database, calendar)


@pytest.fixture
def nights(tmp_path: Path, evenings: Path, calendar: TradingCalendar) -> Iterator[Nights]:
    path = Path(shutil.copy(evenings, tmp_path))
    with duckdb.connect(path):
        yield Nights(Warehouse(path, SOURCE), calendar)


def name(nights: Nights, symbol: str, session: date) -> str:
    return anomaly_document_id(SOURCE, symbol, session, "jump", "rules", nights.known(session))


def findings(documents: dict[str, Document]) -> dict[tuple[str, str], str]:
    """The status of each finding among documents, by symbol and session."""
    return {(d["symbol"], d["session"]): d["status"] for d in documents.values() if d["kind"] == "finding"}


class TestRegression:
    def test_the_document_of_one_finding(self, nights: Nights) -> None:
        nights.found("AAA", DAYS[1], suggestion=json.dumps(SUGGESTION))
        at = instant_text(nights.known(DAYS[1]))
        wanted = {
            "document_id": "anomalies/files/AAA/2020-03-03/jump/rules/2020-03-03T21%3A30%3A00.000000Z",
            "kind": "finding",
            "source": SOURCE,
            "symbol": "AAA",
            "session": "2020-03-03",
            "rule": "jump",
            "detector": "rules",
            "bar_known_at": at,
            "score": 1.0,
            "severity": "critical",
            "detail": "8 sigmas",
            "suggestion": SUGGESTION,
            "status": "open",
            "decision": None,
            "superseded_at": None,
            "known_at": at,
            "as_of": at,
            "schema_version": 1,
            "lineage": {"dagster_run_id": f"r{DAYS[1]}", "batch_ids": [f"b{DAYS[1]}"]},
        }
        assert nights.publish(DAYS[1])[DAYS[1]][wanted["document_id"]] == wanted
        decided = nights.known(DAYS[1], hours=2)
        nights.decided("AAA", DAYS[1], "release", decided)
        (released,) = [document for document in nights.publish(DAYS[2])[DAYS[2]].values() if document["kind"] == "finding"]
        decision = {"decision": "release", "decided_at": instant_text(decided), "decided_by": "kim", "reason": "looked"}
        assert released == wanted | {"status": "released", "decision": decision, "as_of": instant_text(decided)}

    def test_the_summary_of_one_session(self, nights: Nights) -> None:
        nights.found("AAA", DAYS[1], suggestion=json.dumps(SUGGESTION))
        nights.found("BBB", DAYS[1], "warning")
        nights.found("BBB", DAYS[1], "info", rule="volume")
        summary = nights.publish(DAYS[1])[DAYS[1]]["anomalies/summary/2020-03-03"]
        assert {field: summary[field] for field in ("kind", "source", "session", "bars", "held_back", "as_of")} == {
            "kind": "summary", "source": SOURCE, "session": "2020-03-03", "bars": 2, "held_back": 1, "as_of": instant_text(nights.known(DAYS[1])),
        }  # fmt: skip
        assert summary["found"] == [
            {"rule": "jump", "severity": "critical", "findings": 1},
            {"rule": "jump", "severity": "warning", "findings": 1},
            {"rule": "volume", "severity": "info", "findings": 1},
        ]
        assert summary["over_time"] == [
            {"session": "2020-03-02", "critical": 0, "warning": 0, "info": 0},
            {"session": "2020-03-03", "critical": 1, "warning": 1, "info": 1},
        ]
        assert [(rule["rule"], rule["critical"], rule["warning"], rule["info"]) for rule in summary["rules"]] == [
            ("jump", 1, 1, 0),
            ("volume", 0, 0, 1),
        ]
        assert [delivered["critical"] for delivered in summary["deliveries"]] == [1, 0]
        assert summary["steering"]["open_critical"] == 1
        assert [(worst["symbol"], worst["suggestion"]) for worst in summary["worst"]] == [("AAA", SUGGESTION), ("BBB", None)]
        assert summary["worst"][0]["document_id"] == name(nights, "AAA", DAYS[1])
        assert summary["worst"][0]["closes"] == [{"session": "2020-03-02", "close": 100.0}, {"session": "2020-03-03", "close": 101.0}]
        assert summary["lineage"] == {"dagster_run_id": f"r{DAYS[1]}", "batch_ids": [f"b{DAYS[1]}"]}

    def test_a_night_carries_what_was_decided_corrected_or_found_since_the_night_before(self, nights: Nights) -> None:
        for symbol, session in (("AAA", DAYS[0]), ("BBB", DAYS[0])):
            nights.found(symbol, session)
        nights.found("AAA", DAYS[1], "warning")
        assert findings(nights.publish(DAYS[0])[DAYS[0]]) == {("AAA", "2020-03-02"): "open", ("BBB", "2020-03-02"): "open"}
        assert findings(nights.publish(DAYS[1])[DAYS[1]]) == {
            ("AAA", "2020-03-02"): "open", ("BBB", "2020-03-02"): "open", ("AAA", "2020-03-03"): "open",
        }  # fmt: skip
        nights.decided("AAA", DAYS[0], "release", nights.known(DAYS[1], hours=3))
        nights.decided("BBB", DAYS[0], "confirm", nights.known(DAYS[1], hours=4))
        nights.found("BBB", DAYS[1], "warning", known_at=nights.known(DAYS[2]))  # by a detector that saw the next session
        assert findings(nights.publish(DAYS[2])[DAYS[2]]) == {
            ("AAA", "2020-03-02"): "released", ("BBB", "2020-03-02"): "confirmed", ("BBB", "2020-03-03"): "open",
            ("AAA", "2020-03-03"): "open",  # found in the instant at which the night before ended: once more does no harm
        }  # fmt: skip
        assert findings(nights.publish(DAYS[3])[DAYS[3]]) == {("BBB", "2020-03-03"): "open"}
        assert findings(nights.publish(DAYS[4])[DAYS[4]]) == {}

    def test_nights_that_did_not_publish_are_made_up_for(self, nights: Nights) -> None:
        nights.found("AAA", DAYS[0], "warning")
        nights.publish(DAYS[0])
        nights.decided("AAA", DAYS[0], "release", nights.known(DAYS[0], hours=3))
        assert findings(nights.publish(DAYS[5])[DAYS[5]]) == {("AAA", "2020-03-02"): "released"}

    def test_an_old_night_run_again_brings_its_own_findings_up_to_date_and_no_later_nights(self, nights: Nights) -> None:
        for day in DAYS[:4]:
            nights.found("AAA", day)
        nights.publish(DAYS[0])
        nights.decided("AAA", DAYS[1], "release", nights.known(DAYS[4]))
        days = (DAYS[6] - DAYS[1]).days
        assert findings(nights.publish(DAYS[1], days=days)[DAYS[1]]) == {
            ("AAA", "2020-03-02"): "open", ("AAA", "2020-03-03"): "released",
        }  # fmt: skip

    def test_a_range_gives_each_session_its_own_and_the_last_what_lies_outside(self, nights: Nights) -> None:
        nights.found("AAA", DAYS[0])
        for day in DAYS[1:4]:
            nights.found("BBB", day, "warning")
        written = nights.publish(*DAYS[1:4])
        assert [findings(written[day]) for day in DAYS[1:4]] == [
            {("BBB", "2020-03-03"): "open"},
            {("BBB", "2020-03-04"): "open"},
            {("BBB", "2020-03-05"): "open", ("AAA", "2020-03-02"): "open"},
        ]
        assert [f"anomalies/summary/{day}" in written[day] for day in DAYS[1:4]] == [True] * 3

    def test_the_first_session_of_the_calendar_has_none_before_it(self, open_warehouse: Warehouse, calendar: TradingCalendar) -> None:
        first = calendar.sessions[0]
        nights = Nights(open_warehouse, calendar)
        nights.evening(first, bar("AAA", first))
        nights.found("AAA", first)
        assert findings(nights.publish(first)[first]) == {("AAA", str(first)): "open"}

    def test_a_session_without_bars_has_a_summary_that_says_so(self, open_warehouse: Warehouse, calendar: TradingCalendar) -> None:
        (document,) = Nights(open_warehouse, calendar).publish(DAYS[0])[DAYS[0]].values()
        assert (document["bars"], document["found"], document["worst"], document["deliveries"]) == (0, [], [], [])
        assert document["lineage"] == {"dagster_run_id": None, "batch_ids": []}

    def test_the_collection_is_described_as_its_documents_are(self, nights: Nights) -> None:
        from quant_assets.publishing.assets import ANOMALIES_COLLECTION

        nights.found("AAA", DAYS[1])
        written = nights.publish(DAYS[1])[DAYS[1]].values()
        schema = ANOMALIES_COLLECTION.metadata["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema)
        assert [column.name for column in schema.columns] == list(dict.fromkeys(field for document in written for field in document))
        assert all(column.description for column in schema.columns)

    def test_a_night_hands_both_collections_over_and_the_sensor_delivers_them(self, tmp_path: Path) -> None:
        from quant_assets_tests import nights as whole_nights
        from quant_assets_tests.publishing.test_sensors import deliver

        day = whole_nights.EVENING
        with (
            embedded_store.running(tmp_path) as uri,
            whole_nights.desk(tmp_path / "home", QUANT_SOURCE=SOURCE, QUANT_FILES_PATH=str(tmp_path), QUANT_MONGODB_URI=uri) as desk,
        ):
            book = Book(desk.warehouse, whole_nights.CALENDAR)
            book.evening(day, bar("AAA", day))
            book.found("AAA", day)
            result = desk.run(assets=["publishing/outbox"])
            assert result.success
            assert desk.read("select collections from publishing.outbox").item() == '{"anomalies": 2, "signals": 0}'
            outcome = deliver(desk)
            assert isinstance(outcome, dg.SensorResult)
            assert [event.asset_key.to_user_string() for event in outcome.asset_events] == ["mongodb/anomalies"]
            with MongoClient[dict[str, Any]](uri) as plain:
                (stored,) = plain["quant_assets"]["anomalies"].find({"status": "open"})
            assert (stored["symbol"], stored["session"], stored["severity"]) == ("AAA", str(day), "critical")


class TestProperties:
    def test_the_same_night_again_gives_the_same_file(self, nights: Nights, tmp_path: Path) -> None:
        nights.found("AAA", DAYS[0])
        nights.found("BBB", DAYS[1], "warning")
        nights.publish(DAYS[0])
        files = []
        for hours in (0, 0, 5):  # a live vendor's night is later each time it is run
            documents = nights.publish(DAYS[1], hours=hours)[DAYS[1]]
            files.append(outbox.write(tmp_path, DAYS[1], {"anomalies": list(documents.values())}).path)
            nights.publish(DAYS[2])
        assert len(set(files)) == 1
        nights.decided("AAA", DAYS[0], "release", nights.known(DAYS[1], hours=6))
        documents = nights.publish(DAYS[1], hours=7)[DAYS[1]]
        assert outbox.write(tmp_path, DAYS[1], {"anomalies": list(documents.values())}).path not in files

    def test_in_whatever_order_files_come_the_store_holds_what_was_decided_last(self, nights: Nights, tmp_path: Path) -> None:
        nights.found("AAA", DAYS[0])
        before = nights.publish(DAYS[0])[DAYS[0]]
        nights.decided("AAA", DAYS[0], "release", nights.known(DAYS[0], hours=1))
        between = nights.publish(DAYS[1])[DAYS[1]]
        nights.decided("AAA", DAYS[0], "confirm", nights.known(DAYS[1], hours=1))
        after = nights.publish(DAYS[1], hours=2)[DAYS[1]]
        with embedded_store.running(tmp_path) as uri, DocumentStore(uri) as store, MongoClient[dict[str, Any]](uri) as plain:
            collection = plain["quant_assets"]["anomalies"]
            for order in ((before, between, after), (after, between, before), (between, after, before)):
                collection.drop()
                for documents in order:
                    store.publish({"anomalies": list(documents.values())})
                stored = {found["document_id"]: found for found in collection.find({}, {"_id": 0})}
                assert stored == before | after
                assert stored[name(nights, "AAA", DAYS[0])]["status"] == "confirmed"

    def test_no_finding_of_severity_info_is_published(self, nights: Nights) -> None:
        for day in DAYS:
            nights.found("AAA", day, "info")
        assert [findings(documents) for documents in nights.publish(*DAYS).values()] == [{}] * len(DAYS)

    @given(*[st.text(st.characters(exclude_categories=("Cs",)), min_size=1)] * 3)
    @settings(deadline=None)
    def test_a_key_can_be_read_back(self, symbol: str, rule: str, detector: str) -> None:
        parts = anomaly_document_id(SOURCE, symbol, DAYS[0], rule, detector, RECORDED).split("/")
        assert [unquote(part) for part in parts] == ["anomalies", SOURCE, symbol, "2020-03-02", rule, detector, instant_text(RECORDED)]
