"""Simulated populations with a known truth: how often do verdicts hold?"""
