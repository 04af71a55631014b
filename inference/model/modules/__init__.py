"""Modules with state: batch normalisation, dropout, and whatever else a `mutable` site keeps."""
