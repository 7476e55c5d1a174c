"""The source `files` on a folder of dated deliveries: `YYYYMMDD.tar.gz`, each one what a vendor sent on that day.

An archive holds `prices.csv` (in any form that `files` reads) and, where the vendor lists its symbols, `symbols.txt`
(the ticker before a tab). It is one delivery, known at its date: at the close of that session plus the vendor's delay,
or, dated on a closed day, when that day ends (UTC). Archives land one by one in the order of their dates, so that one
range, single nights and any repetition of them leave the same tables.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from pathlib import Path

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import ConfigurationError
from quant_assets.market_data.corporate_actions import infer_actions
from quant_assets.market_data.delivery import BARS, RECEIPTS, REJECTED, Delivery, Holdings
from quant_assets.market_data.files.reading import BarFile
from quant_assets.market_data.files.source import FilesSource, Parsed, given_actions

NAME = re.compile(r"^(\d{4})-?(\d{2})-?(\d{2})\.tar\.gz$")
AT_A_TIME = 16
"""Archives parsed together: few large steps, and a bound on memory."""
COMPLETE = 0.98
"""Share of the delivered symbols with a bar of the newest session from which on a delivery counts as whole."""
LISTED = 0.97
"""The same share of the listed symbols, of which some never trade."""


@dataclass
class Archive(BarFile):
    """One dated delivery; `sha256` is the archive's own, `listed` the tickers of its list (None without one)."""

    listed: list[str] | None = None

    @property
    def day(self) -> date:
        """The date in its name."""
        return dated(self.path) or date.min

    @property
    def stem(self) -> str:
        """Nothing: what its prices are of stands beside them, or cannot be known."""
        return ""

    def read(self) -> bytes:
        """What stands in its `prices.csv`; the archive's hash and list are noted on the way."""
        data = super().read()
        members: dict[str, tuple[int, bytes]] = {}  # of namesakes the one that lies nearest to the top
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    depth, name = len(Path(member.name).parts), Path(member.name).name
                    if member.isfile() and name in {"prices.csv", "symbols.txt"} and (name not in members or depth < members[name][0]):
                        members[name] = depth, archive.extractfile(member).read()  # type: ignore[union-attr]
        except tarfile.TarError as error:
            raise ConfigurationError(f"{self.name} is no tar archive that can be read ({error}); fetch it again.") from None
        if "symbols.txt" in members:
            lines = members["symbols.txt"][1].decode("utf-8-sig", "replace").splitlines()
            self.listed = list(dict.fromkeys(ticker for line in lines if (ticker := line.split("\t")[0].strip())))
        if "prices.csv" not in members:
            raise ConfigurationError(f"{self.name} holds no prices.csv; fetch it again.")
        return members["prices.csv"][1]


def dated(path: Path) -> date | None:
    """The date in an archive's name; None where the name is no such one."""
    found = NAME.match(path.name)
    try:
        return date(*map(int, found.groups())) if found else None
    except ValueError:
        return None


def find_archives(path: str) -> list[Path]:
    """The dated archives that a path means (a folder or one archive), by date; none where it means something else."""
    root = Path(path).expanduser()
    candidates = root.iterdir() if root.is_dir() else [root] if root.is_file() else []
    return sorted((file for file in candidates if dated(file)), key=lambda file: (dated(file), file.name))


