"""Builds ONNX graphs node by node, and checks those that come from elsewhere."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


class GraphBuilder:
    """The nodes and constants of a graph, in the order in which they were added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant; returns its name."""
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output; returns the name of the output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def generalised_mean(self, value: str, doublings: int) -> str:
        """Add generalised-mean pooling of magnitudes over rows and columns; returns the name of the output.

        :param doublings: the power is 2 to this
        """
        powers = [value]
        for _ in range(doublings):
            powers.append(self.node("Mul", [powers[-1]] * 2, f"{powers[-1]}.squared"))
        root = self.node("ReduceMean", [powers[-1]], f"{value}.mean", axes=[2, 3], keepdims=0)
        for _ in range(doublings):
            root = self.node("Sqrt", [root], f"{root}.root")
        return root


def nodes_up_to(graph: onnx.GraphProto, values: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that these values need, in their order."""
    needed, nodes = set(values), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= _inputs(node)
    return nodes[::-1]


def renamed(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str], prefix: str) -> list[onnx.NodeProto]:
    """Copies of nodes, whose outputs have a prefix.

    :param names: what the copies use in place of what these nodes do not compute; constants stay as they are
    """
    known, copies = dict(names), []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        known |= {name: f"{prefix}{name}" for name in node.output}
        copy.output[:] = [known[name] for name in node.output]
        # The inner graphs of loops and conditions use values of the graph around them.
        for each in _with_inner(copy):
            each.input[:] = [known.get(name, name) for name in each.input]
        copies.append(copy)
    return copies


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants that no output needs."""
    outputs = {output.name for output in graph.output}
    kept = nodes_up_to(graph, outputs)
    needed = outputs.union(*map(_inputs, kept))
    constants = [constant for constant in graph.initializer if constant.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants)


def _inputs(node: onnx.NodeProto) -> set[str]:
    return {name for each in _with_inner(node) for name in each.input}


def foreign_parts(model: onnx.ModelProto) -> str:
    """What of a graph is not in it, or not ONNX's own: operators, functions, files; empty if nothing is.

    The inner graphs of its loops and conditions are checked too.
    """
    nodes = [each for node in model.graph.node for each in _with_inner(node)]
    domains = {each.domain for each in (*nodes, *model.opset_import)} - {""}
    if domains or model.functions:
        return f"operators of {', '.join(sorted(domains)) or 'its own'}"
    attributes = [attribute for node in nodes for attribute in node.attribute]
    inner = [graph for attribute in attributes for graph in (attribute.g, *attribute.graphs)]
    sparse = [tensor for graph in (model.graph, *inner) for tensor in graph.sparse_initializer]
    sparse += [tensor for each in attributes for tensor in (each.sparse_tensor, *each.sparse_tensors)]
    tensors = [tensor for graph in (model.graph, *inner) for tensor in graph.initializer]
    tensors += [tensor for each in attributes for tensor in (each.t, *each.tensors)]
    tensors += [tensor for each in sparse for tensor in (each.values, each.indices)]
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors):
        return "data in another file"
    return ""


def _with_inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _with_inner(inner)
