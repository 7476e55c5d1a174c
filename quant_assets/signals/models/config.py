"""What a model is trained with: its family and hyperparameters, the same names for every family."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

FAMILIES = ("lightgbm", "catboost", "logistic", "xgboost", "average")
MOST_ROWS = 100_000
CALIBRATIONS = ("platt", "isotonic", "none")


@dataclass(frozen=True)
class ModelConfig:
    """Hyperparameters of one fit; part of a training's fingerprint. Raises `ValueError` naming what cannot be.

    The defaults are small and regularised, since daily returns are nearly noise: few leaves, many rows in each, a slow
    learning rate. `leaves` becomes a depth of ceil(log2(leaves)) for catboost and xgboost. `early_stopping_rounds` 0 means
    none; else boosting stops on the validation frame's log loss. `members` are those of the family `average`, `member_rounds`
    their rounds where each has its own.
    Each round looks at `row_fraction` of the rows, 100,000 at most, and `feature_fraction` of the features.
    `l2` is added to a leaf's sum of hessians (trees); a logistic coefficient is shrunk by `l2` per thousand rows.
    """

    family: str = "lightgbm"
    rounds: int = 100
    leaves: int = 4
    learning_rate: float = 0.03
    min_data_in_leaf: int = 200
    feature_fraction: float = 0.8
    row_fraction: float = 0.5
    l2: float = 10.0
    max_bin: int = 63
    early_stopping_rounds: int = 0
    balanced: bool = False
    calibration: str = "platt"
    members: tuple[str, ...] = ("lightgbm", "catboost", "logistic")
    member_rounds: tuple[int, ...] = ()
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("members", "member_rounds"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives a list back
        single = [family for family in FAMILIES if family != "average"]
        if self.family not in FAMILIES:
            raise ValueError(f"There is no model family {self.family!r}; choose one of {', '.join(FAMILIES)}.")
        if self.calibration not in CALIBRATIONS:
            raise ValueError(f"There is no calibration {self.calibration!r}; choose one of {', '.join(CALIBRATIONS)}.")
        if not self.members:
            raise ValueError(f"An average needs at least one member; choose from {', '.join(single)}.")
        if unknown := [name for name in self.members if name not in single]:
            raise ValueError(f"An average cannot have the member {unknown[0]!r}; choose from {', '.join(single)}.")
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"A member of an average counts once; these repeat one: {', '.join(self.members)}.")
        limits = {  # the least and the most; max_bin and leaves end where a family's own limit stands
            "rounds": (1, None),
            "leaves": (2, 2**16),
            "min_data_in_leaf": (1, None),
            "l2": (0, None),
            "max_bin": (2, 255),
            "early_stopping_rounds": (0, None),
            "threads": (1, None),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not value >= least or (most is not None and value > most):
                raise ValueError(f"{name} must be at least {least}{'' if most is None else f' and at most {most}'}; it is {value}.")
        for name in ("learning_rate", "feature_fraction", "row_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1; it is {getattr(self, name)}.")

    @property
    def depth(self) -> int:
        """Levels of splits that give at least `leaves` leaves."""
        return ceil(log2(self.leaves))

    def drawn(self, rows: int) -> float:
        """The share of the rows that each round looks at: `row_fraction`, and no more than make 100,000 rows."""
        return min(self.row_fraction, MOST_ROWS / max(rows, 1))

    def smallest_leaf(self, rows: int) -> int:
        """Rows that a leaf must hold: `min_data_in_leaf`, on small frames a fiftieth of the rows, so that trees can still split."""
        return max(1, min(self.min_data_in_leaf, rows // 50))
