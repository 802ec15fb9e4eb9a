"""
Task libraries: named, versioned sets of saved tasks, and how well they cover a workflow.

A library is a list of saved tasks, each as it was given, with a note on what it tests. Every
change creates a new version (``changes`` computes it, ``versions`` writes it), so a backtest
can always name the exact tasks that it ran on.

Coverage is measured, never guessed from labels: ``run_history`` reads the results of the tasks
in earlier runs, ``coverage`` and ``gaps`` compare them with the workflow and find past tasks that
fill each gap. There is no single score for a library on purpose: it would hide a route that no
task takes.
"""
