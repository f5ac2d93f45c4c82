"""Randomised experiments: their size, who gets what, and what came of it."""
