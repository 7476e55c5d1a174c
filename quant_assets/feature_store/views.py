"""The feature views: what each is made of, and the hash of its definition.

A definition is the code and the SQL that compute a view, and the names of its features; comments, docstrings and layout
do not count. The hash stands on every build, model and signal, so that none is used with features that mean another
thing under the same name. Loads none of the code it hashes.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from quant_assets.clock import TradingCalendar
from quant_assets.errors import FeaturesUnavailable
from quant_assets.feature_store.catalog import VIEWS, Feature
from quant_assets.feature_store.contract import source_hash
from quant_assets.settings import PROJECT_ROOT

_FOLDER = Path(__file__).parent
_MODELS = PROJECT_ROOT / "dbt_features" / "models"
_TECHNICAL = ("inputs.py", "adjustment.py", "windows.py", "recursions.py", "indicators.py")
_CODE = {
    "technical_v1": _TECHNICAL,
    "alpha_v1": (*_TECHNICAL, "market_series.py", "market_sessions.py", "alpha_market.py", "comoments.py", *sorted(f"alpha/{path.name}" for path in (_FOLDER / "alpha").glob("*.py"))),
}  # fmt: skip
_SQL = {"technical_v1": (), "alpha_v1": ("features/alpha_v1.sql",)}


def features_of(view: str) -> tuple[Feature, ...]:
    """The features of a view in order; raises `FeaturesUnavailable` that names the views there are."""
    if view not in VIEWS:
        raise FeaturesUnavailable(f"There is no feature view {view!r}; there are {', '.join(VIEWS)}.")
    return VIEWS[view]


@cache
def definition_hash(view: str) -> str:
    """Hash (hexadecimal sha256) over the code, the SQL and the feature names of a view; raises as `features_of` does."""
    names = ",".join(feature.name for feature in features_of(view))
    parts = [
        names,
        source_hash(*(str(_FOLDER / name) for name in _CODE[view])),
        *(_normal_sql((_MODELS / name).read_text()) for name in _SQL[view]),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def labels_hash(calendar: TradingCalendar) -> str:
    """Hash (hexadecimal sha256) over the code of the labels and the calendar in which they count sessions."""
    return counted_hash(source_hash(*(str(_FOLDER / name) for name in ("labels.py", *_TECHNICAL[:2]))), calendar)


def counted_hash(definition: str, calendar: TradingCalendar) -> str:
    """Hash (hexadecimal sha256) of a definition and of the calendar in which what it defines counts sessions."""
    counted = (calendar.name, str(calendar.delay), str(calendar.sessions[0]), *map(str, calendar.special_sessions))
    return hashlib.sha256("\n".join((definition, *counted)).encode()).hexdigest()


def build_hash(table: str, view: str, calendar: TradingCalendar) -> str:
    """The hash under which a table of a view is built: what the market's sessions decide depends on the calendar too."""
    definition = definition_hash("technical_v1" if table == "technical_v1" else view)
    return counted_hash(definition, calendar) if table in ("market_v1", "alpha_market_v1") else definition


def model_sql(name: str, relations: dict[str, str]) -> str:
    """The SQL of a dbt model with each table it reads replaced by a relation, so that it also runs outside of dbt.

    `relations` gives the relation for `schema.table`, or for a model's name; what it does not name is read in place.
    Raises `FeaturesUnavailable` for a model that holds other templating than `source` and `ref`.
    """
    text = (_MODELS / name).read_text()

    def relation(found: re.Match[str]) -> str:
        names = re.findall(r"'([^']+)'", found[2])
        table = ".".join(names) if found[1] == "source" else f"feature_store.{names[0]}"
        return relations.get(table, table)

    sql = re.sub(r"\{\{\s*(source|ref)\(([^)]*)\)\s*\}\}", relation, text)
    if "{{" in sql or "{%" in sql:
        raise FeaturesUnavailable(f"{name} holds templating beside source and ref: it cannot be run outside of dbt.")
    return sql


def _normal_sql(text: str) -> str:
    return " ".join(re.sub(r"--[^\n]*", " ", text).split())
