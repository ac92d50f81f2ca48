"""A small training script that fails in one of many ways; the same for all launchers."""
