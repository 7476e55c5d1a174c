"""What a desk steers the sentinel by: findings over time, the worst that nobody has looked at, deliveries, decisions.

Everything is read as of an instant: findings, versions of bars and decisions that came later are as if they were not there.
A finding is on its *current* version as long as its bar has no newer one; a decision is about a rule on one version of a
bar, so that it covers what several detectors found by that rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from quant_assets.data_quality.shares import wilson
from quant_assets.warehouse import Connection, query

WINDOW = 250
"""Sessions that counts and steering figures look back."""
DELIVERIES = 20
WORST = 20
REACH = 15

_FINDINGS = """
    with found as (
        from data_quality.anomalies where source = $source and known_at <= $as_of
    ), version as (
        select found.*, min(bar.known_at) filter (bar.known_at > bar_known_at) as superseded_at,
            max(bar.batch_id) filter (bar.known_at = bar_known_at) as batch_id
        from (select distinct symbol, session, source, bar_known_at from found) as found
        left join market_data.daily_bars as bar
            on bar.symbol = found.symbol and bar.session = found.session and bar.source = found.source and bar.known_at <= $as_of
        group by all
    ), beside as (  -- a session without a bar is found by the symbol's bar of another session
        select symbol, known_at as bar_known_at, max(batch_id) as batch_beside from market_data.daily_bars
        where source = $source and (symbol, known_at) in (select (symbol, bar_known_at) from version where batch_id is null)
        group by all
    ), decided as (
        select symbol, session, rule, bar_known_at, min(decided_at) as first_decided_at, max(decided_at) as decided_at,
            arg_max(decision, decided_at) as decision, arg_max(decided_by, decided_at) as decided_by, arg_max(reason, decided_at) as reason
        from data_quality.reviews where source = $source and decided_at <= $as_of group by all
    )
    select found.* exclude recorded_at, coalesce(batch_id, batch_beside) as batch_id, superseded_at,
        first_decided_at, decided_at, decision, decided_by, reason,
        case when decision = 'release' then 'released' when decision = 'confirm' then 'confirmed'
            when superseded_at is not null then 'superseded' else 'open' end as status,
        greatest(found.known_at, coalesce(decided_at, found.known_at), coalesce(superseded_at, found.known_at)) as changed_at
    from found
    join version using (symbol, session, source, bar_known_at)
    left join beside using (symbol, bar_known_at)
    left join decided using (symbol, session, rule, bar_known_at)
"""
_SESSIONS = """
    (select distinct session from (
        select session from market_data.daily_bars where source = $source and known_at <= $as_of union all select session from finding
    ) order by session desc)
