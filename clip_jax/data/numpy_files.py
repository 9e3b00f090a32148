"""Reading NumPy's files by several threads at once."""

from threading import Lock

ONE_AT_A_TIME = Lock()
"""Held while np.load reads a header, which Python parses: CPython 3.11's parser may fail where threads take turns in it
(SystemError: AST constructor recursion depth mismatch)."""
