"""``python -m benchmarks.standard``: see :mod:`benchmarks.standard.measure`."""

from benchmarks.standard.measure import main

main()
