"""The source `files`: CSV, Parquet and dated deliveries."""
