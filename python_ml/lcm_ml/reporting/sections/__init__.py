"""The report's sections, a module for each group of them."""
