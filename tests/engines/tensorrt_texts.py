"""Build logs and inspector files, written after the documented format of each tool; none was recorded from a GPU.

The lines are those that TensorRT's documentation and public issue threads show, with names of our own.
"""

from __future__ import annotations

import json

TRTEXEC_10 = (
    "&&&& RUNNING TensorRT.trtexec [TensorRT v101303] # trtexec --onnx=model.onnx --sparsity=enable --verbose\n"
    "[11/21/2026-10:00:00] [I] Sparsity: Enabled\n"
    "[11/21/2026-10:00:01] [V] [TRT] Registering layer: conv1 for ONNX node: conv1\n"
    "[11/21/2026-10:00:02] [I] [TRT] (Sparsity) Found 3 layer(s) eligible to use sparse tactics: "
    "conv1 + relu1, conv2 + add + relu2, fc\n"
    "[11/21/2026-10:00:03] [I] [TRT] (Sparsity) Chose 1 layer(s) using sparse tactics: conv2 + add + relu2\n"
    "[11/21/2026-10:00:04] [I] [TRT] Total Host Persistent Memory: 160\n"
)

TRTEXEC_8 = (
    "[03/23/2022-00:14:05] [I] [TRT] (Sparsity) Layers eligible for sparse math: "
    "conv1 + relu1, conv2 + add + relu2, fc\n"
    "[03/23/2022-00:14:05] [I] [TRT] (Sparsity) TRT inference plan picked sparse implementation for layers: "
    "conv2 + add + relu2\n"
    "[03/23/2022-00:14:05] [I] [TRT] Total Activation Memory: 7864832\n"
)

PYTHON_LOGGER_8 = """\
[TensorRT] INFO: (Sparsity) Layers eligible for sparse math: conv1 + relu1, conv2 + add + relu2, fc
[TensorRT] INFO: (Sparsity) TRT inference plan picked sparse implementation for layers: conv2 + add + relu2
"""

ONNX_RUNTIME = (
    "\x1b[1;32m2026-11-21 10:00:01.515349260 [I:onnxruntime:Default, tensorrt_execution_provider.h:88 log] "
    "[2026-11-21 10:00:01    INFO] (Sparsity) Found 3 layer(s) eligible to use sparse tactics: "
    "conv1 + relu1, conv2 + add + relu2, fc\x1b[m\n"
    "2026-11-21 10:00:02.515349260 [I:onnxruntime:Default, tensorrt_execution_provider.h:88 log] "
    "[2026-11-21 10:00:02    INFO] (Sparsity) Chose 1 layer(s) using sparse tactics: conv2 + add + relu2\n"
)

ONNX_RUNTIME_LOGGER_OF_A_PROGRAM = (
    "I onnxruntime: [2026-11-21 10:00:01    INFO] (Sparsity) Found 3 layer(s) eligible to use sparse tactics: "
    "conv1 + relu1, conv2 + add + relu2, fc [tensorrt_execution_provider.h:88 onnxruntime::TensorrtLogger::log]\n"
    "I onnxruntime: [2026-11-21 10:00:02    INFO] (Sparsity) Chose 1 layer(s) using sparse tactics: "
    "conv2 + add + relu2 [tensorrt_execution_provider.h:88 onnxruntime::TensorrtLogger::log]\n"
)

# As pasted from a terminal of 79 columns, which breaks inside words and drops spaces at the end of a line.
WRAPPED = """\
[07/19/2022-11:58:20] [I] [TRT] (Sparsity) Layers eligible for sparse math: con
v1 + relu1, conv2 + add + relu2, fc
[07/19/2022-11:58:20] [I] [TRT] (Sparsity) TRT inference plan picked sparse imp
lementation for layers: conv2 + add + relu2
[07/19/2022-11:58:20] [I] [TRT] Total Activation Memory: 7864832
"""

COUNTS_ALONE = """\
(Sparsity) Found 39 layer(s) eligible to use sparse tactics
(Sparsity) Chose 0 layer(s) using sparse tactics
"""

NO_SPARSE_KERNEL_8 = """\
[07/19/2022-11:58:20] [I] [TRT] (Sparsity) Layers eligible for sparse math: conv1 + relu1
[07/19/2022-11:58:20] [I] [TRT] (Sparsity) TRT inference plan picked sparse implementation for layers:
[07/19/2022-11:58:20] [I] [TRT] Total Activation Memory: 7864832
"""

SPARSITY_OFF = """\
[11/21/2026-10:00:00] [I] Sparsity: Disabled
[11/21/2026-10:00:01] [V] [TRT] Registering layer: conv1 for ONNX node: conv1
"""

DENSE_KERNEL = "sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x64x32_stage4"
SPARSE_KERNELS = (
    "sm80_xmma_fprop_sparse_conv_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x64x64",
    "sm80_xmma_gemm_f16_tilesize128x128x64_SPTENSOR16x8x32",
    "sm86_xmma_fprop_f16_spmma16832",
)

INSPECTOR = json.dumps(
    {
        "Layers": [
            {
                "Name": "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1",
                "LayerType": "Reformat",
                "TacticName": "",
                "Metadata": "",
            },
            {
                "Name": "conv1 + relu1",
                "LayerType": "CaskConvolution",
                "HasSparseWeights": 1,
                "TacticName": DENSE_KERNEL,
                "TacticValue": "0xff4e814e86dc840c",
                "Metadata": "[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]",
            },
            {
                "Name": "conv2 + add + relu2",
                "LayerType": "CaskConvolution",
                "HasSparseWeights": True,
                "TacticName": SPARSE_KERNELS[0],
                "Metadata": "[ONNX Layer: conv2]\x1f[ONNX Layer: add]\x1f[ONNX Layer: relu2]",
            },
            {
                "Name": "fc_myl0_3",
                "LayerType": "gemm",
                "TacticName": "sm80_xmma_gemm_f16",
                "Metadata": "[ONNX Layer: fc]",
            },
        ],
        "Bindings": ["input", "output"],
    }
)

NAMES_ONLY = json.dumps({"Layers": ["conv1 + relu1", "conv2 + add + relu2", "fc"], "Bindings": ["input"]})
