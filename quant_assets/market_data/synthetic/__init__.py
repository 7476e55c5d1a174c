"""The source `synthetic`: a market made from a seed, with its truth."""
