"""Callables, Hugging Face folders and inputs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mhc_diag.errors import MissingExtraError, ModelError, OptionError
from mhc_diag.loading import (
    build_model,
    load_callable,
    load_inputs,
    model_from_hf_folder,
    vocabulary_size,
)

USER_CODE = """
import torch
from torch import nn

NUMBER = 7

class Factory:
    @staticmethod
    def make(checkpoint):
        return nn.Linear(2, 2)

def build(checkpoint):
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    model.load_state_dict(checkpoint["model"])
    return model.train()

def no_model(checkpoint):
    return {"not": "a model"}

def breaks(checkpoint):
    raise KeyError("n_layer")

def leaves(checkpoint):
    raise SystemExit(0)

def verbose(checkpoint):
    raise ValueError("first line\\n\\n  second line " + "x" * 5000)

def a_tuple():
    return torch.tensor([[1, 2]]), 3

def a_mapping():
    return {"input_ids": torch.tensor([[1, 2]])}

def a_tensor():
    return torch.tensor([[1, 2]], dtype=torch.bfloat16)

def nothing():
    return ()

def no_inputs():
    raise RuntimeError("no data here")
"""


@pytest.fixture(autouse=True)
def _user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory with the user's modules in it; none of them outlives its test."""
    (tmp_path / "usercode.py").write_text(USER_CODE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    (tmp_path / "script.py").write_text("import sys\nsys.exit('usage: script')\n", encoding="utf-8")
    (tmp_path / "needy.py").write_text("import not_installed_anywhere\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield
    for name in ("usercode", "broken", "script", "needy"):
        sys.modules.pop(name, None)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.save({"model": nn.Sequential(nn.Linear(2, 2)).state_dict(), "step": 3}, path)
    return path


def test_a_callable_is_found_in_the_working_directory() -> None:
    assert load_callable("usercode:build").__name__ == "build"


def test_a_callable_may_be_an_attribute_of_a_class() -> None:
    assert load_callable("usercode:Factory.make").__name__ == "make"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("usercode", r"that does not name a callable\. Write MODULE:CALLABLE"),
        (
            "usercode.py:build",
            r"has no module 'usercode.py'|no module named|is not a package|no mod",
        ),
        ("./usercode:build", "that does not name a callable"),
        (":build", "that does not name a callable"),
        ("usercode:", "that does not name a callable"),
        ("absent_module:build", r"there is no module 'absent_module'\. Run from the folder"),
        ("usercode:absent", "module 'usercode' has no 'absent'"),
        ("usercode:NUMBER", "'NUMBER' is of type int, not callable"),
    ],
)
def test_a_callable_that_is_not_there_is_explained(spec: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_callable(spec)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("broken", "importing 'broken' raised ZeroDivisionError: division by zero"),
        ("script", "importing 'script' raised SystemExit: usage: script"),
        ("needy", "importing 'needy' raised ModuleNotFoundError: .*not_installed_anywhere"),
    ],
)
def test_a_module_that_breaks_on_import_is_the_users_error(module: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_callable(f"{module}:build")


def test_a_model_gets_the_checkpoint_and_comes_back_in_evaluation_mode(checkpoint: Path) -> None:
    model = build_model("usercode:build", checkpoint)
    assert not any(module.training for module in model.modules())
    stored = torch.load(checkpoint, weights_only=True)["model"]["0.weight"]
    assert torch.equal(model.state_dict()["0.weight"], stored)


def test_a_callable_sees_plain_values_of_the_checkpoint(checkpoint: Path) -> None:
    seen: dict[str, Any] = {}

    def build(content: dict[str, Any]) -> nn.Module:
        seen.update(content)
        return nn.Linear(1, 1)

    build_model(build, checkpoint)
    assert seen["step"] == 3
    assert isinstance(seen["model"]["0.weight"], torch.Tensor)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_model", r"it returned a value of type dict\. Return a torch\.nn\.Module"),
        ("breaks", r"it raised KeyError: 'n_layer'\. That is outside mhc-diag"),
        ("leaves", "it raised SystemExit: 0"),
        ("verbose", r"it raised ValueError: first line second line x+ \.\.\."),
    ],
)
def test_what_the_users_callable_does_wrong_is_said_briefly(
    name: str, message: str, checkpoint: Path
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build_model(f"usercode:{name}", checkpoint)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_callable_gives_positional_or_keyword_arguments() -> None:
    positional = load_inputs("usercode:a_tuple")
    assert positional.args[0].tolist() == [[1, 2]]
    assert positional.args[1] == 3
    keywords = load_inputs("usercode:a_mapping")
    assert keywords.args == ()
    assert keywords.kwargs["input_ids"].tolist() == [[1, 2]]
    single = load_inputs("usercode:a_tensor")
    assert len(single.args) == 1
    assert single.description.startswith("usercode:a_tensor sha256:")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "it returned no arguments"),
        ("no_inputs", "it raised RuntimeError: no data here"),
    ],
)
def test_a_callable_without_arguments_to_give_is_an_error(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_inputs(f"usercode:{name}")


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (nn.Sequential(nn.Embedding(50, 2), nn.Embedding(8, 2)), 50),
        (nn.Sequential(nn.Embedding(8, 2), nn.Embedding(50, 2)), None),
        (nn.Linear(2, 2), None),
    ],
)
def test_the_vocabulary_is_told_only_where_it_is_certain(
    model: nn.Module, size: int | None
) -> None:
    assert vocabulary_size(model) == size


def test_the_configuration_wins_over_the_embeddings() -> None:
    class Configured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(64, 2)
            self.config = type("Config", (), {"vocab_size": 61})()

    assert vocabulary_size(Configured()) == 61


@pytest.fixture
def without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)


@pytest.mark.usefixtures("without_transformers")
def test_without_transformers_a_folder_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="pip install transformers"):
        model_from_hf_folder(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("hello", encoding="utf-8")
    with pytest.raises(MissingExtraError, match="pip install transformers"):
        load_inputs(str(text), folder=tmp_path)
