"""Tempering: ladders of temperatures, replica exchange, parallel tempering, and tempered SMC."""
