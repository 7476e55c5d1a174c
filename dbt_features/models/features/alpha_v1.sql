-- Grain: symbol, session, one row per clean bar. The features of alpha_v1: those that are stored by symbol, and what the
-- cross-section of the session, the market and the calendar add to them. Definitions and sources stand in the catalog.
--
-- Whoever reads some sessions pays for these: every window over symbols is partitioned by session, so that a filter on it
-- moves below. Ranks are taken few at a time and joined, for each sort carries all columns beside it: in one chain they
-- took over three times as long. Across symbols there are ranks, medians, counts, and one sum, of exact decimals: no value
-- depends on the order of rows. The symbols out of scope have no part in them, and no place. A traded value above 1e30 is
-- left out of that sum, which then holds 10,000 symbols within 38 digits.
with market as (
    select
        session,
        market_return_1d,
        market_dispersion_1d,
        market_breadth_1d,
        market_skewness_1d,
        case when sessions >= 5 then list_product(growth[-5:]) - 1 end as market_return_5d,
        case when sessions >= 20 then list_product(growth[-20:]) - 1 end as market_return_20d,
        case when sessions >= 60 then list_product(growth[-60:]) - 1 end as market_return_60d,
        case when sessions >= 252 then list_product(growth) - 1 end as market_return_252d,
        case when sessions >= 20 then list_stddev_samp(growth[-20:]) end as market_volatility_20,
        case when sessions >= 60 then list_stddev_samp(growth[-60:]) end as market_volatility_60,
        case when sessions >= 252 then list_stddev_samp(growth) end as market_volatility_252,
        case when sessions >= 252 then 1 - list_reduce(growth, lambda level, step: least(1.0, level * step), 1.0) end as market_drawdown_252,
        case when count(market_dispersion_1d) over last_20 = 20 then list_avg(dispersions[-20:]) end as market_dispersion_20,
        case when sessions >= 20 then list_avg(breadths) end as market_breadth_20,
        case when count(market_dispersion_1d) over last_20 = 20
            then list_var_samp(growth[-20:])
                / nullif(list_var_samp(growth[-20:]) + list_avg(list_transform(dispersions[-20:], lambda x: x * x)), 0)
        end as market_average_correlation_20,
        case when count(market_dispersion_1d) over last_60 = 60
            then list_var_samp(growth[-60:])
                / nullif(list_var_samp(growth[-60:]) + list_avg(list_transform(dispersions, lambda x: x * x)), 0)
        end as market_average_correlation_60,
        max(known_at) over last_252 as known_at
    from (
        select
            *,
            count(*) over last_252 as sessions,
            list(1 + market_return_1d) over last_252 as growth,
            list(market_dispersion_1d) over last_60 as dispersions,
            list(market_breadth_1d) over last_20 as breadths
        from {{ source('feature_store', 'market_v1') }}
        window
            last_20 as (order by session rows 19 preceding),
            last_60 as (order by session rows 59 preceding),
            last_252 as (order by session rows 251 preceding)
    )
    window
        last_20 as (order by session rows 19 preceding),
        last_60 as (order by session rows 59 preceding),
        last_252 as (order by session rows 251 preceding)
),

rank_of_technical as not materialized (
    select
        symbol,
        session,
        case when columns('^rank_') is not null then rank() over (partition by session order by columns('^rank_')) end as '\0',
        cume_dist() over (partition by session order by columns('^rank_')) as 'share_\0'
    from (
        select symbol, session, columns(['price_change_1d', 'rsi_14', 'volume_ratio']) as 'rank_\0'
        from {{ source('feature_store', 'technical_v1') }} as part
        semi join {{ source('market_data', 'scope') }} as stretch
            on stretch.symbol = part.symbol and part.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
    )
),

rank_of_momentum as not materialized (
    select
        symbol,
        session,
        case when columns('^rank_') is not null then rank() over (partition by session order by columns('^rank_')) end as '\0',
        cume_dist() over (partition by session order by columns('^rank_')) as 'share_\0'
    from (
        select symbol, session, columns(['reversal_5', 'reversal_20', 'momentum_126_21', 'momentum_252_21']) as 'rank_\0'
        from {{ source('feature_store', 'alpha_history_v1') }} as part
        semi join {{ source('market_data', 'scope') }} as stretch
            on stretch.symbol = part.symbol and part.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
    )
),

