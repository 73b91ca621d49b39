"""
Attention's keys, handed to OpenVINO's product as they lie.

The file turns keys round before it rounds them, and OpenVINO would do so byte by byte; its INT8
product reads them either way.
"""

from __future__ import annotations

import openvino as ov

#: What rounds a tensor to INT8 and gives it back as a float; all of it element by element.
_ROUNDING = ('FakeQuantize', 'Convert', 'Subtract', 'Multiply')


def rewrite_keys(model: ov.Model) -> int:
    """Let products read their second factor turned round, where it was; return how many do."""
    found = 0
    for product in model.get_ordered_ops():
        if product.get_type_name() != 'MatMul' or any(
                product.get_attributes()[key] for key in ('transpose_a', 'transpose_b')):
            continue
        turn = _turned(product.input_value(1))
        if turn is None:
            continue
        for target in turn.output(0).get_target_inputs():
            target.replace_source_output(turn.input_value(0))
        product.set_attribute('transpose_b', True)
        found += 1
    model.validate_nodes_and_infer_types()
    return found


def _turned(port: ov.Output) -> ov.Node | None:
    """Return what swaps the last two axes on the only way to a factor, None where nothing does."""
    node = port.get_node()
    while node.get_type_name() in _ROUNDING and _scalar_beside(node) and _is_alone(node):
        node = node.input_value(0).get_node()
    if node.get_type_name() != 'Transpose' or not _is_alone(node):
        return None
    order = list(node.input_value(1).get_node().get_data())
    axes = len(order)
    return node if order == [*range(axes - 2), axes - 1, axes - 2] else None


def _scalar_beside(node: ov.Node) -> bool:
    """Tell whether all but the first input of a node are single numbers."""
    return all(all(size == 1 for size in port.get_shape()) for port in node.input_values()[1:])


def _is_alone(node: ov.Node) -> bool:
    return len(node.output(0).get_target_inputs()) == 1
