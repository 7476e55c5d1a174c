"""The source `files`: CSV and Parquet, one file or ten thousand, long or one file per symbol.

Every physical line of a file ends as a bar, as a rejected row that says why, or as one that is out of scope; the
receipt of its file counts all three.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import sha256

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import ConfigurationError, NotBarsError
from quant_assets.market_data.corporate_actions import infer_actions
from quant_assets.market_data.delivery import ACTIONS, BARS, RECEIPTS, REJECTED, Delivery, Holdings
from quant_assets.market_data.files import parsing
from quant_assets.market_data.files.reading import BarFile, find_files, read_files

_SCOPE = {
    "before_start": "before the first kept date",
    "outside_universe": "outside the universe",
    "outside_range": "outside the asked range",
}


@dataclass(frozen=True)
class Parsed:
    """What stands in files, before a range is cut from it: frames carry `file`, the position in `files`."""

    files: list[BarFile]
    bars: pl.DataFrame
    rejected: pl.DataFrame
    ignored: pl.DataFrame
    symbols: pl.DataFrame
    batch_id: str


@dataclass
class FilesSource:
    """Daily bars from CSV (also gzipped) and Parquet files: a file, a folder with all below it, or a glob.

    A file is long (it has a symbol column) or of one symbol (named by the file: `AAPL.csv.gz` is AAPL). The first
    line that is not blank is the header; columns are told by their names (`parsing.SYNONYMS`), in any order, between
    commas, semicolons or tabs, in UTF-8. Line breaks inside quotes are not read: such a row is rejected, the others keep their lines.
    A file is parsed once, and again only after it changed.

    A row that is no bar is rejected with its file, line and reason: a price missing or no finite number, another cell
    that cannot be read, a date that is no closed session of the calendar, too few or too many fields. Of rows that repeat one
    (symbol, session) with the same values the first lands; where values differ, all are rejected, since which is right
    cannot be known. `adj_close` is no part of a bar's identity and makes no difference here.
    Rows before `start`, outside `universe` (empty: everything) and outside the asked range are only counted.

    A file among others that cannot be read, or holds no bars, becomes a failed receipt. Raises `ConfigurationError`
    (`NotBarsError` where columns are missing) when no file holds bars, nothing is found, or a date's form is open.
    """

    path: str
    calendar: TradingCalendar
    basis: str = "restated"
    date_format: str = ""
    universe: Collection[str] = ()
    start: date = date(2000, 1, 1)
    name: str = field(default="files", init=False)
    live: bool = field(default=False, init=False)
    _cache: tuple[list[tuple[str, int, int]], Parsed] | None = field(default=None, init=False, repr=False)

    def last_session(self) -> date:
        """The newest session with a bar in scope; raises `ConfigurationError` when there is none, or nothing can be read."""
        parsed = self._parse()
        last = parsed.bars["session"].max()
        if isinstance(last, date):
            return last
        counts = ", ".join(
            f"{parsed.ignored[reason].sum()} {words}" for reason, words in _SCOPE.items() if reason in parsed.ignored.columns
        )
        first = parsed.rejected.head(1).rows(named=True)
        example = f"; the first rejected is {first[0]['file_name']} line {first[0]['line']}: {first[0]['reason']}" if first else ""
        raise ConfigurationError(
            f"{self.path}: none of {sum(file.rows for file in parsed.files)} rows is a bar in scope: {parsed.rejected.height} rejected, {counts}{example}. "
            f"Check QUANT_FILES_PATH, QUANT_START ({self.start}), QUANT_UNIVERSE and QUANT_CALENDAR ({self.calendar.name})."
        )

    def deliveries(self, first: date, last: date, as_of: datetime, holdings: Holdings) -> Iterator[Delivery]:
        """One delivery: the files as they are now."""
        yield self.deliver(first, last)

    def deliver(self, first: date, last: date) -> Delivery:
        """The bars, actions and rejected rows of first to last session, both included, with one receipt per file.

        A rejected row without a readable date belongs to every range. Each symbol of the universe that stands in no
        file has a failed receipt of its own. The receipts' `rows` counts the file's rows; `detail` says what became of them.
        """
        parsed = self._parse()
        inside = pl.col("session").is_between(first, last)
        bars = parsed.bars.filter(inside)
        rejected = parsed.rejected.filter(inside.fill_null(True))
        return Delivery(
            source=self.name,
            basis=self.basis,
            batch_id=parsed.batch_id,
            bars=bars.select(*BARS),
            actions=self._actions(parsed, bars),
            rejected=rejected.select(pl.col("file_name").alias("file"), *list(REJECTED)[1:]),
            receipts=self._receipts(parsed, bars, rejected),
        )

    def _actions(self, parsed: Parsed, bars: pl.DataFrame) -> pl.DataFrame:
        """What the files tell in columns of their own; from files of raw prices without such columns, what their adjusted closes show."""
        silent = [at for at, file in enumerate(parsed.files) if self.basis == "raw" and not {"dividend", "split"} & file.spelled.keys()]
        inferred, _ = infer_actions(bars.filter(pl.col("file").is_in(silent)))
        return pl.concat([given_actions(bars), inferred]).sort("symbol", "session", "kind")

    def _parse(self) -> Parsed:
        files = [BarFile(name, path) for name, path in find_files(self.path)]
        state = [(file.name, *file.state()) for file in files]
        if self._cache is None or self._cache[0] != state:
            parsed = self.parse(files)
            if (problems := [file.problem for file in files if file.problem is not None]) and not any(file.rows for file in files):
                kind = NotBarsError if all(isinstance(problem, NotBarsError) for problem in problems) else ConfigurationError
                count = f"none of {len(files)} files holds bars. " if len(files) > 1 else ""
                raise kind(f"QUANT_FILES_PATH={self.path}: {count}{' '.join(str(problem) for problem in problems[:3])}")
            self._cache = (state, parsed)
        return self._cache[1]

    def parse(self, files: list[BarFile], days: Sequence[date] = ()) -> Parsed:
        """Read everything, then decide over the whole of it: dates, scope, sessions, repetitions.

        Of rows that repeat one (symbol, session) one lands at most. With `days`, one per file, each file is a delivery of
        that day and decided on its own; one whose dates cannot be read has a problem, and the others land.
        """
        rows, faults = read_files(files)
        dates = self._read_dates(rows, files, days)
        names = pl.DataFrame(
            {
                "file": range(len(files)),
                "file_name": [file.name for file in files],
                "date_name": [file.spelled.get("session") for file in files],
            },
            schema={"file": pl.UInt32, "file_name": pl.String, "date_name": pl.String},
        )
        alone = ["file"] if days else []
        dates = dates.with_columns(pl.col("text").cast(pl.Categorical)).rename({"text": "date"})
        rows = rows.join(dates, on=[*alone, "date"], how="left", maintain_order="left")
        symbols = rows.select(pl.col("symbol").unique().drop_nulls().cast(pl.String))
        outside = pl.lit(False)
        if self.universe:
            strangers = symbols.filter(~pl.col("symbol").is_in(list(self.universe))).cast(pl.Categorical)
            outside = pl.col("symbol").is_in(strangers["symbol"].implode())
        early = (pl.col("session") < self.start).fill_null(False)
        rows = rows.with_columns(outside_universe=outside.fill_null(False), before_start=early & ~outside.fill_null(False))
        ignored = rows.group_by("file").agg(pl.col("outside_universe", "before_start").sum())
        rows = rows.filter(~pl.col("outside_universe") & ~pl.col("before_start")).drop("outside_universe", "before_start")

        faults = pl.concat([faults.join(rows, on=["file", "line"], how="semi"), self._date_faults(rows, faults, names)])
        sound = rows.join(faults, on=["file", "line"], how="anti", maintain_order="left")
        again = _repetitions(sound, names, [*alone, "symbol", "session"])
        bars = sound.join(again, on=["file", "line"], how="anti").with_columns(pl.col("symbol").cast(pl.String)).sort("symbol", "session")
        rejected = (
            pl.concat([faults, again])
            .sort("file", "line", "rank")
            .group_by("file", "line", maintain_order=True)
            .agg(pl.col("column_name", "value").first(), pl.col("reason").str.join("; "))
            .join(rows.select("file", "line", "session"), on=["file", "line"], how="left", maintain_order="left")
            .join(names.select("file", "file_name"), on="file", how="left", maintain_order="left")
        )
        return Parsed(files, bars, rejected, ignored, symbols, self._batch_id(files))

    def _read_dates(self, rows: pl.DataFrame, files: list[BarFile], days: Sequence[date]) -> pl.DataFrame:
        """The distinct date texts and their sessions (`text`, `session`), of all files together or (`file`) of each."""
        if not days:
            return parsing.read_dates(rows["date"].unique(), self.date_format)
        read = [pl.DataFrame(schema={"text": pl.String, "session": pl.Date, "file": pl.UInt32})]
        for (at,), texts in rows.select("file", "date").unique().partition_by("file", as_dict=True).items():
            try:
                dates = parsing.read_dates(texts["date"], self.date_format, days[at])
            except ConfigurationError as problem:
                files[at].problem = problem
            else:
                read.append(dates.with_columns(file=pl.lit(at, pl.UInt32)))
        return pl.concat(read)

    def _date_faults(self, rows: pl.DataFrame, faults: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
        """Rows whose date is missing, cannot be read, or is no session that has closed."""
        ragged = faults.filter(pl.col("rank") < 0)
        text = pl.col("date").cast(pl.String)
        known = self.calendar.frame(date.min, date.max).select("session", closed=pl.col("close_at") <= utc_now())
        suspects = rows.select("file", "line", "date", "session").join(known, on="session", how="left", maintain_order="left")
        suspects = (
            suspects.filter(~pl.col("closed").fill_null(False))
            .join(ragged, on=["file", "line"], how="anti")
            .join(names, on="file", how="left")
        )
        span = f"{self.calendar.name} (known from {self.calendar.sessions[0]} to {self.calendar.sessions[-1]})"
        form = f"in the form {self.date_format}" if self.date_format else "in ISO form (2015-03-23)"
        said = pl.format("{} '{}'", "date_name", text)
        reason = (
            pl.when(parsing.is_missing(text)).then(pl.format("{} is missing", "date_name"))
            .when(pl.col("session").is_null()).then(pl.format("{} is not a date {}", said, pl.lit(form)))
            .when(pl.col("closed").is_null()).then(pl.format("{} is no session of {}", said, pl.lit(span)))
            .otherwise(pl.format("{} is a session of {} that has not closed yet", said, pl.lit(self.calendar.name)))
        )  # fmt: skip
        return parsing.fault(suspects, "session", pl.col("date_name"), text, reason)

    def _batch_id(self, files: list[BarFile]) -> str:
        """Derive the id from content and from the settings that change what a row means; where the files lie is no part of it."""
        content = [(file.name, file.sha256) for file in files]
        return "files-" + sha256(repr((content, self.basis, self.date_format, self.calendar.name)).encode()).hexdigest()[:16]

    def _receipts(self, parsed: Parsed, bars: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
        def counted(frame: pl.DataFrame, name: str) -> pl.DataFrame:
            return frame.group_by("file").agg(pl.len().cast(pl.Int64).alias(name))

        counts = pl.DataFrame({"file": range(len(parsed.files))}, schema={"file": pl.UInt32})
        for part in (
            counted(bars, "bars"),
            counted(rejected, "rejected"),
            parsed.ignored,
            parsed.bars.group_by("file").agg(pl.col("symbol").first(), pl.col("symbol").n_unique().alias("symbols")),
        ):
            counts = counts.join(part, on="file", how="left", maintain_order="left")
        receipts = [
            _receipt(file, {name: count or 0 for name, count in row.items() if name != "symbol"}, row["symbol"])
            for file, row in zip(parsed.files, counts.iter_rows(named=True), strict=True)
        ]
        unknown = sorted(set(self.universe) - set(parsed.symbols["symbol"]))
        receipts += [(symbol, "failed", 0, None, f"unknown symbol: {symbol} is in none of the files") for symbol in unknown]
        names = ("symbol", "status", "rows", "payload_sha256", "detail")
        return pl.DataFrame([dict(zip(names, receipt, strict=True)) for receipt in receipts], schema=RECEIPTS)


def _receipt(file: BarFile, count: dict[str, int], symbol: str | None) -> tuple[str | None, str, int, str | None, str]:
    if file.problem is not None:
        return None, "failed", 0, file.sha256, str(file.problem)
    count["outside_range"] = file.rows - sum(count[name] for name in ("bars", "rejected", "outside_universe", "before_start"))
    ignored = "".join(f", {words} {count[reason]:,}" for reason, words in _SCOPE.items() if count[reason])
    detail = f"{file.name}: rows {file.rows:,}, bars {count['bars']:,}, rejected {count['rejected']:,}{ignored}"
    status = "landed" if not count["rejected"] else "failed" if count["rejected"] == file.rows else "partial"
    one = file.stem if "symbol" not in file.spelled else symbol if count["symbols"] == 1 else None
    return one, status, file.rows, file.sha256, detail


def given_actions(bars: pl.DataFrame) -> pl.DataFrame:
    """Take the dividends and splits that stand beside the bars; 0 and, for splits, 1 say that there was none."""
    kinds = {"dividend": pl.col("dividend") != 0, "split": (pl.col("split") != 0) & (pl.col("split") != 1)}
    parts = [bars.filter(there).select("symbol", "session", kind=pl.lit(kind), value=pl.col(kind)) for kind, there in kinds.items()]
    return pl.concat(parts).sort("symbol", "session", "kind").cast(ACTIONS)  # type: ignore[arg-type]


def _repetitions(rows: pl.DataFrame, names: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """State a fault (`parsing.FAULTS`) for each row that repeats another's key, in the order of files and lines."""
    values = ["open", "high", "low", "close", "volume", "dividend", "split"]
    twice = rows.group_by(key).len().filter(pl.col("len") > 1)
    again = rows.join(twice, on=key, how="semi").join(names, on="file").sort("file", "line")
    place = pl.format("{} line {}", "file_name", "line")
    # A null volume is a value of its own here, and a dividend that is not told is none; -1 stands for no volume that can be.
    same = [pl.col(name).fill_null(-1.0 if name == "volume" else 0.0) for name in values]
    again = again.with_columns(
        as_first=pl.all_horizontal(value == value.first().over(key) for value in same),
        first=place.first().over(key),
        nth=pl.int_range(pl.len()).over(key),
    ).with_columns(other=place.filter(~pl.col("as_first")).first().over(key))
    reason = (
        pl.when(pl.col("other").is_null()).then(pl.format("repeats the bar of {}", "first"))
        .otherwise(pl.format(
            "conflicts with {}, which has other values for the same symbol and session; which is right cannot be known",
            pl.when("as_first").then("other").otherwise("first"),
        ))
    )  # fmt: skip
    return parsing.fault(again.filter((pl.col("nth") > 0) | pl.col("other").is_not_null()), "symbol", pl.lit(None), pl.lit(None), reason)
