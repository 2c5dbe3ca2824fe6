"""How good the candidates are: full rankings at global time cuts, beside the baselines, with intervals.

Takes scorers (a model of several seeds, baselines) and labels; gives ranked lists, tables and a report.
"""
