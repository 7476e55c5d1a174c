"""The two sensors on a real instance, with a real document store and a real webhook: nothing lost, nothing out of order."""

import os
import socket
import threading
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

from quant_assets.publishing import embedded_store, outbox
from quant_assets.publishing.document_store import DocumentStore
from quant_assets.publishing.documents import Document, instant_text
from quant_assets.publishing.outbox import OutboxError
from quant_assets.publishing.sensors import ALERT_CURSOR, _finished_runs, read_cursor
from quant_assets_tests import nights
from quant_assets_tests.nights import Desk
from quant_assets_tests.publishing.test_webhook import Receiver

FIRST = date(2025, 3, 10)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A document store for all tests here; each has a database of its own in it."""
    with embedded_store.running(tmp_path_factory.mktemp("store")) as uri:
        yield uri


@pytest.fixture
def database(tmp_path: Path) -> str:
    return tmp_path.name[-40:]


@pytest.fixture
def desk(tmp_path: Path, store: str, database: str) -> Iterator[Desk]:
    with nights.desk(tmp_path / "home", QUANT_MONGODB_URI=store, QUANT_MONGODB_DATABASE=database) as opened:
        yield opened


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def watched(tmp_path: Path, receiver: Receiver) -> Iterator[Desk]:
    """A desk whose alerts go to the receiver."""
    receiver.script.clear()
    receiver.received.clear()
    with nights.desk(tmp_path / "home", QUANT_WEBHOOK_URL=receiver.url("/hook"), QUANT_WEBHOOK_SECRET="signing") as opened:
        yield opened


def document(name: str, as_of: datetime, value: float = 0.5) -> Document:
    return {"document_id": name, "probability": value, "as_of": instant_text(as_of), "schema_version": 1}


def hand_over(desk: Desk, session: date, *documents: Document) -> Path:
    """What the job's last asset does: a file in the outbox and a materialization that names it."""
    from quant_assets.publishing.assets import FILE_METADATA, OUTBOX_KEY

    file = outbox.write(desk.settings.outbox_path, session, {"signals": list(documents)}).path
    desk.instance.report_runless_asset_event(
        dg.AssetMaterialization(OUTBOX_KEY, partition=str(session), metadata={FILE_METADATA: file.name})
    )
    return file


def deliver(desk: Desk) -> dg.SensorResult | dg.SkipReason:
    """One tick of `publish_documents`, its events reported as the daemon does."""
    from quant_assets.publishing.sensors import publish_documents

    outcome = publish_documents(dg.build_sensor_context(instance=desk.instance))
    assert isinstance(outcome, dg.SensorResult | dg.SkipReason)
    for event in outcome.asset_events if isinstance(outcome, dg.SensorResult) else ():
        desk.instance.report_runless_asset_event(event)
    return outcome


def alert(desk: Desk) -> str:
    """One tick of `send_alerts`; what it says."""
    from quant_assets.publishing.sensors import send_alerts

    outcome = send_alerts(dg.build_sensor_context(instance=desk.instance))
    assert isinstance(outcome, dg.SkipReason)
    return str(outcome.skip_message)


def cursor(desk: Desk, name: str) -> int | None:
    from quant_assets.publishing.sensors import read_cursor

    return read_cursor(desk.instance, f"quant_assets/{name}")


def stored(uri: str, database: str) -> dict[str, float]:
    with MongoClient[dict[str, Any]](uri) as client:
        return {found["document_id"]: found["probability"] for found in client[database]["signals"].find()}


def posted(receiver: Receiver) -> list[dict[str, Any]]:
    import json

    return [json.loads(body) for _, _, body in receiver.received]


def delivered_files(desk: Desk) -> list[object]:
    """The outbox files that the collection's own events name, oldest first."""
    records = desk.instance.fetch_materializations(dg.AssetKey(["mongodb", "signals"]), limit=100, ascending=True).records
    return [record.asset_materialization.metadata["file"].value for record in records if record.asset_materialization]