@dataclass
class ArchivesSource:
    """Daily deliveries in dated archives, landed in order; prices are as traded (`basis` raw).

    Splits and dividends are inferred from re-based adjusted closes (`corporate_actions.infer_actions`). An archive is
    read again only after it changed. One that cannot be read, or holds nothing, is a delivery of its own without bars,
    and says so. Raises `ConfigurationError` when no archive lies in reach.
    """

    path: str
    calendar: TradingCalendar
    date_format: str = ""
    universe: Collection[str] = ()
    start: date = date(2000, 1, 1)
    name: str = field(default="files", init=False)
    live: bool = field(default=False, init=False)

    def last_session(self) -> date:
        """The session of the newest archive that can have been received by now."""
        days = [day for path in find_archives(self.path) if (day := dated(path)) and self.delivered_at(day) <= utc_now()]
        if not days:
            raise ConfigurationError(f"QUANT_FILES_PATH={self.path} holds no archive named by a past date, such as 20150323.tar.gz.")
        return self.calendar.session_on_or_before(days[-1])

    def delivered_at(self, day: date) -> datetime:
        """The instant from which an archive of that date is known."""
        if self.calendar.is_session(day):
            return self.calendar.known_at(day)
        return datetime.combine(day + timedelta(days=1), time(), UTC).replace(tzinfo=None)

    def deliveries(self, first: date, last: date, as_of: datetime, holdings: Holdings) -> Iterator[Delivery]:
        """The archives from first to last session that are known as of an instant and were not landed, one delivery each, by date."""
        begin = max(first, self.start, self.calendar.sessions[0])
        landed = {batch.rpartition("-")[0]: (batch, at) for batch, at in holdings.batches().items()}
        due = [
            Archive(path.name, path)
            for path in find_archives(self.path)
            if (day := dated(path)) and day >= begin and self.calendar.session_on_or_before(day) <= last and self.delivered_at(day) <= as_of
        ]
        fresh = [archive for archive in due if archive.name not in landed or _changed(archive, *landed[archive.name])]
        reader = FilesSource(self.path, self.calendar, "raw", self.date_format, self.universe, self.start)
        for start in range(0, len(fresh), AT_A_TIME):
            yield from self._parse(reader, fresh[start : start + AT_A_TIME])

    def _parse(self, reader: FilesSource, archives: Sequence[Archive]) -> Iterator[Delivery]:
        parsed = reader.parse(list(archives), [archive.day for archive in archives])
        bars = _by_file(parsed.bars, len(archives))
        rejected = _by_file(parsed.rejected, len(archives))
        for at, archive in enumerate(archives):
            yield self._delivery(archive, parsed, at, bars[at], rejected[at])

    def _delivery(self, archive: Archive, parsed: Parsed, at: int, bars: pl.DataFrame, rejected: pl.DataFrame) -> Delivery:
        ahead = bars.filter(pl.col("session") > archive.day)
        if ahead.height:
            reason = pl.format("date '{}' lies after the delivery of {}", "session", pl.lit(archive.day))
            unknown = ahead.select(
                "line",
                "session",
                file_name=pl.lit(archive.name),
                column_name=pl.lit("date"),
                value=pl.col("session").cast(pl.String),
                reason=reason,
            )
            rejected = pl.concat([rejected, unknown], how="diagonal_relaxed")
            bars = bars.filter(pl.col("session") <= archive.day)
        ignored = parsed.ignored.filter(pl.col("file") == at).select(pl.sum_horizontal(pl.exclude("file"))).sum().item() or 0
        repeats = rejected.filter(pl.col("reason").str.contains("repeats the bar of|conflicts with")).height
        # What the vendor tells in columns of its own is no guess; the rest shows in re-based adjusted closes.
        told = {"dividend", "split"} & archive.spelled.keys()
        inferred, doubtful = (found.filter(~pl.col("kind").is_in(told)) for found in infer_actions(bars))
        actions = pl.concat([given_actions(bars).filter(pl.col("kind").is_in(told)), inferred]).sort("symbol", "session", "kind")
        rebased = len(told) < 2 and bars["adj_close"].count() > 0
        status, detail = self._judge(archive, bars, rejected, 1 + repeats / max(bars.height, 1), rebased)
        counts = f"rows {archive.rows:,}, bars {bars.height:,}, rejected {rejected.height:,}" + (
            f", out of scope {ignored:,}" if ignored else ""
        )
        doubts = "".join(f"; no {row['kind']} of {row['symbol']}: {row['reason']}" for row in doubtful.head(3).iter_rows(named=True))
        listed = self._in_scope(archive)
        receipt = {
            "status": status, "rows": archive.rows, "payload_sha256": archive.sha256,
            "detail": f"{archive.name}: {detail}{counts}{doubts}",
        }  # fmt: skip
        return Delivery(
            source=self.name,
            basis="raw",
            batch_id=f"{archive.name}-{(archive.sha256 or 'unreadable')[:16]}",
            bars=bars.select(*BARS),
            actions=actions,
            rejected=rejected.select(pl.col("file_name").alias("file"), *list(REJECTED)[1:]),
            receipts=pl.DataFrame([receipt], schema=RECEIPTS),
            delivered_at=self.delivered_at(archive.day),
            listed=pl.Series("symbol", listed, dtype=pl.String) if listed and archive.problem is None else None,
        )

    def _in_scope(self, archive: Archive) -> list[str]:
        """The listed tickers that are in scope."""
        return [ticker for ticker in archive.listed or () if not self.universe or ticker in self.universe]

    def _judge(self, archive: Archive, bars: pl.DataFrame, rejected: pl.DataFrame, times: float, rebased: bool) -> tuple[str, str]:
        """What a delivery is, in one word, and why; bars that it should have brought come with the next good one.

        `times` is how often each row stands there, `rebased` whether only adjusted closes tell the actions.
        """
        if archive.problem is not None:
            empty = "empty" in str(archive.problem) or "no rows" in str(archive.problem)
            return ("empty", "empty: it holds no rows; ") if empty else ("failed", f"failed: {archive.problem} ")
        if bars.is_empty():
            if rejected.is_empty():
                return "landed", ""  # all of it is out of scope
            return "failed", f"failed: none of its rows is a bar, the first since {rejected['reason'][0]}; fetch it again. "
        due = self.calendar.session_on_or_before(archive.day)
        per_session = dict(bars.group_by("session").len().iter_rows())
        symbols = max(bars["symbol"].n_unique(), 1)
        tonight = per_session.get(due, 0)
        # Of the first session of all, none before it is wanted.
        before = per_session.get(self.calendar.previous(due), 0) if due > self.calendar.sessions[0] else symbols
        words = []
        if times >= 1.9:
            words.append(("tripled" if times >= 2.8 else "doubled", f"every row stands there {round(times)} times"))
        if not self.calendar.is_session(archive.day):
            words.append(("stale", f"{archive.day} is no session of {self.calendar.name}, and it repeats {due}"))
        elif tonight < symbols / 2:
            newest = max(per_session, key=lambda session: (per_session[session], session))
            words.append(("stale", f"{tonight:,} of {symbols:,} symbols have a bar of {due}, most end on {newest}"))
        elif tonight < COMPLETE * symbols:
            words.append(("partial", f"{tonight:,} of {symbols:,} symbols have a bar of {due}"))
        elif rebased and before < symbols / 2:
            words.append(
                ("partial", f"{before:,} of {symbols:,} symbols have a bar of the session before, so that no action of {due} can be seen")
            )
        listed = self._in_scope(archive)
        if archive.day == due and tonight >= symbols / 2 and symbols < LISTED * len(listed):
            words.append(("partial", f"{symbols:,} of {len(listed):,} listed symbols have a bar"))
        return (words[0][0], "".join(f"{word}: {why}; " for word, why in words)) if words else ("landed", "")


def _changed(archive: Archive, batch: str, landed_at: datetime) -> bool:
    """Whether an archive is another one than landed; the hash is asked only where the file was written or put there since."""
    try:
        state = archive.path.stat()  # a copy may keep the time of its original's last change, not that of its own making
        placed_at = datetime.fromtimestamp(max(state.st_mtime, state.st_ctime), UTC).replace(tzinfo=None)
        return placed_at > landed_at and batch != f"{archive.name}-{sha256(archive.path.read_bytes()).hexdigest()[:16]}"
    except OSError:
        return False  # as unreadable as it was, which its receipt says


def _by_file(frame: pl.DataFrame, files: int) -> list[pl.DataFrame]:
    parts = {key[0]: part for key, part in frame.partition_by("file", as_dict=True).items()}
    return [parts.get(at, frame.clear()) for at in range(files)]
