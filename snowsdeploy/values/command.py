"""How a run came about."""

from __future__ import annotations

from snowsdeploy.values.base import Artifact


class StageCommand(Artifact):
    """A command that a stage was run by.

    Attributes:
        stage: Its name, such as prune-export or validate.
        command: As typed.
        created: When it ended, ISO 8601.
        renewed: Sections of the report that it measured anew; None where it measured all.
    """

    stage: str
    command: str
    created: str
    renewed: tuple[str, ...] | None = None
