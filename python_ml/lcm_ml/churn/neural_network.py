"""A multi-layer perceptron (scikit-learn's), stopped early."""

import numpy as np
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import FloatArray, Range
from lcm_ml.churn.metrics import mean_log_loss
from lcm_ml.churn.pipeline import PipelineEstimator, ranked

MAX_EPOCHS = 60
PATIENCE = 8
USUAL = {"hidden_units": 24, "alpha": 3.0, "learning_rate_init": 0.002, "batch_size": 200}


class NeuralNetwork(PipelineEstimator):
    """One hidden layer on ranks; the validation date says how many epochs."""

    name = "neural_network"
    trusted = ("numpy.dtype", "sklearn.neural_network._stochastic_optimizers.AdamOptimizer")

    def search_space(self) -> dict[str, Range]:
        """Wide around the usual settings."""
        return {
            "hidden_units": Range(4, 64, log=True, integer=True),
            "alpha": Range(0.01, 30.0, log=True),
            "learning_rate_init": Range(0.0003, 0.01, log=True),
        }

    def tune(self, x: FloatMatrix, y: FloatArray, x_validation: FloatMatrix, y_validation: FloatArray) -> FloatArray:
        """Choose the number of epochs on the validation date."""
        prepare = Pipeline(ranked(len(x), self.seed))
        prepared, prepared_validation = prepare.fit_transform(x), prepare.transform(x_validation)
        network = self._network(len(x))
        best_loss, best_epoch, best = np.inf, 0, np.zeros(len(x_validation))
        curves: dict[str, list[float]] = {"train": [], "validation": []}
        for epoch in range(1, MAX_EPOCHS + 1):
            network.partial_fit(prepared, y, classes=[0.0, 1.0])
            probability = network.predict_proba(prepared_validation)[:, 1]
            loss = mean_log_loss(y_validation, probability)
            curves["train"].append(float(network.loss_))
            curves["validation"].append(loss)
            if loss < best_loss:
                best_loss, best_epoch, best = loss, epoch, probability
            elif epoch - best_epoch >= PATIENCE:
                break
        self.settings["epochs"] = best_epoch
        self._curves = curves
        return np.asarray(best, dtype=np.float64)

    def make_pipeline(self, rows: int) -> Pipeline:
        """Preparation and network."""
        return Pipeline([*ranked(rows, self.seed), ("network", self._network(rows))])

    def fit(self, x: FloatMatrix, y: FloatArray) -> None:
        """Fit the preparation, then run the epochs that were chosen."""
        self._pipeline = self.make_pipeline(len(x))
        prepared = self._pipeline[:-1].fit_transform(x)
        for _ in range(self.settings.get("epochs", 10)):
            self._pipeline[-1].partial_fit(prepared, y, classes=[0.0, 1.0])
        self._importance = self._weigh(x, y)

    def _network(self, rows: int) -> MLPClassifier:
        chosen = {**USUAL, **self.settings}
        return MLPClassifier(
            hidden_layer_sizes=(int(chosen["hidden_units"]),),
            alpha=chosen["alpha"],
            learning_rate_init=chosen["learning_rate_init"],
            batch_size=min(int(chosen["batch_size"]), rows),
            random_state=self.seed,
        )
