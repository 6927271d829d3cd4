"""Where values diverge, and what pruning costs layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from snowsdeploy_cli.console import say
from snowsdeploy_cli.render.table import make_table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.values import AccuracyCost, Divergence, LayerCost, Restoration, ValueDifference

_ROWS, _BEFORE = 14, 3


def print_divergence(console: Console, found: Divergence) -> None:
    """The values around the first divergence, or those whose nodes add most; then what it means."""
    rows, title = _interesting(found)
    numbers = ("error in", "added", "error", "max abs")
    table = make_table(
        f"{found.file.name} on {found.provider}: {title}", "value", "operator, layer", *numbers, numbers=numbers
    )
    for row in rows:
        layer = f"{row.operator} {', '.join(row.layers)}".strip()
        style = "red" if row == found.first else None
        added = "-" if row.added is None else f"{row.added:.1e}"
        figures = (f"{row.error_in:.1e}", added, f"{row.relative_l2:.1e}", f"{row.max_abs:.1e}")
        table.add_row(_named(row), layer, *figures, style=style)
    console.print(table)
    torch = sum(row.reference == "torch" for row in found.rows)
    say(console, f"{len(found.rows)} values compared on {found.images_from}, {torch} with PyTorch; {_rest(found)}")
    if any(row.reference != "torch" for row in rows):
        say(console, "* compared with the FP32 file")
    if found.changed:
        say(console, "The file has changed since its export.", style="yellow")
    say(console, f"Graph rewriting of ONNX Runtime changes the outputs by {found.rewriting:.1e}; it was off here.")
    say(console, found.conclusion, style="green" if found.kind == "agrees" else "red")


def _interesting(found: Divergence) -> tuple[Sequence[ValueDifference], str]:
    if found.first is not None and found.kind == "diverges":
        place = found.rows.index(found.first)
        return found.rows[max(0, place - _BEFORE) : place + _ROWS - _BEFORE], "values around the first divergence"
    rows = sorted(found.rows, key=lambda row: row.added or 0.0, reverse=True)[:_ROWS]
    return [row for row in found.rows if row in rows], "values whose nodes add most, in graph order"


def _named(row: ValueDifference) -> str:
    return row.value + ("" if row.reference == "torch" else " *")


def _rest(found: Divergence) -> str:
    if found.compared == 1:
        return "no value lacks a reference."
    return f"{1 - found.compared:.0%} of the file's values are steps inside an operator, judged with its result."


def print_accuracy_cost(console: Console, found: AccuracyCost) -> None:
    """What each unit costs, the dearest first, and the suggestion; losses are with the mask alone > after the solve."""
    pruned = found.pruned
    agree = "" if pruned.same is None else f", {pruned.same_label} {pruned.same:.2%}"
    measure = pruned.measure
    say(console, f"Pruned against dense on {found.images} calibration images: {measure} {pruned.value:.4g}{agree}")
    title = f"What the pruning of each unit costs: {measure} that dense layers there would save"
    _print_costs(console, title, found.units)
    if found.single:
        _print_costs(console, "Single layers of joint solves; their partners were solved to compensate", found.single)
    if found.suggestion is not None:
        for line in _suggestion(found.suggestion):
            say(console, line)


def _print_costs(console: Console, title: str, rows: Sequence[LayerCost]) -> None:
    numbers = ("cost", "agree", "weights", "cost/share", "loss")
    table = make_table(title, "layers", *numbers, numbers=numbers)
    for row in rows:
        agree = "-" if row.restored.same is None else f"{row.restored.same:.2%}"
        loss = f"{row.loss_masked:.0e}>{row.loss_final:.0e}"
        names = ", ".join(row.layers)
        table.add_row(names, f"{row.cost:.3g}", agree, f"{row.share:.1%}", f"{row.cost_per_share:.3g}", loss)
    console.print(table)


def _suggestion(found: Restoration) -> list[str]:
    measured = "; ".join(found.measured) or "the policy has no accuracy rule"
    if found.outcome == "passes":
        return [f"Nothing needs to stay dense: {measured}."]
    if found.outcome == "impossible":
        return [f"Even with all these layers dense the accuracy rules fail: {measured}."]
    lines = [
        f"Fewest layers to keep dense, judged on the calibration images: {', '.join(found.layers)}.",
        f"Then {measured}; {found.coverage:.1%} of the weights stay in the pattern.",
    ]
    if found.outcome == "coverage":
        return [*lines, "That is too few for the coverage rule, or leaves nothing pruned."]
    options = " ".join(f"--exclude '{name}'" for name in found.layers)
    return [*lines, f"To prune again without them: {options}"]
