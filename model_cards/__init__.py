"""The cards of models this repository trains, with the tables of its benchmarks."""
