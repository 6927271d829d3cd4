"""Base of every value that is written to JSON, and the words that they share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PrivateAttr,
    SerializationInfo,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticSerializationError

from snowsdeploy.plain_text import encodable

SCHEMA_VERSION: Literal[1] = 1
Tristate = Literal["yes", "no", "unknown"]
Role = Literal["dense", "sparse"]
Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Format: TypeAlias = str  # "onnx", or the name of another that the export stage knows
# FP32 differs by the order of sums; FP16 keeps 11 bits, INT8 8: what a sound conversion of a whole model reaches
PARITY_LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.2}


def layer_name(weight: str) -> str:
    """A layer's name in every report: the name of its weight in the state dict without `.weight`."""
    return weight.removesuffix(".weight")


def _placed(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get(_FOLDER)
    return path if folder is None else Path(folder) / path


def _relative(path: Path, info: SerializationInfo) -> str:
    folder = (info.context or {}).get(_FOLDER)
    inside = folder is not None and path.is_absolute() == Path(folder).is_absolute() and path.is_relative_to(folder)
    return (path.relative_to(folder) if folder is not None and inside else path).as_posix()


_FOLDER = "folder"
# A file of a run: in the run's JSON files relative to its folder, so that the folder can be moved.
RunPath: TypeAlias = Annotated[Path, AfterValidator(_placed), PlainSerializer(_relative, return_type=str)]


# Of a file, or of tensors.
Sha256: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class Artifact(BaseModel):
    """Base of every value that is written to JSON; what contradicts itself cannot be made, nor read.

    A figure that follows from others is computed. It is written for readers, and where JSON holds it, it must agree.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings")
    _owned: Any = PrivateAttr(None)  # a folder that goes when the value does

    @model_validator(mode="wrap")
    @classmethod
    def _computed_agree(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401 - any input
        names = cls.model_computed_fields.keys() & (data.keys() if isinstance(data, dict) else ())
        if not names:
            return handler(data)
        made = handler({key: value for key, value in data.items() if key not in names})
        for name in sorted(names):
            follows = getattr(made, name)
            if data[name] != follows or isinstance(data[name], bool) != isinstance(follows, bool):
                raise ValueError(f"{name} is {data[name]}, but {follows} follows from what stands beside it")
        return made

    def owning(self, folder: object) -> Self:
        """The same value, which keeps something alive: the temporary folder that its files lie in."""
        kept = self.model_copy()
        kept._owned = folder
        return kept

    def model_dump_json(self, **options: Any) -> str:  # noqa: ANN401 - those of pydantic
        """JSON; in names of files that are no UTF-8, bytes become escapes, for JSON has no place for them."""
        try:
            return super().model_dump_json(**options)
        except PydanticSerializationError:
            indent = options.pop("indent", None)
            return json.dumps(encodable(self.model_dump(mode="json", **options)), indent=indent, ensure_ascii=False)

    def json_in(self, folder: Path) -> str:
        """JSON for a file in a folder: paths inside the folder are relative to it."""
        return self.model_dump_json(indent=2, context={_FOLDER: folder}) + "\n"

    @classmethod
    def from_json_in(cls, text: str | bytes, folder: Path) -> Self:
        """What `json_in` wrote, with its paths in the folder where it lies now.

        Raises:
            pydantic.ValidationError: The text is something else.
        """
        return cls.model_validate_json(text, context={_FOLDER: folder})
