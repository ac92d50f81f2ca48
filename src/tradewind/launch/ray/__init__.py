"""Runs on a Ray cluster: submitted through its job API, one agent in an actor on each host of a placement group."""
