"""What is still to be asked of a vendor, and in which order."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime


@dataclass(frozen=True)
class Ask:
    """A symbol that lacks sessions up to `target`: how many, whether the last hundred would do, and what was refused for it in this run."""

    symbol: str
    since: date
    target: date
    lacking: int
    wants_full: bool
    datatype: str
    attempt: int = 1
    refused: frozenset[str] = frozenset()


@dataclass
class AskQueue:
    """What is still to be asked, in the order given; what shall be tried again comes when its time has."""

    _fresh: deque[Ask] = field(default_factory=deque)
    _later: list[tuple[datetime, int, Ask]] = field(default_factory=list)
    _number: int = 0

    @classmethod
    def of(cls, asks: Iterable[Ask]) -> AskQueue:
        return cls(deque(asks))

    def __len__(self) -> int:
        return len(self._fresh) + len(self._later)

    def __iter__(self) -> Iterator[Ask]:
        yield from self._fresh
        yield from (ask for _, _, ask in self._later)

    def next(self, now: datetime) -> Ask | None:
        """Take out what is due."""
        if self._later and self._later[0][0] <= now:
            return heapq.heappop(self._later)[2]
        return self._fresh.popleft() if self._fresh else None

    def put_back(self, ask: Ask) -> None:
        """Let an ask be the next one."""
        self._fresh.appendleft(ask)

    def put_off(self, ask: Ask, due: datetime) -> None:
        """Let an ask wait for its next attempt."""
        heapq.heappush(self._later, (due, self._number, ask))
        self._number += 1

    def seconds_to_next(self, now: datetime) -> float | None:
        """Until something is due; None where nothing waits."""
        return max(0.0, (self._later[0][0] - now).total_seconds()) if self._later else None
