"""What is known per symbol and session: indicators, labels, contracts."""
