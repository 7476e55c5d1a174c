"""People's decisions about findings: a release lets a bar go on, a confirmation says that it is wrong and stays held.

A decision concerns what one rule says of one version of a bar; decisions are appended, never edited, and the newest
one stands. A corrected version of the bar is another version: it is judged anew, and nothing decided before concerns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import ConfigurationError, QuantAssetsError
from quant_assets.market_data.landing import default_as_of, newest_known
from quant_assets.schemas import REVIEWS
from quant_assets.warehouse import Connection, Warehouse, append_ledger, query, scalar

RELEASE, CONFIRM = "release", "confirm"
EVERY_RULE = "*"
_PAST = {RELEASE: "released", CONFIRM: "confirmed"}

_FINDINGS = """
    select finding.* exclude recorded_at, review.decision, review.decided_by, review.decided_at, review.reason, review.recorded_at
    from data_quality.anomalies as finding
    anti join market_data.daily_bars as newer on newer.source = finding.source
        and newer.symbol = finding.symbol and newer.session = finding.session and newer.known_at > finding.bar_known_at
    left join (
        select * from data_quality.reviews
        qualify row_number() over (partition by symbol, session, source, rule, bar_known_at order by decided_at desc) = 1
    ) as review using (symbol, session, source, rule, bar_known_at)
    where finding.source = $source and {which}
"""
"""Every finding on the newest version of a bar, with the decision that stands (null: nobody has decided)."""


class ReviewRefused(QuantAssetsError):
    """A decision cannot stand: there is no such finding, or somebody else has decided about it; nothing was written."""


@dataclass(frozen=True)
class Decision:
    """One person's decision about one rule's finding on a bar, or about all critical ones (`EVERY_RULE`).

    `bar_known_at` is the version of the bar that the person saw; where it is None, the newest is meant. `overrule` lets it
    stand against what was decided before. Raises `ConfigurationError` for a word that is no decision, a blank name or reason.
    """

    symbol: str
    session: date
    rule: str
    decision: str
    decided_by: str
    reason: str
    bar_known_at: datetime | None = None
    overrule: bool = False

    def __post_init__(self) -> None:
        if self.decision not in _PAST:
            raise ConfigurationError(f"{self.decision!r} is no decision about {self.bar}: it is {RELEASE} or {CONFIRM}.")
        for name in ("decided_by", "reason"):
            if not getattr(self, name).strip():
                raise ConfigurationError(f"A decision about {self.bar} needs its {name}: it is blank.")

    @property
    def bar(self) -> str:
        return f"{self.symbol} {self.session}"


@dataclass(frozen=True)
class Outcome:
    """What came of one decision: rows written, findings so decided already, what it overruled, what holds the bar now (`rule`, `decision`)."""

    decision: Decision
    written: pl.DataFrame
    unchanged: pl.DataFrame
    overruled: pl.DataFrame
    holding: pl.DataFrame

    @property
    def asks_for_a_run(self) -> bool:
        """Whether the bar goes on, or did so until this decision: what rests on it is then to be computed again."""
        return self.holding.is_empty() or (self.overruled["decision"] == RELEASE).any()

    @property
    def in_words(self) -> list[str]:
        """What was done, what that overruled, what was done already, and what becomes of the bar, a line each."""
        bar = self.decision.bar
        lines = [f"{bar}: {_told(row)}" for row in self.written.iter_rows(named=True)]
        lines += [f"{bar}: overruled: {_told(row)}" for row in self.overruled.iter_rows(named=True)]
        lines += [f"{bar}: nothing written, it is decided so already: {_told(row)}" for row in self.unchanged.iter_rows(named=True)]
        if self.holding.is_empty():
            return [*lines, f"{bar}: the bar goes on: no critical finding holds it."]
        states = [f"{rule} ({_PAST[decision] if decision else 'undecided'})" for rule, decision in self.holding.iter_rows()]
        return [*lines, f"{bar}: the bar stays held back by {', '.join(states)}."]


def parse_decision(
    symbol: str, session: str, rule: str, decision: str, decided_by: str, reason: str, version: str | None = None, overrule: bool = False
) -> Decision:
    """A decision from the words of a command or of a run's configuration; raises `ConfigurationError` naming what cannot be read."""
    try:
        day = date.fromisoformat(session)
    except ValueError:
        raise ConfigurationError(f"The session {session!r} is no date; write it as 2018-02-07.") from None
    try:
        seen = datetime.fromisoformat(version) if version else None
    except ValueError:
        raise ConfigurationError(f"The version {version!r} is no instant; write it as `list` shows it: 2018-02-07T21:30:00.") from None
    if seen is not None and seen.tzinfo:
        seen = seen.astimezone(UTC).replace(tzinfo=None)
    return Decision(symbol, day, rule, decision, decided_by.strip(), reason.strip(), seen, overrule)


