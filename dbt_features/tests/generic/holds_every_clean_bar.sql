{#
Every clean bar is in exactly one period: each period has as many sessions as it has clean bars, counted by the weekday or the
day of the month rather than by truncating dates.
#}
{% test holds_every_clean_bar(model, period) %}
with counted as (
    select
        symbol,
        session - {{ {'week': 'isodow(session)', 'month': 'day(session)'}[period] }}::integer + 1 as {{ period }}_start,
        count(*) as clean_bars,
        max(session) as newest_session
    from {{ source('data_quality', 'clean_bars') }}
    group by all
)

select symbol, {{ period }}_start, clean_bars, bars.sessions
from counted
full join {{ model }} as bars using (symbol, {{ period }}_start)
where clean_bars is distinct from bars.sessions or newest_session is distinct from bars.last_session
{% endtest %}
