"""Statistical methods, one module per method: arrays in, numbers out.

Must not know anything else of the project, neither settings nor tables.
"""
