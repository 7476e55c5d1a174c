"""The night's signals: who scores what, what stands, and that no model scores its own past."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from quant_assets.feature_store.views import definition_hash
from quant_assets.schemas import DAILY_SIGNALS, PREDICTIONS
from quant_assets.signals import nightly
from quant_assets.signals.calibration import Calibration
from quant_assets.signals.heuristic import Heuristic
from quant_assets.signals.nightly import scorers
from quant_assets.signals.registry.local_copies import load_local_copy
from quant_assets.warehouse import append_versions, content_hash
from quant_assets_tests.market_data.test_universe import store_members
from quant_assets_tests.signals.nights import NAMES, Desk

LAST = 150
"""The session that the shared market reaches to; the first 120 of them are what a first fold trains on."""


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk.new(tmp_path_factory.mktemp("untrained"), len(NAMES), LAST)


@pytest.fixture(scope="module")
def trained(untrained: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The same market with a champion of its last evening, which has scored nothing yet."""
    desk = untrained.copy(tmp_path_factory.mktemp("trained"))
    desk.train(desk.evening(LAST))
    return desk


@pytest.fixture
def new(untrained: Desk, tmp_path: Path) -> Desk:
    """A desk of one's own without a model."""
    return untrained.copy(tmp_path)


@pytest.fixture
def desk(trained: Desk, tmp_path: Path) -> Desk:
    """A desk of one's own with a champion."""
    return trained.copy(tmp_path)


def stored(desk: Desk) -> str:
    with desk.warehouse.connect() as connection:
        return content_hash(connection, DAILY_SIGNALS)


def by_champion(desk: Desk, number: int) -> list[float]:
    """What the champion's own file says about a session's features, by symbol."""
    sql = "select model_version, model_sha256 from signals.promotions"
    model, _ = load_local_copy(desk.settings.models_path, *desk.warehouse.read(sql).row(0), "technical_v1", definition_hash("technical_v1"))
    return model.predict(desk.features(number)).to_list()


def heuristic(desk: Desk, number: int = LAST) -> Heuristic:
    """The heuristic of a session's month, as it is stored."""
    sql = "select intercept, slope from signals.heuristic_calibrations where valid_from <= $session order by valid_from desc limit 1"
    return Heuristic(Calibration("platt", *desk.warehouse.read(sql, {"session": desk.session(number)}).row(0)))


