"""`python -m mgral_service ...` is the `mgral` command: what `ray job submit` runs."""

from mgral_service.cli.main import main

main()
