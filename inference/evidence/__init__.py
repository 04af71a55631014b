"""Log-evidence: estimators, comparison of models, and plots."""
