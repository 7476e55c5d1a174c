-- Grain: symbol, period, period_start. Forward-adjusted bars of ISO weeks and calendar months, in one pass over the daily ones.
-- A period is over once the exchange's next session lies in a later one. The build passes that session on, for SQL knows no
-- holidays; without it, a period is over once any symbol has a bar in a later one.
{% set next_session = var('next_session', none) %}
with daily as (
    select *, date_trunc('week', session)::date as week_start, date_trunc('month', session)::date as month_start
    from {{ ref('stg_adjusted_bars') }}
),

periods as (
    select
        symbol,
        case grouping(week_start) when 0 then 'week' else 'month' end as period,
        coalesce(week_start, month_start) as period_start,
        max(session) as last_session,
        count(*) as sessions,
        arg_min(adj_open, session) as adj_open,
        max(adj_high) as adj_high,
        min(adj_low) as adj_low,
        arg_max(adj_close, session) as adj_close,
        case when count(adj_volume) = count(*) then sum(adj_volume) end as adj_volume,
        arg_max(close, session) as close,
        max(known_at) as known_at
    from daily
    group by grouping sets ((symbol, week_start), (symbol, month_start))
)

select
    * exclude (known_at),
    {% if next_session -%}
    period_start < date_trunc(period, date '{{ next_session }}') as is_complete,
    {%- else -%}
    period_start < max(period_start) over (partition by period) as is_complete,
    {%- endif %}
    known_at
from periods
