import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from airflow_provider_lookoutvision.engine import network
from airflow_provider_lookoutvision.engine.onnx_graph import renamed

SHAPE = [1]


def test_copies_of_nodes_compute_the_same_of_other_values_in_inner_graphs_too() -> None:
    branches = {}
    for name, operator in (("then_branch", "Add"), ("else_branch", "Mul")):
        inner = [helper.make_node(operator, ["doubled", "one"], [f"{name}.out"])]
        output = helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, SHAPE)
        branches[name] = helper.make_graph(inner, name, [], [output])
    nodes = [
        helper.make_node("Add", ["x", "x"], ["doubled"]),
        helper.make_node("If", ["flag"], ["chosen"], **branches),
        helper.make_node("Add", ["chosen", "doubled"], ["out"]),
    ]
    copies = renamed(nodes, {"x": "y"}, "half.")
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", "y")]
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("out", "half.out")]
    one = helper.make_tensor("one", TensorProto.FLOAT, SHAPE, [1.0])
    graph = helper.make_graph([*nodes, *copies], "both", [*inputs, flag], outputs, [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", network.OPSET)])
    model.ir_version = network.IR_VERSION
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for condition, wanted in ((True, [3 * 2 + 1 + 3 * 2, 5 * 2 + 1 + 5 * 2]), (False, [12, 20])):
        values = {"x": [3], "y": [5], "flag": condition}
        feeds = {
            name: np.array(value, bool if name == "flag" else np.float32) for name, value in values.items()
        }
        assert [float(value[0]) for value in session.run(None, feeds)] == wanted
    assert [node.output[0] for node in nodes] == ["doubled", "chosen", "out"]
