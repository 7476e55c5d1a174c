"""Decisions about findings: what they write, what they refuse, and what becomes of the bars and of all that rests on them."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from quant_assets.clock import TradingCalendar, trading_calendar, utc_now
from quant_assets.data_quality.findings import findings
from quant_assets.data_quality.quarantine import quarantine
from quant_assets.data_quality.reviews import (
    Decision,
    Outcome,
    ReviewRefused,
    desk_clock,
    findings_under_review,
    parse_decision,
    review,
)
from quant_assets.errors import ConfigurationError
from quant_assets.feature_store.store import refresh_labels, refresh_technical
from quant_assets.feature_store.training_sets import features_as_of
from quant_assets.market_data.landing import default_as_of, land
from quant_assets.schemas import ANOMALIES, DAILY_BARS, DAILY_SIGNALS, LABELS, REVIEWS, TECHNICAL_V1
from quant_assets.warehouse import Warehouse, append_versions, content_hash
from quant_assets_tests.conftest import FIRST, SOURCE, Row, bar, clean, delivery

CALENDAR = trading_calendar("XNYS", FIRST)
D1, D2, D3 = (date(2020, 3, day) for day in (2, 3, 4))
TICK = timedelta(microseconds=1)
BAD: dict[str, float] = {"high": 1.0}
STORED = (DAILY_BARS, ANOMALIES, REVIEWS, TECHNICAL_V1, LABELS)


def judged(warehouse: Warehouse, calendar: TradingCalendar = CALENDAR) -> None:
    """Let the rules and detectors judge what has landed."""
    quarantine(warehouse, SOURCE, calendar, "run")


def landed(warehouse: Warehouse, as_of: date | datetime, *bars: Row) -> None:
    instant = as_of if isinstance(as_of, datetime) else CALENDAR.known_at(as_of)
    land(warehouse, delivery(bars, batch_id=f"{instant} {len(bars)}"), CALENDAR, instant, "run")


def found(warehouse: Warehouse, symbol: str, session: date, *rules: str, score: float = 1.0, **words: str) -> None:
    """Findings of some rules on the newest version of a bar, as a rule makes them."""
    offender = warehouse.read(
        "select symbol, session, known_at from market_data.latest_daily_bars where symbol = $symbol and session = $session",
        {"symbol": symbol, "session": session},
    )
    detail, detector = words.get("detail", "as planted"), words.get("detector", "rules")
    suggestion = pl.lit(words["suggestion"]) if "suggestion" in words else None
    rows = pl.concat(
        findings(offender, rule, pl.lit(detail), score=pl.lit(score), detector=detector, suggestion=suggestion) for rule in rules
    )
    with warehouse.transaction() as connection:
        append_versions(connection, ANOMALIES, rows.with_columns(source=pl.lit(SOURCE), recorded_at=pl.lit(utc_now(), pl.Datetime("us"))))


def decided(
    warehouse: Warehouse,
    decision: str,
    symbol: str,
    session: date,
    rule: str = "*",
    by: str = "kim",
    reason: str = "seen",
    *,
    overrule: bool = False,
    version: datetime | None = None,
    as_of: str | None = None,
) -> Outcome:
    """One decision, as of what a run would pretend."""
    made = Decision(symbol, session, rule, decision, by, reason, version, overrule)
    (outcome,) = review(warehouse, CALENDAR, [made], desk_clock(warehouse, CALENDAR, False, as_of))
    return outcome


def decisions(warehouse: Warehouse) -> list[tuple[str, str, str, str]]:
    """Symbol, rule, decision and person of every review, in the order in which they were made."""
    return warehouse.read("select symbol, rule, decision, decided_by from data_quality.reviews order by decided_at, symbol, rule").rows()


@pytest.fixture
def held(open_warehouse: Warehouse) -> Warehouse:
    """AAA's bar of the first session is held by two rules, BBB's by one, CCC's is only a warning, DDD's is sound."""
    landed(open_warehouse, D1, *(bar(symbol, D1, close) for symbol, close in (("AAA", 10), ("BBB", 20), ("CCC", 30), ("DDD", 40))))
    found(open_warehouse, "AAA", D1, "one", "two")
    found(open_warehouse, "BBB", D1, "one")
    found(open_warehouse, "CCC", D1, "one", score=0.9995)
    return open_warehouse


class TestRegression:
    def test_a_release_is_written_and_the_bar_goes_on_from_then(self, held: Warehouse) -> None:
        before = utc_now()
        outcome = decided(held, "release", "BBB", D1, reason="the vendor confirms it")
        row = held.read("select * from data_quality.reviews").row(0, named=True)
        known = CALENDAR.known_at(D1)
        assert before <= row.pop("recorded_at") <= utc_now()
        assert row == {
            "symbol": "BBB",
            "session": D1,
            "source": SOURCE,
            "rule": "one",
            "decided_at": known + TICK,
            "bar_known_at": known,
            "decision": "release",
            "decided_by": "kim",
            "reason": "the vendor confirms it",
        }
        assert clean(held) == {("BBB", D1): 20, ("CCC", D1): 30, ("DDD", D1): 40}
        assert clean(held, known) == {("CCC", D1): 30, ("DDD", D1): 40}
        assert outcome.asks_for_a_run
        assert outcome.in_words[-1] == "BBB 2020-03-02: the bar goes on: no critical finding holds it."

    def test_a_bar_stays_held_until_each_of_its_rules_is_released(self, held: Warehouse) -> None:
        outcome = decided(held, "release", "AAA", D1, "one")
        assert outcome.in_words[-1] == "AAA 2020-03-02: the bar stays held back by two (undecided)."
        assert not outcome.asks_for_a_run
        assert ("AAA", D1) not in clean(held)
        assert decided(held, "release", "AAA", D1, "two").holding.is_empty()
        assert ("AAA", D1) in clean(held)

    def test_a_confirmed_bar_stays_held_and_can_be_released_by_overruling_only(self, held: Warehouse) -> None:
        assert (
            decided(held, "confirm", "AAA", D1).in_words[-1]
            == "AAA 2020-03-02: the bar stays held back by one (confirmed), two (confirmed)."
        )
        with pytest.raises(ReviewRefused, match=r"one was confirmed by kim on .* \(as of 2020-03-02 21:30:00\.000001\): 'seen'; two was"):
            decided(held, "release", "AAA", D1, by="lee")
        outcome = decided(held, "release", "AAA", D1, by="lee", overrule=True)
        assert [line for line in outcome.in_words if "overruled: one was confirmed by kim" in line]
        assert ("AAA", D1) in clean(held)
        assert decisions(held) == [
            ("AAA", "one", "confirm", "kim"),
            ("AAA", "two", "confirm", "kim"),
            ("AAA", "one", "release", "lee"),
            ("AAA", "two", "release", "lee"),
        ]
        assert decided(held, "confirm", "AAA", D1, overrule=True).asks_for_a_run  # it had gone on

    @pytest.mark.parametrize(("decision", "by"), [("release", "lee"), ("confirm", "lee"), ("confirm", "kim")])
    def test_what_is_decided_is_not_decided_again_without_a_word(self, held: Warehouse, decision: str, by: str) -> None:
        decided(held, "release", "AAA", D1, "one")
        for rule in ("one", "*"):
            with pytest.raises(ReviewRefused, match="one was released by kim"):
                decided(held, decision, "AAA", D1, rule, by)
        assert decisions(held) == [("AAA", "one", "release", "kim")]

    def test_the_same_decision_of_the_same_person_writes_nothing_and_says_so(self, held: Warehouse) -> None:
        decided(held, "release", "AAA", D1, "one")
        again = decided(held, "release", "AAA", D1, "one", reason="in other words", overrule=True)
        assert again.written.is_empty()
        assert again.in_words[0].startswith("AAA 2020-03-02: nothing written, it is decided so already: one was released by kim")
        assert decided(held, "release", "AAA", D1).written["rule"].to_list() == ["two"]  # what was open is written
        assert decisions(held) == [("AAA", "one", "release", "kim"), ("AAA", "two", "release", "kim")]

    @pytest.mark.parametrize(
        ("symbol", "session", "rule", "words"),
        [
            ("EEE", D1, "*", "No bar of the symbol 'EEE' is stored of the source files."),
            ("AAA", D2, "*", "No bar AAA 2020-03-03 is stored; AAA has bars from 2020-03-02 to 2020-03-02."),
            ("AAA", D1, "three", "AAA 2020-03-02 has no critical finding of the rule 'three'; it has one, two."),
            ("CCC", D1, "*", "no critical finding on the version known from 2020-03-02T21:30:00; on it there is one (warning)."),
            ("CCC", D1, "one", "on it there is one (warning)."),
            ("DDD", D1, "*", "on it there is no finding at all."),
        ],
    )
    def test_what_is_not_there_is_refused_and_what_is_there_named(
        self, held: Warehouse, symbol: str, session: date, rule: str, words: str
    ) -> None:
        with pytest.raises(ReviewRefused) as refusal:
            decided(held, "release", symbol, session, rule)
        assert words in str(refusal.value)
        assert decisions(held) == []

    def test_a_decision_is_about_its_version_and_survives_the_same_again(self, held: Warehouse) -> None:
        decided(held, "release", "BBB", D1)
        landed(held, D2, bar("BBB", D1, 20))
        assert ("BBB", D1) in clean(held)
        landed(held, D2, bar("BBB", D1, 21))
        assert clean(held)["BBB", D1] == 21  # nothing has been found on it
        with pytest.raises(
            ReviewRefused, match=r"has no critical finding on the version known .*; on it there is one \(critical, of an older"
        ):
            decided(held, "confirm", "BBB", D1)
        found(held, "BBB", D1, "one")
        assert ("BBB", D1) not in clean(held)
        decided(held, "release", "BBB", D1, by="lee")  # nobody has decided about this version
        assert clean(held)["BBB", D1] == 21
        assert clean(held, CALENDAR.known_at(D1) + TICK)["BBB", D1] == 20

    def test_another_vendors_bar_of_the_same_version_is_another_bar(self, held: Warehouse) -> None:
        with held.transaction() as connection:
            for table in ("market_data.daily_bars", "data_quality.anomalies"):
                connection.execute(f"insert into {table} select * replace ('other' as source) from {table} where symbol = 'BBB'")
        other = Warehouse(held.path, "other")
        decided(held, "release", "BBB", D1)
        assert findings_under_review(other)["symbol"].to_list() == ["BBB"]
        assert clean(other) == {}
        assert decided(other, "confirm", "BBB", D1, by="lee").written.height == 1  # nobody has decided about it
        assert ("BBB", D1) in clean(Warehouse(held.path, SOURCE))

    def test_a_version_that_was_seen_must_still_be_the_newest(self, held: Warehouse) -> None:
        seen = CALENDAR.known_at(D1)
        with pytest.raises(
            ReviewRefused, match="does not exist; the newest is the version known from 2020-03-02T21:30:00, which is held by one"
        ):
            decided(held, "release", "BBB", D1, version=seen + TICK)
        landed(held, D2, bar("BBB", D1, 21))
        with pytest.raises(
            ReviewRefused, match="was replaced by the version known from 2020-03-03T21:30:00, which has no critical finding"
        ):
            decided(held, "release", "BBB", D1, version=seen)
        found(held, "BBB", D1, "one")
        with pytest.raises(ReviewRefused, match="which is held by one"):
            decided(held, "release", "BBB", D1, version=seen)
        assert decided(held, "release", "BBB", D1, version=CALENDAR.known_at(D2)).holding.is_empty()

    def test_decisions_made_together_stand_together_each_at_its_own_instant(self, held: Warehouse) -> None:
        made = [Decision(symbol, D1, "*", "release", "kim", "seen") for symbol in ("AAA", "BBB", "CCC")]
        as_of = desk_clock(held, CALENDAR, False, None)
        with pytest.raises(ReviewRefused, match="CCC"):
            review(held, CALENDAR, made, as_of)
        assert decisions(held) == []
        review(held, CALENDAR, made[:2], as_of)
        known = CALENDAR.known_at(D1)
        instants = held.read("select symbol, decided_at from data_quality.reviews order by all").rows()
        assert instants == [("AAA", known + TICK), ("AAA", known + TICK), ("BBB", known + 2 * TICK)]

    def test_a_decision_comes_after_all_that_was_read(self, held: Warehouse) -> None:
        evening, known = datetime(2020, 3, 2, 23), CALENDAR.known_at(D1)
        assert desk_clock(held, CALENDAR, False, None) == known
        assert decided(held, "release", "AAA", D1, "one", as_of="2020-03-02T22:00:00").written["decided_at"].item() == evening.replace(
            hour=22
        )
        scored(held, evening, CALENDAR.known_at(D3))  # one run as of that evening, one that pretended to be days later
        late = decided(held, "release", "AAA", D1, "two").written["decided_at"].item()
        assert late == evening + TICK
        assert default_as_of(held, SOURCE, CALENDAR, D1) == late  # what the next run works as of
        early = decided(held, "release", "BBB", D1, as_of=str(D1)).written["decided_at"].item()
        assert early == late + TICK  # what was read as of the evening stays

    def test_the_desks_clock(self, held: Warehouse, empty_database: Path, tmp_path: Path) -> None:
        assert desk_clock(held, CALENDAR, False, "2020-02-28") == CALENDAR.known_at(date(2020, 2, 28))
        assert abs(desk_clock(held, CALENDAR, True, None) - utc_now()) < timedelta(minutes=1)
        with pytest.raises(ConfigurationError, match="--as-of 2020-03-03 lies after the last session known now, 2020-03-02"):
            desk_clock(held, CALENDAR, False, "2020-03-03")
        shutil.copyfile(empty_database, tmp_path / "empty.duckdb")
        with pytest.raises(ConfigurationError, match="No bars of the source files are stored yet"):
            desk_clock(Warehouse(tmp_path / "empty.duckdb", SOURCE), CALENDAR, False, None)

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"session": "2 March"}, "The session '2 March' is no date"),
            ({"version": "first"}, "The version 'first' is no instant"),
            ({"decision": "accept"}, "'accept' is no decision about AAA 2020-03-02: it is release or confirm."),
            ({"reason": " \n"}, "A decision about AAA 2020-03-02 needs its reason"),
            ({"decided_by": ""}, "A decision about AAA 2020-03-02 needs its decided_by"),
        ],
    )
    def test_words_that_are_no_decision(self, changed: dict[str, str], words: str) -> None:
        sound = {"symbol": "AAA", "session": "2020-03-02", "rule": "*", "decision": "release", "decided_by": "kim", "reason": "seen"}
        assert parse_decision(**sound, version="2020-03-02T16:30:00-05:00").bar_known_at == CALENDAR.known_at(D1)
        with pytest.raises(ConfigurationError) as error:
            parse_decision(**sound | changed)
        assert words in str(error.value)

    def test_what_is_under_review(self, held: Warehouse) -> None:
        landed(held, D2, bar("AAA", D2, 10), bar("BBB", D2, 20))
        found(held, "AAA", D2, "one", score=0.99995)
        found(held, "BBB", D2, "two")

        def shown(**filters: object) -> list[tuple[str, date, str, str | None]]:
            return findings_under_review(held, **filters).select("symbol", "session", "rule", "decision").rows()  # type: ignore[arg-type]

        newest, older = [("BBB", D2, "two", None), ("AAA", D2, "one", None)], [("AAA", D1, "one", None), ("AAA", D1, "two", None)]
        assert shown() == [*newest, *older, ("BBB", D1, "one", None)]
        assert shown(symbol="AAA", rule="one") == [newest[1], older[0]]
        assert shown(first=D2) == newest
        assert shown(last=D1, symbol="AAA") == older
        assert shown(severity="warning") == [("CCC", D1, "one", None)]
        decided(held, "confirm", "AAA", D2)
        decided(held, "release", "AAA", D1, "two")
        assert shown(symbol="AAA") == [("AAA", D2, "one", "confirm"), older[0]]
        assert shown(symbol="AAA", undecided=True) == [older[0]]
        assert shown(symbol="AAA", released=True) == [("AAA", D2, "one", "confirm"), older[0], ("AAA", D1, "two", "release")]
        landed(held, D3, bar("AAA", D1, 11))  # corrected: what was found on the version before it holds nothing
        assert shown(symbol="AAA", last=D1, released=True) == []


def scored(warehouse: Warehouse, *instants: datetime) -> None:
    """Signals as runs as of these instants leave them."""
    signal = {name: "" for name, dtype in DAILY_SIGNALS.polars_schema.items() if dtype == pl.String}
    signal |= {
        "symbol": "AAA",
        "session": D1,
        "horizon": 1,
        "label_threshold": 0.0,
        "probability": 0.5,
        "confidence": 0.0,
        "trained_until": None,
        "recorded_at": utc_now(),
    }
    rows = [signal | {"known_at": instant, "horizon": n} for n, instant in enumerate(instants)]
    with warehouse.transaction() as connection:
        append_versions(connection, DAILY_SIGNALS, pl.DataFrame(rows, schema=DAILY_SIGNALS.polars_schema))


def refreshed(warehouse: Warehouse) -> int:
    """Compute features and labels again where they are stale; how many rows that wrote."""
    return refresh_technical(warehouse, "run").written + refresh_labels(warehouse, CALENDAR, "run").written


def feature_rows(warehouse: Warehouse) -> list[pl.DataFrame]:
    """Features and labels without when they became known."""
    columns = {table: [name for name in table.column_names if name not in ("known_at", "recorded_at")] for table in (TECHNICAL_V1, LABELS)}
    return [
        warehouse.read(f"select {', '.join(names)} from {table.full_name} order by {', '.join(table.key)}")
        for table, names in columns.items()
    ]


class TestDownstream:
    """A held bar, released, leaves no trace but when it became known."""

    HISTORY = CALENDAR.sessions[:40]
    FLAGGED = HISTORY[20]

    @pytest.fixture
    def pair(self, open_warehouse: Warehouse, empty_database: Path, tmp_path: Path) -> tuple[Warehouse, Warehouse]:
        """One bar was found suspicious in the first warehouse, and none ever in the second."""
        shutil.copyfile(empty_database, tmp_path / "never.duckdb")
        never = Warehouse(tmp_path / "never.duckdb", SOURCE)
        draw = random.Random(4)
        bars = [bar(symbol, session, 100 + draw.gauss(0, 1)) for session in self.HISTORY for symbol in ("AAA", "BBB")]
        for warehouse in (open_warehouse, never):
            landed(warehouse, self.HISTORY[-1], *bars)
        found(open_warehouse, "AAA", self.FLAGGED, "one")
        for warehouse in (open_warehouse, never):
            refreshed(warehouse)
        return open_warehouse, never

    def test_a_release_and_a_run_restore_what_would_have_been(self, pair: tuple[Warehouse, Warehouse]) -> None:
        held, never = pair
        features, _ = feature_rows(held)
        assert features.filter(symbol="AAA", session=self.FLAGGED).is_empty()
        assert not any(left.equals(right) for left, right in zip(feature_rows(held), feature_rows(never), strict=True))
        decided(held, "release", "AAA", self.FLAGGED)
        assert refreshed(held) > 0
        for left, right in zip(feature_rows(held), feature_rows(never), strict=True):
            assert left.equals(right)
        instants = held.read(
            "select symbol, session >= $flagged as later, max(known_at) as newest from feature_store.technical_v1 group by all order by all",
            {"flagged": self.FLAGGED},
        )
        released = CALENDAR.known_at(self.HISTORY[-1]) + TICK
        before, last = CALENDAR.known_at(self.HISTORY[19]), CALENDAR.known_at(self.HISTORY[-1])
        assert instants["newest"].to_list() == [before, released, before, last]  # BBB's rows are as they were
        assert refreshed(held) == 0

    def test_a_confirmation_after_a_release_takes_the_bar_out_again(self, pair: tuple[Warehouse, Warehouse]) -> None:
        held, _ = pair
        before = feature_rows(held)
        decided(held, "release", "AAA", self.FLAGGED)
        refreshed(held)
        decided(held, "confirm", "AAA", self.FLAGGED, by="lee", overrule=True)
        refreshed(held)
        for left, right in zip(feature_rows(held), before, strict=True):
            assert left.equals(right)

    def test_what_was_known_before_a_release_stays_as_it_was(self, pair: tuple[Warehouse, Warehouse]) -> None:
        held, _ = pair
        then = default_as_of(held, SOURCE, CALENDAR, self.HISTORY[-1])

        def read() -> pl.DataFrame:
            return features_as_of(held, CALENDAR, "technical_v1", then, self.HISTORY[0], self.HISTORY[-1]).sort("symbol", "session")

        before, bars = read(), clean(held, then)
        decided(held, "release", "AAA", self.FLAGGED)
        refreshed(held)
        assert default_as_of(held, SOURCE, CALENDAR, self.HISTORY[-1]) > then
        assert clean(held, then) == bars
        assert read().equals(before)


Step = Callable[[Warehouse], object]


def story(seed: int, nights: int) -> list[Step]:
    """Nights that land, judge and compute, with decisions and corrections between them; each step can be done again."""
    draw = random.Random(seed)
    sessions = CALENDAR.sessions[:nights]
    bars: dict[tuple[str, date], Row] = {}
    steps: list[Step] = []
    for night, session in enumerate(sessions):
        for symbol in ("AAA", "BBB", "CCC"):
            close = round(100 + draw.gauss(0, 1), 2)
            bars[symbol, session] = bar(symbol, session, close, **(BAD if draw.random() < 0.4 else {}))
        if night and draw.random() < 0.5:  # the vendor corrects a bar, and what was decided about it holds no more
            at = draw.choice(sorted(bars))
            bars[at] = bar(*at, round(100 + draw.gauss(0, 1), 2), **(BAD if draw.random() < 0.5 else {}))
        steps += [_landing(session, list(bars.values()), f"{seed} {night}"), judged, refreshed]
        suspicious = sorted(at for at, row in bars.items() if row["high"] == BAD["high"])
        for at in draw.sample(suspicious, min(2, len(suspicious))):
            steps.append(_deciding(at, draw.choice(["release", "confirm"]), draw.choice(["kim", "lee"])))
        steps.append(refreshed)
    return steps


def _landing(session: date, bars: Sequence[Row], batch_id: str) -> Step:
    return lambda warehouse: land(warehouse, delivery(bars, batch_id=batch_id), CALENDAR, CALENDAR.known_at(session), "run")


def _deciding(at: tuple[str, date], decision: str, by: str) -> Step:
    return lambda warehouse: decided(warehouse, decision, *at, by=by, overrule=True)


def hashes(warehouse: Warehouse) -> dict[str, str]:
    with warehouse.connect() as connection:
        return {table.full_name: content_hash(connection, table) for table in STORED}


def go_on(path: str, seed: int, nights: int, start: int) -> None:
    """The steps of a story from one on, telling each that is done: what the killed process runs."""
    warehouse = Warehouse(Path(path), SOURCE)
    print("ready", flush=True)
    for number, step in enumerate(story(seed, nights)):
        if number >= start:
            step(warehouse)
            print(number, flush=True)


def race(path: str, by: str, signal: str) -> None:
    """Decide about every bar there is, as soon as a file appears: what each of two reviewers runs."""
    warehouse, outcomes = Warehouse(Path(path), SOURCE), dict[str, str]()
    bars = findings_under_review(warehouse).select("symbol", "session").rows()
    print("ready", flush=True)
    while not Path(signal).exists():
        time.sleep(0.001)
    for symbol, session in bars:
        try:
            outcomes[symbol] = "done" if decided(warehouse, "release", symbol, session, by=by).written.height == 1 else "nothing"
        except ReviewRefused as refusal:
            outcomes[symbol] = str(refusal)
    print(json.dumps(outcomes))


def started(call: str, module: str = __name__) -> subprocess.Popen[str]:
    """A process of its own that runs a function of a module."""
    return subprocess.Popen([sys.executable, "-c", f"from {module} import *\n{call}"], stdout=subprocess.PIPE, text=True)


def stands_ready(process: subprocess.Popen[str]) -> None:
    """Wait until it has imported everything."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def killed_story(path: Path, seed: int, nights: int, delays: Sequence[float]) -> int:
    """Tell a story in a process that is killed after each of these seconds, and to its end at last; returns how often it died."""
    done, deaths = -1, 0
    for delay in [*delays, None]:
        process = started(f"go_on({str(path)!r}, {seed}, {nights}, {done + 1})")
        stands_ready(process)
        if delay is not None:
            time.sleep(delay)
            process.kill()
        said, _ = process.communicate()
        done = int(said.split()[-1]) if said else done
        deaths += process.returncode != 0
        assert delay is not None or process.returncode == 0
    assert done == len(story(seed, nights)) - 1
    return deaths


