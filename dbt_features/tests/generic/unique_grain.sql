{#
No two rows share these columns, of which the last is a date. Groups that have fewer dates than rows are looked at more closely.
`days`: only in the newest days.
#}
{% test unique_grain(model, columns, days=none) %}
{%- set rows_tested = newest_days(model, days) -%}
{%- set group = columns[:-1] | join(', ') -%}
select {{ columns | join(', ') }}, count(*) as rows_found
from {{ rows_tested }}
{% if group -%}
where ({{ group }}) in (
    select ({{ group }})
    from {{ rows_tested }}
    group by {{ group }}
    having count(*) > coalesce(bit_count({{ sessions_as_bits(columns[-1]) }}), 0)
)
{% endif -%}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}
