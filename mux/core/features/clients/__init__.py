"""The clients themselves: who is here, and what each person has before them.

``presence`` notifies clients of each other; ``attention`` says who has which thread before them.

Must not import any other room of the features.
"""
