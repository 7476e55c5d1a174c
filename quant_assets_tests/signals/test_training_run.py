"""From the warehouse to the registry: trained before the close, registered once, kept whole whatever was killed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from quant_assets.errors import FeaturesUnavailable, QuantAssetsError
from quant_assets.feature_store.views import definition_hash
from quant_assets.schemas import PREDICTIONS, PROMOTIONS
from quant_assets.signals import training_run
from quant_assets.signals.champions import MODEL, Champion, champion_for
from quant_assets.signals.registry import tracking
from quant_assets.signals.registry.local_copies import load_local_copy
from quant_assets.signals.splits import TooFewSessions
from quant_assets.signals.training_run import LOOKED_AT, Trained, train_and_register
from quant_assets.warehouse import change_counter
from quant_assets_tests.signals.nights import Desk, MemoryRegistry, in_memory

LAST = 150
VIEW = "technical_v1"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A market of five awkward names, nothing trained yet."""
    return Desk.new(tmp_path_factory.mktemp("market"), 5, LAST)


@pytest.fixture
def desk(untrained: Desk, tmp_path: Path) -> Desk:
    return untrained.copy(tmp_path)


def writes(desk: Desk) -> int:
    """How many writes have changed the warehouse."""
    with desk.warehouse.connect() as connection:
        return change_counter(connection)


def promotions(desk: Desk) -> pl.DataFrame:
    return desk.warehouse.read("select * from signals.promotions order by promoted_at, model_version")


def champion(desk: Desk, number: int = LAST) -> Champion | None:
    return champion_for(desk.warehouse, 1, desk.close(number), desk.evening(number), VIEW, definition_hash(VIEW))


def train(desk: Desk) -> Trained:
    """Train quickly and register in a real MLflow."""
    return train_and_register(desk.warehouse, desk.calendar, desk.settings, desk.evening(LAST), "run", "signals/model")


def versions(desk: Desk) -> list[str]:
    """The version numbers in MLflow."""
    registry = tracking.Registry.open(desk.settings)
    return [str(version.version) for version in registry.client.search_model_versions(f"name = '{MODEL}'")]


def interrupt(*_: object) -> None:
    """What a kill looks like from within."""
    raise KeyboardInterrupt


