"""Training: walk forward with a control, judge out of sample, then fit the final model on everything known.

The same frame, configuration and code give the same model, byte for byte, and the same fingerprint, in any process and
for any order of the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from importlib.metadata import version

import polars as pl

from quant_assets.feature_store.contract import source_hash
from quant_assets.feature_store.fingerprints import fingerprint as fingerprint_of
from quant_assets.signals import boosters, evaluation, splits
from quant_assets.signals.boosters import Booster, BoosterConfig
from quant_assets.signals.evaluation import Evaluation

LABEL_COLUMNS = ("forward_return", "up", "known_at")
CONTROL = "shuffled_up"


@dataclass(frozen=True)
class TrainingSetup:
    """What a training is, apart from its frame and code; all of it is part of the fingerprint.

    `horizon` is the label's, in sessions; the walk-forward purges that many and `embargo` more. The first fold trains
    on at least `train_min_sessions`.
    """

    features: tuple[str, ...]
    horizon: int
    definition_hash: str
    config: BoosterConfig = field(default_factory=BoosterConfig)
    seed: int = 7
    n_folds: int = 5
    train_min_sessions: int = 252
    embargo: int = 0


@dataclass(frozen=True)
class TrainingResult:
    """A trained model and its evidence.

    `predictions`: one row per out-of-sample symbol and session (`horizon`, `symbol`, `session`, `fold`, `probability`,
    `trained_until`), sorted by session and symbol. `folds`: one row per fold, its sessions, sizes, `trained_until` and
    scores. `trained_until` (of the result): the final model used nothing known after this instant.
    """

    setup: TrainingSetup
    fingerprint: str
    booster: Booster
    trained_until: datetime
    predictions: pl.DataFrame
    folds: pl.DataFrame
    evaluation: Evaluation
    rows: int
    first_session: date
    last_session: date


def train(frame: pl.DataFrame, setup: TrainingSetup) -> TrainingResult:
    """Train on a frame whose labels are all known: walk-forward predictions, scores beside a control, the final model.

    `frame` has one row per symbol and session, in any order: `symbol`, `session`, the features (nulls allowed),
    `forward_return`, `up` and the label's `known_at`. Its sessions are what the splitter counts. A fold trains on labels
    known when the last of its training sessions' labels became known, so that a label restated later stays out of it.
    The control is the same model on labels shuffled over all rows, before any fold is cut. Raises `TooFewSessions` for a short
    history and `ValueError` for a label that is not known or a repeated row.
    """
    ordered = _ordered(frame, setup.features)
    shuffled = ordered.with_columns(pl.Series(CONTROL, ordered["up"].sample(fraction=1, shuffle=True, seed=setup.seed)))
    sessions = ordered["session"].unique().sort().to_list()
    folds = splits.walk_forward(
        sessions, n_folds=setup.n_folds, train_min_sessions=setup.train_min_sessions, purge=setup.horizon, embargo=setup.embargo
    )
    scored, rows = [], []
    for fold in folds:
        last = shuffled.filter(pl.col("session") == fold.train_sessions[-1])
        known = shuffled.filter(
            pl.col("session").is_between(fold.train_sessions[0], fold.train_sessions[-1]), pl.col("known_at") <= last["known_at"].min()
        )
        test = shuffled.filter(pl.col("session").is_between(fold.test_sessions[0], fold.test_sessions[-1]))
        model, control = boosters.fit_labels(known, setup.features, ["up", CONTROL], setup.config, setup.seed)
        row = {
            "fold": fold.number, "train_from": fold.train_sessions[0], "train_to": fold.train_sessions[-1],
            "test_from": fold.test_sessions[0], "test_to": fold.test_sessions[-1], "train_rows": len(known),
            "train_up_share": known["up"].mean(), "trained_until": known["known_at"].max(),
        }  # fmt: skip
        rows.append(row)
        scored.append(
            test.select("symbol", "session", "forward_return", "up").with_columns(
                model.predict(test),
                control.predict(test).alias("control_probability"),
                pl.lit(fold.number, pl.Int32).alias("fold"),
                pl.lit(row["train_up_share"], pl.Float64).alias("train_up_share"),
                pl.lit(row["trained_until"], pl.Datetime("us")).alias("trained_until"),
                pl.lit(setup.horizon, pl.Int32).alias("horizon"),
            )
        )
    out_of_sample = pl.concat(scored)
    judged = evaluation.evaluate(out_of_sample, setup.horizon)
    table = pl.DataFrame(rows, schema_overrides={"fold": pl.Int32, "trained_until": pl.Datetime("us")})
    return TrainingResult(
        setup=setup,
        fingerprint=fingerprint(ordered, setup),
        booster=boosters.fit(ordered, setup.features, "up", setup.config, setup.seed),
        trained_until=ordered["known_at"].max(),  # type: ignore[arg-type]
        predictions=out_of_sample.select("horizon", "symbol", "session", "fold", "probability", "trained_until"),
        folds=table.join(judged.folds, on="fold", how="left", maintain_order="left"),
        evaluation=judged,
        rows=len(ordered),
        first_session=sessions[0],
        last_session=sessions[-1],
    )


def fingerprint(frame: pl.DataFrame, setup: TrainingSetup) -> str:
    """Hash (hexadecimal sha256) of everything that decides a training: frame, setup, code, LightGBM's version.

    Cheap beside training itself: ask the registry for it first. Independent of the order of rows and columns.
    """
    code = source_hash(*(str(module.__file__) for module in (splits, boosters, evaluation)), __file__)
    parts = {
        "frame": fingerprint_of(_ordered(frame, setup.features)),
        "setup": asdict(setup),
        "code": code,
        "lightgbm": version("lightgbm"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _ordered(frame: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """The columns a training reads, one row per symbol and session, sorted; what cannot be trained on is refused."""
    ordered = frame.select("symbol", "session", *features, *LABEL_COLUMNS).sort("session", "symbol")
    for name in LABEL_COLUMNS:
        if nulls := ordered[name].null_count():
            raise ValueError(f"{name} is null in {nulls} of {len(ordered)} rows; train on rows whose outcome is known.")
    if repeated := len(ordered) - ordered.select(pl.struct("symbol", "session").n_unique()).item():
        raise ValueError(f"{repeated} of {len(ordered)} rows repeat a symbol and session; train on one row each.")
    return ordered.with_columns(pl.col(name).cast(pl.Float64).fill_nan(None) for name in features)
