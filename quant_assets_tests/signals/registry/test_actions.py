"""Decisions about models: a real ledger, a real registry, real files; the ledger holds whatever MLflow does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from quant_assets.errors import ConfigurationError, QuantAssetsError
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.signals.champions import DELETED, PROMOTED, REJECTED, ROLLED_BACK
from quant_assets.signals.registry.actions import Outcome, delete, promote, rollback, sync_champion
from quant_assets.signals.registry.desk import DecisionRefused, ModelDesk, champions_in_order
from quant_assets.signals.registry.local_copies import local_copy, model_card_path, save_local_copy
from quant_assets.signals.registry.tracking import Registry
from quant_assets_tests.signals import trained as shelf
from quant_assets_tests.signals.trained import CONTRACT, FIRST_DECISION, decide, trained

NOW = FIRST_DECISION + timedelta(days=30)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[ModelDesk]:
    """Versions 1, 2 and 3, promoted one after another, so that 3 is champion."""
    with shelf.desk(tmp_path) as opened:
        yield opened


def champion(desk: ModelDesk) -> str | None:
    found = desk.in_use()
    return found.model_version if found else None


def alias(desk: ModelDesk) -> list[str]:
    return [version for version, known in desk.registered().items() if "champion" in known.aliases]


def without_registry(desk: ModelDesk) -> ModelDesk:
    return replace(desk, registry=None, registry_fault="MLflow at http://mlflow failed.")


class TestPromote:
    def test_by_hand_makes_champion_in_ledger_and_registry(self, desk: ModelDesk) -> None:
        outcome = promote(desk, "1", "the others trade too much", "Ada", NOW, "run-7")
        assert outcome == Outcome("1", True, ("Version 1 is champion for horizon 1 and label threshold 0 instead of version 3.",), ())
        row = desk.decisions().row(-1, named=True)
        told = {
            "model_version": "1", "promoted_at": NOW, "decision": PROMOTED, "decided_by": "Ada", "reason": "the others trade too much",
            "incumbent_version": "3", "run_id": "run-7", "fingerprint": "1" * 64, "trained_until": shelf.TRAINED_UNTIL,
        }  # fmt: skip
        assert told.items() <= row.items()
        assert row["model_sha256"] == desk.decisions()["model_sha256"][0]
        assert (champion(desk), alias(desk)) == ("1", ["1"])
        assert desk.registered()["1"].tags["decision"] == PROMOTED

    def test_promoting_the_champion_writes_nothing_and_mends_the_alias(self, desk: ModelDesk) -> None:
        assert desk.registry is not None
        desk.registry.sync_champion("1")
        outcome = promote(desk, "3", "again", "Ada", NOW)
        assert (outcome.written, outcome.done) == (False, ("Version 3 is champion already.",))
        assert desk.decisions().height == 3
        assert alias(desk) == ["3"]

    def test_an_instant_before_the_last_decision_is_moved_after_it(self, desk: ModelDesk) -> None:
        promote(desk, "2", "why not", "Ada", FIRST_DECISION)
        assert desk.decisions()["promoted_at"][-1] == FIRST_DECISION + timedelta(days=3, microseconds=1)
        assert champion(desk) == "2"

    def test_a_version_that_the_rule_turned_down_can_be_promoted(self, desk: ModelDesk) -> None:
        decide(desk.settings, "4", NOW, REJECTED, trained("4" * 64), registered(desk, "4" * 64))
        assert champion(desk) == "3"
        promote(desk, "4", "the rule is too strict", "Ada", NOW + timedelta(days=1))
        assert champion(desk) == "4"

    def test_a_version_without_any_decision_is_taken_from_the_registry(self, desk: ModelDesk) -> None:
        sha256 = registered(desk, "4" * 64, keep=False)
        outcome = promote(desk, "4", "first", "Ada", NOW)
        assert outcome.done[0] == "The local copy of version 4 was written again from the registry."
        row = desk.decisions().row(-1, named=True)
        assert (row["model_sha256"], row["trained_until"], row["horizon"]) == (sha256, shelf.TRAINED_UNTIL, 1)
        assert champion(desk) == "4"

    @pytest.mark.parametrize("damage", ["missing", "damaged"])
    def test_a_copy_that_is_not_whole_is_written_again(self, desk: ModelDesk, damage: str) -> None:
        path = local_copy(desk.settings.models_path, "1")
        whole = path.read_bytes()
        path.write_bytes(whole[:100]) if damage == "damaged" else path.unlink()
        with pytest.raises(DecisionRefused, match=f"of version 1 is {damage}, and the registry .* does not answer"):
            promote(without_registry(desk), "1", "why", "Ada", NOW)
        assert champion(desk) == "3"
        promote(desk, "1", "why", "Ada", NOW)
        assert path.read_bytes() == whole
        assert champion(desk) == "1"

    def test_another_model_under_the_same_number_is_refused(self, desk: ModelDesk) -> None:
        decide(desk.settings, "4", NOW, REJECTED, trained("foreign"), "0" * 64)
        with pytest.raises(DecisionRefused, match="knows version 4, but the registry does not have it"):
            promote(desk, "4", "why", "Ada", NOW)
        registered(desk, "4" * 64)
        with pytest.raises(DecisionRefused, match="Version 4 of the registry is another training"):
            promote(desk, "4", "why", "Ada", NOW)
        decide(desk.settings, "5", NOW, REJECTED, trained("5" * 64), "0" * 64)
        registered(desk, "5" * 64)
        with pytest.raises(DecisionRefused, match="is not the model that the ledger knows"):
            promote(desk, "5", "why", "Ada", NOW)
        assert champion(desk) == "3"

    def test_one_that_may_not_score_is_promoted_with_a_warning(self, desk: ModelDesk) -> None:
        other = replace(CONTRACT, definition_hash="b" * 64)
        result = trained("4" * 64, contract=other)
        decide(desk.settings, "4", NOW, REJECTED, result, registered(desk, "4" * 64, contract=other))
        (warning,) = promote(desk, "4", "why", "Ada", NOW).warnings
        assert warning.startswith("It may not score, version 3 does: version 4 was trained on another definition of technical_v1")
        assert (champion(desk), alias(desk)) == ("3", ["3"])

    def test_one_of_another_horizon_is_promoted_for_that(self, desk: ModelDesk) -> None:
        decide(desk.settings, "4", NOW, REJECTED, trained("4" * 64, horizon=5), registered(desk, "4" * 64, horizon=5))
        (warning,) = promote(desk, "4", "why", "Ada", NOW).warnings
        assert "for horizon 5 and label threshold 0, and the settings ask for horizon 1" in warning
        assert (champion(desk), alias(desk)) == ("3", ["3"])
        found = desk.in_use(5, 0.0)
        assert found is not None
        assert found.model_version == "4"

    def test_without_mlflow_the_ledger_decides_and_the_alias_follows_later(self, desk: ModelDesk) -> None:
        (warning,) = promote(without_registry(desk), "1", "why", "Ada", NOW).warnings
        assert "alias champion does not yet" in warning
        assert (champion(desk), alias(desk)) == ("1", ["3"])
        assert sync_champion(desk) == "The alias champion points to version 1 now."
        assert sync_champion(desk) is None
        assert alias(desk) == ["1"]

    def test_an_mlflow_that_fails_in_between_is_told(self, desk: ModelDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        def down(*_: object) -> None:
            raise QuantAssetsError("MLflow went away")

        monkeypatch.setattr(Registry, "set_decision", down)
        (warning,) = promote(desk, "1", "why", "Ada", NOW).warnings
        assert warning.endswith("MLflow went away")
        assert champion(desk) == "1"

    def test_what_cannot_be_is_refused(self, desk: ModelDesk) -> None:
        with pytest.raises(DecisionRefused, match="There is no model version '9'"):
            promote(desk, "9", "why", "Ada", NOW)
        for reason, by in ((" ", "Ada"), ("why", "")):
            with pytest.raises(ConfigurationError, match="needs a"):
                promote(desk, "1", reason, by, NOW)
        assert desk.decisions().height == 3

    def test_two_people_at_one_moment_do_not_overrule_each_other_unseen(self, desk: ModelDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        from quant_assets.signals.registry import actions as registry_actions

        verified = registry_actions.verified_copy

        def meanwhile(*given: object) -> tuple[str, bool]:
            decide(desk.settings, "2", NOW, PROMOTED, trained("2" * 64))
            return verified(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(registry_actions, "verified_copy", meanwhile)
        with pytest.raises(DecisionRefused, match="Somebody has decided"):
            promote(desk, "1", "why", "Ada", NOW)
        assert champion(desk) == "2"


class TestRollback:
    def test_goes_back_one_and_again_one_further(self, desk: ModelDesk) -> None:
        outcome = rollback(desk, "it lost money", "Ada", NOW)
        assert outcome.done == ("Version 2 is champion again for horizon 1 and label threshold 0, instead of version 3.",)
        assert desk.decisions().row(-1, named=True)["decision"] == ROLLED_BACK
        assert desk.decisions().row(-1, named=True)["incumbent_version"] == "3"
        assert (champion(desk), alias(desk)) == ("2", ["2"])
        rollback(desk, "that too", "Ada", NOW)
        assert (champion(desk), alias(desk)) == ("1", ["1"])
        with pytest.raises(DecisionRefused, match="Before version 1 there was no champion"):
            rollback(desk, "and that", "Ada", NOW)
        promote(desk, "3", "it was the best", "Ada", NOW)
        rollback(desk, "no", "Ada", NOW)
        assert champion(desk) == "1"

    def test_a_repeated_command_does_not_go_back_twice(self, desk: ModelDesk) -> None:
        rollback(desk, "why", "Ada", NOW, expected="3")
        with pytest.raises(DecisionRefused, match="The champion is version 2, not 3"):
            rollback(desk, "why", "Ada", NOW, expected="3")
        assert champion(desk) == "2"

    def test_versions_that_may_not_score_are_passed_over(self, desk: ModelDesk) -> None:
        other = replace(CONTRACT, definition_hash="b" * 64)
        decide(desk.settings, "4", NOW, PROMOTED, trained("4" * 64, contract=other), registered(desk, "4" * 64, contract=other))
        assert champion(desk) == "3"
        rollback(desk, "why", "Ada", NOW + timedelta(days=1))
        assert champion(desk) == "2"

    def test_a_copy_that_is_gone_is_written_again_or_the_rollback_refused(self, desk: ModelDesk) -> None:
        local_copy(desk.settings.models_path, "2").unlink()
        with pytest.raises(DecisionRefused, match="is missing"):
            rollback(without_registry(desk), "why", "Ada", NOW)
        assert champion(desk) == "3"
        assert rollback(desk, "why", "Ada", NOW).done[0] == "The local copy of version 2 was written again from the registry."

    def test_nobody_to_go_back_from(self, tmp_path: Path) -> None:
        with shelf.desk(tmp_path, horizon=5) as desk, pytest.raises(DecisionRefused, match="There is no champion for horizon 5"):
            rollback(desk, "why", "Ada", NOW)


class TestDelete:
    def test_removes_files_and_version_and_keeps_what_it_said(self, desk: ModelDesk) -> None:
        outcome = delete(desk, "1", "too old", "Ada", NOW)
        assert outcome.written
        assert len(outcome.done) == 4
        assert not local_copy(desk.settings.models_path, "1").exists()
        assert not model_card_path(desk.settings.models_path, "1").exists()
        assert list(desk.registered()) == ["2", "3"]
        assert desk.decisions().filter(model_version="1")["decision"].to_list() == [PROMOTED, DELETED]
        assert (champion(desk), alias(desk)) == ("3", ["3"])
        again = delete(desk, "1", "too old", "Ada", NOW)
        assert (again.written, again.done) == (False, ("Version 1 was deleted before.",))
        with pytest.raises(DecisionRefused, match=r"Version 1 was deleted at .*: too old"):
            promote(desk, "1", "why", "Ada", NOW)
        rollback(desk, "why", "Ada", NOW)
        with pytest.raises(DecisionRefused, match="Before version 2"):
            rollback(desk, "why", "Ada", NOW)

    def test_the_champion_stays(self, desk: ModelDesk) -> None:
        with pytest.raises(DecisionRefused, match="Version 3 is the champion"):
            delete(desk, "3", "why", "Ada", NOW)
        delete(desk, "2", "why", "Ada", NOW)
        delete(desk, "1", "why", "Ada", NOW)
        with pytest.raises(DecisionRefused, match="Version 3 is the only promoted version"):
            delete(desk, "3", "why", "Ada", NOW)
        assert list(desk.registered()) == ["3"]

    def test_one_that_was_cut_off_is_completed(self, desk: ModelDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Registry, "delete_version", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            delete(desk, "1", "why", "Ada", NOW)
        monkeypatch.undo()
        assert "1" in desk.registered()
        outcome = delete(desk, "1", "why", "Ada", NOW)
        assert outcome.done[:2] == ("Version 1 was deleted before.", "It was removed from the registry.")
        assert not local_copy(desk.settings.models_path, "1").exists()

    def test_without_mlflow_nothing_is_deleted(self, desk: ModelDesk) -> None:
        with pytest.raises(DecisionRefused, match="that does not answer"):
            delete(without_registry(desk), "1", "why", "Ada", NOW)
        assert desk.decisions().height == 3

    def test_a_version_that_only_the_ledger_has_left_can_be_deleted(self, desk: ModelDesk) -> None:
        assert desk.registry is not None
        desk.registry.delete_version("1")
        assert delete(desk, "1", "gone in the registry", "Ada", NOW).written


class TestProperties:
    def test_the_order_of_champions_ends_with_the_one_in_use(self, desk: ModelDesk) -> None:
        """Whatever is done, one after another."""
        steps = [
            lambda: promote(desk, "1", "why", "Ada", NOW),
            lambda: rollback(desk, "why", "Ada", NOW),
            lambda: promote(desk, "2", "why", "Ada", NOW),
            lambda: delete(desk, "3", "why", "Ada", NOW),
            lambda: promote(desk, "1", "why", "Ada", NOW),
            lambda: rollback(desk, "why", "Ada", NOW),
        ]
        found = []
        for step in steps:
            step()
            order = champions_in_order(desk.decisions(), 1, 0.0)
            assert order[-1] == champion(desk) == alias(desk)[0]
            found.append("".join(order))
        assert found == ["1231", "123", "1232", "12", "121", "12"]
        assert desk.decisions()["promoted_at"].is_unique().all()


class TestOutcome:
    def test_markdown_is_a_list_with_warnings_in_bold(self) -> None:
        assert Outcome("1", True, ("Done.",), ("Look.",)).markdown == "- Done.\n- **Warning:** Look."


def registered(desk: ModelDesk, fingerprint: str, *, keep: bool = True, horizon: int = 1, contract: FeatureContract = CONTRACT) -> str:
    """Register one more training and, unless told otherwise, keep its local copy; returns the copy's hash."""
    assert desk.registry is not None
    result = trained(fingerprint, horizon=horizon, contract=contract)
    version = desk.registry.log_training(result, contract, "r", "signals/model").version
    where = desk.settings.models_path if keep else desk.settings.home / "elsewhere"
    return save_local_copy(where, version, result.model, contract)
