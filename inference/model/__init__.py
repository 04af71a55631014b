"""Inspection of NumPyro models: sites, plates, parameters, coordinates, and the densities computed from them."""
