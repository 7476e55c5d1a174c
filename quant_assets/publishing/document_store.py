"""The door to MongoDB: publish documents so that repeats, restarts and wrong orders do no harm.

Only what a real MongoDB and the embedded store both carry out exactly is used: inserts and whole replacements.
(A `$set` changes dates and booleans in the embedded store, and anywhere leaves fields behind that a newer document dropped.)

QuantAssetsError
└── DocumentStoreError    the store refused
    └── StoreUnavailable  the store does not answer: what waits in the outbox is delivered later
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import unquote_plus

from bson.errors import BSONError
from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, MongoClient, ReplaceOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, ConnectionFailure, ExecutionTimeout, PyMongoError
from pymongo.errors import ConfigurationError as AddressNotResolved

from quant_assets.errors import ConfigurationError, QuantAssetsError
from quant_assets.publishing.documents import Document

UNIQUE_KEY = IndexModel([("document_id", ASCENDING)], unique=True)
READING_INDEXES: dict[str, list[IndexModel]] = {
    "signals": [IndexModel([("session", DESCENDING), ("probability", DESCENDING)])],
    "anomalies": [
        IndexModel([("session", DESCENDING), ("score", DESCENDING)]),
        IndexModel([("status", ASCENDING), ("score", DESCENDING)]),
    ],
}
CHUNK = 500
ATTEMPTS = 5
DUPLICATE_KEY = 11000


class DocumentStoreError(QuantAssetsError):
    """The document store refused; the text never holds the address's user or password."""


class StoreUnavailable(DocumentStoreError):
    """The document store does not answer within the time-out."""


@dataclass(frozen=True)
class Published:
    """What became of one collection's documents; `outdated` ones were left out, since the store holds a newer version."""

    inserted: int
    replaced: int
    unchanged: int
    outdated: int


