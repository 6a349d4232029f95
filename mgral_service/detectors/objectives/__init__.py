"""Semi-supervised objectives, one file each."""
