"""What a vendor's reply is, told before it is parsed, and what to do about each kind.

Alpha Vantage says almost everything with HTTP 200: quotas, refusals and unknown symbols come as a sentence in JSON, also
where CSV was asked for. The texts were collected from what users quote; the order of the rules matters, since the text
about one request per second mentions the daily limit and premium endpoints too.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote, quote_plus

from quant_assets.errors import QuantAssetsError

QUOTED_CHARACTERS = 300
LONG_KEY = 8
_NOTICES = ("Information", "Note", "Error Message")


class KeyRefused(QuantAssetsError):
    """A vendor does not accept our key; the text names the setting, never its value."""


class ReplyClass(StrEnum):
    """The one enumeration of what came of a request."""

    DATA = "data"
    DAILY_QUOTA = "daily_quota"
    BURST_LIMIT = "burst_limit"
    ENTITLEMENT = "entitlement"
    AUTH = "auth"
    UNKNOWN_SYMBOL = "unknown_symbol"
    INVALID_REQUEST = "invalid_request"
    MALFORMED = "malformed"
    UNAVAILABLE = "unavailable"  # no reply at all: 5xx, a time-out, a connection lost

    @property
    def can_heal(self) -> bool:
        """Whether the same request may be answered well some seconds later."""
        return self in {ReplyClass.BURST_LIMIT, ReplyClass.UNAVAILABLE, ReplyClass.MALFORMED}

    @property
    def remedy(self) -> str:
        """What to do, in one sentence; empty for data."""
        return _REMEDIES[self]


_REMEDIES = {
    ReplyClass.DATA: "",
    ReplyClass.DAILY_QUOTA: "The day's calls are spent: the next run after midnight in New York goes on there; a larger plan allows more (QUANT_ALPHA_VANTAGE_CALLS_PER_DAY).",
    ReplyClass.BURST_LIMIT: "Too many calls at a time: it is tried again; if it lasts, lower QUANT_ALPHA_VANTAGE_CALLS_PER_SECOND or _PER_MINUTE to what the key allows.",
    ReplyClass.ENTITLEMENT: "The key's plan does not include this: what it does include is asked for instead, and this again after 30 days; a larger plan includes it.",
    ReplyClass.AUTH: "The key is not accepted: set QUANT_ALPHA_VANTAGE_API_KEY to a valid one (the key `demo` is none).",
    ReplyClass.UNKNOWN_SYMBOL: "The vendor has nothing under this symbol: correct or remove it in QUANT_UNIVERSE; it is asked again after 7 days.",
    ReplyClass.INVALID_REQUEST: "The vendor says so of an unknown symbol as well as of a wrong call: correct or remove the symbol in QUANT_UNIVERSE (it is asked again after 7 days), and if all symbols have it, check QUANT_ALPHA_VANTAGE_URL.",
    ReplyClass.MALFORMED: "The reply is none that can be trusted, and nothing of it landed: it is asked again as JSON; if it lasts, check QUANT_ALPHA_VANTAGE_URL and any proxy between.",
    ReplyClass.UNAVAILABLE: "The vendor did not answer: it is tried again, now and in the next run; if it lasts, check the network, QUANT_ALPHA_VANTAGE_URL and QUANT_VENDOR_TIMEOUT_SECONDS.",
}  # fmt: skip

_RULES: tuple[tuple[str, ReplyClass], ...] = (
    (r"per[- ](second|minute)|sparingly|call frequency", ReplyClass.BURST_LIMIT),
    (r"(requests?|calls?) per day|daily (rate )?limit", ReplyClass.DAILY_QUOTA),
    (r"api ?key is (invalid|missing)|demo\W* api key|(invalid|missing) api ?key|claim your free api key", ReplyClass.AUTH),
    (r"premium", ReplyClass.ENTITLEMENT),
    (r"invalid api call|does not exist", ReplyClass.INVALID_REQUEST),
)
"""What a sentence of the vendor says, the first rule that fits; one that no rule knows is malformed."""


@dataclass(frozen=True)
class Verdict:
    """A reply's class, and what it said or why it is none, in words without a remedy."""

    reply_class: ReplyClass
    said: str = ""

    @property
    def detail(self) -> str:
        """What was said, and the remedy."""
        return " ".join(part for part in (self.said, self.reply_class.remedy) if part)

    @property
    def function_is_unknown(self) -> bool:
        """Whether the vendor does not know the function that was called: true of every symbol then."""
        return self.reply_class is ReplyClass.INVALID_REQUEST and "does not exist" in self.said

    @property
    def concerns_outputsize(self) -> bool:
        """Whether it is the length of the history that a plan does not include, and not the function."""
        return self.reply_class is ReplyClass.ENTITLEMENT and "outputsize" in self.said


