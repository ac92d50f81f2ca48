"""Ways to keep checkpoints, side by side: ours, PyTorch's DCP, and torch_checkpointing."""
