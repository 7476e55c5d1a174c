-- Grain: symbol, session. Clean bars with units in their names; prices in the listing currency, volume in shares.
select
    symbol,
    session,
    open as open_price,
    high as high_price,
    low as low_price,
    close as close_price,
    volume as volume_shares,
    close * volume as traded_value,
    basis = 'raw' as is_raw,
    known_at
from {{ source('data_quality', 'clean_bars') }}
