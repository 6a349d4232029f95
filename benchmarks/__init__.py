"""One file a claim; README.md holds the command behind each published figure."""
