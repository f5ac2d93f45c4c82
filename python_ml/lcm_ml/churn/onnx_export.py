"""A churn model as one ONNX graph, from the encoded matrix to the calibrated probability.

An isotonic calibration is steep between its steps and can turn a difference in the eighth digit into one in the fourth:
before one, trees are added up in the order of the model itself. What scikit-learn adds up in floats (logistic
regression, network) has an order that only its BLAS knows; there the last digit may differ.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import xgboost as xgb
from onnx import helper
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

import lcm_ml
from lcm_ml.churn.boosting import Trees
from lcm_ml.churn.calibration import Calibration
from lcm_ml.churn.ensemble import Ensemble
from lcm_ml.churn.estimator import ESTIMATORS, Estimator
from lcm_ml.churn.metrics import PROBABILITY_FLOOR
from lcm_ml.churn.model import ChurnModel
from lcm_ml.churn.onnx_graph import BELOW, DOUBLE, FLOAT, OPSETS, Graph, Tree, curve_through, single_leaf
from lcm_ml.churn.pipeline import PipelineEstimator
from lcm_ml.errors import LcmError

INPUT, OUTPUT = "features", "churn_probability"
ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "identity": "Identity"}


def to_onnx(model: ChurnModel, version: str, variant: str) -> bytes:
    """The model as an ONNX file.

    Input `features`: float32, shape (rows, columns) in the order of the encoding's names; NaN is missing, and so is
    what is infinite. Output `churn_probability`: float32, shape (rows,). The metadata say how to encode users.

    Args:
        model: fitted.
        version: its name in ml.model_versions.
        variant: full, pruned or student.

    Raises:
        LcmError: naming a part that cannot be converted.
    """
    graph = Graph()
    infinite = graph.add("IsInf", INPUT)
    x = graph.add("Where", infinite, graph.constant(np.nan, np.float32), INPUT)
    calibrated = _calibrated_probability(graph, model.estimator, model.calibration, x, exact=False)
    rows = graph.add("Reshape", graph.cast(calibrated, FLOAT), graph.constant([-1], np.int64))
    graph.nodes.append(helper.make_node("Identity", [rows], [OUTPUT]))
    names = model.encoding.names
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            model.name,
            [helper.make_tensor_value_info(INPUT, FLOAT, [None, len(names)])],
            [helper.make_tensor_value_info(OUTPUT, FLOAT, [None])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid(domain, number) for domain, number in OPSETS.items()],
        producer_name="lcm-ml",
        producer_version=lcm_ml.__version__,
    )
    # The oldest that the operators allow: runtimes refuse files newer than themselves.
    made.ir_version = helper.find_min_ir_version_for(made.opset_import)
    helper.set_model_props(
        made,
        {
            "model_name": model.name,
            "model_version": version,
            "variant": variant,
            "horizon_days": str(model.horizon_days),
            "columns": json.dumps(model.encoding.to_dict()),
            "matrix_columns": json.dumps(names),
        },
    )
    onnx.checker.check_model(made)
    content: bytes = made.SerializeToString()
    return content


def _calibrated_probability(graph: Graph, estimator: Estimator, calibration: Calibration, x: str, exact: bool) -> str:
    """Calibrated probabilities, in doubles, shape (rows, 1)."""
    steep = calibration.kind == "isotonic"
    return _calibrated(graph, _probability(graph, estimator, x, exact or steep), calibration)


def _probability(graph: Graph, estimator: Estimator, x: str, exact: bool) -> str:
    """Probabilities before calibration, in doubles, shape (rows, 1); `exact`: to the last digit where that can be."""
    if isinstance(estimator, Trees):
        return _booster(graph, estimator._booster, x, exact)
    if isinstance(estimator, PipelineEstimator):
        return _pipeline(graph, estimator._pipeline, x, estimator.name)
    if isinstance(estimator, Ensemble):
        members = [
            _calibrated_probability(graph, member, estimator._calibrations.get(name, Calibration()), x, exact)
            for name, member in estimator._members.items()
        ]
        return graph.add("Div", graph.add("Sum", *members), graph.constant(len(members)))
    raise _unknown(estimator.name, type(estimator).__name__)


def _unknown(model: str, part: str) -> LcmError:
    return LcmError(
        f"{model} cannot be exported: there is no ONNX form of its {part}",
        f"export one of {', '.join(ESTIMATORS)}, or a class of your own that skl2onnx converts",
    )


def _calibrated(graph: Graph, p: str, calibration: Calibration) -> str:
    """Calibration.apply."""
    if calibration.kind == "sigmoid":
        floor, ceiling = graph.constant(PROBABILITY_FLOOR), graph.constant(1 - PROBABILITY_FLOOR)
        kept = graph.add("Clip", p, floor, ceiling)
        odds = graph.add("Div", kept, graph.add("Sub", graph.constant(1.0), kept))
        slope, intercept = graph.constant(calibration.outputs[0]), graph.constant(calibration.inputs[0])
        return _sigmoid(graph, graph.add("Add", intercept, graph.add("Mul", slope, graph.add("Log", odds))))
    if calibration.kind == "isotonic":
        return graph.curves(p, [curve_through(np.array(calibration.inputs), np.array(calibration.outputs))])
    return p


def _sigmoid(graph: Graph, z: str) -> str:
    """The logistic function in doubles; the operator Sigmoid is an approximation to some runtimes."""
    one = graph.constant(1.0)
    return graph.add("Div", one, graph.add("Add", one, graph.add("Exp", graph.add("Neg", z))))


def _booster(graph: Graph, booster: xgb.Booster, x: str, exact: bool) -> str:
    """XGBoost adds up and divides in floats, the base score first."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    objective, kind = learner["objective"]["name"], learner["gradient_booster"]["name"]
    if objective not in ("binary:logistic", "reg:squarederror") or kind != "gbtree":
        raise _unknown("xgboost", f"objective {objective} with {kind}")
    base = np.float32(json.loads(learner["learner_model_param"]["base_score"])[0])
    logistic = objective == "binary:logistic"
    start = -np.log(np.float32(1) / base - np.float32(1)) if logistic else base
    grown = [_booster_tree(entry) for entry in learner["gradient_booster"]["model"]["trees"]]
    margin = graph.sum_of_trees(x, [single_leaf(float(start)), *grown], BELOW, in_order=exact)
    if not logistic:
        return graph.add("Clip", graph.cast(margin, DOUBLE), graph.constant(0.0), graph.constant(1.0))
    power = graph.cast(graph.add("Exp", graph.cast(graph.add("Neg", margin), DOUBLE)), FLOAT)
    one = graph.constant(1.0, np.float32)
    return graph.cast(graph.add("Div", one, graph.add("Add", one, power)), DOUBLE)


