"""A definition is the code and the SQL of a view: what computes it counts, and comments and layout do not."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from quant_assets.clock import trading_calendar
from quant_assets.errors import FeaturesUnavailable
from quant_assets.feature_store import catalog, views
from quant_assets.feature_store.training_sets import ALPHA_SQL
from quant_assets.feature_store.views import definition_hash, features_of, labels_hash, model_sql

FOLDER = Path(views.__file__).parent
NO_PART = {"inputs.py", "catalog.py"}
"""What the code of a view may import beside itself: which bars there are, and the names of the features, which count on their own."""


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package's code and SQL in a folder of their own, to change; the hashes are taken over these."""
    shutil.copytree(FOLDER, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(views._MODELS, tmp_path / "models")
    monkeypatch.setattr(views, "_FOLDER", tmp_path / "code")
    monkeypatch.setattr(views, "_MODELS", tmp_path / "models")
    definition_hash.cache_clear()
    yield tmp_path
    definition_hash.cache_clear()


def hashes() -> dict[str, str]:
    definition_hash.cache_clear()
    return {view: definition_hash(view) for view in catalog.VIEWS} | {"labels": labels_hash(trading_calendar("XNYS", date(2020, 1, 2)))}


def changed(change: Callable[[], object]) -> set[str]:
    """The views whose hash a change changes."""
    before = hashes()
    change()
    return {name for name, found in hashes().items() if found != before[name]}


class TestRegression:
    def test_a_view_has_its_features_in_order(self) -> None:
        assert features_of("technical_v1") == catalog.TECHNICAL_V1
        assert len(features_of("technical_v1")) == 22
        names = [feature.name for feature in features_of("alpha_v1")]
        assert len(set(names)) == len(names) >= 172

    @pytest.mark.parametrize("ask", [features_of, definition_hash])
    def test_an_unknown_view_is_refused(self, ask: Callable[[str], object]) -> None:
        with pytest.raises(FeaturesUnavailable, match="no feature view 'alpha_v2'; there are technical_v1, alpha_v1"):
            ask("alpha_v2")

    @pytest.mark.parametrize(
        ("file", "text", "reached"),
        [
            ("code/recursions.py", "\nOTHER = 1\n", {"technical_v1", "alpha_v1"}),
            ("code/adjustment.py", "\nOTHER = 1\n", {"technical_v1", "alpha_v1", "labels"}),
            ("code/market_series.py", "\nOTHER = 1\n", {"alpha_v1"}),
            ("code/alpha/wilder.py", "\nOTHER = 1\n", {"alpha_v1"}),
            ("code/labels.py", "\nOTHER = 1\n", {"labels"}),
            ("models/features/alpha_v1.sql", "\nlimit 10\n", {"alpha_v1"}),
            ("code/indicators.py", "\n\n# a comment\n", set()),
            ("code/alpha/history.py", '\n\n"""A docstring."""\n', set()),
            ("models/features/alpha_v1.sql", "\n\n   -- a comment\n", set()),
            ("code/drift.py", "\nOTHER = 1\n", set()),
        ],
    )
    def test_what_a_change_reaches(self, copied: Path, file: str, text: str, reached: set[str]) -> None:
        def change() -> None:
            path = copied / file
            path.write_text(path.read_text() + text)

        assert changed(change) == reached

    def test_the_names_count(self, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fewer = catalog.VIEWS | {"technical_v1": catalog.TECHNICAL_V1[:-1]}
        assert changed(lambda: monkeypatch.setattr(views, "VIEWS", fewer)) == {"technical_v1"}

    def test_a_calendar_counts_for_labels(self) -> None:
        start = date(2020, 1, 2)
        calendars = [
            trading_calendar("XNYS", start), trading_calendar("XNYS", start, 60), trading_calendar("XLON", start),
            trading_calendar("XNYS", start, 30, (date(2020, 7, 3),)),
        ]  # fmt: skip
        assert len({labels_hash(calendar) for calendar in calendars}) == 4
        assert labels_hash(trading_calendar("XNYS", date(2021, 1, 4))) != labels_hash(
            calendars[0]
        )  # sessions before the first have no labels

    def test_a_model_runs_outside_of_dbt_over_any_relations(self, copied: Path) -> None:
        (copied / "models" / "one.sql").write_text(
            "select * from {{ source('feature_store', 'technical_v1') }} join {{ref('stg_bars')}} join {{ source( 'market_data' , 'scope' ) }}"
        )
        assert model_sql("one.sql", {}) == "select * from feature_store.technical_v1 join feature_store.stg_bars join market_data.scope"
        then = {"feature_store.technical_v1": "then", "market_data.scope": "scope_as_of(t)", "feature_store.unused": "x"}
        assert model_sql("one.sql", then) == "select * from then join feature_store.stg_bars join scope_as_of(t)"

    @pytest.mark.parametrize("templating", ["{{ config(materialized='table') }}", "{% if true %}", "{{ var('x') }}"])
    def test_other_templating_is_refused(self, copied: Path, templating: str) -> None:
        (copied / "models" / "one.sql").write_text(f"{templating} select * from {{{{ source('a', 'b') }}}}")
        with pytest.raises(FeaturesUnavailable, match=r"one\.sql holds templating beside source and ref"):
            model_sql("one.sql", {})


class TestProperties:
    @pytest.mark.parametrize("view", catalog.VIEWS)
    def test_all_code_that_computes_a_view_counts(self, view: str) -> None:
        """Whatever its modules import from the feature store is hashed too."""
        hashed = set(views._CODE[view])
        for name in hashed:
            modules = [
                node.module for node in ast.walk(ast.parse((FOLDER / name).read_text())) if isinstance(node, ast.ImportFrom) and node.module
            ]
            inside = [
                module.removeprefix("quant_assets.feature_store.") for module in modules if module.startswith("quant_assets.feature_store.")
            ]
            assert {f"{module.replace('.', '/')}.py" for module in inside} <= hashed | NO_PART, name

    def test_all_tables_of_alpha_v1_are_named_in_its_sql(self) -> None:
        sql = model_sql(ALPHA_SQL, {})
        for table in {feature.table for feature in features_of("alpha_v1")} - {"alpha_v1"}:
            assert f"feature_store.{table}" in sql
