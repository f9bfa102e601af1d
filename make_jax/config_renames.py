"""Settings of older runs and recipes: renamed and removed ones, with the message of each."""

# Settings of older runs and recipes. None is accepted: the error names the new setting, or why it was removed.
RENAMED = {
    "inputs.vocabulary": "inputs.vocab_size",
    "inputs.query_tokens": "inputs.max_query_tokens",
    "inputs.title_tokens": "inputs.max_title_tokens",
    "inputs.keywords": "inputs.max_keywords",
    "inputs.masked_tokens": "inputs.mlm_ratio",
    "inputs.masked_patches": "inputs.mpm_ratio",
    "inputs.augment.crop_area": "inputs.augment.min_crop_area",
    "model.query.eps": "model.query.layer_norm_eps",
    "model.title.eps": "model.title.layer_norm_eps",
    "model.image.eps": "model.image.layer_norm_eps",
    "model.image.patch": "model.image.patch_size",
    "model.evidence": "model.keyword_dims",
    "model.evidence_scale": "model.keyword_scale",
    "model.normalise": "model.l2_normalize",
    "model.embedding": "model.embedding_dim",
    "model.initial_scale": "model.initial_logit_scale",
    "model.adaptation.weights=confidence": "per_keyword",
    "objectives.kind": "objectives.loss_type",
    "objectives.form": "objectives.implementation",
    "optim.final_learning_rate": "optim.final_lr_ratio",
    "optim.largest_scale": "optim.max_logit_scale",
    "optim.rules": "optim.lr_multipliers",
    "train.keep": "train.max_to_keep",
    "train.micro_batch": "train.micro_batch_size",
    "processes": "distributed",
    "processes.coordinator": "distributed.coordinator_address",
    "processes.count": "distributed.num_processes",
    "processes.index": "distributed.process_id",
    "processes.start_timeout": "distributed.initialization_timeout",
}
REMOVED = {"objectives.bank": "it lowered validation nDCG@10 by 0.11"}


def renamed(path: str, value: object = None) -> str | None:
    """Returns the message for an old setting, or an old `value` of a setting; None for a current one.

    `path` is dotted, such as "objectives.form".
    """
    if path in RENAMED:
        return f"{path} was renamed to {RENAMED[path]}"
    if path in REMOVED:
        return f"{path} was removed: {REMOVED[path]}"
    if f"{path}={value}" in RENAMED:
        return f"{path} {value!r} was renamed to {RENAMED[f'{path}={value}']!r}"
    return None
