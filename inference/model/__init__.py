"""The one reader of NumPyro models: sites, plates, parameters, coordinates, and what is computed from them."""
