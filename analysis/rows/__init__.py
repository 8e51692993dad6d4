"""From the tables of a results folder to the rows that are meant, with theory beside them and words for both. Reads the
store and the settings; must not know fits, figures or pages."""
