"""
Libraries: which tasks is a change tried on, and are they a good choice?

A library is a list of tasks that were saved, each as it was given, with why it is there.
Every change makes a new version (``change`` decides it, ``keep`` writes it), so a backtest
can name the tasks that it was run over for ever.

Whether the set is good is measured, never guessed from labels: ``past`` reads what became of
the tasks in earlier runs, ``coverage`` and ``gaps`` compare that with the workflow, ``fill``
looks in the store for past tasks that would close each gap. A score for a set was not made:
ten tasks that all take one route would hide behind it.
"""
