"""A nightly data and ML asset platform for a small quant desk, orchestrated by Dagster."""
