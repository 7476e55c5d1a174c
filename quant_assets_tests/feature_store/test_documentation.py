"""What is written for people comes from the catalog, whole and readable."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from quant_assets.feature_store.catalog import TECHNICAL_V1, VIEWS, Feature
from quant_assets.feature_store.documentation import (
    BEGIN,
    COMMAND,
    END,
    _family_name,
    _row,
    dbt_yaml,
    description,
    documents,
    readme_tables,
    with_tables,
)

FEATURES = {feature.name: feature for view in VIEWS.values() for feature in view}
PLAIN = replace(TECHNICAL_V1[0], name="mean_3", definition="sum of 3 closes / 3", lookback=2, unit="ratio", low=0.0, high=None)


def expanded(name: str) -> list[str]:
    """The names that a row of the README stands for."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
    return [f"{found[1]}{part}{found[3]}" for part in found[2].split(", ")] if found else [name]


def told(*features: Feature) -> str:
    return _row(features)


class TestRegression:
    def test_a_feature_is_told_in_one_paragraph(self) -> None:
        assert description(TECHNICAL_V1[1]) == (
            "How far the fast average of the close stands above the slow one. Definition: `ema_12 − ema_26`. Unit: price. Range: unbounded. "
            "Look-back: 25 sessions. Nulls: null before warm-up. Serves people: it stands in the price or share basis of its session. "
            "Source: Gerald Appel, Technical Analysis: Power Tools for Active Investors (2005)."
        )

    def test_a_row_tells_what_differs_by_its_parameter(self) -> None:
        longer = replace(PLAIN, name="mean_10", definition="sum of 10 closes / 10", lookback=9)
        assert told(PLAIN, longer) == "| `mean_{3, 10}` | sum of n closes / n | n − 1 | ratio | at least 0 | yes |"

    def test_a_row_lists_what_no_parameter_tells(self) -> None:
        longer = replace(PLAIN, name="mean_10", definition="sum of 10 closes / 12", lookback=9, low=-2.5)
        assert told(replace(PLAIN, low=-1.5), longer) == (
            "| `mean_{3, 10}` | sum of n closes / {3, 12} | n − 1 | ratio | at least −{1.5, 2.5} | yes |"
        )

    def test_a_row_of_one_stays_as_it_is(self) -> None:
        alone = replace(PLAIN, definition="|close| · 3 / (a*b)", high=3.0, scale_free=False)
        assert told(alone) == "| `mean_3` | \\|close\\| · 3 / (a\\*b) | 2 | ratio | 0 to 3 | no |"

    def test_differences_beside_an_operator_stand_in_brackets(self) -> None:
        pair = [replace(PLAIN, name=f"mean_{n}", definition=f"sum / {n - 1}, the last {n - 1}") for n in (3, 10)]
        assert "| sum / (n − 1), the last n − 1 |" in told(*pair)

    def test_two_parameters_are_n_and_m(self) -> None:
        assert _family_name(["ratio_5_20_d", "ratio_20_60_d"]) == ("ratio_{5_20, 20_60}_d", [[5, 20], [20, 60]])

    def test_a_readme_without_marks_is_refused(self) -> None:
        with pytest.raises(ValueError, match="The README lacks the lines '<!-- features: written by"):
            with_tables(f"Text\n{BEGIN}\n")


class TestProperties:
    def test_what_is_written_is_current(self) -> None:
        for path, text in documents().items():
            assert path.read_text() == text, f"{path.name} is not what the catalog says: run `{COMMAND}`"

    def test_the_readme_names_every_feature_once(self) -> None:
        names = [name for row in re.findall(r"^\| `([^`]*)` \|", readme_tables(), re.MULTILINE) for name in expanded(row)]
        assert sorted(names) == sorted(FEATURES)
        assert len(readme_tables().splitlines()) < len(FEATURES)
        assert with_tables(f"before {BEGIN} old {END} after").startswith(f"before {BEGIN}\n\n<details>")

    def test_every_column_is_told_with_its_bounds(self) -> None:
        declared = yaml.safe_load(dbt_yaml())
        relations = {each["name"]: each for each in (*declared["sources"][0]["tables"], *declared["models"])}
        for view, features in VIEWS.items():
            columns = {column["name"]: column for column in relations[view]["columns"]}
            assert set(columns) - {feature.name for feature in features} <= {
                "symbol",
                "session",
                "price_factor",
                "share_factor",
                "known_at",
            }
            for feature in features:
                assert columns[feature.name]["description"] == description(feature)
                meta = columns[feature.name]["config"]["meta"]
                assert (meta.get("low"), meta.get("high")) == (feature.low, feature.high)
        for relation in relations.values():
            assert len({column["name"] for column in relation["columns"]}) == len(relation["columns"])
            assert all(column["description"].endswith(".") and column["data_type"] for column in relation["columns"])
