"""Importance sampling: draws from the prior or a learnt proposal, weights, and their diagnostics."""
