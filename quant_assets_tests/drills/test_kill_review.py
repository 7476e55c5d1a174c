"""Reviews, landings and nights killed at random moments, alone and side by side: no row is lost, none doubled."""

from __future__ import annotations

import random
import secrets
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from quant_assets.data_quality.reviews import ReviewRefused, findings_under_review
from quant_assets.warehouse import Warehouse
from quant_assets_tests import command
from quant_assets_tests.conftest import SOURCE, bar, clean
from quant_assets_tests.data_quality.test_reviews import (
    BAD,
    CALENDAR,
    decided,
    decisions,
    feature_rows,
    hashes,
    judged,
    killed_story,
    landed,
    refreshed,
    started,
    story,
)

STORIES, NIGHTS, KILLS = 3, 6, 5
SYMBOLS = [f"S{number}" for number in range(6)]
SESSIONS = CALENDAR.sessions[:8]
BROKEN = len(SYMBOLS) * len(SESSIONS) // 2
WRITERS = ("kim", "lee", "vendor")
COMMAND_KILLS = 3


def reviewing(path: str, by: str) -> None:
    """Decide about every bar that is held, until all that are broken have been found and none is held."""
    warehouse = Warehouse(Path(path), SOURCE)
    print("ready", flush=True)
    while True:
        found = warehouse.read("select count(*) as n from data_quality.anomalies where rule = 'ohlc_order'")["n"].item()
        held = findings_under_review(warehouse).select("symbol", "session").unique().rows()
        for symbol, session in random.sample(held, len(held)):
            with suppress(ReviewRefused):  # the other one was faster
                decided(warehouse, "release", symbol, session, by=by)
        if found == BROKEN and not held:
            return


def landing(path: str) -> None:
    """Nights that land and judge, every second bar broken; done again from the first night, each changes nothing."""
    warehouse = Warehouse(Path(path), SOURCE)
    print("ready", flush=True)
    nights(warehouse)


def nights(warehouse: Warehouse, judging: bool = True) -> None:
    for night, session in enumerate(SESSIONS):
        landed(
            warehouse,
            session,
            *(
                bar(symbol, day, 100 + number + day.day / 10, **(BAD if (number + at) % 2 else {}))
                for at, day in enumerate(SESSIONS[: night + 1])
                for number, symbol in enumerate(SYMBOLS)
            ),
        )
        if judging:
            judged(warehouse)
            refreshed(warehouse)


