"""Families of models behind one interface: fit, log-odds, exact contributions, and a text that is the whole model."""
