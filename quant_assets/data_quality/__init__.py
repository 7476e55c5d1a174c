"""May these rows go on? Rules, anomalies, quarantine."""
