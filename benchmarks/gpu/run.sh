#!/usr/bin/env bash
# The main job on a machine with an NVIDIA GPU: bash benchmarks/gpu/run.sh
#
# Needs `snowsdeploy` on PATH (or SNOWSDEPLOY="python -m snowsdeploy_cli"). Runs doctor, then the example with the CUDA and the
# TensorRT provider and, where SNOWSDEPLOY_DATA points at the benchmark data, ResNet-20 and DeiT-Tiny with TensorRT. A provider
# that does not load ends its run with exit code 3 and the others go on. What a run left, its log and its exit code are in
# benchmarks/results/<gpu>/; the ONNX files themselves are not kept.
set -uo pipefail
cd "$(dirname "$0")/../.."
# shellcheck disable=SC2206 # split into words on purpose
snowsdeploy=(${SNOWSDEPLOY:-snowsdeploy})

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
    for file in report.json summary.md; do
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
echo "results in $results; worst exit code $worst"
exit "$worst"
