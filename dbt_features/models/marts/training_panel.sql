-- Grain: symbol, session, horizon. Features beside the outcome they came before.
-- features_known_at is when a model could have used the row, known_at when it could have learned from it.
select
    features.* exclude (known_at),
    outcome.horizon,
    outcome.forward_return,
    outcome.up,
    features.known_at as features_known_at,
    greatest(features.known_at, outcome.known_at) as known_at
from {{ source('feature_store', 'technical_v1') }} as features
inner join {{ source('feature_store', 'labels') }} as outcome
    using (symbol, session)
