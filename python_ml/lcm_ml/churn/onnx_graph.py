"""ONNX graphs in the making: nodes, constants, and the two things that models here are made of, trees and curves.

Trees are written with the operator TreeEnsembleRegressor of ai.onnx.ml. Its output is in single precision; where a
model has more, it only finds the numbers of the leaves, and the values are looked up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lcm_ml.churn.estimator import FloatArray

OPSETS = {"": 17, "ai.onnx.ml": 3}
"""Old enough for every runtime of today; version 3 of ai.onnx.ml is the first with thresholds in double precision."""
FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
AT_MOST, BELOW = "BRANCH_LEQ", "BRANCH_LT"
"""Tests of a node: a row that passes goes left."""


@dataclass(frozen=True)
class Tree:
    """A binary tree; node 0 is the root, arrays have shape (nodes,).

    Attributes:
        left: where a row goes that passes the node's test; -1 for a leaf.
        right: where the others go.
        feature: the column that is tested.
        threshold: what it is compared with.
        missing_left: whether a missing value (NaN) goes left.
        value: of the leaves.
    """

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    threshold: FloatArray
    missing_left: npt.NDArray[np.bool_]
    value: FloatArray

    @property
    def leaves(self) -> npt.NDArray[np.int64]:
        """The nodes that are leaves."""
        return np.flatnonzero(self.left < 0)


def single_leaf(value: float) -> Tree:
    """A tree that says the same of every row."""
    none = np.array([-1])
    return Tree(none, none, np.array([0]), np.zeros(1), np.zeros(1, dtype=bool), np.array([value]))


def search_tree(column: int, limits: FloatArray) -> Tree:
    """A balanced tree whose leaves, in their order, are the parts (limits[i - 1], limits[i]] of a column."""
    nodes: list[tuple[int, int, float]] = []

    def grow(first: int, last: int) -> int:
        node, middle = len(nodes), (first + last) // 2
        nodes.append((-1, -1, 0.0))
        if first < last:
            nodes[node] = (grow(first, middle), grow(middle + 1, last), float(limits[middle]))
        return node

    grow(0, len(limits))
    left, right, threshold = (np.array(numbers) for numbers in zip(*nodes, strict=True))
    size = len(nodes)
    return Tree(left, right, np.full(size, column), threshold, np.zeros(size, dtype=bool), np.zeros(size))


@dataclass(frozen=True)
class Curve:
    """Straight pieces: on (limits[i - 1], limits[i]] the value is intercepts[i] + slopes[i] * x."""

    limits: FloatArray
    intercepts: FloatArray
    slopes: FloatArray


def curve_through(x: FloatArray, y: FloatArray, first: float | None = None, last: float | None = None) -> Curve:
    """The straight lines of numpy.interp through these points, level outside them.

    Where x repeats, the value is half way between the first and the last y there.

    Args:
        x: ascending, shape (points,).
        y: shape (points,).
        first: the value at the first x, where it is another.
        last: the value at the last x, where it is another.
    """
    knots, starts, times = np.unique(x, return_index=True, return_counts=True)
    before, after = y[starts], y[starts + times - 1]
    at = (before + after) / 2
    at[-1] = at[-1] if last is None else last
    at[0] = at[0] if first is None else first
    slopes = np.append((before[1:] - after[:-1]) / np.diff(knots), 0.0)
    limits, pieces = [], [(before[0], 0.0)]
    for i, knot in enumerate(knots):
        if not before[i] == at[i] == after[i]:
            limits.append(np.nextafter(knot, -np.inf))
            pieces.append((at[i], 0.0))
        limits.append(knot)
        pieces.append((after[i] - slopes[i] * knot, slopes[i]))
    intercepts, steepness = np.array(pieces).T
    return Curve(np.array(limits), intercepts, steepness)


class Graph:
    """Nodes and constants; every method adds some and returns the name of what they compute."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operation: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """One node with one output."""
        name = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, values: Any, kind: type = np.float64) -> str:
        """Numbers of a numpy type."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=kind), name))
        return name

    def cast(self, x: str, kind: int) -> str:
        """Another type: FLOAT, DOUBLE or that of an index."""
        return self.add("Cast", x, to=kind)

    def rounded(self, x: str) -> str:
        """Doubles with the digits of a float, where the model itself computes in floats."""
        return self.cast(self.cast(x, FLOAT), DOUBLE)

    def sum_of_trees(self, x: str, trees: Sequence[Tree], test: str, *, in_order: bool) -> str:
        """The sum of the leaves' values in floats, shape (rows, 1).

        Args:
            x: floats, shape (rows, columns).
            trees: at least one.
            test: AT_MOST or BELOW.
            in_order: add the trees up in their order, whatever the number of threads, which takes longer.
        """
        values = [tree.value[tree.leaves] for tree in trees]
        if not in_order:
            return self._ensemble(x, trees, test, values, targets=[0] * len(trees), double=False)
        table = np.concatenate(values).astype(np.float32)
        found = self.leaf_values(self.cast(x, DOUBLE), trees, [table], test)[0]
        sums = self.add("CumSum", found, self.constant(1, np.int64))
        return self.add("Gather", sums, self.constant([len(trees) - 1], np.int64), axis=1)

    def leaf_values(
        self, x: str, trees: Sequence[Tree], values: Sequence[npt.NDArray[Any]], test: str = AT_MOST
    ) -> list[str]:
        """What the leaf that a row reaches says in each tree, each of shape (rows, trees).

        Args:
            x: doubles, shape (rows, columns).
            trees: at least one.
            values: tables of all trees' leaves, one after the other, each of shape (leaves,).
            test: AT_MOST or BELOW.
        """
        ends = np.cumsum([0, *(len(tree.leaves) for tree in trees)])
        numbers = [np.arange(start, end) for start, end in pairwise(ends)]
        found = self._ensemble(x, trees, test, numbers, targets=list(range(len(trees))), double=True)
        index = self.cast(found, TensorProto.INT64)
        return [self.add("Gather", self.constant(table, table.dtype.type), index) for table in values]

    def curves(self, x: str, curves: Sequence[Curve]) -> str:
        """Each column through its own curve, in doubles, shape as given."""
        trees = [search_tree(column, curve.limits) for column, curve in enumerate(curves)]
        tables = [np.concatenate([getattr(curve, name) for curve in curves]) for name in ("intercepts", "slopes")]
        intercept, slope = self.leaf_values(x, trees, tables)
        return self.add("Add", intercept, self.add("Mul", slope, x))

    def absorb(self, model: Any, x: str) -> list[str]:
        """Another model with the input `x`; the names of its outputs."""
        part = onnx.compose.add_prefix_graph(model.graph, f"part_{len(self.nodes)}_")
        self.nodes.append(helper.make_node("Identity", [x], [part.input[0].name]))
        self.nodes += part.node
        self.constants += part.initializer
        return [output.name for output in part.output]

    def _ensemble(
        self,
        x: str,
        trees: Sequence[Tree],
        test: str,
        weights: Sequence[npt.NDArray[Any]],
        targets: list[int],
        double: bool,
    ) -> str:
        """One TreeEnsembleRegressor: each tree adds its leaf's weight to its target."""
        left, right, feature, threshold, missing = (
            np.concatenate([getattr(tree, name) for tree in trees])
            for name in ("left", "right", "feature", "threshold", "missing_left")
        )
        is_leaf = left < 0
        n_leaves = [len(tree.leaves) for tree in trees]
        # Missing values and thresholds of leaves are never read.
        numbers = {"nodes_values": np.where(is_leaf, 0.0, threshold), "target_weights": np.concatenate(weights)}
        return self.add(
            "TreeEnsembleRegressor",
            x,
            domain="ai.onnx.ml",
            n_targets=max(targets) + 1,
            nodes_treeids=np.repeat(np.arange(len(trees)), [len(tree.left) for tree in trees]).tolist(),
            nodes_nodeids=np.concatenate([np.arange(len(tree.left)) for tree in trees]).tolist(),
            nodes_featureids=np.where(is_leaf, 0, feature).tolist(),
            nodes_modes=["LEAF" if end else test for end in is_leaf],
            nodes_truenodeids=np.maximum(left, 0).tolist(),
            nodes_falsenodeids=np.maximum(right, 0).tolist(),
            nodes_missing_value_tracks_true=missing.astype(int).tolist(),
            target_treeids=np.repeat(np.arange(len(trees)), n_leaves).tolist(),
            target_nodeids=np.concatenate([tree.leaves for tree in trees]).tolist(),
            target_ids=np.repeat(targets, n_leaves).tolist(),
            **{
                name + ("_as_tensor" if double else ""): (
                    numpy_helper.from_array(values.astype(np.float64)) if double else values.tolist()
                )
                for name, values in numbers.items()
            },
        )
