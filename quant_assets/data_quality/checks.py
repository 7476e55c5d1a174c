"""What the rules found, as checks on the bars: they warn, for `clean_bars` holds the offenders back."""

from collections.abc import Iterator

import dagster as dg

from quant_assets.assets import markdown_table
from quant_assets.data_quality.assets import CLEAN_BARS
from quant_assets.market_data.assets import BARS
from quant_assets.resources import DeskResource, WarehouseResource

RULES = {
    "ohlc_order": "High is the highest and low the lowest of the four prices.",
    "non_positive_price": "Every price is positive.",
    "identical_series": "No two symbols carry one series of bars.",
}


@dg.multi_asset_check(
    specs=[
        *(dg.AssetCheckSpec(rule, asset=BARS, additional_deps=[CLEAN_BARS], description=text) for rule, text in RULES.items()),
        dg.AssetCheckSpec(
            "no_critical", asset=CLEAN_BARS, blocking=True, description="No bar goes on that breaks a rule and was not released."
        ),
    ],
)
def bar_rules(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> Iterator[dg.AssetCheckResult]:
    """Report the findings of tonight's session by rule; fail when one of them slipped into the clean bars."""
    found = warehouse.client.read(
        """
        select rule, count(*) as total, count(*) filter (anomaly.session = newest.session) as tonight
        from data_quality.anomalies as anomaly, (select max(session) as session from market_data.daily_bars where source = $source) as newest
        group by rule
        """,
        {"source": desk.settings.source},
    )
    counts = {rule: (total, tonight) for rule, total, tonight in found.iter_rows()}
    for rule in RULES:
        total, tonight = counts.get(rule, (0, 0))
        yield dg.AssetCheckResult(
            check_name=rule,
            asset_key=BARS,
            passed=tonight == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{tonight} bars of the last session, {total} in all history; each is held back until released.",
            metadata={"tonight": tonight, "total": total},
        )
    slipped = warehouse.client.read(
        """
        select symbol, session, open, high, low, close from data_quality.clean_bars as bar
        where (least(open, low, close) <= 0 or high < greatest(open, low, close) or low > least(open, close))
          and not exists (select 1 from data_quality.reviews as review where review.symbol = bar.symbol and review.session = bar.session)
        limit 20
        """
    )
    yield dg.AssetCheckResult(
        check_name="no_critical", asset_key=CLEAN_BARS, passed=slipped.is_empty(), metadata={"offenders": markdown_table(slipped)}
    )
