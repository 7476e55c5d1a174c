"""Shapley values of trees by their definition: every subset of features, with the paths' own shares where one is unknown.

Independent of the libraries' fast algorithms, exponential in the features, for trees of a handful of splits.
Source: Lundberg and others, Consistent individualized feature attribution for tree ensembles (2018), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np


@dataclass(frozen=True)
class Leaf:
    value: float
    cover: float


@dataclass(frozen=True)
class Split:
    feature: int
    goes_left: Callable[[float], bool]
    left: Node
    right: Node

    @property
    def cover(self) -> float:
        return self.left.cover + self.right.cover


Node = Leaf | Split


def expected(node: Node, row: Sequence[float], known: frozenset[int]) -> float:
    """The tree's mean value where only some features are known: an unknown split is taken by the share of its rows."""
    if isinstance(node, Leaf):
        return node.value
    if node.feature in known:
        return expected(node.left if node.goes_left(row[node.feature]) else node.right, row, known)
    shares = [(side.cover / node.cover, side) for side in (node.left, node.right) if side.cover]
    return sum(share * expected(side, row, known) for share, side in shares)


def shapley(trees: Sequence[Node], row: Sequence[float]) -> np.ndarray:
    """Each feature's Shapley value for one row, and, last, the value where nothing is known."""
    features = range(len(row))

    def worth(known: Sequence[int]) -> float:
        return sum(expected(tree, row, frozenset(known)) for tree in trees)

    values = []
    for feature in features:
        others = [other for other in features if other != feature]
        values.append(
            sum(
                factorial(size) * factorial(len(others) - size) / factorial(len(row)) * (worth([*known, feature]) - worth(known))
                for size in range(len(row))
                for known in combinations(others, size)
            )
        )
    return np.array([*values, worth([])])
