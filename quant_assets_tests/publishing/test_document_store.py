"""Publishing over a real connection, read back by a plain client; the embedded store stands for MongoDB."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError

from quant_assets.errors import ConfigurationError, QuantAssetsError
from quant_assets.publishing.document_store import DocumentStore, DocumentStoreError, Published, StoreUnavailable
from quant_assets.publishing.documents import Document, instant_text, signal_document_id
from quant_assets.publishing.embedded_store import running

SYMBOLS = [
    "AAPL",
    "it's",
    'q"q',
    "A/B",
    "A%2FB",
    "$set",
    "$$ROOT",
    "x.y",
    "é",
    "삼성😀",
    "a'; drop table signals;--",
    "a\nb",
    "a\0b",
    "NA",
    "1",
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("home")) as address:
        yield address


@pytest.fixture(scope="module")
def plain(uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    with MongoClient(uri) as client:
        yield client


@pytest.fixture
def database() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def store(uri: str, database: str) -> Iterator[DocumentStore]:
    with DocumentStore(uri, database) as client:
        yield client


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def document(symbol: str, day: int = 7, probability: float = 0.5, **more: Any) -> Document:
    as_of = instant_text(datetime(2018, 2, day, 21, 30))
    values = {"symbol": symbol, "session": "2018-02-07", "probability": probability, "trained_until": None, "flag": True}
    lineage = {"batch_ids": ["b"], "model_version": None}
    return {
        "document_id": signal_document_id(symbol, date(2018, 2, 7), 1), **values, "as_of": as_of, "schema_version": 1, "lineage": lineage, **more
    }  # fmt: skip


def stored(plain: MongoClient[dict[str, Any]], database: str, collection: str = "signals") -> dict[str, Document]:
    found = list(plain[database][collection].find({}, {"_id": 0}))
    assert len({entry["document_id"] for entry in found}) == len(found)
    return {entry["document_id"]: entry for entry in found}


class TestRegression:
    def test_any_symbol_comes_back_as_it_was(self, store: DocumentStore, plain: MongoClient[dict[str, Any]], database: str) -> None:
        documents = [document(symbol) for symbol in SYMBOLS]
        assert store.publish({"signals": documents}) == {"signals": Published(len(SYMBOLS), 0, 0, 0)}
        assert stored(plain, database) == {entry["document_id"]: entry for entry in documents}
        for entry in documents:
            assert [found["symbol"] for found in plain[database]["signals"].find({"document_id": entry["document_id"]})] == [
                entry["symbol"]
            ]

    def test_twice_changes_nothing(self, store: DocumentStore, plain: MongoClient[dict[str, Any]], database: str) -> None:
        documents = [document(symbol) for symbol in SYMBOLS]
        store.publish({"signals": documents})
        before = list(plain[database]["signals"].find())
        assert store.publish({"signals": documents}) == {"signals": Published(0, 0, len(SYMBOLS), 0)}
        assert list(plain[database]["signals"].find()) == before
        assert "_id" not in documents[0]

    def test_newer_replaces_and_older_does_not(self, store: DocumentStore, plain: MongoClient[dict[str, Any]], database: str) -> None:
        store.publish({"signals": [document("A", 7, 0.5, dropped="field"), document("B", 7, 0.5)]})
        (identity,) = [found["_id"] for found in plain[database]["signals"].find({"symbol": "A"})]
        newer = [document("A", 8, 0.75), document("B", 6, 0.25), document("C", 6, 0.25)]
        assert store.publish({"signals": newer}) == {"signals": Published(inserted=1, replaced=1, unchanged=0, outdated=1)}
        assert stored(plain, database) == {entry["document_id"]: entry for entry in (newer[0], document("B"), newer[2])}
        assert plain[database]["signals"].find_one({"symbol": "A"}, {"_id": 1}) == {"_id": identity}

    def test_a_microsecond_newer_is_newer(self, store: DocumentStore, plain: MongoClient[dict[str, Any]], database: str) -> None:
        early, late = (document("A", probability=p, as_of=f"2018-02-07T21:30:00.00000{p:.0f}Z") for p in (0, 1))
        assert [store.publish({"signals": [entry]})["signals"] for entry in (early, late, early)] == [
            Published(1, 0, 0, 0),
            Published(0, 1, 0, 0),
            Published(0, 0, 0, 1),
        ]
        assert list(stored(plain, database).values()) == [late]

    def test_newer_form_of_the_same_version_wins(self, store: DocumentStore, plain: MongoClient[dict[str, Any]], database: str) -> None:
        old, new = document("A"), document("A", schema_version=2)
        assert [store.publish({"signals": [entry]})["signals"] for entry in (old, new, old)] == [
            Published(1, 0, 0, 0),
            Published(0, 1, 0, 0),
            Published(0, 0, 0, 1),
        ]
        assert list(stored(plain, database).values()) == [new]

    def test_more_than_one_chunk_in_several_collections(
        self, store: DocumentStore, plain: MongoClient[dict[str, Any]], database: str
    ) -> None:
        many = [document(f"S{number}") for number in range(1100)]
        assert store.publish({"signals": many, "models": many[:1], "runs": []}) == {
            "signals": Published(1100, 0, 0, 0),
            "models": Published(1, 0, 0, 0),
            "runs": Published(0, 0, 0, 0),
        }
        assert len(stored(plain, database)) == 1100
        assert len(stored(plain, database, "models")) == 1

    def test_key_is_unique_in_the_store_itself(self, store: DocumentStore, plain: MongoClient[dict[str, Any]], database: str) -> None:
        store.publish({"models": [document("A")], "signals": [document("A")]})
        store.ensure_indexes()
        for collection in ("models", "signals"):
            with pytest.raises(DuplicateKeyError):
                plain[database][collection].insert_one(document("A"))
        for collection, wanted in (
            ("signals", ["session", "probability"]),
            ("anomalies", ["session", "score"]),
            ("anomalies", ["status", "score"]),
        ):
            keys = [[name for name, _ in index["key"]] for index in plain[database][collection].index_information().values()]
            assert wanted in keys

    def test_readers_query(self, store: DocumentStore, plain: MongoClient[dict[str, Any]], database: str) -> None:
        store.publish({"signals": [document("A", 7, 0.5), document("B", 8, 0.75), document("C", 9, 0.25)]})
        best = plain[database]["signals"].find({"as_of": {"$lt": "2018-02-09"}}).sort([("session", -1), ("probability", -1)])
        assert [found["symbol"] for found in best] == ["B", "A"]

    def test_nobody_listens(self, unused_port: int) -> None:
        with DocumentStore(f"mongodb://desk:p%40ss-word@127.0.0.1:{unused_port}/?appname=x", "quant", timeout_seconds=0.3) as store:
            assert store.describe() == f"mongodb://127.0.0.1:{unused_port}/quant"
            with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{unused_port}") as caught:
                store.publish({"signals": [document("A")]})
        assert isinstance(caught.value, QuantAssetsError)
        assert not [secret for secret in ("desk", "p%40ss-word", "p@ss-word") if secret in str(caught.value)]

    def test_listens_and_never_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"mongodb://127.0.0.1:{silent.getsockname()[1]}"
            with DocumentStore(address, "quant", timeout_seconds=0.3) as store, pytest.raises(StoreUnavailable, match=r"0\.3 s"):
                store.ping()

    def test_reason_is_told_without_credentials(self, unused_port: int) -> None:
        # The driver's own text says "Connection refused": here that word is the user's name.
        address = f"mongodb://refused:hunter-two@127.0.0.1:{unused_port}"
        with DocumentStore(address, "quant", timeout_seconds=0.3) as store, pytest.raises(StoreUnavailable, match=r"\*\*\*") as caught:
            store.ping()
        assert "refused" not in str(caught.value)
        assert caught.value.__suppress_context__

    def test_database_name_that_the_store_refuses(self, uri: str) -> None:
        with DocumentStore(uri, "삼성") as store, pytest.raises(DocumentStoreError, match="refused"):
            store.publish({"signals": [document("A")]})

    @pytest.mark.parametrize(
        "bad",
        ["", "http://desk:hunter-two@host", "mongodb://desk:hunter/two@host/db", "mongodb://desk:hunter@two@host", "mongodb://h:99999"],
    )
    def test_address_that_cannot_be_one(self, bad: str) -> None:
        with pytest.raises(ConfigurationError, match="QUANT_MONGODB_URI") as caught:
            DocumentStore(bad, "quant")
        assert "hunter" not in str(caught.value)


class TestProperties:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(1, 4), st.sampled_from([0.25, 0.5])), max_size=4), max_size=5))
    def test_the_newest_stands_whatever_the_order(
        self, uri: str, plain: MongoClient[dict[str, Any]], nights: list[list[tuple[str, int, float]]]
    ) -> None:
        collection = f"c{uuid.uuid4().hex}"
        expected: dict[str, Document] = {}
        with DocumentStore(uri, "properties") as store:
            for night in nights:
                entries = [document(*row) for row in night]
                for entry in entries:
                    kept = expected.get(entry["document_id"])
                    if kept is None or entry["as_of"] >= kept["as_of"]:
                        expected[entry["document_id"]] = entry
                store.publish({collection: entries})
        assert stored(plain, "properties", collection) == expected

    def test_publishers_at_once_end_with_the_newest(self, uri: str, plain: MongoClient[dict[str, Any]], database: str) -> None:
        faults: list[Exception] = []

        def publish(day: int) -> None:
            try:
                with DocumentStore(uri, database) as store:
                    for symbol in SYMBOLS:
                        store.publish({"signals": [document(symbol, day), document("shared", day)]})
            except QuantAssetsError as error:
                faults.append(error)

        threads = [threading.Thread(target=publish, args=(day,)) for day in (7, 9, 8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert stored(plain, database) == {entry["document_id"]: entry for entry in (document(name, 9) for name in [*SYMBOLS, "shared"])}
