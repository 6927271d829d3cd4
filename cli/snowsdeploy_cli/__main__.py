"""`python -m snowsdeploy_cli`."""

from snowsdeploy_cli.app import main

main()
