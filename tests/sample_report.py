"""A made report with every part, for what renders and judges reports."""

from __future__ import annotations

from pathlib import Path

from snowsdeploy.tasks.statistics import proportion
from snowsdeploy.values import (
    Accuracy,
    Agreement,
    DataInfo,
    Drop,
    EngineEvidence,
    EngineSource,
    Environment,
    Estimate,
    InputInfo,
    Latency,
    LatencyRatio,
    LatencySeries,
    LayerDecision,
    LayerReport,
    LayerSparsity,
    Metric,
    ModelSignature,
    OnnxArtifact,
    Parity,
    ParityRow,
    Preprocessing,
    PruneReport,
    Report,
    SourceInfo,
    SparsityEvidence,
    StageCommand,
    Variant,
)

NAMES = tuple(f"stages.{i}.blocks.1.conv_pw_expand.conv{i + 1}" for i in range(2))
DATA = DataInfo(source="imagenet[1::2]", items=1000, labelled=True, origin="o", fingerprint="f")
SHA256 = {"dense": "d" * 64, "sparse": "5" * 64}


def make_report(*, dense_right: int = 917, sparse_right: int = 912, speedup: float = 1.0) -> Report:
    """A report with every part, with names and numbers as long as real ones; accuracy is of 1000 images."""
    return Report(
        created="2026-01-01T00:00:00+00:00",
        commands=(
            StageCommand(stage="prune-export", command="snowsdeploy prune-export model.pth", created="2026-01-01"),
        ),
        environment=Environment(
            machine="x86_64", cpu="cpu", cores=2, memory_bytes=2**34, gpus=(), os="Linux", versions={"torch": "2.15"}
        ),
        source=SourceInfo(source="model.pth", format="checkpoint", arch="resnet20"),
        preprocessing=Preprocessing(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3),
        signature=ModelSignature(inputs=(InputInfo(name="input", shape=(3, 32, 32)),), outputs=("output",)),
        prune=_prune(),
        variants=(_variant(dense_right, sparse_right, speedup),),
        warnings=("8 images of --eval-data are also in --data: the accuracy is optimistic.",),
        seconds={"prune": 12.0, "export": 3.0, "validate": 4.0},
        peak_memory_bytes=2**30,
    )


def _variant(dense_right: int, sparse_right: int, speedup: float) -> Variant:
    return Variant(
        dense=_artifact("dense"),
        sparse=_artifact("sparse"),
        sparsity=_sparsity(),
        parity=Parity(provider="cpu", rows=(ParityRow(output="output", batch=8, max_abs=1e-6, relative_l2=3e-7),)),
        accuracy=_accuracy(dense_right, sparse_right),
        latency=_latency(speedup),
    )


def with_variant(report: Report, **changes: object) -> Report:
    """The report with parts of its only variant replaced."""
    (variant,) = report.variants
    return report.model_copy(update={"variants": (variant.model_copy(update=changes),)})


def without_labels(variant: Variant) -> Variant:
    """The variant with accuracy of items that nobody labelled."""
    assert variant.accuracy is not None
    data = variant.accuracy.data.model_copy(update={"labelled": False})
    return variant.model_copy(update={"accuracy": variant.accuracy.model_copy(update={"metrics": (), "data": data})})


def unlabelled(report: Report) -> Report:
    """The report with every accuracy of items that nobody labelled."""
    return report.model_copy(update={"variants": tuple(map(without_labels, report.variants))})


def with_engine(report: Report, *, found_unknown: int = 0, chosen_unknown: int = 0) -> Report:
    """The report with an engine that found both pruned layers eligible and chose a sparse kernel for the first."""
    sparsity = report.variants[0].sparsity
    assert sparsity is not None
    rows = [
        row.model_copy(update={"found": "yes", "chosen": "yes" if row.name == NAMES[0] else "no"})
        for row in sparsity.layers
    ]
    engine = EngineEvidence(
        sources=(EngineSource(kind="log", path=Path("build.log"), sha256="0"),),
        pruned=2,
        eligible=2,
        found=2 - found_unknown,
        found_unknown=found_unknown,
        chosen=1,
        chosen_unknown=chosen_unknown,
        notes=("a note on <names>",),
    )
    return with_variant(report, sparsity=sparsity.model_copy(update={"layers": tuple(rows)}), engine=engine)


