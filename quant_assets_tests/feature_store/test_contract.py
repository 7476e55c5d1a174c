"""The contract refuses every other set of features, and says how it differs."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from quant_assets.errors import ContractError
from quant_assets.feature_store.catalog import TECHNICAL_V1
from quant_assets.feature_store.contract import FeatureContract, source_hash
from quant_assets.feature_store.indicators import definition_hash

HASH = "a" * 64
CONTRACT = FeatureContract.of("technical_v1", HASH, TECHNICAL_V1[:3])
SCHEMA = {"rsi_14": pl.Float64, "macd": pl.Float64, "macd_signal": pl.Float64}


class TestRegression:
    def test_the_same_features_pass_as_schema_and_as_frame(self) -> None:
        CONTRACT.check(SCHEMA, HASH)
        CONTRACT.check(pl.DataFrame(schema=SCHEMA), HASH)

    @pytest.mark.parametrize(
        ("schema", "definition", "difference"),
        [
            ({"rsi_14": pl.Float64, "macd": pl.Float64}, HASH, "missing: macd_signal"),
            ({**SCHEMA, "obv": pl.Float64}, HASH, "extra: obv"),
            (dict(reversed(SCHEMA.items())), HASH, "reordered: macd_signal, macd, rsi_14; was rsi_14, macd, macd_signal"),
            ({**SCHEMA, "macd": pl.Float32()}, HASH, "retyped: macd is Float32, was Float64"),
            (SCHEMA, "b" * 64, "redefined: definition bbbbbbbbbbbb, was aaaaaaaaaaaa"),
        ],
    )
    def test_each_difference_is_shown(self, schema: dict[str, type[pl.DataType]], definition: str, difference: str) -> None:
        with pytest.raises(ContractError) as refusal:
            CONTRACT.check(schema, definition)
        assert difference in str(refusal.value)
        assert str(refusal.value).count(" · ") == 0

    def test_all_differences_are_shown_together(self) -> None:
        with pytest.raises(ContractError) as refusal:
            CONTRACT.check({"macd": pl.Int64, "rsi_14": pl.Float64, "obv": pl.Float64}, "b" * 64)
        assert [part in str(refusal.value) for part in ("missing", "extra", "reordered", "retyped", "redefined")] == [True] * 5

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"view": "technical_v1"}', CONTRACT.to_json().replace('"Float64",', "", 1)])
    def test_what_is_no_contract_is_refused(self, text: str) -> None:
        with pytest.raises(ContractError, match="train the model again"):
            FeatureContract.from_json(text)

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


class TestProperties:
    def test_json_gives_the_contract_back(self) -> None:
        whole = FeatureContract.of("technical_v1", definition_hash(), TECHNICAL_V1)
        assert FeatureContract.from_json(whole.to_json()) == whole
        assert len(definition_hash()) == 64
