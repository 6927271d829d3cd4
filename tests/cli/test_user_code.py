"""What the user's own code does, ends or prints is never this program's outcome."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from snowsdeploy.errors import SnowsDeployError
from snowsdeploy.user_code import UserCodeError, contained, contained_items
from tests.cli.conftest import NET, TINY

DATA = TINY[1:]
CODE = """
import argparse, sys
from tiny_net import Net, make

class Odd(BaseException):
    pass

def exits(code=0): sys.exit(code)
def generator_exit(): raise GeneratorExit
def odd(): raise Odd("not even an Exception")
def stops(): raise StopIteration
def reads_options():
    argparse.ArgumentParser().parse_args()
    print("::error::printed by the model")
    return make()

class ExitsInForward(Net):
    def forward(self, x):
        sys.exit(0)

class BadState(Net):
    def state_dict(self, *a, **k):
        1 / 0

class RaisesOdd(Net):
    def forward(self, x):
        raise Odd("in forward")

def exits_later():
    import torch
    yield torch.zeros(8, 3, 8, 8)
    sys.exit(0)

def odd_later():
    raise Odd("first")
    yield
"""


@pytest.fixture
def code(workplace: Path) -> Path:
    (workplace / "odd_code.py").write_text(CODE)
    (workplace / "script.py").write_text("import sys\nsys.exit(0)\n")
    (workplace / "options.py").write_text(
        f"import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr', required=True)\np.parse_args()\n{NET}"
    )
    return workplace


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("odd_code:exits", "odd_code:exits ends the program"),
        ("odd_code:generator_exit", "odd_code:generator_exit raised GeneratorExit"),
        ("odd_code:odd", "odd_code:odd raised Odd"),
        ("odd_code:stops", "odd_code:stops raised StopIteration"),
        ("odd_code:ExitsInForward", "the model ends the program"),
        ("odd_code:RaisesOdd", "the model raised Odd"),
        ("odd_code:BadState", "BadState"),
        ("script:build", "script ends the program"),
        ("options:make", "options ends the program"),
    ],
)
def test_a_model_that_ends_the_program_or_raises_anything_is_3(
    cli: Callable[..., object], code: Path, model: str, said: str
) -> None:
    done = cli("prune-export", model, *DATA, "--out", "run")
    assert done.exit_code == 3, done.output
    assert said in done.output
    assert "Traceback" not in done.output
    assert not (code / "run").exists()


@pytest.mark.parametrize("source", ["exits_later", "odd_later", "exits"])
def test_data_that_ends_the_program_is_3(cli: Callable[..., object], code: Path, source: str) -> None:
    done = cli("prune", "tiny_net:make", "--data", f"odd_code:{source}", "--input-size", "8x8", "--out", "run")
    assert done.exit_code == 3, done.output
    assert "ends the program" in done.output or "raised Odd" in done.output
    assert "odd_code.py:" in done.output


def test_code_sees_no_options_and_prints_beside_the_results(
    shell: Callable[..., object], code: Path, tmp_path: Path
) -> None:
    done = shell("plan", "odd_code:reads_options", *DATA, "--json", cwd=code)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert "printed by the model" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith("::")]


def test_contained_keeps_messages_interrupts_and_arguments() -> None:
    before = list(sys.argv)
    with contained("it"):
        assert sys.argv == before[:1]
    with pytest.raises(UserCodeError, match="it ends the program"), contained("it"):
        sys.exit(4)
    assert sys.argv == before
    for kept in (KeyboardInterrupt, MemoryError, SnowsDeployError("a message")):
        with pytest.raises(kept if isinstance(kept, type) else type(kept)), contained("it"):
            raise kept
    with pytest.raises(UserCodeError, match="items raised ZeroDivisionError") as failed:
        list(contained_items("items", (1 // n for n in (1, 0))))
    assert f"{Path(__file__).name}:" in str(failed.value.seen)
