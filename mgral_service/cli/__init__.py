"""The `mgral` command."""
