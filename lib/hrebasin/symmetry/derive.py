"""A network's symmetry, derived from its own graph.

At first every axis of every tensor is one unknown factor, those of inputs and outputs are fixed, and every operation of
the graph that ``torch.export`` reads ties axes by its rule. What is not fixed in the end may be permuted.
"""

import operator
import re
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.export.graph_signature import InputKind

from ..resources import plain_torch
from .axes import Symmetry, numbered
from .calls import Call, Value
from .factors import Factors, fixed
from .rules import find_rule
from .shape_rules import constant
from .stacked import slice_stacked
from .subject import Example, Subject, arguments, found_in, own_random_state

# Operations that run a graph, and the place of that among their arguments.
WRAPPERS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
ADDRESS = re.compile(r"<function (\w+) at 0x[0-9a-f]+>")
BY_HAND = "write the symmetry by hand with symmetry_from_spec and test it with prove_symmetry"


@plain_torch()
def derive_symmetry(network: nn.Module, example: Example) -> Symmetry:
    """Every permutation that the network's graph allows, for parameters and saved buffers.

    Operations without a rule fix every axis that touches them: the symmetry is right, but may lack permutations; a
    warning names them. `prove_symmetry` tests the result.

    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> print(derive_symmetry(network, torch.zeros(2, 4)))
    1 permutation: P1 (8)
    0.weight  (P1, fixed)
    0.bias    (P1)
    2.weight  (fixed, P1)
    2.bias    (fixed)

    Args:
        network: any module with weights in float32 or float64; it is not changed, a copy is read in evaluation mode.
        example: a tensor, or a tuple of arguments, or a mapping of named ones, on which the network runs. Only its
            shapes count.

    Raises:
        ValueError: an example that does not fit, tensors that are not real with 32 or 64 bits, or a forward pass
            that ``torch.export`` cannot read.
    """
    subject = Subject(network)
    subject.run(example)
    program = _exported(subject, example)
    tensors = subject.tensors()
    factors = Factors()
    by_tensor: dict[int, Value] = {}  # tied tensors are one object
    for tensor in tensors.values():
        free = tensor.is_floating_point()
        by_tensor.setdefault(id(tensor), Value(map(factors.new if free else fixed, tensor.shape)))
    values = {name: by_tensor[id(tensor)] for name, tensor in tensors.items()}
    without_rule = _walk(factors, program, values)
    _fix_unused(factors, program, tensors, values)
    if without_rule:
        warnings.warn(
            f"no rule for {', '.join(without_rule)}: all axes that they touch stay, so permutations may be missing",
            stacklevel=3,
        )
    return Symmetry(*numbered({name: map(factors.resolve, value) for name, value in values.items()}), without_rule)


def _exported(subject: Subject, example: Example) -> torch.export.ExportedProgram:
    args, kwargs = arguments(example, subject)
    try:
        with torch.enable_grad(), own_random_state(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its insides
            return torch.export.export(subject, args, kwargs)
    except Exception as error:  # export raises errors of many kinds
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"torch.export cannot read the forward pass of {type(subject.network).__name__} "
            f"({type(error).__name__}: {reason}). Branches must not depend on the values of tensors: rewrite them with "
            f"torch.where, or {BY_HAND}"
        ) from error


def _walk(factors: Factors, program: torch.export.ExportedProgram, tensors: dict[str, Value]) -> tuple[str, ...]:
    """Apply every operation's rule; which operations have none."""
    targets = ((spec.target or "").removeprefix("network.") for spec in program.graph_signature.input_specs)
    without_rule: dict[str, None] = {}
    _fix(factors, _walk_graph(factors, program.graph_module, map(tensors.get, targets), without_rule))
    return tuple(without_rule)


