{#
Grain: symbol and the period's first calendar day. Adjusted bars of one calendar period (`week` from Monday, or `month`) as one.

A period is over once the exchange's next session lies in a later one (`next_session`, which the build passes on, for SQL
knows no holidays); without it, once any symbol has a bar in a later one.
#}
{% macro period_bars(period) %}
with market as (
    select
        max(date_trunc('{{ period }}', session)::date) as newest_period,
        coalesce(
            date_trunc('{{ period }}', {{ "date '" ~ var('next_session') ~ "'" if var('next_session', none) else "null::date" }})::date > newest_period,
            false
        ) as newest_is_over
    from {{ ref('stg_adjusted_bars') }}
)

select
    symbol,
    date_trunc('{{ period }}', session)::date as {{ period }}_start,
    max(session) as last_session,
    count(*) as sessions,
    arg_min(adj_open, session) as adj_open,
    max(adj_high) as adj_high,
    min(adj_low) as adj_low,
    arg_max(adj_close, session) as adj_close,
    case when count(adj_volume) = count(*) then sum(adj_volume) end as adj_volume,
    arg_max(close, session) as close,
    {{ period }}_start < any_value(newest_period) or any_value(newest_is_over) as is_complete,
    max(known_at) as known_at
from {{ ref('stg_adjusted_bars') }}
cross join market
group by symbol, {{ period }}_start
{% endmacro %}
