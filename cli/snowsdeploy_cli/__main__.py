"""`python -m snowsdeploy_cli`."""

from snowsdeploy_cli.entry import main

main()
