"""Side-by-side measurements, run by hand: see benchmarks/README.md."""
