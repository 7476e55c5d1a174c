"""Is there a champion for tonight: trained when due, healed where it can be, and never trained in vain every night."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from quant_assets.feature_store.views import definition_hash
from quant_assets.signals import next_champion
from quant_assets.signals.next_champion import ensure_champion
from quant_assets.signals.retraining import TrainingFailed
from quant_assets.signals.training_run import train_and_register
from quant_assets_tests.signals.nights import Desk, in_memory

LAST = 150
VIEW = "technical_v1"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A market of five awkward names, nothing trained yet."""
    return Desk.new(tmp_path_factory.mktemp("market"), 5, LAST)


@pytest.fixture
def desk(untrained: Desk, tmp_path: Path) -> Desk:
    return untrained.copy(tmp_path)


def ensure(desk: Desk, as_of: datetime | None = None) -> str:
    return ensure_champion(desk.warehouse, desk.calendar, desk.settings, as_of or desk.evening(LAST)).text


class TestRegression:
    @pytest.fixture
    def child(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
        """Trains here what would be trained in a process of its own; notes each instant."""
        started: list[datetime] = []

        def train(as_of: datetime) -> str:
            started.append(as_of)
            return desk.train(as_of).model_version

        monkeypatch.setattr(next_champion, "train_in_own_process", train)
        return started

    def test_the_first_night_trains_and_the_next_does_not(self, desk: Desk, child: list[datetime]) -> None:
        until = desk.evening(LAST - 1)
        assert ensure(desk) == f"champion is version 1, trained now, until {until} UTC"
        assert ensure(desk) == f"champion is version 1, trained until {until} UTC"
        assert ensure(desk, desk.evening(LAST + 1)) == f"champion is version 1, trained until {until} UTC"
        assert child == [desk.evening(LAST)]

    def test_an_earlier_instant_trains_once(self, desk: Desk, child: list[datetime]) -> None:
        desk.train(desk.evening(LAST) + timedelta(hours=2))
        assert "trained now" in ensure(desk)
        assert "trained until" in ensure(desk)
        assert len(child) == 1

    def test_just_enough_history_is_enough(self, untrained: Desk, tmp_path: Path, child: list[datetime]) -> None:
        """148 outcomes are known before tonight's close: 142 to train on, 1 purged and 5 folds, or 143 and one too few."""
        for least, said in (
            (143, "no model yet: of symbols in scope with known outcomes, 148 sessions are too few: 143 to train on, 1 purged"),
            (142, "champion is version 1, trained now"),
        ):
            desk = untrained.copy(tmp_path / str(least))
            desk.settings = desk.settings.model_copy(update={"train_min_sessions": least})
            with in_memory(desk.registry), pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    next_champion, "train_in_own_process",
                    lambda as_of, desk=desk: train_and_register(desk.warehouse, desk.calendar, desk.settings, as_of, "r", "signals/model"),
                )  # fmt: skip
                assert ensure(desk).startswith(said)

    def test_a_training_that_failed_is_told_and_the_heuristic_scores(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(as_of: datetime) -> str:
            raise TrainingFailed("Training ended with exit code 1: MLflow is down")

        monkeypatch.setattr(next_champion, "train_in_own_process", fail)
        assert ensure(desk) == "no model: Training ended with exit code 1: MLflow is down"
        assert desk.score(LAST).notes == ("no model may score tonight: the heuristic does",)
        assert desk.signals()["scorer"].unique().to_list() == ["heuristic"]

    def test_a_champion_of_another_definition_is_replaced_tonight(
        self, desk: Desk, child: list[datetime], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Promoted before the close, so that it would come first if it could score."""
        desk.train(desk.evening(LAST - 1))
        with desk.warehouse.transaction() as connection:
            connection.execute("update signals.promotions set definition_hash = ?", ["e" * 64])
        why = f"; version 1 was trained on another definition of {VIEW}: {'e' * 12}, which is {definition_hash(VIEW)[:12]} now"
        with monkeypatch.context() as patch:
            patch.setattr(next_champion, "train_in_own_process", lambda as_of: "done")
            assert ensure(desk).endswith(why)
        assert ensure(desk) == f"champion is version 2, trained now, until {desk.evening(LAST - 1)} UTC{why}"
        assert child == [desk.evening(LAST)]
        assert ensure(desk) == f"champion is version 2, trained until {desk.evening(LAST - 1)} UTC"
        assert desk.score(LAST).notes == ()
        assert desk.signals()["model_version"].unique().to_list() == ["2"]

    def test_a_champion_of_another_view_may_not_score(self, desk: Desk, child: list[datetime]) -> None:
        desk.train(desk.evening(LAST - 1))
        with desk.warehouse.transaction() as connection:
            connection.execute("update signals.promotions set feature_view = 'alpha_v1'")
        said = ensure(desk)
        assert said.startswith("champion is version 2, trained now")
        assert said.endswith(f"; version 1 was trained on the view alpha_v1, not on {VIEW}")
        assert child == [desk.evening(LAST)]

    def test_too_little_history_for_another_definition_is_told(self, desk: Desk) -> None:
        desk.train(desk.evening(LAST))
        with desk.warehouse.transaction() as connection:
            connection.execute("update signals.promotions set definition_hash = ?", ["e" * 64])
        desk.settings = desk.settings.model_copy(update={"train_min_sessions": 143})
        assert ensure(desk).startswith("no model yet: of symbols in scope with known outcomes, 148 sessions are too few: 143 to train on")
        assert "; version 1 was trained on another definition" in ensure(desk)

    def test_a_training_that_promoted_nothing_is_not_called_a_champion(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(next_champion, "train_in_own_process", lambda as_of: "done")
        assert ensure(desk).startswith("no model: the training ended well, but decided on no version that may score")

    def test_a_damaged_copy_is_written_again_from_the_registry(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a real MLflow: the copy of what was registered, byte for byte."""
        train_and_register(desk.warehouse, desk.calendar, desk.settings, desk.evening(LAST), "run", "signals/model")
        file = next(desk.settings.models_path.glob("*.json"))
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        monkeypatch.setattr(next_champion, "train_in_own_process", lambda _: pytest.fail("there is a champion"))
        assert ensure(desk) == f"champion is version 1, trained until {desk.evening(LAST - 1)} UTC"
        assert file.read_bytes() == whole

    def test_one_whose_copy_is_lost_for_good_makes_way_for_a_training(self, desk: Desk, child: list[datetime]) -> None:
        desk.train(desk.evening(LAST - 1))
        next(desk.settings.models_path.glob("*.json")).unlink()
        said = ensure(desk)
        assert said.startswith("no model: the training ended well, but decided on no version that may score")  # it was champion of tonight
        assert "There is no MLflow store" in said or "does not answer" in said
        assert child == [desk.evening(LAST)]
        desk.grow(LAST + 1)
        assert ensure(desk, desk.evening(LAST + 1)) == f"champion is version 2, trained until {desk.evening(LAST - 1)} UTC"

    def test_what_was_turned_down_is_not_tried_again_before_the_cool_down(self, desk: Desk, child: list[datetime]) -> None:
        desk.settings = desk.settings.model_copy(update={"promotion_confidence": 0.99, "retrain_cooldown_sessions": 3})
        said = ensure(desk)
        assert said.startswith("no model: version 1 was turned down: ")
        assert ensure(desk).endswith("the next training is due 3 sessions after it")
        assert child == [desk.evening(LAST)]
        for number in range(LAST + 1, LAST + 4):
            desk.grow(number)
            ensure(desk, desk.evening(number))
        assert child == [desk.evening(LAST), desk.evening(LAST + 3)]
        assert desk.score(LAST + 3).notes == ("no model may score tonight: the heuristic does",)

    def test_a_study_on_chosen_symbols_keeps_nobody_from_training(self, desk: Desk, child: list[datetime]) -> None:
        with in_memory(desk.registry):
            train_and_register(
                desk.warehouse, desk.calendar, desk.settings, desk.evening(LAST - 1), "run", "signals/model", symbols=["BRK.B", "O'NEIL"]
            )
        assert ensure(desk).startswith("champion is version 2, trained now")
        assert child == [desk.evening(LAST)]
