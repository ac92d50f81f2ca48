"""Seeded requests of every kind that a server on the open internet meets, malformed and valid, over HTTP and gRPC."""