def classify(status_code: int, content_type: str, body: bytes) -> Verdict:
    """Tell what a reply is before anything is parsed out of it; looks at its form only, not at the single rows.

    Only what has the form of a daily series is `data`; anything unknown is `malformed`. `content_type` may be empty.
    """
    if status_code == 429:
        return Verdict(ReplyClass.BURST_LIMIT, "HTTP 429.")
    if status_code >= 500 or status_code == 408:
        return Verdict(ReplyClass.UNAVAILABLE, f"HTTP {status_code}.")
    try:
        text = body.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        return Verdict(ReplyClass.MALFORMED, f"The reply is no text in UTF-8 (byte {error.start}).")
    if text.startswith("<") or "html" in content_type.lower():
        return Verdict(ReplyClass.MALFORMED, f"HTTP {status_code} with a page of HTML: {_quoted(text)}")
    verdict = _json(text) if text[:1] in {"{", "["} else _csv(text)
    if verdict.reply_class not in {ReplyClass.DATA, ReplyClass.MALFORMED, ReplyClass.UNKNOWN_SYMBOL} or status_code == 200:
        return verdict
    if status_code in {401, 403}:
        return Verdict(ReplyClass.AUTH, f"HTTP {status_code}: {_quoted(text)}")
    return Verdict(ReplyClass.MALFORMED, f"HTTP {status_code}: {_quoted(text)}")


def _json(text: str) -> Verdict:
    try:
        reply: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos:,} of {len(text):,}" if isinstance(error, json.JSONDecodeError) else ""
        return Verdict(ReplyClass.MALFORMED, f"The JSON is cut off or broken{where}.")
    if not isinstance(reply, dict):
        return Verdict(ReplyClass.MALFORMED, f"The JSON is no object: {_quoted(text)}")
    series = reply.get("Time Series (Daily)")
    if isinstance(series, dict) and series:
        return Verdict(ReplyClass.DATA)
    notices = [str(reply[name]) for name in _NOTICES if reply.get(name)]
    if notices:
        return _notice(" ".join(notices))
    if all(content in ({}, [], None) for name, content in reply.items() if name != "Meta Data"):
        return Verdict(ReplyClass.UNKNOWN_SYMBOL, f"The reply is empty: {_quoted(text)}")
    return Verdict(ReplyClass.MALFORMED, f"No daily series is in the reply, but {', '.join(map(repr, list(reply)[:5]))}.")


def _csv(text: str) -> Verdict:
    header, _, rows = text.partition("\n")
    names = {re.sub(r"[\W_]", "", name.lower()) for name in header.split(",")}
    if not {"timestamp", "open", "high", "low", "close"} <= names:
        return _notice(text) if text else Verdict(ReplyClass.MALFORMED, "The reply is empty.")
    return Verdict(ReplyClass.DATA) if rows.strip() else Verdict(ReplyClass.UNKNOWN_SYMBOL, "The reply has a header and no row.")


def _notice(text: str) -> Verdict:
    plain = " ".join(text.lower().split())
    found = next((reply_class for pattern, reply_class in _RULES if re.search(pattern, plain)), ReplyClass.MALFORMED)
    return Verdict(found, f'The vendor said "{_quoted(text)}"')


def _quoted(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= QUOTED_CHARACTERS else f"{plain[:QUOTED_CHARACTERS]}…"


class Redaction:
    """Puts [KEY] where a vendor echoes the caller's key, as it is or as URLs, JSON and HTML write it, in any case.

    A short key, which may be part of a word or number of the data, is replaced where it stands alone.
    """

    def __init__(self, key: str) -> None:
        forms = {key, quote(key), quote(key, safe=""), quote_plus(key), json.dumps(key)[1:-1], html.escape(key)}
        forms |= {form.replace("/", "\\/") for form in forms}
        either = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        pattern = either if len(key) >= LONG_KEY else rf"(?<![A-Za-z0-9])(?:{either})(?![A-Za-z0-9])"
        self._pattern = re.compile(pattern.encode(), re.IGNORECASE)

    def __call__(self, body: bytes) -> bytes:
        """The body without the key."""
        return self._pattern.sub(b"[KEY]", body)
