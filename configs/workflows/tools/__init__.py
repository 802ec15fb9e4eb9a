"""The tools of the example workflows."""
