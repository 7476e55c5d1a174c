"""What the rules found, as checks on the bars: they warn, for `clean_bars` holds the offenders back."""

from collections.abc import Iterator

import dagster as dg

from quant_assets.assets import markdown_table
from quant_assets.data_quality.assets import CLEAN_BARS
from quant_assets.market_data.assets import BARS
from quant_assets.resources import DeskResource, Night, WarehouseResource

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
    can_subset=True,  # so that a run of one stage takes the checks of its own assets alone
)
def bar_rules(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> Iterator[dg.AssetCheckResult]:
    """Report what became known with the run's sessions, by rule; fail when a broken bar slipped into the clean ones."""
    wanted = {(key.asset_key, key.name) for key in context.selected_asset_check_keys}
    results = _results(desk.night(context, warehouse.client), warehouse, desk)
    yield from (result for result in results if (result.asset_key, result.check_name) in wanted)


def _results(night: Night, warehouse: WarehouseResource, desk: DeskResource) -> Iterator[dg.AssetCheckResult]:
    held = warehouse.client.read(
        """
        select rule, count(*) as total, count(*) filter (anomaly.known_at >= $since and anomaly.session <= $last) as fresh
        from data_quality.anomalies as anomaly join market_data.latest_daily_bars as bar
            on bar.symbol = anomaly.symbol and bar.session = anomaly.session and bar.known_at = anomaly.bar_known_at
        anti join data_quality.clean_bars as clean on clean.symbol = bar.symbol and clean.session = bar.session
        where bar.source = $source and anomaly.severity = 'critical'
        group by rule
        """,
        {"source": desk.settings.source, "since": desk.calendar.known_at(night.sessions[0]), "last": night.sessions[-1]},
    )
    counts = {rule: (total, fresh) for rule, total, fresh in held.iter_rows()}
    for rule in RULES:
        total, fresh = counts.get(rule, (0, 0))
        yield dg.AssetCheckResult(
            check_name=rule,
            asset_key=BARS,
            passed=fresh == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{fresh} bars found tonight, {total} in all history; each is held back until released.",
            metadata={"tonight": fresh, "total": total},
        )
    slipped = warehouse.client.read(
        """
        select symbol, session, open, high, low, close from data_quality.clean_bars as bar
        where (least(open, low, close) <= 0 or high < greatest(open, low, close) or low > least(open, close))
          and not exists (
              select 1 from data_quality.reviews as review
              where review.symbol = bar.symbol and review.session = bar.session and review.bar_known_at = bar.known_at and decision = 'release'
          )
        order by session desc, symbol
        """
    )
    yield dg.AssetCheckResult(
        check_name="no_critical",
        asset_key=CLEAN_BARS,
        passed=slipped.is_empty(),
        description=f"{slipped.height} clean bars break the order of their prices or are not positive, and nobody released them.",
        metadata={"offending_rows": slipped.height, "offenders": markdown_table(slipped.head(20))},
    )
