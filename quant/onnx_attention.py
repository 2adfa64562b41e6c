"""Attention as torch's exporter takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Graph, Node

HEADED = 4  # (N, heads, T, d)


def translatable(program: ExportedProgram) -> None:
    """Change calls of attention in place, so that the exporter translates them.

    It takes four dimensions only: queries, keys and values of fewer get dimensions of size 1, which
    come first. (T, d) and (N, T, d) become (1, 1, T, d) and (1, N, T, d), which masks of fewer
    dimensions broadcast with as they did.

    It also works out the strides of outputs in two ways, and where they differ drops a copy that it
    then misses (of masks over windows, Swin's): outputs are copied to memory in order.
    """
    graph = program.graph
    attention = torch.ops.aten.scaled_dot_product_attention.default
    for node in list(graph.find_nodes(op="call_function", target=attention)):
        users = list(node.users)
        more = HEADED - node.meta["val"].ndim
        _unsqueeze(graph, node, more)
        y = _after(graph, node, torch.ops.aten.clone.default, memory_format=torch.contiguous_format)
        for _ in range(more):
            y = _after(graph, y, torch.ops.aten.squeeze.dim, 0)
        y.meta["val"] = node.meta["val"]
        for user in users:
            user.replace_input_with(node, y)
    program.graph_module.recompile()


def _unsqueeze(graph: Graph, node: Node, more: int) -> None:
    """Give queries, keys and values ``more`` first dimensions of size 1."""
    with graph.inserting_before(node):
        for i in range(3):
            x: Any = node.args[i]
            for _ in range(more):
                x = graph.call_function(torch.ops.aten.unsqueeze.default, (x, 0))
            node.update_arg(i, x)


def _after(graph: Graph, node: Node, op: Any, *args: Any, **kwargs: Any) -> Node:
    """A call of ``op`` on what ``node`` gives, right after it."""
    with graph.inserting_after(node):
        return graph.call_function(op, (node, *args), kwargs)
