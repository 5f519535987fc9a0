"""Getting GRE through NATs: candidates, plans, probes, paths."""
