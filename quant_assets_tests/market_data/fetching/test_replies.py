"""Every text of the vendor is told apart before it is parsed, and the key is nowhere in what is kept."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.market_data.fetching.replies import Redaction, ReplyClass, classify
from quant_assets_tests.market_data.vendor import NOTICES, as_csv, as_json, rows_of

MESSAGES = Path(__file__).parents[4] / "shared/data/alpha_vantage/messages.json"
INVALID = (
    "Invalid API call. Please retry or visit the documentation (https://www.alphavantage.co/documentation/) for TIME_SERIES_DAILY_ADJUSTED."
)
OLD_NOTE = "Thank you for using Alpha Vantage! Our standard API call frequency is 5 calls per minute and 500 calls per day. Please visit https://www.alphavantage.co/premium/ if you would like to target a higher API call frequency."
ECHO = "We have detected your API key as [KEY] and our standard API rate limit is 25 requests per day. Please subscribe to any of the premium plans at https://www.alphavantage.co/premium/ to instantly remove all daily rate limits."
DEMO = "The **demo** API key is for demo purposes only. Please claim your free API key at (https://www.alphavantage.co/support/#api-key) to explore our full API offerings. It takes fewer than 20 seconds."
SERIES = rows_of("IBM", [date(2020, 1, day) for day in (2, 3)])
QUOTED = {  # ids of the collected texts
    "note_5pm_500pd": "burst_limit", "info_25pd": "daily_quota", "info_25pd_echoes_key": "daily_quota", "info_1rps": "burst_limit",
    "info_premium_endpoint": "entitlement", "info_outputsize_full": "entitlement", "err_invalid_call": "invalid_request",
    "err_apikey": "auth", "err_function": "invalid_request", "info_demo": "auth", "empty_quote": "unknown_symbol",
    "empty_object": "unknown_symbol", "csv_request_json_error": "invalid_request",
}  # fmt: skip


def told(body: str, status: int = 200, content_type: str = "application/json") -> str:
    return classify(status, content_type, body.encode()).reply_class.value


class TestRegression:
    @pytest.mark.parametrize(
        ("key", "text", "expected"),
        [
            *(("Information", text, "entitlement" if name == "no_full" else name) for name, text in NOTICES.items()),
            ("Note", OLD_NOTE, "burst_limit"),
            ("Information", ECHO, "daily_quota"),
            ("Information", DEMO, "auth"),
            ("Error Message", INVALID, "invalid_request"),
            ("Error Message", "This API function (XYZ) does not exist.", "invalid_request"),
            ("Error Message", NOTICES["auth"].replace("than 20 seconds.", "than 20 seconds, and is free permanently."), "auth"),
            ("Information", "Our servers are being moved; come back in spring.", "malformed"),
        ],
    )
    @pytest.mark.parametrize("content_type", ["application/json", "application/x-download", ""])
    def test_sentences(self, key: str, text: str, expected: str, content_type: str) -> None:
        assert told(json.dumps({key: text}, indent=4), content_type=content_type) == expected
        assert told(f"  {json.dumps({key: text.upper()})}\n", content_type=content_type) == expected

    @pytest.mark.skipif(not MESSAGES.exists(), reason="the collected texts are not here")
    def test_the_texts_that_users_quote(self) -> None:
        found = {}
        for message in json.loads(MESSAGES.read_text())["alpha_vantage"]:
            found[message["id"]] = told(message.get("body_text") or json.dumps(message["body"]))
        assert found == QUOTED

    @pytest.mark.parametrize(
        ("body", "status", "expected"),
        [
            ("Too Many Requests", 429, "burst_limit"),
            (as_json("IBM", SERIES), 429, "burst_limit"),
            ("oops", 500, "unavailable"),
            ("<html>Bad gateway</html>", 502, "unavailable"),
            ("<!DOCTYPE html><html><body>Please log in to the network</body></html>", 200, "malformed"),
            ("<html>Not found</html>", 404, "malformed"),
            ("nothing here", 404, "malformed"),
            ("{}", 404, "malformed"),
            ("", 302, "malformed"),
            ("denied", 403, "auth"),
            (json.dumps({"Error Message": INVALID}), 400, "invalid_request"),
            ("", 200, "malformed"),
            ("Exceeded the daily hits limit", 200, "malformed"),
            ("{}", 200, "unknown_symbol"),
            ('{"Global Quote": {}}', 200, "unknown_symbol"),
            ('{"Meta Data": {"2. Symbol": "X"}, "Time Series (Daily)": {}}', 200, "unknown_symbol"),
            ("timestamp,open,high,low,close,volume\r\n", 200, "unknown_symbol"),
            ("[]", 200, "malformed"),
            ('"text"', 200, "malformed"),
            ('{"Time Series (1min)": {"2020-01-02 10:00:00": {}}}', 200, "malformed"),
            ('{"Time Series (Daily)": "none"}', 200, "malformed"),
            (as_json("IBM", SERIES)[:-40], 200, "malformed"),
            (as_json("IBM", SERIES), 200, "data"),
            ("\ufeff" + as_json("IBM", SERIES), 200, "data"),
            (as_csv(SERIES), 200, "data"),
        ],
    )
    def test_forms(self, body: str, status: int, expected: str) -> None:
        assert told(body, status) == expected

    def test_not_utf_8(self) -> None:
        assert classify(200, "", b"\xff\xfe\x00").reply_class is ReplyClass.MALFORMED

    def test_every_class_says_what_to_do_and_whether_it_heals(self) -> None:
        assert {one for one in ReplyClass if not one.remedy} == {ReplyClass.DATA}
        assert {one for one in ReplyClass if one.can_heal} == {ReplyClass.BURST_LIMIT, ReplyClass.UNAVAILABLE, ReplyClass.MALFORMED}
        unknown = classify(200, "", json.dumps({"Error Message": INVALID}).encode())
        assert "QUANT_UNIVERSE" in unknown.detail  # an unknown symbol and a wrong call sound alike: both remedies
        assert "QUANT_ALPHA_VANTAGE_URL" in unknown.detail

    def test_a_long_page_is_quoted_in_short(self) -> None:
        assert len(classify(200, "text/html", b"<html>" + b"x" * 10_000).said) < 400

    def test_a_short_key_is_no_part_of_a_number(self) -> None:
        assert Redaction("123")(b'{"1. open": "1234.5", "key": "123"}') == b'{"1. open": "1234.5", "key": "[KEY]"}'
        assert Redaction("demo")(b"The **demo** API key, apikey=demo&x") == b"The **[KEY]** API key, apikey=[KEY]&x"


class TestProperties:
    @given(key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=24), around=st.text(max_size=20))
    def test_the_key_is_found_as_it_is_and_as_it_is_written_elsewhere(self, key: str, around: str) -> None:
        redact = Redaction(key)
        forms = (key, quote(key), quote(key, safe=""), quote_plus(key), key.lower(), quote(key, safe="").lower())
        for form in forms:
            kept = redact(f"{around}{form}{around}".encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
            assert form not in kept.replace("[KEY]", "") or form in around
        echoed = redact(json.dumps({"Information": f"We have detected your API key as {key} and"}).encode())
        assert key not in json.loads(echoed)["Information"].replace("[KEY]", "")

    @given(body=st.binary(max_size=200), status=st.integers(200, 599))
    def test_any_bytes_have_a_class(self, body: bytes, status: int) -> None:
        verdict = classify(status, "", body)
        assert verdict.reply_class is not ReplyClass.DATA or status == 200
        assert verdict.detail or verdict.reply_class is ReplyClass.DATA
