"""Which model version may score a session: a question to the ledger of promotions, not to an alias."""

from __future__ import annotations

from collections.abc import Collection
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
    """The version that may score the session which closes then, as `champions_for` tells it; None when no version may."""
    return champions_for(warehouse, horizon, [close], as_of).get(close)


def champions_for(warehouse: Warehouse, horizon: int, closes: Collection[datetime], as_of: datetime) -> dict[datetime, Champion]:
    """Per close, the version that may score its session: trained on nothing known at or after it. Without one, no entry.

    The last one promoted before the close; where there is none (the first night trains its own), the first promoted
    after it. So training again on the same evening does not change what was scored. Of versions promoted at one
    instant, the higher number came last.
    """
    rows = warehouse.read(
        f"""
        select close_at, model_version, trained_until, definition_hash, model_sha256, promoted_at >= close_at as late, if(late, 1, -1) as way
        from {PROMOTIONS.full_name} join (select distinct unnest($closes::timestamp[]) as close_at) on trained_until < close_at
        where model = $model and horizon = $horizon and promoted_at <= $as_of
        qualify row_number() over (
            partition by close_at order by late, way * epoch_us(promoted_at), way * model_version::bigint
        ) = 1
        """,
        {"model": MODEL, "horizon": horizon, "closes": list(closes), "as_of": as_of},
    ).drop("late", "way")
    return {close: Champion(*champion) for close, *champion in rows.iter_rows()}