rank_of_trend as not materialized (
    select
        symbol,
        session,
        case when columns('^rank_') is not null then rank() over (partition by session order by columns('^rank_')) end as '\0',
        cume_dist() over (partition by session order by columns('^rank_')) as 'share_\0'
    from (
        select symbol, session, columns(['close_to_sma_50', 'close_to_sma_200', 'trend_slope_60', 'distance_from_high_252']) as 'rank_\0'
        from {{ source('feature_store', 'alpha_history_v1') }} as part
        semi join {{ source('market_data', 'scope') }} as stretch
            on stretch.symbol = part.symbol and part.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
    )
),

rank_of_volatility as not materialized (
    select
        symbol,
        session,
        case when columns('^rank_') is not null then rank() over (partition by session order by columns('^rank_')) end as '\0',
        cume_dist() over (partition by session order by columns('^rank_')) as 'share_\0'
    from (
        select symbol, session, columns(['return_volatility_20', 'parkinson_volatility_20', 'return_max_20', 'return_skewness_60']) as 'rank_\0'
        from {{ source('feature_store', 'alpha_history_v1') }} as part
        semi join {{ source('market_data', 'scope') }} as stretch
            on stretch.symbol = part.symbol and part.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
    )
),

rank_of_volume as not materialized (
    select
        symbol,
        session,
        case when columns('^rank_') is not null then rank() over (partition by session order by columns('^rank_')) end as '\0',
        cume_dist() over (partition by session order by columns('^rank_')) as 'share_\0'
    from (
        select symbol, session, columns(['volume_zscore_20', 'amihud_illiquidity_20', 'traded_value_sma_20', 'return_volume_correlation_20']) as 'rank_\0'
        from {{ source('feature_store', 'alpha_history_v1') }} as part
        semi join {{ source('market_data', 'scope') }} as stretch
            on stretch.symbol = part.symbol and part.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
    )
),

rank_of_market as not materialized (
    select
        symbol,
        session,
        case when columns('^rank_') is not null then rank() over (partition by session order by columns('^rank_')) end as '\0',
        cume_dist() over (partition by session order by columns('^rank_')) as 'share_\0'
    from (
        select symbol, session, columns(['beta_252', 'idiosyncratic_volatility_60', 'residual_momentum_126_21']) as 'rank_\0'
        from {{ source('feature_store', 'alpha_market_v1') }} as part
        semi join {{ source('market_data', 'scope') }} as stretch
            on stretch.symbol = part.symbol and part.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
    )
),

zscore_of_history as not materialized (
    select
        symbol,
        session,
        case when columns('^zscore_') > 3 then 3 when columns('^zscore_') < -3 then -3 else columns('^zscore_') end as '\0'
    from (
        select
            symbol,
            session,
            (columns('^zscore_') - median(columns('^zscore_')) over (partition by session))
            / nullif(1.4826 * mad(columns('^zscore_')) over (partition by session), 0) as '\0'
        from (
            select
                symbol,
                session,
                ln(case when traded_value_sma_20 > 0 then traded_value_sma_20 end) as zscore_traded_value_sma_20,
                ln(case when amihud_illiquidity_20 > 0 then amihud_illiquidity_20 end) as zscore_amihud_illiquidity_20,
                columns([
                    'momentum_252_21', 'momentum_126_21', 'reversal_5', 'reversal_20', 'return_volatility_60', 'close_to_sma_200', 'trend_slope_60', 'return_max_20'
                ]) as 'zscore_\0'
            from {{ source('feature_store', 'alpha_history_v1') }} as part
            semi join {{ source('market_data', 'scope') }} as stretch
                on stretch.symbol = part.symbol and part.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
        )
    )
),

zscore_of_market as not materialized (
    select
        symbol,
        session,
        case when columns('^zscore_') > 3 then 3 when columns('^zscore_') < -3 then -3 else columns('^zscore_') end as '\0'
    from (
        select
            symbol,
            session,
            (columns('^zscore_') - median(columns('^zscore_')) over (partition by session))
            / nullif(1.4826 * mad(columns('^zscore_')) over (partition by session), 0) as '\0'
        from (
            select
                symbol,
                session,
                columns([
                    'beta_252', 'downside_beta_252', 'idiosyncratic_volatility_252', 'idiosyncratic_skewness_252', 'residual_momentum_126_21'
                ]) as 'zscore_\0'
            from {{ source('feature_store', 'alpha_market_v1') }} as part
            semi join {{ source('market_data', 'scope') }} as stretch
                on stretch.symbol = part.symbol and part.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
        )
    )
),

