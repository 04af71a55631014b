"""Maximum-likelihood training: `fit`, its strategies, state and data."""