def desk_clock(warehouse: Warehouse, calendar: TradingCalendar, live: bool, asked: str | None) -> datetime:
    """The instant a decision is made as of: what a run would work as of now, or the one that is asked for.

    Raises `ConfigurationError` where no bar is stored, and for an instant whose last session is not known yet: every
    later run would have to pretend that it is.
    """
    newest = warehouse.read(
        "select max(session) as session from market_data.daily_bars where source = $source", {"source": warehouse.preferred_source}
    )["session"].item()
    if newest is None:
        raise ConfigurationError(f"No bars of the source {warehouse.preferred_source} are stored yet: `quant-assets run` brings them.")
    last = calendar.session_on_or_before(newest)
    now = utc_now() if live else default_as_of(warehouse, warehouse.preferred_source, calendar, last)
    if asked is None:
        return now
    instant = calendar.as_of(asked)
    if calendar.last_known_session(instant) > calendar.last_known_session(now):
        raise ConfigurationError(f"--as-of {asked} lies after the last session known now, {calendar.last_known_session(now)}.")
    return instant


def review(warehouse: Warehouse, calendar: TradingCalendar, decisions: Sequence[Decision], as_of: datetime) -> list[Outcome]:
    """Check and write decisions, in their order and in one transaction: all of them stand, or none.

    Each is made as of the instant, and after everything that was stored as known by then or later, so that what was read
    before it stays as it was. A decision that its person has made already writes nothing. Raises `ReviewRefused` where
    there is no such finding, and where somebody decided otherwise or before, unless it overrules.
    """
    with warehouse.transaction() as connection:
        recorded_at = utc_now()
        return [_decide(connection, warehouse.preferred_source, calendar, decision, as_of, recorded_at) for decision in decisions]


def findings_under_review(
    warehouse: Warehouse,
    *,
    severity: str = "critical",
    released: bool = False,
    undecided: bool = False,
    symbol: str | None = None,
    rule: str | None = None,
    first: date | None = None,
    last: date | None = None,
) -> pl.DataFrame:
    """Findings of a severity on the newest versions of the preferred source's bars, newest session first, with the decision that stands.

    Columns of `data_quality.anomalies` and, of the review, `decision`, `decided_by`, `decided_at`, `reason`, `recorded_at` (null:
    undecided). Released ones are left out unless asked for; `undecided` leaves confirmed ones out too.
    """
    return warehouse.read(
        f"""
        select * from ({_FINDINGS.format(which="severity = $severity")})
        where ($released or decision is distinct from '{RELEASE}') and not ($undecided and decision is not null)
            and ($symbol is null or symbol = $symbol) and ($rule is null or rule = $rule)
            and ($first is null or session >= $first) and ($last is null or session <= $last)
        order by session desc, score desc, symbol, rule, detector
        """,
        {
            "source": warehouse.preferred_source,
            "severity": severity,
            "released": released,
            "undecided": undecided,
            "symbol": symbol,
            "rule": rule,
            "first": first,
            "last": last,
        },
    )