@pytest.mark.drill
@pytest.mark.timeout(1800)
class TestProperties:
    def test_stories_killed_at_any_moment_end_as_undisturbed_ones(self, tmp_path: Path, empty_database: Path) -> None:
        first = secrets.randbits(31)
        draw = random.Random(first)
        print(f"seed {first}")
        deaths = 0
        for seed in range(first, first + STORIES):
            told, killed = tmp_path / f"told_{seed}.duckdb", tmp_path / f"killed_{seed}.duckdb"
            shutil.copyfile(empty_database, told)
            shutil.copyfile(empty_database, killed)
            began = time.monotonic()
            for step in story(seed, NIGHTS):
                step(Warehouse(told, SOURCE))
            seconds = time.monotonic() - began
            deaths += killed_story(killed, seed, NIGHTS, [draw.uniform(0, 2 * seconds / KILLS) for _ in range(KILLS)])
            assert hashes(Warehouse(killed, SOURCE)) == hashes(Warehouse(told, SOURCE)), f"seed {seed}"
        print(f"{deaths} deaths")
        assert deaths >= STORIES

    def test_two_reviewers_and_a_vendor_killed_side_by_side(self, tmp_path: Path, empty_database: Path) -> None:
        seed = secrets.randbits(31)
        draw = random.Random(seed)
        print(f"seed {seed}")
        shared, alone = tmp_path / "shared.duckdb", tmp_path / "alone.duckdb"
        shutil.copyfile(empty_database, shared)
        shutil.copyfile(empty_database, alone)
        calls = {by: f"reviewing({str(shared)!r}, {by!r})" for by in ("kim", "lee")} | {"vendor": f"landing({str(shared)!r})"}
        working = {who: started(call, __name__) for who, call in calls.items()}
        for _ in range(3 * KILLS):
            time.sleep(draw.uniform(0.2, 3))
            who = draw.choice(WRITERS)
            working[who].kill()
            working[who].communicate()
            working[who] = started(calls[who], __name__)
        for who, process in working.items():
            process.communicate(timeout=600)
            assert process.returncode == 0, who
        warehouse, undisturbed = Warehouse(shared, SOURCE), Warehouse(alone, SOURCE)
        nights(undisturbed, judging=False)
        refreshed(warehouse)
        refreshed(undisturbed)
        made = warehouse.read("select symbol, session, rule, count(*) as n from data_quality.reviews group by all having n > 1")
        assert made.is_empty(), f"decided twice, seed {seed}: {made}"
        assert len([rule for _, rule, _, _ in decisions(warehouse) if rule == "ohlc_order"]) == BROKEN
        assert clean(warehouse) == clean(undisturbed), f"seed {seed}"
        assert len(clean(warehouse)) == len(SYMBOLS) * len(SESSIONS)
        assert hashes(warehouse)["market_data.daily_bars"] == hashes(undisturbed)["market_data.daily_bars"], f"seed {seed}"
        for left, right in zip(feature_rows(warehouse), feature_rows(undisturbed), strict=True):
            assert left.equals(right), f"seed {seed}"

    def test_commands_killed_at_any_moment_end_as_undisturbed_ones(self, tmp_path: Path) -> None:
        seed = secrets.randbits(31)
        draw = random.Random(seed)
        print(f"seed {seed}")
        first = command.run(tmp_path / "told", "run", "--as-of", command.EVENING, **command.SMALL)
        assert first.returncode == 0, first.stderr
        held = findings_under_review(command.warehouse(tmp_path / "told", "synthetic")).select("symbol", "session").unique().sort("session")
        released, confirmed = held.row(0), held.row(-1)
        shutil.copytree(tmp_path / "told", tmp_path / "killed", ignore=shutil.ignore_patterns("documents"))
        commands = [
            ("quarantine", "release", released[0], str(released[1]), "--reason", "seen", "--by", "kim"),
            ("run", "--as-of", f"{command.EVENING}T22:00:00"),
            ("quarantine", "confirm", confirmed[0], str(confirmed[1]), "--reason", "wrong", "--by", "lee"),
            ("quarantine", "confirm", released[0], str(released[1]), "--reason", "after all", "--by", "lee", "--overrule"),
            ("run", "--as-of", f"{command.EVENING}T23:00:00"),
        ]
        deaths, rows = 0, []
        feature_row = "select count(*) as n from feature_store.technical_v1 where symbol = $symbol and session = $session"
        for arguments in commands:
            began = time.monotonic()
            told = command.run(tmp_path / "told", *arguments, **command.SMALL)
            seconds = time.monotonic() - began
            assert told.returncode == 0, told.stderr
            for _ in range(COMMAND_KILLS):
                deaths += killed(tmp_path / "killed", arguments, draw.uniform(0, 1.1 * seconds))
            again = command.run(tmp_path / "killed", *arguments, **command.SMALL)
            assert again.returncode == 0, f"seed {seed}: {again.stderr}"
            assert command.contents(tmp_path / "killed", "synthetic") == command.contents(tmp_path / "told", "synthetic"), f"seed {seed}"
            rows += command.read(tmp_path / "killed", "synthetic", feature_row, symbol=released[0], session=released[1])
        assert [row["n"] for row in rows] == [0, 1, 1, 1, 0]  # released, run, confirmed, overruled, run
        print(f"{deaths} deaths")
        assert deaths >= len(commands)
        made = command.read(tmp_path / "killed", "synthetic", "select decision, decided_by from data_quality.reviews order by decided_at")
        assert {(row["decision"], row["decided_by"]) for row in made} == {("release", "kim"), ("confirm", "lee")}


def killed(home: Path, arguments: tuple[str, ...], seconds: float) -> bool:
    """Whether the command was still at work when it was killed."""
    process = subprocess.Popen(
        [command.COMMAND, *arguments],
        env=command.environment(home, **command.SMALL),
        cwd=home.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds)
    process.kill()
    return process.wait() != 0
