"""The documentation as a site: which pages there are beside the files of docs/, and what becomes of their links.

`mkdocs.yml` names the pages, `make docs-site` builds them. Knows the documents, and the parser of the command;
does not know results.
"""
