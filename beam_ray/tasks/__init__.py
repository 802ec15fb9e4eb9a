"""
TO WHAT it is done: tasks read from files, libraries and earlier runs, each row with its place for messages.
"""
