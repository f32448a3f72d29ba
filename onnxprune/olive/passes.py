"""The pass itself; the only module that imports Olive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from olive.common.config_utils import ParamCategory, validate_config
from olive.data.config import DataConfig
from olive.exception import OlivePassError
from olive.hardware import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam
from olive.resource_path import LocalFile, LocalFolder
from olive.search.search_parameter import Categorical

from onnxprune import prune
from onnxprune.calibration import CalibrationSource
from onnxprune.errors import OnnxPruneError, TargetError, ValidationError
from onnxprune.olive.settings import SETTINGS, options_of, targets_of

REPORT = "onnxprune_report.json"
SEARCHED = ("macs=0.8", "macs=0.65", "macs=0.5", "macs=0.35")
"""Targets that a search tries unless it is given others."""

FLOATS = ("fp32", "fp16", "bf16")


class OnnxPrune(Pass):  # type: ignore[misc]
    """Makes an ONNX model smaller and dense by structured pruning, without fine-tuning."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        fields = {
            name: PassConfigParam(
                type_=setting.kind, default_value=setting.default, description=setting.meaning
            )
            for name, setting in SETTINGS.items()
        }
        fields["calib"].category = ParamCategory.DATA
        fields["target"].search_defaults = Categorical(list(SEARCHED))
        fields["data_config"] = PassConfigParam(
            type_=DataConfig | dict, description="samples in place of calib, as a data config"
        )
        return fields

    def _run_for_config(
        self, model: ONNXModelHandler, config: BasePassConfig, output_model_path: str
    ) -> ONNXModelHandler:
        given = {name: getattr(config, name) for name in SETTINGS}
        options = options_of(given, self.accelerator_spec.execution_provider)
        targets = targets_of(config.target)
        options.require_choice(targets)
        source = _samples(config, model)
        try:
            result = prune(model.model_path, source, targets, options=options)
        except (TargetError, ValidationError) as error:  # other targets may do, in a search
            raise OlivePassError(str(error)) from error
        except OnnxPruneError as error:  # one of those that end a workflow, as nothing else would
            raise ValueError(str(error)) from error
        path = Path(resolve_onnx_path(output_model_path, Path(model.model_path).name))
        path.parent.mkdir(parents=True, exist_ok=True)
        result.save(path)
        attributes = dict(model.model_attributes or {})
        if config.save_report:
            report = path.with_name(REPORT)
            result.report.save(report)
            kept = set(attributes.get("additional_files") or ())
            attributes["additional_files"] = sorted({*kept, str(report)})
        data = path.with_name(f"{path.name}.data").exists()  # a model over 2 GB has one
        place = LocalFolder({"path": path.parent}) if data else LocalFile({"path": path})
        return ONNXModelHandler(
            model_path=place,
            onnx_file_name=path.name if data else None,
            model_attributes=attributes,
        )


def _samples(config: BasePassConfig, model: ONNXModelHandler) -> CalibrationSource:
    """The samples that a configuration names.

    Raises:
        ValueError: there are none, or two kinds.
    """
    if (config.calib is None) == (config.data_config is None):
        raise ValueError("OnnxPrune takes its samples from calib or from data_config; give one")
    if config.calib is not None:
        return str(config.calib)
    container = validate_config(config.data_config, DataConfig).to_data_container()
    samples: CalibrationSource = container.create_calibration_dataloader(
        model_path=model.model_path, io_config=model.io_config
    )
    return samples


def package_config() -> dict[str, Any]:
    """The passes that the installed Olive knows, with this one beside them."""
    text = Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8")
    known: dict[str, Any] = json.loads(text)
    known["passes"][OnnxPrune.__name__] = {
        "module_path": f"{__name__}.{OnnxPrune.__name__}",
        "supported_providers": ["*"],
        "supported_accelerators": ["*"],
        "supported_precisions": list(FLOATS),
        "supported_algorithms": [],
        "supported_quantization_encodings": [],
    }
    return known
