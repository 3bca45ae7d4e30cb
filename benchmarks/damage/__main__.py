"""``python -m benchmarks.damage``: see :mod:`benchmarks.damage.measure`."""

from benchmarks.damage.measure import main

main()
