"""Load a model as a teacher, with its outputs in the data's label order."""

from __future__ import annotations

from typing import Any

from factory.data.dataset import Dataset
from factory.errors import TeacherError, first_line, short_list
from factory.models.classifier import new_weights
from factory.models.source import ModelSource
from factory.models.tasks import TASKS
from factory.recipe.training import TeacherSettings


def load_pretrained(
    source: ModelSource, settings: TeacherSettings, dataset: Dataset, *, only_bert: bool = True
) -> tuple[Any, Any]:
    """Load model and tokenizer with the outputs in the data's label order.

    Args:
        only_bert: reject other architectures, which need a student that starts from a checkpoint.

    Raises:
        TeacherError: not found, another architecture, no usable tokenizer, or labels that do not
            match.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(settings.seed)  # a new classifier is initialized while loading
    place = {"revision": source.revision}
    try:
        config = AutoConfig.from_pretrained(source.location, **place)
        tokenizer = AutoTokenizer.from_pretrained(source.location, **place)
    except (OSError, ValueError) as error:
        raise TeacherError(_not_loadable(source, settings, error)) from error
    if only_bert and config.model_type != "bert":
        raise TeacherError(
            f"teacher.model {settings.model} is a {config.model_type} model; a student can start "
            "from the layers and vocabulary of a BERT (model_type bert) only; set student.start to "
            "a BERT checkpoint (hub id or folder), which is then trained on this teacher's logits"
        )
    _check_tokenizer(tokenizer, settings)
    order = None if settings.fine_tune else match_labels(config, settings, dataset)
    if settings.fine_tune:
        config.num_labels = len(dataset.labels)
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            source.location,
            config=config,
            ignore_mismatched_sizes=settings.fine_tune,
            output_loading_info=True,
            **place,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TeacherError(_not_loadable(source, settings, error)) from error
    if order is not None:
        if loading["missing_keys"]:
            raise TeacherError(
                f"teacher.model {settings.model} has no weights for "
                f"{', '.join(sorted(loading['missing_keys']))}: it is not a fine-tuned classifier; "
                "set teacher.fine_tune = true"
            )
        _reorder_outputs(model, order, settings)
    elif "classifier.bias" in new_weights(loading):
        _initialize_bias(getattr(model, "classifier", None), dataset)
    model.config.id2label = dict(enumerate(dataset.labels))
    model.config.label2id = {label: number for number, label in enumerate(dataset.labels)}
    model.config.problem_type = TASKS[dataset.task].problem_type
    return model, tokenizer


def match_labels(config: Any, settings: TeacherSettings, dataset: Dataset) -> list[int]:
    """For each label of the data, the number of the teacher's output for it.

    Names are compared exactly, then ignoring case. `teacher.labels` replaces the teacher's names,
    for example generic ones (LABEL_0).

    Raises:
        TeacherError: a different number of outputs, or names that cannot be matched.
    """
    if not TASKS[dataset.task].traits.has_labels:
        if config.num_labels != 1:
            raise TeacherError(
                f"teacher.model {settings.model} has {config.num_labels} outputs; "
                f"{dataset.task} needs exactly 1"
            )
        return [0]
    trained_for = getattr(config, "problem_type", None)
    if trained_for not in (None, TASKS[dataset.task].problem_type):
        raise TeacherError(
            f"teacher.model {settings.model} was trained for {trained_for} (problem_type in its "
            f'config), data.task is "{dataset.task}"; set teacher.fine_tune = true, or data.task'
        )
    names = settings.labels or [config.id2label[number] for number in range(config.num_labels)]
    if len(names) != config.num_labels:
        raise TeacherError(
            f"teacher.labels names {len(names)} outputs, the teacher has {config.num_labels}"
        )
    for normal in (str, str.casefold):
        wanted = [normal(label) for label in dataset.labels]
        found = [normal(name) for name in names]
        if sorted(wanted) == sorted(found) and len(set(found)) == len(found):
            return [found.index(label) for label in wanted]
    raise TeacherError(
        f"the teacher's outputs {short_list(names)} cannot be matched by name to the data's "
        f"labels {short_list(dataset.labels)}; name the teacher's outputs in order with "
        "teacher.labels, or the data's classes with data.labels; if the model is not yet "
        "fine-tuned on these labels, set teacher.fine_tune = true"
    )


def _reorder_outputs(model: Any, order: list[int], settings: TeacherSettings) -> None:
    """Permute the classifier so that output i means the data's label i.

    Raises:
        TeacherError: no layer of the model's head has as many outputs as labels.
    """
    import torch

    if order == sorted(order):
        return
    body = set() if model.base_model is model else set(model.base_model.modules())
    outputs = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.Linear)
        and module.out_features == len(order)
        and module not in body
    ]
    if not outputs:
        raise TeacherError(
            f"teacher.model {settings.model}: its output layer was not found, so "
            "they cannot be put into the data's order; name data.labels in the teacher's order"
        )
    with torch.no_grad():
        for parameter in outputs[-1].parameters():
            parameter.copy_(parameter[order].clone())


def _initialize_bias(classifier: Any, dataset: Dataset) -> None:
    """Set a new head's bias to the task's initial bias, if the head is a linear layer."""
    import torch

    task = TASKS[dataset.task]
    if task.initial_bias is None or not isinstance(classifier, torch.nn.Linear):
        return
    bias = task.initial_bias(task.targets(dataset.train, len(dataset.labels)))
    with torch.no_grad():
        classifier.bias.copy_(torch.from_numpy(bias))


def _check_tokenizer(tokenizer: Any, settings: TeacherSettings) -> None:
    """Reject a tokenizer that cannot make batches padded on the right."""
    name = f"teacher.model {settings.model}"
    if not tokenizer.is_fast:
        raise TeacherError(f"{name} has no fast tokenizer (tokenizer.json)")
    if tokenizer.pad_token_id is None:
        raise TeacherError(f"{name} has no padding token; choose a model that reads padded batches")
    if tokenizer.padding_side != "right":
        raise TeacherError(
            f"{name} pads on the left; choose a model whose tokenizer pads on the right"
        )


def _not_loadable(source: ModelSource, settings: TeacherSettings, error: Exception) -> str:
    hub = (
        "There is no such folder beside the recipe, so this is a hub id; the hub does not have it "
        "or cannot be reached. "
        if source.identity.startswith("hub:")
        else ""
    )
    return (
        f"teacher.model {settings.model} cannot be loaded from {source.location}: "
        f"{first_line(error).removesuffix('.')}. {hub}"
        "Give a hub id (needs the network once), a folder with config.json, weights and "
        "tokenizer.json, or package:NAME"
    )
