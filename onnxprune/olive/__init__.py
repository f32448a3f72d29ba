"""Pruning as a pass of a Microsoft Olive workflow; needs the package olive-ai.

    python -m onnxprune.olive > passes.json
    olive run --config workflow.json --package-config passes.json

The first line writes the passes that Olive knows, and ``OnnxPrune`` beside them.
"""
