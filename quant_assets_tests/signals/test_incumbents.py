"""What a champion said of sessions that it had not seen: walk-forward as far as it was trained, itself after that."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from quant_assets.feature_store.views import definition_hash
from quant_assets.signals.champions import Champion, champion_for
from quant_assets.signals.incumbents import incumbent, unseen_predictions
from quant_assets.signals.registry.local_copies import load_local_copy
from quant_assets_tests.signals.nights import NAMES, Desk

LAST, LATER = 150, 165
VIEW = "technical_v1"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk.new(tmp_path_factory.mktemp("market"), len(NAMES), LAST)
    desk.train(desk.evening(LAST))
    desk.grow(LATER)
    return desk


@pytest.fixture
def desk(market: Desk, tmp_path: Path) -> Desk:
    return market.copy(tmp_path)


def champion(desk: Desk) -> Champion:
    found = champion_for(desk.warehouse, 1, desk.close(LATER), desk.evening(LATER), VIEW, definition_hash(VIEW))
    assert found is not None
    return found


def frame(desk: Desk) -> pl.DataFrame:
    sql = "select * from feature_store.technical_v1 where session between $first and $last order by session, symbol"
    return desk.warehouse.read(sql, {"first": desk.session(1), "last": desk.session(LATER)})


def said_by(desk: Desk) -> pl.DataFrame:
    found = incumbent(desk.warehouse, desk.settings, definition_hash(VIEW), desk.evening(LATER))
    assert found is not None
    return unseen_predictions(desk.warehouse, desk.calendar, *found, 1, frame(desk))


class TestRegression:
    def test_each_session_by_who_had_not_seen_it(self, desk: Desk) -> None:
        said = said_by(desk)
        walked = desk.warehouse.read("select symbol, session, probability from signals.predictions")
        assert said.join(walked, on=["symbol", "session", "probability"], how="semi").height == walked.height
        own = said.filter(pl.col("session") > desk.session(LAST - 2)).sort("session", "symbol")
        # Trained until the evening before session 150: from that session on the model itself may speak.
        assert own["session"].unique().sort().to_list() == [desk.session(n) for n in range(LAST, LATER + 1)]
        found = champion(desk)
        model, _ = load_local_copy(desk.settings.models_path, found.model_version, found.model_sha256, VIEW, definition_hash(VIEW))
        rows = frame(desk).filter(pl.col("session") >= desk.session(LAST))
        assert own["probability"].to_list() == model.predict(rows).to_list()

    def test_one_that_cannot_score_is_nobodys_rival(self, desk: Desk) -> None:
        assert incumbent(desk.warehouse, desk.settings, "f" * 64, desk.evening(LATER)) is None
        next(desk.settings.models_path.glob("*.json")).unlink()
        assert incumbent(desk.warehouse, desk.settings, definition_hash(VIEW), desk.evening(LATER)) is None
        assert desk.train(desk.evening(LATER)).verdict.evidence["incumbent"] == "no skill"

    def test_a_challenger_is_held_against_it_and_the_ledger_tells(self, desk: Desk) -> None:
        trained = desk.train(desk.evening(LATER), promotion_confidence=0.99)
        assert trained.verdict.decision == "rejected"
        decided = desk.warehouse.read(
            "select model_version, decision, incumbent_version, reason from signals.promotions order by promoted_at"
        )
        assert decided.rows()[1][:3] == ("2", "rejected", "1")
        assert "too few to hold it against version 1" in decided["reason"][1]
        assert champion(desk).model_version == "1"
        assert desk.registry.decisions == {"1": "promoted", "2": "rejected"}
        assert (desk.settings.models_path / "signal-2.md").read_text().startswith("# Signal model 2")
