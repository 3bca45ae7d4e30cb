"""``python -m benchmarks.story``: see :mod:`benchmarks.story.page`."""

from benchmarks.story.page import main

main()
