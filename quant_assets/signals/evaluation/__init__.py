"""Scores of out-of-sample predictions, each with its interval and beside its rivals."""

from quant_assets.signals.evaluation.report import Evaluation, auc, calibration, evaluate, newey_west_t

__all__ = ["Evaluation", "auc", "calibration", "evaluate", "newey_west_t"]
