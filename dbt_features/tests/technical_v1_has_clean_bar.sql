{{ config(meta={
    "description": "No feature row without a clean bar, and no clean bar without a feature row.",
    "dagster": {"ref": {"name": "stg_bars"}},
}) }}
{{ rows_on_one_side(source('feature_store', 'technical_v1'), ref('stg_bars')) }}
