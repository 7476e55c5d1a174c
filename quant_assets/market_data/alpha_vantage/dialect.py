"""What is asked of Alpha Vantage and how: functions and lengths by what the key is entitled to, the address, the judgement of a reply."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import httpx
import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.errors import ConfigurationError
from quant_assets.market_data.alpha_vantage.planning import COMPACT_SESSIONS
from quant_assets.market_data.alpha_vantage.series import NotASeries, Series, read_series
from quant_assets.market_data.fetching.asks import Ask
from quant_assets.market_data.fetching.calls import Call, Result
from quant_assets.market_data.fetching.replies import Redaction, ReplyClass, Verdict, classify

FUNCTIONS = ("TIME_SERIES_DAILY_ADJUSTED", "TIME_SERIES_DAILY")
"""In the order of preference: the first one tells dividends and splits, and is part of paid plans only."""


def address_of(url: str) -> httpx.URL:
    """The address to query; raises `ConfigurationError` for a base that is not http or https."""
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL:
        base = httpx.URL()
    if base.scheme not in {"http", "https"} or not base.host:
        raise ConfigurationError("QUANT_ALPHA_VANTAGE_URL is not an address such as https://www.alphavantage.co.")
    return base.copy_with(path=f"{base.path.rstrip('/').removesuffix('/query')}/query", query=None)


@dataclass(frozen=True)
class AlphaVantageCalls:
    """Alpha Vantage's dialect (`fetching.Dialect`) under one key, which no repr shows."""

    key: str = field(repr=False)
    url: httpx.URL
    calendar: TradingCalendar = field(repr=False)
    redaction: Redaction = field(repr=False)

    def call(self, ask: Ask, refused: frozenset[str]) -> Call | None:
        """The best function that is not refused, with the full history where it is wanted and not refused; None where nothing is left."""
        for function in FUNCTIONS:
            for outputsize in ("full", "compact") if ask.wants_full else ("compact",):
                if not {function, f"{function} {outputsize}"} & refused:
                    return Call(ask.symbol, function, outputsize, ask.datatype, ask.since, ask.target, ask.attempt)
        return None

    def request(self, call: Call) -> httpx.Request:
        """The call as HTTP; the vendor takes its key in the address only."""
        names = {"function": call.function, "symbol": call.symbol, "outputsize": call.outputsize, "datatype": call.datatype}
        return httpx.Request("GET", self.url.copy_merge_params({**names, "apikey": self.key}))

    def redact(self, body: bytes) -> bytes:
        """A body without the key."""
        return self.redaction(body)

    def examine(self, call: Call, requested_at: datetime, status_code: int, content_type: str, body: bytes) -> tuple[Result, Series | None]:
        """Judge a reply; one of data is parsed, and is malformed where nothing of it can be trusted.

        The vendor also sends the row of a session that goes on: what was not known when it was asked for is left out.
        """
        verdict = classify(status_code, content_type, body)
        if verdict.reply_class is not ReplyClass.DATA:
            return Result(verdict), None
        try:
            series = read_series(body, call.symbol, self.calendar).until(self.calendar.last_known_session(requested_at))
        except NotASeries as error:
            return Result(Verdict(ReplyClass.MALFORMED, str(error))), None
        except (pl.exceptions.PolarsError, ValueError, RecursionError) as error:
            # What nobody thought of must not stop the run, and every run after it, at one stored reply.
            return Result(Verdict(ReplyClass.MALFORMED, f"The reply cannot be parsed ({type(error).__name__}).")), None
        rows = series.rows.height + series.rejected.height
        first_row, last_row = (series.rows["session"][at] if series.rows.height else None for at in (0, -1))
        whole = call.outputsize == "full" or rows < COMPACT_SESSIONS
        return Result(verdict, rows=rows, first_row=first_row, last_row=last_row, whole=whole), series
