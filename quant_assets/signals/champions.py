"""Which model version may score a session: a question to the ledger of decisions, not to an alias."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from quant_assets.schemas import PROMOTIONS
from quant_assets.warehouse import Warehouse

MODEL = "signal"
FOREVER = datetime(9999, 12, 31)
AT_ONCE = timedelta(seconds=1)
"""Decisions of one instant follow one another by microseconds; those within this count as made at it."""
PROMOTED, REJECTED, ROLLED_BACK, DELETED = "promoted", "rejected", "rolled_back", "deleted"


@dataclass(frozen=True)
class Champion:
    """One version that a decision put in use: what a night needs of its row in `signals.promotions`."""

    model_version: str
    trained_until: datetime
    feature_view: str
    definition_hash: str
    model_sha256: str

    def misfit(self, view: str, definition_hash: str) -> str | None:
        """Why it may not score a view's features as they are defined; None where it may."""
        if self.feature_view != view:
            return f"version {self.model_version} was trained on the view {self.feature_view}, not on {view}"
        if self.definition_hash != definition_hash:
            return (
                f"version {self.model_version} was trained on another definition of {view}: "
                f"{self.definition_hash[:12]}, which is {definition_hash[:12]} now"
            )
        return None


def champion_for(
    warehouse: Warehouse, horizon: int, close: datetime, as_of: datetime, view: str, definition_hash: str, label_threshold: float = 0.0
) -> Champion | None:
    """The champion of the session which closes then, as `champions_for` tells it; None when there is none."""
    return champions_for(warehouse, horizon, [close], as_of, view, definition_hash, label_threshold).get(close)


def champion_in_use(warehouse: Warehouse, horizon: int, view: str, definition_hash: str, label_threshold: float = 0.0) -> Champion | None:
    """The champion of the sessions to come, after all that was decided; None when there is none."""
    return champion_for(warehouse, horizon, FOREVER, FOREVER, view, definition_hash, label_threshold)


def champions_for(
    warehouse: Warehouse,
    horizon: int,
    closes: Collection[datetime],
    as_of: datetime,
    view: str,
    definition_hash: str,
    label_threshold: float = 0.0,
) -> dict[datetime, Champion]:
    """Per close, the champion of its session: a version trained on nothing known at or after it. Without one, no entry.

    What counts are the decisions `promoted` and `rolled_back` about versions that were not deleted afterwards, of a label's
    horizon and threshold. One trained on the view as it is defined now; only where there is none, one of another view or
    definition, which may not score (`Champion.misfit`, and its contract refuses). Of these the last one promoted before the
    close; where there is none (the first night trains its own), the first promoted after it. So training again on the same
    evening does not change what was scored. Of versions promoted at one instant, the higher number came last; what was decided
    within `AT_ONCE` of the instant asked for counts as decided at it.
    """
    rows = warehouse.read(
        f"""
        with decisions as (select * from {PROMOTIONS.full_name} where model = $model and promoted_at <= $as_of)
        select close_at, model_version, trained_until, feature_view, definition_hash, model_sha256,
            feature_view <> $view or definition_hash <> $definition_hash as misfit, promoted_at >= close_at as late, if(late, 1, -1) as way
        from decisions join (select distinct unnest($closes::timestamp[]) as close_at) on trained_until < close_at
        where horizon = $horizon and label_threshold = $label_threshold and decision in ('{PROMOTED}', '{ROLLED_BACK}') and not exists (
            select 1 from decisions as deletion
            where deletion.decision = '{DELETED}' and deletion.model_version = decisions.model_version
                and deletion.promoted_at > decisions.promoted_at
        )
        qualify row_number() over (
            partition by close_at order by misfit, late, way * epoch_us(promoted_at), way * model_version::bigint
        ) = 1
        """,
        {
            "model": MODEL,
            "horizon": horizon,
            "label_threshold": label_threshold,
            "closes": list(closes),
            "as_of": min(as_of, FOREVER - AT_ONCE) + AT_ONCE,
            "view": view,
            "definition_hash": definition_hash,
        },
    ).drop("misfit", "late", "way")
    return {close: Champion(*champion) for close, *champion in rows.iter_rows()}