class DocumentStore:
    """A client of one MongoDB database; use it as a context manager, or `close` it.

    Nothing connects before the first call. Raises `ConfigurationError` for an address that cannot be one.
    """

    def __init__(self, uri: str, database: str = "quant_assets", timeout_seconds: float = 3.0) -> None:
        self._timeout_seconds = timeout_seconds
        try:
            self._client: MongoClient[Document] = MongoClient(
                uri,
                connect=False,
                serverSelectionTimeoutMS=int(timeout_seconds * 1000),
                connectTimeoutMS=int(timeout_seconds * 1000),
                socketTimeoutMS=int(timeout_seconds * 10_000),  # one chunk of writes on a slow disk
            )
            self._database = self._client[database]
        except (PyMongoError, ValueError):  # their texts may quote parts of a password
            raise ConfigurationError(
                "QUANT_MONGODB_URI or QUANT_MONGODB_DATABASE cannot be used: write mongodb://user:password@host:27017, "
                "with /, :, @ and % in user and password percent-encoded."
            ) from None
        scheme, _, rest = uri.partition("://")
        credentials, _, hosts = rest.partition("/")[0].rpartition("@")
        self._secrets = [secret for part in credentials.split(":") for secret in (part, unquote_plus(part)) if secret]
        self._address = f"{scheme}://{hosts}/{database}"

    def __enter__(self) -> DocumentStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def describe(self) -> str:
        """The address as a person may see it: scheme, hosts and database, without user, password and options."""
        return self._address

    def ping(self) -> None:
        """Ask the store for a sign of life; raises `StoreUnavailable`, or `DocumentStoreError` when it refuses."""
        with self._our_errors():
            self._client.admin.command("ping")

    def ensure_indexes(self, collections: Iterable[str] = tuple(READING_INDEXES)) -> None:
        """Create what is missing: `document_id` unique in each collection, and the indexes its readers need."""
        with self._our_errors():
            for name in collections:
                self._database[name].create_indexes([UNIQUE_KEY, *READING_INDEXES.get(name, [])])

    def publish(self, collections: Mapping[str, Sequence[Document]]) -> dict[str, Published]:
        """Write documents by `document_id`, each collection in the order given; returns what became of each collection's.

        A stored document gives way only to one that differs from it and whose `(as_of, schema_version)` is not older.
        So the same documents twice, an older night after a newer one, a run killed halfway and two publishers at once
        all end in the same documents. Raises `StoreUnavailable` or `DocumentStoreError`; what was written by then stays.
        """
        self.ensure_indexes(collections)
        return {name: self._publish(self._database[name], documents) for name, documents in collections.items()}

    def _publish(self, collection: Collection[Document], documents: Sequence[Document]) -> Published:
        newest: dict[str, Document] = {}
        for document in documents:
            kept = newest.get(document["document_id"])
            if kept is None or _age(document) >= _age(kept):
                newest[document["document_id"]] = document
        waiting = list(newest.values())
        inserted = replaced = outdated = 0
        with self._our_errors():
            for start in range(0, len(waiting), CHUNK):
                counts = self._write(collection, waiting[start : start + CHUNK])
                inserted, replaced, outdated = inserted + counts[0], replaced + counts[1], outdated + counts[2]
        return Published(inserted, replaced, len(waiting) - inserted - replaced - outdated, outdated)

    def _write(self, collection: Collection[Document], documents: list[Document]) -> tuple[int, int, int]:
        """Compare and swap: whoever else wrote in between makes us look again."""
        inserted = replaced = 0
        for _ in range(ATTEMPTS):
            ids = [document["document_id"] for document in documents]
            stored = {found["document_id"]: found for found in collection.find({"document_id": {"$in": ids}})}
            inserts: list[InsertOne[Document]] = []
            swaps: list[ReplaceOne[Document]] = []
            outdated = 0
            for document in documents:
                old = stored.get(document["document_id"])
                if old is None:
                    inserts.append(InsertOne(dict(document)))  # a copy, since the driver adds `_id` to it
                elif _age(document) < _age(old):
                    outdated += 1
                elif old != {**document, "_id": old["_id"]}:
                    seen = {name: old[name] for name in ("_id", "as_of", "schema_version")}
                    swaps.append(ReplaceOne(seen, document))  # by `_id`, since by another key the embedded store reads everything
            if not inserts and not swaps:
                return inserted, replaced, outdated
            try:
                result: Mapping[str, Any] = collection.bulk_write([*inserts, *swaps]).bulk_api_result
            except BulkWriteError as error:
                if any(fault["code"] != DUPLICATE_KEY for fault in error.details["writeErrors"]):
                    raise
                result = error.details
            inserted, replaced = inserted + result["nInserted"], replaced + result["nMatched"]
            if result["nInserted"] == len(inserts) and result["nMatched"] == len(swaps):
                return inserted, replaced, outdated
        raise DocumentStoreError(
            f"{self._address}: others kept changing the same documents of {collection.name} during {ATTEMPTS} attempts. "
            "Let one publisher write at a time, then publish again."
        )

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionFailure, ExecutionTimeout, AddressNotResolved) as error:
            raise StoreUnavailable(
                f"The document store {self._address} does not answer within {self._timeout_seconds:g} s: {self._reason(error)}. "
                "What waits in the outbox is delivered when it does; check QUANT_MONGODB_URI and that the server runs."
            ) from None
        except (PyMongoError, BSONError) as error:
            raise DocumentStoreError(
                f"The document store {self._address} refused: {self._reason(error)}. "
                "Check the database's name and the user's rights on it; what waits in the outbox is kept."
            ) from None

    def _reason(self, error: Exception) -> str:
        faults: list[dict[str, Any]] = error.details.get("writeErrors", []) if isinstance(error, BulkWriteError) else []
        text = str(faults[0].get("errmsg")) if faults else str(error).split(" (configured")[0].split(", full error")[0]
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return f"{type(error).__name__}, {text[:300]}"


def _age(document: Document) -> tuple[str, int]:
    return document["as_of"], document["schema_version"]