@dg.asset
def bars() -> None: ...


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec("fresh", asset="bars"), dg.AssetCheckSpec("key", asset="bars"), dg.AssetCheckSpec("good", asset="bars")]
)
def checks() -> Iterator[dg.AssetCheckResult]:
    yield dg.AssetCheckResult(
        check_name="fresh",
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description="2 symbols are late.",
        metadata={"late": 2, "names": "A, B"},
    )
    yield dg.AssetCheckResult(check_name="key", passed=False)
    yield dg.AssetCheckResult(check_name="good", passed=True)


@dg.op
def breaks() -> None:
    try:
        raise OSError("No space left on device")
    except OSError as error:
        raise RuntimeError("the step could not write") from error


@dg.job
def broken() -> None:
    breaks()


@dg.op
def rests() -> None: ...


@dg.job
def quiet() -> None:
    rests()


def run_with_failed_checks(desk: Desk) -> str:
    return dg.materialize([bars, checks], instance=desk.instance, tags={"dagster/partition": "2025-03-14"}).run_id


def failed_run(instance: dg.DagsterInstance) -> str:
    """A run that ended without its process saying why."""
    run = instance.create_run_for_job(quiet, status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(run, "ended")
    return run.run_id


class TestRegression:
    def test_outbox_is_delivered_once(self, desk: Desk, store: str, database: str) -> None:
        files = [hand_over(desk, FIRST, document("a", datetime(2025, 3, 10)), document("b", datetime(2025, 3, 10)))]
        files.append(hand_over(desk, FIRST + timedelta(days=1), document("c", datetime(2025, 3, 11))))
        outcome = deliver(desk)
        assert isinstance(outcome, dg.SensorResult)
        assert [event.metadata["inserted"].value for event in outcome.asset_events] == [2, 1]
        assert {str(event.metadata["store"].value) for event in outcome.asset_events} == {f"{store}/{database}"}
        assert delivered_files(desk) == [file.name for file in files]
        assert stored(store, database) == {"a": 0.5, "b": 0.5, "c": 0.5}
        assert isinstance(deliver(desk), dg.SkipReason)
        assert delivered_files(desk) == [file.name for file in files]

    def test_without_a_store_it_waits(self, tmp_path: Path) -> None:
        with nights.desk(tmp_path / "home") as desk:
            hand_over(desk, FIRST, document("a", datetime(2025, 3, 10)))
            outcome = deliver(desk)
            assert isinstance(outcome, dg.SkipReason)
            assert outcome.skip_message == (
                "Waiting: 1 outbox files, for there is no document store. Set QUANT_MONGODB_URI, or start the embedded one with `make ui`."
            )
            assert cursor(desk, "publish_documents") is None
            with embedded_store.running(desk.home) as uri:
                assert isinstance(deliver(desk), dg.SensorResult)
                assert stored(uri, "quant_assets") == {"a": 0.5}

    def test_store_that_does_not_answer_is_waited_for(
        self, tmp_path: Path, store: str, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from quant_assets.publishing import sensors

        monkeypatch.setattr(sensors, "DocumentStore", partial(DocumentStore, timeout_seconds=0.3))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            down = f"mongodb://desk:planted-secret@127.0.0.1:{free.getsockname()[1]}"
            with nights.desk(tmp_path / "home", QUANT_MONGODB_URI=down, QUANT_MONGODB_DATABASE=database) as desk:
                hand_over(desk, FIRST, document("a", datetime(2025, 3, 10)))
                outcome = deliver(desk)
        assert isinstance(outcome, dg.SkipReason)
        assert str(outcome.skip_message).startswith("Waiting: 1 outbox files. The document store mongodb://127.0.0.1:")
        assert "planted-secret" not in str(outcome.skip_message)
        with nights.desk(tmp_path / "home", QUANT_MONGODB_URI=store, QUANT_MONGODB_DATABASE=database) as desk:
            assert cursor(desk, "publish_documents") is None
            assert isinstance(deliver(desk), dg.SensorResult)
            assert stored(store, database) == {"a": 0.5}

    def test_store_that_dies_between_two_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with nights.desk(tmp_path / "home") as desk:
            files = [hand_over(desk, FIRST + timedelta(days=n), document(name, datetime(2025, 3, 10))) for n, name in enumerate("ab")]
            read = outbox.read

            def read_and_pull_the_plug(path: Path) -> dict[str, list[Document]]:
                if path == files[1]:
                    assert embedded_store.stop(desk.home)
                return read(path)

            with embedded_store.running(desk.home), monkeypatch.context() as patch:
                patch.setattr(outbox, "read", read_and_pull_the_plug)
                outcome = deliver(desk)
                assert isinstance(outcome, dg.SensorResult)
                assert delivered_files(desk) == [files[0].name]
                waiting = deliver(desk)
                assert isinstance(waiting, dg.SkipReason)
                assert str(waiting.skip_message).startswith("Waiting: 1 outbox files")
            with embedded_store.running(desk.home) as uri:
                assert isinstance(deliver(desk), dg.SensorResult)
                assert delivered_files(desk) == [file.name for file in files]
                assert stored(uri, "quant_assets") == {"a": 0.5, "b": 0.5}

    def test_more_than_a_page_in_order(self, desk: Desk, store: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from quant_assets.publishing import sensors

        monkeypatch.setattr(sensors, "BATCH", 2)
        instants = [datetime(2025, 3, 10) + timedelta(hours=n) for n in range(5)]
        files = [hand_over(desk, FIRST, document("a", instant, value=n)) for n, instant in enumerate(instants)]
        seen, positions = [], []
        while isinstance(deliver(desk), dg.SensorResult):
            seen.append(stored(store, database)["a"])
            positions.append(cursor(desk, "publish_documents"))
        assert seen == [1, 3, 4]
        assert positions == sorted(positions, key=lambda position: position or 0)
        assert delivered_files(desk) == [file.name for file in files]

    def test_missing_file_holds_everything_behind_it(self, desk: Desk, store: str, database: str) -> None:
        file = hand_over(desk, FIRST, document("a", datetime(2025, 3, 10)))
        hand_over(desk, FIRST + timedelta(days=1), document("b", datetime(2025, 3, 11)))
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(OutboxError, match=r"Materialize publishing/outbox for that session again"):
            deliver(desk)
        assert cursor(desk, "publish_documents") is None
        file.write_bytes(content)  # what materializing again does
        assert isinstance(deliver(desk), dg.SensorResult)
        assert stored(store, database) == {"a": 0.5, "b": 0.5}

    def test_failed_checks_and_runs_are_told_once(self, watched: Desk, receiver: Receiver) -> None:
        checked = run_with_failed_checks(watched)
        failed = broken.execute_in_process(instance=watched.instance, raise_on_error=False).run_id
        quiet.execute_in_process(instance=watched.instance)
        assert alert(watched) == "3 alerts sent."
        posts = posted(receiver)
        assert [(post["kind"], post["run_id"], post["asset"], post["check"], post["severity"]) for post in posts] == [
            ("check_failed", checked, "bars", "fresh", "warning"),
            ("check_failed", checked, "bars", "key", "critical"),
            ("run_failed", failed, "breaks", None, "critical"),
        ]
        assert posts[0]["numbers"] == {"late": 2}
        assert posts[0]["session"] == "2025-03-14"
        assert "2 symbols are late." in posts[0]["text"]
        assert "No space left on device" in posts[2]["text"]
        assert len({post["alert_id"] for post in posts}) == 3
        assert all(headers["X-Quant-Signature"].startswith("sha256=") for _, headers, _ in receiver.received)
        assert alert(watched) == "0 alerts sent."
        assert len(receiver.received) == 3

    def test_server_that_fails_in_the_middle_is_told_again(self, watched: Desk, receiver: Receiver) -> None:
        run_with_failed_checks(watched)
        receiver.script[:] = [200, 404]
        assert alert(watched).startswith("Waiting: 1 alerts were sent, the rest not. The webhook at 127.0.0.1 answered 404")
        assert cursor(watched, "send_alerts") is None
        assert alert(watched) == "2 alerts sent."
        assert cursor(watched, "send_alerts") is not None
        told = [(post["check"], post["alert_id"]) for post in posted(receiver)]
        assert [check for check, _ in told] == ["fresh", "key", "fresh", "key"]
        assert told[:2] == told[2:]

    def test_killed_run_is_told_without_waiting_for_the_next(self, watched: Desk, receiver: Receiver) -> None:
        from quant_assets.resources import PROCESS_TAG

        run_id = watched.instance.create_run_for_job(quiet, status=dg.DagsterRunStatus.STARTED).run_id
        watched.instance.add_run_tags(run_id, {PROCESS_TAG: f"{os.uname().nodename}:999999999:1:{run_id}"})
        assert alert(watched) == "1 alerts sent."
        (post,) = posted(receiver)
        assert (post["kind"], post["run_id"], post["asset"]) == ("run_failed", run_id, None)
        assert "Its process (999999999) is gone" in post["text"]

    def test_deleted_runs_do_not_stand_in_the_way(self, watched: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        from quant_assets.publishing import sensors

        monkeypatch.setattr(sensors, "BATCH", 2)
        deleted = [failed_run(watched.instance) for _ in range(3)]
        last = failed_run(watched.instance)
        for run_id in deleted:
            watched.instance.run_storage.delete_run(run_id)  # its events may outlive it
        for _ in range(3):
            alert(watched)
        assert [post["run_id"] for post in posted(receiver)] == [last]

    def test_without_a_webhook_nothing_is_sent(self, desk: Desk) -> None:
        failed_run(desk.instance)
        assert alert(desk) == "No webhook: set QUANT_WEBHOOK_URL to be told of failed checks and runs."
        assert list(_finished_runs(desk.instance, read_cursor(desk.instance, ALERT_CURSOR))) == []


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[tuple[Desk, Receiver]]:
    """One instance whose history grows from example to example."""
    with nights.desk(tmp_path_factory.mktemp("history") / "home", QUANT_WEBHOOK_URL=receiver.url("/hook")) as opened:
        yield opened, receiver


class TestProperties:
    @given(
        kinds=st.lists(st.sampled_from(["failed", "canceled", "succeeded"]), max_size=7),
        page=st.integers(1, 3),
        refused=st.lists(st.booleans(), max_size=6),
    )
    @example(
        kinds=["failed", "failed", "canceled", "failed", "succeeded"], page=1, refused=[False, True]
    )  # the last of one kind lies behind another's page
    @settings(max_examples=8, deadline=None)
    def test_every_failure_is_told_in_order_whatever_the_server_does(
        self, history: tuple[Desk, Receiver], kinds: list[str], page: int, refused: list[bool]
    ) -> None:
        from quant_assets.publishing import sensors

        desk, receiver = history
        receiver.received.clear()
        receiver.script[:] = [404 if no else 200 for no in refused]
        failed = []
        for kind in kinds:
            if kind == "failed":
                failed.append(failed_run(desk.instance))
            elif kind == "canceled":
                desk.instance.report_run_canceled(desk.instance.create_run_for_job(quiet, status=dg.DagsterRunStatus.STARTED))
            else:
                quiet.execute_in_process(instance=desk.instance)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sensors, "BATCH", page)
            for _ in range(len(kinds) + len(refused) + 1):
                alert(desk)
        told = [post["run_id"] for post in posted(receiver)]
        assert list(dict.fromkeys(told)) == failed
        assert len(told) - len(failed) == sum(refused[: len(told)])
