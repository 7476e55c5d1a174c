"""What a person reads at the end of a run, in plain lines: the numbers of each stage, the signals, the warnings, the way on."""

from __future__ import annotations

import io
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from quant_assets.report import SHOWN, Progress, summary
from quant_assets.schemas import DAILY_SIGNALS, PROMOTIONS
from quant_assets.settings import Settings, load_settings
from quant_assets.warehouse import Warehouse, append_ledger, append_versions
from quant_assets_tests import nights

SESSION = date(2018, 2, 7)
AS_OF = datetime(2018, 2, 7, 21, 30)
LATER = datetime(2018, 2, 8, 21, 30)
STAGES: dict[str, dict[str, Any]] = {
    "market_data/daily_bars": {
        "new_bars": 618_935,
        "restated_bars": 3,
        "rejected_rows": 11,
        "symbols": 505,
        "batch_id": "b",
        "failed_requests": 2,
    },
    "data_quality/anomalies": {"new_critical": 12},
    "data_quality/clean_bars": {"dagster/row_count": 618_923, "held_back": 12},
    "feature_store/technical_v1": {"rows_written": 618_923, "stale_symbols": 505},
    "feature_store/labels": {"rows_written": 1_843_000},
    "signals/daily_signals": {"new_signals": 505, "scorer": "model", "model_version": "1"},
    "publishing/outbox": {"documents": 505, "new_files": 1},
}
EVIDENCE = {
    "auc": 0.5102, "control_auc": 0.4912, "rank_ic": 0.0258, "rank_ic_t": 1.54, "control_rank_ic": -0.0457,
    "accuracy": 0.51, "majority_accuracy": 0.5019, "log_loss": 0.6953, "base_rate_log_loss": None,
}  # fmt: skip


def signal(symbol: str, probability: float, known_at: datetime = AS_OF, **changed: Any) -> dict[str, Any]:
    row = {
        "symbol": symbol, "session": SESSION, "horizon": 1, "known_at": known_at, "label_threshold": 0.0,
        "probability": probability, "confidence": abs(2 * probability - 1), "recommendation": "hold", "centre": None, "regime": None,
        "scorer": "model", "model_version": "1", "contributions": json.dumps([{"feature": "rsi_14", "value": 31.5, "contribution": -0.25}]),
        "feature_view": "technical_v1", "definition_hash": "d", "mode": "live", "trained_until": None, "batch_id": "b", "run_id": "r",
        "recorded_at": known_at,
    }  # fmt: skip
    return {**row, **changed}


def store(home: Path, *signals: dict[str, Any]) -> Settings:
    """A database with these signals, and with the model that made them."""
    warehouse = Warehouse(home / "quant.duckdb", "synthetic")
    with warehouse.transaction() as connection:
        for row in signals:
            append_versions(connection, DAILY_SIGNALS, pl.DataFrame([row], schema=DAILY_SIGNALS.polars_schema))
        promotion = {
            "model": "signal", "model_version": "1", "promoted_at": AS_OF, "decision": "promoted", "decided_by": "somebody",
            "reason": "[it] gains", "incumbent_version": None, "label_threshold": 0.0, "trained_until": AS_OF, "horizon": 1, "feature_view": "technical_v1",
            "definition_hash": "d", "fingerprint": "f", "model_sha256": "m", "mlflow_run_id": "r", "evidence": json.dumps(EVIDENCE),
            "run_id": "r", "recorded_at": AS_OF,
        }  # fmt: skip
        append_ledger(connection, PROMOTIONS, pl.DataFrame([promotion], schema=PROMOTIONS.polars_schema))
    with nights.environment(home):
        return load_settings(home=home)


def printed(
    capsys: pytest.CaptureFixture[str], settings: Settings, stages: dict[str, dict[str, Any]], as_of: datetime = AS_OF, **more: Any
) -> list[str]:
    """The lines of the summary, with runs of blanks made one."""
    summary(settings, as_of, SESSION, stages, more.get("warnings", []), more.get("failure", ""), 12.34)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]


