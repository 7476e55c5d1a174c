"""The source `files`: whatever a vendor's files look like, each row ends as a bar, a rejection or a count."""

from __future__ import annotations

import gzip
import io
import random
import tempfile
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant_assets.clock import trading_calendar
from quant_assets.errors import ConfigurationError, NotBarsError
from quant_assets.market_data.delivery import ACTIONS, BARS, RECEIPTS, REJECTED, Delivery, Source
from quant_assets.market_data.files import reading as file_reading
from quant_assets.market_data.files import source as files
from quant_assets.market_data.files.source import FilesSource

CALENDAR = trading_calendar("XNYS", date(2000, 1, 1))
EVER = (date(2000, 1, 1), date(2100, 1, 1))
DATA = Path(__file__).parents[4] / "shared" / "data"
HEADER = "date,open,high,low,close,volume,symbol\n"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside this checkout")


def source(path: Path | str, **settings: object) -> FilesSource:
    return FilesSource(str(path), CALENDAR, **settings)  # type: ignore[arg-type]


def deliver(path: Path | str, **settings: object) -> Delivery:
    return source(path, **settings).deliver(*EVER)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def reasons(delivery: Delivery) -> dict[int, str]:
    return dict(delivery.rejected.select("line", "reason").rows())


class TestRegression:
    def test_a_long_file_with_faults_at_known_lines(self, tmp_path: Path) -> None:
        lines = [
            "2015-03-23,1,2,0.5,1.5,100,TRUE",  # 2
            "",
            "2015-03-23,,2,0.5,x,100,ON",  # 4: two faults
            "2015-03-23,1,2,0.5,1.5,-7,ON",  # 5
            "2015-03-22,1,2,0.5,1.5,100,ON",  # 6: a Sunday
            "2015-03-23,1,2,0.5",  # 7
            "2015-03-23,1,2,0.5,1.5,100,ON,more",  # 8
            "23rd of March,1,2,0.5,1.5,100,ON",  # 9
            "2015-03-23,1,2,0.5,1.5,100,TRUE",  # 10: repeats 2
            "2015-03-24,1,2,0.5,1.5,100,TRUE",  # 11: conflicts with 12
            "2015-03-24,1,2,0.5,1.6,100,TRUE",  # 12
            "2015-03-24,1,2,0.5,1.5,100, ",  # 13
            ",1,2,0.5,1.5,100,INF",  # 14
            "2015-03-24,-1,0.5,2,0,,INF",  # 15: lands, data quality judges it
        ]
        delivery = deliver(write(tmp_path / "bars.csv", HEADER + "\r\n".join(lines)))
        assert delivery.bars.rows() == [
            ("INF", date(2015, 3, 24), -1.0, 0.5, 2.0, 0.0, None, None),
            ("TRUE", date(2015, 3, 23), 1.0, 2.0, 0.5, 1.5, 100.0, None),
        ]
        assert reasons(delivery) == {
            4: "open is missing; close 'x' is not a number",
            5: "volume '-7' is negative",
            6: f"date '2015-03-22' is no session of XNYS (known from 2000-01-03 to {CALENDAR.sessions[-1]})",
            7: "4 fields where the header has 7",
            8: "8 fields where the header has 7",
            9: "date '23rd of March' is not a date in ISO form (2015-03-23)",
            10: "repeats the bar of bars.csv line 2",
            11: "conflicts with bars.csv line 12, which has other values for the same symbol and session; which is right cannot be known",
            12: "conflicts with bars.csv line 11, which has other values for the same symbol and session; which is right cannot be known",
            13: "the symbol is missing",
            14: "date is missing",
        }
        cells = delivery.rejected.filter(pl.col("line").is_in([4, 5, 7])).select("file", "column_name", "value").rows()
        assert cells == [("bars.csv", "open", ""), ("bars.csv", "volume", "-7"), ("bars.csv", None, "2015-03-23,1,2,0.5")]
        assert delivery.receipts.select("symbol", "status", "rows", "detail").rows() == [
            (None, "partial", 13, "bars.csv: rows 13, bars 2, rejected 11"),
        ]

    def test_the_frames_have_the_declared_columns(self, tmp_path: Path) -> None:
        made: Source = source(write(tmp_path / "bars.csv", HEADER + "2015-03-23,1,2,0.5,1.5,100,A\n"))
        delivery = made.deliver(*EVER)
        assert (made.name, delivery.source, delivery.basis) == ("files", "files", "restated")
        for frame, schema in (
            (delivery.bars, BARS), (delivery.actions, ACTIONS), (delivery.rejected, REJECTED), (delivery.receipts, RECEIPTS),
        ):  # fmt: skip
            assert dict(frame.schema) == schema

    def test_a_folder_mixes_forms_and_names_symbols_by_file(self, tmp_path: Path) -> None:
        write(tmp_path / "BRK.B.csv", "\ufeffDate;Open;High;Low;Close;Adj Close\n2015-03-23;1;2;0.5;1.5;1.4\n")
        write(tmp_path / "us" / "NaN.csv.gz", "timestamp,1. open,2. high,3. low,4. close\n2015-03-23,1,2,0.5,1.5\n")
        pl.DataFrame({"Date": [datetime(2015, 3, 23)], "Open": [1], "High": [2.0], "Low": [0.5], "Close": [1.5], "Vol": [7]}).with_columns(
            pl.col("Date").dt.replace_time_zone("Asia/Tokyo")
        ).write_parquet(tmp_path / "005930.PQ")
        write(tmp_path / "README.md", "not data")
        write(tmp_path / ".hidden" / "X.csv", "not data")
        delivery = deliver(tmp_path)
        assert delivery.bars.select("symbol", "session", "close", "volume", "adj_close").rows() == [
            ("005930", date(2015, 3, 23), 1.5, 7.0, None),
            ("BRK.B", date(2015, 3, 23), 1.5, None, 1.4),
            ("NaN", date(2015, 3, 23), 1.5, None, None),
        ]
        assert delivery.receipts.select("symbol", "status").rows() == [("005930", "landed"), ("BRK.B", "landed"), ("NaN", "landed")]
        only = deliver(str(tmp_path / "**" / "*.csv.gz"))
        assert only.bars["symbol"].to_list() == ["NaN"]
        assert deliver(str(tmp_path / "u*")).bars.equals(only.bars)

    def test_a_stated_form_is_for_texts_not_for_typed_dates(self, tmp_path: Path) -> None:
        prices = {name: [1.0] for name in ("open", "high", "low", "close")}
        pl.DataFrame({"date": [date(2015, 3, 4)]} | prices).write_parquet(tmp_path / "TYPED.parquet")
        pl.DataFrame({"date": ["2015-05-03"]} | prices).write_parquet(tmp_path / "TEXT.parquet")
        bars = deliver(tmp_path, date_format="%Y-%d-%m").bars
        assert dict(bars.select("symbol", "session").rows()) == {"TYPED": date(2015, 3, 4), "TEXT": date(2015, 3, 5)}

    def test_dividends_and_splits_become_actions(self, tmp_path: Path) -> None:
        rows = ["2015-03-23,1,1,1,1,0.0,0.0", "2015-03-24,1,1,1,1,0.25,1.0", "2015-03-25,1,1,1,1,0.5,4:1", "2015-03-26,1,1,1,1,,"]
        path = write(tmp_path / "A.csv", "Date,Open,High,Low,Close,Dividends,Stock Splits\n" + "\n".join(rows))
        assert deliver(path).actions.rows() == [
            ("A", date(2015, 3, 24), "dividend", 0.25),
            ("A", date(2015, 3, 25), "dividend", 0.5),
            ("A", date(2015, 3, 25), "split", 4.0),
        ]

    def test_raw_prices_with_nothing_but_adjusted_closes_show_their_actions(self, tmp_path: Path) -> None:
        rows = ["2015-03-23,10,10,10,10,4.75", "2015-03-24,10,10,10,10,5", "2015-03-25,5,5,5,5,5"]  # 0.50 is paid, then 2:1
        path = write(tmp_path / "A.csv", "Date,Open,High,Low,Close,Adj Close\n" + "\n".join(rows))
        assert deliver(path, basis="raw").actions.rows() == [
            ("A", date(2015, 3, 24), "dividend", 0.5),
            ("A", date(2015, 3, 25), "split", 2.0),
        ]
        assert deliver(path, basis="restated").actions.is_empty()

    def test_what_is_out_of_scope_is_counted_not_rejected(self, tmp_path: Path) -> None:
        rows = [
            "2015-03-20,,2,0.5,1.5,1,A",  # before the start, and bad
            "2015-03-23,1,2,0.5,1.5,1,A",
            "2015-03-24,1,2,0.5,1.5,1,A",
            "2015-03-24,x,2,0.5,1.5,1,B",  # not in the universe, and bad
            "2015-03-20,1,2,0.5,1.5,1,B",  # neither: counted once
        ]
        made = source(write(tmp_path / "bars.csv", HEADER + "\n".join(rows)), start=date(2015, 3, 23), universe=["A", "ZZZ"])
        assert made.last_session() == date(2015, 3, 24)
        delivery = made.deliver(date(2015, 3, 24), date(2015, 3, 24))
        assert delivery.bars["session"].to_list() == [date(2015, 3, 24)]
        assert delivery.rejected.is_empty()
        assert delivery.receipts.select("symbol", "status", "rows", "detail").rows() == [
            (
                "A",
                "landed",
                5,
                "bars.csv: rows 5, bars 1, rejected 0, before the first kept date 1, outside the universe 2, outside the asked range 1",
            ),
            ("ZZZ", "failed", 0, "unknown symbol: ZZZ is in none of the files"),
        ]

    def test_a_session_that_has_not_closed_is_rejected(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "A.csv", "date,open,high,low,close\n2015-03-23,1,2,0.5,1.5\n2015-03-24,1,2,0.5,1.5\n")
        monkeypatch.setattr(files, "utc_now", lambda: datetime(2015, 3, 24, 19, 59))
        assert reasons(deliver(path)) == {3: "date '2015-03-24' is a session of XNYS that has not closed yet"}
        monkeypatch.setattr(files, "utc_now", lambda: datetime(2015, 3, 24, 20, 0))
        assert source(path).last_session() == date(2015, 3, 24)

    def test_an_adjusted_close_that_was_re_based_is_no_conflict(self, tmp_path: Path) -> None:
        head, row = "date,open,high,low,close,volume,adj_close\n", "2015-03-23,1,2,0.5,1.5,9,{}\n"
        write(tmp_path / "1" / "A.csv", head + row.format(1.5))
        write(tmp_path / "2" / "A.csv", head + row.format(1.4))
        delivery = deliver(tmp_path)
        assert delivery.bars["adj_close"].to_list() == [1.5]
        assert delivery.rejected.rows() == [("2/A.csv", 2, None, None, "repeats the bar of 1/A.csv line 2")]

    def test_no_volume_and_none_traded_are_two_values(self, tmp_path: Path) -> None:
        row = "2015-03-{},1,2,0.5,1.5,{},A\n"
        rows = [row.format(23, ""), row.format(23, "nan"), row.format(24, ""), row.format(24, 0)]
        assert [reason.split()[0] for reason in reasons(deliver(write(tmp_path / "a.csv", HEADER + "".join(rows)))).values()] == [
            "repeats",
            "conflicts",
            "conflicts",
        ]

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("a.csv", b"", "is empty"),
            ("a.csv", b"\xef\xbb\xbf\n", "is empty"),
            ("a.csv", HEADER.encode(), "has a header but no rows"),
            ("a.csv", b"\x7fELF\x00\x01", "is not a text file"),
            ("a.csv", HEADER.encode() + b"2015-03-23,1,2,3,4,5,Caf\xe9\n", "is not UTF-8 .byte 0xe9 on line 2."),
            ("a.csv.gz", gzip.compress(HEADER.encode() * 50, mtime=0)[:-12], "cannot be read: Compressed file ended"),
            ("a.csv.gz", HEADER.encode(), "cannot be read: Not a gzipped file"),
            ("a.parquet", b"PAR1 and no more", "cannot be read"),
            ("a.csv", (HEADER + "2015-02-30,1,2,0.5,1.5,1,A\n").encode(), "No date has a known form.*QUANT_FILES_DATE_FORMAT"),
            ("a.csv", (HEADER + "03/04/2015,1,2,0.5,1.5,1,A\n").encode(), "03/04/2015.*QUANT_FILES_DATE_FORMAT=%d/%m/%Y or %m/%d/%Y"),
            ("a.csv", (HEADER + "2015-03-23,1,2,0.5,,1,A\n").encode(), "none of 1 rows is a bar.*a.csv line 2: close is missing"),
            ("a.txt", b"", "QUANT_FILES_PATH=.*'.txt' are not read"),
        ],
    )
    def test_what_cannot_be_used_says_what_where_and_how_to_mend(self, tmp_path: Path, name: str, content: bytes, words: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigurationError, match=words):
            source(tmp_path / name).last_session()

    def test_other_columns_are_named(self, tmp_path: Path) -> None:
        write(tmp_path / "a.csv", "id,city\n1,Seoul\n")
        with pytest.raises(NotBarsError, match=r"a\.csv holds no bars: found the columns id, city; wanted date, open"):
            source(tmp_path / "a.csv").last_session()
        write(tmp_path / "b.csv", "id,city\n1,Busan\n")
        with pytest.raises(NotBarsError, match=r"none of 2 files holds bars"):
            source(tmp_path).last_session()

    @pytest.mark.parametrize(("below", "words"), [("none", "does not exist"), ("", "holds no file"), ("*.csv", "holds no file")])
    def test_a_path_that_leads_nowhere_is_named(self, tmp_path: Path, below: str, words: str) -> None:
        with pytest.raises(ConfigurationError, match=f"QUANT_FILES_PATH={tmp_path}.*{words}"):
            source(tmp_path / below).last_session()
        with pytest.raises(ConfigurationError, match="QUANT_FILES_PATH is not set"):
            source("").last_session()

    def test_one_bad_file_among_good_ones_is_a_failed_receipt(self, tmp_path: Path) -> None:
        write(tmp_path / "a.csv", HEADER + "2015-03-23,1,2,0.5,1.5,1,A\n")
        write(tmp_path / "b.csv", "id,city\n1,Seoul\n")
        (tmp_path / "c.csv.gz").write_bytes(b"\x1f\x8b broken")
        receipts = deliver(tmp_path).receipts
        assert receipts["status"].to_list() == ["landed", "failed", "failed"]
        assert "found the columns id, city" in receipts["detail"][1]
        assert "c.csv.gz cannot be read" in receipts["detail"][2]

    def test_the_batch_id_follows_content_and_meaning_not_place(self, tmp_path: Path) -> None:
        text = HEADER + "03/13/2015,1,2,0.5,1.5,1,A\n"
        here, there = write(tmp_path / "x" / "a.csv", text), write(tmp_path / "y" / "a.csv", text)
        batch = deliver(here).batch_id
        assert deliver(there).batch_id == deliver(there.parent).batch_id == deliver(tmp_path / "y" / "*.csv").batch_id == batch
        assert deliver(here, universe=["A"]).batch_id == batch
        others = {deliver(here, basis="raw").batch_id, deliver(here, date_format="%m/%d/%Y").batch_id}
        write(there, text + "03/16/2015,1,2,0.5,1.5,1,A\n")
        assert len({batch, *others, deliver(there).batch_id}) == 4

    def test_a_file_is_read_once_and_again_after_it_changed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, reads = write(tmp_path / "a.csv", HEADER + "2015-03-23,1,2,0.5,1.5,1,A\n"), []
        monkeypatch.setattr(files, "read_files", lambda some: reads.append(1) or file_reading.read_files(some))
        made = source(path)
        assert made.last_session() == made.deliver(*EVER).bars["session"].max() == date(2015, 3, 23)
        assert len(reads) == 1
        write(path, path.read_text() + "2015-03-24,1,2,0.5,1.5,1,A\n")
        assert made.last_session() == date(2015, 3, 24)

    @real_data
    def test_the_real_panel_lands_but_for_eleven_rows_without_prices(self) -> None:
        delivery = deliver(DATA / "sp500_2013_2018" / "all_stocks_5yr.csv")
        assert (delivery.bars.height, delivery.rejected.height) == (619_040 - 11, 11)
        assert delivery.bars["symbol"].n_unique() == 505
        assert delivery.bars["session"].n_unique() == 1_259
        broken = pl.any_horizontal(
            pl.col("high") < pl.max_horizontal("open", "close", "low"), pl.col("low") > pl.min_horizontal("open", "close")
        )
        assert delivery.bars.filter(broken).height == 12
        assert delivery.rejected.row(0)[:4] == ("all_stocks_5yr.csv", 82_951, "open", "")
        with (DATA / "sp500_2013_2018" / "all_stocks_5yr.csv").open() as text:
            lines = text.read().split("\n")
        assert all(",," in lines[line - 1] for line in delivery.rejected["line"])

    @real_data
    def test_real_files_of_one_symbol_keep_their_adjusted_close(self) -> None:
        delivery = deliver(DATA / "stocknet_88")
        assert delivery.receipts.height == 88
        assert delivery.rejected["file"].to_list() == ["PTR.csv", "REX.csv", "SNP.csv"]
        assert delivery.bars["adj_close"].null_count() == 0
        assert delivery.bars.filter(symbol="AAPL").row(0)[2:] == (95.108574, 96.448570, 94.928574, 96.424286, 91973000.0, 87.121140)

    @real_data
    def test_real_datetimes_with_zones_are_their_exchange_s_dates(self) -> None:
        delivery = deliver(DATA / "price_repair" / "CALM-1d-no-bad-divs.csv")
        assert delivery.bars["session"][0] == date(2022, 1, 3)
        assert delivery.rejected.is_empty()
        assert set(delivery.actions["kind"]) == {"dividend"}


