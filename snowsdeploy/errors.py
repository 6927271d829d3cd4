"""Every error that a user can cause or meet, as one tree.

    SnowsDeployError
    ├── UsageError        an option's value, or options that contradict each other   (exit code 2)
    ├── SourceError       the model: file, format, architecture, weights
    ├── DataError         the images and labels
    ├── GraphError        the model cannot become, or be used as, one ATen graph
    ├── NumericsError     NaN or Inf where numbers are needed
    ├── LayoutError       a weight does not have the sparsity layout that was promised
    ├── ExportError       the ONNX file cannot be written or is not what it should be
    ├── ProviderError     an execution provider that does not load or does not run the model
    ├── ResourceError     memory that runs out
    ├── InstallError      an extra that is not installed
    └── OutputError       the place where results should go

All but `UsageError` end a command with exit code 3. Only the command line turns errors into exit codes.
"""

from __future__ import annotations


class SnowsDeployError(Exception):
    """One clear message: what is wrong, the value seen, the values allowed, what to do next.

    Args:
        what: What is wrong, one sentence without a full stop.
        seen: The offending value as the user would recognise it.
        allowed: What would have been accepted.
        fix: What to do next, naming the option as typed.
    """

    def __init__(self, what: str, *, seen: object = None, allowed: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.seen = None if seen is None else str(seen)
        self.allowed = allowed
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  {label}: {text}" for label, text in self.parts()]
        return "\n".join(lines)

    def parts(self) -> list[tuple[str, str]]:
        """The labelled parts after the first sentence, those that are given."""
        rows = (("seen", self.seen), ("allowed", self.allowed), ("try", self.fix))
        return [(label, text) for label, text in rows if text]


def first_line(error: object, limit: int = 200) -> str:
    """The first line of an error's text, or its type when it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:limit]


def cause(error: Exception) -> str:
    """An error's type and the first line of its text."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


class UsageError(SnowsDeployError):
    """An option's value is not allowed, or options contradict each other."""


class SourceError(SnowsDeployError):
    """The model source cannot be read, is not allowed, or does not fit the architecture."""


class DataError(SnowsDeployError):
    """The images or labels cannot be read or do not fit the model."""


class MetricError(SnowsDeployError):
    """The user's own metric fails, or gives what is no number."""


class GraphError(SnowsDeployError):
    """The model cannot be turned into one ATen graph, or the graph lacks what a stage needs."""


class NumericsError(SnowsDeployError):
    """Weights, activations or results hold NaN or Inf."""


class LayoutError(SnowsDeployError):
    """A weight does not have the sparsity layout it should have."""


class ExportError(SnowsDeployError):
    """An exported file cannot be written, or is not what it should be."""


class ProviderError(SnowsDeployError):
    """An execution provider did not load, or did not run the model."""


class ResourceError(SnowsDeployError):
    """Memory that runs out."""


class InstallError(SnowsDeployError):
    """Something needs an extra that is not installed."""


class OutputError(SnowsDeployError):
    """The output directory or a run directory cannot be used."""