sessions as not materialized (
    select
        session,
        count(*) as symbols,
        max(greatest(part.known_at, history.known_at, against_market.known_at)) as known_at,
        sum(try_cast(traded_value_sma_20 as decimal(34, 4)))::double as traded_value,
        count_if(close_to_sma_50 > 0) / nullif(count(close_to_sma_50), 0) as market_share_above_sma_50,
        count_if(close_to_sma_200 > 0) / nullif(count(close_to_sma_200), 0) as market_share_above_sma_200,
        count_if(sessions_since_high_252 = 0) / nullif(count(sessions_since_high_252), 0) as market_share_at_high_252,
        count_if(sessions_since_low_252 = 0) / nullif(count(sessions_since_low_252), 0) as market_share_at_low_252,
        count(columns([
            'price_change_1d', 'rsi_14', 'volume_ratio', 'reversal_5', 'reversal_20', 'momentum_126_21', 'momentum_252_21',
            'close_to_sma_50', 'close_to_sma_200', 'trend_slope_60', 'distance_from_high_252', 'return_volatility_20',
            'parkinson_volatility_20', 'return_max_20', 'return_skewness_60', 'volume_zscore_20', 'amihud_illiquidity_20',
            'traded_value_sma_20', 'return_volume_correlation_20', 'beta_252', 'idiosyncratic_volatility_60',
            'residual_momentum_126_21'
        ])) as 'known_\0'
    from {{ source('feature_store', 'technical_v1') }} as part
    inner join {{ source('feature_store', 'alpha_history_v1') }} as history using (symbol, session)
    inner join {{ source('feature_store', 'alpha_market_v1') }} as against_market using (symbol, session)
    semi join {{ source('market_data', 'scope') }} as stretch
        on stretch.symbol = part.symbol and part.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
    group by session
)

