"""An error that nobody catches ends the program with 1."""

import atexit

atexit.register(print, "at the end")
print("before")
{}["missing"]
