"""What a training set may not be asked for: each refusal names the offender, the numbers and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from difflib import get_close_matches

from quant_assets.clock import TradingCalendar
from quant_assets.errors import FeaturesUnavailable
from quant_assets.schemas import LABELS
from quant_assets.warehouse import Connection, query, scalar


def refuse_malformed(universe: object, sessions: object, horizon: object, as_of: object) -> None:
    """Raise for arguments that are not what they should be, whatever the data."""
    if not isinstance(as_of, datetime):
        raise FeaturesUnavailable(f"as_of is {as_of!r}; give an instant (a datetime in UTC), such as the calendar's known_at of a session.")
    if as_of.tzinfo is not None:
        utc = as_of.astimezone(UTC).replace(tzinfo=None)
        raise FeaturesUnavailable(f"The instant {as_of} carries an offset; instants are in UTC and carry none: give {utc}.")
    if not isinstance(sessions, tuple | list) or len(sessions) != 2 or any(type(day) is not date for day in sessions):
        raise FeaturesUnavailable(f"sessions are {sessions!r}; give two dates, the first and the last session.")
    if sessions[0] > sessions[1]:
        raise FeaturesUnavailable(f"The first session {sessions[0]} lies after the last one {sessions[1]}; give them in order.")
    if not isinstance(horizon, int) or isinstance(horizon, bool):
        raise FeaturesUnavailable(f"A horizon of {horizon!r} is no number of sessions; give a whole one.")
    if horizon < 1:
        raise FeaturesUnavailable(f"A horizon of {horizon} sessions looks at nothing; give at least 1.")
    if isinstance(universe, str) or (universe is not None and not all(isinstance(symbol, str) for symbol in universe)):  # type: ignore[attr-defined]
        raise FeaturesUnavailable(f"The universe is {universe!r}; give a list of symbols, or None for those in scope.")


def refuse_unanswerable(
    connection: Connection,
    source: str,
    calendar: TradingCalendar,
    universe: Sequence[str] | None,
    sessions: tuple[date, date],
    horizon: int,
    as_of: datetime,
) -> date:
    """Raise for arguments that no data could answer; returns the newest session known at the instant."""
    oldest, newest, count = query(
        connection,
        "select min(session), max(session), count(distinct session) from market_data.daily_bars where source = $source and known_at <= $as_of",
        {"source": source, "as_of": as_of},
    ).row(0)
    if not count:
        known = scalar(connection, "select min(known_at) from market_data.daily_bars where source = ?", [source])
        there_is = f"the first bar of {source} was known at {known} UTC" if known else f"no bar of {source} is stored at all"
        raise FeaturesUnavailable(f"Nothing was known as of {as_of} UTC: {there_is}. Give a later as_of, or load history first.")
    if horizon >= count:
        raise FeaturesUnavailable(
            f"A horizon of {horizon} sessions is longer than the history known as of {as_of} UTC: {count} sessions from {oldest} to {newest}. "
            "Give a shorter horizon or load more history."
        )
    if sessions[1] < oldest or sessions[0] > newest:
        raise FeaturesUnavailable(
            f"No bar lies in {sessions[0]} to {sessions[1]}: {source} was known from {oldest} to {newest} as of {as_of} UTC. Give sessions within."
        )
    traded = (
        query(connection, "select distinct session from data_quality.clean_bars_as_of($as_of)", {"as_of": as_of})["session"]
        .sort()
        .to_list()
    )
    _refuse_other_calendar(calendar, source, traded)
    if universe is not None:
        known_symbols = [
            name for (name,) in connection.execute(
                "select distinct symbol from market_data.daily_bars where source = ? and known_at <= ?", [source, as_of]
            ).fetchall()
        ]  # fmt: skip
        if not universe:
            raise FeaturesUnavailable("The universe is empty; name symbols, or give None for those in scope.")
        if unknown := sorted(set(universe) - set(known_symbols)):
            near = get_close_matches(unknown[0], known_symbols, cutoff=0.5) or sorted(known_symbols)[:3]
            raise FeaturesUnavailable(
                f"{len(unknown)} of {len(set(universe))} symbols have no bars known as of {as_of} UTC: {', '.join(unknown[:5])}. "
                f"There are {len(known_symbols)} symbols, such as {', '.join(near)}."
            )
    return newest  # type: ignore[no-any-return]


def refuse_other_definitions(connection: Connection, definitions: dict[str, str], calendar: TradingCalendar) -> None:
    """Raise where a stored table was built with another definition than the code's; one that was never built says nothing."""
    built = dict(connection.execute("select view, arg_max(definition_hash, rowid) from feature_store.view_builds group by view").fetchall())
    for name, definition in definitions.items():
        if built.get(name, definition) != definition:
            what = f" (calendar {calendar.name})" if name == LABELS.name else ""
            raise FeaturesUnavailable(
                f"feature_store.{name} was built with definition {built[name][:12]}, the code now defines {definition[:12]}{what}: "
                "run the nightly job to build it anew, or use the calendar and settings that it was built with."
            )


def _refuse_other_calendar(calendar: TradingCalendar, source: str, traded: list[date]) -> None:
    """Raise where more than 1 % of the sessions with bars are none of the calendar's, or a tenth of the calendar's has no bar of any symbol."""
    if not traded:
        return
    known = set(traded)
    own = calendar.between(traded[0], traded[-1])
    foreign, empty = [day for day in traded if not calendar.is_session(day)], [day for day in own if day not in known]
    if len(foreign) > len(traded) / 100:
        what, days = f"{len(foreign)} of {len(traded)} sessions with bars are none of its sessions", foreign
    elif len(empty) > len(own) / 10:
        what, days = f"{len(empty)} of its {len(own)} sessions have no bar of any symbol", empty
    else:
        return
    raise FeaturesUnavailable(
        f"The calendar {calendar.name} does not match the bars of {source}: {what}, such as {', '.join(map(str, days[:3]))}. "
        "Set QUANT_CALENDAR to the exchange's calendar and QUANT_START no later than the first bar."
    )
