"""The feature contract: what a model was trained on, and the refusal of anything else."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from quant_assets.errors import ContractError
from quant_assets.feature_store.catalog import Feature

Schema = Mapping[str, pl.DataType | type[pl.DataType]]


def source_hash(*files: str) -> str:
    """Hash of what Python files compute (hexadecimal sha256): comments, docstrings and layout do not count.

    Taken over the syntax trees without empty fields, which Python versions add, so that 3.11 to 3.13 agree.
    """
    trees = [_normal(ast.parse(Path(file).read_text(encoding="utf-8"))) for file in files]
    return hashlib.sha256(repr(trees).encode()).hexdigest()


def _normal(node: object) -> object:
    if isinstance(node, list):
        return [_normal(item) for item in node if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))]
    if isinstance(node, ast.AST):
        fields = [(name, _normal(value)) for name, value in ast.iter_fields(node) if name != "kind"]
        return (type(node).__name__, [field for field in fields if field[1] != []])
    return node


@dataclass(frozen=True)
class FeatureContract:
    """The ordered features of one view that a model takes, with their dtypes and units, and the view's definition hash.

    `names`, `dtypes` (as Polars prints them) and `units` run in parallel.
    """

    view: str
    definition_hash: str
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    units: tuple[str, ...]

    @classmethod
    def of(cls, view: str, definition_hash: str, features: Sequence[Feature]) -> FeatureContract:
        """The contract over some features of a view, in the given order; features are Float64."""
        names, units = tuple(feature.name for feature in features), tuple(feature.unit for feature in features)
        return cls(view, definition_hash, names, (str(pl.Float64()),) * len(names), units)

    def to_json(self) -> str:
        """The contract as JSON text, the same for equal contracts."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> FeatureContract:
        """Read what `to_json` wrote; raises `ContractError` for anything else."""
        try:
            content = json.loads(text)
            names, dtypes, units = (tuple(map(str, content[key])) for key in ("names", "dtypes", "units"))
            contract = cls(str(content["view"]), str(content["definition_hash"]), names, dtypes, units)
        except (ValueError, KeyError, TypeError) as error:
            fault = f"{type(error).__name__}: {error}"
            raise ContractError(f"This is no feature contract ({fault}); train the model again to write one.") from None
        if not len(contract.names) == len(contract.dtypes) == len(contract.units):
            counts = f"{len(contract.names)} names, {len(contract.dtypes)} dtypes and {len(contract.units)} units"
            raise ContractError(f"This feature contract holds {counts}; train the model again to write a whole one.")
        return contract

    def check(self, offered: pl.DataFrame | Schema, definition_hash: str) -> None:
        """Compare the offered columns and definition with the contract; raises `ContractError` that shows every difference.

        `offered` holds the features alone, in order: a missing, extra, reordered, retyped or redefined feature is refused.
        """
        schema = offered.schema if isinstance(offered, pl.DataFrame) else offered
        found = {name: str(dtype() if isinstance(dtype, type) else dtype) for name, dtype in schema.items()}
        wanted = dict(zip(self.names, self.dtypes, strict=True))
        missing, extra = [name for name in wanted if name not in found], [name for name in found if name not in wanted]
        shared = [name for name in wanted if name in found]
        moved = [name for name in found if name in wanted]
        retyped = [f"{name} is {found[name]}, was {wanted[name]}" for name in shared if found[name] != wanted[name]]
        redefined = definition_hash != self.definition_hash
        differences = [
            *([f"missing: {', '.join(missing)}"] if missing else []),
            *([f"extra: {', '.join(extra)}"] if extra else []),
            *([f"reordered: {', '.join(moved)}; was {', '.join(shared)}"] if moved != shared else []),
            *([f"retyped: {', '.join(retyped)}"] if retyped else []),
            *([f"redefined: definition {definition_hash[:12]}, was {self.definition_hash[:12]}"] if redefined else []),
        ]
        if differences:
            raise ContractError(
                f"The features offered differ from the contract of view {self.view}: {' · '.join(differences)}. "
                "Offer the columns that the model was trained on, or train it again on these."
            )
