"""Sequence models that turn jagged histories into queries; one concept a file."""
