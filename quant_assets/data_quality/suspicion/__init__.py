"""Scores learned from the panel: how suspicious each close is beside its neighbours in time and in the cross-section."""