def _booster_tree(entry: dict[str, Any]) -> Tree:
    numbers = np.array(entry["split_conditions"], dtype=np.float32).astype(np.float64)
    return Tree(
        np.array(entry["left_children"]),
        np.array(entry["right_children"]),
        np.array(entry["split_indices"]),
        numbers,
        np.array(entry["default_left"], dtype=bool),
        numbers,
    )


def _pipeline(graph: Graph, pipeline: Pipeline, x: str, name: str) -> str:
    for _, step in pipeline.steps[:-1]:
        if type(step) not in PREPARATIONS:
            raise _unknown(name, type(step).__name__)
        x = PREPARATIONS[type(step)](graph, step, x)
    classifier = pipeline.steps[-1][1]
    return CLASSIFIERS.get(type(classifier), _converted)(graph, classifier, x)


def _imputed(graph: Graph, imputer: SimpleImputer, x: str) -> str:
    missing = graph.add("IsNaN", x)
    filled = graph.add("Where", missing, graph.constant(imputer.statistics_, np.float32), x)
    if imputer.indicator_ is None or not len(imputer.indicator_.features_):
        return filled
    flagged = graph.add("Gather", missing, graph.constant(imputer.indicator_.features_, np.int64), axis=1)
    return graph.add("Concat", filled, graph.cast(flagged, FLOAT), axis=1)


