-- Grain: session. The cross-section of one session: how many symbols, how they moved, how far apart.
select
    features.session,
    count(*) as symbols,
    median(features.price_change_1d) as median_price_change_1d,
    stddev_samp(features.price_change_1d) as dispersion_1d,
    avg((features.price_change_1d > 0)::integer) as share_advancing,
    avg((bars.close_price > features.sma_50)::integer) as share_above_sma_50,
    sum(bars.traded_value) as traded_value,
    max(features.known_at) as known_at
from {{ source('feature_store', 'technical_v1') }} as features
inner join {{ ref('stg_bars') }} as bars
    using (symbol, session)
group by features.session
