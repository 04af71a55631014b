"""Data sets: download, reading and preprocessing."""
