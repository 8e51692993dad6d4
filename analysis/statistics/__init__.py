"""Statistical methods, each a module named after its method: arrays in, numbers out.

Must not know anything else of the project, neither settings nor tables.
"""
