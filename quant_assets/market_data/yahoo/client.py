"""The door to Yahoo: one request for one symbol's daily chart, and every refusal by its name.

yfinance knows how to get through to Yahoo (a browser's handshake, cookie, crumb, consent), which is what changes every
few months: that part is used. Its readers log what went wrong instead of handing it over, drop the currency of a
dividend and move an event of a day without trade; so the reply is taken as received and read in `yahoo_chart`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt, wait_exponential, wait_random

from quant_assets.clock import utc_now
from quant_assets.market_data.fetching.replies import ReplyClass

CHART_URL = "https://query2.finance.yahoo.com/v8/finance/chart/"
TOO_MANY_REQUESTS = 429


HEALS = {ReplyClass.BURST_LIMIT, ReplyClass.AUTH, ReplyClass.UNAVAILABLE}
"""Refusals that pass without anybody changing the symbol: what was asked for is still owed."""

REMEDIES = {
    ReplyClass.BURST_LIMIT: "Yahoo limits calls by address; the next run continues here, later or with a lower QUANT_VENDOR_CONCURRENCY",
    ReplyClass.AUTH: "Yahoo refuses the library's cookie; renew it: pip install --upgrade 'quant-assets[yahoo]'",
    ReplyClass.UNKNOWN_SYMBOL: "check how Yahoo spells it (BRK-B, VOD.L, ^GSPC) and QUANT_UNIVERSE; it may have been delisted or renamed",
    ReplyClass.INVALID_REQUEST: "Yahoo has nothing in the asked span, or does not know such a symbol; check QUANT_UNIVERSE and QUANT_START",
    ReplyClass.UNAVAILABLE: "Yahoo did not answer; the next run asks again",
    ReplyClass.MALFORMED: "the reply cannot be read and nothing of it was stored; renew the library: pip install --upgrade 'quant-assets[yahoo]'",
}


@dataclass(frozen=True)
class Reply:
    """One answer of Yahoo: its class, what was said in words (empty for data), status and body as received, and when it was asked.

    Where none came, status is 0 and the body empty.
    """

    reply_class: ReplyClass
    words: str
    status_code: int
    body: bytes
    requested_at: datetime


class YahooClient:
    """Asks Yahoo over yfinance's connection; nothing here raises for what Yahoo answers, or when it does not.

    `cache` is the folder in which the library keeps its cookie. A `session` (of `curl_cffi`) is the transport, where
    another than the library's own shall be used. Time-outs, broken connections and 5xx are tried again with back-off
    and jitter, up to `attempts`; a limit is not, for asking on prolongs it.
    """

    def __init__(
        self,
        cache: Path,
        timeout_seconds: float = 30.0,
        attempts: int = 4,
        *,
        session: object | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import yfinance
        from yfinance.data import YfData

        yfinance.set_tz_cache_location(str(cache))
        self._connection: Any = YfData(session=session)
        self._timeout = timeout_seconds
        self._retrying = Retrying(
            sleep=sleep,
            stop=stop_after_attempt(attempts),
            wait=wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5),
            retry=retry_if_result(lambda reply: reply.reply_class is ReplyClass.UNAVAILABLE),
            retry_error_callback=_last_reply,
        )

    def chart(self, ticker: str, first: date, until: datetime) -> Reply:
        """Ask for a symbol's daily chart with splits and dividends, from a date to an instant (naive UTC)."""
        start = datetime(first.year, first.month, first.day, tzinfo=UTC) - timedelta(days=1)  # whatever the exchange's offset is
        params = {
            "period1": int(start.timestamp()),
            "period2": int(until.replace(tzinfo=UTC).timestamp()),
            "interval": "1d",
            "includePrePost": "false",
            "events": "div,splits",
        }
        reply: Reply = self._retrying(self._ask, CHART_URL + quote(ticker, safe=""), params)
        return reply

    def _ask(self, url: str, params: dict[str, object]) -> Reply:
        from yfinance.exceptions import YFRateLimitError

        asked = utc_now()
        try:
            response = self._connection.get(url=url, params=params, timeout=self._timeout)
            body = bytes(response.content)
        except YFRateLimitError as error:
            return Reply(ReplyClass.BURST_LIMIT, str(error), 0, b"", asked)
        except OSError as error:  # curl_cffi's errors are all of this kind
            return Reply(ReplyClass.UNAVAILABLE, f"{type(error).__name__}: {error}", 0, b"", asked)
        except Exception as error:  # whatever the library trips over is one symbol's failed request, never the night's
            return Reply(ReplyClass.MALFORMED, f"{type(error).__name__}: {error}", 0, b"", asked)
        status = int(response.status_code)
        return Reply(*classify(status, body), status, body, asked)


def classify(status: int, body: bytes) -> tuple[ReplyClass, str]:
    """Tell what a reply is from its status and body, and what it says in words (empty for data)."""
    text = body.decode("utf-8", errors="replace")
    try:
        chart = json.loads(text)["chart"]
        error, result = chart.get("error"), chart.get("result")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        error, result = None, None
    code, description = (error.get("code"), error.get("description")) if isinstance(error, dict) else (None, None)
    said = f"{status}: {description or code or ' '.join(text.split())[:200] or 'an empty body'}"
    if status == TOO_MANY_REQUESTS or text.strip() == "Too Many Requests":
        return ReplyClass.BURST_LIMIT, said
    if status in (401, 403):
        return ReplyClass.AUTH, said
    if status >= 500 or "Will be right back" in text:
        return ReplyClass.UNAVAILABLE, said
    if code == "Not Found":
        return ReplyClass.UNKNOWN_SYMBOL, said
    if error:
        return ReplyClass.INVALID_REQUEST, said
    if status < 400 and isinstance(result, list) and result:
        return ReplyClass.DATA, ""
    return ReplyClass.MALFORMED, said


def _last_reply(state: RetryCallState) -> Any:
    return state.outcome.result() if state.outcome else None
