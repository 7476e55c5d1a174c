"""Which model version may score a session: a question to the ledger of promotions, not to an alias."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from quant_assets.schemas import PROMOTIONS
from quant_assets.warehouse import Warehouse

MODEL = "signal"


@dataclass(frozen=True)
class Champion:
    """One promoted version: what a night needs of its row in `signals.promotions`."""

    model_version: str
    trained_until: datetime
    definition_hash: str
    model_sha256: str


def champion_for(warehouse: Warehouse, horizon: int, close: datetime, as_of: datetime) -> Champion | None:
    """The version that may score the session which closes then: trained on nothing known at or after its close.

    The last one promoted before the close; where there is none (the first night trains its own), the first promoted
    after it. So training again on the same evening does not change what was scored. None when no version may.
    """
    rows = warehouse.read(
        f"""
        select model_version, trained_until, definition_hash, model_sha256 from {PROMOTIONS.full_name}
        where model = $model and horizon = $horizon and trained_until < $close and promoted_at <= $as_of
        order by promoted_at < $close desc,
            case when promoted_at < $close then promoted_at end desc,
            promoted_at, recorded_at limit 1
        """,
        {"model": MODEL, "horizon": horizon, "close": close, "as_of": as_of},
    )
    return Champion(**rows.row(0, named=True)) if rows.height else None
