"""Watching what serves: the shop's vital signs, drift of features and scores, and what became of served scores."""
