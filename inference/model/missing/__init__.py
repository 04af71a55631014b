"""Observations with missing entries: NaN stands for them, and they are no part of the likelihood."""
