"""The calibration suite: what the verdicts promise, measured on data whose law is known.

python -m tests.calibration [ROW…]   see __main__.py; the figures are in reports/calibration.md.
"""