class TestRegression:
    def test_a_night(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = store(tmp_path, signal("AAPL", 0.55), signal("[b]MSFT", 0.40, scorer="heuristic", model_version=None))
        lines = printed(capsys, settings, STAGES, warnings=["fresh did not pass. [1 symbol] is late."])
        assert lines[0] == "Session 2018-02-07, as of 2018-02-07 21:30 UTC"
        assert "market_data/daily_bars new bars 618,935, restated bars 3, rejected rows 11, symbols 505" in lines
        assert "data_quality/clean_bars rows 618,923, held back 12" in lines
        assert "signals/daily_signals new signals 505, scorer model, model version 1" in lines
        assert "Strongest signals, over 1 session" in lines
        strongest = [line for line in lines if "rsi_14" in line]
        assert strongest == ["[b]MSFT 0.4000 hold heuristic rsi_14 -0.250", "AAPL 0.5500 hold model 1 rsi_14 -0.250"]
        assert (
            "Model 1, out of sample: AUC 0.5102 (shuffled labels 0.4912), rank IC 0.0258 (t 1.5400, shuffled -0.0457), "
            "accuracy 0.5100 (majority class 0.5019), log loss 0.6953 (base rate none)."
        ) in lines
        assert "Promoted: [it] gains. The model card: `quant-assets model show 1`." in lines
        assert [line for line in lines if line.startswith("Warning: ")] == [
            "Warning: 2 files or requests gave no bars: see market_data.fetch_ledger.",
            "Warning: 11 rows were no bars: see market_data.rejected_rows.",
            "Warning: 12 bars are held back: see `quant-assets quarantine list`.",
            "Warning: fresh did not pass. [1 symbol] is late.",
        ]
        assert lines[-2:] == [
            "Done in 12.3 s. Next: `make ui` opens the asset graph, the models, the feature docs and the documents;",
            f"tables for reading: {settings.read_copy_path}",
        ]

    def test_a_night_that_failed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Nothing is read from a database that may be the reason."""
        with nights.environment(tmp_path):
            settings = load_settings(home=tmp_path / "nowhere")
        lines = printed(capsys, settings, {"market_data/daily_bars": {"new_bars": 4}}, failure="market_data: no bars in [x]")
        assert "market_data/daily_bars new bars 4" in lines
        assert lines[-2:] == [
            "Failed after 12.3 s. market_data: no bars in [x]",
            "What was done stays; mend the cause and run again. The whole story: make ui",
        ]
        assert not (tmp_path / "nowhere").exists()

    def test_five_strongest_as_of_the_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Strong is far from a half, either way; what became known later, or looks further, is not tonight's."""
        settings = store(
            tmp_path,
            *(signal(name, probability) for name, probability in zip("ABCDEFG", (0.9, 0.2, 0.5, 0.7, 0.35, 0.6, 0.51), strict=True)),
            signal("C", 0.99, known_at=LATER),
            signal("G", 0.99, horizon=5),
        )
        rows = [line.split()[:2] for line in printed(capsys, settings, {}) if "rsi_14" in line]
        assert rows == [["A", "0.9000"], ["B", "0.2000"], ["D", "0.7000"], ["E", "0.3500"], ["F", "0.6000"]]
        later = [line.split()[:2] for line in printed(capsys, settings, {}, as_of=LATER) if "rsi_14" in line]
        assert later[0] == ["C", "0.9900"]

    def test_no_signals(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "No signals for 2018-02-07." in printed(capsys, store(tmp_path), {})

    def test_progress_without_a_terminal_is_plain_lines(self) -> None:
        out = io.StringIO()
        with Progress(Console(file=out, width=80)) as progress:
            progress.start("market_data")
            progress.done("market_data", 1.25)
            progress.line("12 bars of [A]: " + "x" * 100)
            progress.failed("data_quality")
        assert out.getvalue().splitlines() == [
            "market_data              done     1.2 s",
            "12 bars of [A]: " + "x" * 100,
            "data_quality             FAILED",
        ]

    def test_progress_on_a_terminal_shows_the_step_at_work(self) -> None:
        out = io.StringIO()
        with Progress(Console(file=out, width=80, force_terminal=True)) as progress:
            progress.start("market_data")
            progress.console.print("-")
        assert "market_data" in out.getvalue()


class TestProperties:
    def test_unchanged_is_said_only_where_all_of_it_is(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = store(tmp_path, signal("AAPL", 0.55))
        counts = [
            (key, name)
            for key, names in SHOWN.items()
            for name in names
            if name in {"new_bars", "restated_bars", "new_signals", "new_files"}
        ]
        counts.append(("feature_store/technical_v1", "rows_written"))
        still = {key: {name: 0 if isinstance(value, int) else value for name, value in found.items()} for key, found in STAGES.items()}
        said = "Nothing had changed since the last run: no new bar, feature, signal or document."
        assert said in printed(capsys, settings, still)
        for key, name in counts:
            assert said not in printed(capsys, settings, {**still, key: {**still[key], name: 1}})
        assert said not in printed(
            capsys, settings, {key: found for key, found in still.items() if key != "publishing/outbox"}
        )  # a partial run
