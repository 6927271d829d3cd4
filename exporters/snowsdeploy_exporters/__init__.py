"""Program -> files for deployment."""

from snowsdeploy_exporters.formats import FORMATS
from snowsdeploy_exporters.onnx_exporter import OnnxExporter

__all__ = ["FORMATS", "OnnxExporter"]
