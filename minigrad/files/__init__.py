"""Files that survive a crash: atomic writes, and archives of arrays without pickle."""
