-- Grain: symbol, month_start. Forward-adjusted bars of calendar months.
{{ period_bars('month') }}
