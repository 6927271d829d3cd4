"""What an installation holds, and what each package offers."""

from __future__ import annotations

import importlib
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = {
    "snowsdeploy": REPOSITORY / "snowsdeploy",
    "snowsdeploy_cli": REPOSITORY / "cli" / "snowsdeploy_cli",
    "snowsdeploy_exporters": REPOSITORY / "exporters" / "snowsdeploy_exporters",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel; it is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = builder.WheelBuilder(str(REPOSITORY)).build(directory=str(folder), versions=["standard"])
    return zipfile.ZipFile(built)


def test_wheel_holds_every_source_file_and_nothing_else(wheel):
    names = {n for n in wheel.namelist() if ".dist-info/" not in n}
    sources = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == sources


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_says_that_it_is_typed(wheel, package):
    assert f"{package}/py.typed" in wheel.namelist()


def test_wheel_has_template_licence_and_command(wheel):
    names = wheel.namelist()
    assert "snowsdeploy/report/templates/summary.md.j2" in names
    assert any(n.endswith("licenses/LICENSE") for n in names)
    entry = next(n for n in names if n.endswith("entry_points.txt"))
    assert "snowsdeploy = snowsdeploy_cli.__main__:run" in wheel.read(entry).decode()


def test_licence_is_the_whole_apache_2():
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["project"]["license"] == "Apache-2.0"
    for part in ("Version 2.0, January 2004", "9. Accepting Warranty", "limitations under the License."):
        assert part in text


def test_entry_point_resolves():
    module, _, name = PROJECT["project"]["scripts"]["snowsdeploy"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def modules() -> list[str]:
    names = []
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            names.append(".".join([package, *(p for p in parts if p != "__init__")]))
    return [name for name in names if not name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_and_keeps_its_promises(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public)