class TestRegistered:
    """With a real MLflow, which a first training was killed in front of the ledger of."""

    @pytest.fixture(scope="class")
    @classmethod
    def killed(cls, untrained: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
        desk = untrained.copy(tmp_path_factory.mktemp("registered"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training_run, "_keep", interrupt)
            with pytest.raises(KeyboardInterrupt):
                train(desk)
        assert promotions(desk).is_empty()
        assert champion(desk) is None
        return desk

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, killed: Desk) -> Trained:
        return train(killed)

    def test_the_next_call_takes_the_version_and_writes_the_ledger(self, killed: Desk, trained: Trained) -> None:
        assert (trained.model_version, trained.registered_before) == ("1", True)
        assert versions(killed) == ["1"]
        (row,) = promotions(killed).to_dicts()
        assert (row["model_version"], row["promoted_at"], row["horizon"], row["run_id"]) == ("1", killed.evening(LAST), 1, "run")
        assert (row["fingerprint"], row["trained_until"]) == (trained.result.fingerprint, trained.result.trained_until)
        run = tracking.Registry.open(killed.settings).client.get_run(row["mlflow_run_id"])
        assert (run.info.status, run.data.tags["fingerprint"]) == ("FINISHED", trained.result.fingerprint)
        assert run.data.params["rows"] == str(trained.result.rows)
        evidence = json.loads(row["evidence"], parse_constant=pytest.fail)
        assert {name: evidence[name] for name in LOOKED_AT} == {name: trained.result.evaluation.summary[name] for name in LOOKED_AT}
        assert (row["decision"], row["incumbent_version"], evidence["incumbent"]) == ("promoted", None, "no skill")
        assert run.data.tags.keys() >= {"git_commit", "feature_view", "definition_hash", "dagster_run_id"}
        found = champion(killed)
        assert found is not None
        booster, contract = load_local_copy(
            killed.settings.models_path, found.model_version, found.model_sha256, VIEW, definition_hash(VIEW)
        )
        assert booster.features == contract.names
        assert contract.definition_hash == found.definition_hash

    def test_training_again_changes_nothing(self, killed: Desk, trained: Trained) -> None:
        before, copies = writes(killed), [path.read_bytes() for path in killed.settings.models_path.iterdir()]
        again = train(killed)
        assert (again.model_version, again.registered_before, again.result.fingerprint) == ("1", True, trained.result.fingerprint)
        assert (again.mlflow_url, again.result.evaluation.summary) == (trained.mlflow_url, trained.result.evaluation.summary)
        assert (writes(killed), versions(killed)) == (before, ["1"])
        assert [path.read_bytes() for path in killed.settings.models_path.iterdir()] == copies

    def test_an_alias_moved_by_hand_moves_no_champion(self, killed: Desk, trained: Trained) -> None:
        client = tracking.Registry.open(killed.settings).client
        assert str(client.get_model_version_by_alias(MODEL, tracking.CHAMPION).version) == "1"
        before = champion(killed)
        client.delete_registered_model_alias(MODEL, tracking.CHAMPION)
        assert before is not None
        assert champion(killed) == before


class TestKept:
    def test_predictions_are_those_of_the_folds(self, desk: Desk) -> None:
        trained = desk.train(desk.evening(LAST))
        kept = desk.warehouse.read("select * from signals.predictions order by session, symbol")
        assert kept.schema == PREDICTIONS.polars_schema
        assert kept.select("model", "model_version", "horizon", "known_at").unique().rows() == [(MODEL, "1", 1, desk.evening(LAST))]
        per_fold = kept.group_by("fold", maintain_order=True).agg(
            pl.col("session").min().alias("first"), pl.col("session").max().alias("last")
        )
        assert per_fold.rows() == trained.result.folds.select("fold", "test_from", "test_to").rows()
        # 120 sessions to train on, one purged; the outcome of the last session but one is the last that was known
        assert (per_fold["first"][0], per_fold["last"][-1]) == (desk.session(122), desk.session(LAST - 2))

    def test_the_ledger_and_the_predictions_are_written_together_or_not_at_all(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(training_run, "append_ledger", interrupt)
        with pytest.raises(KeyboardInterrupt):
            desk.train(desk.evening(LAST))
        assert desk.warehouse.read("select * from signals.predictions").is_empty()
        monkeypatch.undo()
        trained = desk.train(desk.evening(LAST))
        assert (trained.model_version, trained.registered_before) == ("1", True)
        assert promotions(desk)["model_version"].to_list() == ["1"]
        assert desk.warehouse.read("select * from signals.predictions").height > 0

    def test_a_lost_copy_is_written_anew(self, desk: Desk) -> None:
        desk.train(desk.evening(LAST))
        (file,) = desk.settings.models_path.glob("*.json")
        whole = file.read_bytes()
        file.unlink()
        assert desk.train(desk.evening(LAST)).registered_before
        assert file.read_bytes() == whole

    def test_another_setting_is_another_version(self, desk: Desk) -> None:
        first, second = desk.train(desk.evening(LAST)), desk.train(desk.evening(LAST), model_seed=8)
        assert (first.model_version, second.model_version) == ("1", "2")
        assert first.result.fingerprint != second.result.fingerprint
        again = desk.train(desk.evening(LAST))
        assert (again.model_version, again.registered_before) == ("1", True)
        assert promotions(desk)["model_version"].to_list() == ["1", "2"]

    def test_a_registry_that_counts_anew_is_refused(self, desk: Desk) -> None:
        """Another MLflow under the same HOME starts with version 1, which the ledger knows as another model."""
        first = desk.train(desk.evening(LAST))
        before, copy = writes(desk), next(desk.settings.models_path.glob("*.json")).read_bytes()
        desk.registry = MemoryRegistry()
        with pytest.raises(
            QuantAssetsError, match=rf"numbered this training 1 .*knows version 1 as another training \({first.result.fingerprint[:12]}"
        ):
            desk.train(desk.evening(LAST), model_seed=8)
        assert (writes(desk), next(desk.settings.models_path.glob("*.json")).read_bytes()) == (before, copy)
        assert champion(desk) is not None

    def test_an_earlier_instant_has_its_own_promotion(self, desk: Desk) -> None:
        """Trained later in the evening: as of the close plus delay the version was not champion yet, and may become it."""
        desk.train(desk.evening(LAST) + timedelta(hours=2))
        assert champion(desk) is None
        trained = desk.train(desk.evening(LAST))
        assert trained.registered_before
        assert promotions(desk).select("model_version", "promoted_at").rows() == [
            ("1", desk.evening(LAST)),
            ("1", desk.evening(LAST) + timedelta(hours=2)),
        ]
        found = champion(desk)
        assert found is not None
        assert found.model_version == "1"
        before = writes(desk)
        desk.train(desk.evening(LAST))
        desk.train(desk.evening(LAST) + timedelta(hours=5))
        assert writes(desk) == before


class TestKnownBefore:
    def test_no_label_of_tonight_is_in(self, desk: Desk) -> None:
        trained = desk.train(desk.evening(LAST))
        labels = desk.warehouse.read(
            "select count(*) as n, max(known_at) as last from feature_store.labels where horizon = 1 and known_at < $close",
            {"close": desk.close(LAST)},
        )
        assert labels.row(0) == (trained.result.rows, trained.result.trained_until)
        assert trained.result.trained_until == desk.evening(LAST - 1)
        assert trained.result.trained_until < desk.close(LAST)

    def test_longer_horizons_know_fewer_outcomes(self, desk: Desk) -> None:
        one, five = desk.train(desk.evening(LAST)), desk.train(desk.evening(LAST), horizon=5)
        assert one.result.trained_until == five.result.trained_until == desk.evening(LAST - 1)
        assert promotions(desk).select("model_version", "horizon").rows() == [("1", 1), ("2", 5)]
        last = desk.warehouse.read("select horizon, max(session) as last from signals.predictions group by horizon order by horizon")
        assert last.rows() == [(1, desk.session(LAST - 2)), (5, desk.session(LAST - 6))]

    def test_what_came_later_leaves_the_training_as_it_was(self, desk: Desk) -> None:
        first = desk.train(desk.evening(LAST))
        desk.grow(LAST + 4)
        desk.restate(LAST - 3, "NA", 1.04, desk.evening(LAST + 4))
        before = writes(desk)
        again = desk.train(desk.evening(LAST))
        assert (again.result.fingerprint, again.registered_before, writes(desk)) == (first.result.fingerprint, True, before)
        assert desk.train(desk.evening(LAST + 4)).result.fingerprint != first.result.fingerprint

    def test_a_slow_vendor_still_gets_a_champion(self, tmp_path: Path) -> None:
        """A bar that is known a day after its close is not known before the next close: one session more stays out."""
        desk = Desk.new(tmp_path, 2, 130, train_min_sessions=60, delay_minutes=24 * 60)
        assert desk.evening(129) == desk.close(130)
        trained = desk.train(desk.evening(130))
        assert trained.result.trained_until == desk.evening(128)
        assert champion(desk, 130) is not None

    def test_too_few_sessions_leave_no_trace(self, desk: Desk) -> None:
        before = writes(desk)
        with pytest.raises(TooFewSessions, match="148 sessions are too few: 145 to train on"):
            desk.train(desk.evening(LAST), train_min_sessions=145)
        assert (writes(desk), desk.registry.fingerprints, desk.settings.models_path.exists()) == (before, [], False)

    def test_nothing_at_all_is_said(self, desk: Desk, tmp_path: Path) -> None:
        with desk.warehouse.transaction() as connection:
            for table in ("market_data.daily_bars", "feature_store.technical_v1", "feature_store.labels"):
                connection.execute(f"delete from {table}")
        with pytest.raises(FeaturesUnavailable, match="no bar of synthetic is stored at all"):
            desk.train(desk.evening(LAST))


class TestProperties:
    def test_the_ledgers_rows_match_their_declaration(self, desk: Desk) -> None:
        desk.train(desk.evening(LAST))
        assert promotions(desk).schema == PROMOTIONS.polars_schema
        assert promotions(desk).drop("incumbent_version").null_count().sum_horizontal().item() == 0

    def test_no_fold_knew_what_it_scored(self, desk: Desk) -> None:
        desk.train(desk.evening(LAST))
        desk.train(desk.evening(LAST), horizon=5)
        kept = desk.warehouse.read("select session, trained_until, horizon from signals.predictions")
        closes = {session: desk.calendar.close(session) for session in kept["session"].unique()}
        assert all(trained < closes[session] for session, trained, _ in kept.iter_rows())
        assert set(kept["horizon"]) == {1, 5}


class TestAtOnce:
    def test_decisions_of_one_instant_follow_one_another_and_count_at_it(self, desk: Desk) -> None:
        """Another label's training on the same evening: stamped after the first, and yet champion of its own label tonight."""
        desk.train(desk.evening(LAST))
        desk.train(desk.evening(LAST), horizon=5, label_threshold=0.02)
        instants = promotions(desk)["promoted_at"].to_list()
        assert instants == [desk.evening(LAST), desk.evening(LAST) + timedelta(microseconds=1)]
        five = champion_for(desk.warehouse, 5, desk.close(LAST), desk.evening(LAST), VIEW, definition_hash(VIEW), 0.02)
        assert five is not None
        assert five.model_version == "2"
        found = champion(desk)
        assert found is not None
        assert found.model_version == "1"

    def test_a_training_with_another_label_leaves_the_nights_alias(self, desk: Desk) -> None:
        desk.train(desk.evening(LAST))
        with in_memory(desk.registry):
            trained = train_and_register(
                desk.warehouse, desk.calendar, desk.settings, desk.evening(LAST), "run", "signals/model", {"label_threshold": 0.01}
            )
        assert trained.note.startswith("this version is for the view technical_v1, horizon 1 and threshold 0.01; the nights score with")
        assert desk.registry.champion == "1"

    def test_a_training_on_chosen_symbols_is_a_study(self, desk: Desk) -> None:
        with in_memory(desk.registry):
            trained = train_and_register(
                desk.warehouse, desk.calendar, desk.settings, desk.evening(LAST), "run", "signals/model", symbols=["BRK.B", "O'NEIL"]
            )
        assert trained.result.symbols == 2
        assert trained.verdict.decision == "rejected"
        assert "trained on 2 chosen symbols, which is a study" in trained.verdict.reason
        assert champion(desk) is None

    def test_a_rolling_window_serves_what_was_judged(self, desk: Desk) -> None:
        trained = desk.train(desk.evening(LAST), train_window="rolling", train_min_sessions=100)
        assert (trained.result.first_session, trained.result.last_session) == (desk.session(LAST - 101), desk.session(LAST - 2))
        assert trained.result.folds.select((pl.col("train_to") - pl.col("train_from")).dt.total_days()).to_series().max() < 150

    def test_a_lost_card_tells_the_decision_that_was_made(self, desk: Desk) -> None:
        first = desk.train(desk.evening(LAST))
        card = desk.settings.models_path / "signal-1.md"
        card.unlink()
        again = desk.train(desk.evening(LAST))
        assert again.verdict.decision == first.verdict.decision == "promoted"
        assert again.verdict.evidence == first.verdict.evidence
        assert card.read_text() == first.card
