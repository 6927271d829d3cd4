#!/usr/bin/env bash
# The main job on a machine with an NVIDIA GPU: bash benchmarks/gpu/run.sh
#
# Needs `snowsdeploy` on PATH (or SNOWSDEPLOY="python -m snowsdeploy_cli") and PYTHON, the interpreter beside it. Runs
# doctor; the example with the CUDA and the TensorRT provider; where SNOWSDEPLOY_DATA points at the benchmark data,
# ResNet-20 and DeiT-Tiny with TensorRT; the solve of a whole ViT-B/16 on 1,024 images (solve.md); PyTorch's 2:4 kernels
# against its dense ones on whole models (kernels.md); the ONNX files of those models side by side on the CUDA and
# TensorRT providers (profile-*.json); and the latency rules against themselves (latency-*.md). A provider that does not load ends its run with exit code 3 and the others go on.
# What a run left, its log and its exit code are in benchmarks/results/<gpu>/; the ONNX files are not kept.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 3
# shellcheck disable=SC2206 # split into words on purpose
snowsdeploy=(${SNOWSDEPLOY:-snowsdeploy})
# shellcheck disable=SC2206
python=(${PYTHON:-python})
root="$PWD"

if ! gpu="$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)" || [ -z "$gpu" ]; then
    echo "error: no NVIDIA GPU answers to nvidia-smi" >&2
    exit 3
fi
results="$PWD/benchmarks/results/$(printf '%s' "$gpu" | tr -c 'A-Za-z0-9' '-')"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$results"
worst=0

job() { # NAME OPTIONS...: one run; keeps the evidence
    local name="$1" code=0
    shift
    echo "== $name"
    "${snowsdeploy[@]}" prune-export "$@" --latency-batch 1,8,32,128 --latency-runs 200 --out "$scratch/$name" --force \
        2>&1 | tee "$results/$name.log" || code="${PIPESTATUS[0]}"
    echo "$code" >"$results/$name.exit"
    for file in report.json report.html summary.md; do
        if [ -f "$scratch/$name/$file" ]; then cp "$scratch/$name/$file" "$results/$name.$file"; fi
    done
    if [ "$code" -gt "$worst" ]; then worst="$code"; fi
}

nvidia-smi --query-gpu=name,driver_version,power.limit,clocks.max.sm,temperature.gpu --format=csv | tee "$results/gpu.csv"
"${snowsdeploy[@]}" doctor | tee "$results/doctor.txt"
"${snowsdeploy[@]}" doctor --json >"$results/doctor.json"

digits=(examples/digits/digits.pth --data examples/digits/calibration.npz --eval-data examples/digits/test.npz
    --model-arg num_classes=10 --model-arg in_chans=1 --mean 0.3 --std 0.35)
job digits-cuda "${digits[@]}" --provider cuda
job digits-tensorrt "${digits[@]}" --provider tensorrt

data="${SNOWSDEPLOY_DATA:-}"
if [ -n "$data" ]; then
    cd "$data" || exit 3 # architectures named module:factory are found from the current directory
    job resnet20-tensorrt resnet20_cifar10.th --arch cifar_resnet:resnet20 --data cifar10_train8k.npz \
        --eval-data cifar10_test.npz --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --provider tensorrt
    job deit-tiny-tensorrt deit_tiny_patch16_224.pth --arch deit_tiny_patch16_224 --data 'imagenet_sample[0::2]' \
        --eval-data 'imagenet_sample[1::2]' --provider tensorrt
else
    echo "SNOWSDEPLOY_DATA is not set: ResNet-20 and DeiT-Tiny are left out"
fi
cd "$root" || exit 3
echo "== the solve on the GPU"
"${python[@]}" -m benchmarks.gpu.solve --out "$results" 2>&1 | tee "$results/solve.log"
echo "== PyTorch's 2:4 kernels"
"${python[@]}" -m benchmarks.gpu.kernels --keep "$scratch/kernels" --out "$results" 2>&1 | tee "$results/kernels.log"
for model in vit_base_patch16_224 resnet50; do
    run="$scratch/kernels/$model"
    if [ ! -f "$run/model.fp16.onnx" ]; then continue; fi
    for provider in cuda tensorrt; do
        options=()
        if [ "$provider" = tensorrt ]; then options=(--sparsity-off); fi
        echo "== profile $model on $provider"
        "${snowsdeploy[@]}" profile "$run/dense.fp16.onnx" "$run/model.fp16.onnx" --provider "$provider" --allow-fallback cpu \
            "${options[@]}" --batch 1,8,32,128 --memory --export "$results/profile-$model-$provider.json" \
            2>&1 | tee "$results/profile-$model-$provider.log"
    done
done
echo "== the latency rules against themselves"
"${python[@]}" -m benchmarks.latency --out "$results" 2>&1 | tee "$results/latency.log"
echo "results in $results; worst exit code $worst"
exit "$worst"