"""
_JUDGED = "(select batch_id, arg_max(run_id, landed_at) as run_id from data_quality.judged_batches group by batch_id)"
_WORTH_READING = "severity in ('critical', 'warning')"


@dataclass(frozen=True)
class Steering:
    """What a desk steers by, as of one instant; `None` where nothing was delivered or decided.

    Deliveries are the last 20. Decisions are those made since the first of the last 250 sessions, the latest on each rule and
    version of a bar; a time to resolution runs from the finding to the first decision, in days. Anomalies are findings of
    warning or worse. The interval is Wilson's (1927), at 95 %.
    """

    open_critical: int
    open_warning: int
    deliveries: int
    anomalies_per_delivery: float | None
    anomalies_per_1000_bars: float | None
    decided: int
    released: int
    days_to_resolution_median: float | None
    days_to_resolution_p90: float | None
    false_alarm_share: float | None
    false_alarm_low: float | None
    false_alarm_high: float | None


class Summary:
    """The findings about one source's bars as of an instant, read once over an open connection, and figures of them.

    `findings` is one row per finding: its columns in `data_quality.anomalies`, `source`, the `batch_id` of its bar (null where that is
    unknown), `superseded_at`, the first decision's instant and the latest decision (`first_decided_at`, `decided_at`, `decision`,
    `decided_by`, `reason`), `status` (open, released, confirmed, superseded) and `changed_at`, the last instant at which one
    of these changed.
    """

    def __init__(self, connection: Connection, source: str, as_of: datetime) -> None:
        self._connection = connection
        self.source, self.as_of = source, as_of
        self.findings = query(connection, _FINDINGS, {"source": source, "as_of": as_of})

    def published(self, first: date, last: date, since: datetime, until: datetime) -> pl.DataFrame:
        """Findings of warning or worse that the run of the sessions from `first` to `last` hands over, worst first.

        They are on its sessions, or changed last from `since` to before `until`, or are open, critical and found before `until`.
        With `run_id` of the run that judged the delivery.
        """
        return self._query(
            f"""
            select finding.*, judged.run_id from finding left join {_JUDGED} as judged using (batch_id)
            where {_WORTH_READING} and (
                session between $first and $last
                or changed_at < $until and (changed_at >= $since or (status = 'open' and severity = 'critical')))
            order by score desc, session desc, symbol, rule, detector, bar_known_at
            """,
            first=first,
            last=last,
            since=since,
            until=until,
        )

    def counts(self, sessions: int = WINDOW, until: date = date.max) -> pl.DataFrame:
        """Findings by session, rule and severity over the last sessions with bars up to one, on all versions of a bar (`findings`).

        A session in which nothing was found has one row, its rule and severity null and its findings 0.
        """
        return self._query(
            f"""
            select session, rule, severity, count(finding.symbol) as findings
            from (from {_SESSIONS} where session <= $until limit $sessions) left join finding using (session)
            group by all order by session, rule, severity
            """,
            source=self.source,
            as_of=self.as_of,
            sessions=sessions,
            until=until,
        )

    def worst(self, count: int = WORST) -> pl.DataFrame:
        """The worst open findings of warning or worse on current versions of bars: by score, then newest first.

        Of equal scores each symbol and rule shows its newest before any shows a second, so that one faulty series does not
        fill the table.
        """
        return self._query(
            f"""
            select * from finding where {_WORTH_READING} and status = 'open'
            order by score desc, row_number() over (partition by symbol, rule, score order by session desc, detector),
                session desc, symbol, rule, detector, bar_known_at
            limit $count
            """,
            count=count,
        )

    def around(self, marked: pl.DataFrame, reach: int = REACH) -> pl.DataFrame:
        """Bars around marked ones (`symbol`, `session`): up to `reach` of the symbol's own before and after.

        Columns `symbol`, `marked` (the session in the middle), `session`, `open`, `high`, `low`, `close`; sorted by the first three.
        A marked session without a bar has its neighbours alone.
        """
        places = marked.select("symbol", marked="session").unique()
        margin = timedelta(days=10 * reach)  # of days, so that a series with holes shows what it has near by, and few bars are read
        self._connection.register("places", places)
        found = self._query(
            """
            with bar as (
                select * from market_data.daily_bars as bar
                where source = $source and known_at <= $as_of and session between $first and $last
                    and symbol in (select symbol from places)
                qualify row_number() over (partition by symbol, session order by known_at desc) = 1
            )
            select symbol, marked, session, open, high, low, close from places join bar using (symbol)
            qualify row_number() over (partition by symbol, marked, session > marked order by abs(session - marked))
                <= $reach + cast(session <= marked and max(session = marked) over (partition by symbol, marked) as integer)
            order by symbol, marked, session
            """,
            source=self.source,
            as_of=self.as_of,
            reach=reach,
            first=places.select((pl.col("marked").min() - margin).fill_null(date.min)).item(),
            last=places.select((pl.col("marked").max() + margin).fill_null(date.max)).item(),
        )
        self._connection.unregister("places")
        return found

    def deliveries(self, count: int = DELIVERIES) -> pl.DataFrame:
        """The last deliveries that brought bars, newest first: how many versions of bars, and how many findings on them.

        Columns `batch_id`, `source`, `requested_at` (the first request's wall clock, null where the ledger has none), `known_at`
        (the newest bar's), `first_session`, `last_session`, `bars`, `critical`, `warning`, `info`.
        """
        return self._query(
            """
            with delivered as (
                select batch_id, max(known_at) as known_at, min(session) as first_session, max(session) as last_session, count(*) as bars
                from market_data.daily_bars where source = $source and known_at <= $as_of
                group by all order by known_at desc, last_session desc, batch_id limit $count
            ), requested as (
                select batch_id, min(requested_at) as requested_at from market_data.fetch_ledger where source = $source group by all
            ), found as (
                select batch_id, count(*) filter (severity = 'critical') as critical, count(*) filter (severity = 'warning') as warning,
                    count(*) filter (severity = 'info') as info
                from finding group by all
            )
            select batch_id, $source as source, requested_at, known_at, first_session, last_session, bars,
                coalesce(critical, 0) as critical, coalesce(warning, 0) as warning, coalesce(info, 0) as info
            from delivered left join requested using (batch_id) left join found using (batch_id)
            order by known_at desc, last_session desc, batch_id
            """,
            source=self.source,
            as_of=self.as_of,
            count=count,
        )

    def origins(self, first: date, last: date) -> pl.DataFrame:
        """Where each session's bars came from: `session`, `bars` (symbols), `batch_ids`, `run_id` (the last run that judged one of them)."""
        return self._query(
            f"""
            select session, count(distinct symbol) as bars, list(distinct batch_id order by batch_id) as batch_ids,
                arg_max(judged.run_id, known_at) as run_id
            from market_data.daily_bars as bar left join {_JUDGED} as judged using (batch_id)
            where bar.source = $source and known_at <= $as_of and session between $first and $last
            group by session order by session
            """,
            source=self.source,
            as_of=self.as_of,
            first=first,
            last=last,
        )

    def by_rule(self) -> pl.DataFrame:
        """Each rule over the last 250 sessions: findings by severity, and what was decided about them.

        Columns `rule`, `critical`, `warning`, `info` (findings), `open` (of warning or worse, on current versions), `decided`,
        `released` (rules on versions of bars, by their latest decision), `false_alarm_share` = released / decided with its Wilson
        interval `false_alarm_low`, `false_alarm_high`; these are null where nothing was decided. Most findings first.
        """
        found = self._query(
            f"""
            select rule, count(*) filter (severity = 'critical') as critical, count(*) filter (severity = 'warning') as warning,
                count(*) filter (severity = 'info') as info, count(*) filter (status = 'open' and {_WORTH_READING}) as open,
                count(distinct (symbol, session, bar_known_at)) filter (decision is not null) as decided,
                count(distinct (symbol, session, bar_known_at)) filter (decision = 'release') as released
            from finding semi join (from {_SESSIONS} limit $window) using (session)
            group by rule order by critical desc, warning desc, info desc, rule
            """,
            source=self.source,
            as_of=self.as_of,
            window=WINDOW,
        )
        return found.with_columns(_false_alarms(pl.col("released"), pl.col("decided")))

    def steering(self) -> Steering:
        """The figures a desk steers by."""
        waiting = self.findings.filter(pl.col("status") == "open")["severity"].to_list()
        decided = self._query(
            f"""
            select any_value(decision) as decision, epoch(any_value(first_decided_at) - min(known_at)) / 86400 as days from finding
            where decided_at >= (select min(session) from (from {_SESSIONS} limit $window)) group by symbol, session, rule, bar_known_at
            """,
            source=self.source,
            as_of=self.as_of,
            window=WINDOW,
        )
        delivered = self.deliveries()
        anomalies, bars = delivered.select((pl.col("critical") + pl.col("warning")).sum(), pl.col("bars").sum()).row(0)
        released = decided.select((pl.col("decision") == "release").sum()).item()
        share, low, high = pl.select(_false_alarms(pl.lit(released), pl.lit(decided.height))).row(0)
        return Steering(
            open_critical=waiting.count("critical"),
            open_warning=waiting.count("warning"),
            deliveries=delivered.height,
            anomalies_per_delivery=anomalies / delivered.height if delivered.height else None,
            anomalies_per_1000_bars=1000 * anomalies / bars if bars else None,
            decided=decided.height,
            released=released,
            days_to_resolution_median=decided.select(pl.col("days").median()).item(),
            days_to_resolution_p90=decided.select(pl.col("days").quantile(0.9, "linear")).item(),
            false_alarm_share=share,
            false_alarm_low=low,
            false_alarm_high=high,
        )

    def changed_at(self) -> datetime | None:
        """The last instant at which anything that these figures tell of became known; None before the first bar."""
        bars = "select max(known_at) as instant from market_data.daily_bars where source = $source and known_at <= $as_of"
        known: datetime | None = self._query(bars, source=self.source, as_of=self.as_of).item()
        changed = self.findings.select(pl.col("changed_at").max()).item()
        return max((instant for instant in (known, changed) if instant is not None), default=None)

    def _query(self, sql: str, **parameters: object) -> pl.DataFrame:
        """One query on the warehouse's tables and on these findings, `finding`."""
        self._connection.register("finding", self.findings)
        try:
            return query(self._connection, sql, parameters)
        finally:
            self._connection.unregister("finding")


def _false_alarms(released: pl.Expr, decided: pl.Expr) -> list[pl.Expr]:
    share, low, high = wilson(released, decided)
    return [share.alias("false_alarm_share"), low.alias("false_alarm_low"), high.alias("false_alarm_high")]
