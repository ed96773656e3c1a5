"""Names in other people's state dicts: what wrappers add to them is found, taken away, and put back."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from .symmetry.subject import copied, is_dense

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # of DDP, compile, FSDP
CHECKPOINTS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts keep weights


def own_names(given: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """The ``names`` of a network by those ``given`` in a state dict, ``{"module.fc.weight": "fc.weight", ...}``.

    A prefix that all names share is taken away, and what wrappers add anywhere: ``backbone._orig_mod.fc.weight``.

    >>> own_names(["model.fc.weight", "model.fc.bias"], ["fc.weight", "fc.bias"])
    {'model.fc.weight': 'fc.weight', 'model.fc.bias': 'fc.bias'}

    Returns:
        All given names; where none of this makes them the network's, as they are.
    """
    given, names = list(given), set(names)
    parts = min((name.split(".") for name in given), key=len, default=[])
    for length in range(len(parts)):
        prefix = "".join(f"{part}." for part in parts[:length])
        if {name.removeprefix(prefix) for name in given} == names:
            return {name: name.removeprefix(prefix) for name in given}
    known = {_bare(name): name for name in names}
    if set(map(_bare, given)) == set(known):
        return {name: known[_bare(name)] for name in given}
    return {name: name for name in given}


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def weights_in(checkpoint: Mapping, where: str) -> tuple[Mapping[str, torch.Tensor], str]:
    """The state dict in what a training script saved, and under which key it lay ("" if it is the state dict itself).

    Raises:
        ValueError: neither a state dict nor a mapping that holds one under one of `CHECKPOINTS`; names ``where``.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{where} holds a {type(checkpoint).__name__}, not a state dict")
    if checkpoint and all(isinstance(value, torch.Tensor) for value in checkpoint.values()):
        return checkpoint, ""
    for key in CHECKPOINTS:
        inside = checkpoint.get(key)
        if isinstance(inside, Mapping) and any(isinstance(value, torch.Tensor) for value in inside.values()):
            return inside, key
    if any(isinstance(value, torch.Tensor) for value in checkpoint.values()):
        return checkpoint, ""
    raise ValueError(f"{where} holds {list(map(str, checkpoint))[:5]}, but no state dict, under none of {CHECKPOINTS}")


def loaded(network: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> nn.Module:
    """A copy of a network with the weights of a state dict.

    Args:
        network: is not changed.
        state: with the network's names, or those that `own_names` understands.
        where: whose weights these are, for messages.

    Raises:
        ValueError: names or shapes that are not the network's, weights that are not real with 32 or 64 bits, or not
            finite; the tensor is named.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"{where} is a {type(state).__name__}, not a mapping of names to tensors")
    wanted = network.state_dict()
    if strange := [name for name in state if not isinstance(name, str)]:
        raise ValueError(f"{where} has the name {strange[0]!r}, which is no text")
    names = own_names(state, wanted)
    if twice := [name for name in wanted if list(names.values()).count(name) > 1]:
        raise ValueError(
            f"{where} has {twice[0]!r} twice: {[given for given, own in names.items() if own == twice[0]]}"
        )
    own = {name: state[given] for given, name in names.items()}
    for name in {**wanted, **own}:
        if name not in own:
            raise ValueError(f"{where} lacks {name!r}, which {type(network).__name__} has; it has {_some(own)}")
        if name not in wanted:
            raise ValueError(f"{where} has {name!r}, which {type(network).__name__} lacks; that has {_some(wanted)}")
        if isinstance(wanted[name], torch.Tensor):
            _check(own[name], wanted[name], f"{where}: {name!r}")
    network = copied(network)
    network.load_state_dict(own)
    return network


def renamed(state: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of a network with the names, and in the order, of another one of which `own_names` tells."""
    return {given: state[name] for given, name in own_names(like, state).items()}


def _check(tensor, wanted: torch.Tensor, what: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{what} is no tensor but {type(tensor).__name__}")
    if tensor.is_quantized or tensor.is_complex():
        raise ValueError(f"{what} is {tensor.dtype}: only real weights can be merged")
    if not is_dense(tensor):
        raise ValueError(
            f"{what} is {'without values' if tensor.is_meta else tensor.layout}: give it as a dense tensor"
        )
    if tensor.shape != wanted.shape:
        raise ValueError(f"{what} has shape {tuple(tensor.shape)}, but the network's has {tuple(wanted.shape)}")
    if tensor.is_floating_point() != wanted.is_floating_point():
        raise ValueError(f"{what} is {tensor.dtype}, but the network's is {wanted.dtype}")
    if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{what} is {tensor.dtype}; convert the weights by .float()")
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ValueError(f"{what} holds values that are not finite")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more or "nothing"
