"""Writes the household task: `python -m training.tasks.household path/to/folder [--large]`."""

from modeling_rabtriever.tasks.household import main

if __name__ == "__main__":
    main()
