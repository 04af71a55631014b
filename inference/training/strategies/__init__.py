"""Training strategies: estimators of the gradient of the log-evidence, one a file, and what they share."""
