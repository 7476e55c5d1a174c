"""The source `alpha_vantage`."""
