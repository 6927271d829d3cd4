"""Rules on what engines and compilers made of the file."""

from __future__ import annotations

from collections.abc import Iterator

from snowsdeploy.gate.results import decided, undecided
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import EngineEvidence, Report, RuleResult, Variant

_FIX = "pass --engine-log and --engine-layers to snowsdeploy validate"


def layers_found(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The engine called enough of the pruned layers eligible for sparse tactics."""
    del report
    limit, engine = policy.found_limit(variant.precision), variant.engine
    if limit is not None:
        yield _share("engine found", engine, (engine.found, engine.found_unknown) if engine else None, limit)


def layers_chosen(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The engine runs enough of the pruned layers with sparse kernels."""
    del report
    limit, engine = policy.chosen_limit(variant.precision), variant.engine
    if limit is not None:
        yield _share("engine chose", engine, (engine.chosen, engine.chosen_unknown) if engine else None, limit)


_OPTIONS = (("--engine-log", "log"), ("--engine-layers", "layers"))


def compilation(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The ahead-of-time compiler takes the sparse file, where that was tried or is required."""
    del report
    found, wanted = variant.compilation, policy.required_compilation
    if found is None:
        if wanted:
            reason = "compilation was not tried; pass --compile-for"
            yield undecided("compilation", f"accepted for {', '.join(wanted)}", reason)
        return
    limit = f"accepted for {', '.join(wanted or found.capabilities)}"
    if missing := [c for c in wanted if c not in found.capabilities]:
        yield undecided("compilation", limit, f"not tried for {', '.join(missing)}")
        return
    measured = f"{'accepted' if found.accepted else 'refused'} by {found.compiler}"
    yield decided("compilation", measured, limit, passed=found.accepted, reason="; ".join(found.messages[:3]))


def _share(rule: str, engine: EngineEvidence | None, counts: tuple[int, int] | None, limit: float) -> RuleResult:
    """Unknown layers could be either: only where they cannot change the verdict is there one."""
    text = f">= {limit:.0%} of layers"
    if engine is None or counts is None or not engine.pruned:
        reason = f"no engine was looked at: {_FIX}" if engine is None else "no layer is pruned"
        return undecided(rule, text, reason)
    sure, unknown = counts
    measured = f"{sure} of {engine.pruned} layers" + (f", {unknown} unknown" if unknown else "")
    if sure / engine.pruned >= limit:
        return decided(rule, measured, text, passed=True)
    if (sure + unknown) / engine.pruned < limit:
        return decided(rule, measured, text, passed=False)
    missing = [option for option, kind in _OPTIONS if kind not in {source.kind for source in engine.sources}]
    fix = f"; also pass {' and '.join(missing)}" if missing else ""
    reason = f"of {unknown} layers it is unknown{fix}" + (f": {engine.notes[0]}" if engine.notes else "")
    return undecided(rule, text, reason, measured)
