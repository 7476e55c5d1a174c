-- Grain: symbol, week_start. Forward-adjusted bars of ISO weeks: Monday to Sunday, across a year's end too.
{{ period_bars('week') }}
