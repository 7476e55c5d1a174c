"""The folder under which everything is kept: checked before anything is written, made so that a kill leaves no half."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from quant_assets.errors import ConfigurationError


def require_writable(home: Path) -> None:
    """Raise `ConfigurationError` unless HOME, or the folder it would be made in, can be written; writes nothing itself."""
    existing = home
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigurationError(f"QUANT_HOME={home}: {existing} is a file; choose a folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"QUANT_HOME={home}: {existing} cannot be written by this user; change its owner or choose another folder."
        )


def appear_whole(target: Path, build: Callable[[Path], None]) -> None:
    """Make a folder by building it aside and renaming it: it is there whole or not at all, and stays where it was already."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        build(aside)
        try:
            os.rename(aside, target)
        except OSError:
            if not target.exists():  # another process was first otherwise, and made the same
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
