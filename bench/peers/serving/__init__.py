"""Model servers that serve the same models, each at its best."""
