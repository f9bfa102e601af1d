"""Checks that relate several settings of a config; types and ranges of single settings are in `config.py`."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from make_jax.config import Config, DistributedConfig

_OBJECTIVES = ("qic", "title_contrast", "image_contrast", "key", "qim", "qim2", "mlm", "mpm")


def problems(config: "Config") -> list[str]:
    """Returns one message per conflict between settings: the setting, its value, what was expected."""
    return [
        *_inputs(config),
        *_encoders(config),
        *_adaptation(config),
        *_unused_weights(config),
        *_objectives(config),
        *_matching_groups(config),
        *_optim(config),
        *_profile(config),
        *_distributed(config.distributed),
    ]


def profiled_steps(text: str) -> tuple[int, int] | None:
    """Returns the first and last step of `train.profile`; None for "". ValueError for anything but FIRST:LAST."""
    if not text:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(text)
    return int(match[1]), int(match[2])


def _inputs(config: "Config") -> Iterator[str]:
    inputs, patch_size = config.inputs, config.model.image.patch_size
    if not config.run:
        yield "run is empty, expected a folder"
    if min(inputs.image_std) <= 0:
        yield f"inputs.image_std is {inputs.image_std}, expected each more than 0"
    for name in ("image_height", "image_width"):
        size = getattr(inputs, name)
        if config.model.adaptation.modalities != "title" and patch_size >= 1 and size % patch_size:
            yield f"inputs.{name} is {size}, expected a multiple of model.image.patch_size {patch_size}"


def _encoders(config: "Config") -> Iterator[str]:
    model, max_scale = config.model, config.optim.max_logit_scale
    for name in ("query", "title", "image", *(["matching"] if model.matching.layers else [])):
        width, heads = getattr(model, name).width, getattr(model, name).heads
        if heads >= 1 and width % heads:
            yield f"model.{name}.width is {width}, expected a multiple of model.{name}.heads {heads}"
    image = model.image
    if image.rotary_grid and image.heads >= 1 and image.width % (4 * image.heads):
        expected = f"expected a multiple of {4 * image.heads} (4 * model.image.heads) with model.image.rotary_grid"
        yield f"model.image.width is {image.width}, {expected}"
    if not 0 < model.initial_logit_scale <= max_scale:
        expected = f"expected more than 0 and at most {max_scale}"
        yield f"model.initial_logit_scale is {model.initial_logit_scale}, {expected}"
    if model.pooling == "cls" and not model.image.class_tokens and model.adaptation.modalities != "title":
        yield "model.pooling is 'cls', expected 'mean' with model.image.class_tokens 0"
    if model.shared_text and model.query != model.title:
        yield "model.title differs from model.query, expected the same settings with model.shared_text"


def _adaptation(config: "Config") -> Iterator[str]:
    adaptation = config.model.adaptation
    if adaptation.single_stream and adaptation.modalities != "both":
        expected = "expected 'both' with model.adaptation.single_stream"
        yield f"model.adaptation.modalities is {adaptation.modalities!r}, {expected}"
    fused = adaptation.modalities == "both" and not adaptation.single_stream
    has_keywords = config.model.keyword_dims and config.inputs.max_keywords
    if fused and adaptation.weights == "per_keyword" and not has_keywords:
        expected = "expected 'gate' or 'mean' without model.keyword_dims and inputs.max_keywords"
        yield f"model.adaptation.weights is 'per_keyword', {expected}"


def _unused_weights(config: "Config") -> Iterator[str]:
    """Yields pretrained weights that are named for an encoder which the model does not have."""
    adaptation = config.model.adaptation
    for name, other in {"title": "image", "image": "title"}.items():
        init_from = getattr(config.model, name).init_from
        if init_from and (adaptation.single_stream or adaptation.modalities == other):
            what = "model.adaptation.single_stream" if adaptation.single_stream else f"the {other} alone"
            yield f"model.{name}.init_from is {init_from!r}, expected '' with {what}"


def _objectives(config: "Config") -> Iterator[str]:
    model, weights = config.model, {name: getattr(config.objectives, name) for name in _OBJECTIVES}
    if not any(weights.values()):
        yield f"objectives: every weight is 0, expected one of {', '.join(_OBJECTIVES)} to be more"
    has_image = model.adaptation.modalities != "title"
    has_image_encoder = has_image and not model.adaptation.single_stream
    has_matching = model.matching.layers > 0
    requirements = {
        "key": ("model.enrichment", model.enrichment and config.inputs.max_keywords > 0),
        "qim": ("model.matching.layers", has_matching),
        "qim2": ("model.matching.layers and an image encoder", has_matching and has_image),
        "mlm": ("model.mlm", model.mlm),
        "mpm": ("model.mpm and an image encoder", model.mpm != "none" and has_image_encoder),
    }
    for name, (requirement, met) in requirements.items():
        if weights[name] and not met:
            yield f"objectives.{name} is {weights[name]}, expected 0 without {requirement}"


def _matching_groups(config: "Config") -> Iterator[str]:
    group = config.objectives.matching_group
    if not (config.objectives.qim or config.objectives.qim2) or group < 2:
        return
    for name in ("batch_size", "micro_batch_size"):
        size = getattr(config.train, name)
        if size % group:
            near = f"{size // group * group} or {-(-size // group) * group}" if size > group else f"{group}"
            yield f"train.{name} is {size}, expected a multiple of objectives.matching_group {group}, like {near}"


def _optim(config: "Config") -> Iterator[str]:
    for i, (pattern, factor) in enumerate(config.optim.lr_multipliers):
        if factor < 0:
            yield f"optim.lr_multipliers[{i}] has the factor {factor}, expected at least 0"
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"optim.lr_multipliers[{i}] is not a regular expression: {pattern!r} ({error})"


def _profile(config: "Config") -> Iterator[str]:
    train = config.train
    try:
        steps = profiled_steps(train.profile)
    except ValueError:
        yield f"train.profile is {train.profile!r}, expected FIRST:LAST step, such as 10:15, the first step being 1"
        return
    if steps is not None and steps[1] > train.steps:
        yield f"train.profile is {train.profile!r}, expected steps up to train.steps {train.steps}"


def _distributed(distributed: "DistributedConfig") -> Iterator[str]:
    address, count, index = distributed.coordinator_address, distributed.num_processes, distributed.process_id
    if not address:
        needs = "expected HOST:PORT in distributed.coordinator_address with it"
        if count not in (0, 1):
            yield f"distributed.num_processes is {count}, {needs} (or 0 or 1)"
        if index != -1:
            yield f"distributed.process_id is {index}, {needs} (or -1)"
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        yield f"distributed.coordinator_address is {address!r}, expected HOST:PORT"
    if count < 1:
        yield f"distributed.num_processes is {count}, expected at least 1 with distributed.coordinator_address"
    elif not 0 <= index < count:
        yield f"distributed.process_id is {index}, expected 0 to {count - 1}, for distributed.num_processes is {count}"
