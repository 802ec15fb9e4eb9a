"""The parts of the benchmark: each measures one thing and tells a table and its bars."""
