"""Detection networks, one file each."""
