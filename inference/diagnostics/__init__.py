"""Convergence diagnostics of draws, and plots."""
