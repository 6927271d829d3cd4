"""`snowsdeploy validate`: the validation stage alone."""

from __future__ import annotations

import sys

import typer

from snowsdeploy_cli import options as o
from snowsdeploy_cli.commands.export import RunFolder


def command(
    run: RunFolder,
    *,
    eval_data: o.EvalData = None,
    provider: o.Provider = None,
    provider_option: o.ProviderOption = None,
    allow_fallback: o.AllowFallback = None,
    engine_cache: o.EngineCache = None,
    compile_for: o.CompileFor = None,
    engine_log: o.EngineLog = None,
    engine_layers: o.EngineLayers = None,
    eval_batch: o.EvalBatch = None,
    latency_batch: o.LatencyBatch = None,
    latency_runs: o.LatencyRuns = None,
    policy: o.Policy = None,
    config: o.Config = None,
    quiet: o.Quiet = False,
) -> None:
    """Measure layout, parity, accuracy and latency of a run's ONNX files, judge and report."""
    given = o.parse_options({k: v for k, v in locals().items() if k not in ("run", "config", "quiet")})

    from snowsdeploy.config import ValidateSettings, build_config
    from snowsdeploy.gate.policy import GatePolicy, load_policy
    from snowsdeploy.pipeline import validate
    from snowsdeploy_cli.console import make_console, quiet_onnxruntime
    from snowsdeploy_cli.outcome import exit_code
    from snowsdeploy_cli.progress import ConsoleObserver
    from snowsdeploy_cli.render import print_summary

    settings = build_config(ValidateSettings, given, config)
    limits = load_policy(settings.policy) if settings.policy else GatePolicy()
    quiet_onnxruntime()
    with ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
        report = validate(run, settings, policy=limits, observer=observer, command=o.command_line(sys.argv[1:]))
    print_summary(make_console(), report, run)
    raise typer.Exit(exit_code(report.verdict))
