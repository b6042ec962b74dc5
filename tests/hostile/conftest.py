# atheris is of the group fuzz alone; `make fuzz` runs the file, and no test does
collect_ignore = ["fuzzing.py"]