class TestTonight:
    def test_without_a_model_the_heuristic_scores_every_symbol(self, new: Desk) -> None:
        run = new.score(LAST)
        signals, features = new.signals(), new.features(LAST)
        assert signals["symbol"].to_list() == features["symbol"].to_list()
        assert set(signals["symbol"]) >= {"O'NEIL", "NA", "TRUE", 'Ä "x", y'}
        assert signals["probability"].to_list() == heuristic(new).predict(features).to_list()
        constant = {
            "session": new.session(LAST), "known_at": new.evening(LAST), "horizon": 1, "scorer": "heuristic", "mode": "live",
            "model_version": None, "trained_until": None, "feature_view": "technical_v1", "run_id": "night",
            "batch_id": new.delivery(LAST).batch_id,
        }  # fmt: skip
        assert [row | constant for row in signals.iter_rows(named=True)] == signals.to_dicts()
        assert scorers(new.warehouse, 1, new.session(LAST), new.evening(LAST)).rows() == [("heuristic", None, signals.height)]
        assert run.notes == ("no model may score tonight: the heuristic does",)
        assert run.written.height == signals.height

    def test_the_champion_scores_what_it_has_not_seen(self, desk: Desk) -> None:
        run = desk.score(LAST)
        signals = desk.signals()
        assert signals["symbol"].to_list() == desk.features(LAST)["symbol"].to_list()
        assert signals["probability"].to_list() == by_champion(desk, LAST)
        assert signals["scorer"].unique().to_list() == ["model"]
        assert signals["model_version"].unique().to_list() == ["1"]
        assert signals["trained_until"].unique().to_list() == [desk.evening(LAST - 1)]
        assert desk.evening(LAST - 1) < desk.close(LAST)
        assert run.notes == ()
        assert all(len(json.loads(text)) == 5 for text in signals["contributions"])

    @pytest.mark.parametrize("model", [False, True])
    def test_a_listing_of_tonight_gets_a_signal_on_next_to_no_features(
        self, model: bool, untrained: Desk, trained: Desk, tmp_path: Path
    ) -> None:
        desk = (trained if model else untrained).copy(tmp_path)
        tomorrow = desk.delivery(LAST + 1)
        listed = tomorrow.bars.filter(pl.col("session") == desk.session(LAST + 1)).head(1).with_columns(symbol=pl.lit("NEW"))
        desk.take(replace(tomorrow, bars=pl.concat([tomorrow.bars, listed])), desk.evening(LAST + 1))
        desk.score(LAST + 1)
        features = desk.features(LAST + 1).filter(pl.col("symbol") == "NEW")
        assert features.select("rsi_14", "sma_20", "price_change_1d").row(0) == (None, None, None)
        (signal,) = desk.signals().filter(pl.col("symbol") == "NEW").to_dicts()
        assert signal["scorer"] == ("model" if model else "heuristic")
        assert model or signal["probability"] == pytest.approx(
            Calibration("platt", heuristic(desk).calibration.intercept).probability(pl.Series([0.0])).item()
        )
        assert desk.signals()["symbol"].to_list() == desk.features(LAST + 1)["symbol"].to_list()

    def test_one_symbol_alone(self, tmp_path: Path) -> None:
        desk = Desk.new(tmp_path, 1, 130, train_min_sessions=60)
        desk.train(desk.evening(130))
        desk.score(130)
        assert desk.signals()["probability"].to_list() == by_champion(desk, 130)
        (evidence,) = desk.warehouse.read("select evidence from signals.promotions")["evidence"]
        assert json.loads(evidence, parse_constant=pytest.fail)["rank_ic"] is None  # one symbol has no rank

    def test_an_evening_without_bars_scores_nothing_and_says_so(self, desk: Desk) -> None:
        run = desk.score(LAST + 1)
        assert run.written.height == 0
        assert run.notes == (f"no symbol in scope has features on {desk.session(LAST + 1)}: there is nothing to score",)
        assert desk.signals().is_empty()

    def test_who_is_out_of_scope_gets_no_signal_and_keeps_its_past(self, new: Desk) -> None:
        left = [(name, new.session(1), new.session(LAST - 10)) for name in ("NA", "TRUE")]
        stay = [(name, new.session(1), None) for name in NAMES if name not in ("NA", "TRUE")]
        store_members(new.warehouse, [*left, *stay], new.evening(1), "synthetic")
        new.train(new.evening(LAST))
        predicted = new.warehouse.read("select symbol, max(session) as last from signals.predictions group by symbol order by symbol")
        lasts = dict(predicted.iter_rows())
        assert {lasts.pop("NA"), lasts.pop("TRUE")} == {new.session(LAST - 10)}
        assert set(lasts.values()) == {new.session(LAST - 2)}
        tonight = set(new.features(LAST)["symbol"])
        assert tonight >= {"NA", "TRUE"}  # features are for whoever has bars
        new.score(LAST, first=LAST - 12)
        signals = new.signals()
        assert {"NA", "TRUE"} & set(signals.filter(pl.col("session") > new.session(LAST - 10))["symbol"]) == set()
        assert {"NA", "TRUE"} <= set(signals.filter(pl.col("session") == new.session(LAST - 10))["symbol"])
        assert set(new.signals(LAST)["symbol"]) == tonight - {"NA", "TRUE"}

    def test_an_evening_with_nobody_in_scope_says_so(self, desk: Desk) -> None:
        store_members(desk.warehouse, [("NA", desk.session(1), desk.session(LAST - 1))], desk.evening(1), "synthetic")
        run = desk.score(LAST)
        assert (run.written.height, run.notes) == (
            0,
            (f"no symbol in scope has features on {desk.session(LAST)}: there is nothing to score",),
        )

    def test_horizons_do_not_meet(self, desk: Desk) -> None:
        desk.score(LAST)
        other = replace(desk, settings=desk.settings.model_copy(update={"horizon": 5}))
        assert other.score(LAST).notes == ("no model may score tonight: the heuristic does",)
        counts = desk.signals().group_by("horizon", "scorer").len().sort("horizon").rows()
        symbols = desk.features(LAST).height
        assert counts == [(1, "model", symbols), (5, "heuristic", symbols)]


