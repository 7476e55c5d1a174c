"""What the calibration report counts, and that it counts on any panel."""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import date

import polars as pl
import pytest
from rich.console import Console

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.data_quality.calibration_report import counts as count
from quant_assets.data_quality.calibration_report.injection import CONTROLS, RATES, TRUTH
from quant_assets.data_quality.calibration_report.report import Report, as_panel, report, show
from quant_assets.data_quality.findings import NOTHING
from quant_assets.errors import ConfigurationError
from quant_assets_tests.data_quality.market import market
from quant_assets_tests.lookahead import NO_ACTIONS, sp500_panel

FACTS = ("ohlc_order", "missing_price", "non_positive_price")


def found(calendar: TradingCalendar, rows: Iterable[tuple[str, date, int, str, str, float]]) -> pl.DataFrame:
    """Findings: symbol, session, sessions until it was found, detector, severity, score."""
    dicts = [
        {
            **{"symbol": symbol, "session": session, "rule": "rule", "detector": detector, "severity": severity, "score": score},
            "bar_known_at": calendar.known_at(session),
            "known_at": calendar.known_at(calendar.sessions[calendar.sessions.index(session) + late]),
        }
        for symbol, session, late, detector, severity, score in rows
    ]
    return count.flags(pl.DataFrame(dicts, NOTHING.schema), _instants(calendar))


def faults(calendar: TradingCalendar, rows: Iterable[tuple[int, str, str, date]]) -> pl.DataFrame:
    """Faulty bars: fault, kind, symbol, session."""
    truth = pl.DataFrame([(*row, calendar.known_at(row[3])) for row in rows], TRUTH, orient="row")
    return truth.with_columns(place=count.sessions_known("known_at", _instants(calendar)))


def _instants(calendar: TradingCalendar) -> pl.Series:
    return calendar.frame(calendar.sessions[0], calendar.sessions[-1])["known_at"]


class TestRegression:
    def test_a_finding_made_later_than_its_detector_says_is_of_the_later_sight(self, calendar: TradingCalendar) -> None:
        day = calendar.sessions[10]
        rows = [(0, "rules"), (1, "rules"), (4, "rules"), (0, "rules_next_session"), (1, "next_session"), (10, "later_sessions")]
        flags = found(calendar, [("A", day, late, detector, "info", 0.99) for late, detector in rows])
        assert flags["sight"].to_list() == [0, 1, 10, 1, 1, 10]

    def test_recall_delay_and_precision(self, calendar: TradingCalendar) -> None:
        days = calendar.sessions
        wrong = faults(
            calendar, [(0, "run", "A", days[20]), (0, "run", "A", days[21]), (1, "run", "B", days[20]), (2, "jump", "C", days[20])]
        )
        before = found(calendar, [("A", days[25], 0, "rules", "critical", 1.0)])
        after = found(
            calendar,
            [
                ("A", days[21], 1, "next_session", "critical", 0.99995),  # the run, at its second bar, a session after that
                ("A", days[20], 0, "rules", "warning", 0.9995),
                ("A", days[23], 0, "rules", "critical", 1.0),  # beside it
                ("A", days[25], 0, "rules", "critical", 1.0),  # as in the bars as given
                ("C", days[20], 0, "rules", "info", 0.995),
                ("D", days[20], 0, "rules", "critical", 1.0),  # of no fault
            ],
        )
        per_fault = count.per_fault(wrong, after)
        kinds = count.kinds(per_fault, wrong, before, after)
        told = {(row["kind"], row["severity"]): row for row in kinds.iter_rows(named=True)}
        run = told["run", "critical"]
        assert (run["faults"], run["recall_same"], run["recall_next"], run["recall_later"]) == (2, 0.0, 0.5, 0.5)
        assert (run["delay"], run["bars_next"], run["precision"]) == (2.0, pytest.approx(1 / 3), 0.5)
        assert (told["run", "warning"]["recall_same"], told["run", "warning"]["delay"]) == (0.5, 0.0)
        assert (told["jump", "warning"]["recall_later"], told["jump", "warning"]["delay"], told["jump", "info"]["recall_same"]) == (
            0,
            None,
            1,
        )

        severities = count.severities(10_000, wrong, before, after, before)
        critical = severities.row(by_predicate=(pl.col("severity") == "critical") & (pl.col("sight") == "next"), named=True)
        assert [critical[name] for name in ("faulty", "beside", "as_given", "elsewhere")] == [1, 1, 1, 1]
        assert (critical["precision"], critical["false_alarms_per_1000"]) == (0.25, 0.1)

        curve = {(row["rate"], row["sight"]): row for row in count.curve(10_000, per_fault, before).iter_rows(named=True)}
        assert curve[1e-2, "same"]["recall"] == pytest.approx(2 / 3)
        assert (curve[1e-4, "same"]["recall"], curve[1e-4, "next"]["recall"]) == (0.0, pytest.approx(1 / 3))
        assert curve[1e-6, "next"] == {"least_score": 1 - 1e-6, "rate": 1e-6, "sight": "next", "recall": 0.0, "false_alarms_per_10000": 1.0}

    def test_rates_on_events_and_by_rule(self, calendar: TradingCalendar) -> None:
        days = calendar.sessions
        genuine = pl.DataFrame({"symbol": ["A", "A"], "session": days[20:22], "kind": "half_day"})
        split = faults(calendar, [(0, "recorded_split", "B", days[20])])
        alarms = found(calendar, [("A", days[20], 0, "rules", "critical", 1.0), ("A", days[21], 0, "rules", "warning", 0.999)])
        events = count.events(genuine, split, alarms, found(calendar, [("B", days[20], 10, "later_sessions", "critical", 1.0)]))
        rows = events.select("event", "sight", "bars", "critical", "per_10000").rows()
        assert rows == [
            ("half_day", "next", 2, 1, 5000.0),
            ("half_day", "later", 2, 1, 5000.0),
            ("recorded_split", "next", 1, 0, 0.0),
            ("recorded_split", "later", 1, 1, 10_000.0),
        ]
        rules = count.rules(faults(calendar, [(0, "run", "A", days[21])]), alarms, alarms).row(0, named=True)
        assert (rules["critical_as_given"], rules["critical_on_faults"], rules["critical_on_others"]) == (1, 0, 1)
        assert (rules["warning_as_given"], rules["warning_on_faults"], rules["warning_on_others"]) == (2, 1, 1)

    def test_a_plain_file_becomes_a_panel(self, calendar: TradingCalendar) -> None:
        bars = market(seed=1, symbols=1, n=3).with_columns(session=pl.Series([date(2021, 1, 4), date(2021, 1, 8), date(2021, 1, 9)]))
        panel = as_panel(bars, calendar)
        assert [str(instant) for instant in panel["known_at"]] == ["2021-01-04 21:30:00", "2021-01-08 21:30:00", "2021-01-09 21:30:00"]
        assert panel.select("basis", "adj_close").unique().rows() == [("restated", None)]
        assert as_panel(panel, calendar).equals(panel)
        with pytest.raises(ConfigurationError, match="lack close, volume"):
            as_panel(bars.drop("close", "volume"), calendar)


@pytest.fixture(scope="module")
def panel(calendar: TradingCalendar) -> pl.DataFrame:
    return as_panel(market(seed=4).filter(pl.col("session").is_in(list(calendar.sessions))), calendar)


@pytest.fixture(scope="module")
def judged(panel: pl.DataFrame, calendar: TradingCalendar) -> Report:
    return report(panel, NO_ACTIONS, calendar, seed=8)


def printed(judged: Report) -> str:
    text = io.StringIO()
    show(judged, Console(file=text, width=140))
    return text.getvalue()


class TestProperties:
    def test_facts_are_found_at_once(self, judged: Report) -> None:
        told = judged.kinds.filter(pl.col("kind").is_in(FACTS), pl.col("severity") == "critical")
        assert told.select("recall_same", "recall_next", "recall_later", "bars_next").unique().rows() == [(1.0, 1.0, 1.0, 1.0)]
        assert told["delay"].to_list() == [0.0] * len(FACTS)

    def test_more_is_found_by_who_looks_further_or_asks_for_less(self, judged: Report) -> None:
        assert set(judged.kinds["kind"]) | set(CONTROLS) >= {kind for kind in RATES if f"{kind}: " not in " ".join(judged.notes)}
        assert (judged.kinds["recall_same"] <= judged.kinds["recall_next"]).all()
        assert (judged.kinds["recall_next"] <= judged.kinds["recall_later"]).all()
        by_level = judged.kinds.pivot("severity", index="kind", values="recall_later")
        assert ((by_level["critical"] <= by_level["warning"]) & (by_level["warning"] <= by_level["info"])).all()
        for name in ("recall", "false_alarms_per_10000"):
            falling = judged.curve.pivot("sight", index="least_score", values=name).sort("least_score")
            assert all((falling[sight].diff().drop_nulls() <= 0).all() for sight in count.SIGHTS)
        shares = judged.kinds.select("recall_same", "recall_next", "recall_later", "bars_next", "precision")
        assert shares.select(pl.all().drop_nulls().is_between(0, 1).all()).row(0) == (True,) * 5

    def test_the_same_seed_gives_the_same_report(self, judged: Report, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        again = report(panel.sample(fraction=1.0, shuffle=True, seed=2), NO_ACTIONS, calendar, seed=8)
        assert printed(again) == printed(judged)

    def test_all_of_it_is_printed(self, judged: Report) -> None:
        text = printed(judged)
        assert all(kind in text for kind in judged.kinds["kind"])
        assert all(event in text for event in judged.events["event"])
        assert "real errors" in text
        assert "far lower" in text

    def test_false_alarms_can_be_counted_on_confirmed_bars_alone(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        wrong = (pl.col("symbol") == "S03") & (pl.col("session") == panel["session"].max())
        bars = panel.with_columns(high=pl.when(wrong).then(pl.col("low") / 2).otherwise("high"))
        rates = {**dict.fromkeys(RATES, 0.0), "unit_10": 5.0}
        critical = (pl.col("severity") == "critical") & (pl.col("sight") == "same")
        alarms = [
            report(bars, NO_ACTIONS, calendar, rates=rates, confirmed=confirmed).severities.filter(critical)["false_alarms_per_1000"].item()
            for confirmed in (None, bars.filter(~wrong).select("symbol", "session"), bars.filter(wrong))
        ]
        assert alarms[0] == pytest.approx(1_000 / bars.height)
        assert alarms[1:] == [0.0, 1_000.0]
        with pytest.raises(ConfigurationError, match="confirmed"):
            report(bars, NO_ACTIONS, calendar, confirmed=bars.clear())

    def test_critical_events_are_named_to_be_looked_at(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        ordered = panel.sort("symbol", "session")
        usual = pl.col("volume").shift(1).rolling_median(20).over("symbol")
        spike = (pl.col("symbol") == "S07") & (pl.col("session") == date(2021, 6, 1))
        bars = ordered.with_columns(
            volume=pl.when(spike).then(usual * 9).otherwise("volume"), high=pl.when(spike).then(pl.col("low") / 2).otherwise("high")
        )
        named = report(bars, NO_ACTIONS, calendar, rates={**dict.fromkeys(RATES, 0.0), "unit_10": 1.0})
        told = named.alarming_events.filter(pl.col("rule") == "ohlc_order").select("event", "symbol", "session").rows()
        assert told == [("volume_spike", "S07", date(2021, 6, 1))]
        assert "to be looked at" in printed(named)

    def test_the_desk_may_call_more_bars_critical(self, judged: Report, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        wider = report(panel, NO_ACTIONS, calendar, seed=8, severities=(1e-3, 1e-2))
        critical, warning = (of.kinds.filter(pl.col("severity") == name) for of, name in ((wider, "critical"), (judged, "warning")))
        assert critical.drop("severity").equals(warning.drop("severity"))

    def test_symbols_and_sessions_can_be_chosen(self, panel: pl.DataFrame, calendar: TradingCalendar) -> None:
        chosen = report(panel, NO_ACTIONS, calendar, symbols=["S01", "S02", "NONE"], first=date(2021, 2, 1), last=date(2021, 6, 30))
        bars = panel.filter(pl.col("symbol").is_in(["S01", "S02"]), pl.col("session").is_between(date(2021, 2, 1), date(2021, 6, 30)))
        assert "No bars of NONE." in chosen.notes
        plain = chosen.events.filter(~pl.col("event").is_in(["jump", "volume_spike", "market_move", "half_day", *CONTROLS]), sight="next")
        assert plain["bars"].item() <= bars.height
        with pytest.raises(ConfigurationError, match="No bars of NONE"):
            report(panel, NO_ACTIONS, calendar, symbols=["NONE"])

    @pytest.mark.parametrize(
        "thin",
        [
            lambda bars: bars.filter(pl.col("symbol") == "S00"),
            lambda bars: bars.filter(pl.col("symbol") == "S00").sort("session").head(5),
            lambda bars: bars.with_columns(volume=pl.lit(None, pl.Float64)),
            lambda bars: bars.with_columns(pl.lit(10.0).alias(name) for name in ("open", "high", "low", "close")),
            lambda bars: bars.with_columns(pl.lit(None, pl.Float64).alias(name) for name in ("open", "high", "low", "close", "volume")),
        ],
    )
    def test_thin_panels_give_a_report_that_says_what_it_could_not_do(self, thin, panel: pl.DataFrame, calendar: TradingCalendar) -> None:  # type: ignore[no-untyped-def]
        judged = report(thin(panel), NO_ACTIONS, calendar)
        assert any(" put in: too few" in note for note in judged.notes)
        assert judged.notes[-1] in printed(judged)


def test_facts_are_found_at_once_in_real_bars() -> None:
    bars = sp500_panel()
    if bars is None:
        pytest.skip("needs the S&P panel")
    calendar = trading_calendar("XNYS", date(2010, 1, 4))
    symbols = bars["symbol"].unique().sort().gather_every(20).to_list()
    real = report(
        as_panel(bars.drop("known_at"), calendar),
        NO_ACTIONS,
        calendar,
        seed=5,
        symbols=symbols,
        first=date(2016, 1, 1),
        rates={"ohlc_order": 10.0},
    )
    told = real.kinds.filter(pl.col("kind").is_in(FACTS), pl.col("severity") == "critical")
    assert told["recall_same"].to_list() == [1.0] * 3
    assert set(real.events["event"]) >= {"ordinary", "market_move", "half_day", *CONTROLS}
