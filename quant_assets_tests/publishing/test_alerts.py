"""Alerts: what a person reads, what a program reads, and one id per finding."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quant_assets.publishing.alerts import Alert, alert_id, check_alert, run_failure_alert

AT = datetime(2018, 2, 7, 21, 45)


def high_below_low(**changes: Any) -> Alert:
    facts: dict[str, Any] = {
        "run_id": "r1",
        "asset": "market_data/daily_bars",
        "check": "price_order",
        "severity": "critical",
        "description": "2 bars have a high below their low.",
        "numbers": {"rows": 2, "share": 0.004},
        "session": date(2018, 2, 7),
        "remedy": "Review them with `quant-assets quarantine list`.",
        "at": AT,
    }
    return check_alert(**{**facts, **changes})


class TestRegression:
    def test_failed_check(self) -> None:
        assert high_below_low() == {
            "alert_id": "a9cae6df4fd184ec1747a6215b694209",
            "kind": "check_failed",
            "severity": "critical",
            "title": "Check failed: market_data/daily_bars, price_order",
            "text": "*Check failed: market_data/daily_bars, price_order* (critical)\n"
            "2 bars have a high below their low.\n"
            "session: 2018-02-07, rows: 2, share: 0.004\n"
            "What to do: Review them with `quant-assets quarantine list`.\n"
            "Run r1",
            "asset": "market_data/daily_bars",
            "check": "price_order",
            "run_id": "r1",
            "session": "2018-02-07",
            "numbers": {"rows": 2, "share": 0.004},
            "remedy": "Review them with `quant-assets quarantine list`.",
            "at": "2018-02-07T21:45:00.000000Z",
        }

    def test_failed_run(self) -> None:
        alert = run_failure_alert(run_id="r1", job="nightly", error="No space left on device", at=AT, asset="signals/daily_signals")
        assert (alert["kind"], alert["severity"], alert["check"]) == ("run_failed", "critical", None)
        assert alert["text"].startswith(
            "*Run failed: nightly at signals/daily_signals* (critical)\nNo space left on device\nWhat to do: Mend"
        )
        assert alert["alert_id"] != high_below_low()["alert_id"]

    def test_slack_sees_text_and_programs_see_values(self) -> None:
        alert = high_below_low(description="<!channel> A&B", numbers={"worst <symbol>": "A\n*Run r2*", "infinite": float("inf")})
        assert "&lt;!channel&gt; A&amp;B\nsession: 2018-02-07, worst &lt;symbol&gt;: A *Run r2*, infinite: inf\n" in alert["text"]
        assert alert["numbers"] == {"worst <symbol>": "A\n*Run r2*", "infinite": "inf"}

    def test_long_message_is_cut(self) -> None:
        text = run_failure_alert(run_id="r1", job="nightly", error="x" * 100_000, at=AT)["text"]
        assert "x" * 2999 + "…\n" in text
        assert len(text) < 3200


class TestProperties:
    @given(st.text(), st.text(), st.text(), st.floats() | st.integers() | st.text() | st.none())
    def test_any_text_is_data(self, asset: str, description: str, remedy: str, number: float | int | str | None) -> None:
        alert = high_below_low(asset=asset, description=description, remedy=remedy, numbers={asset: number})
        json.dumps(alert, allow_nan=False)
        bare = alert["text"].replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
        assert not set(bare) & set("&<>")
        assert len(alert["text"].splitlines()) <= 5

    @given(st.lists(st.tuples(*[st.text() | st.none()] * 2, st.text()), unique=True, min_size=2))
    def test_one_id_per_finding(self, findings: list[tuple[str | None, str | None, str]]) -> None:
        assert len({alert_id(run_id, asset, check) for asset, check, run_id in findings}) == len(findings)

    @given(st.text(), st.datetimes())
    def test_id_depends_on_neither_words_nor_time(self, description: str, at: datetime) -> None:
        assert high_below_low(description=description, at=at, numbers={})["alert_id"] == high_below_low()["alert_id"]
