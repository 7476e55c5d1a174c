"""`quant-assets quarantine` as a reviewer meets it, and the job that writes the same rows."""

from __future__ import annotations

import getpass
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from click.testing import CliRunner, Result

from quant_assets.cli import main
from quant_assets.warehouse import Warehouse
from quant_assets_tests import command, nights
from quant_assets_tests.conftest import SOURCE, bar, clean
from quant_assets_tests.data_quality.test_reviews import CALENDAR, D1, D2, decisions, found, landed

COLUMNS = "symbol, session, rule, decided_at, bar_known_at, decision, decided_by, reason"
SETTINGS = {"QUANT_SOURCE": SOURCE, "QUANT_FILES_PATH": "vendor", "QUANT_START": "2020-01-02"}


@pytest.fixture
def home(tmp_path: Path, empty_database: Path) -> Iterator[Path]:
    """A HOME whose database has AAA's bar held by two rules and BBB's by one; its settings are the environment."""
    with nights.environment(tmp_path / "home", **SETTINGS):
        shutil.copyfile(empty_database, tmp_path / "home" / "quant.duckdb")
        warehouse = Warehouse(tmp_path / "home" / "quant.duckdb", SOURCE)
        landed(warehouse, D1, *(bar(symbol, D1, close) for symbol, close in (("AAA", 10), ("BBB", 20), ("CCC", 30))))
        found(warehouse, "AAA", D1, "one", "two", detail="open [red] 10.0")
        found(warehouse, "BBB", D1, "one", suggestion=json.dumps({"column": "close", "value": 19.123456, "evidence": "another vendor"}))
        found(warehouse, "CCC", D1, "one", score=0.9995)
        yield tmp_path / "home"


@pytest.fixture
def warehouse(home: Path) -> Warehouse:
    return Warehouse(home / "quant.duckdb", SOURCE)


@pytest.fixture
def quarantine(home: Path) -> Callable[..., Result]:
    """The command in this process."""
    return lambda *arguments: CliRunner().invoke(main, ["quarantine", *map(str, arguments)], catch_exceptions=False)


Quarantine = Callable[..., Result]


