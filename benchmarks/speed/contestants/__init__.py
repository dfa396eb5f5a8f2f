"""
Who is measured by ``inference.py``: SB3, dense libraries and our backends, all with the same sparse weights.

Every contestant is called as SB3's model is, ``predict(observation, deterministic=True)``, and returns ``(action, None)``.
Each must act as SB3 does with the same weights; what cannot be had on a machine is left out, with the reason.
"""
