"""The outbox: whole, immutable, named by content; whatever is cut or altered is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.publishing import outbox

SESSION = date(2018, 2, 7)
DOCUMENTS = {"signals": [{"document_id": "signals/A/2018-02-07/1", "probability": 0.5}], "models": []}
LINE = b'{"collection":"signals","document":{"document_id":"signals/A/2018-02-07/1","probability":0.5}}\n'

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
documents = st.lists(st.dictionaries(st.text(min_size=1), values, max_size=4), min_size=1, max_size=4)


class TestRegression:
    def test_content_name_and_counts(self, tmp_path: Path) -> None:
        written = outbox.write(tmp_path / "outbox", SESSION, DOCUMENTS)
        assert gzip.decompress(written.path.read_bytes()) == LINE
        assert written.sha256 == hashlib.sha256(LINE).hexdigest()
        assert written.path.name == f"2018-02-07-{written.sha256[:16]}.jsonl.gz"
        assert written.counts == {"models": 0, "signals": 1}
        assert outbox.read(written.path) == {"signals": DOCUMENTS["signals"]}

    def test_same_documents_are_not_written_again(self, tmp_path: Path) -> None:
        first = outbox.write(tmp_path, SESSION, DOCUMENTS)
        inode = first.path.stat().st_ino
        assert outbox.write(tmp_path, SESSION, DOCUMENTS) == first
        assert first.path.stat().st_ino == inode
        assert list(tmp_path.iterdir()) == [first.path]

    def test_changed_documents_go_to_another_file(self, tmp_path: Path) -> None:
        first = outbox.write(tmp_path, SESSION, DOCUMENTS)
        second = outbox.write(tmp_path, SESSION, {"signals": [{"document_id": "signals/A/2018-02-07/1", "probability": 0.75}]})
        assert first.path != second.path
        assert outbox.read(first.path)["signals"][0]["probability"] == 0.5

    def test_damaged_file_is_refused_and_written_anew(self, tmp_path: Path) -> None:
        path = outbox.write(tmp_path, SESSION, DOCUMENTS).path
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(outbox.OutboxError, match="cannot be read to its end"):
            outbox.read(path)
        outbox.write(tmp_path, SESSION, DOCUMENTS)
        assert outbox.read(path) == {"signals": DOCUMENTS["signals"]}

    def test_other_content_under_a_files_name_is_refused(self, tmp_path: Path) -> None:
        path = outbox.write(tmp_path, SESSION, DOCUMENTS).path
        path.write_bytes(gzip.compress(LINE.replace(b"0.5", b"0.9")))
        with pytest.raises(outbox.OutboxError, match="other content than its name says"):
            outbox.read(path)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(outbox.OutboxError, match="is missing"):
            outbox.read(tmp_path / "2018-02-07-0000000000000000.jsonl.gz")

    def test_number_without_a_word_in_json_names_its_document(self, tmp_path: Path) -> None:
        with pytest.raises(outbox.OutboxError, match="signals/A"):
            outbox.write(tmp_path, SESSION, {"signals": [{"document_id": "signals/A", "probability": float("nan")}]})
        assert list(tmp_path.iterdir()) == []

    def test_failed_write_leaves_nothing_behind(self, tmp_path: Path) -> None:
        name = outbox.write(tmp_path / "other", SESSION, DOCUMENTS).path.name
        (tmp_path / "outbox" / name).mkdir(parents=True)  # a folder of that name: the swap fails
        with pytest.raises(OSError, match=name):
            outbox.write(tmp_path / "outbox", SESSION, DOCUMENTS)
        assert [entry.name for entry in (tmp_path / "outbox").iterdir()] == [name]


class TestProperties:
    @settings(max_examples=20, deadline=None)
    @given(documents)
    def test_what_is_read_is_what_was_written(self, content: list[dict[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            written = outbox.write(Path(folder), SESSION, {"signals": content})
            assert outbox.read(written.path) == {"signals": content}

    @settings(max_examples=20, deadline=None)
    @given(documents)
    def test_bytes_depend_on_the_documents_alone(self, content: list[dict[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            first = outbox.write(Path(one), SESSION, {"a": content, "b": content})
            second = outbox.write(Path(two), SESSION, {"b": json.loads(json.dumps(content)), "a": content})
            assert first.path.name == second.path.name
            assert first.path.read_bytes() == second.path.read_bytes()

    @settings(max_examples=20, deadline=None)
    @given(st.data())
    def test_no_cut_file_is_believed(self, data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = outbox.write(Path(folder), SESSION, DOCUMENTS).path
            whole = path.read_bytes()
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
            with pytest.raises(outbox.OutboxError):
                outbox.read(path)
