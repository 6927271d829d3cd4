"""The command line of snowsdeploy: parse, one library call, render, exit."""
