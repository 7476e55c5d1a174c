{{ config(meta={
    "description": "No row of alpha_history_v1 without one of technical_v1, which has one for each clean bar, and none of that missing.",
    "dagster": {"ref": {"name": "alpha_v1"}},
}) }}
{{ rows_on_one_side(source('feature_store', 'alpha_history_v1'), source('feature_store', 'technical_v1')) }}
