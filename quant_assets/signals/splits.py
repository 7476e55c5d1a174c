"""The one splitter: train, purge, test, embargo, in sessions and never in rows.

A label of the session at index i looks h sessions ahead and is known at the close of i + h. A model that scores the
session at index j may use what is known before the close of j, so labels up to index j - 1 - h: between the last
training session and the first test session lie h sessions or more. Where training sessions follow a test, as many lie
unused after it, for the labels of its last sessions look into them. Both gaps are `purge + embargo` sessions long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations, pairwise

from quant_assets.errors import QuantAssetsError


class TooFewSessions(QuantAssetsError):
    """The history is too short for the walk-forward that was asked for; the text names the numbers."""


@dataclass(frozen=True)
class Fold:
    """A model trained on `train_sessions` scores `test_sessions`; in a walk forward these all lie after those."""

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
    least = {"n_folds": (n_folds, 1), "train_min_sessions": (train_min_sessions, 1)}
    if test_sessions is not None:
        least["test_sessions"] = (test_sessions, 1)
    _refuse(sessions, purge, embargo, least)
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


def holdout(sessions: Sequence[date], *, share: float, purge: int, embargo: int = 0) -> Fold:
    """One split of a training's own sessions: the last `share` of them to validate on, what lies before the gap to train on.

    Early stopping and calibration are fitted on it, so that neither sees a test. Raises as `walk_forward` does.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; it must lie between 0 and 1.")
    validated = max(1, round(share * len(sessions)))
    gap = purge + embargo
    trained = max(1, len(sessions) - validated - gap)
    return walk_forward(sessions, n_folds=1, train_min_sessions=trained, purge=purge, embargo=embargo, test_sessions=validated)[0]


def combinatorial_purged(sessions: Sequence[date], *, n_groups: int, test_groups: int, purge: int, embargo: int = 0) -> list[Fold]:
    """Every choice of `test_groups` out of `n_groups` parts of the sessions as a test, trained on the rest outside of the gaps.

    Groups are consecutive, in order, and differ in length by one at most (the longer first); a fold's test lists its
    sessions in order. Exactly `purge + embargo` sessions lie unused between a test group and the training on either side
    of it, where the history goes on that far. Each session is tested in C(n_groups - 1, test_groups - 1) folds, so that
    a history gives as many paths out of sample; training sessions may lie after a test, so such a fold judges a recipe and
    never scores a past session. Raises `TooFewSessions` where a fold has nothing left to train on, `ValueError` for
    arguments that make no sense.

    Source: López de Prado, Advances in Financial Machine Learning (2018), chapter 12.
    """
    _refuse(sessions, purge, embargo, {"n_groups": (n_groups, 2), "test_groups": (test_groups, 1)})
    if test_groups >= n_groups:
        raise ValueError(f"test_groups is {test_groups}; it must be less than n_groups, {n_groups}.")
    if len(sessions) < n_groups:
        raise TooFewSessions(f"{len(sessions)} sessions cannot be cut into {n_groups} groups. Load more history, or ask for fewer groups.")
    gap, (length, longer) = purge + embargo, divmod(len(sessions), n_groups)
    starts = [number * length + min(number, longer) for number in range(n_groups + 1)]
    folds = []
    for number, chosen in enumerate(combinations(range(n_groups), test_groups)):
        tested = [at for group in chosen for at in range(starts[group], starts[group + 1])]
        unused = {near for at in tested for near in range(at - gap, at + gap + 1)}
        trained = [at for at in range(len(sessions)) if at not in unused]
        if not trained:
            raise TooFewSessions(
                f"{len(sessions)} sessions are too few: with {test_groups} of {n_groups} groups to test on and {gap} sessions purged and "
                "embargoed on either side of each, nothing is left to train on. Load more history, or ask for fewer test groups."
            )
        folds.append(Fold(number, tuple(sessions[at] for at in trained), tuple(sessions[at] for at in tested)))
    return folds


def _refuse(sessions: Sequence[date], purge: int, embargo: int, least: dict[str, tuple[int, int]]) -> None:
    for name, (value, minimum) in {**least, "purge": (purge, 0), "embargo": (embargo, 0)}.items():
        if value < minimum:
            raise ValueError(f"{name} is {value}; it must be {minimum} or more.")
    for earlier, later in pairwise(sessions):
        if later <= earlier:
            raise ValueError(f"Sessions must ascend without repeats; {later} follows {earlier}.")
