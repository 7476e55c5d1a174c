"""What is known of model versions, with MLflow and without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.signals.champions import DELETED, PROMOTED, REJECTED, ROLLED_BACK
from quant_assets.signals.registry.desk import DecisionRefused, ModelDesk, champions_in_order, facts_of, list_versions, show_version
from quant_assets.signals.registry.local_copies import local_copy, model_card_path
from quant_assets_tests.signals import trained as shelf
from quant_assets_tests.signals.trained import CONTRACT, FIRST_DECISION, decide, trained


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[ModelDesk]:
    with shelf.desk(tmp_path) as opened:
        yield opened


class TestRegression:
    def test_a_version_is_told_at_a_glance(self, desk: ModelDesk) -> None:
        local_copy(desk.settings.models_path, "2").write_text("half")
        local_copy(desk.settings.models_path, "1").unlink()
        told = list_versions(desk)
        assert told["version"].to_list() == ["3", "2", "1"]
        assert told["in_use"].to_list() == [True, False, False]
        assert told["local_copy"].to_list() == ["verified", "damaged", "missing"]
        assert told["aliases"].to_list() == ["champion", "", ""]
        assert told.row(2, named=True).items() >= {
            "trained_until": shelf.TRAINED_UNTIL, "family": "lightgbm", "feature_view": "technical_v1", "horizon": 1, "label_threshold": 0.0,
            "decision": PROMOTED, "decided_by": "the rule", "decided_at": FIRST_DECISION + timedelta(days=1), "rank_ic": 0.125,
            "rank_ic_low": 0.05, "rank_ic_high": 0.2, "log_loss": 0.6875, "log_loss_high": None, "base_rate_log_loss": 0.693,
        }.items()  # fmt: skip

    def test_without_mlflow_the_ledger_tells_what_it_knows(self, desk: ModelDesk) -> None:
        told, known = list_versions(replace(desk, registry=None)), list_versions(desk)
        assert told["aliases"].null_count() == told["family"].null_count() == 3
        assert told.drop("aliases", "family").equals(known.drop("aliases", "family"))

    def test_a_registered_version_that_nobody_decided_about(self, desk: ModelDesk) -> None:
        assert desk.registry is not None
        desk.registry.log_training(trained("4" * 64, horizon=5, label_threshold=0.02), CONTRACT, "r", "signals/model")
        row = list_versions(desk).row(0, named=True)
        assert (row["version"], row["horizon"], row["label_threshold"], row["rank_ic"]) == ("4", 5, 0.02, 0.125)
        assert (row["decision"], row["local_copy"], row["in_use"]) == (None, None, False)
        assert facts_of(desk, "4")["model_sha256"] is None

    def test_a_deleted_version_stays_in_the_list(self, desk: ModelDesk) -> None:
        decide(desk.settings, "1", FIRST_DECISION + timedelta(days=9), DELETED)
        assert list_versions(desk)["decision"].to_list() == [PROMOTED, PROMOTED, DELETED]

    def test_the_card_lies_here_or_in_mlflow(self, desk: ModelDesk) -> None:
        card, decisions = show_version(desk, "2")
        assert (card, decisions["decision"].to_list()) == ("# Version 2, here", [PROMOTED])
        model_card_path(desk.settings.models_path, "2").unlink()
        assert show_version(desk, "2")[0] == "# Version 2"
        assert show_version(replace(desk, registry=None), "2")[0] is None
        with pytest.raises(DecisionRefused, match="There is no model version '9'"):
            show_version(desk, "9")

    def test_nothing_at_all(self, tmp_path: Path) -> None:
        from quant_assets.settings import load_settings
        from quant_assets.warehouse import Warehouse

        settings = load_settings(home=tmp_path, mlflow_tracking_uri="")
        desk = ModelDesk.open(Warehouse(settings.warehouse_path, "files"), settings)
        assert desk.registry_fault.startswith("There is no MLflow store")
        assert list_versions(desk).is_empty()


STEPS = st.lists(st.tuples(st.sampled_from("123"), st.sampled_from([PROMOTED, REJECTED, ROLLED_BACK, DELETED])), max_size=12)


def ledger(steps: list[tuple[str, str]]) -> pl.DataFrame:
    rows = [(version, decision, 1, 0.0) for version, decision in steps]
    return pl.DataFrame(rows, schema=["model_version", "decision", "horizon", "label_threshold"], orient="row")


class TestProperties:
    @given(STEPS)
    def test_who_was_put_in_use_last_and_is_not_deleted_comes_last(self, steps: list[tuple[str, str]]) -> None:
        order = champions_in_order(ledger(steps), 1, 0.0) if steps else []
        alive = [
            version
            for number, (version, decision) in enumerate(steps)
            if decision in (PROMOTED, ROLLED_BACK) and (version, DELETED) not in steps[number:]
        ]
        assert set(order) <= set(alive)
        assert all(one != other for one, other in pairwise(order))
        if steps and steps[-1][1] in (PROMOTED, ROLLED_BACK):
            assert order[-1] == steps[-1][0]

    @given(STEPS)
    def test_labels_are_apart(self, steps: list[tuple[str, str]]) -> None:
        if steps:
            assert champions_in_order(ledger(steps), 5, 0.0) == champions_in_order(ledger(steps), 1, 0.02) == []
