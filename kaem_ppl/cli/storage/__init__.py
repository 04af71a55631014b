"""Folders of runs: settings, checkpoints, history and results on disk."""
