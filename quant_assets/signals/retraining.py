"""Training in a process of its own: started by the night when there is no champion, ended when the night is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import datetime

from quant_assets.errors import QuantAssetsError

PARENT_PIPE = "QUANT_PARENT_PIPE"
TAIL = 2000
COMMAND = (sys.executable, "-m", "quant_assets.cli", "model", "train")


class TrainingFailed(QuantAssetsError):
    """The training process ended with an error; the text is the end of what it said."""


def train_in_own_process(as_of: datetime) -> str:
    """Run `quant-assets model train` and wait; returns what it printed, raises `TrainingFailed` when it failed.

    Our memory and our imports stay free of the ML libraries, and the child ends with us: it watches its end of a pipe.
    """
    with subprocess.Popen(
        [*COMMAND, "--as-of", as_of.isoformat()],
        env={**os.environ, PARENT_PIPE: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as child:
        try:
            output = child.stdout.read() if child.stdout else ""
            code = child.wait()
        finally:
            child.kill()  # an interrupted wait must not wait for the training; leaving the block reaps it
    if code != 0:
        said = output[-TAIL:].strip() or "it said nothing"
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise TrainingFailed(f"Training {ended}: {said}")
    return output


def die_with_parent() -> None:
    """In a process started above: end at once when the parent is gone, however it went."""
    if os.environ.pop(PARENT_PIPE, None):

        def watch() -> None:
            os.read(0, 1)  # nothing is ever written: this returns when the other end is closed
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