SYMBOLS = ["TRUE", "ON", "INF", "NA", "NULL", "NaN", "1E5", "005930", "BRK.B", "A"]
SESSIONS = [session for session in CALENDAR.between(date(2015, 1, 1), date(2015, 6, 30)) if session.day > 12]
NAMES = {
    "session": ["Date", "timestamp", "TIME", "trade date"],
    "open": ["Open", "1. open", "OPEN"],
    "high": ["High", "2. high", "high_price"],
    "low": ["Low", "low "],
    "close": ["Close", "4. close", "close"],
    "volume": ["Volume", "VOL", "vol."],
    "adj_close": ["Adj Close", "adj_close", "Adjusted Close", "adjClose"],
    "symbol": ["Name", "symbol", "Ticker"],
}
price = st.floats(1e-3, 1e6)
BARS_BY_KEY = st.dictionaries(
    st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(SESSIONS)),
    st.tuples(price, price, price, price, st.none() | st.integers(0, 10**12).map(float), st.none() | price),
    min_size=1,
    max_size=25,
)


def csv_text(rows: Sequence[Sequence[object]], header: Sequence[str], separator: str) -> str:
    quoted = [[f'"{cell}"' if separator in str(cell) else "" if cell is None else str(cell) for cell in row] for row in [header, *rows]]
    return "\n".join(separator.join(row) for row in quoted) + "\n"


def write_randomly(folder: Path, truth: dict[tuple[str, date], tuple[float | None, ...]], rng: random.Random) -> None:
    """Write bars as some vendor might: one file per symbol or long ones, with any names, order, separator, form."""
    rows = [dict(zip(BARS, (*key, *values), strict=True)) for key, values in truth.items()]
    rng.shuffle(rows)
    split = rng.choice(["by symbol", "long"])
    count = rng.randint(1, 3)
    parts: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        parts.setdefault(str(row["symbol"]) if split == "by symbol" else f"part{rng.randrange(count)}", []).append(row)
    for name, part in parts.items():
        columns = [column for column in BARS if column != "symbol" or split == "long"]
        rng.shuffle(columns)
        header = [rng.choice(NAMES[column]) for column in columns]
        form = rng.choice(["%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%Y-%m-%d 00:00:00-05:00", "%Y%m%d"])
        ending = rng.choice([".csv", ".csv.gz", ".parquet"])
        if ending == ".parquet":
            frame = pl.DataFrame(part, schema=BARS).select(columns)
            frame.rename(dict(zip(columns, header, strict=True))).write_parquet(folder / f"{name}.parquet")
            continue
        cells = [[row[column] if column != "session" else row[column].strftime(form) for column in columns] for row in part]  # type: ignore[attr-defined]
        write(folder / f"{name}{ending}", csv_text(cells, header, rng.choice(",;\t")))


