"""The model card: what a version is, on what evidence it stands and where that ends, as Markdown for a quant."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from quant_assets.feature_store.contract import FeatureContract

PREDICTORS = {
    "model": "model", "heuristic": "heuristic", "base_rate": "base rate", "majority": "majority class", "previous_sign": "previous sign",
    "control": "shuffled labels", "uncalibrated": "uncalibrated", "oracle": "oracle",
}  # fmt: skip
PERCENT, NATS, BASIS_POINTS = "{:.1%}", "{:.5f}", "bp"
METRICS = {
    "rank_ic": ("rank IC", "{:+.4f}"), "rank_ic_t": ("t of the rank IC", "{:.1f}"), "icir": ("ICIR per session", "{:+.3f}"),
    "auc": ("AUC", "{:.4f}"), "log_loss": ("log loss, nats", NATS), "log_loss_gain": ("log-loss gain on the base rate, nats", "{:+.5f}"),
    "brier": ("Brier score", "{:.4f}"), "ece": ("expected calibration error", "{:.2%}"), "accuracy": ("accuracy", PERCENT),
    "accuracy_gain": ("accuracy gain on the majority class", "{:+.1%}"), "precision": ("precision", PERCENT), "recall": ("recall", PERCENT),
    "f1": ("F1", PERCENT), "spread_gross": ("decile spread, bp a session", BASIS_POINTS), "spread_net": ("decile spread after fees, bp a session", BASIS_POINTS),
    "turnover": ("turnover of a tranche", "{:.0%}"),
}  # fmt: skip
GROUPED = (
    ("model", "rank_ic"),
    ("heuristic", "rank_ic"),
    ("control", "rank_ic"),
    ("model", "log_loss_gain"),
    ("model", "accuracy_gain"),
    ("model", "spread_net"),
)
GROUPS = {
    "year": "There are no scores by year.",
    "sector": "No sectors are known of these symbols (setting QUANT_SECTORS_PATH).",
    "regime": "No regimes were known of these sessions.",
}
SOURCES = {
    "synthetic": "The market is made up, its signal planted: the scores say that the machinery works and nothing about a real market.",
    "files": "Whether the files hold the symbols that have since been delisted is not known here; where they do not, all scores are those of survivors and too good.",
    "alpha_vantage": "The history is that of symbols which the universe names: without its delisted ones all scores are those of survivors and too good.",
    "yahoo": "The vendor drops delisted symbols: all scores are those of survivors and too good.",
}
BASES = {
    "raw": "",
    "restated": "Prices are restated: adjusted by actions of later dates, and corrected since. Columns in price units stay out of the model, but no test shows what was quoted then.",
    "mixed": "Some of the prices are restated: adjusted by actions of later dates, and corrected since.",
    None: "Whether the prices are as traded or restated was not told.",
}
SHOWN = 15
DASH = "–"


@dataclass(frozen=True)
class CardInputs:
    """What a card is made of: plain values, and the frames of the training as they are.

    `folds`, `scores`, `calibration` are the training's and `evaluate`'s, `importance` is the final model's, `permutation` the
    result of `combine`, `counter_examples` that of `worst`; each may be empty. `leaks` are findings in words (none: looked for
    and not found; `None`: not looked for). `decision` (promoted, rejected; `None`: not decided yet), `reason`, `evidence`
    are the promotion's. `basis` is raw, restated or mixed (`None`: not told). `limits` come beside those the card knows.
    """

    contract: FeatureContract
    family: str
    parameters: Mapping[str, object]
    horizon: int
    label_threshold: float
    embargo: int
    seed: int
    fee_bps: float
    source: str
    symbols: int
    rows: int
    first_session: date
    last_session: date
    as_of: datetime
    trained_until: datetime
    fingerprint: str
    folds: pl.DataFrame
    scores: pl.DataFrame
    calibration: pl.DataFrame
    importance: pl.DataFrame
    permutation: pl.DataFrame
    counter_examples: pl.DataFrame
    leaks: Sequence[str] | None
    decision: str | None
    reason: str
    evidence: Mapping[str, object]
    version: str | None = None
    basis: str | None = None
    limits: Sequence[str] = ()


def model_card(card: CardInputs) -> str:
    """The whole card as Markdown; a section without data says in one line why. The same inputs give the same text.

    Intervals in brackets are 95 %. Spreads are in basis points per session, shares in percent, log losses in nats.
    Source of the form: Mitchell and others, Model cards for model reporting (2019).
    """
    label = f"a return over {_sessions(card.horizon)} above {card.label_threshold:.2%}"
    number = f" {card.version}" if card.version else ""
    sections = {
        "In short": _in_short(card),
        "What it is": _what(card, label),
        "Data": _data(card),
        "Folds": _folds(card),
        "Scores out of sample": _scores(card),
        "Calibration": _calibration(card.calibration),
        **{f"By {group}": _grouped(card.scores, group, empty) for group, empty in GROUPS.items()},
        "What it looks at": _looks_at(card),
        "Counter-examples": _misses(card.counter_examples),
        "Leaks": _leaks(card.leaks),
        "Promotion": _promotion(card),
        "Limits": _limits(card),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# Signal model{number}\n\nThe probability of {label}.\n\n{body}\n"


def _in_short(card: CardInputs) -> str:
    scores = _Scores(card.scores)
    if scores.value("model", "rank_ic") is None and scores.value("model", "log_loss") is None:
        return "Nothing is known out of sample."
    lines = []
    if scores.value("model", "rank_ic") is not None:
        rivals = [
            f"{PREDICTORS[name]} {scores.text(name, 'rank_ic')}"
            for name in ("heuristic", "control", "oracle")
            if scores.value(name, "rank_ic") is not None
        ]
        beside = f", beside {', '.join(rivals)}" if rivals else ""
        lines.append(f"Rank IC {scores.text('model', 'rank_ic')}{_verdict(scores.interval('model', 'rank_ic'))}{beside}.")
    if scores.value("model", "log_loss_gain") is not None:
        verdict = _verdict(scores.interval("model", "log_loss_gain"))
        lines.append(
            f"Log loss {scores.text('model', 'log_loss')}: gain on the base rate {scores.text('model', 'log_loss_gain')}{verdict}."
        )
    if scores.value("model", "accuracy") is not None and scores.value("majority", "accuracy") is not None:
        lines.append(
            f"Accuracy {scores.text('model', 'accuracy')}; always calling the majority class {scores.text('majority', 'accuracy')}."
        )
    if card.decision:
        lines.append(f"Decision: {card.decision}.")
    if card.leaks:
        lines.append("It looks like a leak: see below.")
    return _bullets(lines)


def _verdict(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return " (no interval)"
    low, high = interval
    return " (above zero)" if low > 0 else " (below zero)" if high < 0 else " (zero is not excluded)"


def _what(card: CardInputs, label: str) -> str:
    contract = card.contract
    by_unit: dict[str, list[str]] = {}
    for name, unit in zip(contract.names, contract.units, strict=True):
        by_unit.setdefault(unit, []).append(f"`{name}`")
    facts = [
        f"Family: {card.family}; seed {card.seed}",
        f"Parameters: {', '.join(f'{name} {_plain(value)}' for name, value in sorted(card.parameters.items())) or 'none'}",
        f"Label: {label}, from close to close",
        f"View: `{contract.view}`, definition `{contract.definition_hash[:16]}`",
        f"Trained until {_instant(card.trained_until)}; it may score sessions that close after that",
        f"Contract, {len(contract.names)} features, by unit: "
        + "; ".join(f"{unit}: {', '.join(names)}" for unit, names in by_unit.items()),
    ]
    return _bullets(facts)


def _data(card: CardInputs) -> str:
    return _bullets(
        [
            f"Source: {card.source}, prices {card.basis or 'of a basis not told'}",
            f"{card.symbols:,} symbols, {card.first_session} to {card.last_session}, {card.rows:,} rows with a known outcome",
            f"As of {_instant(card.as_of)}",
            f"Fingerprint of frame, setup and code: `{card.fingerprint}`",
        ]
    )


def _folds(card: CardInputs) -> str:
    if card.folds.is_empty():
        return "There were no folds."
    gap = card.horizon + card.embargo
    scores = _Scores(card.scores)
    rows = [
        [row["fold"], f"{row['train_from']} to {row['train_to']}", f"{row['train_rows']:,}", PERCENT.format(row["train_up_share"]), gap,
         f"{row['test_from']} to {row['test_to']}", _instant(row["trained_until"]), scores.text("model", "rank_ic", "fold", str(row["fold"])),
         scores.text("model", "log_loss_gain", "fold", str(row["fold"]))]
        for row in card.folds.sort("fold").iter_rows(named=True)
    ]  # fmt: skip
    names = ["fold", "trained on", "rows", "label true", "gap, sessions", "tested on", "trained until", "rank IC", "log-loss gain"]
    return f"The gap is the purge of {_sessions(card.horizon)} and an embargo of {card.embargo}.\n\n{_table(names, rows)}"


def _scores(card: CardInputs) -> str:
    scores = _Scores(card.scores)
    shown = [name for name in PREDICTORS if any(scores.value(name, metric) is not None for metric in METRICS)]
    if not shown:
        return "There are no scores: nothing was predicted out of sample."
    rows = [
        [words, *(scores.text(name, metric) for name in shown)]
        for metric, (words, _) in METRICS.items()
        if any(scores.value(name, metric) is not None for name in shown)
    ]
    size = card.scores.filter(pl.col("group") == "all", pl.col("predictor") == "model").sort("rows", "sessions").tail(1)
    over = "".join(
        f"Over {row['rows']:,} rows of {row['sessions']:,} sessions; in brackets 95 % block-bootstrap intervals." for row in size.to_dicts()
    )
    fees = f"Spreads: the top tenth less the bottom tenth, each held {_sessions(card.horizon)}, {card.fee_bps:g} bp of fees on each side of a trade."
    return f"{over} {fees}\n\n{_table(['', *(PREDICTORS[name] for name in shown)], rows)}"


def _calibration(calibration: pl.DataFrame) -> str:
    if calibration.is_empty():
        return "There are no out-of-sample predictions to calibrate."
    names, cells = ["tenth"], {}
    for stage, words in (("raw", "before"), ("calibrated", "after")):
        part = calibration.filter(pl.col("stage") == stage).select("bin", "probability", "up_share", "rows")
        if len(part):
            names += [f"claimed {words}", f"came true {words}", "rows"]
            cells[stage] = {number: [f"{claimed:.1%}", f"{came:.1%}", f"{n:,}"] for number, claimed, came, n in part.iter_rows()}
    bins = sorted(set().union(*cells.values()))
    return _table(names, [[number + 1, *(cell for part in cells.values() for cell in part.get(number, [DASH] * 3))] for number in bins])


def _grouped(scores: pl.DataFrame, group: str, empty: str) -> str:
    of_group = scores.filter(pl.col("group") == group)
    if of_group.is_empty():
        return empty
    found = _Scores(scores)
    sizes = of_group.filter(pl.col("predictor") == "model").group_by("member").agg(pl.col("rows", "sessions").max()).sort("member")
    rows = [
        [_cell(member), f"{n:,}", f"{sessions:,}", *(found.text(name, metric, group, member) for name, metric in GROUPED)]
        for member, n, sessions in sizes.iter_rows()
    ]
    names = [f"{METRICS[metric][0]}, {PREDICTORS[name]}" if name != "model" else METRICS[metric][0] for name, metric in GROUPED]
    return _table([group, "rows", "sessions", *names], rows)


def _looks_at(card: CardInputs) -> str:
    if card.importance.is_empty():
        return "The model has no features to weigh."
    total = float(card.importance["gain"].sum()) or 1.0
    measured = {row["feature"]: row for row in card.permutation.to_dicts()}
    ordered = card.importance.sort(["gain", "feature"], descending=[True, False])
    rows = []
    for row in ordered.head(SHOWN).to_dicts():
        found = measured.get(row["feature"], {})
        rows.append(
            [f"`{row['feature']}`", f"{row['gain'] / total:.1%}", _with_error(found, "rank_ic_loss", "{:+.4f}"),
             _with_error(found, "log_loss_rise", "{:+.6f}"), _cell(found.get("note") or "")]
        )  # fmt: skip
    rest = ordered.tail(max(0, len(ordered) - SHOWN))
    more = f"\n\nThe other {len(rest)} features hold {float(rest['gain'].sum()) / total:.1%} of the gain." if len(rest) else ""
    how = (
        "Gain is the final model's, in training. What the test folds lose when a feature's values are exchanged among the symbols of "
        "each session stands beside it, ± one standard error."
        if measured
        else "Gain is the final model's, in training; what the test folds lose without a feature was not measured."
    )
    return f"{how}\n\n{_table(['feature', 'share of gain', 'rank IC lost', 'log loss added', 'note'], rows)}{more}"


def _misses(misses: pl.DataFrame) -> str:
    if misses.is_empty():
        return "No prediction out of sample stood on the wrong side of a half."
    rows = [
        [_cell(row["symbol"]), row["session"], f"{row['probability']:.3f}", f"{row['forward_return']:+.2%}", "yes" if row["up"] else "no",
         ", ".join(f"`{each['feature']}` = {_plain(each['value'])} ({each['contribution']:+.3f})" for each in json.loads(row["contributions"]))]
        for row in misses.to_dicts()
    ]  # fmt: skip
    names = ["symbol", "session", "probability", "return", "label true", "largest contributions, log-odds"]
    return f"The most confident misses out of sample, the worst first.\n\n{_table(names, rows)}"


def _leaks(leaks: Sequence[str] | None) -> str:
    if leaks is None:
        return "Leaks were not looked for."
    return _bullets(leaks) if leaks else "Nothing was found."


def _promotion(card: CardInputs) -> str:
    if card.decision is None:
        return "Nothing is decided yet."
    evidence = (f"{name.replace('_', ' ')}: {'none' if value is None else _plain(value)}" for name, value in card.evidence.items())
    return _bullets([f"{card.decision.capitalize()}: {card.reason}", *evidence])


def _limits(card: CardInputs) -> str:
    overlap = (
        f"Labels overlap over {card.horizon} sessions: neighbouring sessions repeat one another, and the intervals are wider for it."
        if card.horizon > 1
        else ""
    )
    return _bullets(
        line
        for line in (
            SOURCES.get(card.source, f"Nothing is known here of what the source {card.source} leaves out."),
            BASES.get(card.basis, f"Prices are {card.basis}."),
            "The scores are those of the folds' models; the final model was trained on sessions that they were tested on and has no score of its own until its signals' outcomes are known.",
            "The intervals cover the luck of the sessions tested. They do not cover a market that changes, the choice of features, "
            f"window and parameters, other seeds than {card.seed}, or how many models were tried before this one.",
            overlap,
            f"The label runs from close to close, while a signal trades at the next open. Spreads bear {card.fee_bps:g} bp a side, no slippage, impact or borrowing.",
            *card.limits,
        )
        if line
    )


class _Scores:
    """Look-up in a frame of scores, and how each is written."""

    def __init__(self, scores: pl.DataFrame) -> None:
        self._rows = {
            (row["group"], row["member"] if row["group"] != "all" else "", row["predictor"], row["metric"]): row
            for row in scores.to_dicts()
        }

    def value(self, predictor: str, metric: str, group: str = "all", member: str = "") -> float | None:
        row = self._rows.get((group, member, predictor, metric))
        return None if row is None else row["value"]

    def interval(self, predictor: str, metric: str) -> tuple[float, float] | None:
        row = self._rows.get(("all", "", predictor, metric))
        return None if row is None or row["low"] is None or row["high"] is None else (row["low"], row["high"])

    def text(self, predictor: str, metric: str, group: str = "all", member: str = "") -> str:
        """`value [low, high]`, rounded as fits the metric; a dash for what is not known."""
        row = self._rows.get((group, member, predictor, metric))
        if row is None or row["value"] is None:
            return DASH
        write = _writer(METRICS[metric][1])
        bounds = f" [{write(row['low'])}, {write(row['high'])}]" if row["low"] is not None and row["high"] is not None else ""
        return f"{write(row['value'])}{bounds}"


def _writer(form: str) -> Callable[[float], str]:
    return (lambda value: f"{1e4 * value:+.1f}") if form == BASIS_POINTS else form.format


def _with_error(row: Mapping[str, float | None], name: str, form: str) -> str:
    value, error = row.get(name), row.get(f"{name}_se")
    if value is None:
        return DASH
    return form.format(value) + (f" ± {form.replace('+', '').format(error)}" if error else "")


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " + ".join(_plain(each) for each in value)
    return "unknown" if value is None else " ".join(str(value).split())


def _sessions(count: int) -> str:
    return f"{count} session{'s' if count != 1 else ''}"


def _instant(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _cell(text: str) -> str:
    """Text that stays what it is inside a table: no cell ends at its bars, nothing in it is read as markup."""
    return re.sub(r"([\\`*\[\]<>|~])", r"\\\1", " ".join(text.split()))


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
