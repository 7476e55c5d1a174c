"""Telling one process from a later one with the same number, and whether it still works."""

from __future__ import annotations

import os
from pathlib import Path


def process_identity(pid: int) -> str:
    """Tell one process from a later one with the same number: machine, pid and start time, where the system shows it."""
    return f"{os.uname().nodename}:{pid}:{''.join(_stat(pid)[19:20])}"


def is_alive(identity: str) -> bool:
    """Whether the process of an identity still works; one of another machine does not, as seen from here."""
    machine, pid_text, _ = identity.split(":")
    if machine != os.uname().nodename:
        return False
    pid = int(pid_text)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process_identity(pid) == identity and _stat(pid)[:1] != ["Z"]  # ended, but nobody has asked how


def _stat(pid: int) -> list[str]:
    """The fields of a process in /proc, from its state on; none where the system has no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []
