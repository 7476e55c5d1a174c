"""The folder under which everything is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quant_assets import home
from quant_assets.errors import ConfigurationError
from quant_assets.home import appear_whole, require_writable


class TestRegression:
    def test_a_home_that_can_be_made_is_accepted_and_not_made(self, tmp_path: Path) -> None:
        require_writable(tmp_path / "new" / "home")
        require_writable(tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("below", [".", "home", "deep/home"])
    def test_a_home_under_a_file_is_refused_by_its_name(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigurationError, match=rf"QUANT_HOME={tmp_path}/file.*: {tmp_path}/file is a file; choose a folder"):
            require_writable(tmp_path / "file" / below)

    def test_a_folder_that_this_user_cannot_write_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def refuse(path: Path, mode: int) -> bool:  # asked of a stand-in, for the user who runs the tests may write everywhere
            asked.append((path, mode))
            return False

        monkeypatch.setattr(home.os, "access", refuse)
        with pytest.raises(ConfigurationError, match=f"{tmp_path} cannot be written by this user; change its owner"):
            require_writable(tmp_path / "home")
        assert asked == [(tmp_path, os.W_OK | os.X_OK)]


class TestProperties:
    def test_what_is_built_appears_whole(self, tmp_path: Path) -> None:
        target = tmp_path / "parent" / "folder"

        def build(aside: Path) -> None:
            (aside / "one").write_text("1")
            assert not target.exists()
            (aside / "two").write_text("2")

        appear_whole(target, build)
        assert sorted(path.name for path in target.iterdir()) == ["one", "two"]
        assert list(target.parent.iterdir()) == [target]

    def test_what_breaks_off_leaves_nothing(self, tmp_path: Path) -> None:
        def build(aside: Path) -> None:
            (aside / "one").write_text("1")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            appear_whole(tmp_path / "folder", build)
        assert list(tmp_path.iterdir()) == []

    def test_what_is_there_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()

        def build(_: Path) -> None:
            raise AssertionError("must not be built again")

        appear_whole(tmp_path / "folder", build)
        assert list((tmp_path / "folder").iterdir()) == []

    def test_who_comes_second_keeps_what_the_first_one_made(self, tmp_path: Path) -> None:
        target = tmp_path / "folder"

        def build(aside: Path) -> None:
            target.mkdir()
            (target / "made").write_text("by the first")
            (aside / "made").write_text("by the second")

        appear_whole(target, build)
        assert (target / "made").read_text() == "by the first"
        assert list(tmp_path.iterdir()) == [target]
