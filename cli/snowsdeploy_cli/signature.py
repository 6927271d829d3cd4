"""Settings classes -> the options of a command: name, type, default, help, panel and choices come from each field.

Every option is None where it was not given, so that a TOML file or the class' default decides; texts become values when
the settings are validated, in the same way for the command line, a TOML file and Python.
"""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from snowsdeploy.settings.base import PANELS, Settings, option_of
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.read import SettingsFile, load_policy, read_file, read_settings
from snowsdeploy.settings.reference import choices_of, default_text, panel_of

S = TypeVar("S", bound=Settings)
_WIDEST = 16  # columns of a metavar that still leave room for the help at 80

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file with any of these options; write _ for -.",
        rich_help_panel="Run",
        metavar="FILE",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show only warnings, errors and the result.", rich_help_panel="Run")
]


@dataclass(frozen=True)
class Typed:
    """What a user typed, and the file that she named.

    Attributes:
        values: Options that were given, by the name of their setting.
        file: The content of `--config`.
    """

    values: Mapping[str, Any]
    file: SettingsFile

    def settings(self, kind: type[S]) -> S:
        """The validated settings.

        Raises:
            UsageError: A value is missing or not allowed.
        """
        return read_settings(kind, self.values, self.file)

    def policy(self) -> GatePolicy | None:
        """The limits that were named: by `--policy`, else by the file; None for neither.

        Raises:
            UsageError: The policy cannot be read.
        """
        path = self.values.get("policy")
        return load_policy(Path(path)) if path else self.file.policy

    @property
    def command(self) -> str:
        """The command as typed, quoted for a shell."""
        return command_line(sys.argv[1:])


def command_line(arguments: list[str]) -> str:
    """A command quoted for a shell."""
    return shlex.join(["snowsdeploy", *arguments])


def options_of(
    kind: type[Settings], *, without: tuple[str, ...] = (), config: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field of a settings class.

    Args:
        kind: The class.
        without: Fields that are no options of this command.
        config: Whether there is `--config` too.

    Returns:
        A decorator of a function whose first argument is a `Typed`; its other arguments stay options of their own.
    """

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(run, include_extras=True)
        (_, *own) = inspect.signature(run).parameters.values()
        fields = {name: field for name, field in kind.ordered_fields().items() if name not in without}
        parameters = list(_parameters(fields)) + ([_option("config", Config)] if config else [])
        parameters += [p.replace(annotation=hints[p.name]) for p in own]

        def command(**given: Any) -> None:  # noqa: ANN401 - whatever Typer parsed
            """Its text is that of the function below."""
            toml = given.pop("config", None)
            values = {name: given.pop(name) for name in fields}
            typed = Typed(
                {k: v for k, v in values.items() if v is not None and v != []},
                read_file(toml) if toml else SettingsFile(),
            )
            run(typed, **given)

        parameters.sort(key=lambda p: p.kind is inspect.Parameter.KEYWORD_ONLY)
        command.__doc__, command.__name__, command.__module__ = run.__doc__, run.__name__, run.__module__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect reads first
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _parameters(fields: Mapping[str, FieldInfo]) -> Iterator[inspect.Parameter]:
    """The fields that the command line shows, ordered by panel."""
    shown = [(name, field, option) for name, field in fields.items() if (option := panel_of(field)) is not None]
    for name, field, option in sorted(shown, key=lambda row: PANELS.index(row[2].panel)):
        text = (field.description or "").replace("[", "\\[")
        kind = _parsed_as(field.annotation)
        if name == "model":
            argument = typer.Argument(help=text, metavar=option.metavar, show_default=False)
            yield inspect.Parameter(
                name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Annotated[kind, argument]
            )
            continue
        flag = option.flag or option_of(name)
        flags = f"{flag}/{option.off}" if option.off else flag
        metavar, choices = option.metavar or "|".join(choices_of(field)), ""
        if len(metavar) > _WIDEST and "|" in metavar:  # it would be broken in the middle of a word
            metavar, choices = "NAME", f" One of {metavar.replace('|', ', ')}."
        known = default_text(field)
        default = f" \\[default: {known}]" if known else ""
        yield _option(
            name,
            Annotated[
                kind,
                typer.Option(
                    flags,
                    help=f"{text}{choices}{default}",
                    rich_help_panel=option.panel,
                    metavar=None if kind == (bool | None) else metavar or None,
                    show_default=False,
                ),
            ],
        )


def _option(name: str, annotation: Any) -> inspect.Parameter:  # noqa: ANN401 - Annotated[...]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _parsed_as(annotation: Any) -> Any:  # noqa: ANN401 - types
    """What Typer parses: truth values, numbers, paths, lists of texts; everything else arrives as a text."""
    kinds = set(_plain_types(annotation))
    if len(kinds) != 1:
        return str | None
    (kind,) = kinds
    if kind in (bool, int, float, Path):
        return kind | None
    return list[str] | None if kind is list else str | None


def _plain_types(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - types
    """The types that a value may have, None left out; a list of any length and a dict are both `list`."""
    origin = get_origin(annotation)
    if annotation is NoneType:
        return
    if origin is Annotated:
        yield from _plain_types(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _plain_types(part)
    elif origin is dict or (origin is tuple and Ellipsis in get_args(annotation)):
        yield list
    else:
        yield annotation if origin is None else str
