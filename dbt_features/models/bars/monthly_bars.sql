-- Grain: symbol, month_start. Forward-adjusted bars of calendar months.
select * exclude (period) rename (period_start as month_start)
from {{ ref('period_bars') }}
where period = 'month'
