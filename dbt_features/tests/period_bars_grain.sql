{{ config(meta={"description": "One row per symbol, period and first day."}) }}
select symbol, period, period_start, count(*) as rows_found
from {{ ref('period_bars') }}
group by all
having count(*) > 1
