-- Grain: symbol, week_start. Forward-adjusted bars of ISO weeks: Monday to Sunday, across a year's end too.
select * exclude (period) rename (period_start as week_start)
from {{ ref('period_bars') }}
where period = 'week'
