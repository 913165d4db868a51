"""What we recognise but do not read: what it is, and how it becomes something that we read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mhc_diag.checkpoints.source import fault
from mhc_diag.errors import CheckpointError

REFUSED: Mapping[str, tuple[str, str]] = {
    "torch-legacy": (
        "it is a torch file of the old format from before torch 1.6",
        "Load it with torch.load(path, weights_only=True) and torch.save it again.",
    ),
    "torch-tar": (
        "it is a torch file of the oldest format, a tar archive",
        "Load it with torch.load(path, weights_only=True) and torch.save it again.",
    ),
    "torchscript": (
        "it is a TorchScript program, not only weights",
        "Save its weights: torch.save(torch.jit.load(path).state_dict(), 'weights.pt').",
    ),
    "torch-export": (
        "it is an exported torch program (.pt2), not only weights",
        "Save its weights: torch.save(torch.export.load(path).state_dict, 'weights.pt').",
    ),
    "pickle": (
        "it is a bare pickle, which no tool can open without the code that wrote it",
        "Save the weights with torch.save or safetensors.",
    ),
    "gguf": (
        "it is a GGUF file of llama.cpp",
        "Give the safetensors or torch checkpoint it was converted from.",
    ),
    "npy": ("it is one numpy array without names", "Save the weights with numpy.savez."),
    "hdf5": ("it is an HDF5 file (Keras, h5py)", "Save the weights as safetensors or .npz."),
    "gzip": ("it is compressed by gzip", "Unpack it first."),
    "tar": ("it is a tar archive", "Unpack it first and give what is inside."),
    "zip": (
        "it is a zip archive without data.pkl (torch) or .npy arrays (numpy)",
        "Unpack it first and give what is inside.",
    ),
    "lfs-pointer": (
        "it is the pointer that git-lfs leaves when the file itself was not fetched",
        "Run git lfs pull.",
    ),
    "html": (
        "it is a web page, as when a download asked for a login",
        "Download the file itself.",
    ),
    "text": ("it is a text file, not a checkpoint", "Give a .pt, .safetensors or .npz file."),
    "json": (
        "it is a JSON file without a weight_map",
        "Give the folder, or the weights beside it.",
    ),
    "dcp": (
        "it is a folder of torch.distributed.checkpoint, whose .metadata is a pickle",
        "If you trust it: torch.distributed.checkpoint.format_utils.dcp_to_torch_save.",
    ),
    "deepspeed": (
        "it is a DeepSpeed folder",
        "Give its mp_rank_00_model_states.pt; for ZeRO-3 run its zero_to_fp32.py first.",
    ),
    "orbax": (
        "it is an Orbax folder (JAX)",
        "Restore it with orbax and save the weights with numpy.savez or safetensors.",
    ),
    "trace": (
        "it is a trace, not a checkpoint",
        "Analyze it as it is: mhc-diag analyze FILE, or load_trace(path).",
    ),
    "run": (
        "it is a folder of a recorded run, not a checkpoint",
        "Analyze it as it is: mhc-diag analyze FOLDER, or read_run(path).",
    ),
    "unknown": (
        "its first bytes belong to no format that we know",
        "Give a .pt, .safetensors or .npz file, or a folder with config.json and weights.",
    ),
}
"""Kind as detect() names it -> what it is, what to do."""


def refusal(path: str | Path, kind: str) -> CheckpointError:
    """The error for a kind that is recognised and not read."""
    came, do = REFUSED[kind]
    return fault(path, came, do)
