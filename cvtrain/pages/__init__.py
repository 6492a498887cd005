"""Pages that show what a folder holds, to whoever opens them; made from the files of the folder alone."""
