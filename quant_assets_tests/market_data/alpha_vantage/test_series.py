"""A reply of data into bars: both formats alike, either order, and nothing false out of a damaged one."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.market_data.alpha_vantage.dialect import AlphaVantageCalls, address_of
from quant_assets.market_data.alpha_vantage.series import NotASeries, Series, read_series
from quant_assets.market_data.fetching.calls import Call
from quant_assets.market_data.fetching.replies import Redaction, ReplyClass
from quant_assets_tests.market_data.vendor import NAMES, Row, as_csv, as_json, rows_of

CALENDAR = trading_calendar("XNYS", date(2020, 1, 2))
SESSIONS = CALENDAR.between(date(2020, 1, 2), date(2020, 1, 31))
ROWS = rows_of("IBM", SESSIONS)
FIRST, LAST = date(2020, 1, 1), date(2020, 1, 31)
NIGHT = CALENDAR.known_at(LAST)
FORMATS = {"json": lambda rows: as_json("IBM", rows), "csv": as_csv}


def read(body: str, calendar: TradingCalendar = CALENDAR) -> Series:
    return read_series(body.encode(), "IBM", calendar)


def changed(at: int, **values: object) -> list[Row]:
    names = ("date", *NAMES)
    return [
        tuple(values.get(name, value) for name, value in zip(names, row, strict=True)) if n == at else row for n, row in enumerate(ROWS)
    ]


def reasons(series: Series) -> list[tuple[int, str | None, str]]:
    return series.rejected.select("line", "value", "reason").rows()


@pytest.mark.parametrize("form", FORMATS)
class TestRegression:
    def test_bars_as_delivered(self, form: str) -> None:
        series = read(FORMATS[form](list(reversed(ROWS))))
        assert series.bars(FIRST, LAST).row(0) == ("IBM", date(2020, 1, 2), 66.0, 67.0, 65.0, 66.5, 1000.0, 33.0)
        assert series.bars(FIRST, LAST)["session"].to_list() == list(SESSIONS)
        assert series.rejected.is_empty()

    def test_either_order(self, form: str) -> None:
        assert_frame_equal(read(FORMATS[form](ROWS)).rows, read(FORMATS[form](list(reversed(ROWS)))).rows)

    def test_dividends_and_splits(self, form: str) -> None:
        rows = changed(3, **{"dividend amount": "0.8200", "split coefficient": "2.0"})
        assert read(FORMATS[form](rows)).actions(FIRST, LAST).rows() == [
            ("IBM", SESSIONS[3], "dividend", 0.82),
            ("IBM", SESSIONS[3], "split", 2.0),
        ]
        assert read(FORMATS[form](rows)).actions(SESSIONS[4], LAST).is_empty()

    def test_without_adjustment_there_are_no_actions(self, form: str) -> None:
        plain = [(day, *values[:4], values[5]) for day, *values in ROWS]
        names = ("open", "high", "low", "close", "volume")
        series = read(as_csv(plain, names) if form == "csv" else as_json("IBM", plain, names))
        assert series.actions(FIRST, LAST).is_empty()
        assert series.bars(FIRST, LAST)["adj_close"].null_count() == len(SESSIONS)

    def test_a_range_is_cut_and_what_lies_outside_is_not_rejected(self, form: str) -> None:
        rows = [*ROWS, ("2020-02-03", *ROWS[0][1:]), ("2020-02-02", *ROWS[0][1:]), ("1999-12-31", *ROWS[0][1:])]
        series = read(FORMATS[form](rows))
        assert series.bars(SESSIONS[2], SESSIONS[5])["session"].to_list() == list(SESSIONS[2:6])
        assert series.rejected_in(FIRST, LAST, "f00d").is_empty()  # the Sunday lies after the last session asked for

    def test_the_same_row_twice_is_one_bar(self, form: str) -> None:
        series = read(FORMATS[form]([*ROWS, ROWS[4]]))
        assert series.bars(FIRST, LAST).height == len(ROWS)
        assert reasons(series) == [(len(ROWS) + 2, str(SESSIONS[4]), "repeats line 6")]

    def test_two_rows_that_differ_are_both_rejected(self, form: str) -> None:
        series = read(FORMATS[form]([*ROWS, (ROWS[4][0], 1, 2, 1, 2, 2, 5, 0, 1)]))
        assert SESSIONS[4] not in series.bars(FIRST, LAST)["session"].to_list()
        assert [line for line, _, _ in reasons(series)] == [6, len(ROWS) + 2]
        assert "which is right cannot be known" in reasons(series)[0][2]

    @pytest.mark.parametrize("mangled", ["3/23/2015", "01/02/2020", "43832", "2-Jan-20", "20200102", "2020-13-01", ""])
    def test_a_date_that_a_spreadsheet_changed(self, form: str, mangled: str) -> None:
        series = read(FORMATS[form](changed(2, date=mangled)))
        assert series.bars(FIRST, LAST).height == len(ROWS) - 1
        ((line, value, reason),) = reasons(series)
        assert (line, value) == (4, mangled)
        assert "is not a date such as 2015-03-23" in reason
        assert series.rejected_in(SESSIONS[9], LAST, "f00d").height == 1  # nobody knows which range it is in

    def test_when_all_dates_are_mangled_nothing_is_believed(self, form: str) -> None:
        rows = [(f"{day:%m/%d/%Y}", *values) for day, *values in zip(SESSIONS, *zip(*(row[1:] for row in ROWS), strict=True), strict=True)]
        with pytest.raises(NotASeries, match=r"None of 21 rows can be used; the first: .*01/02/2020"):
            read(FORMATS[form](rows))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"close": "n.v."}, "is not a number"),
            ({"open": ""}, "is missing"),
            ({"high": "inf"}, "is not finite"),
            ({"low": "1.234,5"}, "what its comma means"),
            ({"volume": "-5"}, "is negative"),
            ({"date": "2020-01-04"}, "is no session of XNYS"),
        ],
    )
    def test_cells_that_are_no_bar(self, form: str, change: dict[str, object], reason: str) -> None:
        if form == "csv" and "," in str(next(iter(change.values()))):
            change = {name: f'"{value}"' for name, value in change.items()}
        series = read(FORMATS[form](changed(2, **change)))
        assert series.bars(FIRST, LAST).height == len(ROWS) - 1
        ((line, _, why),) = reasons(series)
        assert line == 4
        assert reason in why

    def test_rejected_rows_name_their_payload(self, form: str) -> None:
        rejected = read(FORMATS[form](changed(2, close="x"))).rejected_in(FIRST, LAST, "f00d")
        name = "close" if form == "csv" else "4. close"
        assert rejected.rows() == [("f00d", 4, name, "x", f"{name} 'x' is not a number")]


class TestJson:
    def test_another_symbols_data(self) -> None:
        with pytest.raises(NotASeries, match="'MSFT'; 'IBM' was asked for"):
            read(as_json("MSFT", ROWS))
        assert read(as_json("ibm", ROWS)).rows.height == len(ROWS)

    def test_a_series_that_does_not_say_whose_it_is(self) -> None:
        with pytest.raises(NotASeries, match="does not say"):
            read(as_json("IBM", ROWS).replace("2. Symbol", "2. Name"))

    def test_a_footnote_and_a_repeated_name(self) -> None:
        body = as_json("IBM", ROWS).removesuffix("}}") + ', "note": "Data is delayed", "2020-01-10": {"1. open": "1"}}}'
        series = read(body)
        assert series.rows.height == len(ROWS) - 1 + 1  # the incomplete repetition is no bar, and the first one is sound
        assert [line for line, _, _ in reasons(series)] == [len(ROWS) + 2, len(ROWS) + 3]


class TestCsv:
    @pytest.mark.parametrize("keep", [1, 5, 30, 58, 59])
    def test_cut_off_in_the_last_line(self, keep: int) -> None:
        whole, last = as_csv(ROWS).removesuffix("\r\n").rsplit("\r\n", 1)
        with pytest.raises(NotASeries, match="cut off"):
            read(f"{whole}\r\n{last[:keep]}")

    def test_cut_off_with_a_line_break(self) -> None:
        with pytest.raises(NotASeries, match="cut off"):
            read(as_csv(ROWS)[:-20] + "\n")

    @pytest.mark.parametrize("footnote", ["Data provided for free", '"Splits, dividends"', "# 21 rows,,,"])
    def test_a_footnote_as_last_row(self, footnote: str) -> None:
        series = read(as_csv(ROWS) + footnote + "\r\n")
        assert series.rows.height == len(ROWS)
        ((line, value, _),) = reasons(series)
        assert (line, value) == (len(ROWS) + 2, footnote)


class TestProperties:
    @settings(max_examples=60, deadline=None)
    @given(data=st.data(), form=st.sampled_from(sorted(FORMATS)))
    def test_whatever_is_cut_or_overwritten_only_true_bars_or_none_come_out(self, data: st.DataObject, form: str) -> None:
        body = FORMATS[form](list(reversed(ROWS)))
        calls = AlphaVantageCalls("KEY", address_of("http://vendor"), CALENDAR, Redaction("KEY"))
        call = Call("IBM", "TIME_SERIES_DAILY", "compact", form, FIRST, LAST)
        cut = data.draw(st.integers(0, len(body) - 1))
        result, series = calls.examine(call, NIGHT, 200, "", body[:cut].encode())
        assert series is None or form == "csv"  # a CSV cut at the end of a line is a shorter CSV: the transport tells
        if series is not None:
            assert series.rows.filter(pl.col("session").is_in(SESSIONS)).height == series.rows.height
            assert_frame_equal(series.rows, read(body).rows.tail(series.rows.height))
        junk = data.draw(st.binary(max_size=30))
        spoilt = body[:cut].encode() + junk + body[cut + len(junk) :].encode()
        result, series = calls.examine(call, NIGHT, 200, "", spoilt)
        assert (series is not None) == (result.verdict.reply_class is ReplyClass.DATA)
