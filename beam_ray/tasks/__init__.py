"""
Reading tasks from files, libraries, earlier runs and traces, each row with its place for messages.
"""
