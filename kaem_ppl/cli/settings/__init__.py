"""The settings of a run: their tables, how they are parsed, and how presets, files and flags are combined."""