def _ranks(graph: Graph, transformer: QuantileTransformer, x: str) -> str:
    """Ranks between 0 and 1; where a value fills several quantiles, half way between them."""
    curves = [curve_through(own, transformer.references_, first=0.0, last=1.0) for own in transformer.quantiles_.T]
    return graph.cast(graph.curves(graph.cast(x, DOUBLE), curves), FLOAT)


def _scaled(graph: Graph, scaler: StandardScaler, x: str) -> str:
    centred = graph.rounded(graph.add("Sub", graph.cast(x, DOUBLE), graph.constant(scaler.mean_)))
    return graph.cast(graph.add("Div", centred, graph.constant(scaler.scale_)), FLOAT)


def _regression(graph: Graph, regression: LogisticRegression, x: str) -> str:
    z = graph.add("MatMul", graph.cast(x, DOUBLE), graph.constant(regression.coef_.T))
    return graph.rounded(_sigmoid(graph, graph.add("Add", z, graph.constant(regression.intercept_))))


def _network(graph: Graph, network: MLPClassifier, x: str) -> str:
    layer = graph.cast(x, DOUBLE)
    for place, (weights, offsets) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        if place:
            layer = graph.add(ACTIVATIONS[network.activation], layer)
        layer = graph.add("Add", graph.add("MatMul", layer, graph.constant(weights)), graph.constant(offsets))
    return graph.rounded(_sigmoid(graph, layer))


def _tree(graph: Graph, classifier: DecisionTreeClassifier, x: str) -> str:
    grown = classifier.tree_
    tree = Tree(
        grown.children_left,
        grown.children_right,
        grown.feature,
        grown.threshold,
        grown.missing_go_to_left.astype(bool),
        grown.value[:, 0, 1] / grown.value[:, 0].sum(axis=1),
    )
    return graph.leaf_values(graph.cast(x, DOUBLE), [tree], [tree.value[tree.leaves]])[0]


def _histogram_boosting(graph: Graph, classifier: HistGradientBoostingClassifier, x: str) -> str:
    stages = [stage[0].nodes for stage in classifier._predictors]
    if any(nodes["is_categorical"].any() for nodes in stages):
        raise _unknown("gradient boosting", "splits by category")
    trees = [
        Tree(
            np.where(nodes["is_leaf"], -1, nodes["left"].astype(np.int64)),
            nodes["right"].astype(np.int64),
            nodes["feature_idx"],
            nodes["num_threshold"],
            nodes["missing_go_to_left"].astype(bool),
            nodes["value"],
        )
        for nodes in stages
    ]
    values = np.concatenate([tree.value[tree.leaves] for tree in trees])
    steps = graph.leaf_values(graph.cast(x, DOUBLE), trees, [values])[0]
    start = graph.constant(np.ravel(classifier._baseline_prediction))
    return _sigmoid(graph, graph.add("Add", start, graph.add("ReduceSum", steps, graph.constant([1], np.int64))))


def _converted(graph: Graph, classifier: Any, x: str) -> str:
    """Whatever skl2onnx knows."""
    if isinstance(classifier, xgb.XGBClassifier):
        return _booster(graph, classifier.get_booster(), x, exact=True)
    from skl2onnx import to_onnx as convert
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    kind = FloatTensorType([None, classifier.n_features_in_])
    try:
        found = convert(
            classifier,
            initial_types=[("x", kind)],
            options={id(classifier): {"zipmap": False}},
            target_opset=OPSETS,
        )
    except (MissingConverter, MissingShapeCalculator, NameError, RuntimeError, NotImplementedError):
        raise _unknown("custom", type(classifier).__name__) from None
    probabilities = graph.absorb(found, x)[1]
    return graph.cast(graph.add("Gather", probabilities, graph.constant([1], np.int64), axis=1), DOUBLE)


PREPARATIONS: dict[type, Callable[[Graph, Any, str], str]] = {
    SimpleImputer: _imputed,
    QuantileTransformer: _ranks,
    StandardScaler: _scaled,
}
CLASSIFIERS: dict[type, Callable[[Graph, Any, str], str]] = {
    LogisticRegression: _regression,
    MLPClassifier: _network,
    DecisionTreeClassifier: _tree,
    HistGradientBoostingClassifier: _histogram_boosting,
}
