"""The documentation: every block of it is run or says why not, and the site that is built from it holds together."""
