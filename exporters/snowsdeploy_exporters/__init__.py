"""Program -> files for deployment."""

from snowsdeploy_exporters.onnx_fp32 import OnnxExporter

__all__ = ["OnnxExporter"]
