"""A generative sequential recommender (HSTU), its baselines, evaluation, ranking and export."""
