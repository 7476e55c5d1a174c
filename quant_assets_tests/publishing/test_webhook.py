"""The webhook against a real server on loopback: signed, tried again where that helps, and silent about its address."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.errors import ConfigurationError
from quant_assets.publishing.webhook import Webhook, WebhookError

ALERT = {"alert_id": "id-1", "text": "삼성 & <b>", "numbers": {"rows": 3}}
SECRET = "signing-secret"
PATH = "/services/T0/planted-secret?token=planted-token"


class Receiver(ThreadingHTTPServer):
    """Answers with the statuses of `script` in turn, then 200; 0 means silence, -1 a connection cut off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.script: list[int] = []
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.released = threading.Event()

    def url(self, path: str = PATH) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), body))
        status = self.server.script.pop(0) if self.server.script else 200
        if status == 0:
            self.server.released.wait(10)
            return
        if status == -1:
            self.connection.close()
            return
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(f"no such path: {self.path}".encode())

    def do_GET(self) -> None:
        self.server.received.append((self.path, {}, b""))

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield receiver
        receiver.released.set()
        receiver.shutdown()
        thread.join()


@pytest.fixture
def receiver(server: Receiver) -> Receiver:
    server.script, server.received = [], []
    return server


def webhook(receiver: Receiver, sleeps: list[float], **options: Any) -> Webhook:
    options = {"secret": SECRET, "timeout_seconds": 5.0, **options}
    return Webhook(receiver.url(), transport=httpx.HTTPTransport(), sleep=sleeps.append, **options)


def signature(secret: str, headers: dict[str, str], body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), headers["X-Quant-Timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()


class TestRegression:
    def test_one_signed_post(self, receiver: Receiver) -> None:
        with webhook(receiver, [], clock=lambda: 1518039000.9) as hook:
            hook.post(ALERT)
        ((path, headers, body),) = receiver.received
        assert path == PATH
        assert json.loads(body) == ALERT
        assert headers["Content-Type"] == "application/json"
        assert (headers["X-Quant-Alert-Id"], headers["X-Quant-Timestamp"]) == ("id-1", "1518039000")
        assert headers["X-Quant-Signature"] == signature(SECRET, headers, body)
        assert headers["X-Quant-Signature"] != signature("another", headers, body)

    def test_signature_as_openssl_makes_it(self, receiver: Receiver) -> None:
        # printf '1.{"alert_id": "x"}' | openssl dgst -sha256 -hmac key
        with webhook(receiver, [], secret="key", clock=lambda: 1.0) as hook:
            hook.post({"alert_id": "x"})
        assert receiver.received[0][1]["X-Quant-Signature"] == "sha256=c1325e10e6f30def4fa6826028f1636bea60a972a1b51aba69c10c88f2d4b091"

    def test_without_a_secret_nothing_is_signed(self, receiver: Receiver) -> None:
        with webhook(receiver, [], secret="") as hook:
            hook.post(ALERT)
        assert "X-Quant-Signature" not in receiver.received[0][1]

    def test_twice_500_then_200(self, receiver: Receiver) -> None:
        receiver.script = [500, 500, 200]
        sleeps: list[float] = []
        with webhook(receiver, sleeps, clock=iter([100.0, 101.0, 103.0]).__next__) as hook:
            hook.post(ALERT)
        assert [headers["X-Quant-Timestamp"] for _, headers, _ in receiver.received] == ["100", "101", "103"]
        assert {body for _, _, body in receiver.received} == {receiver.received[0][2]}
        assert all(headers["X-Quant-Signature"] == signature(SECRET, headers, body) for _, headers, body in receiver.received)
        assert 0.5 <= sleeps[0] <= 1.0 <= sleeps[1] <= 1.5

    @pytest.mark.parametrize("fault", [0, -1, 429, 503])
    def test_faults_that_pass(self, receiver: Receiver, fault: int) -> None:
        receiver.script = [fault, 200]
        with webhook(receiver, [], timeout_seconds=0.3) as hook:
            hook.post(ALERT)
        assert len(receiver.received) == 2

    def test_gives_up_in_the_end(self, receiver: Receiver) -> None:
        receiver.script = [500] * 9
        sleeps: list[float] = []
        with webhook(receiver, sleeps) as hook, pytest.raises(WebhookError, match=r"127\.0\.0\.1 answered 500"):
            hook.post(ALERT)
        assert (len(receiver.received), len(sleeps)) == (5, 4)

    @pytest.mark.parametrize(
        ("status", "remedy"), [(302, "redirects are not followed"), (400, "does not accept"), (401, "SECRET"), (404, "QUANT_WEBHOOK_URL")]
    )
    def test_faults_that_stay_are_not_tried_again(self, receiver: Receiver, status: int, remedy: str) -> None:
        receiver.script = [status]
        with webhook(receiver, []) as hook, pytest.raises(WebhookError, match=f"answered {status}: .*{remedy}"):
            hook.post(ALERT)
        assert [path for path, _, _ in receiver.received] == [PATH]

    def test_nobody_listens(self) -> None:
        with Receiver() as gone:
            url = gone.url()
        with Webhook(url, transport=httpx.HTTPTransport(), sleep=lambda _: None) as hook, pytest.raises(WebhookError, match="ConnectError"):
            hook.post(ALERT)

    def test_address_and_secret_stay_out_of_errors_and_logs(self, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
        receiver.script = [500, 404]
        with caplog.at_level(logging.DEBUG), webhook(receiver, []) as hook:
            with pytest.raises(WebhookError) as caught:
                hook.post(ALERT)
            assert hook.describe() == "127.0.0.1"
        assert "HTTP Request: POST http://127.0.0.1/…" in caplog.text  # httpx did log, and told the host only
        for text in (caplog.text, str(caught.value), repr(caught.value)):
            assert not [secret for secret in ("planted", SECRET) if secret in text]

    @pytest.mark.parametrize("bad", ["", "hooks.example/planted", "ftp://host/planted", "http://", "https://host:planted"])
    def test_address_that_cannot_be_one(self, bad: str) -> None:
        with pytest.raises(ConfigurationError, match="QUANT_WEBHOOK_URL") as caught:
            Webhook(bad)
        assert "planted" not in str(caught.value)


class TestProperties:
    @settings(max_examples=20, deadline=None)
    @given(texts=st.dictionaries(st.text(), st.text() | st.integers()), secret=st.text(st.characters(codec="utf-8"), min_size=1))
    def test_every_body_arrives_whole_and_verifies(self, server: Receiver, texts: dict[str, Any], secret: str) -> None:
        server.script, server.received = [], []
        with webhook(server, [], secret=secret, clock=time.time) as hook:
            hook.post({**texts, "alert_id": "x"})
        ((_, headers, body),) = server.received
        assert json.loads(body) == {**texts, "alert_id": "x"}
        assert hmac.compare_digest(headers["X-Quant-Signature"], signature(secret, headers, body))
