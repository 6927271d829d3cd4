"""The base of all settings, how a field appears on the command line, and how texts become values."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic.fields import FieldInfo

from snowsdeploy.errors import UsageError, first_line

T = TypeVar("T")
_WHOLE = re.compile(r"\s*-?[0-9]{1,9}\s*")  # int() takes every script's digits, and 1_0

# Headings of the help, in this order.
PANELS = (
    "Model", "Data", "Masks", "Solver", "Resources", "Export", "Validation and gates", "Compared", "Profile", "Run"
)  # fmt: skip


class Settings(BaseModel):
    """Base of all settings: frozen, finite numbers, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    fixed: ClassVar[frozenset[str]] = frozenset()  # fields of a base class that this class decides itself
    _decided: frozenset[str] = PrivateAttr(frozenset())  # fields that effort and solver of the repeated run decided

    @field_validator("*", mode="before")
    @classmethod
    def _truth_where_it_belongs(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - whatever the user wrote
        """Pydantic takes True for 1 and "yes" for True; a file that says so means something else."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if annotation in (bool, bool | None) and not isinstance(value, bool | NoneType):
            raise ValueError("true or false")
        if _holds_truth(value) and not _takes_truth(annotation):
            raise ValueError("no truth value")
        return value

    @property
    def given(self) -> set[str]:
        """Names of what the user gave."""
        return self.model_fields_set - self._decided

    def with_decided(self, names: Collection[str]) -> Self:
        """The same settings, some of which were decided and not given."""
        made = self.model_copy()
        made._decided = frozenset(names)
        return made

    @classmethod
    def ordered_fields(cls) -> dict[str, FieldInfo]:
        """Every field, those of a first base class first: the order in which stages follow one another."""
        names = [name for kind in (*cls.__mro__[1:], cls) for name in vars(kind).get("__annotations__", {})]
        shown = cls.model_fields.keys() - cls.fixed
        return {name: cls.model_fields[name] for name in dict.fromkeys(names) if name in shown}


def _holds_truth(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(isinstance(v, bool) for v in value))


def _takes_truth(annotation: Any) -> bool:  # noqa: ANN401 - a type
    return annotation is bool or annotation is Any or any(map(_takes_truth, get_args(annotation)))


@dataclass(frozen=True)
class Option:
    """How a field appears on the command line; its name, type, default and help are the field's own.

    Attributes:
        panel: Heading in the help.
        metavar: What stands for the value; the choices of a literal type where it is empty.
        off: The option that switches a truth value off, for one that is on by itself.
        flag: The option, where it is not the field's name with dashes.
    """

    panel: str
    metavar: str = ""
    off: str = ""
    flag: str = ""


def option_of(field: str) -> str:
    """`eval_data` -> `--eval-data`, as a user types it; `model` is the argument MODEL."""
    return "MODEL" if field == "model" else f"--{field.replace('_', '-')}"


def whole_number(text: str) -> int:
    """`8`, in plain digits.

    Raises:
        ValueError: The text is something else.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"a whole number, not {text!r}")
    return int(text)


def unknown_name(what: str, name: str, known: Collection[str]) -> UsageError:
    """The error for a name that is none of the known ones, with the closest of them.

    Args:
        what: What is wrong.
        name: As the user wrote it.
        known: All that are allowed.
    """
    close = difflib.get_close_matches(name, list(known), 1)
    fix = f"did you mean {close[0]}?" if close else "remove it"
    return UsageError(what, seen=name, allowed=", ".join(sorted(known)), fix=fix)


def _commas(value: Any) -> Any:  # noqa: ANN401 - whatever the user wrote
    """`"1,8"`, `["1,8", "32"]` and a single number are lists too."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, int | float):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return tuple(part.strip() for part in ",".join(value).split(","))
    return value


def _several(value: Any) -> Any:  # noqa: ANN401 - as above
    """One text is a list of one."""
    return (value,) if isinstance(value, str) else value


def _pairs(value: Any, read: Any, example: str) -> Any:  # noqa: ANN401 - as above
    """`["key=value"]` is a dict."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    pairs = {}
    for text in value:
        key, equals, rest = str(text).partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"KEY=VALUE, for example {example}")
        pairs[key] = read(rest)
    return pairs


def _literal(text: str) -> Any:  # noqa: ANN401 - as above
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    except (TypeError, RecursionError, MemoryError) as error:  # such as {[]}, a set of lists
        raise ValueError(f"a text, or a Python value; this one: {first_line(error)}") from error


def _plain_text(value: Any) -> Any:  # noqa: ANN401 - as above
    """A TOML file has numbers and truth values where ONNX Runtime wants texts."""
    if not isinstance(value, dict):
        return _pairs(value, str, "device_id=0")
    if not all(isinstance(v, str | bool | int | float) for v in value.values()):
        raise ValueError("a text, a number or a truth value for each key")
    return {key: str(int(v) if isinstance(v, bool) else v) for key, v in value.items()}


_ITEMS = str | float | list[str | float]
# A list, or a text with commas.
CommaList = Annotated[tuple[T, ...], BeforeValidator(_commas, json_schema_input_type=_ITEMS)]
# A list, or one text as it is.
Repeated = Annotated[tuple[str, ...], BeforeValidator(_several, json_schema_input_type=str | list[str])]
_PAIRS = dict[str, Any] | str | list[str]
Arguments = Annotated[
    dict[str, Any],
    BeforeValidator(lambda value: _pairs(value, _literal, "num_classes=10"), json_schema_input_type=_PAIRS),
]
Texts = Annotated[dict[str, str], BeforeValidator(_plain_text, json_schema_input_type=_PAIRS)]


def one_of(names: Collection[str]) -> Any:  # noqa: ANN401 - metadata of a type
    """A text that is one of some names which a table holds: `Annotated[str, *one_of(TABLE)]`."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(", ".join(names))
        return value

    return AfterValidator(check), WithJsonSchema({"type": "string", "enum": list(names)})
