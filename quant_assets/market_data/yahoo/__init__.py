"""The source `yahoo`."""
