"""Models with latents outside the data plate: their joint posterior, and how it falls into blocks."""
