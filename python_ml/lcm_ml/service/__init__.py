"""The service of `lcm-ml support serve`: look-ups in the published snapshot over HTTP, and a page for marketers."""
