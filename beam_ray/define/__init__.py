"""
Workflow definitions: workflow, prompt and criterion are loaded, checked and identified here.

Everything in this package is pure: no network, no clock, no Ray. A workflow is data, whether it
is read from YAML or built in Python, so that it can be read by people who do not program,
compared field by field, and refused before any model is called.
"""
