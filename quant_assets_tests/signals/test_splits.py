"""The walk-forward splitter: numbers by hand, and what holds for every form of its parameters."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.signals.splits import TooFewSessions, combinatorial_purged, holdout, walk_forward


def days(n: int) -> list[date]:
    return [date(2020, 1, 1) + timedelta(days=i) for i in range(n)]


class TestRegression:
    def test_ten_sessions_by_hand(self) -> None:
        d = days(10)
        first, second = walk_forward(d, n_folds=2, train_min_sessions=4, purge=1)
        # 4 to train on and 1 purged leave 5 to test: 3 and 2.
        assert (first.number, first.train_sessions, first.test_sessions) == (0, tuple(d[:4]), tuple(d[5:8]))
        assert (second.number, second.train_sessions, second.test_sessions) == (1, tuple(d[:7]), tuple(d[8:]))

    def test_rolling_window_and_fixed_test_length(self) -> None:
        d = days(20)
        folds = walk_forward(d, n_folds=3, train_min_sessions=5, purge=2, embargo=1, expanding=False, test_sessions=2)
        assert [(fold.train_sessions[0], fold.train_sessions[-1]) for fold in folds] == [(d[6], d[10]), (d[8], d[12]), (d[10], d[14])]
        assert [fold.test_sessions for fold in folds] == [(d[14], d[15]), (d[16], d[17]), (d[18], d[19])]

    def test_too_few_sessions_names_the_numbers(self) -> None:
        assert len(walk_forward(days(259), n_folds=5, train_min_sessions=252, purge=1, embargo=1)) == 5
        with pytest.raises(
            TooFewSessions, match=r"258 sessions are too few: 252 to train on, 1 purged, 1 embargoed and 5 folds .* make 259"
        ):
            walk_forward(days(258), n_folds=5, train_min_sessions=252, purge=1, embargo=1)

    @pytest.mark.parametrize(
        "wrong",
        [{"n_folds": 0}, {"train_min_sessions": 0}, {"purge": -1}, {"embargo": -1}, {"test_sessions": 0}],
        ids=lambda wrong: next(iter(wrong)),
    )
    def test_senseless_arguments_are_named(self, wrong: dict[str, int]) -> None:
        arguments = {"n_folds": 2, "train_min_sessions": 5, "purge": 1} | wrong
        with pytest.raises(ValueError, match=next(iter(wrong))):
            walk_forward(days(30), **arguments)

    def test_unsorted_and_repeated_sessions_are_refused(self) -> None:
        d = days(30)
        for sessions in (d[::-1], [*d, d[-1]]):
            with pytest.raises(ValueError, match="must ascend"):
                walk_forward(sessions, n_folds=2, train_min_sessions=5, purge=1)


@st.composite
def forms(draw: st.DrawFn) -> dict[str, object]:
    return {
        "n": draw(st.integers(1, 150)),
        "n_folds": draw(st.integers(1, 8)),
        "train_min_sessions": draw(st.integers(1, 60)),
        "purge": draw(st.integers(0, 25)),
        "embargo": draw(st.integers(0, 10)),
        "expanding": draw(st.booleans()),
        "test_sessions": draw(st.none() | st.integers(1, 20)),
    }


class TestCombinatorial:
    def test_six_groups_by_hand(self) -> None:
        d = days(13)
        folds = combinatorial_purged(d, n_groups=6, test_groups=2, purge=1)
        assert len(folds) == comb(6, 2)
        # Groups: 3, 2, 2, 2, 2, 2 sessions. Testing the first and the third leaves, a session off on either side, 8 to 12.
        chosen = folds[1]
        assert chosen.test_sessions == (*d[0:3], *d[5:7])
        assert chosen.train_sessions == tuple(d[8:13])
        assert all(sum(session in fold.test_sessions for fold in folds) == comb(5, 1) for session in d)

    def test_nothing_left_to_train_on_is_said(self) -> None:
        with pytest.raises(TooFewSessions, match=r"12 sessions are too few: with 2 of 4 groups to test on and 7 sessions"):
            combinatorial_purged(days(12), n_groups=4, test_groups=2, purge=5, embargo=2)
        with pytest.raises(TooFewSessions, match="3 sessions cannot be cut into 4 groups"):
            combinatorial_purged(days(3), n_groups=4, test_groups=2, purge=0)

    @pytest.mark.parametrize(("n_groups", "test_groups", "what"), [(1, 1, "n_groups"), (4, 0, "test_groups"), (4, 4, "less than n_groups")])
    def test_senseless_groups_are_named(self, n_groups: int, test_groups: int, what: str) -> None:
        with pytest.raises(ValueError, match=what):
            combinatorial_purged(days(30), n_groups=n_groups, test_groups=test_groups, purge=1)

    @given(n=st.integers(8, 80), n_groups=st.integers(2, 7), data=st.data(), purge=st.integers(0, 12), embargo=st.integers(0, 5))
    def test_no_label_of_either_side_reaches_the_other(self, n: int, n_groups: int, data: st.DataObject, purge: int, embargo: int) -> None:
        sessions, gap = days(n), purge + embargo
        index = {session: i for i, session in enumerate(sessions)}
        try:
            folds = combinatorial_purged(
                sessions, n_groups=n_groups, test_groups=data.draw(st.integers(1, n_groups - 1)), purge=purge, embargo=embargo
            )
        except TooFewSessions:
            return
        for fold in folds:
            train, test = {index[s] for s in fold.train_sessions}, {index[s] for s in fold.test_sessions}
            # What is used for neither is exactly what lies within the gap of a tested session.
            assert set(range(n)) - train - test == {at for at in range(n) if at not in test and min(abs(at - t) for t in test) <= gap}
            for horizon in range(purge + 1):
                assert not {i + ahead for i in train for ahead in range(horizon + 1)} & test
                assert not {i + ahead for i in test for ahead in range(horizon + 1)} & train


class TestHoldout:
    def test_a_quarter_by_hand(self) -> None:
        d = days(40)
        fold = holdout(d, share=0.25, purge=5, embargo=1)
        assert (fold.train_sessions, fold.test_sessions) == (tuple(d[:24]), tuple(d[30:]))

    def test_what_cannot_be_split_is_named(self) -> None:
        with pytest.raises(TooFewSessions, match="10 sessions are too few: 1 to train on, 20 purged"):
            holdout(days(10), share=0.25, purge=20)
        with pytest.raises(ValueError, match="share is 1"):
            holdout(days(10), share=1, purge=1)


class TestProperties:
    @given(form=forms())
    def test_every_form(self, form: dict[str, object]) -> None:
        sessions = days(form.pop("n"))
        index = {session: i for i, session in enumerate(sessions)}
        gap, least = form["purge"] + form["embargo"], form["train_min_sessions"]
        needed = least + gap + form["n_folds"] * (form["test_sessions"] or 1)
        try:
            folds = walk_forward(sessions, **form)
        except TooFewSessions:
            assert len(sessions) < needed
            return
        assert len(sessions) >= needed
        assert [fold.number for fold in folds] == list(range(form["n_folds"]))

        # The tests tile the out-of-sample sessions: in order, no overlap, up to the last one.
        tested = [session for fold in folds for session in fold.test_sessions]
        assert tested == sessions[len(sessions) - len(tested) :]
        if form["test_sessions"] is None:
            assert len(tested) == len(sessions) - least - gap
            lengths = [len(fold.test_sessions) for fold in folds]
            assert max(lengths) - min(lengths) <= 1
        else:
            assert {len(fold.test_sessions) for fold in folds} == {form["test_sessions"]}

        for fold in folds:
            train, test = [index[s] for s in fold.train_sessions], [index[s] for s in fold.test_sessions]
            assert all(later == earlier + 1 for earlier, later in pairwise(train))
            assert test[0] - train[-1] - 1 == gap
            assert train[0] == 0 if form["expanding"] else len(train) == least
            assert len(train) >= least
            # For every horizon that the purge allows, no label's window [i, i + h] touches a test session.
            for horizon in range(form["purge"] + 1):
                assert not {i + ahead for i in train for ahead in range(horizon + 1)} & set(test)

    @given(form=forms())
    def test_a_longer_history_never_reaches_back(self, form: dict[str, object]) -> None:
        """Training sessions of a fold lie before its test, whatever comes after the cut."""
        sessions = days(form.pop("n"))
        try:
            folds = walk_forward(sessions, **form)
        except TooFewSessions:
            return
        assert all(max(fold.train_sessions) < min(fold.test_sessions) for fold in folds)
