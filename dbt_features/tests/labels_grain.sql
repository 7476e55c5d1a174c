{{ config(meta={"description": "One row per symbol, session and horizon."}) }}
select symbol, session, horizon, count(*) as rows_found
from {{ source('feature_store', 'labels') }}
group by symbol, session, horizon
having count(*) > 1
