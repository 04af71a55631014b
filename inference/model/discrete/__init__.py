"""Discrete latents of a model, summed out exactly."""
