"""What is written about features for people, from the catalog: dbt's YAML and the README's tables.

`python -m quant_assets.feature_store.documentation` writes both; a test holds that they are current.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from quant_assets.feature_store.catalog import VIEWS, Feature
from quant_assets.migrations import sql_type
from quant_assets.schemas import ALPHA_HISTORY_V1, ALPHA_MARKET_V1, LABELS, MARKET_V1, SESSION, SYMBOL, TECHNICAL_V1, Column, Table
from quant_assets.settings import PROJECT_ROOT

COMMAND = "python -m quant_assets.feature_store.documentation"
YAML_PATH = PROJECT_ROOT / "dbt_features" / "models" / "features" / "features.yml"
README_PATH = PROJECT_ROOT / "README.md"
BEGIN, END = f"<!-- features: written by {COMMAND} -->", "<!-- features: end -->"
RECENT_DAYS = 7
"""How many days of a view dbt's tests look at: it is computed anew for each of them."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_PARAMETERS = "nmk"
_FEATURES = {feature.name: feature for view in VIEWS.values() for feature in view}
_PLACES = {
    "technical_v1": "The view `technical_v1`, which `alpha_v1` holds too",
    "alpha_history_v1": "What a symbol's own history says, in `alpha_v1`",
    "alpha_market_v1": "What it says against the market, in `alpha_v1`",
    "market_v1": "The market's own sessions, in `alpha_v1`",
    "alpha_v1": "The market, the cross-section of the session and the calendar, computed on reading `alpha_v1`",
}


def dbt_yaml() -> str:
    """The text of `features.yml`: feature tables as sources, the views over them as models, with columns and tests."""
    lines = [f"# Written by `{COMMAND}` from the catalog and the declarations of tables: change those.", "version: 2", "", "sources:"]
    lines += ["  - name: feature_store", "    schema: feature_store", "    tables:"]
    for table in (TECHNICAL_V1, ALPHA_HISTORY_V1, MARKET_V1, ALPHA_MARKET_V1, LABELS):
        described = f"{table.description} One row is {table.grain}."
        lines += _indented(6, _relation(table.name, described, table.columns, [_grain(table), *_ranges(table.name, table.columns)]))
    lines += ["", "models:"]
    known_at = next(column for column in TECHNICAL_V1.columns if column.name == "known_at")
    alpha = [SYMBOL, SESSION, *_columns(feature.name for feature in VIEWS["alpha_v1"]), known_at]
    tests = [_grain(TECHNICAL_V1, "alpha_v1", RECENT_DAYS), *_ranges("alpha_v1", alpha, RECENT_DAYS)]
    described = (
        "The feature view alpha_v1: what is stored by symbol, and what the market, the cross-section of the session and the calendar add. "
        "One row is one symbol in one session with a clean bar."
    )
    lines += _indented(2, _relation("alpha_v1", described, alpha, tests))
    panel = [column for column in TECHNICAL_V1.columns if column.name != "known_at"]
    panel += [column for column in LABELS.columns if column.name in ("horizon", "forward_return", "up")]
    panel += [
        Column("features_known_at", known_at.dtype, "Instant from which the features were known", "UTC"),
        Column("known_at", known_at.dtype, "Instant from which features and outcome were both known", "UTC"),
    ]
    described = "Features of technical_v1 beside the outcomes that came after them. One row is one symbol, session and horizon."
    lines += _indented(2, _relation("training_panel", described, panel, []))
    return "\n".join(lines) + "\n"


def description(feature: Feature) -> str:
    """All that the catalog says of a feature, as a paragraph of Markdown."""
    serves = "Serves models." if feature.scale_free else "Serves people: it stands in the price or share basis of its session."
    return (
        f"{feature.sentence} Definition: `{feature.definition}`. Unit: {feature.unit}. Range: {_range(feature) or 'unbounded'}. "
        f"Look-back: {feature.lookback} session{'s' * (feature.lookback != 1)}. Nulls: {feature.null_rule}. {serves} Source: {feature.source}."
    )


