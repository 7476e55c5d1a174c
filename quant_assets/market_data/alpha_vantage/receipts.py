"""What came of each call, as the fetch ledger keeps it: one receipt per call, in words with the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.market_data.alpha_vantage.planning import Span, missing_history
from quant_assets.market_data.alpha_vantage.series import Series
from quant_assets.market_data.delivery import RECEIPTS
from quant_assets.market_data.fetching.calls import History
from quant_assets.market_data.fetching.dispatcher import Answer


@dataclass(frozen=True)
class Horizon:
    """The sessions in scope, what was held of each symbol before, and what calls for it had come to."""

    first: date
    last: date
    held: Mapping[str, Span]
    histories: Mapping[str, History]


def receipts_of(answers: Sequence[Answer[Series]], horizon: Horizon, calendar: TradingCalendar) -> pl.DataFrame:
    """One row per call (`delivery.RECEIPTS`): landed, partial (rows were rejected), unchanged (no new session), or the reply's class."""
    rows = []
    for answer in answers:
        request = answer.request
        status, detail = _outcome(answer, horizon, calendar)
        rows.append(
            {
                "request_id": request.request_id,
                "symbol": request.call.symbol,
                "requested_at": request.requested_at,
                "status": status,
                "reply_class": answer.reply_class.value,
                "rows": request.result.rows,
                "payload_sha256": request.result.payload_sha256,
                "detail": detail,
            }
        )
    return pl.DataFrame(rows, schema=RECEIPTS)


def _outcome(answer: Answer[Series], horizon: Horizon, calendar: TradingCalendar) -> tuple[str, str]:
    call, result = answer.request.call, answer.request.result
    asked = f"{call.function} {call.outputsize}"
    if answer.series is None:
        again = f", attempt {call.attempt}" if call.attempt > 1 else ""
        return answer.reply_class.value, f"{asked}{again}: {result.verdict.detail}"
    held = horizon.held.get(call.symbol)
    bars = answer.series.bars(horizon.first, horizon.last)["session"]
    rejected = answer.series.rejected_in(horizon.first, horizon.last, "").height
    fresh = bars.len() if held is None else bars.filter(~bars.is_between(*held)).len()
    words = [f"{asked}: {bars.len():,} bars in scope of {result.rows:,} rows, {fresh:,} of new sessions, {rejected:,} rejected."]
    newest = bars.max()
    if isinstance(newest, date) and newest < horizon.last:
        words.append(f"It ends on {newest}, before {horizon.last}: what comes later is in the next reply.")
    if not result.whole and (oldest := result.first_row):
        was_whole = (history := horizon.histories.get(call.symbol)) is not None and history.whole_since is not None
        words.append(missing_history(calendar, horizon.first, oldest, held, was_whole))
    status = "partial" if rejected else "landed" if fresh else "unchanged"
    return status, " ".join(filter(None, words))
