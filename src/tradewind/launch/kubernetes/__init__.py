"""Runs on a Kubernetes cluster, on its built-in parts: one pod a host, replaced alone when it is lost."""
