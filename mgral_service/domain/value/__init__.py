"""What a batch is worth: value models, the table they read, and the gains of candidates."""
