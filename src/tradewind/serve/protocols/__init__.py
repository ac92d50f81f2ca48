"""The languages a replica speaks: Open Inference Protocol v2 and the recommendation route."""
