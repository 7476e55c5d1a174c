{#
Grain: symbol, from_session. The cumulative factors of forward adjustment, one row for each bar at which they change.

`bars` and `actions` name relations: bars with symbol, session, basis and previous_close (null at a symbol's first bar),
actions with symbol, session, kind and value. The rules are those of feature_store/adjustment.py, which a test holds this
to: an action applies at its symbol's next bar, ex-session by ex-session and a split before a dividend; what cannot be
right, meets the first bar or a restated one, counts as 1.
#}
{% macro forward_factors(bars, actions) %}
with met as (
    select
        action.symbol,
        bar.session as from_session,
        action.session as ex_session,
        action.kind,
        action.value,
        bar.previous_close,
        isfinite(action.value) and action.value > 0 as is_sound,
        case when action.kind = 'split' and isfinite(action.value) and action.value > 0 then action.value else 1 end as ratio
    from {{ actions }} as action
    asof join {{ bars }} as bar
        on action.symbol = bar.symbol and action.session <= bar.session
    where bar.previous_close is not null and bar.basis = 'raw'
),

-- A dividend per new share is dividend × (splits so far) per share of the previous close.
shares as (
    select
        *,
        case when kind = 'dividend' and is_sound then value * product(ratio) over on_bar / previous_close else 0 end as dividend_share
    from met
    window on_bar as (partition by symbol, from_session order by ex_session, kind desc, value rows unbounded preceding)
),

taken as (
    select *, sum(dividend_share) over on_bar as taken_share
    from shares
    window on_bar as (partition by symbol, from_session order by ex_session, kind desc, value rows unbounded preceding)
),

steps as (
    select symbol, from_session, product(ratio) / (1 - sum(dividend_share)) as price_step, product(ratio) as share_step
    from taken
    where is_sound and (kind = 'split' or (kind = 'dividend' and taken_share < 1))
    group by symbol, from_session
)

select
    symbol,
    from_session,
    product(price_step) over (partition by symbol order by from_session rows unbounded preceding) as price_factor,
    product(share_step) over (partition by symbol order by from_session rows unbounded preceding) as share_factor
from steps
{% endmacro %}
