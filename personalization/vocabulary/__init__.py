"""Fewer tokens: how many and which of them stay, how other text is spelled, and what teaches a model to do so."""
