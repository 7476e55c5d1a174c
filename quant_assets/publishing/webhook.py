"""One POST per alert, signed and tried again; the address is a secret beyond its host.

WebhookError is raised when all attempts failed: the caller keeps the alert and comes back later. The receiver checks
`X-Quant-Signature: sha256=HMAC-SHA256(secret, timestamp + "." + body)`, refuses old `X-Quant-Timestamp`s, and drops an
`X-Quant-Alert-Id` that it has seen: delivery is at least once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from quant_assets.errors import ConfigurationError, QuantAssetsError
from quant_assets.secret_addresses import hide_addresses

TOO_MANY_REQUESTS = 429
REMEDIES = {
    301: "redirects are not followed; set QUANT_WEBHOOK_URL to the final address",
    401: "check QUANT_WEBHOOK_SECRET",
    403: "check QUANT_WEBHOOK_SECRET",
    404: "check QUANT_WEBHOOK_URL",
    410: "the receiver was removed; set QUANT_WEBHOOK_URL to a new one",
}


class WebhookError(QuantAssetsError):
    """An alert was not accepted; the text names the receiver's host only."""


class _Transient(WebhookError):
    """Worth another attempt."""


hide_addresses()  # services like Slack keep their secret in the path


class Webhook:
    """A receiver of alerts; use it as a context manager, or `close` it. Without a secret nothing is signed.

    Raises `ConfigurationError` for an address that is not http or https.
    """

    def __init__(
        self,
        url: str,
        secret: str = "",
        timeout_seconds: float = 5.0,
        *,
        attempts: int = 5,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL:
            self._url = httpx.URL()
        if self._url.scheme not in {"http", "https"} or not self._url.host:
            raise ConfigurationError("QUANT_WEBHOOK_URL is not an address such as https://host/path; unset it to send no alerts.")
        self._secret = secret.encode()
        self._sleep = sleep
        self._clock = clock
        self._attempts = attempts
        self._client = httpx.Client(transport=transport, timeout=timeout_seconds, follow_redirects=False)

    def __enter__(self) -> Webhook:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def describe(self) -> str:
        """The receiver as a person may see it: its host."""
        return self._url.host

    def post(self, alert: Mapping[str, Any]) -> None:
        """Deliver one alert; returns once the receiver answered 2xx.

        Time-outs, broken connections, 429 and 5xx are tried again, with exponential back-off and jitter (about 0.5, 1, 2,
        4 seconds); every other answer is final. Raises `WebhookError` in the end.
        """
        body = json.dumps(alert, allow_nan=False).encode()
        retrying = Retrying(
            sleep=self._sleep,
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5),
            retry=retry_if_exception_type(_Transient),
            reraise=True,
        )
        retrying(self._post_once, body, str(alert["alert_id"]))

    def _post_once(self, body: bytes, alert_id: str) -> None:
        timestamp = str(int(self._clock()))
        headers = {"Content-Type": "application/json", "X-Quant-Alert-Id": alert_id, "X-Quant-Timestamp": timestamp}
        if self._secret:
            signature = hmac.new(self._secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
            headers["X-Quant-Signature"] = f"sha256={signature}"
        try:
            # Streamed, since an answer's body is neither needed nor to be trusted.
            with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                status = response.status_code
        except httpx.TransportError as error:
            raise _Transient(
                f"The webhook at {self.describe()} cannot be reached ({type(error).__name__}); check the network and QUANT_WEBHOOK_URL."
            ) from None
        if 200 <= status < 300:
            return
        if status == TOO_MANY_REQUESTS or status >= 500:
            raise _Transient(f"The webhook at {self.describe()} answered {status}; the alert is kept and sent again later.")
        remedy = REMEDIES.get(301 if 300 <= status < 400 else status, "the receiver does not accept such alerts")
        raise WebhookError(f"The webhook at {self.describe()} answered {status}: {remedy}.")
