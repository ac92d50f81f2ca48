"""Crashes on demand: file operations recorded as they happen, and every state of the disk they could leave."""
