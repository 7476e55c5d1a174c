"""What came of the signals that people relied on."""
