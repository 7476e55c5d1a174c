"""The feature contract: what a model was trained on, and the refusal of anything else."""

from __future__ import annotations

import ast
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from quant_assets.errors import ContractError
from quant_assets.feature_store.catalog import Feature

Schema = Mapping[str, pl.DataType | type[pl.DataType]]

SCHEMA_VERSION = 1
SHOWN = 8
"""How many names a message lists; of more it tells the count."""


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

    `names`, `dtypes` (as Polars prints them) and `units` run in parallel. As JSON it is `feature_contract.json`, which
    `feature_contract.schema.json` beside this module describes. Raises `ContractError` for what that schema refuses.
    """

    view: str
    definition_hash: str
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    units: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.dtypes) == len(self.units):
            counts = f"{len(self.names)} names, {len(self.dtypes)} dtypes and {len(self.units)} units"
            raise ContractError(f"A feature contract cannot hold {counts}; give one of each per feature.")
        if faults := _faults(self._content):
            raise ContractError(f"No feature contract can be made of this: {faults}. Mend the catalog's entry.")

    @classmethod
    def of(cls, view: str, definition_hash: str, features: Sequence[Feature]) -> FeatureContract:
        """The contract over some features of a view, in the given order; features are Float64."""
        names, units = tuple(feature.name for feature in features), tuple(feature.unit for feature in features)
        return cls(view, definition_hash, names, (str(pl.Float64()),) * len(names), units)

    @property
    def _content(self) -> dict[str, object]:
        rows = zip(self.names, self.dtypes, self.units, strict=True)
        features = [{"name": name, "dtype": dtype, "unit": unit} for name, dtype, unit in rows]
        return {
            "schema_version": SCHEMA_VERSION,
            "view": self.view,
            "definition_hash": self.definition_hash,
            "features": features,
        }

    def to_json(self) -> str:
        """The contract as JSON text, the same for equal contracts."""
        return json.dumps(self._content, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "This text") -> FeatureContract:
        """Read what `to_json` wrote, text or UTF-8 bytes; raises `ContractError` for anything else.

        The error names `source` (a file, say), where in it each fault is, and the remedy.
        """
        try:
            content = json.loads(
                text if isinstance(text, str) else text.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_without_repeats
            )
        except (ValueError, RecursionError) as error:
            faults = f"it is not JSON in UTF-8 ({error})"
        else:
            faults = _faults(content)
        if faults:
            raise ContractError(f"{source} is no feature contract: {faults}. Train the model again to write one.")
        rows = [(feature["name"], feature["dtype"], feature["unit"]) for feature in content["features"]]
        names, dtypes, units = zip(*rows, strict=True)
        return cls(content["view"], content["definition_hash"], names, dtypes, units)

    def check(self, offered: pl.DataFrame | Schema, view: str, definition_hash: str, units: Mapping[str, str] | None = None) -> None:
        """Compare what is offered with the contract; raises `ContractError` that shows every difference.

        `offered` holds the features alone, in order; `view` and `definition_hash` say what computed them, `units` by name
        in what they are (a frame does not tell; without it units are not compared). A missing, extra, reordered, retyped
        or redefined feature is refused, and so is another view whose features have the same names.
        """
        schema = offered.schema if isinstance(offered, pl.DataFrame) else offered
        found = {name: str(dtype) for name, dtype in schema.items()}
        wanted = dict(zip(self.names, self.dtypes, strict=True))
        retyped = [f"{name} is {found[name]}, was {wanted[name]}" for name in wanted if found.get(name, wanted[name]) != wanted[name]]
        was = dict(zip(self.names, self.units, strict=True))
        told = units or {}
        other_units = [f"{name} is in {told[name]}, was in {was[name]}" for name in was if told.get(name, was[name]) != was[name]]
        differences = [
            *([f"another view: {view}, was {self.view}"] if view != self.view else []),
            *_differences(self.names, list(found)),
            *([f"retyped: {_some(retyped)}"] if retyped else []),
            *([f"other units: {_some(other_units)}"] if other_units else []),
            *(
                [f"redefined: definition {definition_hash[:12]}, was {self.definition_hash[:12]}"]
                if definition_hash != self.definition_hash
                else []
            ),
        ]
        if differences:
            raise ContractError(
                f"The features offered differ from the contract of view {self.view}: {' · '.join(differences)}. "
                "Offer the columns that the model was trained on, or train it again on these."
            )

    def check_model(self, features: Sequence[str]) -> None:
        """Compare the features that a fitted model takes, in its order, with the contract; raises `ContractError` likewise."""
        if tuple(features) != self.names:
            raise ContractError(
                f"The model does not belong to this contract of view {self.view}: {' · '.join(_differences(self.names, features))}. "
                "Train it again, so that both are saved together."
            )


def _differences(wanted: Sequence[str], found: Sequence[str]) -> list[str]:
    """How one list of names differs from another in words that stay short for long lists."""
    missing, extra = [name for name in wanted if name not in found], [name for name in found if name not in wanted]
    repeated = [name for name, count in Counter(found).items() if count > 1]
    shared, order = [name for name in wanted if name in found], [name for name in dict.fromkeys(found) if name in wanted]
    differences = [f"{word}: {_some(names)}" for word, names in (("missing", missing), ("extra", extra), ("repeated", repeated)) if names]
    if order != shared:
        first = next(i for i, name in enumerate(shared) if name != order[i])
        blocks = SequenceMatcher(None, shared, order, autojunk=False).get_matching_blocks()
        kept = {name for block in blocks for name in shared[block.a : block.a + block.size]}
        moved = [f"{name} ({wanted.index(name) + 1} → {found.index(name) + 1})" for name in shared if name not in kept]
        place = f"{order[first]} stands where {shared[first]} belongs, at {wanted.index(shared[first]) + 1}"
        differences.append(f"reordered: {place}; moved: {_some(moved)}")
    return differences


def _some(words: Sequence[str]) -> str:
    return ", ".join(words) if len(words) <= SHOWN else f"{', '.join(words[:SHOWN])}, … ({len(words)} in all)"


def _faults(content: object) -> str:
    """What the schema, and the rule that it cannot state, find wrong in a parsed contract; empty where nothing is."""
    found = [f"{error.json_path}: {_clipped(error.message)}" for error in _validator().iter_errors(content)]
    if not found:
        names = Counter(feature["name"] for feature in content["features"])  # type: ignore[index]
        found = [f"$.features: the name {name} stands {count} times" for name, count in names.items() if count > 1]
    return f"{'; '.join(found[:SHOWN])}{f'; … ({len(found)} faults)' if len(found) > SHOWN else ''}"


def _clipped(message: str) -> str:
    """A fault's text without the middle of the value that it quotes, which may be the whole file."""
    return message if len(message) <= 160 else f"{message[:60]} … {message[-90:]}"


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object of which no key stands twice: readers would disagree about which of them counts."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"a key stands twice in {_clipped(repr([key for key, _ in pairs]))}")
    return content


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    return Draft202012Validator(json.loads(files(__package__).joinpath("feature_contract.schema.json").read_text(encoding="utf-8")))
