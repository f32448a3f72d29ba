#!/usr/bin/env bash
# Prunes a model and fails the build when the result diverges by more than a bound.
#
#   check_divergence.sh IN.onnx OUT.onnx SAMPLES MAX_ERROR [COST]
#
# MAX_ERROR bounds the relative error of the outputs on samples that nothing was fitted on; COST is
# what the model may cost (default macs=0.5). OUT is written only if both hold; RECORD (default
# record.json) is the record of the run, or the error that says which of them does not, and by how
# much. Exit codes are those of onnxprune: 0 both hold, 1 one does not, 2 wrong usage.
set -euo pipefail

if [ $# -lt 4 ]; then
    sed -n '4p' "$0" >&2
    exit 2
fi
in=$1 out=$2 samples=$3 bound=$4 cost=${5:-macs=0.5}

${ONNXPRUNE:-onnxprune} "$in" "$out" --calib "$samples" \
    --target "$cost" --target "error=$bound" --json >"${RECORD:-record.json}"
