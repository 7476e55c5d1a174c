"""The one walk-forward splitter: train, purge, test, in sessions and never in rows.

A label of the session at index i looks h sessions ahead and is known at the close of i + h. A model that scores the
session at index j may use what is known before the close of j, so labels up to index j - 1 - h: between the last
training session and the first test session lie h sessions or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from quant_assets.errors import QuantAssetsError


class TooFewSessions(QuantAssetsError):
    """The history is too short for the walk-forward that was asked for; the text names the numbers."""


@dataclass(frozen=True)
class Fold:
    """One step of the walk: a model trained on `train_sessions` scores `test_sessions`, which all lie after them."""

    number: int
    train_sessions: tuple[date, ...]
    test_sessions: tuple[date, ...]


def walk_forward(
    sessions: Sequence[date],
    *,
    n_folds: int,
    train_min_sessions: int,
    purge: int,
    embargo: int = 0,
    expanding: bool = True,
    test_sessions: int | None = None,
) -> list[Fold]:
    """Cut sessions into folds whose tests tile the out-of-sample sessions, in order and without overlap.

    `sessions` are consecutive and strictly ascending. Exactly `purge + embargo` sessions lie unused between a fold's
    training and its test; `purge` must be at least the label's horizon. (Training never follows its own test here, so
    an embargo can only widen that gap, against features with a long memory.)

    The first fold trains on at least `train_min_sessions`; later ones on everything before their gap, or, with
    `expanding=False`, on the last `train_min_sessions` before it. Tests cover all sessions after the first training and
    gap, in `n_folds` parts whose lengths differ by one at most (the longer first), or the last
    `n_folds * test_sessions` sessions where `test_sessions` is given. Raises `TooFewSessions` for a history that is too
    short and `ValueError` for arguments that make no sense.

    Source: purging and embargo, López de Prado, Advances in Financial Machine Learning (2018), chapter 7.
    """
    least = {"n_folds": (n_folds, 1), "train_min_sessions": (train_min_sessions, 1), "purge": (purge, 0), "embargo": (embargo, 0)}
    if test_sessions is not None:
        least["test_sessions"] = (test_sessions, 1)
    for name, (value, minimum) in least.items():
        if value < minimum:
            raise ValueError(f"{name} is {value}; it must be {minimum} or more.")
    for earlier, later in pairwise(sessions):
        if later <= earlier:
            raise ValueError(f"Sessions must ascend without repeats; {later} follows {earlier}.")

    gap = purge + embargo
    needed = train_min_sessions + gap + n_folds * (test_sessions or 1)
    if len(sessions) < needed:
        raise TooFewSessions(
            f"{len(sessions)} sessions are too few: {train_min_sessions} to train on, {purge} purged, {embargo} embargoed and "
            f"{n_folds} folds of {test_sessions or 1} or more to test on make {needed}. Load more history, or ask for fewer folds "
            "or a shorter training (QUANT_TRAIN_MIN_SESSIONS)."
        )
    tested = len(sessions) - train_min_sessions - gap if test_sessions is None else n_folds * test_sessions
    start, (length, longer) = len(sessions) - tested, divmod(tested, n_folds)
    folds = []
    for number in range(n_folds):
        end = start + length + (number < longer)
        last = start - gap
        first = 0 if expanding else last - train_min_sessions
        folds.append(Fold(number, tuple(sessions[first:last]), tuple(sessions[start:end])))
        start = end
    return folds
