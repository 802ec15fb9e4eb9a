"""
WHAT is to be done: workflow, prompt, criterion; loaded, checked, identified.

Pure: no network, no clock, no Ray. The road not taken: workflows as Python code. YAML can
be read by people who do not program, compared field by field, and refused with a line
number before anything is spent.
"""
