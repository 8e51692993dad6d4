"""What shipped heads look like: features of one of them, and the tables and the figure of docs/findings/shipped-heads.md."""
