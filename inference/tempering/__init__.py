"""Ladders of temperatures, and the samplers that climb them: replica exchange and tempered SMC."""
