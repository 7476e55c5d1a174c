-- Grain: symbol, session. Clean bars in the forward-adjusted basis: raw price × price_factor, raw volume / share_factor.
-- Events without a bar stand among the bars, so that one pass tells when everything at or before a session was known.
with clean as materialized (
    select symbol, session, open, high, low, close, volume, source, basis, known_at
    from {{ source('data_quality', 'clean_bars') }}
),

actions as (
    select symbol, session, kind, value, known_at
    from {{ source('market_data', 'corporate_actions') }}
    where source in (select source from clean)
),

events as (
    select * from clean
    union all by name
    select symbol, session, known_at from actions
    union all by name
    select symbol, session, known_at from {{ source('data_quality', 'anomalies') }} where severity = 'critical'
    union all by name
    select symbol, session, decided_at as known_at from data_quality.reviews -- no source: people write it, no asset does
),

bars as materialized (
    select
        * exclude (source, known_at),
        lag(close ignore nulls) over in_time as previous_close,
        max(known_at) over (in_time range unbounded preceding) as known_at
    from events
    window in_time as (partition by symbol order by session)
    qualify close is not null
),

factors as ({{ forward_factors('bars', 'actions') }})

select
    bars.* exclude (previous_close, known_at),
    coalesce(price_factor, 1) as price_factor,
    coalesce(share_factor, 1) as share_factor,
    open * coalesce(price_factor, 1) as adj_open,
    high * coalesce(price_factor, 1) as adj_high,
    low * coalesce(price_factor, 1) as adj_low,
    close * coalesce(price_factor, 1) as adj_close,
    volume / coalesce(share_factor, 1) as adj_volume,
    known_at
from bars
asof left join factors
    on factors.symbol = bars.symbol and factors.from_session <= bars.session
