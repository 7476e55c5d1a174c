{#
Low ≤ open, close ≤ high, all positive, but for rounding. A period with a bar that a person released is left out: such a
bar may be out of order, and somebody has looked at it.
#}
{% test prices_in_order(model, period) %}
select *
from {{ model }} as bars
where (
    least(adj_open, adj_close) < adj_low * (1 - 1e-12)
    or greatest(adj_open, adj_close) > adj_high * (1 + 1e-12)
    or adj_low <= 0
)
and not exists (
    select 1 from data_quality.reviews as review -- no source: people write it, no asset does
    where review.symbol = bars.symbol
      and date_trunc('{{ period }}', review.session) = bars.{{ period }}_start
      and review.decision = 'release'
)
{% endtest %}
