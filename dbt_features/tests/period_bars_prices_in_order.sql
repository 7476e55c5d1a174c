{{ config(meta={"description": "Low is lowest, high is highest, all are positive, but for bars that a person released."}) }}
select *
from {{ ref('period_bars') }} as bars
where (
    least(adj_open, adj_close) < adj_low * (1 - 1e-12)
    or greatest(adj_open, adj_close) > adj_high * (1 + 1e-12)
    or adj_low <= 0
)
and not exists (
    select 1 from data_quality.reviews as review -- no source: people write it, no asset does
    where review.symbol = bars.symbol
      and date_trunc(bars.period, review.session) = bars.period_start
      and review.decision = 'release'
)
