"""Champions: the ledger alone says which version may score a session, and never one that could have seen it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.schemas import PROMOTIONS
from quant_assets.signals.champions import (
    DELETED,
    MODEL,
    PROMOTED,
    REJECTED,
    ROLLED_BACK,
    Champion,
    champion_for,
    champion_in_use,
    champions_for,
)
from quant_assets.warehouse import Warehouse, append_ledger

CLOSE = datetime(2024, 3, 5, 21)
NOON = CLOSE - timedelta(hours=4)
EVENING = CLOSE + timedelta(minutes=30)
VIEW, DEFINITION = "technical_v1", "a" * 64
NEXT_CLOSE = CLOSE + timedelta(days=1)
LATER = datetime(2030, 1, 1)


def promote(
    warehouse: Warehouse,
    version: int,
    promoted_at: datetime,
    trained_until: datetime,
    horizon: int = 1,
    model: str = MODEL,
    view: str = VIEW,
    definition: str = DEFINITION,
    decision: str = PROMOTED,
    label_threshold: float = 0.0,
) -> None:
    """One row of the ledger."""
    write(warehouse, [(version, promoted_at, trained_until, horizon, model)], view, definition, decision, label_threshold)


def write(
    warehouse: Warehouse,
    ledger: Sequence[tuple[int, datetime, datetime, int, str]],
    view: str = VIEW,
    definition: str = DEFINITION,
    decision: str = PROMOTED,
    label_threshold: float = 0.0,
    *,
    anew: bool = False,
) -> None:
    """Rows of the ledger; only what a champion is told by matters."""
    rows = [
        {
            "model": model, "model_version": str(version), "promoted_at": promoted_at, "decision": decision, "decided_by": "the rule",
            "reason": "better", "incumbent_version": None, "trained_until": trained_until, "horizon": horizon, "label_threshold": label_threshold,
            "feature_view": view, "definition_hash": definition, "fingerprint": f"fingerprint-{version}",
            "model_sha256": f"sha-{version}", "mlflow_run_id": "", "evidence": "{}", "run_id": "", "recorded_at": datetime(2024, 1, 1),
        }
        for version, promoted_at, trained_until, horizon, model in ledger
    ]  # fmt: skip
    with warehouse.transaction() as connection:
        if anew:
            connection.execute("delete from signals.promotions")
        assert append_ledger(connection, PROMOTIONS, pl.DataFrame(rows, schema=PROMOTIONS.polars_schema)) == len(rows)


def champion(warehouse: Warehouse, close: datetime, as_of: datetime = LATER, horizon: int = 1) -> str | None:
    found = champion_for(warehouse, horizon, close, as_of, VIEW, DEFINITION)
    return found.model_version if found else None


class TestRegression:
    def test_nobody_was_promoted(self, warehouse: Warehouse) -> None:
        assert champion_for(warehouse, 1, CLOSE, LATER, VIEW, DEFINITION) is None
        assert champions_for(warehouse, 1, [], LATER, VIEW, DEFINITION) == {}

    def test_what_was_known_at_the_close_is_too_much(self, warehouse: Warehouse) -> None:
        promote(warehouse, 1, EVENING, CLOSE)
        assert champion(warehouse, CLOSE) is None
        promote(warehouse, 2, EVENING, CLOSE - timedelta(microseconds=1))
        found = champion_for(warehouse, 1, CLOSE, LATER, VIEW, DEFINITION)
        assert found == Champion("2", CLOSE - timedelta(microseconds=1), VIEW, DEFINITION, "sha-2")
        assert found.misfit(VIEW, DEFINITION) is None

    def test_promoted_before_the_close_wins_over_later(self, warehouse: Warehouse) -> None:
        promote(warehouse, 1, NOON - timedelta(days=9), NOON - timedelta(days=10))
        promote(warehouse, 2, NOON, NOON - timedelta(days=1))
        promote(warehouse, 3, EVENING, NOON)
        assert champion(warehouse, CLOSE) == "2"
        assert champion(warehouse, NOON) == "1"
        assert champion(warehouse, NEXT_CLOSE) == "3"
        assert {close: found.model_version for close, found in champions_for(warehouse, 1, [NOON, CLOSE, CLOSE, NEXT_CLOSE], LATER, VIEW, DEFINITION).items()} == {
            NOON: "1", CLOSE: "2", NEXT_CLOSE: "3",
        }  # fmt: skip

    def test_promoted_at_the_close_is_not_before_it(self, warehouse: Warehouse) -> None:
        promote(warehouse, 1, NOON, NOON - timedelta(days=1))
        promote(warehouse, 2, CLOSE, NOON - timedelta(days=1))
        assert champion(warehouse, CLOSE) == "1"

    def test_training_again_on_the_same_evening_changes_tomorrow_only(self, warehouse: Warehouse) -> None:
        """Version 10 and 9 share their instant: the number tells which came last, as a number and not as text."""
        promote(warehouse, 9, EVENING, NOON)
        assert champion(warehouse, CLOSE) == "9"
        promote(warehouse, 10, EVENING, NOON)
        assert (champion(warehouse, CLOSE), champion(warehouse, NEXT_CLOSE)) == ("9", "10")
        promote(warehouse, 11, EVENING + timedelta(hours=2), NOON)
        assert (champion(warehouse, CLOSE), champion(warehouse, NEXT_CLOSE)) == ("9", "11")

    def test_as_of_an_instant_later_promotions_are_unknown(self, warehouse: Warehouse) -> None:
        promote(warehouse, 1, EVENING, NOON)
        assert champion(warehouse, CLOSE, as_of=EVENING - timedelta(seconds=2)) is None
        assert champion(warehouse, CLOSE, as_of=EVENING) == "1"
        promote(warehouse, 2, EVENING + timedelta(hours=1), NOON)
        assert champion(warehouse, NEXT_CLOSE, as_of=EVENING) == "1"

    def test_horizons_and_models_are_apart(self, warehouse: Warehouse) -> None:
        promote(warehouse, 1, NOON, NOON - timedelta(days=9), horizon=1)
        promote(warehouse, 2, NOON, NOON - timedelta(days=9), horizon=5)
        promote(warehouse, 3, NOON, NOON - timedelta(days=9), model="regime")
        assert (champion(warehouse, CLOSE, horizon=1), champion(warehouse, CLOSE, horizon=5)) == ("1", "2")
        assert champion(warehouse, CLOSE, horizon=20) is None

    def test_promoted_again_is_champion_again(self, warehouse: Warehouse) -> None:
        promote(warehouse, 1, NOON - timedelta(days=3), NOON - timedelta(days=9))
        promote(warehouse, 2, NOON - timedelta(days=2), NOON - timedelta(days=9))
        promote(warehouse, 1, NOON - timedelta(days=1), NOON - timedelta(days=9))
        assert champion(warehouse, CLOSE) == "1"
        assert champion(warehouse, NOON - timedelta(days=1)) == "2"

    @pytest.mark.parametrize(
        ("view", "definition", "why"),
        [
            ("alpha_v1", DEFINITION, "version 1 was trained on the view alpha_v1, not on technical_v1"),
            (VIEW, "b" * 64, f"version 1 was trained on another definition of technical_v1: {'b' * 12}, which is {'a' * 12} now"),
        ],
    )
    def test_another_view_or_definition_gives_way_whenever_it_was_promoted(
        self, view: str, definition: str, why: str, warehouse: Warehouse
    ) -> None:
        promote(warehouse, 1, NOON, NOON - timedelta(days=1), view=view, definition=definition)
        found = champion_for(warehouse, 1, CLOSE, LATER, VIEW, DEFINITION)
        assert found is not None
        assert found.misfit(VIEW, DEFINITION) == why
        promote(warehouse, 2, EVENING, NOON)
        promote(warehouse, 3, EVENING + timedelta(hours=1), NOON, view=view, definition=definition)
        assert (champion(warehouse, CLOSE), champion(warehouse, NEXT_CLOSE)) == ("2", "2")

    def test_a_challenger_turned_down_never_scores(self, warehouse: Warehouse) -> None:
        promote(warehouse, 1, NOON - timedelta(days=2), NOON - timedelta(days=9))
        promote(warehouse, 2, NOON - timedelta(days=1), NOON - timedelta(days=3), decision=REJECTED)
        assert champion(warehouse, CLOSE) == "1"
        promote(warehouse, 2, NOON, NOON - timedelta(days=3))
        assert (champion(warehouse, NOON), champion(warehouse, CLOSE)) == ("1", "2")

    def test_rolled_back_to_is_champion_from_then_on(self, warehouse: Warehouse) -> None:
        promote(warehouse, 1, NOON - timedelta(days=3), NOON - timedelta(days=9))
        promote(warehouse, 2, NOON - timedelta(days=2), NOON - timedelta(days=9))
        promote(warehouse, 1, NOON - timedelta(days=1), NOON - timedelta(days=9), decision=ROLLED_BACK)
        assert [champion(warehouse, NOON - timedelta(days=days)) for days in (2, 1, 0)] == ["1", "2", "1"]

    def test_a_deleted_version_scores_nothing_from_the_instant_at_which_that_is_known(self, warehouse: Warehouse) -> None:
        promote(warehouse, 1, NOON - timedelta(days=3), NOON - timedelta(days=9))
        promote(warehouse, 2, NOON - timedelta(days=2), NOON - timedelta(days=9))
        promote(warehouse, 2, NOON, NOON - timedelta(days=9), decision=DELETED)
        assert champion(warehouse, CLOSE) == "1"
        assert champion(warehouse, NOON - timedelta(days=1)) == "1"  # its file is gone, so it scores no past session either
        assert champion(warehouse, NOON, as_of=NOON - timedelta(hours=1)) == "2"
        promote(warehouse, 2, NOON + timedelta(hours=1), NOON - timedelta(days=9))
        assert champion(warehouse, CLOSE) == "2"

    def test_labels_of_another_threshold_have_a_champion_of_their_own(self, warehouse: Warehouse) -> None:
        promote(warehouse, 1, NOON - timedelta(days=1), NOON - timedelta(days=9))
        promote(warehouse, 2, NOON, NOON - timedelta(days=9), label_threshold=0.02)
        assert champion(warehouse, CLOSE) == "1"
        found = [champion_for(warehouse, 1, CLOSE, LATER, VIEW, DEFINITION, threshold) for threshold in (0.02, 0.03)]
        assert [each and each.model_version for each in found] == ["2", None]

    def test_in_use_is_what_the_last_decision_put_there(self, warehouse: Warehouse) -> None:
        assert champion_in_use(warehouse, 1, VIEW, DEFINITION) is None
        promote(warehouse, 1, NOON, NOON - timedelta(days=9))
        promote(warehouse, 2, LATER, NOON - timedelta(days=9))
        found = champion_in_use(warehouse, 1, VIEW, DEFINITION)
        assert found is not None
        assert found.model_version == "2"

    def test_the_ledger_decides_without_mlflow(self, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "mlflow", None)  # from here on importing it fails
        promote(warehouse, 1, NOON, NOON - timedelta(days=1))
        assert champion(warehouse, CLOSE) == "1"


HOURS = st.integers(0, 12)
LEDGER = st.lists(st.tuples(st.integers(1, 12), HOURS, HOURS, st.sampled_from([1, 5])), max_size=8, unique_by=lambda row: row[0])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return Warehouse(tmp_path_factory.mktemp("ledger") / "quant.duckdb", "files")


def at(hour: int) -> datetime:
    return CLOSE + timedelta(hours=hour)


class TestProperties:
    @given(ledger=LEDGER, closes=st.sets(HOURS, min_size=1), as_of=HOURS)
    @settings(max_examples=20, deadline=None)
    def test_equals_the_rule_read_aloud(
        self, shared: Warehouse, ledger: list[tuple[int, int, int, int]], closes: set[int], as_of: int
    ) -> None:
        write(shared, [(version, at(promoted), at(trained), horizon, MODEL) for version, promoted, trained, horizon in ledger], anew=True)
        wanted = {}
        for close in closes:
            may = sorted(
                (when, version) for version, when, trained, horizon in ledger if horizon == 1 and trained < close and when <= as_of
            )
            before, after = [row for row in may if row[0] < close], [row for row in may if row[0] >= close]
            if may:
                wanted[at(close)] = str((before[-1] if before else after[0])[1])
        found = champions_for(shared, 1, [at(close) for close in closes], at(as_of), VIEW, DEFINITION)
        assert {close: each.model_version for close, each in found.items()} == wanted

    @given(ledger=LEDGER, close=HOURS, more=st.lists(HOURS, min_size=1, max_size=3))
    @settings(max_examples=10, deadline=None)
    def test_no_later_training_takes_over_a_session_that_was_scored(
        self, shared: Warehouse, ledger: list[tuple[int, int, int, int]], close: int, more: list[int]
    ) -> None:
        write(shared, [(version, at(promoted), at(trained), horizon, MODEL) for version, promoted, trained, horizon in ledger], anew=True)
        scorer = champion(shared, at(close))
        evening = max([close, *(row[1] for row in ledger)])
        write(shared, [(20 + n, at(evening + hours), at(-1), 1, MODEL) for n, hours in enumerate(sorted(more))])
        assert champion(shared, at(close)) == (scorer or "20")
