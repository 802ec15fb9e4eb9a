"""
The public Python API: what a notebook, the command line, the console and a Ray job call.

``beam_ray.open`` gives a ``Store``, and everything else is a method of it or a frozen value that
it returns. One module per noun (runs, backtests, libraries, …) holds the values and the functions
behind the methods; ``store`` only names them. Nothing here prints or exits: notes for people go to
the progress callback, and errors are those of ``beam_ray.errors``. Import the names from
``beam_ray`` itself, which loads each when it is first used.
"""
