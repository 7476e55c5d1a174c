"""Rules that bars are held to, one family per module: plain functions from a frame to its offending rows."""
