"""The same small training under Tradewind, torchrun and torchft, to be killed and timed."""
