"""Posterior draws: chains, importance sampling, and the draws they return."""
