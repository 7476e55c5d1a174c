"""The registry: MLflow, the verified local copies, and what people decide about versions."""
