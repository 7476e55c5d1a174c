"""Scores of out-of-sample predictions, each with its interval and beside its rivals."""

from quant_assets.signals.evaluation.classification import auc, calibration
from quant_assets.signals.evaluation.ranking import newey_west_t
from quant_assets.signals.evaluation.report import Evaluation, evaluate

__all__ = ["Evaluation", "auc", "calibration", "evaluate", "newey_west_t"]
