"""Hugging Face folders, with the real transformers."""

from __future__ import annotations

import json
from pathlib import Path

import models
import pytest
import torch
from safetensors.torch import load_file, save_file

from mhc_diag.errors import ModelError, OptionError
from mhc_diag.loading import load_inputs, model_from_hf_folder, vocabulary_size

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf")
    models.tiny_deepseek_v4().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(complete: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    copy = tmp_path / "hf"
    copy.mkdir()
    for file in complete.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def add_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words with ids 0 to 3."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"[UNK]": 0, "one": 1, "two": 2, "three": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)


def test_a_folder_becomes_the_model_that_was_saved(folder: Path) -> None:
    model = model_from_hf_folder(folder)
    assert type(model).__name__ == "DeepseekV4ForCausalLM"
    assert not model.training
    assert vocabulary_size(model) == 64
    loaded, saved = model.state_dict(), models.tiny_deepseek_v4().state_dict()
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


def test_weights_that_are_missing_are_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "hc" in name)
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match="1 weights are missing .* Random numbers would be measured"
    ):
        model_from_hf_folder(folder)


def test_a_model_type_that_transformers_lacks_is_the_folders_error(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["model_type"] = "nobody_knows"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=r"transformers raised ValueError: .*nobody_knows"):
        model_from_hf_folder(folder)


def test_code_of_the_folder_is_never_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    code = f"open({str(folder / 'ran')!r}, 'w').close()\n"
    (folder / "mine.py").write_text(code, encoding="utf-8")
    with pytest.raises(ModelError, match="transformers raised ValueError"):
        model_from_hf_folder(folder)
    assert not (folder / "ran").exists()


def test_text_is_tokenised_by_the_folders_tokenizer(folder: Path, tmp_path: Path) -> None:
    add_tokenizer(folder)
    text = tmp_path / "text.txt"
    text.write_text("one two three four", encoding="utf-8")
    inputs = load_inputs(str(text), folder=folder, vocab_size=64)
    assert inputs.args[0].tolist() == [[1, 2, 3, 0]]
    assert inputs.is_data
    assert inputs.description.startswith("sha256:")
    with pytest.raises(OptionError, match="id 3 is outside the vocabulary"):
        load_inputs(str(text), folder=folder, vocab_size=3)


def test_a_long_text_is_cut_and_says_so(folder: Path, tmp_path: Path) -> None:
    add_tokenizer(folder)
    text = tmp_path / "long.txt"
    text.write_text("one " * 3000, encoding="utf-8")
    inputs = load_inputs(str(text), folder=folder)
    assert tuple(inputs.args[0].shape) == (1, 2048)
    assert "(long.txt: the first 2048 of its 3000 tokens)" in inputs.description


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"its shape is \[1, 0\]"),
        (b"\xff\xfe\xfa", "it is not UTF-8 text"),
        (None, "No such file"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused(
    content: bytes | None, message: str, folder: Path, tmp_path: Path
) -> None:
    add_tokenizer(folder)
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    with pytest.raises(OptionError, match=message):
        load_inputs(str(text), folder=folder)


def test_a_folder_without_tokenizer_is_named(folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one", encoding="utf-8")
    with pytest.raises(OptionError, match="has no tokenizer that transformers can load"):
        load_inputs(str(text), folder=folder)