class TestRegression:
    def test_list_shows_what_holds_bars_back(self, quarantine: Quarantine) -> None:
        listed = quarantine("list")
        assert listed.exit_code == 0
        rows = [line.split() for line in listed.stdout.splitlines() if line.strip()]
        assert rows[0] == ["symbol", "session", "version", "rule", "detector", "score", "detail", "suggestion", "decision"]
        assert rows[2:] == [
            ["AAA", "2020-03-02", "2020-03-02T21:30:00", "one", "rules", "1.000000", "open", "[red]", "10.0"],
            ["AAA", "2020-03-02", "2020-03-02T21:30:00", "two", "rules", "1.000000", "open", "[red]", "10.0"],
            ["BBB", "2020-03-02", "2020-03-02T21:30:00", "one", "rules", "1.000000", "as", "planted", "close", "19.1235"],
        ]

    def test_list_in_a_narrow_terminal_cuts_nothing_off(self, quarantine: Quarantine, monkeypatch: pytest.MonkeyPatch) -> None:
        quarantine("confirm", "BBB", D1, "--reason", "wrong", "--by", "kim")
        for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "90"}.items():
            monkeypatch.setenv(name, value)
        listed = quarantine("list").stdout
        for words in ("2020-03-02", "open [red] 10.0", "suggested: close 19.1235", "confirm by kim: wrong", "rules"):
            assert words in listed
        assert "…" not in listed

    def test_list_is_narrowed_and_says_how_many_more_there_are(self, quarantine: Quarantine, warehouse: Warehouse) -> None:
        landed(warehouse, D2, bar("AAA", D2, 10))
        found(warehouse, "AAA", D2, "three")

        def shown(*options: object) -> list[str]:
            lines = quarantine("list", *options).stdout.splitlines()
            return [" ".join(line.split()[i] for i in (0, 1, 3)) for line in lines if line.startswith(("  AAA", "  BBB", "  CCC"))]

        older = ["AAA 2020-03-02 one", "AAA 2020-03-02 two", "BBB 2020-03-02 one"]
        assert shown() == ["AAA 2020-03-03 three", *older]
        assert shown("--symbol", "AAA", "--to", D1) == older[:2]
        assert shown("--from", D2) == ["AAA 2020-03-03 three"]
        assert shown("--rule", "two") == [older[1]]
        assert shown("--severity", "warning") == ["CCC 2020-03-02 one"]
        assert shown("--limit", 1) == ["AAA 2020-03-03 three"]
        assert "3 more; see them with --limit" in quarantine("list", "--limit", 1).stdout
        assert "more" not in quarantine("list", "--limit", 4).stdout
        assert quarantine("list", "--symbol", "ZZZ").stdout == "No critical finding matches.\n"

    def test_a_decision_is_shown_where_it_was_asked_for(self, quarantine: Quarantine) -> None:
        quarantine("confirm", "BBB", D1, "--reason", "wrong", "--by", "kim")
        quarantine("release", "AAA", D1, "--rule", "one", "--reason", "right", "--by", "lee")
        assert "confirm by kim: wrong" in quarantine("list").stdout
        assert "release by lee: right" not in quarantine("list").stdout
        assert "release by lee: right" in quarantine("list", "--all").stdout
        undecided = quarantine("list", "--undecided").stdout
        assert "two" in undecided
        assert "BBB" not in undecided

    def test_release_says_what_it_did_and_what_comes_next(self, quarantine: Quarantine, warehouse: Warehouse, home: Path) -> None:
        part = quarantine("release", "AAA", D1, "--rule", "one", "--reason", "seen")
        assert part.exit_code == 0
        assert f"AAA 2020-03-02: one was released by {getpass.getuser()} on" in part.stdout
        assert "the bar stays held back by two (undecided)" in part.stdout
        assert "quant-assets run" not in part.stdout
        rest = quarantine("release", "AAA", D1, "--reason", "seen")
        assert "two was released" in rest.stdout
        assert "the bar goes on" in rest.stdout
        assert rest.stdout.splitlines()[-1].startswith("Next: `quant-assets run`")
        assert ("AAA", D1) in clean(warehouse)
        with duckdb.connect(home / "quant.read.duckdb", read_only=True) as copy:  # readers see it at once
            assert ("AAA",) in copy.execute("select symbol from data_quality.clean_bars").fetchall()

    def test_who_comes_second_is_told_who_decided_and_may_overrule(self, quarantine: Quarantine, warehouse: Warehouse) -> None:
        quarantine("confirm", "BBB", D1, "--reason", "the vendor erred", "--by", "kim")
        second = quarantine("release", "BBB", D1, "--reason", "seen", "--by", "lee")
        assert second.exit_code == 1
        assert second.stderr.startswith("ReviewRefused: BBB 2020-03-02 is decided already: one was confirmed by kim on ")
        assert "'the vendor erred'" in second.stderr
        assert "--overrule" in second.stderr
        assert len(decisions(warehouse)) == 1
        overruled = quarantine("release", "BBB", D1, "--reason", "seen", "--by", "lee", "--overrule")
        assert overruled.exit_code == 0
        assert "overruled: one was confirmed by kim" in overruled.stdout
        assert "quant-assets run" in overruled.stdout
        again = quarantine("release", "BBB", D1, "--reason", "seen", "--by", "lee")
        assert again.exit_code == 0
        assert "nothing written" in again.stdout
        assert len(decisions(warehouse)) == 2

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (("ZZZ", D1, "--reason", "seen"), 1, "No bar of the symbol 'ZZZ'"),
            (("CCC", D1, "--reason", "seen"), 1, "on it there is one (warning)"),
            (("AAA", D1, "--rule", "nine", "--reason", "seen"), 1, "it has one, two."),
            (("AAA", D1, "--reason", "seen", "--version", "2020-02-28T21:30:00"), 1, "does not exist; the newest is"),
            (("AAA", "March", "--reason", "seen"), 2, "The session 'March' is no date"),
            (("AAA", D1, "--reason", "  "), 2, "needs its reason"),
            (("AAA", D1), 2, "Missing option '--reason'"),
            (("AAA", D1, "--reason", "seen", "--as-of", "tonight"), 2, "--as-of 'tonight'"),
            (("AAA", D1, "--reason", "seen", "--as-of", D2), 2, "lies after the last session known now"),
        ],
    )
    def test_what_is_refused_is_one_clear_line(
        self, quarantine: Quarantine, warehouse: Warehouse, arguments: tuple[object, ...], code: int, words: str
    ) -> None:
        refused = quarantine("release", *arguments)
        assert (refused.exit_code, refused.stdout) == (code, "")
        assert words in refused.stderr
        assert decisions(warehouse) == []

    def test_a_home_without_a_run_stays_untouched(self, quarantine: Quarantine, home: Path) -> None:
        (home / "quant.duckdb").unlink()
        for arguments in (("list",), ("release", "AAA", D1, "--reason", "seen")):
            refused = quarantine(*arguments)
            assert refused.exit_code == 2
            assert "There is no database at" in refused.stderr
        assert list(home.iterdir()) == []

    def test_in_a_process_of_its_own(self, home: Path, warehouse: Warehouse) -> None:
        finished = command.run(home, "quarantine", "release", "BBB", str(D1), "--reason", "seen", "--by", "kim", **SETTINGS)
        assert finished.returncode == 0, finished.stderr
        assert decisions(warehouse) == [("BBB", "one", "release", "kim")]


