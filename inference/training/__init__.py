"""Maximum likelihood: `fit`, its strategies, its state and its data."""
