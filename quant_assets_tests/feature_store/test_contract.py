"""The contract refuses every other set of features, and says how it differs; its file is what the published schema says."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from quant_assets.errors import ContractError
from quant_assets.feature_store.catalog import TECHNICAL_V1
from quant_assets.feature_store.contract import SHOWN, FeatureContract, source_hash
from quant_assets.feature_store.views import definition_hash

VIEW, HASH = "technical_v1", "a" * 64
CONTRACT = FeatureContract.of(VIEW, HASH, TECHNICAL_V1[:3])
SCHEMA = {"rsi_14": pl.Float64, "macd": pl.Float64, "macd_signal": pl.Float64}
PUBLISHED = Draft202012Validator(json.loads(files("quant_assets.feature_store").joinpath("feature_contract.schema.json").read_text()))
DTYPES = {name: getattr(pl, name) for name in PUBLISHED.schema["$defs"]["feature"]["properties"]["dtype"]["enum"]}
WIDE = tuple(f"feature_{i:03}" for i in range(200))

identifiers = st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True)


@st.composite
def contracts(draw: st.DrawFn, least: int = 1) -> FeatureContract:
    """Any contract that can be."""
    names = draw(st.lists(identifiers, min_size=least, max_size=12, unique=True))
    dtypes, units = (
        draw(st.lists(values, min_size=len(names), max_size=len(names)))
        for values in (st.sampled_from(sorted(DTYPES)), st.text(min_size=1))
    )
    definition = draw(st.text("0123456789abcdef", min_size=64, max_size=64))
    return FeatureContract(draw(identifiers), definition, tuple(names), tuple(dtypes), tuple(units))


def offered(contract: FeatureContract) -> dict[str, type[pl.DataType]]:
    return {name: DTYPES[dtype] for name, dtype in zip(contract.names, contract.dtypes, strict=True)}


def wide(names: tuple[str, ...] = WIDE) -> FeatureContract:
    return FeatureContract("alpha_v1", HASH, names, ("Float64",) * len(names), ("ratio",) * len(names))


def refusal(contract: FeatureContract, schema: dict[str, Any], view: str | None = None, definition: str | None = None) -> str:
    with pytest.raises(ContractError) as refused:
        contract.check(schema, view or contract.view, definition or contract.definition_hash)
    return str(refused.value)


def content(**changes: object) -> str:
    return json.dumps({**json.loads(CONTRACT.to_json()), **changes})


def feature(**changes: object) -> dict[str, object]:
    return {"name": "rsi_14", "dtype": "Float64", "unit": "0 to 100", **changes}


class TestRegression:
    def test_the_same_features_pass_as_schema_and_as_frame(self) -> None:
        CONTRACT.check(SCHEMA, VIEW, HASH)
        CONTRACT.check(pl.DataFrame(schema=SCHEMA), VIEW, HASH)
        CONTRACT.check_model(list(SCHEMA))

    @pytest.mark.parametrize(
        ("schema", "view", "definition", "difference"),
        [
            ({"rsi_14": pl.Float64, "macd": pl.Float64}, VIEW, HASH, "missing: macd_signal"),
            ({**SCHEMA, "obv": pl.Float64}, VIEW, HASH, "extra: obv"),
            (
                {"macd_signal": pl.Float64, "rsi_14": pl.Float64, "macd": pl.Float64}, VIEW, HASH,
                "reordered: macd_signal stands where rsi_14 belongs, at 1; moved: macd_signal (3 → 1)",
            ),
            ({**SCHEMA, "macd": pl.Float32()}, VIEW, HASH, "retyped: macd is Float32, was Float64"),
            (SCHEMA, VIEW, "b" * 64, "redefined: definition bbbbbbbbbbbb, was aaaaaaaaaaaa"),
            (SCHEMA, "alpha_v1", HASH, "another view: alpha_v1, was technical_v1"),
        ],
    )  # fmt: skip
    def test_each_difference_is_shown(self, schema: dict[str, Any], view: str, definition: str, difference: str) -> None:
        assert refusal(CONTRACT, schema, view, definition) == (
            f"The features offered differ from the contract of view technical_v1: {difference}. "
            "Offer the columns that the model was trained on, or train it again on these."
        )

    def test_all_differences_are_shown_together(self) -> None:
        told = refusal(CONTRACT, {"macd": pl.Int64, "rsi_14": pl.Float64, "obv": pl.Float64}, "alpha_v1", "b" * 64)
        parts = told.partition("technical_v1: ")[2].split(" · ")
        assert [part.split(":")[0] for part in parts] == ["another view", "missing", "extra", "reordered", "retyped", "redefined"]

    def test_two_of_200_swapped_are_the_two_that_are_told(self) -> None:
        names = list(WIDE)
        names[10], names[150] = names[150], names[10]
        told = refusal(wide(), dict.fromkeys(names, pl.Float64))
        assert (
            "reordered: feature_150 stands where feature_010 belongs, at 11; moved: feature_010 (11 → 151), feature_150 (151 → 11)."
        ) in told
        assert len(told) < 320

    def test_long_lists_end_in_a_count(self) -> None:
        assert refusal(wide(), {}).count("feature_") == SHOWN
        assert "feature_007, … (200 in all)" in refusal(wide(), {})
        assert "… (200 in all)" in refusal(wide(), dict.fromkeys(WIDE, pl.Float32))
        assert "… (199 in all)" in refusal(wide(), dict.fromkeys(reversed(WIDE), pl.Float64))

    def test_a_model_of_other_features_is_refused(self) -> None:
        with pytest.raises(ContractError, match=r"does not belong to this contract of view technical_v1: missing: macd · extra: obv\."):
            CONTRACT.check_model(["rsi_14", "obv", "macd_signal"])
        with pytest.raises(ContractError, match=r"repeated: macd\. Train it again"):
            CONTRACT.check_model(["rsi_14", "macd", "macd", "macd_signal"])

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "it is not JSON in UTF-8 (Expecting value"),
            (CONTRACT.to_json()[:-40], "it is not JSON in UTF-8 ("),
            (CONTRACT.to_json().encode("utf-16"), "it is not JSON in UTF-8 ('utf-8' codec can't decode byte 0xff"),
            ("[" * 200_000, "it is not JSON in UTF-8 ("),
            ('{"view": "alpha_v1", ' + CONTRACT.to_json()[1:], "a key stands twice in ['view', 'schema_version', 'view'"),
            (content(schema_version=float("nan")), "NaN is no JSON number"),
            ("[]", "$: [] is not of type 'object'"),
            (content(schema_version=2), "$.schema_version: 1 was expected"),
            (content(schema_version=True), "$.schema_version: 1 was expected"),
            (content(view=None), "$.view: None is not of type 'string'"),
            (content(definition_hash="A"), "$.definition_hash: 'A' does not match"),
            (content(features=[]), "$.features: [] should be non-empty"),
            (content(features=["rsi_14"]), "$.features[0]: 'rsi_14' is not of type 'object'"),
            (content(features=[feature(), feature(unit="ratio")]), "$.features: the name rsi_14 stands 2 times"),
            (content(features=[feature(dtype="float")]), "$.features[0].dtype: 'float' is not one of"),
            (content(features=[feature(name=14)]), "$.features[0].name: 14 is not of type 'string'"),
            (content(features=[feature(unit="")]), "$.features[0].unit: '' should be non-empty"),
            (content(features=[feature(low=0)]), "$.features[0]: Additional properties are not allowed ('low' was unexpected)"),
            (content(names=["rsi_14"]), "$: Additional properties are not allowed ('names' was unexpected)"),
            (json.dumps({"schema_version": 1, "view": VIEW, "definition_hash": HASH}), "$: 'features' is a required property"),
        ],
    )
    def test_what_is_no_contract_is_refused_with_place_fault_and_remedy(self, text: str | bytes, fault: str) -> None:
        with pytest.raises(ContractError) as refused:
            FeatureContract.from_json(text, source="models/3.json")
        told = str(refused.value)
        assert told.startswith("models/3.json is no feature contract: ")
        assert told.endswith(". Train the model again to write one.")
        assert fault in told

    def test_many_faults_end_in_a_count(self) -> None:
        with pytest.raises(ContractError, match=r"features\[7\].*; … \(200 faults\)") as refused:
            FeatureContract.from_json(content(features=[feature(unit=0, name=name) for name in WIDE]))
        assert len(str(refused.value)) < 600
        with pytest.raises(ContractError) as refused:
            FeatureContract.from_json(json.dumps([feature()] * 200))
        assert len(str(refused.value)) < 300

    def test_no_contract_is_made_that_could_not_be_read(self) -> None:
        with pytest.raises(ContractError, match="3 names, 2 dtypes and 3 units"):
            FeatureContract(VIEW, HASH, CONTRACT.names, CONTRACT.dtypes[1:], CONTRACT.units)
        with pytest.raises(ContractError, match=r"features: \[\] should be non-empty"):
            FeatureContract.of(VIEW, HASH, [])
        with pytest.raises(ContractError, match="the name macd stands 2 times"):
            FeatureContract.of(VIEW, HASH, [TECHNICAL_V1[1]] * 2)

    def test_the_published_schema_is_one(self) -> None:
        Draft202012Validator.check_schema(PUBLISHED.schema)
        assert (PUBLISHED.schema["$schema"], PUBLISHED.schema["$id"]) == (
            "https://json-schema.org/draft/2020-12/schema",
            "urn:quant-assets:feature-contract:1",
        )

    def test_the_file_as_a_reader_sees_it(self) -> None:
        assert json.loads(FeatureContract.of(VIEW, HASH, TECHNICAL_V1[:2]).to_json()) == {
            "schema_version": 1,
            "view": "technical_v1",
            "definition_hash": HASH,
            "features": [
                {"name": "rsi_14", "dtype": "Float64", "unit": "0 to 100"},
                {"name": "macd", "dtype": "Float64", "unit": "price"},
            ],
        }

    def test_the_hash_ignores_comments_docstrings_and_layout_but_no_code(self, tmp_path: Path) -> None:
        texts = {
            "plain": "def f(x):\n    return x + 1\n",
            "told": '"""Why."""\n\n# a remark\ndef f(x):\n    """What."""\n    return (x +\n        1)\n',
            "other": "def f(x):\n    return x + 2\n",
            "null": "def f(x):\n    return x + None\n",
            "default": "def f(x=1):\n    return x + 1\n",
        }
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
        hashes = {name: source_hash(str(tmp_path / name)) for name in texts}
        assert hashes["plain"] == hashes["told"]
        assert len(set(hashes.values())) == 4

    def test_other_units_are_told_where_units_are_offered(self) -> None:
        units = {"rsi_14": "fraction", "macd": CONTRACT.units[1], "macd_signal": CONTRACT.units[2]}
        with pytest.raises(ContractError, match=rf"view technical_v1: other units: rsi_14 is in fraction, was in {CONTRACT.units[0]}\. "):
            CONTRACT.check(SCHEMA, VIEW, HASH, units)
        CONTRACT.check(SCHEMA, VIEW, HASH, units | {"rsi_14": CONTRACT.units[0]})


class TestProperties:
    def test_json_gives_the_whole_view_back(self) -> None:
        whole = FeatureContract.of(VIEW, definition_hash("technical_v1"), TECHNICAL_V1)
        assert FeatureContract.from_json(whole.to_json()) == whole
        assert len(definition_hash("technical_v1")) == 64

    @given(contracts())
    def test_json_gives_any_contract_back_and_is_what_the_schema_says(self, contract: FeatureContract) -> None:
        PUBLISHED.validate(json.loads(contract.to_json()))
        assert FeatureContract.from_json(contract.to_json()) == contract
        assert FeatureContract.from_json(contract.to_json().encode()) == contract
        contract.check(offered(contract), contract.view, contract.definition_hash)
        contract.check_model(contract.names)

    @given(contracts(), st.data())
    def test_no_part_of_a_file_is_a_contract(self, contract: FeatureContract, data: st.DataObject) -> None:
        whole = contract.to_json().encode()
        with pytest.raises(ContractError, match="is no feature contract"):
            FeatureContract.from_json(whole[: data.draw(st.integers(0, len(whole) - 1))])

    @given(contracts(least=2), st.data())
    def test_every_other_order_is_refused_and_who_moved_is_told(self, contract: FeatureContract, data: st.DataObject) -> None:
        order = data.draw(st.permutations(contract.names))
        assume(tuple(order) != contract.names)
        schema = offered(contract)
        told = refusal(contract, {name: schema[name] for name in order})
        first = next(i for i, name in enumerate(contract.names) if name != order[i])
        assert f"reordered: {order[first]} stands where {contract.names[first]} belongs, at {first + 1}; moved: " in told
        assert not any(word in told for word in ("missing:", "extra:", "retyped:", "redefined:", "another view:"))
        moved = {name for i, name in enumerate(contract.names, 1) if f" {name} ({i} → {order.index(name) + 1})" in told}
        if "in all)" not in told:  # all of the rest stand in their old order
            assert [name for name in order if name not in moved] == [name for name in contract.names if name not in moved]
        with pytest.raises(ContractError, match="reordered"):
            contract.check_model(order)

    @given(contracts(), st.data())
    def test_a_dropped_an_added_and_a_retyped_column_are_named(self, contract: FeatureContract, data: st.DataObject) -> None:
        schema = offered(contract)
        name = data.draw(st.sampled_from(contract.names))
        less = {each: dtype for each, dtype in schema.items() if each != name}
        assert f": missing: {name}. Offer" in refusal(contract, less)

        added = data.draw(identifiers.filter(lambda each: each not in schema))
        place = data.draw(st.integers(0, len(schema)))
        more = dict([*list(schema.items())[:place], (added, pl.Float64), *list(schema.items())[place:]])
        assert f": extra: {added}. Offer" in refusal(contract, more)

        dtype = data.draw(st.sampled_from([each for each in [*DTYPES.values(), pl.String, pl.Date] if each != schema[name]]))
        assert f": retyped: {name} is {dtype}, was {schema[name]}. Offer" in refusal(contract, {**schema, name: dtype})

    @given(contracts(), identifiers, st.text("0123456789abcdef", min_size=64, max_size=64))
    def test_another_view_or_definition_is_refused_though_the_columns_are_the_same(
        self, contract: FeatureContract, view: str, definition: str
    ) -> None:
        assume(view != contract.view and definition != contract.definition_hash)
        assert f": another view: {view}, was {contract.view}. Offer" in refusal(contract, offered(contract), view=view)
        assert ": redefined: definition " in refusal(contract, offered(contract), definition=definition)
