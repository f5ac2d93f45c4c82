"""Churn models: encoding, estimators, calibration, evaluation and scoring, from frames to frames."""
