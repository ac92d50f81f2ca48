"""Labelled scenarios for `why`: what was injected is the label, whatever the explanation makes of it."""
