"""The proof that stored features do not peek, as checks that block: a signal from tomorrow's prices must not go on."""

from collections.abc import Iterator

import dagster as dg

from quant_assets.assets import markdown_table
from quant_assets.feature_store.assets import ALPHA, DRIFT_KEY, FEATURES
from quant_assets.resources import DeskResource, WarehouseResource


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "recomputed_as_of",
            asset=FEATURES,
            blocking=True,
            description="Random stored rows come out equal from what was known as of their known_at.",
        ),
        dg.AssetCheckSpec(
            "cut_changes_nothing",
            asset=FEATURES,
            blocking=True,
            description="Without the bars after a random session, the rows up to it are the stored ones.",
        ),
        dg.AssetCheckSpec(
            "recomputed_as_of",
            asset=ALPHA,
            blocking=True,
            description="The rows of a random session come out equal from what was known as of their known_at.",
        ),
    ],
    can_subset=True,
)
def no_lookahead(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> Iterator[dg.AssetCheckResult]:
    """Recompute random rows; the seed is the night's date and stands in the metadata."""
    from quant_assets.feature_store.proof import cut_changes_nothing, recomputed_as_of

    seed = desk.night(context, warehouse.client).tonight.toordinal()
    proofs = {
        (FEATURES, "recomputed_as_of"): lambda: recomputed_as_of(warehouse.client, desk.calendar, "technical_v1", seed),
        (FEATURES, "cut_changes_nothing"): lambda: cut_changes_nothing(warehouse.client, seed),
        (ALPHA, "recomputed_as_of"): lambda: recomputed_as_of(warehouse.client, desk.calendar, "alpha_v1", seed),
    }
    for key in context.selected_asset_check_keys:
        proof = proofs[key.asset_key, key.name]()
        yield dg.AssetCheckResult(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=proof.offending.is_empty(),
            description=f"{proof.offending.height} values of {proof.rows} rows came out otherwise (seed {proof.seed}).",
            metadata={
                "seed": proof.seed,
                "rows": proof.rows,
                "offending_values": proof.offending.height,
                "offenders": markdown_table(proof.offending.head(20)),
            },
        )


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "no_critical_drift",
            asset=DRIFT_KEY,
            description="No feature lies a standard deviation or more from its training window, past all chance.",
        )
    ]
)
def feature_drift(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> dg.AssetCheckResult:
    """Warn of the features that drifted far; retraining is for a person, or a later stage, to ask for."""
    night = desk.night(context, warehouse.client)
    found = warehouse.client.read(
        """
        select feature, shift, effective_sessions, p_value, p_adjusted from feature_store.drift_as_of($as_of)
        where session = $session and view = $view and severity = 'critical' order by p_value
        """,
        {"as_of": night.as_of, "session": night.tonight, "view": desk.settings.feature_view},
    )
    return dg.AssetCheckResult(
        asset_key=DRIFT_KEY,
        check_name="no_critical_drift",
        passed=found.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{found.height} features of {desk.settings.feature_view} drifted a standard deviation or more.",
        metadata={"critical": found.height, "features": markdown_table(found.head(20))},
    )
