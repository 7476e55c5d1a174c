"""Replies as received, compressed under their content's hash, so that parsing can be repeated without a call.

A reply is written in two steps. `receive` puts it under its request's id, on disk for good before the request ledger is
told; `file_away` gives it its content's name afterwards. Between the two, a kill leaves a file that names its request.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from quant_assets.errors import QuantAssetsError

RECEIVED = "received"
COMPRESSION = 6


class PayloadDamaged(QuantAssetsError):
    """A stored reply is missing, or is not what its name says."""


@dataclass(frozen=True)
class Received:
    """A reply on disk that has not been filed away yet: whose request it answers, with which HTTP status."""

    request_id: str
    status_code: int
    path: Path


class PayloadStore:
    """Replies under a folder: `<first two of the hash>/<sha256>.gz`, and `received/` for those just arrived.

    The hash is of the body as it was received, the caller's key taken out. The same content is kept once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def receive(self, request_id: str, status_code: int, body: bytes) -> Received:
        """Keep a reply under its request's id; when this returns, it is on disk, and no kill can make it half."""
        folder = self._folder / RECEIVED
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{request_id}.{status_code}.gz"
        aside = self._aside(request_id)
        with aside.open("wb") as file:
            file.write(gzip.compress(body, COMPRESSION, mtime=0))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync(folder)
        return Received(request_id, status_code, path)

    def file_away(self, received: Received, payload_sha256: str) -> None:
        """Give a reply its content's name, once the request ledger knows it."""
        target = self._path(payload_sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(received.path, target)
        except FileNotFoundError:
            if not target.exists():  # another process has just done it otherwise
                raise

    def received(self) -> Iterator[Received]:
        """The replies between the two steps: those that a killed process left, and those of processes at work."""
        for path in sorted((self._folder / RECEIVED).glob("*.gz")):
            request_id, status_code, _ = path.name.split(".")
            yield Received(request_id, int(status_code), path)

    def body_of(self, received: Received) -> bytes:
        """The body of a reply that has not been filed away; raises `PayloadDamaged` when it cannot be read."""
        return _unpacked(received.path)

    def forget(self, request_id: str) -> None:
        """Remove what a killed process had begun to write of a reply."""
        self._aside(request_id).unlink(missing_ok=True)

    def read(self, payload_sha256: str) -> bytes:
        """The body with this hash; raises `PayloadDamaged` when it is missing or another."""
        path = self._path(payload_sha256)
        body = _unpacked(path)
        if (found := sha256(body).hexdigest()) != payload_sha256:
            raise PayloadDamaged(f"The payload {path} holds another content ({found}); remove it, and it is asked for again.")
        return body

    def _aside(self, request_id: str) -> Path:
        return self._folder / RECEIVED / f".{request_id}.tmp"

    def _path(self, payload_sha256: str) -> Path:
        return self._folder / payload_sha256[:2] / f"{payload_sha256}.gz"


def _unpacked(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"
        raise PayloadDamaged(f"The payload {path} {reason}; restore it, or remove what is left, and it is asked for again.") from None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
