"""Payloads as received: once per content, whole or not at all, and never taken for what they are not."""

from __future__ import annotations

import gzip
from hashlib import sha256
from pathlib import Path

import pytest

from quant_assets.market_data.fetching.payloads import PayloadDamaged, PayloadStore

BODY = b'{"Time Series (Daily)": {}}' * 100
SHA = sha256(BODY).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> PayloadStore:
    return PayloadStore(tmp_path / "payloads")


def files(tmp_path: Path) -> set[str]:
    return {path.relative_to(tmp_path / "payloads").as_posix() for path in (tmp_path / "payloads").rglob("*") if path.is_file()}


class TestRegression:
    def test_received_under_its_request_then_filed_under_its_content(self, store: PayloadStore, tmp_path: Path) -> None:
        received = store.receive("r1", 200, BODY)
        assert files(tmp_path) == {"received/r1.200.gz"}
        store.file_away(received, SHA)
        assert files(tmp_path) == {f"{SHA[:2]}/{SHA}.gz"}
        assert store.read(SHA) == BODY
        assert (tmp_path / "payloads" / SHA[:2] / f"{SHA}.gz").stat().st_size < len(BODY) / 10

    def test_the_same_content_is_kept_once(self, store: PayloadStore, tmp_path: Path) -> None:
        for request_id in ("r1", "r2"):
            store.file_away(store.receive(request_id, 200, BODY), SHA)
        assert files(tmp_path) == {f"{SHA[:2]}/{SHA}.gz"}

    def test_what_a_kill_left_between_the_steps_names_its_request(self, store: PayloadStore) -> None:
        store.receive("r1", 429, BODY)
        (left,) = store.received()
        assert (left.request_id, left.status_code, store.body_of(left)) == ("r1", 429, BODY)
        store.file_away(left, SHA)
        store.file_away(left, SHA)  # another process may have been first
        assert list(store.received()) == []

    def test_what_a_kill_left_half_is_no_reply(self, store: PayloadStore, tmp_path: Path) -> None:
        store.receive("r0", 200, b"")
        (tmp_path / "payloads" / "received" / ".r1.tmp").write_bytes(b"half")
        assert [left.request_id for left in store.received()] == ["r0"]
        store.forget("r1")
        assert files(tmp_path) == {"received/r0.200.gz"}

    @pytest.mark.parametrize(
        "damage",
        [b"", b"no gzip", gzip.compress(BODY, mtime=0)[:-9], gzip.compress(b"another", mtime=0)],
        ids=["empty", "no gzip", "cut", "another"],
    )
    def test_damage_is_seen_when_read(self, store: PayloadStore, tmp_path: Path, damage: bytes) -> None:
        store.file_away(store.receive("r1", 200, BODY), SHA)
        (tmp_path / "payloads" / SHA[:2] / f"{SHA}.gz").write_bytes(damage)
        with pytest.raises(PayloadDamaged, match=SHA):
            store.read(SHA)

    def test_a_missing_one_is_named(self, store: PayloadStore) -> None:
        with pytest.raises(PayloadDamaged, match="is missing"):
            store.read(SHA)
