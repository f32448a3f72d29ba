"""Small networks of the architectures that people deploy, built from real code where it exists."""

import networks.operators  # noqa: F401  has to come before what imports torchvision
from networks import (  # the import is what enters them
    audio,
    classifiers,
    convolutional,
    dense_prediction,
    perceptrons,
    recurrent,
    text,
    timm_models,
    vision_transformers,
)
from networks.topology import TOPOLOGIES, Input, Topology

__all__ = [
    "TOPOLOGIES",
    "Input",
    "Topology",
    "audio",
    "classifiers",
    "convolutional",
    "dense_prediction",
    "perceptrons",
    "recurrent",
    "text",
    "timm_models",
    "vision_transformers",
]
