"""The image preprocessings of widely used models, by name: the only place that knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxprune.calibration.preprocessing import Preprocessing

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preset:
    """One preprocessing.

    Attributes:
        preprocessing: what it says.
        what: the same for people.
        source: whose it is.
    """

    preprocessing: Preprocessing
    what: str
    source: str


PRESETS: Mapping[str, Preset] = {
    "imagenet": Preset(
        Preprocessing(_MEAN, _STD, 1 / 255),
        "mean and std of ImageNet",
        "most networks on ImageNet classes; the values of torchvision.transforms._presets",
    ),
    "torchvision": Preset(
        Preprocessing(_MEAN, _STD, 1 / 255, crop=0.875, interpolation="bilinear"),
        "imagenet, and 224 pixels cut from 256",
        "torchvision.transforms._presets.ImageClassification",
    ),
    "timm": Preset(
        Preprocessing(_MEAN, _STD, 1 / 255, crop=0.875, interpolation="bicubic"),
        "imagenet, and 224 pixels cut from 256, bicubic",
        "the defaults of timm.data.constants; some models of timm have others",
    ),
    "tf": Preset(
        Preprocessing((0.5,), (0.5,), 1 / 255),
        "values from -1 to 1",
        "mode 'tf' of keras.applications.imagenet_utils: Inception, MobileNet, Xception, "
        "ResNetV2; Google's ViT",
    ),
    "caffe": Preset(
        Preprocessing((103.939, 116.779, 123.68), (1.0,), 1.0, bgr=True),
        "BGR from 0 to 255 less the mean",
        "mode 'caffe' of keras.applications.imagenet_utils: ResNet, VGG; models from Caffe",
    ),
    "unit": Preset(
        Preprocessing(scale=1 / 255),
        "values from 0 to 1",
        "torchvision.transforms.ToTensor",
    ),
    "raw": Preset(
        Preprocessing(scale=1.0),
        "pixels from 0 to 255 as they are",
        "models that scale them inside, such as Keras' EfficientNet, and uint8 inputs",
    ),
    "clip": Preset(
        Preprocessing(
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
            1 / 255,
            interpolation="bicubic",
        ),
        "mean and std of CLIP, bicubic",
        "clip.clip._transform of OpenAI",
    ),
    "siglip": Preset(
        Preprocessing((0.5,), (0.5,), 1 / 255, fit="stretch", interpolation="bicubic"),
        "values from -1 to 1, stretched, bicubic",
        "SiglipImageProcessor of transformers",
    ),
    "yolo": Preset(
        Preprocessing(scale=1 / 255, fit="pad", pad=(114.0,)),
        "values from 0 to 1, letterbox with grey 114",
        "ultralytics.data.augment.LetterBox",
    ),
}
"""Name -> preset; the input's layout and size are the model's."""

IMAGENET = PRESETS["imagenet"].preprocessing
"""What torchvision's and most other ImageNet models were trained with."""
