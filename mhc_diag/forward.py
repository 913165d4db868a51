"""One forward pass of the user's model, for a capture to see; the model is left as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mhc_diag import loading
from mhc_diag.errors import MhcDiagError, ModelError

if TYPE_CHECKING:
    from torch import nn


def model_of(
    path: Path, given: str | Callable[..., Any] | nn.Module | None, *, device: str
) -> nn.Module:
    """The nn.Module itself where it stands, or the model that is built from a checkpoint.

    Args:
        path: the checkpoint, or a Hugging Face folder where nothing is given.
        given: the module, what makes it, or None.
        device: where a model that is built here runs.
    """
    if given is None:
        return loading.placed(loading.model_from_hf_folder(path), device)
    if hasattr(given, "named_modules"):
        return cast("nn.Module", given)
    return loading.placed(loading.build_model(given, path), device)


def inputs_of(given: Any, model: nn.Module, *, seed: int, folder: Path | None) -> loading.Inputs:
    """The arguments of the forward pass; given as objects, the capture itself hashes them.

    Args:
        given: a tensor, a tuple, a mapping of keywords, or text as after ``--inputs``.
        model: what they are for.
        seed: of ids that are drawn.
        folder: the Hugging Face folder, where there is one.
    """
    if isinstance(given, str | os.PathLike):
        return loading.load_inputs(
            str(given), seed=seed, folder=folder, vocab_size=loading.vocabulary_size(model)
        )
    if isinstance(given, Mapping):
        return loading.Inputs(args=(), kwargs=dict(given), description="")
    args = given if isinstance(given, tuple) else (given,)
    return loading.Inputs(args=args, description="")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, in which nothing is dropped at random; each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training


def run(model: nn.Module, inputs: loading.Inputs, asked: str) -> None:
    """Run once where the model is, without gradients.

    Args:
        model: the model.
        inputs: its arguments; tensors are put where its parameters are.
        asked: what the user wanted, for the error.

    Raises:
        ModelError: the model raised.
    """
    import torch

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def placed(value: Any) -> Any:
        return value.to(device) if isinstance(value, torch.Tensor) else value

    try:
        with torch.no_grad():
            model(*map(placed, inputs.args), **{k: placed(v) for k, v in inputs.kwargs.items()})
    except MhcDiagError:
        raise
    except Exception as error:  # the user's model may raise anything
        raise ModelError(
            asked,
            f"the model raised {loading.told(error)}",
            "Check that the inputs fit the model; --traceback shows where it happened.",
        ) from error