def _walk_graph(factors: Factors, module: torch.fx.GraphModule, given: Iterator, without_rule: dict) -> object:
    """The outputs of a graph whose inputs are given, None for those that stay; notes operations without a rule."""
    slice_stacked(module.graph)
    values: dict[torch.fx.Node, object] = {}
    for node in module.graph.nodes:
        shapes = _shapes(node)
        if node.op in ("placeholder", "get_attr"):
            # inputs, constants and buffers that are not saved stay as they are
            known = next(given) if node.op == "placeholder" else None
            values[node] = Value(map(fixed, shapes[0])) if known is None and shapes else known
        elif node.op == "output":
            values[node] = torch.fx.map_arg(node.args, values.get)
        elif node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        elif str(node.target) in WRAPPERS:
            # a graph of its own, without gradients or in another precision: its name, and then its inputs
            name, *rest = node.args[WRAPPERS[str(node.target)] :]
            inside, inputs = module.get_submodule(name.target), iter(torch.fx.map_arg(rest, values.get))
            values[node] = _walk_graph(factors, inside, inputs, without_rule)[0]
        elif shapes or getattr(getattr(node.target, "_schema", None), "is_mutable", False):
            out = _outputs(factors, node, values, shapes)
            if out is None:
                without_rule[ADDRESS.sub(r"\1", str(node.target))] = None
                _fix(factors, torch.fx.map_arg((node.args, node.kwargs), values.get))
                out = [Value(map(fixed, shape)) for shape in shapes]
            values[node] = out if isinstance(node.meta["val"], (tuple, list)) or not out else out[0]
    return values[node]  # the last one is the output


def _outputs(factors: Factors, node: torch.fx.Node, values: dict, shapes: tuple) -> list[Value] | None:
    """The outputs of an operation by its rule, None if it has none."""
    args, kwargs = (torch.fx.map_arg(given, values.get) for given in (node.args, node.kwargs))
    rule = find_rule(node.target)
    if rule is None:
        # what depends on no tensor and is not random is a constant
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        known = not random and not any(True for _ in found_in((args, kwargs), Value))
        return [Value(map(fixed, shape)) for shape in shapes] if known else None
    named = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    used = frozenset(user.args[1] for user in node.users if user.target is operator.getitem and user.users)
    alone = [each for each in node.all_input_nodes if len(each.users) == 1]
    constants = tuple(values[each] for each in alone if find_rule(each.target) is constant)
    call = Call(node.target, named | dict(zip(named, args, strict=False)) | kwargs, shapes, used, constants)
    out = rule(factors, call)
    # odd arguments of which the rule does not know what torch makes: it does not apply
    return None if out is None or tuple(value.shape for value in out) != shapes else list(out)


def _shapes(node: torch.fx.Node) -> tuple[tuple[int, ...], ...]:
    """Shapes of the tensors that a node gives, none for what gives no tensor."""
    given = node.meta.get("val")
    given = given if isinstance(given, (tuple, list)) else (given,)
    shapes = tuple(tuple(value.shape) for value in given if isinstance(value, torch.Tensor))
    if not all(isinstance(size, int) for shape in shapes for size in shape):
        raise ValueError(f"{node.target} gives a tensor whose shape {shapes} depends on values; {BY_HAND}")
    return shapes


def _fix(factors: Factors, given) -> None:
    """Nothing may move any of the given values."""
    for value in found_in(given, Value):
        factors.fix(*value)


def _fix_unused(factors: Factors, program, tensors: dict[str, torch.Tensor], values: dict[str, Value]) -> None:
    """Tensors without part in the outputs stay: nothing tells what they would have to agree with."""
    used = set()
    for node, spec in zip(program.graph.nodes, program.graph_signature.input_specs, strict=False):
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and node.users:
            used.add(id(tensors.get((spec.target or "").removeprefix("network."))))
    unused = [name for name, tensor in tensors.items() if id(tensor) not in used and tensor.is_floating_point()]
    _fix(factors, [values[name] for name in unused])
    if unused:
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        warnings.warn(
            f"{', '.join(unused[:3])}{more} take no part in the outputs in evaluation mode: nothing permutes them",
            stacklevel=4,
        )
