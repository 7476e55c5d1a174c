"""Documents: the shape a reader gets, keys that never collide, and the same document for the same row."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.errors import SchemaMismatch
from quant_assets.publishing.documents import instant_text, signal_document_id, signal_documents
from quant_assets.schemas import DAILY_SIGNALS

KNOWN_AT = datetime(2018, 2, 7, 21, 30)
CONTRIBUTIONS = [{"feature": "rsi_14", "value": 31.5, "contribution": 0.21}]


def signal(**changes: Any) -> dict[str, Any]:
    row = {
        "symbol": "AAPL",
        "session": date(2018, 2, 7),
        "horizon": 1,
        "known_at": KNOWN_AT,
        "label_threshold": 0.0,
        "probability": 0.625,
        "confidence": 0.25,
        "recommendation": "buy",
        "scorer": "model",
        "model_version": "3",
        "contributions": json.dumps(CONTRIBUTIONS),
        "centre": 0.01,
        "regime": None,
        "feature_view": "technical_v1",
        "definition_hash": "abc",
        "mode": "live",
        "trained_until": datetime(2018, 1, 31, 21, 30, 0, 7),
        "batch_id": "b1",
        "run_id": "r1",
        "recorded_at": datetime(2018, 2, 7, 22, 0),
    }
    return {**row, **changes}


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=DAILY_SIGNALS.polars_schema)


class TestRegression:
    def test_document_of_one_signal(self) -> None:
        assert signal_documents(frame(signal()), KNOWN_AT) == [
            {
                "document_id": "signals/AAPL/2018-02-07/1",
                "symbol": "AAPL",
                "session": "2018-02-07",
                "horizon": 1,
                "label_threshold": 0.0,
                "probability": 0.625,
                "confidence": 0.25,
                "recommendation": "buy",
                "scorer": "model",
                "contributions": CONTRIBUTIONS,
                "regime": None,
                "mode": "live",
                "trained_until": "2018-01-31T21:30:00.000007Z",
                "known_at": "2018-02-07T21:30:00.000000Z",
                "as_of": "2018-02-07T21:30:00.000000Z",
                "schema_version": 2,
                "lineage": {
                    "dagster_run_id": "r1",
                    "model_version": "3",
                    "feature_view": "technical_v1",
                    "definition_hash": "abc",
                    "batch_ids": ["b1"],
                },
            }
        ]

    def test_heuristic_has_no_model_and_perhaps_no_contributions(self) -> None:
        row = signal(scorer="heuristic", model_version=None, trained_until=None, contributions=None)
        (document,) = signal_documents(frame(row), KNOWN_AT)
        assert (document["trained_until"], document["lineage"]["model_version"], document["contributions"]) == (None, None, [])

    def test_newest_version_known_as_of(self) -> None:
        rows = frame(signal(), signal(known_at=KNOWN_AT + timedelta(days=1), probability=0.25))
        assert [d["probability"] for d in signal_documents(rows, KNOWN_AT)] == [0.625]
        assert [d["probability"] for d in signal_documents(rows, KNOWN_AT + timedelta(days=1))] == [0.25]
        assert signal_documents(rows, KNOWN_AT - timedelta(microseconds=1)) == []

    def test_missing_column_is_named(self) -> None:
        with pytest.raises(SchemaMismatch, match="definition_hash"):
            signal_documents(frame(signal()).drop("definition_hash"), KNOWN_AT)

    @pytest.mark.parametrize(
        ("symbol", "document_id"),
        [
            ("BRK.B", "signals/BRK.B/2018-02-07/1"),
            ("A/B", "signals/A%2FB/2018-02-07/1"),
            ("A%2FB", "signals/A%252FB/2018-02-07/1"),
            ("$x'\"", "signals/%24x%27%22/2018-02-07/1"),
            ("삼성", "signals/%EC%82%BC%EC%84%B1/2018-02-07/1"),
        ],
    )
    def test_document_id(self, symbol: str, document_id: str) -> None:
        assert signal_document_id(symbol, date(2018, 2, 7), 1) == document_id

    def test_instant_with_an_offset(self) -> None:
        assert instant_text(datetime(2018, 2, 7, 16, 30, tzinfo=timezone(timedelta(hours=-5)))) == "2018-02-07T21:30:00.000000Z"


class TestProperties:
    @given(symbol=st.text(), session=st.dates(), horizon=st.sampled_from([1, 5, 20]))
    def test_key_can_be_taken_apart_again(self, symbol: str, session: date, horizon: int) -> None:
        kind, quoted, session_text, horizon_text = signal_document_id(symbol, session, horizon).split("/")
        assert (kind, unquote(quoted), session_text, horizon_text) == ("signals", symbol, session.isoformat(), str(horizon))

    @given(st.lists(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)), min_size=2))
    def test_text_of_instants_sorts_like_time(self, instants: list[datetime]) -> None:
        assert sorted(map(instant_text, instants)) == [instant_text(instant) for instant in sorted(instants)]
        assert [datetime.fromisoformat(instant_text(i)) for i in instants] == [i.replace(tzinfo=UTC) for i in instants]

    @settings(max_examples=20, deadline=None)
    @given(st.permutations(["B", "A", "é", "a/b", "$"]), st.integers(0, 10**6))
    def test_neither_order_nor_the_hour_of_the_run_matters(self, symbols: list[str], microseconds: int) -> None:
        rows = [signal(symbol=symbol, recorded_at=KNOWN_AT + timedelta(microseconds=microseconds)) for symbol in symbols]
        expected = signal_documents(frame(*(signal(symbol=symbol) for symbol in sorted(symbols))), KNOWN_AT)
        assert signal_documents(frame(*rows), KNOWN_AT + timedelta(microseconds=microseconds)) == expected
        assert [document["symbol"] for document in expected] == sorted(symbols)
