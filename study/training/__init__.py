"""One trial in memory: settings in, measurements out, with one worker or several.
Must not know Ray, the results folder, other trials or why a trial is started."""
