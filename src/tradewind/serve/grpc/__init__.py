"""Open Inference Protocol v2 over gRPC: another carrier of the same requests to the same models."""
