"""`python -m ppcli`."""

from ppcli.cli.main import main

main()
