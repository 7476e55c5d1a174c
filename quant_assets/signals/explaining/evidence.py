"""What a training leaves for people to read: explanations, pictures, tables and the model card, as files by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import polars as pl

from quant_assets.feature_store.contract import FeatureContract
from quant_assets.signals.explaining import explanation, plots
from quant_assets.signals.explaining.model_card import CardInputs, model_card
from quant_assets.signals.promotion import Verdict
from quant_assets.signals.training import TrainingResult

EXPLAINED_ROWS = 5_000
PERMUTED_ROWS = 10_000
"""Rows of a test fold that features are exchanged in: of 250 features a few seconds a fold."""


@dataclass(frozen=True)
class Evidence:
    """A training explained: the final model's contributions on a sample, and what the test folds say of each feature.

    `contributions` and `sample` belong together, row by row; the frames are those of `explanation`.
    """

    contributions: pl.DataFrame
    sample: pl.DataFrame
    summary: pl.DataFrame
    permutation: pl.DataFrame
    counter_examples: pl.DataFrame


def explain(result: TrainingResult, frame: pl.DataFrame) -> Evidence:
    """Explain a training on its own frame: contributions over all of it, permutations and misses on the test folds alone."""
    sample = explanation.sample_of(frame, EXPLAINED_ROWS, result.setup.seed)
    contributions = explanation.shap_values(result.model, sample)
    losses, misses = [], []
    for (fold,), predictions in result.predictions.group_by("fold", maintain_order=True):
        model = result.fold_models[int(fold)]  # type: ignore[call-overload]
        tested = frame.join(predictions.select("symbol", "session"), on=["symbol", "session"], how="semi").sort("session", "symbol")
        losses.append(explanation.permutation_importance(model, tested, "up", result.setup.horizon, result.setup.seed, PERMUTED_ROWS))
        misses.append(explanation.counter_examples(predictions, model, tested))
    return Evidence(
        contributions, sample, explanation.shap_summary(contributions, sample), explanation.combine(losses), explanation.worst(misses)
    )


def files_of(result: TrainingResult, evidence: Evidence, contract: FeatureContract) -> dict[str, bytes | str]:
    """Pictures (PNG) and tables (CSV) by file name."""
    judged, units = result.evaluation, dict(zip(contract.names, contract.units, strict=True))
    return {
        "calibration.png": plots.calibration_png(judged.calibration),
        "rank_ic.png": plots.rank_ic_png(judged.sessions, result.setup.horizon, result.setup.seed),
        "shap_summary.png": plots.shap_summary_png(evidence.contributions, evidence.sample),
        "shap_dependence.png": plots.dependence_png(evidence.contributions, evidence.sample, units),
        "importance.png": plots.importance_png(result.model.importance),
        "shap_summary.csv": evidence.summary.write_csv(),
        "permutation_importance.csv": evidence.permutation.write_csv(),
        "counter_examples.csv": evidence.counter_examples.write_csv(),
        "tuning_trials.csv": result.trials.write_csv(),
    }


def card_of(
    result: TrainingResult,
    evidence: Evidence,
    contract: FeatureContract,
    as_of: datetime,
    source: str,
    basis: str | None,
    verdict: Verdict,
    leaks: Sequence[str],
    version: str,
) -> str:
    """The model card of a training, in Markdown."""
    setup, parameters = result.setup, asdict(result.config)
    return model_card(
        CardInputs(
            contract=contract,
            family=parameters.pop("family"),
            parameters=_asked(parameters, result),
            horizon=setup.horizon,
            label_threshold=setup.label_threshold,
            embargo=setup.embargo,
            seed=setup.seed,
            fee_bps=setup.fee_bps,
            source=source,
            symbols=result.symbols,
            rows=result.rows,
            first_session=result.first_session,
            last_session=result.last_session,
            as_of=as_of,
            trained_until=result.trained_until,
            fingerprint=result.fingerprint,
            folds=result.folds,
            scores=result.evaluation.scores,
            calibration=result.evaluation.calibration,
            importance=result.model.importance,
            permutation=evidence.permutation,
            counter_examples=evidence.counter_examples,
            leaks=leaks,
            decision=verdict.decision,
            reason=verdict.reason,
            evidence=verdict.evidence,
            version=version,
            basis=basis,
        )
    )


def _asked(parameters: Mapping[str, object], result: TrainingResult) -> dict[str, object]:
    """The configuration as far as the family has a use for it."""
    unused = {"member_rounds"} if result.config.family == "average" else {"members", "member_rounds"}
    if result.config.family == "logistic":
        unused |= {"rounds", "leaves", "learning_rate", "min_data_in_leaf", "feature_fraction", "max_bin", "early_stopping_rounds"}
    return {name: value for name, value in parameters.items() if name not in unused}
