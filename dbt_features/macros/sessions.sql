{#
The sessions of a group as a set of bits, one for each day from 1900 to 2100. Over 12.4 million rows of 10,000 symbols it
is made in 0.3 s, where grouping by symbol and session takes 3 to 6 s and a join on them 3 s.
#}
{% macro sessions_as_bits(session='session') %}bitstring_agg(({{ session }} - date '1900-01-01')::integer, 0, 73413){% endmacro %}

{#
A relation, or of it the sessions of the newest days that technical_v1 has. The day stands there as a value, for a filter
that is a query of its own is not moved below the windows of a view, which would then compute all of its sessions.
#}
{% macro newest_days(relation, days) %}
    {%- if days -%}
        {%- set newest = run_query("select max(session) from " ~ source('feature_store', 'technical_v1')) -%}
        (select * from {{ relation }} where session > date '{{ (execute and newest.columns[0].values()[0]) or '9999-12-31' }}' - {{ days }}) as newest
    {%- else -%}
        {{ relation }}
    {%- endif -%}
{% endmacro %}

{# Rows of either relation, by symbol and session, that the other lacks; of symbols whose sets of sessions differ only these are joined. #}
{% macro rows_on_one_side(one, other) %}
with differing as (
    select symbol
    from (select symbol, {{ sessions_as_bits() }} as sessions from {{ one }} group by symbol) as one
    full join (select symbol, {{ sessions_as_bits() }} as sessions from {{ other }} group by symbol) as other using (symbol)
    where one.sessions is distinct from other.sessions
)

select symbol, session, one.symbol is null as is_missing
from (select symbol, session from {{ one }} where symbol in (from differing)) as one
full join (select symbol, session from {{ other }} where symbol in (from differing)) as other using (symbol, session)
where one.symbol is null or other.symbol is null
{% endmacro %}