select
    technical.* exclude (price_factor, share_factor, known_at),
    history.* exclude (symbol, session, known_at),
    against_market.* exclude (symbol, session, known_at),
    market.* exclude (session, known_at),
    sessions.market_share_above_sma_50,
    sessions.market_share_above_sma_200,
    sessions.market_share_at_high_252,
    sessions.market_share_at_low_252,
    -- Symbols below and symbols not above, on average, as a share of those known: ties share the middle of their ranks.
    (rank_price_change_1d - 1 + round(share_rank_price_change_1d * sessions.symbols)) / (2 * known_price_change_1d) as rank_price_change_1d,
    (rank_rsi_14 - 1 + round(share_rank_rsi_14 * sessions.symbols)) / (2 * known_rsi_14) as rank_rsi_14,
    (rank_volume_ratio - 1 + round(share_rank_volume_ratio * sessions.symbols)) / (2 * known_volume_ratio) as rank_volume_ratio,
    (rank_reversal_5 - 1 + round(share_rank_reversal_5 * sessions.symbols)) / (2 * known_reversal_5) as rank_reversal_5,
    (rank_reversal_20 - 1 + round(share_rank_reversal_20 * sessions.symbols)) / (2 * known_reversal_20) as rank_reversal_20,
    (rank_momentum_126_21 - 1 + round(share_rank_momentum_126_21 * sessions.symbols)) / (2 * known_momentum_126_21) as rank_momentum_126_21,
    (rank_momentum_252_21 - 1 + round(share_rank_momentum_252_21 * sessions.symbols)) / (2 * known_momentum_252_21) as rank_momentum_252_21,
    (rank_close_to_sma_50 - 1 + round(share_rank_close_to_sma_50 * sessions.symbols)) / (2 * known_close_to_sma_50) as rank_close_to_sma_50,
    (rank_close_to_sma_200 - 1 + round(share_rank_close_to_sma_200 * sessions.symbols)) / (2 * known_close_to_sma_200) as rank_close_to_sma_200,
    (rank_trend_slope_60 - 1 + round(share_rank_trend_slope_60 * sessions.symbols)) / (2 * known_trend_slope_60) as rank_trend_slope_60,
    (rank_distance_from_high_252 - 1 + round(share_rank_distance_from_high_252 * sessions.symbols)) / (2 * known_distance_from_high_252) as rank_distance_from_high_252,
    (rank_return_volatility_20 - 1 + round(share_rank_return_volatility_20 * sessions.symbols)) / (2 * known_return_volatility_20) as rank_return_volatility_20,
    (rank_parkinson_volatility_20 - 1 + round(share_rank_parkinson_volatility_20 * sessions.symbols)) / (2 * known_parkinson_volatility_20) as rank_parkinson_volatility_20,
    (rank_return_max_20 - 1 + round(share_rank_return_max_20 * sessions.symbols)) / (2 * known_return_max_20) as rank_return_max_20,
    (rank_return_skewness_60 - 1 + round(share_rank_return_skewness_60 * sessions.symbols)) / (2 * known_return_skewness_60) as rank_return_skewness_60,
    (rank_volume_zscore_20 - 1 + round(share_rank_volume_zscore_20 * sessions.symbols)) / (2 * known_volume_zscore_20) as rank_volume_zscore_20,
    (rank_amihud_illiquidity_20 - 1 + round(share_rank_amihud_illiquidity_20 * sessions.symbols)) / (2 * known_amihud_illiquidity_20) as rank_amihud_illiquidity_20,
    (rank_traded_value_sma_20 - 1 + round(share_rank_traded_value_sma_20 * sessions.symbols)) / (2 * known_traded_value_sma_20) as rank_traded_value_sma_20,
    (rank_return_volume_correlation_20 - 1 + round(share_rank_return_volume_correlation_20 * sessions.symbols)) / (2 * known_return_volume_correlation_20) as rank_return_volume_correlation_20,
    (rank_beta_252 - 1 + round(share_rank_beta_252 * sessions.symbols)) / (2 * known_beta_252) as rank_beta_252,
    (rank_idiosyncratic_volatility_60 - 1 + round(share_rank_idiosyncratic_volatility_60 * sessions.symbols)) / (2 * known_idiosyncratic_volatility_60) as rank_idiosyncratic_volatility_60,
    (rank_residual_momentum_126_21 - 1 + round(share_rank_residual_momentum_126_21 * sessions.symbols)) / (2 * known_residual_momentum_126_21) as rank_residual_momentum_126_21,
    zscore_momentum_252_21, zscore_momentum_126_21, zscore_residual_momentum_126_21, zscore_reversal_5,
    zscore_reversal_20, zscore_return_volatility_60, zscore_idiosyncratic_volatility_252, zscore_beta_252,
    zscore_downside_beta_252, zscore_traded_value_sma_20, zscore_amihud_illiquidity_20, zscore_close_to_sma_200,
    zscore_trend_slope_60, zscore_return_max_20, zscore_idiosyncratic_skewness_252,
    (zscore_momentum_252_21 + zscore_momentum_126_21 + zscore_residual_momentum_126_21) / 3 as exposure_momentum,
    (zscore_reversal_5 + zscore_reversal_20) / 2 as exposure_reversal,
    (zscore_return_volatility_60 + zscore_idiosyncratic_volatility_252) / 2 as exposure_volatility,
    (zscore_beta_252 + zscore_downside_beta_252) / 2 as exposure_beta,
    (zscore_traded_value_sma_20 - zscore_amihud_illiquidity_20) / 2 as exposure_liquidity,
    (zscore_close_to_sma_200 + zscore_trend_slope_60) / 2 as exposure_trend,
    (zscore_return_max_20 + zscore_idiosyncratic_skewness_252) / 2 as exposure_lottery,
    case when rank_traded_value_sma_20 is not null then try_cast(history.traded_value_sma_20 as decimal(34, 4))::double / nullif(sessions.traded_value, 0) end as traded_value_share_20,
    isodow(technical.session)::double as day_of_week,
    day(technical.session)::double as day_of_month,
    week(technical.session)::double as week_of_year,
    month(technical.session)::double as month,
    sin(pi() * month(technical.session) / 6) as month_sine,
    cos(pi() * month(technical.session) / 6) as month_cosine,
    -- Who is in scope nowhere is so since there is a universe: before, all were.
    greatest(
        technical.known_at, history.known_at, against_market.known_at, market.known_at, sessions.known_at,
        (select max(since) from {{ source('market_data', 'scope') }})
    ) as known_at
from {{ source('feature_store', 'technical_v1') }} as technical
inner join {{ source('feature_store', 'alpha_history_v1') }} as history using (symbol, session)
inner join {{ source('feature_store', 'alpha_market_v1') }} as against_market using (symbol, session)
left join rank_of_technical using (symbol, session)
left join rank_of_momentum using (symbol, session)
left join rank_of_trend using (symbol, session)
left join rank_of_volatility using (symbol, session)
left join rank_of_volume using (symbol, session)
left join rank_of_market using (symbol, session)
left join zscore_of_history using (symbol, session)
left join zscore_of_market using (symbol, session)
left join sessions using (session)
left join market using (session)
