{{ config(meta={
    "description": "No session of the market without clean bars, and none that counts more symbols than have one.",
    "dagster": {"ref": {"name": "alpha_v1"}},
}) }}
select session, market.symbols, features.symbols as symbols_with_features
from {{ source('feature_store', 'market_v1') }} as market
left join (select session, count(*) as symbols from {{ source('feature_store', 'technical_v1') }} group by session) as features using (session)
where features.symbols is null or market.symbols > features.symbols
