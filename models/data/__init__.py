"""Data sets: where their files lie, how they are read, and how they are fetched."""
