"""`python -m server.cli` is `whetstone`."""

from server.cli import main

main()