def _prune() -> PruneReport:
    pruned = [
        LayerDecision(name=n, weight=f"{n}.weight", kind="conv", shape=(256, 128, 3, 3), prunable=True) for n in NAMES
    ]
    dense = [
        LayerDecision(
            name=f"stages.{i}.dw", weight=None, kind="conv", shape=(64, 1, 3, 3), prunable=False, reason="depthwise"
        )
        for i in range(6)
    ]
    solve = LayerReport(
        layers=NAMES,
        operations=5,
        targets="dense",
        kept=1,
        total=2,
        loss_masked=0.5,
        loss_initial=0.2,
        loss_final=0.1,
        newton_steps=2,
        products=20,
        seconds=1.0,
        outcome="converged",
    )
    return PruneReport(
        pattern="2:4",
        selector="magnitude",
        solver={"horizon": 5},
        decisions=(*pruned, *dense),
        solves=(solve,),
        calibration=DATA.model_copy(update={"source": "imagenet[::2]", "items": 2, "fingerprint": "c"}),
        calibration_items=(0, 1),
        seconds=12.0,
        seed=0,
    )


def _sparsity() -> SparsityEvidence:
    rows = [
        LayerSparsity(
            name=n,
            tensor=n,
            op="Conv",
            shape=(256, 128, 3, 3),
            axis=1,
            zeros=0.5,
            groups=73728,
            violations=0,
        )
        for n in NAMES
    ]
    dense = LayerSparsity(
        name="stages.0.dw", tensor="dw", op="Conv", shape=(64, 93, 1, 1), axis=1, zeros=0.0, groups=0, violations=0
    )
    path = Path("sparse.onnx")
    return SparsityEvidence(pattern="2:4", file=path, sha256=SHA256["sparse"], layers=(*rows, dense), expected=NAMES)


def _accuracy(dense_right: int, sparse_right: int) -> Accuracy:
    drop, low, high = ((dense_right - sparse_right) / 10 + shift for shift in (0.0, -0.4, 0.4))
    return Accuracy(
        task="classify",
        data=DATA,
        provider="cpu",
        agreement=(
            Agreement(name="same_class", label="same class", measured=proportion(960, 1000), usual_limit=0.9),
            Agreement(name="cosine", label="cosine", unit="", measured=Estimate(value=0.99, items=1000)),
            Agreement(
                name="kl",
                label="KL",
                unit="nats",
                higher_is_better=False,
                measured=Estimate(value=0.01, items=1000),
            ),
        ),
        metrics=(
            Metric(
                name="top1",
                label="top-1",
                dense=proportion(dense_right, 1000),
                sparse=proportion(sparse_right, 1000),
                drop=Drop(value=drop, low=low, high=high, p_value=0.4, note="9 items only the dense model gets right"),
                usual_drop=2.0,
                usual_regression=0.5,
            ),
            Metric(
                name="top5",
                label="top-5",
                dense=proportion(990, 1000),
                sparse=proportion(989, 1000),
                drop=Drop(value=0.1, low=-0.2, high=0.4, p_value=1.0),
            ),
        ),
    )


def _latency(speedup: float) -> Latency:
    times = {
        "mean_ms": 1234.5,
        "p50_ms": 1234.5,
        "p50_low_ms": 1230.0,
        "p50_high_ms": 1240.0,
        "p90_ms": 1300.0,
        "p99_ms": 2345.6,
    }
    taken = {"dense": times, "sparse": {name: ms / speedup for name, ms in times.items()}}
    series = [
        LatencySeries.model_validate({"role": role, "batch": batch, "runs": 50, "cov": 0.1, **taken[role]})
        for batch in (1, 128)
        for role in ("dense", "sparse")
    ]
    ratios = [LatencyRatio(batch=b, speedup=speedup, low=speedup - 0.1, high=speedup + 0.1) for b in (1, 128)]
    return Latency(
        requested="cpu",
        providers={"CPUExecutionProvider": 42},
        uses_sparsity="no",
        series=tuple(series),
        ratios=tuple(ratios),
        note="CPUExecutionProvider multiplies zeros like any value: 2:4 brings no speed here.",
    )


def _artifact(role: str) -> OnnxArtifact:
    content = {"path": f"{role}.onnx", "role": role, "sha256": SHA256[role], "size_bytes": 9, "opset": 20}
    return OnnxArtifact.model_validate({**content, "input_names": ["input"], "output_names": ["output"]})