def readme_tables() -> str:
    """A table for each place where features are stored; features that differ in numbers alone share a row."""
    parts = []
    for place, title in _PLACES.items():
        features = [feature for feature in _FEATURES.values() if feature.table == place]
        if features:
            head = [f"<details><summary>{title.replace('`', '')}: {len(features)} features</summary>", ""]
            head += ["| feature | definition | look-back | unit | range | models |", "|---|---|---|---|---|---|"]
            parts.append("\n".join([*head, *map(_row, _families(features)), "", "</details>"]))
    return "\n\n".join(parts)


def with_tables(readme: str) -> str:
    """The README with its tables renewed; raises `ValueError` where their marks are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The README lacks the lines {BEGIN!r} and {END!r}.")
    return f"{before}{BEGIN}\n\n{readme_tables()}\n\n{END}{after}"


def documents() -> dict[Path, str]:
    """What each written file should hold."""
    return {YAML_PATH: dbt_yaml(), README_PATH: with_tables(README_PATH.read_text())}


def _columns(names: Iterable[str]) -> Iterator[Column]:
    declared = {column.name: column for table in (TECHNICAL_V1, ALPHA_HISTORY_V1, MARKET_V1, ALPHA_MARKET_V1) for column in table.columns}
    for name in names:
        yield declared.get(name) or Column(name, TECHNICAL_V1.polars_schema["rsi_14"], _FEATURES[name].sentence, nullable=True)


def _relation(name: str, described: str, columns: Iterable[Column], tests: Sequence[str]) -> list[str]:
    lines = [f"- name: {name}", f"  description: {_text(described)}"]
    if tests:
        lines += ["  data_tests:", *_indented(4, tests)]
    lines += ["  columns:"]
    for column in columns:
        feature = _FEATURES.get(column.name)
        told = description(feature) if feature else f"{column.description}{f' ({column.unit})' if column.unit else ''}."
        lines += [f"    - name: {column.name}", f"      data_type: {sql_type(column.dtype)}", f"      description: {_text(told)}"]
        if feature:
            lines.append(f"      config: {{meta: {json.dumps(_meta(feature), ensure_ascii=False)}}}")
    return lines


def _meta(feature: Feature) -> dict[str, object]:
    bounds = {"low": feature.low, "high": feature.high}
    told = {"unit": feature.unit, "lookback": feature.lookback, "scale_free": feature.scale_free, "table": feature.table}
    return {**told, **{name: bound for name, bound in bounds.items() if bound is not None}}


def _grain(table: Table, name: str = "", days: int | None = None) -> str:
    key = table.key
    told = f"One row per {', '.join(key[:-1])}{' and ' if key[:-1] else ''}{key[-1]}{_recent(days)}."
    ordered = sorted(key, key=lambda column: column == "session")
    return _test("unique_grain", f"{name or table.name}_grain", told, {"columns": ordered, **({"days": days} if days else {})})


def _ranges(name: str, columns: Iterable[Column], days: int | None = None) -> list[str]:
    if not any(column.name in _FEATURES for column in columns):
        return []
    told = f"Every feature that it {'computes' if days else 'holds'} is a finite number inside the range that its definition gives it{_recent(days)}."
    return [_test("within_ranges", f"{name}_ranges", told, {"days": days} if days else {})]


def _recent(days: int | None) -> str:
    return f", in the newest {days} days" if days else ""


def _test(kind: str, name: str, told: str, arguments: dict[str, object]) -> str:
    given = {"name": name, **({"arguments": arguments} if arguments else {}), "config": {"meta": {"description": told}}}
    return f"- {kind}: {json.dumps(given, ensure_ascii=False)}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _indented(by: int, lines: Iterable[str]) -> list[str]:
    return [" " * by + line for line in lines]


def _range(feature: Feature) -> str:
    low, high = (None if bound is None else f"{bound:.4g}".replace("-", "−") for bound in (feature.low, feature.high))
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}" if high is not None else ""


def _families(features: Iterable[Feature]) -> Iterator[list[Feature]]:
    """Features that differ in numbers alone, or in the feature that they are made of."""
    families: dict[tuple[object, ...], list[Feature]] = {}
    for feature in features:
        base = _base(feature)
        name, definition = (text.replace(base, "x") if base else _NUMBER.sub("#", text) for text in (feature.name, feature.definition))
        families.setdefault((name, definition, _NUMBER.sub("#", _range(feature)), feature.unit, feature.scale_free), []).append(feature)
    return iter(families.values())


def _base(feature: Feature) -> str:
    """The feature that one is made of and called after, as `rank_beta_252` is after `beta_252`; empty where there is none."""
    ends = (feature.name[place + 1 :] for place, letter in enumerate(feature.name) if letter == "_")
    return next((end for end in ends if end in _FEATURES and end in feature.definition), "")


def _row(family: Sequence[Feature]) -> str:
    names, definitions, lookbacks = [f.name for f in family], [f.definition for f in family], [str(f.lookback) for f in family]
    bases = [_base(feature) for feature in family]
    parameters: list[list[float]] = []
    if all(bases) and len(family) > 1:
        name = f"{names[0].removesuffix(bases[0])}{{{', '.join(bases)}}}"
        definitions = [text.replace(base, "x") for text, base in zip(definitions, bases, strict=True)]
        if all(_FEATURES[base].lookback == feature.lookback for base, feature in zip(bases, family, strict=True)):
            lookbacks = ["that of x"]
    else:
        name, parameters = _family_name(names)
    told = (definitions, lookbacks, [f.unit for f in family], [_range(f) for f in family])
    cells = [f"`{name}`", *(_collapsed(texts, parameters).replace("|", "\\|").replace("*", "\\*") for texts in told)]
    return f"| {' | '.join(cells)} | {'yes' if family[0].scale_free else 'no'} |"


def _family_name(names: Sequence[str]) -> tuple[str, list[list[float]]]:
    """One name for all, its differing numbers in braces, and those numbers: the parameters n, m and k."""
    numbers = list(zip(*map(_NUMBER.findall, names), strict=True))
    differing = [place for place, values in enumerate(numbers) if len(set(values)) > 1]
    if not differing:
        return names[0], []
    spans = [[found.span() for found in _NUMBER.finditer(name)] for name in names]
    cuts = [(found[differing[0]][0], found[differing[-1]][1]) for found in spans]
    values = ", ".join(name[start:stop] for name, (start, stop) in zip(names, cuts, strict=True))
    return f"{names[0][: cuts[0][0]]}{{{values}}}{names[0][cuts[0][1] :]}", [
        [float(value) for value in numbers[place]] for place in differing
    ]


def _collapsed(texts: Sequence[str], parameters: Sequence[Sequence[float]]) -> str:
    """One text for all: where they differ in a number, that is told by the parameters, or all its values are."""
    told, *rest = _NUMBER.split(texts[0])
    for values, piece in zip(zip(*map(_NUMBER.findall, texts), strict=True), rest, strict=True):
        number = _told(values, parameters)
        bound = told.rstrip().endswith(("/", "·", "−", "√")) or piece.lstrip().startswith(("/", "·", "^"))
        told += (f"({number})" if " " in number and number[0] != "{" and bound else number) + piece
    return told


def _told(values: Sequence[str], parameters: Sequence[Sequence[float]]) -> str:
    if len(set(values)) == 1:
        return values[0]
    gaps = [{float(value) - each for value, each in zip(values, parameter, strict=True)} for parameter in parameters]
    constant = [(min(gap, key=abs), letter) for gap, letter in zip(gaps, _PARAMETERS, strict=False) if len(gap) == 1]
    if not constant:
        return f"{{{', '.join(values)}}}"
    gap, letter = min(constant, key=lambda each: abs(each[0]))
    return letter if gap == 0 else f"{letter} {'+' if gap > 0 else '−'} {abs(gap):g}"


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text)
