"""Header names, dates and numbers: what is read, and what is refused with which words."""

from __future__ import annotations

import csv
import io
import math
from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.errors import ConfigurationError, NotBarsError
from quant_assets.market_data.files.parsing import columns_of, read_cells, read_dates, split_header, split_lines


def dates(*texts: str, date_format: str = "") -> dict[str, date | None]:
    return dict(read_dates(pl.Series(texts), date_format).rows())


def cells(column: str, *values: str | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that are sound but for the cells of one column."""
    frame = {"symbol": "A", "session": "2015-03-23"} | dict.fromkeys(("open", "high", "low", "close"), "1.5") | {column: None}
    table = pl.DataFrame({"line": range(2, len(values) + 2)}, schema={"line": pl.Int64}).with_columns(
        pl.lit(0, pl.UInt32).alias("file"), **{name: pl.lit(value, pl.String) for name, value in frame.items()}
    )
    return read_cells(table.with_columns(pl.Series(column, values, dtype=pl.String)), {name: name.title() for name in frame})


class TestRegression:
    @pytest.mark.parametrize(
        "header",
        [
            "Date,Open,High,Low,Close,Adj Close,Volume",
            "timestamp,OPEN,HIGH,LOW,CLOSE,adj_close,vol",
            "trade_date,1. open,2. high,3. low,4. close,5. adjusted close,6. volume",
            " Date , Open Price,High_Price,low.price,Close-Price,AdjClose,Vol.",
        ],
    )
    def test_names_are_told_by_synonyms(self, header: str) -> None:
        expected = {"session": 0, "open": 1, "high": 2, "low": 3, "close": 4, "adj_close": 5, "volume": 6}
        assert columns_of(header.split(","), "a.csv") == expected

    def test_actions_and_symbols_are_told_too(self) -> None:
        header = ["Datetime", "Ticker", "Open", "High", "Low", "Close", "Dividends", "Stock Splits", "Capital Gains"]
        found = columns_of(header, "a.csv")
        assert (found["symbol"], found["dividend"], found["split"]) == (1, 6, 7)
        assert 8 not in found.values()

    def test_a_missing_price_column_names_what_was_found_and_wanted(self) -> None:
        with pytest.raises(
            NotBarsError, match=r"x\.csv holds no bars: found the columns id, Close, Date; wanted date, open.*Missing: open, high, low"
        ):
            columns_of(["id", "Close", "Date"], "x.csv")

    def test_two_columns_of_one_meaning_are_named(self) -> None:
        with pytest.raises(ConfigurationError, match=r"x\.csv: the columns 'Vol' and 'Volume' both mean volume"):
            columns_of(["Date", "Open", "High", "Low", "Close", "Vol", "Volume"], "x.csv")

    def test_a_name_beside_a_symbol_is_the_company_s_and_a_time_beside_a_date_the_clock_s(self) -> None:
        found = columns_of(["Name", "Symbol", "Time", "Date", "Open", "High", "Low", "Close"], "x.csv")
        assert (found["symbol"], found["session"]) == (1, 3)

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_the_separator_is_found(self, separator: str) -> None:
        names = ["Date", "Open", "a b", "Close, adjusted" if separator != "," else "Close"]
        assert split_header(separator.join(names)) == (separator, names)

    def test_iso_dates_count_as_they_are_written(self) -> None:
        day = date(2022, 1, 3)
        texts = [
            "2022-01-03",
            "2022-01-03 00:00:00+08:00",
            "2022-01-03T23:59:59Z",
            "2022-1-3",
            "2022-01-03 00:00:00.000000",
            "2022-01-03 16:00",
        ]
        assert set(dates(*texts).values()) == {day}
        assert len(dates(*texts)) == len(texts)

    @pytest.mark.parametrize("text", ["20150323", "2015/03/23", "2015.03.23", "23-Mar-2015", "23-mar-15", "23 March 2015", "Mar 23, 2015"])
    def test_forms_that_can_be_read_one_way_are_read(self, text: str) -> None:
        assert dates(text) == {text: date(2015, 3, 23)}

    def test_one_day_above_twelve_decides_for_all(self) -> None:
        assert dates("03/04/2015", "13/04/2015")["03/04/2015"] == date(2015, 4, 3)
        assert dates("03/04/2015", "04/13/2015")["03/04/2015"] == date(2015, 3, 4)
        assert dates("3.4.2015 00:00", "13.4.2015 00:00")["3.4.2015 00:00"] == date(2015, 4, 3)

    @pytest.mark.parametrize("texts", [("03/04/2015", "05/06/2015"), ("13/04/2015", "04/13/2015")])
    def test_an_open_order_names_the_setting_and_an_example(self, texts: tuple[str, ...]) -> None:
        with pytest.raises(ConfigurationError, match=rf"{texts[0]}.*QUANT_FILES_DATE_FORMAT=%d/%m/%Y or %m/%d/%Y"):
            dates(*texts)

    def test_a_stated_form_decides(self) -> None:
        assert dates("03/04/2015", date_format="%d/%m/%Y")["03/04/2015"] == date(2015, 4, 3)
        assert dates("03/04/2015 16:00", "2015-04-03", date_format="%m/%d/%Y") == {
            "03/04/2015 16:00": date(2015, 3, 4),
            "2015-04-03": date(2015, 4, 3),
        }
        assert dates("2015-03-04", "2015-13-04", "2015-04-13", date_format="%Y-%d-%m") == {
            "2015-03-04": date(2015, 4, 3),
            "2015-13-04": date(2015, 4, 13),
            "2015-04-13": None,
        }

    @pytest.mark.parametrize("date_format", ["", "%d/%m/%Y", "yyyy", "%d/%d", "%Q"])
    def test_dates_of_no_known_form_name_the_setting(self, date_format: str) -> None:
        with pytest.raises(ConfigurationError, match=r"such as '1427068800'.*QUANT_FILES_DATE_FORMAT"):
            dates("1427068800", "1427155200", date_format=date_format)

    def test_what_is_no_date_among_dates_is_null(self) -> None:
        read = dates("2015-03-23", "2015-02-30", "soon", "20159999", "", "NaN")
        assert read == {"2015-03-23": date(2015, 3, 23), "2015-02-30": None, "soon": None, "20159999": None}

    @pytest.mark.parametrize(
        ("column", "text", "reason"),
        [
            ("close", "", "Close is missing"),
            ("close", None, "Close is missing"),
            ("close", "NaN", "Close is missing"),
            ("close", "N/A", "Close is missing"),
            ("close", "abc", "Close 'abc' is not a number"),
            ("close", "-inf", "Close '-inf' is not finite"),
            ("close", "1e999", "Close '1e999' is not finite"),
            ("close", "12,5", "Close '12,5' is not a number: what its comma means is not guessed; write 1234.5"),
            ("volume", "-1", "Volume '-1' is negative"),
            ("volume", "12 M", "Volume '12 M' is not a number"),
            ("adj_close", "x", "Adj_Close 'x' is not a number"),
            ("dividend", "-0.1", "Dividend '-0.1' is negative"),
            ("split", "2:0", "Split '2:0' is not finite"),
        ],
    )
    def test_a_cell_that_is_no_number_is_a_fault(self, column: str, text: str | None, reason: str) -> None:
        _, faults = cells(column, "1", text, "2")
        assert faults.select("line", "column_name", "value", "reason").rows() == [(3, column.title(), text, reason)]

    @pytest.mark.parametrize("column", ["volume", "adj_close", "dividend", "split"])
    def test_only_prices_must_be_there(self, column: str) -> None:
        rows, faults = cells(column, "", "null", None, "7", " 8 ")
        assert faults.is_empty()
        assert rows[column].to_list() == [None, None, None, 7.0, 8.0]

    def test_splits_may_be_ratios(self) -> None:
        rows, faults = cells("split", "2:1", "3/2", "1 : 8", "0.5", "0")
        assert faults.is_empty()
        assert rows["split"].to_list() == [2.0, 1.5, 0.125, 0.5, 0.0]

    def test_symbols_stay_text(self) -> None:
        symbols = ["TRUE", "ON", "INF", "NA", "NULL", "NaN", "1E5", "005930", " B "]
        rows, faults = cells("symbol", *symbols)
        assert faults.is_empty()
        assert rows["symbol"].cast(pl.String).to_list() == [*symbols[:-1], "B"]

    def test_a_row_that_names_no_symbol_is_a_fault(self) -> None:
        _, faults = cells("symbol", "A", " ", None)
        assert faults["line"].to_list() == [3, 4]

    def test_quotes_are_read_within_a_line(self) -> None:
        texts = ['"a","b",c', '"a, x","b ""y""",c', "a,b", 'a,"b', 'b",c,d', 'a, "b, c",d']
        lines = pl.DataFrame({"line": range(len(texts)), "text": texts})
        split = split_lines(lines, ",", 3).sort("line")
        assert split["fields"].to_list() == [3, 3, 2, 0, 0, 3]
        assert split.row(1)[-3:] == ("a, x", 'b "y"', "c")
        assert split.row(5)[-3:] == ("a", "b, c", "d")


class TestProperties:
    @given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.text(max_size=6), min_size=1, max_size=30))
    def test_numbers_are_those_that_python_reads(self, values: list[float | str]) -> None:
        texts = [str(value) for value in values]
        rows, faults = cells("close", *texts)
        bad = set(faults["line"])
        for line, (text, number) in enumerate(zip(texts, rows["close"], strict=True), start=2):
            try:
                expected = float(text)
            except ValueError:
                expected = math.nan
            if line not in bad:
                assert number == expected
            elif "_" not in text and text.isascii():
                assert not math.isfinite(expected)

    @given(st.lists(st.dates(date(1950, 1, 1), date(2049, 12, 31)), min_size=1, max_size=40), st.sampled_from("/.-"), st.booleans())
    def test_a_day_and_month_order_is_never_read_wrongly(self, days: list[date], mark: str, day_first: bool) -> None:
        form = f"%d{mark}%m{mark}%Y" if day_first else f"%m{mark}%d{mark}%Y"
        truth = {day.strftime(form): day for day in days}
        decided = any(day.day > 12 for day in days) or all(day.day == day.month for day in days)
        if decided:
            assert dates(*truth) == truth
        else:
            with pytest.raises(ConfigurationError, match="QUANT_FILES_DATE_FORMAT"):
                dates(*truth)
        assert dates(*truth, date_format=form) == truth

    @given(st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.integers(-14, 14), st.times())
    def test_a_zone_never_moves_a_date(self, day: date, zone: int, time: object) -> None:
        text = f"{day}T{time}{'+' if zone >= 0 else '-'}{abs(timedelta(hours=zone)).seconds // 3600:02d}:00"
        assert dates(text) == {text: day}

    @given(
        st.lists(st.lists(st.text("ab,;\"' .1", max_size=5), min_size=1, max_size=5), min_size=1, max_size=10),
        st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    )
    def test_fields_are_those_of_the_csv_module(self, rows: list[list[str]], quoting: int) -> None:
        buffer = io.StringIO()
        csv.writer(buffer, quoting=quoting, lineterminator="\n").writerows(rows)
        texts = buffer.getvalue().split("\n")[:-1]
        split = split_lines(pl.DataFrame({"line": range(len(texts)), "text": texts}), ",", 3).sort("line")
        assert split["fields"].to_list() == [len(row) for row in rows]
        for row, read in zip(rows, split.select("field_0", "field_1", "field_2").rows(), strict=True):
            if len(row) == 3:
                # a blank after a separator is passed over where quotes may follow it
                assert [cell.strip() for cell in read] == [cell.strip() for cell in row]
