{#
No feature that this relation stores or computes lies outside the bounds of its column's meta, but for a 1e-9 of them, or is not a
finite number. Columns whose stored extremes lie inside cost nothing. `days`: only in the newest days. Bounds hold for bars that do
not contradict themselves: rows less than 400 days after a bar that a person released, longer than any window, are left out.
#}
{% test within_ranges(model, days=none) %}
{%- set keys, outside = [], {} -%}
{%- if execute -%}
    {%- for node in (graph.nodes.values() | list) + (graph.sources.values() | list)
            if node.resource_type in ('model', 'source') and (node.schema, node.name) == (model.schema, model.identifier) -%}
        {%- do keys.extend(['symbol', 'session'] if 'symbol' in node.columns else ['session']) -%}
        {%- for name, column in node.columns.items() if column.meta.get('table') == node.name -%}
            {%- set low, high = column.meta.get('low', -1.7976931348623157e308), column.meta.get('high', 1.7976931348623157e308) -%}
            {%- set margin = 1e-9 * [column.meta.get('low', 0) | abs, column.meta.get('high', 0) | abs] | max -%}
            {%- do outside.update({name: name ~ ' < ' ~ (low - margin) ~ ' or ' ~ name ~ ' > ' ~ (high + margin)}) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- if not outside -%}{{ exceptions.raise_compiler_error('No column of ' ~ model ~ ' has a range in its meta.') }}{%- endif -%}
{%- endif %}
select
    {{ keys | join(', ') }},
    concat_ws(', '
        {%- for name, condition in outside.items() %},
        case when {{ condition }} then '{{ name }} = ' || {{ name }} end
        {%- endfor %}
    ) as outside_their_range
from {{ newest_days(model, days) }}
where ({{ outside.values() | join('\n   or ') }})
{%- if 'symbol' in keys %}
  and (symbol, session) not in (
      select (symbol, unnest(generate_series(session, session + 399, interval 1 day))::date)
      from data_quality.reviews -- no source: people write it, no asset does
      where decision = 'release'
  )
{%- endif %}
{% endtest %}
