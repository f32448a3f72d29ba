"""Post-training structured pruning of ONNX models."""
