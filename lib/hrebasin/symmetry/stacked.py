"""Queries, keys and values that one layer makes: each has an order of its own, which a product of factors cannot tell.

Attention reads the outputs of such a layer as (3, head, unit) and selects among the 3. In the graph, that is written
here as three slices of the layer's outputs, which are segments with factors of their own.
"""

import math

import torch
from torch.fx import Graph, Node

VIEWS = ("view", "_unsafe_view", "reshape", "unflatten")
MOVES = ("permute", "transpose", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "unsqueeze", "squeeze")
COPIES = ("contiguous", "clone")
ATEN = torch.ops.aten


def slice_stacked(graph: Graph) -> None:
    """Select slices of an axis before it is taken apart, where nothing but these is read of it."""
    for view in list(graph.nodes):
        if _name(view) in VIEWS and isinstance(view.args[0], Node):
            _slice(graph, view)


def _slice(graph: Graph, view: Node) -> None:
    shape, last = tuple(view.meta["val"].shape), view
    sizes = torch.empty([place + 2 if size > 1 else 1 for place, size in enumerate(shape)], device="meta")
    while len(last.users) == 1 and _name(user := next(iter(last.users))) in (*MOVES, *COPIES):
        sizes = sizes if _name(user) in COPIES else user.target(sizes, *user.args[1:], **user.kwargs)
        last = user
    picked = _picked(last)
    dims = {dim % sizes.ndim for _, dim, _ in picked}
    if len(dims) != 1 or sizes.shape[dim := dims.pop()] == 1:
        return
    stacked = sizes.shape[dim] - 2  # the dimension of the view that is selected from
    order = [size - 2 for place, size in enumerate(sizes.shape) if place != dim and size > 1]
    given, axis = view.args[0], _taken_apart(tuple(view.args[0].meta["val"].shape), shape, stacked)
    if axis is None or sorted([*order, stacked]) != [place for place, size in enumerate(shape) if size > 1]:
        return
    kept, units = sorted(order), given.meta["val"].shape[axis] // shape[stacked]
    for node, _, index in picked:
        with graph.inserting_before(node):
            start = index % shape[stacked] * units
            piece = _call(graph, ATEN.slice.Tensor, given, axis, start, start + units)
            piece = _call(graph, ATEN.reshape.default, piece, [shape[place] for place in kept])
            piece = _call(graph, ATEN.permute.default, piece, [kept.index(place) for place in order])
            piece = _call(graph, ATEN.reshape.default, piece, list(node.meta["val"].shape))
        node.replace_all_uses_with(piece)
    graph.eliminate_dead_code()


def _picked(node: Node) -> list[tuple[Node, int, int]]:
    """Each unit of a dimension that is read, with dimension and index; none where anything else is read."""
    users = list(node.users)
    if len(users) == 1 and _name(users[0]) == "unbind":
        dim = users[0].args[1] if len(users[0].args) > 1 else 0
        return [(user, dim, user.args[1]) for user in users[0].users]
    if not all(_name(user) == "select" and isinstance(user.args[2], int) for user in users):
        return []
    return [(user, *user.args[1:3]) for user in users]


def _taken_apart(old: tuple[int, ...], new: tuple[int, ...], place: int) -> int | None:
    """The axis whose major part a dimension of its view is; None where it is none."""
    before = math.prod(new[:place])
    axes = [axis for axis, size in enumerate(old) if size > 1 and math.prod(old[:axis]) == before]
    return axes[0] if axes and old[axes[0]] % new[place] == 0 and old[axes[0]] > new[place] else None


def _name(node: Node) -> str:
    return node.target._schema.name.partition("::")[2] if isinstance(node.target, torch._ops.OpOverload) else ""


def _call(graph: Graph, target: torch._ops.OpOverload, given: Node, *args) -> Node:
    node = graph.call_function(target, (given, *args))
    node.meta["val"] = target(given.meta["val"], *args)
    return node
