"""Attention without a dimension of heads, as torch's exporter takes it: it translates four only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.export import ExportedProgram

HEADED = 4  # (N, heads, T, d)


def with_heads(program: ExportedProgram) -> None:
    """Give queries, keys and values of fewer than four dimensions dimensions of size 1, in place.

    They come first: (T, d) and (N, T, d) become (1, 1, T, d) and (1, N, T, d), which masks of fewer
    dimensions broadcast with as they did.
    """
    graph, aten = program.graph, torch.ops.aten
    attention = aten.scaled_dot_product_attention.default
    for node in list(graph.find_nodes(op="call_function", target=attention)):
        more = HEADED - node.meta["val"].ndim
        if more <= 0:
            continue
        with graph.inserting_before(node):
            for i in range(3):
                x = node.args[i]
                for _ in range(more):
                    x = graph.call_function(aten.unsqueeze.default, (x, 0))
                node.update_arg(i, x)
        users = list(node.users)
        with graph.inserting_after(node):
            y = node
            for _ in range(more):
                after = graph.call_function(aten.squeeze.dim, (y, 0))
                graph.inserting_after(after)
                y = after
        y.meta["val"] = node.meta["val"]
        for user in users:
            user.replace_input_with(node, y)
    program.graph_module.recompile()
