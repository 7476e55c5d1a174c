{{ config(meta={
    "description": "No label without the features that it is the outcome of.",
    "dagster": {"ref": {"name": "training_panel"}},
}) }}
with labelled as (
    select symbol, {{ sessions_as_bits() }} as sessions from {{ source('feature_store', 'labels') }} group by symbol
),

featured as (
    select symbol, {{ sessions_as_bits() }} as sessions from {{ source('feature_store', 'technical_v1') }} group by symbol
),

astray as (
    select symbol
    from labelled
    left join featured using (symbol)
    where featured.sessions is null or labelled.sessions is null or (labelled.sessions & featured.sessions) <> labelled.sessions
)

select symbol, session, horizon
from (from {{ source('feature_store', 'labels') }} where symbol in (from astray)) as label
anti join (from {{ source('feature_store', 'technical_v1') }} where symbol in (from astray)) as features using (symbol, session)
