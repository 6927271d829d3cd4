"""Results as text and tables that read well at 80 columns; each function prints one value."""

from snowsdeploy_cli.render.comparison import print_compared_runs, print_comparison
from snowsdeploy_cli.render.debug import print_accuracy_cost, print_divergence
from snowsdeploy_cli.render.layers import print_evidence, print_files, print_pruning
from snowsdeploy_cli.render.machine import print_diagnosis
from snowsdeploy_cli.render.plan import print_plan
from snowsdeploy_cli.render.profile import print_profile
from snowsdeploy_cli.render.summary import print_summary
from snowsdeploy_cli.render.verdict import print_verdict

__all__ = [
    "print_accuracy_cost",
    "print_compared_runs",
    "print_comparison",
    "print_diagnosis",
    "print_divergence",
    "print_evidence",
    "print_files",
    "print_plan",
    "print_profile",
    "print_pruning",
    "print_summary",
    "print_verdict",
]
