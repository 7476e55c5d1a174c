{{ config(meta={
    "description": "No feature row without a clean bar, and no clean bar without a feature row.",
    "dagster": {"ref": {"name": "stg_bars"}},
}) }}
select symbol, session, features.symbol is null as feature_row_missing
from {{ source('feature_store', 'technical_v1') }} as features
full join {{ ref('stg_bars') }} as bars
    using (symbol, session)
where features.symbol is null or bars.symbol is null
