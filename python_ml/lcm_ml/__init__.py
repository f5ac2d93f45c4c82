"""User lifecycle management for e-commerce: the Python side of the lcm warehouse."""

__version__ = "0.1.0"
