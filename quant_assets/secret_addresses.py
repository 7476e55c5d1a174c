"""What a log may show of an address: its scheme and host. Path and query are where vendors and receivers keep secrets."""

from __future__ import annotations

import logging

import httpx


def _host_only(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(f"{value.scheme}://{value.host}/…" if isinstance(value, httpx.URL) else value for value in record.args)
    return True


def hide_addresses() -> None:
    """Make httpx log the host only; it logs every request with its whole address otherwise."""
    logging.getLogger("httpx").addFilter(_host_only)  # adding it again changes nothing
