"""The night's documents as one immutable file, named by its content.

`<session>-<first 16 digits of the content's SHA-256>.jsonl.gz`; each line is `{"collection": …, "document": …}`.
The hash is over the uncompressed lines, since the same lines may compress to other bytes elsewhere.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from quant_assets.errors import QuantAssetsError
from quant_assets.publishing.documents import Document

SUFFIX = ".jsonl.gz"


class OutboxError(QuantAssetsError):
    """A file of the outbox is missing or is not what its name says, or a document cannot be written as JSON."""


@dataclass(frozen=True)
class OutboxFile:
    """One file of documents: content hash, place, documents per collection."""

    sha256: str
    path: Path
    counts: dict[str, int]


def write(outbox_path: Path, session: date, collections: Mapping[str, Sequence[Document]]) -> OutboxFile:
    """Write a session's documents, per collection in the order given; the same documents give the same file, byte for byte.

    The file appears whole or not at all, also after a power cut; one that is there already, and sound, is left alone.
    Raises `OutboxError` for a number that JSON has no word for (NaN, infinity).
    """
    content = b"".join(_line(name, document) for name in sorted(collections) for document in collections[name])
    sha256 = hashlib.sha256(content).hexdigest()
    path = outbox_path / f"{session.isoformat()}-{sha256[:16]}{SUFFIX}"
    if not _is_sound(path):
        outbox_path.mkdir(parents=True, exist_ok=True)
        _write_whole(path, gzip.compress(content, mtime=0))
    return OutboxFile(sha256, path, {name: len(collections[name]) for name in sorted(collections)})


def read(path: Path) -> dict[str, list[Document]]:
    """The documents of one file per collection, in their order; raises `OutboxError` for a missing, cut or altered file."""
    remedy = "Materialize publishing/outbox for that session again; it writes the same file."
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise OutboxError(f"The outbox file {path} is missing. {remedy}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise OutboxError(f"The outbox file {path} cannot be read to its end ({error}). {remedy}") from error
    named, found = path.name.removesuffix(SUFFIX).rpartition("-")[2], hashlib.sha256(content).hexdigest()[:16]
    if named != found:
        raise OutboxError(f"The outbox file {path} holds other content than its name says (SHA-256 {found}…, not {named}…). {remedy}")
    collections: dict[str, list[Document]] = {}
    for line in content.split(b"\n")[:-1]:
        entry = json.loads(line)
        collections.setdefault(entry["collection"], []).append(entry["document"])
    return collections


def _line(collection: str, document: Document) -> bytes:
    try:
        text = json.dumps({"collection": collection, "document": document}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise OutboxError(
            f"{document.get('document_id')!r} of {collection} cannot be published: {error}. Mend the row it comes from."
        ) from None
    return text.encode() + b"\n"


def _is_sound(path: Path) -> bool:
    try:
        read(path)
    except OutboxError:
        return False
    return True


def _write_whole(path: Path, payload: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, must survive a power cut
    finally:
        os.close(folder)
