"""The values that flow between the stages; each is frozen and round-trips through JSON.

Checkpoint* -> Program* -> Samples* -> Masks* -> PruneReport (+ weights*) -> OnnxArtifact (dense, sparse)
  -> Variant (SparsityEvidence, Parity, Accuracy, Latency) for each precision -> Report -> Verdict; the starred ones
hold tensors and live elsewhere.
"""

from __future__ import annotations

from snowsdeploy.values.accuracy import SHARE, Accuracy, Agreement, Drop, Estimate, Metric, Quantity
from snowsdeploy.values.base import (
    PARITY_LIMITS,
    PRECISIONS,
    SCHEMA_VERSION,
    Artifact,
    Format,
    Precision,
    Role,
    RunPath,
    Tristate,
    layer_name,
)
from snowsdeploy.values.command import StageCommand
from snowsdeploy.values.comparison import ComparedRun, Comparison
from snowsdeploy.values.debug import AccuracyCost, Distance, Divergence, LayerCost, Restoration, ValueDifference
from snowsdeploy.values.engine import EngineEvidence, EngineSource
from snowsdeploy.values.evidence import Compilation, LayerSparsity, Parity, ParityRow, SparsityEvidence
from snowsdeploy.values.files import ExportReport, FilePair, OnnxArtifact, Package
from snowsdeploy.values.latency import Environment, Latency, LatencyRatio, LatencySeries
from snowsdeploy.values.memory import MemoryPlan, UnitMemory
from snowsdeploy.values.permutation import Permutation, PermutedGroup
from snowsdeploy.values.plan import RunPlan, UnitCost
from snowsdeploy.values.profile import Copies, FileRatio, GpuReading, OperatorTime, Profile, ProfiledFile, TimedFile
from snowsdeploy.values.pruning import LayerDecision, LayerReport, PruneReport, SelectionReport, TensorDigests
from snowsdeploy.values.report import Outcome, Report, RuleResult, Variant, Verdict
from snowsdeploy.values.source import (
    DTYPES,
    DataInfo,
    DynamicAxis,
    InputInfo,
    ModelSignature,
    Preprocessing,
    SourceInfo,
)

__all__ = [
    "DTYPES",
    "PARITY_LIMITS",
    "PRECISIONS",
    "SCHEMA_VERSION",
    "SHARE",
    "Accuracy",
    "AccuracyCost",
    "Agreement",
    "Artifact",
    "ComparedRun",
    "Comparison",
    "Compilation",
    "Copies",
    "DataInfo",
    "Distance",
    "Divergence",
    "Drop",
    "DynamicAxis",
    "EngineEvidence",
    "EngineSource",
    "Environment",
    "Estimate",
    "ExportReport",
    "FilePair",
    "FileRatio",
    "Format",
    "GpuReading",
    "InputInfo",
    "Latency",
    "LatencyRatio",
    "LatencySeries",
    "LayerCost",
    "LayerDecision",
    "LayerReport",
    "LayerSparsity",
    "MemoryPlan",
    "Metric",
    "ModelSignature",
    "OnnxArtifact",
    "OperatorTime",
    "Outcome",
    "Package",
    "Parity",
    "ParityRow",
    "Permutation",
    "PermutedGroup",
    "Precision",
    "Preprocessing",
    "Profile",
    "ProfiledFile",
    "PruneReport",
    "Quantity",
    "Report",
    "Restoration",
    "Role",
    "RuleResult",
    "RunPath",
    "RunPlan",
    "SelectionReport",
    "SourceInfo",
    "SparsityEvidence",
    "StageCommand",
    "TensorDigests",
    "TimedFile",
    "Tristate",
    "UnitCost",
    "UnitMemory",
    "ValueDifference",
    "Variant",
    "Verdict",
    "layer_name",
]
