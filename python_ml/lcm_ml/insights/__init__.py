"""Knowing users: segments, value, recommendations, rules, paths, words, cohorts. Frames in, frames out."""
