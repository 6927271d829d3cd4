"""Masks and solver."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from snowsdeploy.errors import UsageError
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.settings.base import Arguments, Option, Repeated, Settings, one_of

_MASKS, _SOLVER, _RESOURCES, _RUN = "Masks", "Solver", "Resources", "Run"

# Name -> class in snowsdeploy.selectors; a line for each selector.
SELECTORS = {
    "magnitude": "magnitude:Magnitude",
    "wanda": "wanda:Wanda",
    "sparsegpt": "sparsegpt:SparseGPT",
    "obc": "obc:OBC",
    "exchange": "exchange:Exchange",
    "woodfisher": "woodfisher:WoodFisher",
    "woodtaylor": "woodfisher:WoodTaylor",
    "lm": "taylor:LinearModel",
    "qm": "taylor:QuadraticModel",
    "obd": "taylor:OptimalBrainDamage",
}


class PruneSettings(Settings):
    """Masks and solver."""

    pattern: Annotated[str, Option(_MASKS, "N:M|P%")] = Field(
        "2:4", description="N of every M weights stay, or a share of zeros such as 80%."
    )
    selector: Annotated[str, *one_of(SELECTORS), Option(_MASKS, "NAME")] = Field(
        "exchange", description=f"Method that chooses which weights stay: {', '.join(SELECTORS)}."
    )
    selector_arg: Annotated[Arguments, Option(_MASKS, "KEY=VALUE")] = Field(
        default_factory=dict, description="Setting of the selector; may be repeated."
    )
    threshold: Annotated[Literal["method", "row", "layer", "global"], Option(_MASKS)] = Field(
        "method", description="What unstructured scores are compared across; method: as the selector's paper does."
    )
    layer_cap: Annotated[float, Option(_MASKS, "SHARE")] = Field(
        0.99, gt=0, le=1, description="Largest share of a layer that a global threshold prunes."
    )
    mask_steps: Annotated[int | None, Option(_MASKS, "N")] = Field(
        None, ge=1, description="How often a loss-based selector scores anew; without it as often as its paper says."
    )
    labels: Annotated[Literal["auto", "data", "sampled"], Option(_MASKS)] = Field(
        "auto", description="Where loss-based selectors get labels: the data, or samples of the model's own softmax."
    )
    include: Annotated[Repeated, Option(_MASKS, "GLOB")] = Field(
        (), description="Prune only layers whose name matches; may be repeated."
    )
    exclude: Annotated[Repeated, Option(_MASKS, "GLOB")] = Field(
        (), description="Keep layers dense whose name matches; may be repeated."
    )
    permute: Annotated[bool | None, Option(_MASKS, off="--no-permute")] = Field(
        None, description="Put channels in an order in which masks keep more; on for every N:M pattern."
    )
    permute_score: Annotated[Literal["magnitude", "inputs", "curvature"], Option(_MASKS)] = Field(
        "inputs", description="How to score a weight when channels are ordered."
    )
    effort: Annotated[Literal["fast", "default", "max"], Option(_SOLVER)] = Field(
        "default", description="Point on the curve of accuracy against time; sets what follows where that is not given."
    )
    solver: Annotated[Literal["snows", "k0", "none"], Option(_SOLVER)] = Field(
        "snows", description="SNOWS, the exact least squares of each layer (k0), or the mask alone (none)."
    )
    held_back: Annotated[float, Option(_SOLVER, "SHARE")] = Field(
        0.0, ge=0, le=0.5, description="Share of the calibration images that no solve sees and that stop it early."
    )
    horizon: Annotated[Annotated[int, Field(ge=0)] | Literal["block", "model"], Option(_SOLVER, "K|block|model")] = (
        Field(
            "block",
            description="Reconstruct K operations after the layer, or up to the end of its block or of the model.",
        )
    )
    joint: Annotated[bool, Option(_SOLVER, off="--single")] = Field(
        True, description="Solve all layers of a residual block together, or one by one."
    )
    solve_layers: Annotated[int, Option(_SOLVER, "N")] = Field(
        4, ge=1, description="Join residual blocks until so many layers are solved together."
    )
    targets: Annotated[
        Annotated[float, Field(ge=0, le=1)] | Literal["dense", "input", "auto"],
        Option(_SOLVER, "dense|input|auto|SHARE"),
    ] = Field(
        "dense",
        description="Reconstruct the dense model's activations, its layers on the pruned input, or a share of both.",
    )
    sensitivity: Annotated[float, Option(_SOLVER, "SHARE")] = Field(
        0.9, ge=0, le=1, description="Share of the output's curvature in the measure of an error at a block's end."
    )
    curvature: Annotated[Literal["gauss-newton", "hessian"], Option(_SOLVER)] = Field(
        "gauss-newton", description="Curvature matrix of the Newton steps."
    )
    preconditioner: Annotated[Literal["none", "diagonal", "cholesky", "kronecker"], Option(_SOLVER)] = Field(
        "kronecker", description="Preconditioner of the conjugate gradients."
    )
    newton_steps: Annotated[int, Option(_SOLVER, "N")] = Field(
        1, ge=0, description="Newton steps in a solve; 0 leaves the exact least squares of each layer."
    )
    cg_steps: Annotated[int, Option(_SOLVER, "N")] = Field(
        10, ge=1, description="Curvature products in a Newton step, at most."
    )
    curvature_samples: Annotated[Annotated[int, Field(ge=1)] | Literal["all"], Option(_SOLVER, "N|all")] = Field(
        512, description="Images in a curvature product; the gradient always sees all."
    )
    variables: Annotated[Literal["weights", "all"], Option(_SOLVER)] = Field(
        "all", description="What a solve moves: weights, or also biases and the scales and shifts of normalisations."
    )
    reestimate_norms: Annotated[bool, Option(_SOLVER)] = Field(
        False, description="Re-estimate the statistics of batch normalisations where that helps."
    )
    final_steps: Annotated[int, Option(_SOLVER, "N")] = Field(
        0, ge=0, description="Newton steps of a final pass over all kept weights of the model."
    )
    products: Annotated[Literal["float32", "tf32", "bfloat16"], Option(_RESOURCES)] = Field(
        "float32", description="Precision of curvature products; lower ones only where their measured error is small."
    )
    compile_products: Annotated[bool, Option(_RESOURCES)] = Field(
        False, description="Compile curvature products, which pays for small windows on a GPU."
    )
    batch_size: Annotated[int, Option(_RESOURCES, "N")] = Field(64, ge=1, description="Images in memory at once.")
    seed: Annotated[int, Option(_RUN, "N")] = Field(0, ge=0, description="Seed of every random choice.")

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        return str(Pattern.parse(value))

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if self.targets == "auto" and not self.held_back:
            raise UsageError(
                "--targets auto needs images to decide on",
                seen="--held-back 0",
                allowed="a share above 0 and up to 0.5",
                fix="add --held-back 0.1, or choose --targets dense or input",
            )
        return self

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        if self.permute and Pattern.parse(self.pattern).sparsity is not None:
            raise UsageError(
                "--permute needs groups of weights",
                seen=f"--pattern {self.pattern}",
                allowed="--permute beside an N:M pattern, such as --pattern 2:4",
                fix="leave --permute out, or change --pattern",
            )
        return self

    @property
    def permutes(self) -> bool:
        """Whether channels are put in another order."""
        return Pattern.parse(self.pattern).sparsity is None if self.permute is None else self.permute


def solver_facts(settings: PruneSettings) -> dict[str, str | int | float | bool]:
    """The settings that decide the solve, for reports: those of the solver's panel, and how products are computed."""
    extra = ("products", "compile_products", "batch_size")
    names = [
        name
        for name, field in PruneSettings.model_fields.items()
        if name in extra or any(isinstance(m, Option) and m.panel == _SOLVER for m in field.metadata)
    ]
    return {name: getattr(settings, name) for name in names}
