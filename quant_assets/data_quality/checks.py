"""What the rules found, as checks on the bars: they warn, for `clean_bars` holds the offenders back."""

from collections.abc import Iterator

import dagster as dg

from quant_assets.assets import markdown_table
from quant_assets.data_quality.assets import CLEAN_BARS
from quant_assets.data_quality.catalog import RULES
from quant_assets.market_data.assets import BARS
from quant_assets.resources import DeskResource, Night, WarehouseResource


@dg.multi_asset_check(
    specs=[
        *(
            dg.AssetCheckSpec(rule, asset=BARS, additional_deps=[CLEAN_BARS], description=f"Looks for this: {text}")
            for rule, text in RULES.items()
        ),
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
    open_findings = warehouse.client.read(
        """
        select anomaly.*, anomaly.known_at >= $since and anomaly.session <= $last as fresh
        from data_quality.anomalies as anomaly
        left join market_data.latest_daily_bars as bar using (symbol, session, source)
        where source = $source and coalesce(bar.known_at = anomaly.bar_known_at, true) and not exists (
            select 1 from data_quality.reviews as review
            where review.symbol = anomaly.symbol and review.session = anomaly.session and review.source = anomaly.source
                and review.rule = anomaly.rule and review.bar_known_at = anomaly.bar_known_at
            having arg_max(review.decision, review.decided_at) = 'release'
        )
        order by score desc, session desc, symbol
        """,
        {"source": desk.settings.source, "since": desk.calendar.known_at(night.sessions[0]), "last": night.sessions[-1]},
    )
    for rule, text in RULES.items():
        found = open_findings.filter(rule=rule)
        tonight = found.filter("fresh")
        counts = {f"{severity}_tonight": tonight.filter(severity=severity).height for severity in ("critical", "warning", "info")}
        yield dg.AssetCheckResult(
            check_name=rule,
            asset_key=BARS,
            passed=not counts["critical_tonight"],
            severity=dg.AssetCheckSeverity.WARN,
            description=f"Tonight {counts['critical_tonight']} critical and {counts['warning_tonight']} warnings, in all history "
            f"{found.filter(severity='critical').height} critical ones open, held back until released. Looked for: {text}",
            metadata={
                **counts,
                "critical_open": found.filter(severity="critical").height,
                "worst_tonight": markdown_table(tonight.select("symbol", "session", "severity", "detector", "detail").head(20)),
            },
        )
    slipped = warehouse.client.read(
        """
        select symbol, session, open, high, low, close from data_quality.clean_bars as bar
        where (least(open, low, close) <= 0 or high < greatest(open, low, close) or low > least(open, close))
          and not exists (
              select 1 from data_quality.reviews as review
              where review.symbol = bar.symbol and review.session = bar.session and review.source = bar.source
                  and review.bar_known_at = bar.known_at and decision = 'release'
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