class TestProperties:
    def test_two_reviewers_at_once_never_both_win(self, warehouse: Warehouse, tmp_path: Path) -> None:
        symbols = [f"S{number}" for number in range(5)]
        landed(warehouse, D1, *(bar(symbol, D1, 10 + number) for number, symbol in enumerate(symbols)))
        for symbol in symbols:
            found(warehouse, symbol, D1, "one")
        go = tmp_path / "go"
        racers = {by: started(f"race({str(warehouse.path)!r}, {by!r}, {str(go)!r})") for by in ("kim", "lee")}
        for process in racers.values():
            stands_ready(process)
        go.touch()
        outcomes = {by: json.loads(process.communicate(timeout=60)[0]) for by, process in racers.items()}
        winners = {symbol: by for symbol, _, _, by in decisions(warehouse)}
        assert len(decisions(warehouse)) == len(winners) == len(symbols)
        for symbol in symbols:
            loser = "lee" if winners[symbol] == "kim" else "kim"
            assert outcomes[winners[symbol]][symbol] == "done"
            assert f"one was released by {winners[symbol]}" in outcomes[loser][symbol]

    def test_a_story_killed_at_two_moments_ends_as_an_undisturbed_one(
        self, open_warehouse: Warehouse, empty_database: Path, tmp_path: Path
    ) -> None:
        seed, nights = 11, 3
        began = time.monotonic()
        for step in story(seed, nights):
            step(open_warehouse)
        seconds = time.monotonic() - began
        assert len(decisions(open_warehouse)) >= 3
        shutil.copyfile(empty_database, tmp_path / "killed.duckdb")
        assert killed_story(tmp_path / "killed.duckdb", seed, nights, [0.3 * seconds, 0.4 * seconds]) == 2
        assert hashes(Warehouse(tmp_path / "killed.duckdb", SOURCE)) == hashes(open_warehouse)

    def test_each_step_done_twice_changes_nothing(self, open_warehouse: Warehouse) -> None:
        for step in story(seed=1, nights=3):
            step(open_warehouse)
            before = hashes(open_warehouse)
            step(open_warehouse)
            assert hashes(open_warehouse) == before

    @pytest.mark.parametrize("seed", range(2))
    def test_the_newest_decision_stands_and_the_past_stays(self, held: Warehouse, seed: int) -> None:
        draw = random.Random(seed)
        standing = {("AAA", "one"): "", ("AAA", "two"): "", ("BBB", "one"): ""}
        past, rows = dict[datetime, object](), list[object]()
        for _ in range(10):
            (symbol, rule), decision, by = draw.choice(list(standing)), draw.choice(["release", "confirm"]), draw.choice(["kim", "lee"])
            decided(held, decision, symbol, D1, rule, by, overrule=True)
            standing[symbol, rule] = decision
            free = {symbol for symbol, _ in standing if {d for (s, _), d in standing.items() if s == symbol} == {"release"}}
            assert set(clean(held)) == {(symbol, D1) for symbol in (*free, "CCC", "DDD")}
            now = held.read("select * from data_quality.reviews order by decided_at").rows()
            assert now[: len(rows)] == rows  # appended, never edited
            rows = now
            past[held.read("select max(decided_at) as newest from data_quality.reviews")["newest"].item()] = clean(held)
            assert all(clean(held, instant) == bars for instant, bars in past.items())
        assert held.read("select count(*) = count(distinct decided_at) as each from data_quality.reviews")["each"].item()