class TestUnusableChampion:
    @pytest.mark.parametrize("damage", ["missing", "cut", "redefined"])
    def test_the_heuristic_scores_and_says_why(self, damage: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        (file,) = desk.settings.models_path.glob("*.json")
        if damage == "missing":
            file.unlink()
        elif damage == "cut":
            file.write_bytes(file.read_bytes()[:-1])
        else:
            monkeypatch.setattr(nightly, "definition_hash", lambda _: "f" * 64)
        run = desk.score(LAST)
        assert desk.signals()["probability"].to_list() == heuristic(desk).predict(desk.features(LAST)).to_list()
        assert desk.signals().select("scorer", "model_version", "trained_until").unique().rows() == [("heuristic", None, None)]
        wanted = {"missing": "no local copy of model version 1", "cut": "is not the one that was saved", "redefined": "f" * 12}[damage]
        assert len(run.notes) == 1
        assert run.notes[0].startswith("champion 1 may not score, the heuristic does: ")
        assert wanted in run.notes[0]

    def test_damage_is_told_where_tonight_was_scored_before(self, desk: Desk) -> None:
        desk.score(LAST)
        before = stored(desk)
        next(desk.settings.models_path.glob("*.json")).unlink()
        assert "no local copy of model version 1" in desk.score(LAST).notes[0]
        assert stored(desk) == before


class TestRepeated:
    def test_the_same_night_twice_writes_nothing(self, desk: Desk) -> None:
        desk.score(LAST, first=LAST - 40)
        before = stored(desk)
        again = desk.score(LAST, first=LAST - 40, run_id="again")
        assert (again.written.height, again.notes, stored(desk)) == (0, (), before)
        later = desk.score(LAST, as_of=desk.evening(LAST) + timedelta(hours=3), run_id="later")
        assert (later.written.height, stored(desk)) == (0, before)

    def test_a_restated_bar_gives_its_symbol_a_new_version(self, desk: Desk) -> None:
        desk.score(LAST)
        first = desk.signals(as_of=desk.evening(LAST))
        seen = desk.evening(LAST) + timedelta(hours=5)
        desk.restate(LAST, "NA", 1.04, seen)
        run = desk.score(LAST, as_of=seen)
        assert run.written.select("symbol", "known_at", "was_known").rows() == [("NA", seen, True)]
        assert desk.signals(as_of=desk.evening(LAST)).equals(first)
        assert desk.signals()["probability"].to_list() == by_champion(desk, LAST)
        assert desk.signals().filter(pl.col("symbol") == "NA")["batch_id"].item() == "restated-NA-1.04"

    def test_an_earlier_instant_again_leaves_the_later_version_the_newest(self, desk: Desk) -> None:
        """What a run as of the evening finds is older than what is stored: it must not be stored on top."""
        desk.score(LAST)
        seen = desk.evening(LAST) + timedelta(microseconds=1)
        desk.restate(LAST, "NA", 1.04, seen)
        desk.score(LAST, as_of=seen)
        before = stored(desk)
        for instant in (desk.evening(LAST), seen, desk.evening(LAST)):
            assert desk.score(LAST, as_of=instant).written.is_empty()
        assert stored(desk) == before

    def test_a_past_evening_again_leaves_what_was_replayed(self, desk: Desk) -> None:
        desk.score(LAST, first=LAST - 1)
        before = stored(desk)
        assert desk.score(LAST - 1).written.is_empty()
        assert stored(desk) == before

    def test_a_model_of_the_same_evening_scores_as_of_a_later_instant(self, new: Desk) -> None:
        new.score(LAST)
        first, symbols = new.signals(), new.features(LAST).height
        new.train(new.evening(LAST))
        run = new.score(LAST)
        assert run.written.is_empty()
        assert run.notes == (
            f"{symbols} signals of {new.session(LAST)} stay as the heuristic made them, for what was known as of {new.evening(LAST)} UTC "
            "does not change; a run as of a later instant scores them with model version 1",
        )
        later = new.evening(LAST) + timedelta(minutes=1)
        assert new.score(LAST, as_of=later).notes == ()
        assert new.signals().select("scorer", "known_at").unique().rows() == [("model", later)]
        assert new.signals(as_of=new.evening(LAST)).equals(first)

    def test_training_again_on_the_same_evening_changes_no_signal(self, desk: Desk) -> None:
        desk.score(LAST)
        before = stored(desk)
        assert desk.train(desk.evening(LAST), model_seed=8).model_version == "2"
        later = desk.evening(LAST) + timedelta(hours=1)
        for instant in (desk.evening(LAST), later):
            assert desk.score(LAST, as_of=instant).written.is_empty()
        assert stored(desk) == before
        desk.grow(LAST + 1)
        desk.score(LAST + 1)
        assert desk.signals(LAST + 1)["model_version"].unique().to_list() == ["2"]

    def test_a_late_symbol_joins_the_night(self, desk: Desk) -> None:
        desk.score(LAST)
        whole = desk.delivery(LAST)
        late = whole.bars.filter(pl.col("symbol") == "NA").with_columns(pl.col("open", "high", "low", "close") * 3, symbol=pl.lit("LATE"))
        desk.take(replace(whole, bars=pl.concat([whole.bars, late])), desk.evening(LAST))
        assert desk.score(LAST).written["symbol"].to_list() == ["LATE"]
        assert desk.signals()["symbol"].to_list() == desk.features(LAST)["symbol"].to_list()


class TestPast:
    def test_walk_forward_predictions_replay_the_past(self, desk: Desk) -> None:
        desk.score(LAST, first=100)
        signals, latest = desk.signals(), desk.session(LAST)
        replayed = signals.filter(pl.col("session") < latest)
        assert replayed["mode"].unique().to_list() == ["replayed"]
        assert signals.filter(pl.col("session") == latest)["mode"].unique().to_list() == ["live"]
        predicted = desk.warehouse.read("select symbol, session, probability, trained_until, model_version from signals.predictions")
        by_model = replayed.filter(pl.col("scorer") == "model")
        assert by_model.select(predicted.columns).equals(predicted.sort("session", "symbol"))
        # 120 sessions to train on and one purged; the outcome of the last session but one is the last that was known
        assert (by_model["session"].min(), by_model["session"].max()) == (desk.session(122), desk.session(LAST - 2))
        assert by_model["contributions"].null_count() == by_model.height
        ruled = replayed.filter(pl.col("scorer") == "heuristic")
        told = [value for n in (*range(100, 122), LAST - 1) for value in heuristic(desk, n).predict(desk.features(n))]
        assert ruled["probability"].to_list() == told

    def test_past_sessions_alone_leave_tonight_to_its_run(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nightly, "load_local_copy", lambda *_: pytest.fail("no model is needed for predictions that are stored"))
        run = desk.score(LAST - 2, first=LAST - 3, as_of=desk.evening(LAST))
        assert run.notes == ()
        assert desk.signals()["session"].unique().sort().to_list() == [desk.session(LAST - 3), desk.session(LAST - 2)]

    def test_signals_of_the_past_are_kept(self, desk: Desk) -> None:
        desk.score(LAST)
        before = desk.signals()
        desk.grow(LAST + 1)
        desk.restate(LAST, "NA", 1.04, desk.evening(LAST + 1))
        run = desk.score(LAST + 1, first=LAST)
        assert run.written["session"].unique().to_list() == [desk.session(LAST + 1)]
        assert desk.signals(LAST).equals(before)

    def test_a_missed_evening_is_scored_by_the_champion_it_had(self, desk: Desk) -> None:
        """No walk-forward reaches past its training; the version that would have scored that evening still may."""
        desk.grow(LAST + 3)
        run = desk.score(LAST + 3, first=LAST - 1)
        who = desk.signals().group_by("session", maintain_order=True).agg(pl.col("scorer", "mode", "model_version").unique()).rows()
        days = [desk.session(n) for n in range(LAST - 1, LAST + 4)]
        assert (
            who
            == [
                (days[0], ["heuristic"], ["replayed"], [None]),  # seen by version 1
                *((day, ["model"], ["replayed"], ["1"]) for day in days[1:4]),
                (days[4], ["model"], ["live"], ["1"]),
            ]
        )
        assert desk.signals(LAST + 1)["probability"].to_list() == by_champion(desk, LAST + 1)
        assert desk.signals(LAST + 1)["known_at"].unique().to_list() == [desk.evening(LAST + 3)]
        assert run.notes == ()

    def test_a_missed_evening_whose_champion_is_lost(self, desk: Desk) -> None:
        desk.grow(LAST + 2)
        next(desk.settings.models_path.glob("*.json")).unlink()
        run = desk.score(LAST + 2, first=LAST + 1)
        assert len(run.notes) == 1  # the same reason for both evenings is told once
        assert "no local copy of model version 1" in run.notes[0]
        assert desk.signals()["scorer"].unique().to_list() == ["heuristic"]

    def test_a_prediction_that_had_seen_the_session_is_passed_over(self, desk: Desk) -> None:
        """The newest one is no use where its model knew the outcome; an older one is."""
        symbol, session, number = "NA", desk.session(130), 130
        rows = [
            ("7", desk.evening(LAST - 1), 0.7, desk.evening(number - 1)),
            ("8", desk.evening(LAST), 0.8, desk.close(number)),
            ("9", desk.evening(LAST + 1), 0.9, desk.evening(number - 1)),
        ]
        frame = pl.DataFrame(
            [
                {
                    "model": "signal", "model_version": version, "horizon": 1, "symbol": symbol, "session": session, "fold": 0,
                    "probability": probability, "uncalibrated_probability": None, "trained_until": trained, "known_at": known, "recorded_at": datetime(2024, 1, 1),
                }
                for version, known, probability, trained in rows
            ],
            schema=PREDICTIONS.polars_schema,
        )  # fmt: skip
        with desk.warehouse.transaction() as connection:
            connection.execute("delete from signals.predictions")
            append_versions(connection, PREDICTIONS, frame)
            for version, known, *_ in rows:
                connection.execute(
                    "insert into signals.promotions select * replace (? as model_version, ? as promoted_at) "
                    "from signals.promotions where model_version = '1'",
                    [version, known],
                )
        desk.score(number, as_of=desk.evening(LAST))
        (signal,) = desk.signals(number).filter(pl.col("symbol") == symbol).to_dicts()
        assert (signal["probability"], signal["model_version"], signal["recommendation"]) == (0.7, "7", "strong_buy")


class TestProperties:
    def test_every_feature_row_has_one_signal_by_who_had_not_seen_it(self, desk: Desk) -> None:
        desk.grow(LAST + 3)
        desk.score(LAST + 3, first=1)
        sessions = [desk.session(n) for n in range(1, LAST + 4)]
        closes = pl.DataFrame({"session": sessions, "close": [desk.calendar.close(session) for session in sessions]})
        signals = desk.signals().join(closes, on="session")
        rows = desk.warehouse.read("select symbol, session from feature_store.technical_v1 order by session, symbol")
        assert signals.select("symbol", "session").equals(rows)
        assert signals.filter(pl.col("trained_until") >= pl.col("close")).is_empty()
        heuristic = pl.col("scorer") == "heuristic"
        assert signals.filter(heuristic != pl.col("trained_until").is_null()).is_empty()
        assert signals.filter(heuristic != pl.col("model_version").is_null()).is_empty()
        assert signals["probability"].is_between(0, 1, closed="none").all()

    def test_what_came_later_changes_no_evening(self, trained: Desk, tmp_path: Path) -> None:
        """Each evening as of its own instant, once as it came and once from a market that goes on, restated meanwhile."""
        then, after = trained.copy(tmp_path / "then"), trained.copy(tmp_path / "after")
        after.grow(LAST + 2)
        after.restate(LAST - 3, "NA", 1.04, after.evening(LAST + 2))
        after.train(after.evening(LAST + 2))
        for number in (LAST, LAST + 1):
            then.grow(number)
            then.score(number)
            after.score(number)
        columns = [name for name in DAILY_SIGNALS.column_names if name not in ("batch_id", "recorded_at")]
        assert after.signals().select(columns).equals(then.signals().select(columns))
        assert then.signals()["scorer"].unique().to_list() == ["model"]
