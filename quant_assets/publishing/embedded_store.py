"""The embedded document store: MongoDB's wire protocol over SQLite files under HOME/documents, on loopback.

One server per HOME, for as long as somebody uses it. Two file locks, which the kernel frees however a process ends,
say all there is to say:

- `server.lock` is held by the one process that serves;
- `users.lock` is shared by everyone who uses the store. A server that a command started ends when nobody holds it any
  more, so it outlives neither the command nor anyone else that found it running.

`address.json` tells where it listens. It is believed only when the process it names answers there.
It is for development and tests: anybody with an account on the machine can reach it. Production is a MongoDB by URI.
The client's libraries are imported where they are used, so that the server, which needs none, starts fast.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from quant_assets.errors import ConfigurationError

HOST = "127.0.0.1"
PREFERRED_PORT = 27117
POLL_SECONDS = 0.1
START_SECONDS = 30.0
ALREADY_SERVED = 3


def _say(text: str) -> None:
    print(text, flush=True)  # at once, also into a pipe


def address(home: Path) -> str | None:
    """The URI of the store that serves this HOME at this moment, or None."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    entry = _entry(home)
    if entry is None:
        return None
    uri, pid = entry
    try:
        socket.create_connection((HOST, int(uri.rpartition(":")[2])), timeout=2).close()
    except OSError:
        return None  # at once, where the driver would try again until its time-out
    client: MongoClient[dict[str, Any]] = MongoClient(uri, serverSelectionTimeoutMS=2000, connectTimeoutMS=2000, socketTimeoutMS=5000)
    with client:
        try:
            answering = client.admin.command("serverStatus").get("pid")
        except PyMongoError:
            return None
    return uri if answering == pid else None


@contextlib.contextmanager
def running(home: Path) -> Iterator[str]:
    """The URI of this HOME's store, for the length of a `with` block: one that runs already is used, else one is started.

    Raises `StoreUnavailable` when it does not come up, with the end of its log.
    """
    folder = _folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    child: threading.Thread | None = None
    try:
        with _lock(folder / "users.lock", fcntl.LOCK_SH):
            uri, child = _find_or_start(home)
            yield uri
    finally:
        if child is not None:
            child.join(timeout=10 * POLL_SECONDS)  # gone by then, unless somebody else uses it


def serve(home: Path, port: int | None = None, announce: Callable[[str], object] = _say) -> None:
    """Serve this HOME's store in the foreground until SIGTERM or Ctrl-C.

    Where a command's own store serves it already, that one goes on, and this process takes over should it end.
    Listens on the port given, else on 27117, else on a free one. Raises `ConfigurationError` for a port that is taken.
    """
    folder = _folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / "users.lock", fcntl.LOCK_SH):
        try:
            lock = _lock(folder / "server.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            announce(f"The embedded document store is served already, at {address(home) or 'an address to come'}; standing by.")
            lock = _lock(folder / "server.lock", fcntl.LOCK_EX)
        with lock:
            asyncio.run(_serve(folder, _listen(port), lambda: True, announce))


def stop(home: Path) -> bool:
    """Stop the server of this HOME, whoever started it; False when none runs. Raises `StoreUnavailable` when it does not end."""
    from quant_assets.publishing.document_store import StoreUnavailable

    entry = _entry(home)
    if entry is None or address(home) != entry[0]:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(entry[1], signal.SIGTERM)
    deadline = time.monotonic() + START_SECONDS
    while _entry(home) == entry:
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"The embedded document store under {_folder(home)} (process {entry[1]}) did not end; end that process.")
        time.sleep(POLL_SECONDS)
    return True


def _serve_while_used(home: Path) -> int:
    folder = _folder(home)
    try:
        lock = _lock(folder / "server.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ALREADY_SERVED
    last_door: list[IO[str]] = []

    def used() -> bool:
        # Once nobody is left the lock is kept, so that who comes now waits until this server is gone, and finds none.
        try:
            last_door.append(_lock(folder / "users.lock", fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            return True
        return False

    with lock:
        asyncio.run(_serve(folder, _listen(None), used, lambda _: None))
    for door in last_door:
        door.close()
    return 0


async def _serve(folder: Path, listening: socket.socket, used: Callable[[], bool], announce: Callable[[str], object]) -> None:
    from nx_27017.handler import NeoSQLiteHandler
    from nx_27017.server import handle_client

    handler = NeoSQLiteHandler(data_dir=str(folder))
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    server = await asyncio.start_server(lambda reader, writer: handle_client(reader, writer, handler), sock=listening)
    port = listening.getsockname()[1]
    entry, draft = folder / "address.json", folder / "address.json.tmp"
    draft.write_text(json.dumps({"port": port, "pid": os.getpid()}))
    os.replace(draft, entry)
    announce(f"The embedded document store listens at mongodb://{HOST}:{port}")
    while not ending.is_set() and used():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), POLL_SECONDS)
    server.close()
    await asyncio.to_thread(handler.close_all)
    entry.unlink(missing_ok=True)


def _find_or_start(home: Path) -> tuple[str, threading.Thread | None]:
    from quant_assets.publishing.document_store import StoreUnavailable

    log_path = _folder(home) / "server.log"
    process: subprocess.Popen[bytes] | None = None
    reaper: threading.Thread | None = None
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if uri := address(home):
            return uri, reaper
        if process is None or process.poll() == ALREADY_SERVED:
            with log_path.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "quant_assets.publishing.embedded_store", str(home.resolve()), "--while-used"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the command; its store ends after it
                )
            reaper = threading.Thread(target=process.wait, daemon=True)
            reaper.start()
        elif process.poll() is not None:
            break
        time.sleep(POLL_SECONDS)
    tail = log_path.read_text(errors="replace")[-500:].strip() if log_path.exists() else ""
    raise StoreUnavailable(
        f"The embedded document store under {_folder(home)} did not start. Its log, {log_path}, ends: {tail or '(empty)'}"
    )


def _entry(home: Path) -> tuple[str, int] | None:
    try:
        entry = json.loads((_folder(home) / "address.json").read_text())
        return f"mongodb://{HOST}:{int(entry['port'])}", int(entry["pid"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return None


def _listen(port: int | None) -> socket.socket:
    for candidate in (PREFERRED_PORT, 0) if port is None else (port,):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, candidate))
            listening.listen(128)
        except OSError:
            listening.close()
        else:
            return listening
    raise ConfigurationError(f"Port {port} of {HOST} is taken; give another, or none for a free one.")


def _lock(path: Path, how: int) -> IO[str]:
    """Closing the file gives the lock back; so does the end of the process."""
    file = path.open("a")
    try:
        fcntl.flock(file, how)
    except BaseException:
        file.close()
        raise
    return file


def _folder(home: Path) -> Path:
    return home / "documents"


def main(arguments: list[str] | None = None) -> int:
    """`python -m quant_assets.publishing.embedded_store HOME [PORT]`: serve in the foreground."""
    parser = argparse.ArgumentParser(prog="embedded_store", description="Serve the embedded document store of one HOME on loopback.")
    parser.add_argument("home", type=Path)
    parser.add_argument("port", type=int, nargs="?")
    parser.add_argument("--while-used", action="store_true", help="end as soon as nobody uses it")
    options = parser.parse_args(arguments)
    if options.while_used:
        return _serve_while_used(options.home)
    try:
        serve(options.home, options.port)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
