"""One module per codec, same stem as its spec page.

Each has ``encode(x, layout) -> fields``, ``coefficients(fields, layout)`` and
``vectors(coefficients, layout)`` on arrays of shape (N, P, D); bytes are made by ``bits``.
"""
