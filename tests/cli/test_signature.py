"""Options that come from settings: what the parser hands over, and what a command makes of it."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from snowsdeploy.settings.jobs import MainJob, PlanJob
from snowsdeploy_cli.outcome import guarded
from snowsdeploy_cli.signature import Typed, command_line, options_of


def typed_by(*arguments: str, kind: type[PlanJob] = MainJob) -> Typed:
    """What a command that has this class' options gets."""
    caught: list[Typed] = []

    @options_of(kind)
    def run(typed: Typed) -> None:
        """Catch what was typed."""
        caught.append(typed)

    app = typer.Typer()
    app.command("run")(guarded(run))
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return caught[0]


def test_only_what_was_given_is_handed_over() -> None:
    assert typed_by().values == {}
    given = typed_by(
        "m.pt", "--seed", "3", "--no-permute", "--exclude", "a*", "--exclude", "b", "--latency-batch", "1,8"
    )
    assert given.values == {
        "model": "m.pt",
        "seed": 3,
        "permute": False,
        "exclude": ["a*", "b"],
        "latency_batch": ["1,8"],
    }


def test_settings_are_those_of_options_and_file(tmp_path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('data = "d.npz"\nout = "run"\nseed = 9\nmodel = "m.pt"\n[gate]\nmin.top1 = 0.5\n')
    typed = typed_by("--config", str(file), "--joint", "--mean", "0.1,0.2", "--memory", "8GiB", "--seed", "1")
    settings = typed.settings(MainJob)
    assert (settings.model, settings.data, settings.seed) == ("m.pt", "d.npz", 1)
    assert (settings.mean, settings.memory) == ((0.1, 0.2), 8 * 2**30)
    policy = typed.policy()
    assert policy is not None
    assert policy.min == {"top1": 0.5}
    (tmp_path / "p.toml").write_text("[gate]\nmin.top1 = 0.7\n")
    named = typed_by("--config", str(file), "--policy", str(tmp_path / "p.toml")).policy()
    assert named is not None
    assert named.min == {"top1": 0.7}
    assert typed_by().policy() is None


@pytest.mark.parametrize(("switch", "value"), [("--single", False), ("--joint", True)])
def test_a_switch_has_two_sides(switch: str, value: bool) -> None:
    assert typed_by(switch, kind=PlanJob).values == {"joint": value}


def test_command_is_recorded_so_that_a_shell_can_repeat_it() -> None:
    assert command_line(["prune-export", "a b.pt", "x[0::2]"]) == "snowsdeploy prune-export 'a b.pt' 'x[0::2]'"