def _decide(
    connection: Connection, source: str, calendar: TradingCalendar, decision: Decision, as_of: datetime, recorded_at: datetime
) -> Outcome:
    bar = {"source": source, "symbol": decision.symbol, "session": decision.session}
    on_bar = _FINDINGS.format(which="severity = 'critical' and symbol = $symbol and session = $session") + "order by rule, detector"
    critical = query(connection, on_bar, bar).unique("rule", keep="first", maintain_order=True)
    chosen = critical if decision.rule == EVERY_RULE else critical.filter(pl.col("rule") == decision.rule)
    replaced = decision.bar_known_at is not None and chosen.filter(pl.col("bar_known_at") == decision.bar_known_at).is_empty()
    if chosen.is_empty() or replaced:
        raise ReviewRefused(_what_is_there(connection, decision, source, critical["rule"].to_list()))
    own = (pl.col("decision") == decision.decision) & (pl.col("decided_by") == decision.decided_by)
    unchanged, open_ones = chosen.filter(own), chosen.filter(~own.fill_null(value=False))
    decided = open_ones.filter(pl.col("decision").is_not_null())
    if decided.height and not decision.overrule:
        told = "; ".join(_told(row) for row in decided.iter_rows(named=True))
        free = open_ones.filter(pl.col("decision").is_null())["rule"].to_list()
        rest = f" Not decided yet: {', '.join(free)}; name one with --rule." if free else ""
        raise ReviewRefused(f"{decision.bar} is decided already: {told}. To decide all the same: --overrule.{rest}")
    written = open_ones.with_columns(
        decided_at=pl.lit(_after_all_known(connection, source, calendar, as_of), pl.Datetime("us")),
        decision=pl.lit(decision.decision),
        decided_by=pl.lit(decision.decided_by),
        reason=pl.lit(decision.reason),
        recorded_at=pl.lit(recorded_at, pl.Datetime("us")),
    ).select(REVIEWS.column_names)
    append_ledger(connection, REVIEWS, written)
    now = query(connection, on_bar, bar).filter(pl.col("decision").ne_missing(RELEASE))
    return Outcome(decision, written, unchanged, decided, now.select("rule", "decision").unique(maintain_order=True))


def _after_all_known(connection: Connection, source: str, calendar: TradingCalendar, as_of: datetime) -> datetime:
    """The instant, or a microsecond after what is stored as known by then or later: bars, actions, findings, reviews, signals.

    Signals show as of when a run has read the clean bars. Those of another evening, which a run pretended, do not count:
    they would take the desk's clock there.
    """
    stored = newest_known(connection, source, as_of, judged=True)
    instant = stored + timedelta(microseconds=1) if stored else as_of
    next_session = calendar.session_after(calendar.last_known_session(instant))
    scored: datetime | None = scalar(
        connection,
        "select max(known_at) from signals.daily_signals where known_at >= $1 and known_at < coalesce($2, timestamp 'infinity')",
        [instant, calendar.known_at(next_session) if next_session else None],
    )
    return scored + timedelta(microseconds=1) if scored else instant


def _what_is_there(connection: Connection, decision: Decision, source: str, held_by: list[str]) -> str:
    """Why there is nothing to decide about a bar, and what there is instead."""
    versions = query(
        connection,
        "select session, known_at from market_data.daily_bars where source = $source and symbol = $symbol order by known_at",
        {"source": source, "symbol": decision.symbol},
    )
    if versions.is_empty():
        return f"No bar of the symbol {decision.symbol!r} is stored of the source {source}."
    known = versions.filter(pl.col("session") == decision.session)["known_at"].to_list()
    if not known:
        first, last = versions.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
        return f"No bar {decision.bar} is stored; {decision.symbol} has bars from {first} to {last}."
    newest = f"the version known from {known[-1].isoformat()}"
    if decision.bar_known_at is not None and decision.bar_known_at != known[-1]:
        what = "was replaced by" if decision.bar_known_at in known else "does not exist; the newest is"
        held = f"is held by {', '.join(held_by)}" if held_by else "has no critical finding"
        return (
            f"{decision.bar}: the version known from {decision.bar_known_at.isoformat()} {what} {newest}, which {held}. Look at it again."
        )
    if held_by:
        return f"{decision.bar} has no critical finding of the rule {decision.rule!r}; it has {', '.join(held_by)}."
    others = query(
        connection,
        """
        select distinct rule || ' (' || severity || case when bar_known_at = $newest then '' else ', of an older version' end || ')' as finding
        from data_quality.anomalies where source = $source and symbol = $symbol and session = $session order by finding
        """,
        {"source": source, "symbol": decision.symbol, "session": decision.session, "newest": known[-1]},
    )["finding"].to_list()
    return f"{decision.bar} has no critical finding on {newest}; on it there is {', '.join(others) or 'no finding at all'}."


def _told(row: dict[str, object]) -> str:
    """One decision in words: who, when by the wall clock and by the desk's, and why."""
    who = f"{row['rule']} was {_PAST[str(row['decision'])]} by {row['decided_by']}"
    return f"{who} on {row['recorded_at']:%Y-%m-%d %H:%M} UTC (as of {row['decided_at']}): {row['reason']!r}"
