"""MGRAL: candidates measured in folds, an agent trained on the table."""
