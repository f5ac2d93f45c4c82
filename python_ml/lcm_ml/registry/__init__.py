"""Saved models: artefact folders without pickle, and the table of versions."""
