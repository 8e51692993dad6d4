"""Every figure as two functions: `numbers_*` returns frozen data that tests read, `draw_*` draws it on given axes."""
