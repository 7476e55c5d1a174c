"""From vendors' words to bars: sources, parsing, landing, the fetch ledger."""
