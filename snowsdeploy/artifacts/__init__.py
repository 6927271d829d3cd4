"""The values that flow between the stages; each is frozen and round-trips through JSON.

Checkpoint* -> Program* -> ImageSet* -> Masks* -> PruneReport (+ weights*) -> OnnxArtifact (dense, sparse)
  -> Variant (SparsityEvidence, Parity, Accuracy, Latency) for each precision -> Report -> Verdict; the starred ones
hold tensors and live elsewhere.
"""

from __future__ import annotations

from snowsdeploy.artifacts.accuracy import Accuracy, Agreement, PairedTest, Proportion
from snowsdeploy.artifacts.base import SCHEMA_VERSION, Artifact, Format, Precision, Role, Tristate
from snowsdeploy.artifacts.comparison import ComparedRun, Comparison
from snowsdeploy.artifacts.debug import AccuracyCost, Distance, Divergence, LayerCost, Restoration, ValueDifference
from snowsdeploy.artifacts.engine import EngineEvidence, EngineSource
from snowsdeploy.artifacts.evidence import Compilation, LayerSparsity, Parity, ParityRow, SparsityEvidence
from snowsdeploy.artifacts.files import ExportReport, FilePair, OnnxArtifact, Package
from snowsdeploy.artifacts.latency import Environment, Latency, LatencyRatio, LatencySeries
from snowsdeploy.artifacts.memory import MemoryPlan, UnitMemory
from snowsdeploy.artifacts.permutation import Permutation, PermutedGroup
from snowsdeploy.artifacts.plan import RunPlan, UnitCost
from snowsdeploy.artifacts.profile import Copies, FileRatio, GpuReading, OperatorTime, Profile, ProfiledFile, TimedFile
from snowsdeploy.artifacts.pruning import LayerDecision, LayerReport, PruneReport, SelectionReport
from snowsdeploy.artifacts.report import Report, RuleResult, Variant, Verdict
from snowsdeploy.artifacts.source import DataInfo, Preprocessing, SourceInfo

__all__ = [
    "SCHEMA_VERSION",
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
    "EngineEvidence",
    "EngineSource",
    "Environment",
    "ExportReport",
    "FilePair",
    "FileRatio",
    "Format",
    "GpuReading",
    "Latency",
    "LatencyRatio",
    "LatencySeries",
    "LayerCost",
    "LayerDecision",
    "LayerReport",
    "LayerSparsity",
    "MemoryPlan",
    "OnnxArtifact",
    "OperatorTime",
    "Package",
    "PairedTest",
    "Parity",
    "ParityRow",
    "Permutation",
    "PermutedGroup",
    "Precision",
    "Preprocessing",
    "Profile",
    "ProfiledFile",
    "Proportion",
    "PruneReport",
    "Report",
    "Restoration",
    "Role",
    "RuleResult",
    "RunPlan",
    "SelectionReport",
    "SourceInfo",
    "SparsityEvidence",
    "TimedFile",
    "Tristate",
    "UnitCost",
    "UnitMemory",
    "ValueDifference",
    "Variant",
    "Verdict",
]