class TestProperties:
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(BARS_BY_KEY, st.randoms(use_true_random=False))
    def test_any_way_to_write_bars_down_delivers_the_same(
        self, truth: dict[tuple[str, date], tuple[float | None, ...]], rng: random.Random
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_randomly(Path(folder), truth, rng)
            made = source(folder)
            delivery = made.deliver(*EVER)
            assert delivery.rejected.is_empty()
            assert delivery.bars.rows() == sorted((*key, *values) for key, values in truth.items())
            assert made.last_session() == max(session for _, session in truth)
            assert delivery.receipts["rows"].sum() == len(truth)
            assert delivery.batch_id == deliver(folder).batch_id

    @settings(max_examples=20, deadline=None)
    @given(
        st.lists(
            st.sampled_from(["good", "blank", "price", "text", "date", "holiday", "few", "many", "volume", "old", "stranger"]), max_size=40
        ),
        st.sampled_from(["\n", "\r\n"]),
        st.sampled_from([",", ";"]),
        st.booleans(),
        st.dates(date(2015, 1, 1), date(2015, 12, 31)),
    )
    def test_exactly_the_bad_lines_are_rejected_and_every_row_is_accounted_for(
        self, kinds: list[str], ending: str, separator: str, quoted: bool, middle: date
    ) -> None:
        session = iter(CALENDAR.between(date(2015, 1, 1), date(2015, 12, 31)))
        lines, bad, good = ["", "date,open,high,low,close,volume,symbol"], {}, []
        for kind in [*kinds, "good"]:
            day = next(session)
            row = [str(day), "1.5", "2.5", "0.5", "1.75", "100", "A"]
            changed = {
                "price": (2, "", "high"), "text": (4, "1.7.5", "close"), "date": (0, "2015-13-01", "date"), "holiday": (0, "2015-12-25", "date"),
                "volume": (5, "-3", "volume"), "old": (0, "1999-12-31", ""), "stranger": (6, "B", ""),
            }  # fmt: skip
            if kind in changed:
                at, value, column = changed[kind]
                row[at] = value
                if column:
                    bad[len(lines) + 1] = (column, value)
            elif kind in {"few", "many"}:
                row = row[:-1] if kind == "few" else [*row, "x"]
                bad[len(lines) + 1] = (None, None)
            elif kind == "good":
                good.append(day)
            lines.append("" if kind == "blank" else separator.join(f'"{cell}"' if quoted else cell for cell in row))
            if kind in {"few", "many"}:
                bad[len(lines)] = (None, lines[-1])
        lines[1] = lines[1].replace(",", separator)
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder) / "bars.csv", ending.join(lines))
            delivery = deliver(path, universe=["A"])
            assert {line: (column, value) for _, line, column, value, _ in delivery.rejected.rows()} == bad
            assert delivery.bars["session"].to_list() == good
            ignored = kinds.count("old") + kinds.count("stranger")
            assert delivery.receipts["rows"].to_list() == [len(good) + len(bad) + ignored]
            # Two halves of time bring what the whole brings, and nothing else.
            made = source(path, universe=["A"])
            halves = [made.deliver(EVER[0], middle), made.deliver(date.fromordinal(middle.toordinal() + 1), EVER[1])]
            assert pl.concat([half.bars for half in halves]).equals(delivery.bars)
            assert pl.concat([half.rejected for half in halves]).unique().height == len(bad)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("12")), min_size=1, max_size=12))
    def test_of_repeated_bars_the_first_lands_and_of_conflicting_ones_none(self, rows: list[tuple[str, str]]) -> None:
        buffer = io.StringIO("symbol,close,date,open,high,low\n")
        buffer.seek(0, io.SEEK_END)
        buffer.writelines(f"{symbol},{close},2015-03-23,1,2,0.5\n" for symbol, close in rows)
        with tempfile.TemporaryDirectory() as folder:
            delivery = deliver(write(Path(folder) / "bars.csv", buffer.getvalue()))
        agreed = [symbol for symbol in "AB" if len({close for other, close in rows if other == symbol}) == 1]
        assert delivery.bars["symbol"].to_list() == agreed
        assert delivery.bars.height + delivery.rejected.height == len(rows)
        for line, reason in reasons(delivery).items():
            symbol, close = rows[line - 2]
            other_symbol, other_close = rows[int(reason.split(" line ")[1].split(",")[0]) - 2]
            assert other_symbol == symbol
            assert (other_close == close) == reason.startswith("repeats")
