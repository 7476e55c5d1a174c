{{ config(meta={
    "description": "Every clean bar is in exactly one week and one month.",
    "dagster": {"ref": {"name": "period_bars"}},
}) }}
-- Counted by weekday and day of the month, rather than by truncating dates as the model does.
with clean as (
    select symbol, session, session - isodow(session)::integer + 1 as week_start, session - day(session)::integer + 1 as month_start
    from {{ source('data_quality', 'clean_bars') }}
),

counted as (
    select
        symbol,
        case when week_start is null then 'month' else 'week' end as period,
        coalesce(week_start, month_start) as period_start,
        count(*) as clean_bars,
        max(session) as newest_session
    from clean
    group by grouping sets ((symbol, week_start), (symbol, month_start))
)

select symbol, period, period_start, clean_bars, bars.sessions
from counted
full join {{ ref('period_bars') }} as bars using (symbol, period, period_start)
where clean_bars is distinct from bars.sessions or newest_session is distinct from bars.last_session
