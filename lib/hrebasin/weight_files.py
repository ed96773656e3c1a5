"""Files of one network's weights, .safetensors, .pt and .pth, read without running what is in them."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .checks import check_range
from .files import check_readable, replacing, write_atomically
from .state_names import weights_in
from .symmetry.subject import is_dense

# As torch names what it does not make
OBJECT = re.compile(r"[Uu]nsupported (?:global: |class )?(?:GLOBAL )?(\w+\.[\w.]+\w)")
SAFETENSORS, PYTORCH = (".safetensors",), (".pt", ".pth", ".bin", ".ckpt")


def read_weights(path: Path | str) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict in a file, on the CPU, and where it lay in the file.

    Args:
        path: safetensors, or what `torch.save` wrote of tensors: a state dict, or a checkpoint that holds one under
            "state_dict", "model_state_dict", "model" or "net".

    Returns:
        Tensors by name, and the checkpoint's key; "" where the file is the state dict itself.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another type, damaged, with objects that only running its code would make, without a state dict, or
            with numbers that float32 cannot hold.
    """
    state, key = _read(Path(path))
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise ValueError(f"{path} has the name {name!r}, which is no text")
        if isinstance(tensor, torch.Tensor) and not is_dense(tensor):
            raise ValueError(f"{path}: {name!r} is no dense tensor with values")
    try:
        check_range(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return state, key


def _read(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}")
    suffix = path.suffix.lower()
    if suffix in SAFETENSORS:
        check_readable(path)
        try:
            return dict(sorted(load_file(path).items())), ""
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if suffix not in PYTORCH:
        raise ValueError(f"{path} has the suffix {suffix!r}: weights are {', '.join(SAFETENSORS + PYTORCH)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of old formats
            held = torch.load(path, map_location="cpu", weights_only=True)  # noqa: S614, TID251
    except Exception as error:  # torch raises whatever broken content leads it into
        told = OBJECT.search(str(error))
        reason = "is damaged, or holds more than tensors"
        if told:
            reason = f"holds {told[1]}, which only running code could make"
        raise ValueError(f"{path} {reason}: save network.state_dict() with torch.save") from error
    state, key = weights_in(held, str(path))
    return dict(state), key


def write_weights(path: Path | str, state: Mapping[str, torch.Tensor]) -> None:
    """Write a state dict, atomically, in the format that the file's name tells.

    Raises:
        ValueError: a name of another type.
    """
    path = check_suffix(path)
    # tied tensors are written once under each name: safetensors knows no ties
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in state.items() if isinstance(t, torch.Tensor)}
    if path.suffix.lower() in SAFETENSORS:
        write_atomically(path, save(tensors))
        return
    with replacing(path) as temporary:
        try:
            torch.save({name: tensors.get(name, value) for name, value in state.items()}, temporary)
        except RuntimeError as error:  # torch's own of what the system says
            raise OSError(f"{path} could not be written: {error}") from error


def check_suffix(path: Path | str) -> Path:
    """The path of a file of weights; ValueError where its name tells no format."""
    path = Path(path)
    if path.suffix.lower() not in SAFETENSORS + PYTORCH:
        raise ValueError(f"{path} must end in one of {', '.join(SAFETENSORS + PYTORCH)}, which tells its format")
    return path