class TestJob:
    MADE = (
        {"symbol": "AAA", "session": str(D1), "decision": "release", "decided_by": "kim", "reason": "seen"},
        {"symbol": "BBB", "session": str(D1), "rule": "one", "decision": "confirm", "decided_by": "lee", "reason": "wrong"},
        {"symbol": "AAA", "session": str(D1), "rule": "two", "decision": "confirm", "decided_by": "lee", "reason": "no", "overrule": True},
    )

    def run(self, home: Path, made: object, **tags: str) -> dg.ExecuteInProcessResult:
        from quant_assets import definitions
        from quant_assets.resources import DeskResource, WarehouseResource, prepare_home
        from quant_assets.settings import load_settings

        settings = load_settings()
        prepare_home(settings)
        bound = dg.Definitions(
            assets=definitions.defs.assets,
            jobs=[definitions.review],
            resources={"warehouse": WarehouseResource(database=str(settings.warehouse_path)), "desk": DeskResource()},
        )
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
            return bound.resolve_job_def("review").execute_in_process(
                instance=instance,
                run_config={"ops": {"reviews": {"config": {"decisions": made}}}, **quiet},
                tags=tags,
                raise_on_error=False,
            )

    @pytest.mark.parametrize("as_of", [None, "2020-03-02T23:00:00"])
    def test_it_writes_the_rows_of_the_command(self, home: Path, quarantine: Quarantine, warehouse: Warehouse, as_of: str | None) -> None:
        shutil.copyfile(home / "quant.duckdb", home / "before.duckdb")
        for entry in self.MADE:
            words = [entry["decision"], entry["symbol"], entry["session"], "--by", entry["decided_by"], "--reason", entry["reason"]]
            words += ["--rule", entry["rule"]] if "rule" in entry else []
            words += ["--overrule"] if "overrule" in entry else []
            assert quarantine(*words, *(["--as-of", as_of] if as_of else [])).exit_code == 0
        by_command = warehouse.read(f"select {COLUMNS} from data_quality.reviews order by all")
        assert by_command.height == 4
        shutil.move(home / "before.duckdb", home / "quant.duckdb")
        result = self.run(home, [*self.MADE], **({"quant/as_of": as_of} if as_of else {}))
        assert result.success
        assert warehouse.read(f"select {COLUMNS} from data_quality.reviews order by all").equals(by_command)
        (event,) = result.asset_materializations_for_node("reviews")
        assert event.metadata["new_decisions"].value == 4
        assert "overruled: two was released by kim" in event.metadata["outcome"].value
        again = self.run(home, [self.MADE[1]])
        assert again.success
        assert warehouse.read(f"select {COLUMNS} from data_quality.reviews order by all").equals(by_command)

    def test_a_refused_decision_fails_the_run_and_nothing_of_it_stands(self, home: Path, warehouse: Warehouse) -> None:
        result = self.run(home, [self.MADE[0], self.MADE[1] | {"rule": "nine"}])
        assert not result.success
        failed = [event for event in result.all_events if event.is_step_failure]
        assert "has no critical finding of the rule 'nine'; it has one." in str(failed[0].step_failure_data.error)
        assert decisions(warehouse) == []

    def test_the_night_has_no_part_in_it(self, home: Path) -> None:
        from quant_assets.definitions import defs

        reviews = dg.AssetKey(["data_quality", "reviews"])
        assert reviews not in defs.resolve_job_def("nightly").asset_layer.executable_asset_keys
        assert defs.resolve_job_def("review").asset_layer.executable_asset_keys == {reviews}


class TestProperties:
    def test_the_next_night_sees_a_decision(self, home: Path, quarantine: Quarantine, warehouse: Warehouse) -> None:
        from quant_assets.market_data.landing import default_as_of

        before = default_as_of(warehouse, SOURCE, CALENDAR, D1)
        quarantine("release", "BBB", D1, "--reason", "seen")
        now = default_as_of(warehouse, SOURCE, CALENDAR, D1)
        assert now == before + timedelta(microseconds=1)
        assert ("BBB", D1) in clean(warehouse, now)
        assert ("BBB", D1) not in clean(warehouse, before)
