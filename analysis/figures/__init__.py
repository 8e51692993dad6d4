"""Every figure as three functions: `numbers_*` returns data that tests read, `draw_*` draws them, `block_*` adds words. Uses
rows, scaling and effects; must not know pages, and draws nothing that `numbers_*` did not return."""
