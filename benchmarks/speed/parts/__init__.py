"""The parts of the benchmark: each measures one thing and reports a table and its targets."""
