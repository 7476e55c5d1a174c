{{ config(meta={"description": "One row per symbol and session."}) }}
select symbol, session, count(*) as rows_found
from {{ source('feature_store', 'technical_v1') }}
group by symbol, session
having count(*) > 1
